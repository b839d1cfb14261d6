"""Sums that are solved exactly: a codebook plus at most κ corrections.

    min over θ, s of ‖w − θ − s‖²   subject to   θ_i ∈ C,  ‖s‖₀ ≤ κ

A correction repairs its weight at no cost, so the problem is to quantize all but κ weights. Each
function takes one array, or a list or dict of arrays that have a codebook each and share κ.
"""

import dataclasses
import math
from typing import Any, NamedTuple, cast

from array_api_compat import array_namespace, device, is_numpy_array

from ..inputs import common_scale, real_array, whole
from ..parts import Array, ByTensor, Layout, Sum, combine, leaves, size
from ..tolerance import EPS, slack, squared_norm, wide
from .prune import l0_ball
from .quantize import best_starts, binary, kmeans, nearest, run_means, signs

SMALL = 512  # entries up to which all pairs (i, j) are tabulated
PRICES = 60  # prices tried at most; about five are enough


def codebook_l0(w: Any, codebook: Any, kappa: int) -> Sum:
    """Project onto a given codebook plus at most kappa corrections.

        min over θ, s of ‖w − θ − s‖²   subject to   θ_i ∈ C,  ‖s‖₀ ≤ κ

    θ_i is the entry nearest to w_i, and s repairs the κ largest residuals. Optimal because without
    its correction a weight costs at least its squared distance to C, and the corrections save the
    most where these are largest. Several arrays separate as the weights do. Not unique: as for
    `nearest` and `l0_ball`.

    Parameters
    ----------
    w : array of shape (...), real floating, or a list or dict of arrays
    codebook : sequence of k numbers, or a list or dict of codebooks, one for each array
        Strictly ascending once cast to w's dtype.
    kappa : int, at least 0
        Shared by all arrays.

    Returns
    -------
    Sum
        Of a Codebook ("fixed", or ByTensor of them) and a Sparse, "exact".

    Raises
    ------
    ValueError, TypeError
        codebook is empty, not finite or not strictly ascending; kappa is negative or not an
        integer; the arrays are none or of several dtypes, have a NaN or an infinity, or are not
        real floating.

    Notes
    -----
    O(n log k). Carreira-Perpiñán and Idelbayev, arXiv 2107.04380.
    """
    arrays, kappa = _checked(w, kappa)
    several = isinstance(codebook, (list, dict)) and any(
        hasattr(c, "__len__") or getattr(c, "ndim", 0) for c in leaves(codebook))
    each = leaves(codebook) if several else [codebook] * len(arrays)
    if len(each) != len(arrays):
        raise ValueError(f"codebook must be one for all or one for each of the {len(arrays)} "
                         f"arrays, not {len(each)}")
    return _corrected(w, [nearest(t, c) for t, c in zip(arrays, each)], kappa)


def scaled_binary_l0(w: Any, kappa: int) -> Sum:
    """Project onto two opposite values plus at most kappa corrections.

        min over a, θ, s of ‖w − θ − s‖²   subject to   θ ∈ {−a, a}ⁿ,  a ≥ 0,  ‖s‖₀ ≤ κ

    With the signs of w the weights not corrected cost Σ (abs(w_i) − a)², so this is K-means of
    abs(w) with k = 1 and κ outliers, see `kmeans_l0`. For one array the n − κ weights kept are a
    window of the sorted abs(w), because for any a they are the nearest to it; the window of least
    variance wins, and a is its mean. Not unique where two windows tie: the one of smaller values.

    Parameters
    ----------
    w : array of shape (...), real floating, or a list or dict of arrays
    kappa : int, at least 0
        Shared by all arrays, which have a magnitude each.

    Returns
    -------
    Sum
        Of a Codebook ("scaled", or ByTensor of them) and a Sparse. "exact"; of several arrays
        "exact" or "certified".

    Raises
    ------
    ValueError, TypeError
        kappa is negative or not an integer; the arrays are none or of several dtypes, have a NaN
        or an infinity, or are not real floating.

    Notes
    -----
    O(n log n) by one sort; several arrays as kmeans_l0. Carreira-Perpiñán and Idelbayev, arXiv
    2107.04380.
    """
    return _learned(w, 1, kappa, lambda t: binary(t, scale=True), abs,
                    lambda t, entries: signs(t, entries[0], "scaled"))


