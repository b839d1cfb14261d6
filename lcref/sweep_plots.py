"""Pictures of a sweep: the error and the training loss of its cells against their ratio.

As in `lcref.plots`: `draw_...` builds a Figure, `..._figure` writes it as a PNG. Cells are the
dicts that `lcref.choice.results` yields, without those that failed.
"""

import json
import math
import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .choice import best, error_of, finished, front, no_cell, ratio, results
from .plots import DPI, REFERENCE, SMALL, TEXT, WIDTH, log_axis, save
from .training import check_writable

OTHER, DIRECT, FAINT = "other kinds", "direct compression", "#CCCCCC"
MAX_KINDS = 8
# A colour of Okabe and Ito's palette, and Tol's wine, and a marker of matplotlib and of bokeh.
LOOKS = (("#0072B2", "o", "circle"), ("#E69F00", "s", "square"), ("#009E73", "^", "triangle"),
         ("#CC79A7", "D", "diamond"), ("#56B4E9", "v", "inverted_triangle"),
         ("#D55E00", "P", "plus"), ("#F0E442", "h", "hex"), ("#882255", "*", "star"))
GREY = ("#999999", "p", "square_pin")
QUANTITIES = {"test_error": "test error, %", "loss": "training loss"}
# A front is the lowest value at each ratio or above it: steps that rise before each of its cells.
FRONTS = {"test_error": "Pareto front of test errors", "loss": "Pareto front of losses"}


@dataclass(frozen=True)
class Points:
    """What a picture shows: a position for each cell, its kind, the front, the reference nets."""

    x: np.ndarray  # ratios
    y: np.ndarray
    direct: np.ndarray  # the same of direct compression
    kinds: list[str]
    front: list[int]  # positions, by rising ratio
    reference: tuple[float, float]  # the lowest and the highest


def points(cells, quantity, storage=None) -> Points:
    """The points of "test_error" or "loss".

    Of a cell whose ratio or value is not finite the value is NaN, which is not drawn.

    Raises
    ------
    ValueError
        There is none with a finite ratio and value.
    """
    x = np.array([ratio(cell, storage) for cell in cells], dtype=float)
    y, direct, reference = (np.array([cell["result"][net][quantity] for cell in cells], dtype=float)
                            for net in ("lc", "direct", "reference"))
    drawn = np.isfinite(x) & (x > 0)
    if not np.any(drawn & np.isfinite(y)):
        raise ValueError(f"nothing to draw: of {len(cells)} cells with a result none has a finite "
                         f"ratio and {QUANTITIES[quantity].removesuffix(', %')}")
    y, direct = (np.where(drawn & np.isfinite(value), value, np.nan) for value in (y, direct))
    known = reference[np.isfinite(reference)]
    span = (float(known.min()), float(known.max())) if known.size else (math.nan, math.nan)
    return Points(x, y, direct, shown_kinds(cells),
                  sorted(front(zip(x.tolist(), y.tolist())), key=lambda i: x[i]), span)


def shown_kinds(cells) -> list[str]:
    """The kind of each cell; of more than 8 kinds all but the most frequent 8 are "other"."""
    counted = Counter(cell["kind"] for cell in cells)
    shown = sorted(counted, key=lambda kind: (-counted[kind], kind))[:MAX_KINDS]
    return [cell["kind"] if cell["kind"] in shown else OTHER for cell in cells]


def looks(kinds) -> dict[str, tuple[str, str, str]]:
    """Kind -> (colour, marker, bokeh's marker), by name, the others last and grey."""
    names = sorted(set(kinds) - {OTHER})
    return dict(zip(names, LOOKS)) | ({OTHER: GREY} if OTHER in kinds else {})


def error_ratio_figure(cells, file, storage=None):
    """Write the picture of `draw_error_ratio` to `file` and return its path."""
    return save(draw_error_ratio(cells, storage), file)


def loss_ratio_figure(cells, file, storage=None):
    """Write the picture of `draw_loss_ratio` to `file` and return its path."""
    return save(draw_loss_ratio(cells, storage), file)


def draw_error_ratio(cells, storage=None):
    """The test error of each cell against its ratio, by kind, with their Pareto front.

    Parameters
    ----------
    cells : list of results that did not fail
    storage : "float16" or "float32", optional
        The convention that counts all ratios. By default each cell's own.

    Returns
    -------
    matplotlib.figure.Figure
    """
    return _draw(cells, "test_error", storage)


def draw_loss_ratio(cells, storage=None):
    """The same of the training loss."""
    return _draw(cells, "loss", storage)


