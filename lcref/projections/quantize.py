"""Projections onto codebooks: every weight becomes one of a few values."""

from collections.abc import Callable, Sequence

from array_api_compat import array_namespace, device, is_numpy_array

from ..inputs import DTYPES, flag, moderate, one_of, real_array, strictly_ascending, whole
from ..parts import Array, Codebook, Dense, size


FLOATS = {"float16": (11, -14), "bfloat16": (8, -126)}  # digits, least normal exponent


def _codebook(codes, entries, w, stored, levels=None):
    """A part with w's shape and dtype; one byte a code where that is enough."""
    xp = array_namespace(w)
    code_type = xp.uint8 if size(entries) <= 256 else xp.int64
    return Codebook(xp.reshape(xp.astype(codes, code_type), w.shape),
                    xp.astype(entries, w.dtype), stored, levels=levels)


def nearest(w: Array, codebook: Array) -> Codebook:
    """Project onto the vectors with entries in a given codebook.

        min over θ of ‖w − θ‖²   subject to   θ_i ∈ C

    θ_i is the entry nearest to w_i, found by bisection of the midpoints between neighbouring
    entries. Optimal because the weights separate. Not unique at a midpoint: the entry of smaller
    magnitude is taken, then the smaller one.

    Parameters
    ----------
    w : array of shape (...), real floating
    codebook : sequence or array of k numbers
        Strictly ascending once cast to w's dtype.

    Returns
    -------
    Codebook
        The entries given, in w's dtype, "fixed".

    Raises
    ------
    ValueError, TypeError
        codebook is empty, not finite or not strictly ascending; w has a NaN or an infinity, or is
        not real floating.

    Notes
    -----
    O(n log k). Carreira-Perpiñán and Idelbayev, arXiv 1707.04319.
    """
    xp = real_array(w)
    entries = strictly_ascending(codebook, w)
    near_1, scale = moderate(entries)  # the midpoints of subnormal numbers are exact too
    x = xp.clip(xp.reshape(xp.astype(w, xp.float64), (-1,)), float(entries[0]), float(entries[-1]))
    return _codebook(_nearest_codes(x / scale, near_1), entries, w, "fixed")


def _nearest_codes(x, entries):
    """Index of the nearest entry; at a midpoint the smaller magnitude, then the smaller entry."""
    xp = array_namespace(x)
    below, above = entries[:-1], entries[1:]
    midpoints = below / 2 + above / 2
    upward = xp.abs(above) < xp.abs(below)  # the midpoint itself belongs to the entry above
    infinity = xp.full_like(midpoints, -xp.inf)
    return xp.searchsorted(xp.where(upward, xp.nextafter(midpoints, infinity), midpoints), x)


def powers_of_two(w: Array, c: int) -> Codebook:
    """Project onto the vectors of zeros and signed powers of two.

        min over θ of ‖w − θ‖²   subject to   θ_i ∈ {0, ±1, ±2⁻¹, ..., ±2⁻ᶜ}

    The nearest entry of that codebook, see `nearest`; a multiplication becomes a shift.

    Parameters
    ----------
    w : array of shape (...), real floating
    c : int, at least 0
        2⁻ᶜ must be distinct from zero in w's dtype.

    Returns
    -------
    Codebook
        2c + 3 entries, "fixed".

    Raises
    ------
    ValueError, TypeError
        c is negative, not an integer, or too large for w's dtype; w has a NaN or an infinity, or is
        not real floating.

    Notes
    -----
    O(n log c). Carreira-Perpiñán and Idelbayev, arXiv 1707.04319.
    """
    real_array(w)
    return nearest(w, signed_powers(w, c))


def signed_powers(w: Array, c: int) -> list[float]:
    """0 and ±2⁻ⁱ for i = 0..c, ascending; ValueError where w's dtype has no 2⁻ᶜ."""
    c, limits = whole(c, "c"), array_namespace(w).finfo(w.dtype)
    if 2.0**-min(c, 1100) < float(limits.smallest_normal) * float(limits.eps):
        raise ValueError(f"c must leave 2^-c distinct from zero in {w.dtype}, not {c}")
    powers = [2.0**-i for i in range(c + 1)]
    return [-p for p in powers] + [0.0] + powers[::-1]