def kmeans_l0(w: Any, k: int, kappa: int) -> Sum:
    """Project onto at most k distinct values plus at most kappa corrections: K-means with outliers.

        min over c, θ, s of ‖w − θ − s‖²   subject to   θ ∈ {c_1, ..., c_k}ⁿ,  ‖s‖₀ ≤ κ

    For one array and k = 1 the n − κ weights kept are a window of the sorted weights, of least
    variance: exact. Otherwise each correction is given a price α, and

        g(α) = min over θ, s of ‖w − θ − s‖² + α ‖s‖₀

    is solved exactly for every array: in ascending order the kept weights form at most k runs with
    outliers between, found by dynamic programming over the ends of the runs. g(α) − ακ is a lower
    bound of the optimum for every α ≥ 0, and where the solution has κ corrections it is optimal.
    α is sought on the convex hull of the solutions; where no price gives κ corrections the best
    feasible point found is returned, by Lloyd's steps with the κ largest residuals left out, and
    its distance to the best bound is the gap. Not unique in general.

    Parameters
    ----------
    w : array of shape (...), real floating, or a list or dict of arrays
    k : int, at least 1
    kappa : int, at least 0
        Shared by all arrays, which have a codebook each.

    Returns
    -------
    Sum
        Of a Codebook ("free", or ByTensor of them) and a Sparse. "exact", or "certified": the
        objective exceeds the optimum by at most its gap. With κ = 0 the codebooks of kmeans.

    Raises
    ------
    ValueError, TypeError
        k is less than 1, kappa negative, or either not an integer; the arrays are none or of
        several dtypes, have a NaN or an infinity, or are not real floating.

    Notes
    -----
    O(k n log n) for each of a few prices, O(k n) memory; O(n log n) for one array and k = 1. The
    sums run outwards from the median, so that outliers leave the kept weights' sums as they are;
    where they still cost more digits than the published tolerance allows, the gap holds that.
    Carreira-Perpiñán and Idelbayev, arXiv 2107.04380; the layers are those of `kmeans`.
    """
    k = whole(k, "k", least=1)

    def book(t, entries):
        xp = array_namespace(t)
        entries = xp.unique_values(xp.astype(entries, t.dtype))
        return dataclasses.replace(nearest(t, entries), stored="free")
    return _learned(w, k, kappa, lambda t: kmeans(t, k), lambda t: t, book)


def _checked(w, kappa):
    """The arrays of w, and kappa up to the number of their entries."""
    arrays = leaves(w)
    for array in arrays:
        real_array(array)
    if isinstance(w, (list, dict)):
        Layout.of(w)  # at least one, and of one dtype
    return arrays, min(whole(kappa, "kappa"), sum(map(size, arrays)))


def _corrected(w, books, kappa, gap=0.0):
    """The codebooks, one for each array of w, with their κ largest residuals corrected."""
    layout = Layout.of(w) if isinstance(w, (list, dict)) else None
    each = iter(books)
    books = combine(lambda t: next(each), w)
    residual = combine(lambda t, theta: wide(t) - wide(theta.decompress()), w, books)
    s = l0_ball(residual if layout is None else layout.join(residual), kappa)
    values = array_namespace(s.values).astype(s.values, leaves(w)[0].dtype)
    s = dataclasses.replace(s, values=values, layout=layout)
    theta = books if layout is None else ByTensor(books)
    return Sum((theta, s), "certified" if gap else "exact", gap)


def _learned(w, k, kappa, alone, view, book):
    """The sum of learned codebooks and κ corrections.

    K-means with κ outliers of view(w) gives the entries, `book` the codebook of an array with
    given entries, and `alone` that of an array without corrections.
    """
    arrays, kappa = _checked(w, kappa)
    if kappa == 0:
        return _corrected(w, [alone(t) for t in arrays], 0)
    unit = common_scale(arrays)
    xs = [array_namespace(t).sort(array_namespace(t).reshape(wide(view(t)) / unit, (-1,)))
          for t in arrays if size(t)]
    entries, gap = _kmeans_with_outliers(xs, k, kappa)
    each = iter(entries)
    books = [book(t, next(each) * unit) if size(t) else alone(t) for t in arrays]
    return _corrected(w, books, kappa, gap * unit * unit)


