"""Pictures of a run: its path, the distribution of its parts, a layer as the sum of its parts.

Each picture is a pair of functions: `draw_...` builds a matplotlib Figure from plain arrays and
dicts, `..._figure` writes it as a PNG 1800 pixels wide, to be shown at half that. Nothing here is
global: no pyplot, no settings changed.
"""

from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from .folder import write_whole
from .inputs import NUMBERS, array_of
from .tolerance import wide

WIDTH, DPI = 9.0, 200  # inches, pixels an inch
SMALL, TEXT, HEAD = 8.0, 9.0, 10.0  # font sizes, points

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COMPRESSED, WEIGHTS, REFERENCE, DIRECT = "#0072B2", "#E69F00", "#000000", "#CC79A7"
CORRECTIONS = "#D55E00"

MAX_LEVELS = 16  # a part with more distinct values is drawn as a histogram
MAX_SIDE = 120  # a matrix with more rows or columns is cropped,
CROP = 100  # to this many
LARGEST = 1e300  # values that can be drawn are smaller
FEW = 0.05  # a part with a smaller share of nonzeros is drawn as dots


def path_figure(history, reference, direct, file):
    """Write the picture of `draw_path` to `file` and return its path."""
    return save(draw_path(history, reference, direct), file)


def parts_figure(parts, w, file):
    """Write the picture of `draw_parts` to `file` and return its path."""
    return save(draw_parts(parts, w), file)


def layer_figure(name, reference, parts, file):
    """Write the picture of `draw_layer` to `file` and return its path."""
    return save(draw_layer(name, reference, parts), file)


def save(figure, file):
    """Write a figure to `file`, whole or not at all, and return its path."""
    file = Path(file)
    write_whole(file, lambda to: figure.savefig(to, format="png", metadata={"Software": None}))
    return file


# ---- the path ----------------------------------------------------------------------------------


def draw_path(history, reference, direct):
    """Errors and feasibility at each LC step, beside the reference and direct compression.

    Left, the error of the compressed net Δ(θ) and of the weights w; where no record has an error,
    their losses. Right, the feasibility ‖w − Δ(θ)‖ / ‖w‖. Both against μ, with the LC step on top;
    against the LC step where μ does not grow.

    Parameters
    ----------
    history : list of dict, one a step, at least one
        "step", "mu", "feasibility"; where known "train_error", "test_error" (of w, in %),
        "compressed_train_error", "compressed_test_error", "loss", "compressed_loss". What is
        missing or None is not drawn.
    reference, direct : dict
        Where known "train_error", "test_error", "loss".

    Returns
    -------
    matplotlib.figure.Figure
    """
    if not isinstance(history, (list, tuple)) or not all(isinstance(r, dict) for r in history):
        raise TypeError(f"history must be a list of dicts, not {type(history).__name__}")
    if not history:
        raise ValueError("history is empty: the path needs at least one LC step")
    figure = Figure(figsize=(WIDTH, 4.0), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.06})
    x = _abscissa(history)

    values = _draw_errors(left, history, reference, direct, x)
    feasibility = _column(history, "feasibility")
    right.plot(x, feasibility, color=COMPRESSED, marker="o", markersize=3, linewidth=1.4)
    right.set_ylabel("feasibility ‖w − Δ(θ)‖ / ‖w‖", fontsize=TEXT)

    log_axis(left, values)
    log_axis(right, feasibility)
    for axes in (left, right):
        _path_axis(axes, history, x)
    last = {"compressed net Δ(θ)": history[-1].get("compressed_test_error"),
            "weights w": history[-1].get("test_error"),
            "direct compression": direct.get("test_error"),
            "reference": reference.get("test_error")}
    figure.legend(handles=_path_legend(left, last), loc="outside lower center", ncols=3,
                  frameon=False, fontsize=TEXT, columnspacing=3)
    return figure


def _column(records, key):
    """The records' values under `key` as floats, NaN where there is none."""
    values = [record.get(key) for record in records]
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _abscissa(history):
    """μ where it grows at every step, else the LC step."""
    mu = _column(history, "mu")
    grows = np.all(mu > 0) and np.all(np.diff(mu) > 0)
    return mu if grows else _column(history, "step")