def scaled_codebook(w: Array, codebook: Array) -> Codebook:
    """Project onto the vectors with entries in a given codebook times a free scale.

        min over a, θ of ‖w − θ‖²   subject to   θ_i ∈ a·C,  a ≥ 0

    With every w_i at its nearest a·c_i the cost is ‖w‖² − 2aP + a²Q, P = Σ w_i c_i, Q = Σ c_i², and
    stays so until w_i / a crosses a midpoint of C. The sweep over these breakpoints, from a = ∞
    down, visits every assignment that is nearest for some a, and takes the one with the largest
    P² / Q and its a = P / Q. Optimal because the best θ is nearest for its own a, so that its
    assignment is visited, and every assignment with P > 0 is feasible at its best a. Where no P is
    positive a = 0.

    Parameters
    ----------
    w : array of shape (...), real floating
    codebook : sequence or array of k numbers
        Strictly ascending once cast to w's dtype.

    Returns
    -------
    Codebook
        The entries a·C, "scaled".

    Raises
    ------
    ValueError, TypeError
        codebook is empty, not finite or not strictly ascending; w has a NaN or an infinity, or is
        not real floating.

    Notes
    -----
    O(n k log(n k)) time and O(n k) memory. Idelbayev and others, Optimal Quantization Using Scaled
    Codebook, CVPR 2021, pp. 12095-12104.
    """
    xp = real_array(w)
    given = strictly_ascending(codebook, w)
    entries, _ = moderate(given)
    x, scale = moderate(xp.reshape(w, (-1,)))
    levels = _best_scale(x, entries) * entries
    codes = _nearest_codes(x, levels)
    chosen = xp.take(entries, codes)  # the scale once more, from whole sums
    p, q = float(xp.sum(x * chosen)), float(xp.sum(chosen * chosen))
    limit = float(xp.finfo(w.dtype).max) / scale  # an entry beyond it is not used
    a = p / q if p > 0 else 0.0
    if a:  # one number of w's dtype stands for it: the largest entry in use
        top = chosen[xp.argmax(xp.abs(chosen))]
        largest = xp.clip(a * top, -limit, limit) * scale
        a = xp.astype(xp.astype(largest, w.dtype), xp.float64) / scale / top
    levels = xp.clip(a * entries, -limit, limit)
    return _codebook(codes, levels * scale, w, "scaled", tuple(map(float, given)))


def _best_scale(x, entries):
    """The scale a of the best assignment, by the sweep over the breakpoints a = x_i / midpoint."""
    xp = array_namespace(x)
    at, dp, dq, p, q = [], [], [], 0.0, 0.0
    for y, c in ((x[x > 0], entries), (-x[x <= 0], -xp.flip(entries))):  # −x with −C is x with C
        midpoints, gaps = c[:-1] / 2 + c[1:] / 2, c[1:] - c[:-1]
        nearest_0 = int(xp.sum(xp.astype(midpoints <= 0, xp.int64)))  # where y is at a = ∞
        p, q = p + float(xp.sum(y) * c[nearest_0]), q + size(y) * float(c[nearest_0] ** 2)
        midpoints, gaps = midpoints[nearest_0:], gaps[nearest_0:]
        at.append(xp.reshape(y[:, None] / midpoints[None, :], (-1,)))
        dp.append(xp.reshape(y[:, None] * gaps[None, :], (-1,)))
        dq.append(xp.reshape(xp.ones_like(y)[:, None] * (2 * midpoints * gaps)[None, :], (-1,)))
    order = xp.argsort(xp.concat(at), descending=True)
    first = xp.asarray([p, q], dtype=xp.float64, device=device(x))
    p = xp.cumulative_sum(xp.concat([first[:1], xp.take(xp.concat(dp), order)]))
    q = xp.cumulative_sum(xp.concat([first[1:], xp.take(xp.concat(dq), order)]))
    saved = xp.where((p > 0) & (q > 0), p * p / xp.where(q > 0, q, xp.ones_like(q)), 0 * p)
    best = int(xp.argmax(saved))
    return float(p[best] / q[best]) if float(saved[best]) > 0 else 0.0


