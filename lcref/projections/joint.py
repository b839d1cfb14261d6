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
_DOUBT = 4 * EPS  # of P·x at an end of a run, see _layer


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
        Strictly ascending once cast to w's dtype. A dict has the names of w.
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
    books = [nearest(t, c) for t, c in zip(arrays, _codebook_each(w, codebook, len(arrays)))]
    return _corrected(w, books, kappa)


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


def _codebook_each(w, codebook, count):
    """The codebook of each array: by name, one by one, or one for all."""
    if isinstance(codebook, dict):
        if not isinstance(w, dict) or set(codebook) != set(w):
            raise ValueError(f"a dict of codebooks must have the names of w, not {list(codebook)}")
        return [codebook[name] for name in w]
    if not (isinstance(codebook, list) and any(hasattr(entry, "__len__") or getattr(
            entry, "ndim", 0) for entry in codebook)):
        return [codebook] * count
    if len(codebook) != count:
        raise ValueError(f"codebook must be one for all or one for each of the {count} arrays, "
                         f"not {len(codebook)}")
    return codebook


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
    residual = residual if layout is None else layout.join(residual)
    xp, dtype = array_namespace(residual), leaves(w)[0].dtype
    if kappa and float(xp.max(xp.abs(residual))) > float(xp.finfo(dtype).max):
        raise ValueError(f"a weight is farther from its codebook than {dtype} can hold")
    s = l0_ball(residual, kappa)
    values = xp.astype(s.values, dtype)
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
    best = _trimmed(xs, [kmeans(x, k).entries for x in xs], kappa)
    middles = best.middles
    centred = [x - middle for x, middle in zip(xs, middles)]
    entries, gap = _shared_price(centred, k, kappa,
                                 [c - middle for c, middle in zip(best.entries, middles)])
    return [c + middle for c, middle in zip(entries, middles)], gap


def _means(x, runs):
    """The mean of each run x[i:j], ascending, each once; the entry −0 where there is none."""
    xp = array_namespace(x)
    if not runs:
        return xp.asarray([-0.0], dtype=x.dtype, device=device(x))
    return xp.unique_values(run_means(x, runs))


def _narrowest_window(x, length):
    """Where the window of least Σ (x_i − mean)² starts, of all windows of ascending x of a length.

    Every window is the end of one row, entries that all windows share (where two windows always
    meet, so that few entries need running sums), and the beginning of another row. All three are
    summed outwards from the centre c, an entry of the window, so that no entry outside it enters
    its sums. As (mean − c)² ≤ SS, Σ (x − c)² ≤ (length + 1)·SS: sums that are off by a few ε
    of themselves give SS within the published tolerance.
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
        return xp.flip(running_sums(xp.flip(a, axis=1))[:, 1:], axis=1) + xp.sum(c) + (
            running_sums(b))
    spreads = totals(before * before, shared * shared, after * after)
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
        best = min(best, found, key=lambda point: point.distortion)
        repeated = corner[1] in (low[1], high and high[1])
        if corner[1] == kappa or (repeated and high and not inside):
            break  # optimal, or an edge of the hull
        low, high = (corner, high) if corner[1] > kappa else (low, corner)
        guess = 0.0 if repeated else found.price
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
    middles: list[Array]  # the median of the kept weights of each x
    price: float  # from the largest squared residual kept to the smallest left out, or twice that


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
        inside = [x[keep > 0] if float(xp.max(keep)) else x for x, keep in zip(xs, kept)]
        best = _Point(value, entries, [x[size(x) // 2] for x in inside],
                      inner * min(outer, 2 * inner))
        entries = [_centres(x, book.codes, keep, c)
                   for x, book, keep, c in zip(xs, books.parts, kept, entries)]
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

    SS(i, j) = Σ (x − mean)² over the weights i..j−1 of ascending x. Few weights are tabulated;
    many take divide and conquer, since the best i grows with j: SS(a, c) + SS(b, d) ≤ SS(a, d) +
    SS(b, c) for a ≤ b ≤ c ≤ d. Their sums run outwards from 0, the middle of the weights that a
    first answer keeps. Where P = Σ x up to an end of a run is large, at outliers, a few ε of
    P·x there are in doubt; the run is charged for that.
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
        found, starts = best_starts(value, sums)
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
    error = (after - (step + virtual)) + (virtual - before)
    return total + xp.cumulative_sum((x - step) - error, axis=-1, include_initial=True)


def _running_minimum(x):
    """min over t ≤ j of x_t for every j; by doubling where the standard has nothing faster."""
    xp, reach = array_namespace(x), 1
    if is_numpy_array(x):
        return xp.minimum.accumulate(x)
    while reach < size(x):
        x = xp.concat([x[:reach], xp.minimum(x[reach:], x[:-reach])])
        reach *= 2
    return x