def _draw_errors(axes, history, reference, direct, x):
    """Draw every curve and level there is; return the values drawn."""
    keys = [("test_error", "-"), ("train_error", "--")]
    if all(np.isnan(_column(history, prefix + key)).all()
           for key, _ in keys for prefix in ("", "compressed_")):
        keys = [("loss", "-")]
    axes.set_ylabel("loss" if keys[0][0] == "loss" else "error, %", fontsize=TEXT)

    drawn = []
    for key, style in keys:
        for who, level, color in (("reference", reference, REFERENCE),
                                  ("direct compression", direct, DIRECT)):
            value = level.get(key)
            if value is not None:
                axes.axhline(value, color=color, linestyle=style, linewidth=1.4, label=who)
                drawn.append([value])
        for who, prefix, color, marker in (("weights w", "", WEIGHTS, "^"),
                                           ("compressed net Δ(θ)", "compressed_", COMPRESSED, "o")):
            y = _column(history, prefix + key)
            if not np.isnan(y).all():
                axes.plot(x, y, color=color, linestyle=style, linewidth=1.4, marker=marker,
                          markersize=3, label=who)
                drawn.append(y)
    return np.concatenate(drawn) if drawn else np.zeros(0)


def log_axis(axes, values):
    """Logarithmic y, with a linear stretch down to 0 where a value is 0."""
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if positive.size == 0:
        axes.set_ylim(-0.05, 1)
    elif positive.size == values.size:
        axes.set_yscale("log")
        margin = 1.4 if positive.max() > 2 * positive.min() else 3
        axes.set_ylim(positive.min() / margin, positive.max() * margin)
    else:
        smallest = max(positive.min(), positive.max() / 1000)
        decade = 10.0 ** np.floor(np.log10(smallest))
        axes.set_yscale("symlog", linthresh=decade, linscale=0.4)
        axes.set_ylim(-0.1 * decade, positive.max() * 1.4)
    _plain_ticks(axes)


def _plain_ticks(axes):
    """Ticks written 0.1, 1, 10, and 2 and 5 between them on a short axis."""
    low, high = axes.get_ylim()
    if axes.get_yscale() != "linear":
        steps = (1, 2, 5) if low <= 0 or high / low < 300 else (1,)
        ticks = [s * 10.0**e for e in range(-12, 7) for s in steps]
        smallest = low if low > 0 else axes.yaxis.get_transform().linthresh
        axes.set_yticks([0.0] * int(low <= 0) + [t for t in ticks if smallest <= t <= high])
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def _path_axis(axes, history, x):
    """x = μ on a logarithmic axis with the LC step on top, or the LC step alone."""
    steps, mu = _column(history, "step"), _column(history, "mu")
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=SMALL)
    if not np.array_equal(x, mu):
        axes.set_xlabel("LC step", fontsize=TEXT)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return
    axes.set_xscale("log")
    margin = (mu[-1] / mu[0]) ** 0.04 if len(mu) > 1 else 2.0
    axes.set_xlim(mu[0] / margin, mu[-1] * margin)
    axes.set_xlabel("penalty μ", fontsize=TEXT)
    shown = np.unique(np.linspace(0, len(mu) - 1, min(len(mu), 9)).round().astype(int))
    top = axes.secondary_xaxis("top")
    top.set_xticks(mu[shown], [f"{step:g}" for step in steps[shown]])
    top.xaxis.set_minor_locator(NullLocator())
    top.tick_params(labelsize=SMALL)
    top.set_xlabel("LC step", fontsize=TEXT)


def _path_legend(axes, last):
    """One handle a colour, with its last test error, and one a line style, of what is drawn."""
    lines = {line.get_label(): line for line in axes.get_lines()}
    order = ("compressed net Δ(θ)", "weights w", "direct compression", "reference")
    errors = axes.get_ylabel() != "loss"
    handles = []
    for who in order:
        if who in lines:
            known = errors and last[who] is not None
            label = f"{who}, {last[who]:.2f}% test" if known else who
            handles.append(Line2D([], [], color=lines[who].get_color(), markersize=4, linewidth=1.6,
                                  marker=lines[who].get_marker(), label=label))
    styles = {line.get_linestyle() for line in axes.get_lines()}
    if errors:
        keys = (Line2D([], [], color="0.4", linestyle="-", linewidth=1.4, label="test"),
                Line2D([], [], color="0.4", linestyle="--", linewidth=1.4, label="train"))
        handles += [key for key in keys if key.get_linestyle() in styles]
    return handles