def round_to(w: Array, dtype: str) -> Dense | Codebook:
    """Project onto the arrays that another dtype can represent.

        min over θ of ‖w − θ‖²   subject to   θ_i representable in dtype

    For float16 and bfloat16 the nearest representable number; overflow saturates at the largest
    finite one, which is the nearest. For intN, the N-bit integers times a free scale: a·{−2ᴺ⁻¹, ..,
    2ᴺ⁻¹ − 1}, a ≥ 0, solved exactly by `scaled_codebook`; scaling by max abs(w) is not optimal.
    A tie between two floating neighbours may go to either.

    Parameters
    ----------
    w : array of shape (...), real floating
    dtype : "float16", "bfloat16", or "int2" to "int8"

    Returns
    -------
    Dense, or Codebook ("scaled")
        In w's dtype.

    Raises
    ------
    ValueError, TypeError
        dtype is unknown; w has a NaN or an infinity, or is not real floating.

    Notes
    -----
    O(n); intN as scaled_codebook with k = 2ᴺ. Rounding to p bits by Veltkamp's splitting: t − (t −
    x) with t = (2^(53−p) + 1)·x.
    """
    xp = real_array(w)
    if one_of(dtype, "dtype", DTYPES) not in FLOATS:
        half = 2 ** (int(dtype.removeprefix("int")) - 1)
        return scaled_codebook(w, [float(level) for level in range(-half, half)])
    digits, least = FLOATS[dtype]
    top = min(2.0 ** (1 - least), 2 / float(xp.finfo(w.dtype).smallest_normal))  # power of two
    largest = (2 - 2.0 ** (1 - digits)) * top  # representable in both dtypes
    x = xp.clip(xp.astype(w, xp.float64), -largest, largest)
    t = (2.0 ** (53 - digits) + 1) * x
    grid = 2.0 ** (least - digits + 1)  # of the subnormal numbers
    x = xp.where(xp.abs(x) < 2.0**least, xp.round(x / grid) * grid, t - (t - x))
    return Dense(xp.astype(x, w.dtype), width=16)


def binary(w: Array, scale: bool = False) -> Codebook:
    """Project onto the vectors of two opposite values.

        min over θ of ‖w − θ‖²   subject to   θ ∈ {−1, 1}ⁿ,  or with scale  θ ∈ {−a, a}ⁿ, a ≥ 0

    θ = a·sgn w with sgn 0 = 1 and a = 1, or with scale a = mean of abs(w). Optimal because for any
    a ≥ 0 the sign of w_i is the nearer choice for every i, which leaves Σ (abs(w_i) − a)², least
    at the mean. Not unique where w_i = 0: +a is taken.

    Parameters
    ----------
    w : array of shape (...), real floating
    scale : bool
        Learn the magnitude a, instead of a = 1.

    Returns
    -------
    Codebook
        Entries (−a, a); "scaled", or "fixed" without scale.

    Raises
    ------
    ValueError, TypeError
        w has a NaN or an infinity; w is not a real floating array; scale is not a bool.

    Notes
    -----
    O(n). Carreira-Perpiñán and Idelbayev, arXiv 1707.04319.
    """
    xp = real_array(w)
    if flag(scale, "scale"):
        return signs(w, _mean_magnitude(w, xp.ones_like(w, dtype=xp.bool)), "scaled")
    return signs(w, xp.ones((), dtype=xp.float64, device=device(w)), "fixed")


def signs(w: Array, a: Array, stored: str) -> Codebook:
    """a·sgn w with sgn 0 = 1, for a 0-d array a."""
    levels = (-1.0, 1.0) if stored == "scaled" else None
    return _codebook(w >= 0, array_namespace(a).stack([-a, a]), w, stored, levels)


def _mean_magnitude(w, kept):
    """Mean of abs(w) over the kept entries in float64, a 0-d array; 0 where none is kept."""
    xp = array_namespace(w)
    x, s = moderate(xp.reshape(w, (-1,)))  # in this order, whatever the layout in memory
    kept = xp.reshape(kept, (-1,))
    count = int(xp.sum(xp.astype(kept, xp.int64)))
    return xp.sum(xp.where(kept, xp.abs(x), xp.zeros_like(x))) / max(count, 1) * s


