"""The page that walkthrough.py writes: its text, the lines of lcref that it names, its pictures."""

import functools
import inspect
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

import lcref

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#999999"  # safe for colour blindness
PAGE: list[str] = []    # what was said so far, in Markdown


def say(text):
    PAGE.append(text)
    print(text + "\n")


def section(function):
    """Say the docstring of a section before it computes."""
    @functools.wraps(function)
    def told(*args):
        say(inspect.getdoc(function))
        return function(*args)
    return told


def show(**arrays):
    """Matrices by name, as blocks; a zero that rounding left negative loses its sign."""
    for name, array in arrays.items():
        rows = np.round(np.atleast_2d(array), 4) + 0.0
        lines = ["  ".join(f"{x:8.4f}" for x in row) for row in rows]
        say(f"```text\n{name} =\n" + "\n".join(lines) + "\n```")


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    say("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


def numbers(values):
    """Numbers in ascending order, for a sentence."""
    return ", ".join(f"{x:.4g}" for x in np.sort(values, axis=None))


# ---- the lines of lcref ------------------------------------------------------------------------


def at(owner, text):
    """The file, the line and the source where a text stands in a function, class or module."""
    lines, first = inspect.getsourcelines(owner)
    found = [(i, line.strip()) for i, line in enumerate(lines, max(first, 1)) if text in line]
    if len(found) != 1:
        raise LookupError(f"{text!r} stands on {len(found)} lines of {owner.__name__}, not on one")
    file = Path(inspect.getsourcefile(owner)).relative_to(Path(lcref.__file__).parent.parent)
    return file.as_posix(), *found[0]


def in_lcref(*places):
    """Say where lcref does it: pairs of a function, class or module, and a text of the line."""
    say("In lcref:\n\n" + "\n".join(
        f"- [`{file}:{line}`](../../../../{file}#L{line}) `{source}`"
        for file, line, source in (at(*place) for place in places)))


# ---- the pictures ------------------------------------------------------------------------------


def picture(out, name, draw, title, panels=1):
    """Draw into the axes of a new figure, write it, and put it on the page."""
    figure = Figure(figsize=(7.5, 2 + 2.2 * panels), layout="constrained")
    draw(*figure.subplots(panels, squeeze=False)[:, 0])
    figure.suptitle(title)
    figure.savefig(out / f"{name}.png", dpi=110)
    say(f"![{title}]({name}.png)")


def draw_cuts(x, costs, m, weights, cost):
    """Ascending weights in their two runs, and the cost of each cut; the best is after m."""
    places = np.arange(1, x.size + 1)
    for run, colour, drop in ((slice(m), BLUE, -0.3), (slice(m, None), ORANGE, 0.1)):
        weights.bar(places[run], x[run], color=colour)
        weights.hlines(x[run].mean(), places[run][0] - 0.5, places[run][-1] + 0.5, color="black")
        weights.text(m + 0.3 + (drop > 0) * 0.4, x[run].mean() + drop, f"{x[run].mean():.4f}",
                     ha="left" if drop > 0 else "right")
    cost.plot(places[:-1] + 0.5, costs, "o-", color="black")
    cost.text(m + 0.5, 18, f"the least,\n{costs[m - 1]:.4f}", ha="center",
              bbox={"facecolor": "white", "edgecolor": "none"})
    for axes in (weights, cost):
        axes.axvline(m + 0.5, color=GREY, linestyle="--", zorder=0)
        axes.set_xlim(0, x.size + 1)
    weights.set(ylabel="weight, and mean of its run")
    cost.set(ylabel="squared distance", ylim=(0, None),
             xlabel="weights in ascending order; a cut falls between two of them")


def draw_half_steps(rows, other, total, axes):
    for name, found, style, colour in (("±a first", rows, "o-", BLUE),
                                       ("corrections first", other, "s--", GREEN)):
        axes.semilogy(np.arange(1, len(found) + 1), [cost for _, _, cost in found], style,
                      color=colour, label=f"{name}, ends at {found[-1][2]:.4f}")
    axes.axhline(total, color=ORANGE, label=f"exact optimum, {total:.4f}", zorder=0)
    axes.legend()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_yticks([2.5, 3, 4, 5, 6, 8, 10, 15, 20], minor=False)
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel="half-step", ylabel="squared distance (logarithmic)")


def draw_window(x, costs, best, m, weights, windows):
    """Ascending magnitudes, m of them in the best window, and the costs of all windows."""
    places = np.arange(1, x.size + 1)
    inside = (places > best) & (places <= best + m)
    weights.bar(places[inside], x[inside], color=BLUE, label="quantized to ±a")
    weights.bar(places[~inside], x[~inside], color=ORANGE, hatch="//", label="corrected")
    weights.axhline(x[inside].mean(), color="black", linestyle="--",
                    label=f"a = {x[inside].mean():.4f}")
    weights.legend(loc="upper left")
    weights.set(ylabel="magnitude of the weight", xlim=(0, x.size + 1))
    for i, cost in enumerate(costs):
        windows.barh(i + 1, m, left=i + 0.5, height=0.7, color=BLUE if i == best else GREY)
        windows.text(i + 0.5 + m / 2, i + 1, f"cost {cost:.4f}" + ", the least" * (i == best),
                     ha="center", va="center", color="white" if i == best else "black")
    windows.set(ylabel="window", yticks=np.arange(1, len(costs) + 1), xlim=(0, x.size + 1),
                xlabel="weights in ascending order of magnitude")
    windows.invert_yaxis()


def draw_path(steps, quadratic, weights, distance):
    """Four weights along the steps, and the feasibility with and without multipliers."""
    k = np.arange(1, len(steps) + 1)
    for (i, j), colour in (((0, 2), BLUE), ((0, 1), ORANGE), ((2, 1), GREEN), ((1, 4), "black")):
        weights.plot(k, [s.w["weight"][i, j] for s in steps], color=colour, label=f"w[{i}, {j}]")
        weights.plot(k, [s.delta["weight"][i, j] for s in steps], "--", color=colour)
    weights.plot([], [], "--", color=GREY, label="Δ(θ) of each")
    weights.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    weights.set(ylabel="weight")
    for found, style, colour, name in ((steps, "-", BLUE, "multipliers λ"),
                                       (quadratic, "--", ORANGE, "λ = 0")):
        distance.semilogy(k, [s.feasibility for s in found], style, color=colour, label=name)
    distance.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    distance.set(xlabel="LC step", ylabel="feasibility, ‖w − Δ(θ)‖ / ‖w‖")
