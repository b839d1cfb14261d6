"""One-dimensional K-means with κ outliers: the learned codebooks of `joint`.

    min over the runs of Σ SS(run)   subject to   κ weights in no run, at most k runs in each x

In ascending order the weights of a cluster that are kept form a run, so an answer is a list of runs
(i, j), the weights i..j−1. SS(i, j) = Σ (x − mean)² is the distortion of one.
"""

import math
from typing import NamedTuple

from array_api_compat import array_namespace, device, is_numpy_array

from ..parts import Array, block_ends, size
from ..tolerance import EPS, slack, wide
from .clusters import Ascending, ascending, best_clusters, run_means, running_sums
from .priced import DOUBT, SMALL, all_spreads, priced, within

COUNTABLE = 10**8  # steps up to which κ is counted exactly, of arrays up to SMALL
PRICES, BISECTIONS = 60, 100  # prices tried at most (about five are enough), and distances


def kmeans_with_outliers(ws: list[Array], k: int, kappa: int,
                         unit: float) -> tuple[list[Array], float]:
    """Entries (float64) for each vector w / unit, with κ outliers in all, and the certified gap.

    The vectors are sorted in their own memory where that is possible.
    """
    n = sum(map(size, ws))
    if kappa == n:
        return [_means(w, []) for w in ws], 0.0
    if k == 1 and len(ws) == 1:
        x = _ends_in_order(ws[0], kappa)
        start = _narrowest_window(Ascending(x, unit), n - kappa)
        return [_means(x, [(start, start + n - kappa)], unit)], 0.0
    xs, gap = [Ascending(ascending(w, reuse=True), unit) for w in ws], 0.0
    if k * (kappa + 1) * sum(size(w) ** 2 for w in ws) <= COUNTABLE and max(map(size, ws)) <= SMALL:
        runs = _shared_count([_counted(x.read(x.values), k, min(kappa, size(x.values)))
                              for x in xs], kappa)
    else:
        runs, gap = _shared_price(xs, k, kappa)
    return [_means(x.values, found, unit) for x, found in zip(xs, runs)], gap


def _counted(x, k, kappa):
    """At most k runs of ascending x with exactly r = 0..κ corrections: [(distortion, runs), ..].

    F_c(j, r) is the least distortion of the first j weights with at most c runs and r corrections:
    the minimum of C_c(j, r) = min over i ≤ j of F_{c−1}(i, r) + SS(i, j), where the c-th run ends
    at j, and of F_c(j − 1, r − 1), where weight j is corrected.
    """
    xp, n, table = array_namespace(x), size(x), all_spreads(x)
    index = xp.arange(n + 1, dtype=xp.int64, device=device(x))
    never = xp.full_like(table[0, :], xp.inf)
    least = [xp.where(index == r, xp.zeros_like(never), never) for r in range(kappa + 1)]
    choices = []
    for _ in range(k):
        found: list[Array] = []
        rows = []
        for r, before in enumerate(least):
            costs = before[:, None] + table
            closed, starts = xp.min(costs, axis=0), xp.argmin(costs, axis=0)
            if r:
                shifted = xp.concat([never[:1], found[-1][:-1]])
                starts = xp.where(shifted < closed, xp.full_like(starts, -1), starts)
                closed = xp.minimum(shifted, closed)
            found.append(closed)
            rows.append(starts)
        choices.append(rows)
        least = found
    return [(float(f[-1]), _backwards(choices, n, r)) for r, f in enumerate(least)]


def _backwards(choices, j, r):
    """The runs that F_k(j, r) stands for, ascending; a start of −1 is a correction."""
    runs: list[tuple[int, int]] = []
    for rows in reversed(choices):
        while (start := int(rows[r][j])) < 0:
            j, r = j - 1, r - 1
        runs, j = [(start, j)] * (start < j) + runs, start
    return runs


def _shared_count(curves, kappa):
    """The runs of each array where the curves (distortion by corrections) share κ at the least."""
    best: list[tuple[float, list]] = [(0.0, [])] * (kappa + 1)
    for curve in curves:
        best = [min(((best[total - r][0] + cost, [*best[total - r][1], runs])
                     for r, (cost, runs) in enumerate(curve[:total + 1])), key=lambda row: row[0])
                for total in range(kappa + 1)]
    return best[kappa][1]


def _means(x, runs, unit=1.0):
    """The mean of each run x[i:j], ascending, each once; the entry −0 where there is none."""
    xp = array_namespace(x)
    if not runs:
        return xp.asarray([-0.0], dtype=xp.float64, device=device(x))
    return xp.unique_values(run_means(x, runs, unit))


def _ends_in_order(x, spare):
    """x with its lowest spare + 1 and highest spare entries in ascending order, in its own memory.

    What lies between them is in no order, where selection leaves it so.
    """
    n = size(x)
    if not is_numpy_array(x) or 4 * spare > n:
        return ascending(x, reuse=True)
    x.partition(n - spare - 1)
    x[:n - spare - 1].partition(spare)
    x[:spare].sort()
    x[n - spare:].sort()
    return x