def _draw(cells, quantity, storage):
    shown = points(cells, quantity, storage)
    figure = Figure(figsize=(WIDTH, 5.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    _draw_reference(axes, shown.reference)
    size = float(np.clip(2400 / len(cells), 14, 42))  # square points of ink for a marker
    axes.scatter(shown.x, shown.direct, s=size / 3, color=FAINT, linewidths=0, label=DIRECT)
    _draw_kinds(axes, shown, size)
    axes.step(shown.x[shown.front], shown.y[shown.front], where="pre", color=REFERENCE,
              linewidth=1.1, zorder=4, label=FRONTS[quantity])
    log_axis(axes, np.concatenate([shown.y, shown.direct, shown.reference]))
    _ratio_axis(axes, shown.x[np.isfinite(shown.y)])
    axes.set_xlabel(ratio_title(storage), fontsize=TEXT)
    axes.set_ylabel(QUANTITIES[quantity], fontsize=TEXT)
    axes.set_title(_counted(shown), fontsize=TEXT, loc="left")
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=SMALL)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT)
    return figure


def ratio_title(storage) -> str:
    """The title of the axis of ratios."""
    return "compression ratio" + (f", counted in {storage}" if storage else "")


def _counted(shown):
    """How many cells there are, and how many of them have no point."""
    number, missing = len(shown.y), int(np.isnan(shown.y).sum())
    return f"{number:,} cell{'s' * (number > 1)}" + (
        f", {missing:,} of them not finite" if missing else "")


def _draw_reference(axes, span):
    """A line at the reference net's value; a band where there were several."""
    if span[0] < span[1]:
        axes.axhspan(*span, color="0.85", linewidth=0, label="reference nets")
    for value in sorted(set(span)):
        axes.axhline(value, color=REFERENCE, linestyle="--", linewidth=1.2,
                     label="reference net" if span[0] == span[1] else None)


def _draw_kinds(axes, shown, size):
    """The points of each kind, the rarest on top."""
    kinds, counted = np.array(shown.kinds), Counter(shown.kinds)
    for kind, (color, marker, _) in looks(shown.kinds).items():
        at, named = kinds == kind, kind.replace("$", r"\$")  # $ is mathematics to matplotlib
        axes.scatter(shown.x[at], shown.y[at], s=size * (1.7 if marker == "*" else 1), c=color,
                     marker=marker, edgecolors="0.2", linewidths=0.4, alpha=0.85,
                     label=f"{named}, {counted[kind]:,}", zorder=4 - counted[kind] / len(kinds))


def _ratio_axis(axes, values):
    """Logarithmic x, with ticks written 2, 5, 10; on a short axis the locator takes others."""
    low, high = float(values.min()), float(values.max())
    margin = max((high / low) ** 0.04, 1.004)
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


# ---- lcref plot --------------------------------------------------------------------------------


def run_plot(args) -> int:
    """lcref plot: write the two pictures and the page, and print where they are."""
    write_page = _report()
    if args.out:
        check_writable(args.out)
    cells, failed = finished(results(args.dir))
    if not cells:
        raise ValueError(f"all {len(failed)} cells in {args.dir} failed, the first with "
                         f"{error_of(failed[0])}")
    chosen, satisfied = None, True
    if args.max_error is not None or args.min_ratio is not None:
        chosen, satisfied = best(cells, args.max_error, args.min_ratio, args.storage)
    files = _write(cells, args, lambda file: write_page(cells, failed, args, chosen, satisfied,
                                                        file))
    if args.json:
        print(json.dumps({"files": files, "cells": len(cells), "failed": len(failed)}, indent=1))
    if not args.quiet:
        print(*files, sep="\n", file=sys.stderr if args.json else sys.stdout)
    if not satisfied:
        print(f"lcref plot: {no_cell(chosen, args)}", file=sys.stderr)
    return 0 if satisfied else 1


def _write(cells, args, write_page):
    """Write the three files; return their paths as texts."""
    out = args.out or args.dir
    out.mkdir(parents=True, exist_ok=True)
    return [str(file) for file in (
        error_ratio_figure(cells, out / "error-ratio.png", args.storage),
        loss_ratio_figure(cells, out / "loss-ratio.png", args.storage),
        write_page(out / "report.html"))]


def _report():
    """The function that writes the page, or an error that says how to get what it needs."""
    try:
        from .report import write_page
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "bokeh":
            raise
        raise ValueError("report.html is made by bokeh, which is not installed: "
                         "pip install 'lcref[report]'") from error
    return write_page