def ternary(w: Array, scale: bool = False) -> Codebook:
    """Project onto the vectors of zeros and two opposite values.

        min over θ of ‖w − θ‖²   subject to   θ ∈ {−1, 0, 1}ⁿ,  or with scale  {−a, 0, a}ⁿ, a ≥ 0

    Without scale, θ_i = 0 where abs(w_i) < ½ and sgn w_i elsewhere: the nearest of the three. With
    scale, the j entries of largest magnitude become ±a with a their mean and the rest zero, where j
    maximises (Σ_{i≤j} abs(w)_i)² / j over the magnitudes in descending order. Optimal because for a
    fixed set of j nonzeros the best a is their mean magnitude, which saves (Σ abs(w)_i)² / j of
    ‖w‖², and for a fixed j the largest magnitudes save most. Equal magnitudes are kept or zeroed
    together: along a run of them the saving is convex in j, so its maximum is at an end of the run.

    Parameters
    ----------
    w : array of shape (...), real floating
    scale : bool
        Learn the magnitude a, instead of a = 1.

    Returns
    -------
    Codebook
        Entries (−a, 0, a); "scaled", or "fixed" without scale.

    Raises
    ------
    ValueError, TypeError
        w has a NaN or an infinity; w is not a real floating array; scale is not a bool.

    Notes
    -----
    O(n), with scale O(n log n) by one sort. Not unique where two j tie: the smaller is taken.
    Carreira-Perpiñán and Idelbayev, arXiv 1707.04319.
    """
    xp, scale = real_array(w), flag(scale, "scale")
    magnitude = xp.abs(w)
    if scale:
        kept = magnitude >= _ternary_threshold(magnitude)
        a = _mean_magnitude(w, kept)
    else:
        kept, a = magnitude >= 0.5, xp.ones((), dtype=xp.float64, device=device(w))
    codes = 1 + xp.astype(kept & (w >= 0), xp.int8) - xp.astype(kept & (w < 0), xp.int8)
    return _codebook(codes, xp.stack([-a, xp.zeros_like(a), a]), w,
                     *(("scaled", (-1.0, 0.0, 1.0)) if scale else ("fixed",)))


def _ternary_threshold(magnitude):
    """The least magnitude that stays: the j-th largest, j = argmax (Σ_{i≤j} abs(w)_i)² / j."""
    xp, n = array_namespace(magnitude), size(magnitude)
    if n == 0:
        return 0.0
    descending = xp.flip(xp.sort(xp.reshape(magnitude, (-1,))))
    x, _ = moderate(descending)
    sums = xp.cumulative_sum(x)
    j = xp.argmax(sums * sums / xp.arange(1, n + 1, dtype=xp.float64, device=device(magnitude)))
    return descending[int(j)]


def kmeans(w: Array, k: int) -> Codebook:
    """Project onto the vectors of at most k distinct values: exact one-dimensional K-means.

        min over c, θ of ‖w − θ‖²   subject to   θ ∈ {c_1, ..., c_k}ⁿ

    An optimal clustering cuts the sorted weights into k runs, each with its mean as entry (nearest
    entries of a codebook are separated by midpoints). With S and N the sums and counts of the
    centred weights up to a cut, least distortion is the largest Σ (S_j − S_i)² / (N_j − N_i) over
    the runs, by dynamic programming over the last cut: exact. Cuts fall only between distinct
    values, so equal weights share a cluster. Not unique where two cuts tie: any one of them.

    Parameters
    ----------
    w : array of shape (...), real floating
    k : int, at least 1

    Returns
    -------
    Codebook
        min(k, number of distinct values) entries, ascending, "free". With k at least the number of
        distinct values they are the values themselves.

    Raises
    ------
    ValueError, TypeError
        k is not an integer or less than 1; w has a NaN or an infinity; w is not real floating.

    Notes
    -----
    O(n log n) for k ≤ 2, O(k n log n) beyond; memory O(k n) for k > 2. Centring first keeps the
    sums of squares accurate at any offset. Carreira-Perpiñán and Idelbayev, arXiv 1707.04319; Wu
    and Rokne, doi 10.1145/75427.75472.
    """
    xp, k = real_array(w), whole(k, "k", least=1)
    flat = xp.reshape(w, (-1,))
    if size(w) == 0:
        return _codebook(flat, flat, w, "free")
    ordered = xp.sort(flat)
    runs = _distinct_runs(ordered)
    starts = runs[:-1]
    if size(starts) > k:
        x, scale = moderate(ordered)
        starts = xp.take(starts, _cluster_cuts(x - xp.mean(x), runs, k))
        bounds = [int(i) for i in starts] + [size(w)]
        entries = run_means(x, list(zip(bounds, bounds[1:]))) * scale
    else:
        entries = xp.take(ordered, starts)
    lowest = xp.take(ordered, starts)
    return _codebook(xp.searchsorted(lowest[1:], flat, side="right"), entries, w, "free")


def _distinct_runs(ordered):
    """Positions in a sorted vector where a new value starts, and at the end its length."""
    xp = array_namespace(ordered)
    ends = xp.asarray([size(ordered)], dtype=xp.int64, device=device(ordered))
    changes = xp.nonzero(ordered[1:] != ordered[:-1])[0] + 1
    return xp.concat([xp.zeros_like(ends), xp.astype(changes, xp.int64), ends])