# ---- the distribution of the parts -------------------------------------------------------------


def draw_parts(parts, w):
    """Distribution of the reference weights, of each part, and of their sum, on one axis.

    Parameters
    ----------
    parts : list of (label, values, nonzero)
        `values` is Δ(θ) of the part over all weights of the task, one axis; `nonzero` is its mask
        of corrections, or None. A part with a mask is a histogram of its nonzeros; one with at
        most 16 distinct values is a bar a value; any other is a histogram.
    w : array, one axis
        The reference weights.

    Returns
    -------
    matplotlib.figure.Figure
        The weights first, then the parts, then their sum where there is more than one.
    """
    w = _drawn(w, "w")
    panels = [(f"reference weights w, {w.size:,}", w, None, WEIGHTS)]
    for label, values, nonzero in parts:
        panels.append((label, _drawn(values, f"of parts, {label},"), nonzero,
                       COMPRESSED if nonzero is None else CORRECTIONS))
    if len(parts) > 1:
        total = np.sum([values for _, values, _, _ in panels[1:]], axis=0)
        panels.append(("sum Δ(θ)", total, None, "0.25"))

    figure = Figure(figsize=(WIDTH, 0.6 + 1.4 * len(panels)), dpi=DPI, layout="constrained")
    edges = _bin_edges([values for _, values, _, _ in panels])
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(rows, panels):
        _draw_distribution(axes, *panel, edges)
    rows[-1].set_xlabel("value of a weight", fontsize=TEXT)
    return figure


def _bin_edges(arrays, bins=150):
    """Edges of equal bins over the range of all arrays, with 0 in the middle of a bin."""
    largest = max(float(np.abs(values).max(initial=0.0)) for values in arrays)
    return np.linspace(-1.02, 1.02, bins + 2 - bins % 2) * largest


def _draw_distribution(axes, label, values, nonzero, color, edges):
    """A bar a value for a codebook, else a histogram on a logarithmic axis."""
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    if nonzero is not None:
        values = values[nonzero]
        share = 100 * values.size / max(nonzero.size, 1)
        label = f"{label}, {values.size:,} nonzeros of {nonzero.size:,} ({share:.3g}%)"
    axes.set_title(label, fontsize=HEAD, loc="left")
    if values.size == 0:
        axes.text(0.5, 0.5, "no nonzeros", transform=axes.transAxes, ha="center", va="center",
                  fontsize=TEXT, color="0.4")
        axes.set_yticks([])
    elif nonzero is None and np.unique(values).size <= MAX_LEVELS:
        _draw_levels(axes, values, color)
    else:
        axes.hist(values, edges, color=color, log=True)
        axes.set_ylim(bottom=0.7)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
        axes.set_ylabel("weights\nper bin", fontsize=TEXT)


def _draw_levels(axes, values, color):
    """The share of weights at each of a few values; at most four are named in the title."""
    levels, counts = np.unique(values, return_counts=True)
    shares = 100 * counts / values.size
    named = levels.size <= 4
    axes.vlines(levels, 0, shares, color=color, linewidth=5 if named else 2)
    values = ", ".join(f"{level:.3g}".replace("-", "−") for level in levels if named)
    axes.set_title(f"{axes.get_title('left')}, {levels.size} distinct values" +
                   (f": {values}" if named else ""), fontsize=HEAD, loc="left")
    axes.set_ylim(0, shares.max() * 1.1)
    axes.set_ylabel("weights, %", fontsize=TEXT)


# ---- one layer as the sum of its parts ---------------------------------------------------------