def _narrowest_window(x, length):
    """Where the window of least Σ (x_i − mean)² starts, of all windows of ascending x of a length.

    Every window is the end of one row, entries that all windows share (where two windows always
    meet, so that few entries need running sums, and an order), and the beginning of another row.
    All three are summed outwards from the centre c, an entry of the window, so that no entry
    outside it enters its sums. As (mean − c)² ≤ SS, Σ (x − c)² ≤ (length + 1)·SS: sums that are off
    by a few ε of themselves give SS within the published tolerance.
    """
    xp, n, spare = array_namespace(x.values), size(x.values), size(x.values) - length
    shared = squares = 0.0
    if spare < length:
        c = float(x.read(x.values[spare]))
        before, after = (x.read(part)[None, :] - c
                         for part in (x.values[:spare + 1], x.values[length:]))
        for i, j in block_ends(x.values[spare + 1:length]):
            d = x.read(x.values[spare + 1 + i:spare + 1 + j]) - c
            shared += float(xp.sum(d))
            d *= d
            squares += float(xp.sum(d))
    else:
        y, rows = x.read(x.values), n // length + 1
        padding = xp.zeros(rows * length - n, dtype=y.dtype, device=device(y)) + y[-1]
        blocks = xp.reshape(xp.concat([y, padding]), (rows, length))
        centres = blocks[:-1, -1:]  # the one entry of a row that all windows from it hold
        before, after = blocks[:-1, :] - centres, blocks[1:, :-1] - centres

    def totals(a, c, b):  # of a[r:], c and b[:r], for every r
        return xp.flip(running_sums(xp.flip(a, axis=1))[:, 1:], axis=1) + c + running_sums(b)
    spreads = totals(before * before, squares, after * after)
    spreads -= totals(before, shared, after) ** 2 / length
    return int(xp.argmin(xp.reshape(spreads, (-1,))[:spare + 1]))


def _shared_price(xs, k, kappa):
    """The runs in each x, and the gap, by the price that all corrections share.

    The solutions of all prices are the corners of the convex hull of (corrections, distortion).
    Two that enclose κ are drawn together: by the price that the best point found suggests, else
    by the slope of the line between them. It ends at a corner with κ corrections, which is
    optimal, or where that slope gives an old corner: then the line is an edge of the hull.
    """
    best, xs = _first_point(xs, k, kappa)
    n = sum(size(x.values) for x in xs)
    low, high, guess, bound = (0.0, n, 0.0), None, best.price, 0.0
    for _ in range(PRICES):
        if best.distortion == 0:
            break
        inside = low[0] < guess < (high[0] if high else math.inf)
        alpha = guess if inside else _slope(low, high)
        solved = [priced(x, k, alpha) for x in xs]
        dropped = n - sum(j - i for runs in solved for i, j in runs)
        corner = (alpha, dropped, sum(_spread(x, runs) for x, runs in zip(xs, solved)))
        bound = max(bound, corner[2] + alpha * (corner[1] - kappa))
        found = _trimmed(xs, [_centres(x, runs) for x, runs in zip(xs, solved)], kappa)
        best = min(best, found, key=_distortion)
        repeated = corner[1] in (low[1], high and high[1])
        if corner[1] == kappa or (repeated and high and not inside):
            break  # optimal, or an edge of the hull
        low, high = (corner, high) if corner[1] > kappa else (low, corner)
        guess = 0.0 if repeated else found.price
    if _gap(best, bound, xs, k):
        best = min(best, _alternated(xs, best, k, kappa, 20), key=_distortion)
    return best.runs, _gap(best, bound, xs, k)


def _slope(low, high):
    """The price at which two corners (α, corrections, distortion) tie; higher if there is one."""
    if high is None:
        return 4 * low[0]
    return (high[2] - low[2]) / (low[1] - high[1])


def _gap(best, bound, xs, k):
    """How far the point may lie above the optimum: 0 where that is within rounding.

    Rounding is that of residuals from entries as large as M, summed. It holds the costs of prices
    too, ε of the n·α that they reach in each of k layers. The doubt of `priced` comes on top where
    it is more than that, 2k times: at both ends of every run.
    """
    n, largest, doubt = sum(size(x.values) for x in xs), 0.0, 0.0
    for x in xs:
        largest = max(largest, _farthest(x))
        if size(x.values) > SMALL:
            doubt += DOUBT * _farthest(x) * _norm(x)
    allowed = slack(n, EPS, best.distortion, largest * math.sqrt(n * best.distortion), largest)
    allowed += k * n * EPS * best.price
    gap = max(best.distortion - bound, 0.0) + (2 * k * doubt if 2 * k * doubt > allowed else 0.0)
    return gap if gap > allowed else 0.0


class _Point(NamedTuple):
    """Runs of each x with κ weights in none, and their distortion."""

    distortion: float
    runs: list[list[tuple[int, int]]]
    price: float  # the squared residual from the entries up to which weights are kept


def _distortion(point):
    return point.distortion


def _spread(x, runs):
    """Σ SS(run)."""
    return sum(x.mean_and_spread(i, j)[1] for i, j in runs)


