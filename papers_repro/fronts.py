"""Intervals, fronts, pictures and tables of the rows that `common` collects."""

import math

from scipy.stats import binomtest

from lcref import choice, sweep_plots

Z = 1.959964    # of a two-sided interval of 95%


# ---- intervals ---------------------------------------------------------------------------------


def wilson(count, n):
    """The 95% interval of Wilson for a share of which count of n were seen, in percent."""
    share, more = count / n, Z * Z / n
    centre = (share + more / 2) / (1 + more)
    half = Z * math.sqrt(share * (1 - share) / n + more / (4 * n)) / (1 + more)
    return 100 * (centre - half), 100 * (centre + half)


def interval(row):
    """The same of a row's test error."""
    error, count = row["lc"]["test_error"], len(row["wrong"])
    n = round(100 * count / error) if count else 10_000
    return wilson(error * n / 100, n)


def paired(one, other):
    """The images that only one row gets wrong, that only the other does, and McNemar's exact p."""
    first, second = set(one["wrong"]), set(other["wrong"])
    only, others = len(first - second), len(second - first)
    p = binomtest(only, only + others).pvalue if only + others else 1.0
    return only, others, float(p)


# ---- the front ---------------------------------------------------------------------------------


def is_sum(row):
    return "+" in row["kind"]


def front(rows, quantity="test_error", storage="float32"):
    """The rows of the Pareto front of ratio and error (or loss), by rising ratio."""
    points = [(row["ratio"][storage], row["lc"][quantity]) for row in rows]
    return sorted((rows[i] for i in choice.front(points)), key=lambda row: row["ratio"][storage])


def versus_single(row, rows, storage="float32"):
    """The single compression of lowest error with at least the ratio of a row; None without one."""
    smaller = [other for other in rows if not is_sum(other)
               and other["ratio"][storage] >= row["ratio"][storage]]
    return min(smaller, key=lambda other: other["lc"]["test_error"], default=None)


def picture(rows, folder, storage="float32"):
    """Draw test errors and losses against the ratio, by kind, with the fronts."""
    drawn = [{"key": row["name"], "kind": row["kind"], "settings": {}, "result": row}
             for row in rows]
    sweep_plots.error_ratio_figure(drawn, folder / "error-ratio.png", storage)
    sweep_plots.loss_ratio_figure(drawn, folder / "loss-ratio.png", storage)


def markdown(header, rows):
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def what(row):
    """The compression of a row; the tensors are named where there are several tasks."""
    tasks = row["tasks"]
    return "; ".join(tasks) if len(tasks) > 1 else tasks[0].split(": ", 1)[1]


def front_table(rows, storage="float32"):
    """The front in Markdown, each sum beside the best single compression of at least its ratio."""
    lines = []
    for row in front(rows, storage=storage):
        low, high = interval(row)
        single = versus_single(row, rows, storage) if is_sum(row) else None
        beside = ["none" if is_sum(row) else "", "", ""]
        if single:
            only, others, p = paired(row, single)
            beside = [f"{what(single)}, {single['ratio'][storage]:.2f}",
                      f"{single['lc']['test_error']:.2f}%", f"{only} / {others}, {p:.2g}"]
        lines.append([what(row), f"{row['ratio'][storage]:.2f}",
                      f"{row['lc']['test_error']:.2f}% ({low:.2f} to {high:.2f})", *beside])
    return front_sentence(rows, storage) + markdown(
        ["on the front of test errors", f"ratio {storage}", "test error (95%)",
         "best single of at least that ratio", "its error",
         "only this one wrong / only the single, p"], lines) + "\n" + loss_table(rows, storage)


def front_sentence(rows, storage="float32"):
    """How many rows of the two fronts are sums, and how many are certainly better in error."""
    errors, losses = (front(rows, quantity, storage) for quantity in ("test_error", "loss"))
    beside = [(row, versus_single(row, rows, storage)) for row in filter(is_sum, errors)]
    certain = sum(single is not None and paired(row, single)[2] < 0.05 for row, single in beside)
    return (f"{len(rows)} rows, {sum(map(is_sum, rows))} of them sums. On the front of test "
            f"errors: {len(errors)}, {len(beside)} of them sums, {certain} of which differ "
            "(p < 0.05) from the best single compression of at least their ratio. On the front of "
            f"training losses: {len(losses)}, {sum(map(is_sum, losses))} of them sums.\n\n")


def loss_table(rows, storage="float32"):
    """The front of training losses, with the lowest loss of a single of at least the ratio."""
    lines = []
    for row in front(rows, "loss", storage):
        singles = [other["lc"]["loss"] for other in rows if not is_sum(other)
                   and other["ratio"][storage] >= row["ratio"][storage]]
        lines.append([what(row), f"{row['ratio'][storage]:.2f}", f"{row['lc']['loss']:.1e}",
                      f"{min(singles):.1e}" if is_sum(row) and singles else ""])
    return markdown(["on the front of training losses", f"ratio {storage}", "training loss",
                     "lowest of a single of at least that ratio"], lines)


def errors_table(rows, more=None, storage="float32"):
    """The rows in Markdown: ratio, errors with their interval, feasibility; and what is asked."""
    more = more or {}
    lines = [[what(row), *(value(row) for value in more.values()),
              f"{row['ratio'][storage]:.2f}", f"{row['direct']['test_error']:.2f}%",
              f"{row['lc']['test_error']:.2f}% ({{:.2f}} to {{:.2f}})".format(*interval(row)),
              f"{row['lc']['train_error']:.2f}%", f"{row['lc']['loss']:.1e}",
              f"{row['feasibility']:.1e}", f"{row['seconds']['total']:.0f}"] for row in rows]
    return markdown(["compression", *more, f"ratio {storage}", "direct", "LC, test error (95%)",
                     "training error", "training loss", "feasibility", "seconds"], lines)


def kinds_table(rows, limits):
    """The largest ratio of each kind of compression within limits on the test error, in %."""
    lines = []
    for kind in sorted({row["kind"] for row in rows}, key=lambda kind: (kind.count("+"), kind)):
        of_kind = [row for row in rows if row["kind"] == kind]
        best = [max((row["ratio"]["float32"] for row in of_kind
                     if row["lc"]["test_error"] <= limit), default=None) for limit in limits]
        lines.append([kind, len(of_kind), *(f"{x:.1f}" if x else "none" for x in best)])
    return markdown(["kind", "runs", *(f"largest ratio at {x}%" for x in limits)], lines)
