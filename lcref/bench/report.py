"""What the bench prints and writes: tables, as text and as Markdown, and the picture of growth."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure

from ..plots import DPI, HEAD, REFERENCE, SMALL, TEXT, WIDTH, save
from .cases import BY_NAME
from .lsteps import LStep
from .projections import PeerTiming, Timing, exponent
from .targets import Target

NONE = "–"
FAMILIES = {"quantize": "quantization", "prune": "pruning", "lowrank": "low rank",
            "joint": "sums"}
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")     # Okabe and Ito
MARKERS = "os^"


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits without an exponent, or a dash."""
    if value is None:
        return NONE
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"


def power_of_ten(n: int) -> str:
    """1e6 of a million, else the digits in groups."""
    text = f"{n:.0e}".replace("e+0", "e")
    return text if float(text) == n else f"{n:,}"


def l_step_rows(rows: Sequence[LStep]) -> list[list[str]]:
    """The table of L steps, its head first."""
    found = [["L step, ms a batch", "lcref", "PyTorch", "ratio", "peak MB", "PyTorch",
              "of the step", "PyTorch"]]
    for row in rows:
        cells = [(row.lcref_ms, 1), (row.torch_ms, 1), (row.ratio, 2), (row.lcref_mb, 0),
                 (row.torch_mb, 0), (row.lcref_step_mb, 0), (row.torch_step_mb, 0)]
        found.append([f"{row.net}, batch {row.batch}", *(
            NONE if value is None else f"{value:.{digits}f}" for value, digits in cells)])
    return found


def projection_rows(timings: Sequence[Timing]) -> list[list[str]]:
    """The table of projections, its head first."""
    found = [["projection", "n", "ms", "sorts", "copies", "memory", "peers: times faster"]]
    for t in timings:
        peaks = [p for p in (t.memory, t.process_memory) if p is not None]
        found.append([t.name, power_of_ten(t.n), number(t.seconds and 1e3 * t.seconds),
                      number(t.sorts), number(t.copies), number(max(peaks, default=None)),
                      t.left_out or "; ".join(map(peer_cell, t.peers))])
    return found


def peer_cell(peer: PeerTiming) -> str:
    """A peer in one cell."""
    if peer.left_out:
        return f"{peer.name} {peer.left_out}"
    remark = {True: "lcref's objective is higher", None: "its answer is not feasible"}.get(
        peer.higher, peer.promise)
    return f"{peer.name} {number(peer.faster)}" + (f" ({remark})" if remark else "")


def exponent_rows(timings: Sequence[Timing]) -> list[list[str]]:
    """The exponents of time against n, where there are two sizes or more."""
    found = [["projection", "exponent of n", "from", "to"]]
    for name, points in series(timings).items():
        slope = exponent(points)
        if slope is not None:
            found.append([name, f"{slope:.2f}", *(power_of_ten(int(f(n for n, _ in points)))
                                                  for f in (min, max))])
    return found if len(found) > 1 else []


def series(timings: Sequence[Timing]) -> dict[str, list[tuple[int, float]]]:
    """Of each projection its (n, seconds), by n."""
    found: dict[str, list[tuple[int, float]]] = {}
    for t in timings:
        if t.seconds is not None:
            found.setdefault(t.name, []).append((t.n, t.seconds))
    return {name: sorted(points) for name, points in found.items()}


def target_rows(rows: Sequence[Target]) -> list[list[str]]:
    """The table of targets, its head first."""
    verdict = {True: "met", False: "MISSED", None: "not measured"}
    return [["what", "against", "target", "measured", "", "how"], *(
        [row.what, row.against, f"{row.bound} {row.target:g}", number(row.measured),
         verdict[row.met], row.note] for row in rows)]


def text_table(rows: list[list[str]]) -> str:
    """Columns that stand under each other, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    last = len(widths) - 1
    right = [i > 0 and all(is_number(row[i]) for row in rows[1:]) for i in range(len(widths))]
    return "\n".join("  ".join(
        cell if i == last and not right[i] else f"{cell:{'>' if right[i] else '<'}{widths[i]}}"
        for i, cell in enumerate(row)).rstrip() for row in rows)


def is_number(text: str) -> bool:
    """Whether a cell is one, or a dash in the place of one."""
    return text == NONE or text.replace(",", "").replace(".", "").replace("e", "").isdigit()


def markdown_table(rows: list[list[str]]) -> str:
    """The same rows in Markdown."""
    head, *body = [" | ".join(cell.replace("|", r"\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in (head, " | ".join(["---"] * len(rows[0])), *body))


def tables(found: dict[str, list]) -> list[tuple[str, list[list[str]]]]:
    """(title, rows) of all that was measured."""
    made = [("Projections", projection_rows(found["projections"])),
            ("Growth with n", exponent_rows(found["projections"])),
            ("L steps", l_step_rows(found["l_step"])), ("Targets", target_rows(found["targets"]))]
    return [(title, rows) for title, rows in made if len(rows) > 1]


def as_json(found: dict[str, list], **facts: Any) -> dict[str, Any]:
    """The object of --json and of bench.json."""
    slopes = {name: slope for name, points in series(found["projections"]).items()
              if (slope := exponent(points)) is not None}
    return {**{kind: [asdict(row) for row in rows] for kind, rows in found.items()},
            "exponents": slopes, **facts}


# ---- the picture


def times_figure(timings, file):
    """Write the picture of `draw_times` to `file` and return its path."""
    return save(draw_times(timings), file)


def draw_times(timings):
    """Seconds against n, a panel for each family of projections, with one sort and one copy.

    Both axes are logarithmic, and the legend has the exponents. Only families that were measured
    are drawn.

    Parameters
    ----------
    timings : list of Timing, at least one of which has seconds

    Returns
    -------
    matplotlib.figure.Figure
    """
    timings = [t for t in timings if t.seconds is not None]
    if not timings:
        raise ValueError("nothing to draw: no projection was measured")
    families = [f for f in FAMILIES if any(BY_NAME[t.name].family == f for t in timings)]
    columns = min(2, len(families))
    lines = -(-len(families) // columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 5.2 * lines), dpi=DPI, layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, family in zip(panels, families):
        axes.set_title(FAMILIES[family], fontsize=HEAD, loc="left")
        _draw_family(axes, [t for t in timings if BY_NAME[t.name].family == family])
    for axes in panels[len(families):]:
        axes.set_visible(False)
    return figure


def _draw_family(axes, timings):
    """The lines of one panel."""
    for i, (name, points) in enumerate(series(timings).items()):
        axes.plot(*zip(*points), color=COLORS[i % len(COLORS)], linewidth=1.2, markersize=3.5,
                  marker=MARKERS[i // len(COLORS) % len(MARKERS)], label=_label(name, points))
    for what, style in (("sort", "--"), ("copy", ":")):
        points = _medians(timings, f"{what}_seconds")
        axes.plot(*zip(*points), color=REFERENCE, linewidth=1, linestyle=style,
                  label=_label(f"one {what}", points))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("n, weights", fontsize=TEXT)
    axes.set_ylabel("seconds", fontsize=TEXT)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=SMALL, labelbottom=True, labelleft=True)
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper center",
                bbox_to_anchor=(0.5, -0.13))


def _medians(timings, key):
    """(n, median) of what every projection was measured beside; not of matrices among vectors."""
    plain = [t for t in timings if not BY_NAME[t.name].matrix] or timings
    return [(n, statistics.median(getattr(t, key) for t in plain if t.n == n))
            for n in sorted({t.n for t in plain})]


def _label(name, points):
    slope = exponent(points)
    return name if slope is None else f"{name}, n^{slope:.2f}"