def _centres(x, runs):
    """The means of the runs, ascending; 0 where there is none."""
    xp = array_namespace(x.values)
    means = [x.mean_and_spread(i, j)[0] for i, j in runs] or [0.0]
    return xp.unique_values(xp.asarray(means, dtype=xp.float64, device=device(x.values)))


def _first_point(xs, k, kappa):
    """The better of K-means first and of corrections first; and each x about what that keeps.

    About its middle, from where the sums run outwards.
    """
    xs = [x.about(size(x.values) // 2, size(x.values) // 2) for x in xs]
    whole = [[(0, size(x.values))] for x in xs]
    zero = [wide(array_namespace(x.values).zeros_like(x.values[:1])) - x.centre for x in xs]
    starts = (whole, _nearest(xs, zero, kappa)[0])
    best = min((_alternated(xs, _Point(math.inf, runs, 0.0), k, kappa, 1) for runs in starts),
               key=_distortion)
    middles = [_middle(x, runs) for x, runs in zip(xs, best.runs)]
    return best, [x.about(middle, middle) for x, middle in zip(xs, middles)]


def _middle(x, runs):
    """The position of the median of the weights in the runs, or of all where there are none."""
    left = sum(j - i for i, j in runs) // 2
    for i, j in runs:
        if left < j - i:
            return i + left
        left -= j - i
    return size(x.values) // 2


def _alternated(xs, best, k, kappa, cycles):
    """K-means of the kept weights, then the κ largest residuals anew, while that descends."""
    for _ in range(cycles):
        point = _trimmed(xs, [_clustered(x, runs, k) for x, runs in zip(xs, best.runs)], kappa)
        if point.distortion >= best.distortion:
            break
        best = point
    return best


def _clustered(x, runs, k):
    """The entries of K-means of the weights in the runs; of the first where there are none."""
    xp, kept = array_namespace(x.values), [x.values[i:j] for i, j in runs or [(0, 1)]]
    y = Ascending(kept[0] if len(kept) == 1 else xp.concat(kept), x.scale, x.centre)
    return _centres(y, best_clusters(y, k))


def _trimmed(xs, entries, kappa, steps=8):
    """A few of Lloyd's steps with the κ largest residuals left out, while they descend."""
    best = None
    for _ in range(steps):
        runs, price = _nearest(xs, entries, kappa)
        value = sum(_spread(x, found) for x, found in zip(xs, runs))
        if best and value >= best.distortion:
            break
        best = _Point(value, runs, price)
        entries = [_centres(x, found) for x, found in zip(xs, runs)]
    return best


def _nearest(xs, entries, kappa):
    """The runs of all weights but the κ farthest from the entries, and a price.

    By bisection of the distance. Where it parts several at once, the ends of the runs that it adds
    are cut until the number is right.
    """
    keep = sum(size(x.values) for x in xs) - kappa
    low, high = -1.0, 2 * max(_farthest(x) + float(array_namespace(c).max(abs(c)))
                              for x, c in zip(xs, entries))
    inner = [[(i, i) for i, _ in within(x, c, 0.0)] for x, c in zip(xs, entries)]
    outer = [within(x, c, high) for x, c in zip(xs, entries)]
    for step in range(BISECTIONS):
        middle = (max(low, 0.0) + high) / 2 if step else 0.0
        if not low < middle < high:
            break
        runs = [within(x, c, middle) for x, c in zip(xs, entries)]
        kept = sum(j - i for found in runs for i, j in found)
        if kept <= keep:
            low, inner = middle, runs
        if kept >= keep:
            high, outer = middle, runs
        if kept == keep:
            break
    spare = sum(j - i for found in outer for i, j in found) - keep
    cut, reach = [], 0.0
    for x, c, most, least in zip(xs, entries, outer, inner):
        runs, spare = _cut(most, least, spare)
        reach = max(reach, _reach(x, c, runs))
        cut.append([(i, j) for i, j in runs if i < j])
    return cut, min(high * high, 2 * reach * reach)


def _cut(outer, inner, spare):
    """Runs between the outer and the inner ones with so many weights less than the outer."""
    runs = []
    for (start, stop), (i, j) in zip(outer, inner):
        less = min(spare, i - start)
        start, spare = start + less, spare - less
        less = min(spare, stop - j)
        stop, spare = stop - less, spare - less
        runs.append((start, stop))
    return runs, spare


def _farthest(x):
    """max abs(x)."""
    return max(abs(float(x.read(x.values[e]))) for e in (0, -1))


def _reach(x, entries, runs):
    """The largest distance of a weight of the runs from its entry."""
    def far(c, i, j):
        return max(float(c - x.read(x.values[i])), float(x.read(x.values[j - 1]) - c))
    return max((far(c, i, j) for c, (i, j) in zip(entries, runs) if i < j), default=0.0)


def _norm(x):
    """Σ abs(x), of x about 0."""
    xp = array_namespace(x.values)
    ends = xp.asarray([0, size(x.values)], dtype=xp.int64, device=device(x.values))
    return float(xp.sum(x.sums(ends)))
