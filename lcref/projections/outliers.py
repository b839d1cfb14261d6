"""One-dimensional K-means with κ outliers: the learned codebooks of `joint`.

    min over the runs of Σ SS(run)   subject to   κ weights in no run, at most k runs in each x

In ascending order the weights of a cluster that are kept form a run, so an answer is a list of runs
(i, j), the weights i..j−1. SS(i, j) = Σ (x − mean)² is the distortion of one.
"""

import math
from typing import NamedTuple

from array_api_compat import array_namespace, device, is_numpy_array

from ..inputs import scaled
from ..parts import Array, Layout, block_ends, size
from ..tolerance import EPS, slack, squared_norm, wide
from .clusters import Ascending, ascending, best_starts, run_means
from .prune import l0_ball
from .quantize import kmeans, nearest

SMALL, COUNTABLE = 512, 10**8  # entries of each array, and steps, up to which κ is counted exactly
PRICES = 60  # prices tried at most; about five are enough
_DOUBT = 4 * EPS  # of P·x at an end of a run, see _layer


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
    xs = [ascending(scaled(w, unit), reuse=True) for w in ws]
    if k * (kappa + 1) * sum(size(x) ** 2 for x in xs) <= COUNTABLE and (
            max(map(size, xs)) <= SMALL):
        runs = _shared_count([_counted(x, k, min(kappa, size(x))) for x in xs], kappa)
        return [_means(x, found) for x, found in zip(xs, runs)], 0.0
    largest = l0_ball(array_namespace(*xs).concat(xs), kappa).decompress()
    starts = ([array_namespace(x).ones_like(x) for x in xs],  # K-means first, or corrections
              [wide(s == 0) for s in Layout.of(xs).split(largest)])
    best = min((_alternated(xs, k, kappa, kept, 1) for kept in starts), key=_distortion)
    middles = [x[size(x) // 2] for x in map(_kept, xs, best.kept)]
    centred = [x - middle for x, middle in zip(xs, middles)]
    entries, gap = _shared_price(centred, k, kappa,
                                 [c - middle for c, middle in zip(best.entries, middles)])
    return [c + middle for c, middle in zip(entries, middles)], gap


def _counted(x, k, kappa):
    """At most k runs of ascending x with exactly r = 0..κ corrections: [(distortion, runs), ..].

    F_c(j, r) is the least distortion of the first j weights with at most c runs and r corrections:
    the minimum of C_c(j, r) = min over i ≤ j of F_{c−1}(i, r) + SS(i, j), where the c-th run ends
    at j, and of F_c(j − 1, r − 1), where weight j is corrected.
    """
    xp, n, table = array_namespace(x), size(x), _all_spreads(x)
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
            shared, squares = shared + float(xp.sum(d)), squares + float(xp.sum(d * d))
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


def _shared_price(xs, k, kappa, entries):
    """Entries for each ascending, centred x and the gap, by the price that all corrections share.

    The solutions of all prices are the corners of the convex hull of (corrections, distortion).
    Two that enclose κ are drawn together: by the price that the best point found suggests, else
    by the slope of the line between them. It ends at a corner with κ corrections, which is
    optimal, or where that slope gives an old corner: then the line is an edge of the hull.
    """
    layers = [_layer(x) for x in xs]
    best = _trimmed(xs, entries, kappa)
    low, high, guess, bound = (0.0, sum(map(size, xs)), 0.0), None, best.price, 0.0
    for _ in range(PRICES):
        if best.distortion == 0:
            break
        inside = low[0] < guess < (high[0] if high else math.inf)
        alpha = guess if inside else _slope(low, high)
        solved = [_priced(x, layer, k, alpha) for x, layer in zip(xs, layers)]
        corner = (alpha, sum(count for _, count, _ in solved), sum(cost for *_, cost in solved))
        bound = max(bound, corner[2] + alpha * (corner[1] - kappa))
        found = _trimmed(xs, [_means(x, runs) for x, (runs, *_) in zip(xs, solved)], kappa)
        best = min(best, found, key=_distortion)
        repeated = corner[1] in (low[1], high and high[1])
        if corner[1] == kappa or (repeated and high and not inside):
            break  # optimal, or an edge of the hull
        low, high = (corner, high) if corner[1] > kappa else (low, corner)
        guess = 0.0 if repeated else found.price
    if _gap(best, bound, xs, k):
        best = min(best, _alternated(xs, k, kappa, best.kept, 20), key=_distortion)
    return best.entries, _gap(best, bound, xs, k)


def _slope(low, high):
    """The price at which two corners (α, corrections, distortion) tie; higher if there is one."""
    if high is None:
        return 4 * low[0]
    return (high[2] - low[2]) / (low[1] - high[1])


def _gap(best, bound, xs, k):
    """How far the point may lie above the optimum: 0 where that is within rounding.

    Rounding is that of residuals from entries as large as M, summed. It holds the costs of prices
    too, ε of the n·α that they reach in each of k layers. The doubt of `_layer` comes on top where
    it is more than that, 2k times: at both ends of every run.
    """
    n, sizes = sum(map(size, xs)), [abs(x) for x in xs]
    largest = max(float(array_namespace(x).max(x)) for x in sizes)
    doubt = sum(_DOUBT * float(array_namespace(x).max(x) * array_namespace(x).sum(x))
                for x in sizes if size(x) > SMALL)
    allowed = slack(n, EPS, best.distortion, largest * math.sqrt(n * best.distortion), largest)
    allowed += k * n * EPS * best.price
    gap = max(best.distortion - bound, 0.0) + (2 * k * doubt if 2 * k * doubt > allowed else 0.0)
    return gap if gap > allowed else 0.0


class _Point(NamedTuple):
    """Entries for each x, with the κ largest residuals left out."""

    distortion: float
    entries: list[Array]
    kept: list[Array]  # 1.0 where a weight is kept, 0.0 where it is corrected
    price: float  # between the largest squared residual kept, r², and the least one left out; ≤ 2r²


def _distortion(point):
    return point.distortion


def _kept(x, keep):
    """The kept weights of x, or all where none is."""
    return x[keep > 0] if bool(array_namespace(x).any(keep > 0)) else x


def _alternated(xs, k, kappa, kept, cycles):
    """K-means of the kept weights, then the κ largest residuals anew, while that descends."""
    best = None
    for _ in range(cycles):
        entries = [kmeans(_kept(x, keep), k).entries for x, keep in zip(xs, kept)]
        point = _trimmed(xs, entries, kappa)
        if best and point.distortion >= best.distortion:
            break
        best, kept = point, point.kept
    return best


def _trimmed(xs, entries, kappa, steps=8):
    """A few of Lloyd's steps with the κ largest residuals left out, while they descend."""
    xp, layout, best = array_namespace(*xs), Layout.of(xs), None
    for _ in range(steps):
        books = [nearest(x, c) for x, c in zip(xs, entries)]
        residual = [x - book.decompress() for x, book in zip(xs, books)]
        dropped = l0_ball(layout.join(residual), kappa)
        kept = [wide(s == 0) for s in layout.split(dropped.decompress())]
        residual = [keep * r for keep, r in zip(kept, residual)]
        value = sum(map(squared_norm, residual))
        if best and value >= best.distortion:
            break
        inner = max(float(xp.max(xp.abs(r))) for r in residual)
        outer = float(xp.min(xp.abs(dropped.values)))
        best = _Point(value, entries, kept, inner * min(outer, 2 * inner))
        entries = [_centres(x, book.codes, keep, c)
                   for x, book, keep, c in zip(xs, books, kept, entries)]
    return best


def _centres(x, codes, kept, entries):
    """The mean of the kept weights of each code; a code that has none is dropped."""
    xp = array_namespace(x)
    cuts = xp.searchsorted(xp.astype(codes, xp.int64), xp.arange(size(entries) + 1, dtype=xp.int64,
                                                                 device=device(x)))

    def totals(y):
        sums = xp.take(xp.cumulative_sum(y, include_initial=True), cuts)
        return sums[1:] - sums[:-1]
    counts = totals(kept)
    used = counts > 0
    means = xp.unique_values(totals(kept * x)[used] / counts[used])  # ascending despite rounding
    return means if size(means) else entries[:1]


def _priced(x, layer, k, alpha):
    """At most k runs of ascending x, where each weight in none of them costs the price α.

    F_0(j) = αj is the least cost of the first j weights without a run. With C_c(j) = min over
    i ≤ j of F_{c−1}(i) + SS(i, j), where the c-th run ends at j, F_c(j) = min over t ≤ j of
    C_c(t) + α(j − t). Returns (runs, number of corrections, distortion).
    """
    xp, n = array_namespace(x), size(x)
    price = alpha * xp.arange(n + 1, dtype=x.dtype, device=device(x))
    best, solved = price, []
    for _ in range(k):
        closed, starts = layer(best)
        solved.append((closed - price, starts))
        best = price + _running_minimum(closed - price)
    runs: list[tuple[int, int]] = []
    j = n
    for closed, starts in reversed(solved):
        end = int(xp.argmin(closed[:j + 1]))
        j = int(starts[end])
        runs = [(j, end), *runs] if j < end else runs
    distortion = sum(squared_norm(x[i:j] - xp.mean(x[i:j])) for i, j in runs)
    return runs, n - sum(j - i for i, j in runs), distortion


def _layer(x):
    """The function of F: (min over i ≤ j of F(i) + SS(i, j), the best i), each for j = 0..n.

    SS(i, j) = Σ (x − mean)² over the weights i..j−1 of ascending x: from a table for few weights,
    else by divide and conquer, since the best i grows with j: SS(a, c) + SS(b, d) ≤ SS(a, d) +
    SS(b, c) for a ≤ b ≤ c ≤ d. The sums of that run outwards from 0, the middle of the weights
    that a first answer keeps. Where P = Σ x up to an end of a run is large, at outliers, a few ε
    of P·x there are in doubt; the run is charged for that.
    """
    xp, n = array_namespace(x), size(x)
    if n <= SMALL:
        table = _all_spreads(x)

        def tabulated(best):
            costs = best[:, None] + table
            return xp.min(costs, axis=0), xp.argmin(costs, axis=0)
        return tabulated
    centre = int(xp.sum(xp.astype(x < 0, xp.int64)))
    sums, squares = _sums_outwards(x, centre), _sums_outwards(x * x, centre)
    ends = xp.concat([x[:centre], xp.zeros_like(x[:1]), x[centre:]])
    doubt = _DOUBT * xp.abs(sums * ends)
    index = xp.arange(n + 1, dtype=x.dtype, device=device(x))

    def layer(best):
        reward = squares - best - doubt

        def value(i, at):  # −F(i) − SS(i, j), but for the squares up to j
            found = at(sums) - xp.take(sums, i)
            found *= found
            found /= xp.clip(at(index) - xp.take(index, i), min=1.0)
            found += xp.take(reward, i)
            return found
        found, starts = best_starts(value, xp.arange(n + 1, dtype=xp.int64, device=device(x)))
        return squares - found + doubt, starts
    return layer


def _sums_outwards(y, c):
    """Σ y over the entries from c up to j, negative for j < c; j = 0..n."""
    below, above = running_sums(array_namespace(y).flip(y[:c])), running_sums(y[c:])
    return array_namespace(y).concat([-array_namespace(y).flip(below)[:-1], above])


def _all_spreads(x):
    """SS(i, j) for all i ≤ j, infinite below, (n + 1, n + 1); centred at the first entry, x_i."""
    xp, n = array_namespace(x), size(x)
    d = xp.triu(x[None, :] - x[:, None])
    index = xp.arange(n + 1, dtype=x.dtype, device=device(x))
    length = index[None, :] - index[:-1, None]  # (n, n + 1)
    sums, squares = running_sums(d), running_sums(d * d)
    spreads = squares - sums * sums / xp.clip(length, min=1.0)
    spreads = xp.where(length < 0, xp.full_like(length, xp.inf), spreads)
    last = xp.where(index < n, xp.full_like(index, xp.inf), xp.zeros_like(index))
    return xp.concat([spreads, last[None, :]])


def running_sums(x: Array) -> Array:
    """Sums of the first 0, 1, .. n entries along the last axis, each off by about one rounding.

    A running sum loses a little at every step; what each step lost is exact (a difference of two
    floating numbers is a floating number plus an error that is one too) and summed beside it.
    """
    xp = array_namespace(x)
    total = xp.cumulative_sum(x, axis=-1, include_initial=True)
    before, after = total[..., :-1], total[..., 1:]
    step = after - before
    virtual = after - step
    error = after - (step + virtual)
    virtual -= before
    error += virtual
    step -= x
    step += error  # less what was lost
    total -= xp.cumulative_sum(step, axis=-1, include_initial=True)
    return total


def _running_minimum(x):
    """min over t ≤ j of x_t for every j; by doubling where the standard has nothing faster."""
    xp, reach = array_namespace(x), 1
    if is_numpy_array(x):
        return xp.minimum.accumulate(x)
    while reach < size(x):
        x = xp.concat([x[:reach], xp.minimum(x[reach:], x[:-reach])])
        reach *= 2
    return x