def _kmeans_with_outliers(xs, k, kappa):
    """Entries (float64) for each ascending x, with κ outliers in all, and the certified gap."""
    n = sum(map(size, xs))
    if kappa == n:
        return [_means(x, []) for x in xs], 0.0
    if k == 1 and len(xs) == 1:
        start = _narrowest_window(xs[0], n - kappa)
        return [_means(xs[0], [(start, start + n - kappa)])], 0.0
    middles = [x[size(x) // 2] for x in xs]
    centred = [x - middle for x, middle in zip(xs, middles)]
    entries, gap = _shared_price(centred, k, kappa)
    return [c + middle for c, middle in zip(entries, middles)], gap


def _means(x, runs):
    """The mean of each run x[i:j], ascending, each once; the entry −0 where there is none."""
    xp = array_namespace(x)
    if not runs:
        return xp.asarray([-0.0], dtype=x.dtype, device=device(x))
    return xp.unique_values(run_means(x, runs))


def _narrowest_window(x, length):
    """Where the window of least Σ (x_i − mean)² starts, of all windows of ascending x of a length.

    Every window is the end of one row, entries that all windows share, and the beginning of
    another row. All three are summed outwards with the centre at an entry of the window, so that
    no entry outside the window enters its sums.
    """
    xp, n, spare = array_namespace(x), size(x), size(x) - length
    if spare < length:
        x = x - x[spare]
        before, shared, after = x[None, :spare + 1], x[spare + 1:length], x[None, length:]
    else:
        rows = n // length + 1
        padding = xp.zeros(rows * length - n, dtype=x.dtype, device=device(x)) + x[-1]
        blocks = xp.reshape(xp.concat([x, padding]), (rows, length))
        centres = blocks[:-1, -1:]  # the one entry of a row that all windows from it hold
        before, shared, after = blocks[:-1, :] - centres, x[:0], blocks[1:, :-1] - centres

    def totals(a, c, b):  # of a[r:], c and b[:r], for every r
        a = xp.flip(xp.cumulative_sum(xp.flip(a, axis=1), axis=1), axis=1)
        return a + xp.sum(c) + xp.cumulative_sum(b, axis=1, include_initial=True)
    spreads = totals(before * before, shared * shared, after * after)
    spreads -= totals(before, shared, after) ** 2 / length
    return int(xp.argmin(xp.reshape(spreads, (-1,))[:spare + 1]))


def _shared_price(xs, k, kappa):
    """Entries for each ascending, centred x and the gap, by the price that all corrections share.

    The solutions of all prices are the corners of the convex hull of (corrections, distortion).
    Two that enclose κ are drawn together: by the price that the best point found suggests, else
    by the slope of the line between them, until that line is an edge of the hull.
    """
    layers = [_layer(x) for x in xs]
    best = _trimmed(xs, [kmeans(x, k).entries for x in xs], kappa)
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
        best = min(best, found, key=lambda point: point.distortion)
        repeated = corner[1] in (low[1], high and high[1])
        if corner[1] == kappa or (repeated and high and not inside):
            break
        low, high = (corner, high) if corner[1] > kappa else (low, corner)
        guess = 0.0 if repeated else found.price
    return best.entries, _gap(best, bound, xs)


def _slope(low, high):
    """The price at which two corners (α, corrections, distortion) tie; higher if there is one."""
    if high is None:
        return 4 * low[0]
    return (high[2] - low[2]) / (low[1] - high[1])


def _gap(best, bound, xs):
    """How far the point may lie above the optimum: 0 where that is within the tolerance.

    Sums outwards from the centre are off by at most n·ε of all squares. Where the outliers make
    that more than the tolerance, which counts the kept ones, it is part of the gap.
    """
    n, largest = sum(map(size, xs)), max(float(abs(x[i])) for x in xs for i in (0, -1))
    allowed = slack(n, EPS, best.spread, 0.0, largest)
    lost = n * EPS * sum(squared_norm(x) for x in xs if size(x) > SMALL)
    gap = max(best.distortion - bound, 0.0) + (lost if lost > allowed else 0.0)
    return gap if gap > allowed else 0.0


class _Point(NamedTuple):
    """Entries for each x, with the κ largest residuals left out."""

    distortion: float
    entries: list[Array]
    spread: float  # Σ x² of the kept weights
    price: float  # at which no weight would rather be corrected, or the other way round


def _trimmed(xs, entries, kappa, steps=8):
    """A few of Lloyd's steps with the κ largest residuals left out, while they descend."""
    xp, best = array_namespace(*xs), None
    for _ in range(steps):
        books, corrections = cast(Any, codebook_l0(xs, entries, kappa).parts)
        kept = [wide(s == 0) for s in corrections.decompress()]
        residual = [keep * (x - q) for x, q, keep in zip(xs, books.decompress(), kept)]
        value = sum(map(squared_norm, residual))
        if best and value >= best.distortion:
            break
        inner = max(float(xp.max(xp.abs(r))) for r in residual)
        outer = float(xp.min(xp.abs(corrections.values)))
        spread = sum(squared_norm(keep * x) for x, keep in zip(xs, kept))
        best = _Point(value, entries, spread, inner * min(outer, 2 * inner))
        entries = [_centres(x, book.codes, keep, c)
                   for x, book, keep, c in zip(xs, books.parts, kept, entries)]
    return best


def _centres(x, codes, kept, entries):
    """The mean of the kept weights of each code; a code that has none is dropped."""
    xp = array_namespace(x)
    cuts = xp.searchsorted(codes, xp.arange(size(entries) + 1, dtype=codes.dtype, device=device(x)))

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

    SS(i, j) = Σ (x − mean)² over the weights i..j−1 of ascending x. Few weights are tabulated;
    many take divide and conquer, since the best i grows with j: SS(a, c) + SS(b, d) ≤ SS(a, d) +
    SS(b, c) for a ≤ b ≤ c ≤ d.
    """
    xp, n = array_namespace(x), size(x)
    if n <= SMALL:
        table = _all_spreads(x)

        def tabulated(best):
            costs = best[:, None] + table
            return xp.min(costs, axis=0), xp.argmin(costs, axis=0)
        return tabulated
    sums, squares = _sums_outwards(x), _sums_outwards(x * x)
    index = xp.arange(n + 1, dtype=x.dtype, device=device(x))

    def layer(best):
        reward = squares - best

        def value(i, at):  # −F(i) − SS(i, j), but for the squares up to j
            found = at(sums) - xp.take(sums, i)
            found *= found
            found /= xp.clip(at(index) - xp.take(index, i), min=1.0)
            found += xp.take(reward, i)
            return found
        found, starts = best_starts(value, sums)
        return squares - found, starts
    return layer


def _sums_outwards(x):
    """Σ x over the entries from the middle one c up to j, negative for j < c; j = 0..n."""
    xp, c = array_namespace(x), size(x) // 2
    below, above = xp.flip(xp.cumulative_sum(xp.flip(x[:c]))), xp.cumulative_sum(x[c:])
    return xp.concat([-below, xp.zeros_like(x[:1]), above])


def _all_spreads(x):
    """SS(i, j) for all i ≤ j, infinite below, (n + 1, n + 1); centred at the first entry, x_i."""
    xp, n = array_namespace(x), size(x)
    d = xp.triu(x[None, :] - x[:, None])
    index = xp.arange(n + 1, dtype=x.dtype, device=device(x))
    length = index[None, :] - index[:-1, None]  # (n, n + 1)
    sums = xp.cumulative_sum(d, axis=1, include_initial=True)
    squares = xp.cumulative_sum(d * d, axis=1, include_initial=True)
    spreads = squares - sums * sums / xp.clip(length, min=1.0)
    spreads = xp.where(length < 0, xp.full_like(length, xp.inf), spreads)
    last = xp.where(index < n, xp.full_like(index, xp.inf), xp.zeros_like(index))
    return xp.concat([spreads, last[None, :]])


def _running_minimum(x):
    """min over t ≤ j of x_t for every j; by doubling where the standard has nothing faster."""
    xp, reach = array_namespace(x), 1
    if is_numpy_array(x):
        return xp.minimum.accumulate(x)
    while reach < size(x):
        x = xp.concat([x[:reach], xp.minimum(x[reach:], x[:-reach])])
        reach *= 2
    return x