def run_means(x: Array, runs: Sequence[tuple[int, int]]) -> Array:
    """Mean of each run x[i:j] of ascending x, in its range: a constant run keeps its value."""
    xp = array_namespace(x)
    return xp.stack([xp.clip(x[i] + xp.mean(x[i:j] - x[i]), x[i], x[j - 1]) for i, j in runs])


def _cluster_cuts(x, runs, k):
    """Which runs start a cluster, (k,) with 0 first, for the best k clusters of sorted, centred x.

    gain_c(j) = max over i < j of gain_{c−1}(i) + (S_j − S_i)² / (N_j − N_i), the most that the
    first j runs save in c clusters. The last layer needs only the last j, so k = 2 is one scan.
    """
    xp = array_namespace(x)
    sums = xp.take(xp.cumulative_sum(x, include_initial=True), runs)
    counts = xp.astype(runs, xp.float64)
    gain, choices = sums[1:] ** 2 / counts[1:], []  # one cluster; j = 1..d
    for c in range(2, k):
        def saving(i, at, gain=gain, c=c):  # i and j are offsets from c − 1 and c
            saved = at(sums[c:]) - xp.take(sums[c - 1:], i)
            saved *= saved
            saved /= at(counts[c:]) - xp.take(counts[c - 1:], i)
            saved += xp.take(gain, i)
            return saved
        gain, choice = best_starts(saving, sums[c:])
        choices.append(choice)
    cuts = []
    if k > 1:
        saved = (sums[-1] - sums[k - 1:-1]) ** 2 / (counts[-1] - counts[k - 1:-1])
        cuts = [int(xp.argmax(gain[:-1] + saved)) + k - 1]
    for c in range(k - 1, 1, -1):
        cuts.append(int(choices[c - 2][cuts[-1] - c]) + c - 1)
    return xp.asarray([0] + cuts[::-1], dtype=xp.int64, device=device(x))


def best_starts(value: Callable, ends: Array) -> tuple[Array, Array]:
    """max over i ≤ j of value(i, j), and the best i, for every j; by divide and conquer.

    For values whose best i grows with j. The middle j of a gap between two solved ones searches
    only between their best i: O(m) a level, all gaps of a level at once, about log2 m levels.
    `value(i, at)` is given the i of many pairs, and `at(x)`, x_j for their j; ends is any (m,).
    """
    xp, m, here = array_namespace(ends), size(ends), device(ends)
    best = xp.zeros(m, dtype=xp.float64, device=here)
    step = 1 << m.bit_length()
    choice = xp.full(step, m - 1, dtype=xp.int64, device=here)  # padded: no solved one above
    while step := step // 2:
        j = xp.arange(step - 1, m, 2 * step, dtype=xp.int64, device=here)
        above = choice[2 * step - 1::2 * step]
        first = xp.concat([xp.zeros_like(j[:1]), above])[:size(j)]
        lengths = xp.minimum(above[:size(j)], j) - first + 1
        starts = xp.cumulative_sum(lengths) - lengths
        i = xp.arange(int(xp.sum(lengths)), dtype=xp.int64, device=here) - xp.repeat(
            starts - first, lengths)
        values = value(i, lambda x: xp.repeat(xp.take(x, j), lengths))
        found = _segment_argmax(values, starts, lengths)
        best[step - 1:m:2 * step] = xp.take(values, found)
        choice[step - 1:m:2 * step] = xp.take(i, found)
    return best, choice[:m]


def _segment_argmax(values, starts, lengths):
    """First position of the maximum of each segment values[starts_j : starts_j + lengths_j]."""
    xp = array_namespace(values)
    if is_numpy_array(values):
        tops = xp.maximum.reduceat(values, starts)
        hits = xp.flatnonzero(values == xp.repeat(tops, lengths))
        return hits[xp.searchsorted(hits, starts)]
    return _segment_argmax_by_doubling(values, starts, lengths)


def _segment_argmax_by_doubling(values, starts, lengths):
    """The same within the standard: best[p] covers a window from p that doubles in each pass."""
    xp, total = array_namespace(values), size(values)
    position = xp.arange(total, dtype=xp.int64, device=device(values))
    end = xp.repeat(starts + lengths, lengths)
    best, reach = position, 1
    while reach < int(xp.max(lengths)):
        other = xp.take(best, xp.clip(position + reach, max=total - 1))
        better = (position + reach < end) & (xp.take(values, other) > xp.take(values, best))
        best, reach = xp.where(better, other, best), 2 * reach
    return xp.take(best, starts)