def draw_layer(name, reference, parts):
    """One layer as images: reference ≈ sum = part + part + ..., with one colour scale.

    Parameters
    ----------
    name : str
    reference : array
        The layer's weights. More than two axes become the matrix of first axis × the others, one
        axis becomes a row. A matrix with more than 120 rows or columns is cropped to its first
        100, and the title says so.
    parts : list of (label, values)
        Δ(θ) of each part, in the reference's shape. Where fewer than 5% of the entries of a large
        matrix are nonzero they are drawn as dots, larger than an entry.

    Returns
    -------
    matplotlib.figure.Figure
    """
    shown, where = _crop(reference, "reference")
    pieces = [(fill(label, 24), _crop(values, f"of parts, {label},")[0]) for label, values in parts]
    images = [("reference w", shown)]
    if len(pieces) > 1:
        images.append(("sum Δ(θ)", np.sum([values for _, values in pieces], axis=0)))
    images += pieces
    signs = ["≈", "=", *"+" * len(pieces)]

    lines = max(label.count("\n") for label, _ in images) + 1
    figure, rows, bar = _layer_grid(len(images), shown.shape[0] / shown.shape[1], lines)
    limit = float(np.quantile(np.abs(shown), 0.95)) or float(np.abs(shown).max()) or 1.0
    for i, (axes, (label, values)) in enumerate(zip(rows, images)):
        image = _draw_matrix(axes, values, limit, dots=i > 0)
        axes.set_title(label, fontsize=TEXT)
        if i > 0:
            axes.text(-0.11, 0.5, signs[i - 1], transform=axes.transAxes, fontsize=16,
                      ha="center", va="center")
    figure.suptitle(f"{name}, {where}", fontsize=HEAD, va="top",
                    y=1 - 0.08 / figure.get_figheight())
    figure.colorbar(image, cax=bar, extend="both", format=lambda v, _: f"{v:.2g}".replace("-", "−"))
    bar.tick_params(labelsize=SMALL)
    bar.set_ylabel("weight value", fontsize=TEXT)
    return figure


def _drawn(values, name):
    """Finite real numbers as float64."""
    array_of(values, name, NUMBERS)
    values = wide(values)
    if not values.size or not np.all(np.abs(values) < LARGEST):
        raise ValueError(f"{name} must have finite values, under {LARGEST:g}, and at least one")
    return values


def _crop(values, name):
    """The part of a layer that is shown, as a matrix, and the words that say which."""
    values = _drawn(values, name)
    matrix = values.reshape(values.shape[0], -1) if values.ndim > 1 else values.reshape(1, -1)
    sides = [CROP if side > MAX_SIDE else side for side in matrix.shape]
    where = f"{matrix.shape[0]} × {matrix.shape[1]}"
    if tuple(sides) != matrix.shape:
        where += f": rows 1–{sides[0]}, columns 1–{sides[1]}"
    return matrix[: sides[0], : sides[1]], where


def _layer_grid(count, aspect, lines):
    """A figure with a row of `count` equal boxes under titles of some lines, and a colour bar.

    A box is `aspect` times as high as wide, within limits that keep it readable.
    """
    left, right, bottom, gap = 0.1, 1.1, 0.12, 0.22  # inches, but the gap in boxes
    top = 0.45 + 0.16 * lines
    units = count + gap * (count - 1)
    wide = min((WIDTH - left - right) / units, 2.6)
    high = float(np.clip(aspect * wide, 1.1, 2 * wide))
    height = top + high + bottom
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    start = (WIDTH + left - right - units * wide) / 2
    starts = [start + i * (1 + gap) * wide for i in range(count)]
    rows = [figure.add_axes((x / WIDTH, bottom / height, wide / WIDTH, high / height))
            for x in starts]
    edge = starts[-1] + wide + 0.15
    bar = figure.add_axes((edge / WIDTH, bottom / height, 0.12 / WIDTH, high / height))
    return figure, rows, bar


def _draw_matrix(axes, matrix, limit, dots):
    """The matrix as an image; with `dots`, few nonzeros of a large matrix as dots."""
    scale = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    few = dots and max(matrix.shape) > 40 and np.count_nonzero(matrix) < FEW * matrix.size
    image = axes.imshow(np.zeros_like(matrix) if few else matrix, aspect="auto",
                        interpolation="nearest", **scale)
    if few:
        i, j = np.nonzero(matrix)
        axes.scatter(j, i, c=matrix[i, j], s=9, edgecolors="0.2", linewidths=0.35, **scale)
    axes.set(xticks=[], yticks=[])
    return image
