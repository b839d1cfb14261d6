"""Projections onto codebooks: every weight becomes one of a few values."""

from array_api_compat import array_namespace, device

from ..inputs import (DTYPES, array_of, finite_magnitude, flag, least_reaching, moderate,
                      one_of, real_array, scale_at, scaled, strictly_ascending, whole)
from ..parts import Array, Codebook, Dense, block_ends, in_blocks, size
from ..tolerance import wide
from .clusters import Ascending, best_clusters, run_means
from .scales import best_scale


FLOATS = {"float16": (11, -14), "bfloat16": (8, -126)}  # digits, least normal exponent
COMPARED = 32  # thresholds up to which every weight is compared with each


def _codebook(w, thresholds, entries, stored, levels=None):
    """A part with w's shape and dtype: the code of a weight is how many thresholds it reaches.

    One byte a code where that is enough. A few comparisons cost less than a bisection.
    """
    xp, k = array_namespace(w), size(thresholds)
    dtype = xp.uint8 if k < 256 else xp.int64

    def codes(x):
        if k > COMPARED:
            return xp.astype(xp.searchsorted(thresholds, x, side="right"), dtype)
        found = xp.zeros(x.shape, dtype=dtype, device=device(x))
        for c in range(k):
            found += xp.astype(x >= thresholds[c], dtype)
        return found
    codes = xp.reshape(in_blocks(codes, xp.reshape(w, (-1,))), w.shape)
    return Codebook(codes, xp.astype(entries, w.dtype), stored, levels=levels)


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
        The entries given, in w's dtype, "fixed". Status "exact".

    Raises
    ------
    ValueError, TypeError
        codebook is empty, not finite or not strictly ascending; w has a NaN or an infinity, or is
        not real floating.

    Notes
    -----
    O(n log k). Carreira-Perpiñán and Idelbayev, arXiv 1707.04319.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import nearest
    >>> nearest(np.array([0.2, 0.9, -3.0]), codebook=[-1, 0, 1]).decompress().tolist()
    [0.0, 1.0, -1.0]
    """
    real_array(w)
    entries = strictly_ascending(codebook, w)
    return _codebook(w, _thresholds(w, *moderate(entries)), entries, "fixed")


def _thresholds(w, entries, scale):
    """The least number of w's dtype that goes to each entry · scale but the first.

    Beyond the midpoint; or the midpoint itself, if the entry above it has the smaller magnitude.
    """
    below, above = entries[:-1], entries[1:]
    beyond = array_namespace(w).abs(above) >= array_namespace(w).abs(below)
    return least_reaching(below / 2 + above / 2, scale, w, beyond)


def powers_of_two(w: Array, c: int) -> Codebook:
    """Project onto the vectors of zeros and signed powers of two.

        min over θ of ‖w − θ‖²   subject to   θ_i ∈ {0, ±1, ±2⁻¹, ..., ±2⁻ᶜ}

    The nearest entry of that codebook, see `nearest`; a multiplication becomes a shift. Optimal
    because the weights separate. Not unique at a midpoint: the smaller magnitude is taken.

    Parameters
    ----------
    w : array of shape (...), real floating
    c : int, at least 0
        2⁻ᶜ must be distinct from zero in w's dtype.

    Returns
    -------
    Codebook
        2c + 3 entries, "fixed". Status "exact".

    Raises
    ------
    ValueError, TypeError
        c is negative, not an integer, or too large for w's dtype; w has a NaN or an infinity, or is
        not real floating.

    Notes
    -----
    O(n log c). Carreira-Perpiñán and Idelbayev, arXiv 1707.04319.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import powers_of_two
    >>> powers_of_two(np.array([0.3, 0.8, 0.1]), c=2).decompress().tolist()
    [0.25, 1.0, 0.0]
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
    positive a = 0. Not unique where two scales tie: either is taken.

    Parameters
    ----------
    w : array of shape (...), real floating
    codebook : sequence or array of k numbers
        Strictly ascending once cast to w's dtype.

    Returns
    -------
    Codebook
        The entries a·C, "scaled". Status "exact".

    Raises
    ------
    ValueError, TypeError
        codebook is empty, not finite or not strictly ascending; w has a NaN or an infinity, or is
        not real floating.

    Notes
    -----
    O(n log n) by one sort, O(n k) for the codes; the sweep is over the breakpoints of buckets of
    weights until few are left, see `scales.best_scale`. Idelbayev and others, Optimal
    Quantization Using Scaled Codebook, CVPR 2021, pp. 12095-12104.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import scaled_codebook
    >>> scaled_codebook(np.array([-3.0, 5.0, 7.0]), codebook=[-1, 2]).decompress().tolist()
    [-3.0, 6.0, 6.0]
    """
    xp = array_of(w, "w")
    given = strictly_ascending(codebook, w)
    entries, _ = moderate(given)
    x = Ascending.of(xp.reshape(w, (-1,)))
    a, used = best_scale(x, entries) if size(w) else (0.0, entries)
    thresholds = _thresholds(w, a * entries, x.scale)
    limit = float(xp.finfo(w.dtype).max) / x.scale  # an entry beyond it is not used
    if a:  # one number of w's dtype stands for it: the largest entry in use
        top = used[xp.argmax(xp.abs(used))]
        largest = xp.clip(a * top, -limit, limit) * x.scale
        a = wide(xp.astype(largest, w.dtype)) / x.scale / top
    levels = xp.clip(a * entries, -limit, limit) * x.scale
    return _codebook(w, thresholds, levels, "scaled", tuple(map(float, given)))


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
        In w's dtype. Status "exact".

    Raises
    ------
    ValueError, TypeError
        dtype is unknown; w has a NaN or an infinity, or is not real floating.

    Notes
    -----
    O(n); intN as scaled_codebook with k = 2ᴺ. Rounding to p bits by Veltkamp's splitting: t − (t −
    x) with t = (2^(53−p) + 1)·x; Dekker, Numerische Mathematik 18, 1971.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import round_to
    >>> round_to(np.array([0.1, 1e5]), 'float16').decompress().tolist()
    [0.0999755859375, 65504.0]
    """
    xp = real_array(w)
    if one_of(dtype, "dtype", DTYPES) not in FLOATS:
        half = 2 ** (int(dtype.removeprefix("int")) - 1)
        return scaled_codebook(w, [float(level) for level in range(-half, half)])
    digits, least = FLOATS[dtype]
    top = min(2.0 ** (1 - least), 2 / float(xp.finfo(w.dtype).smallest_normal))  # power of two
    largest = (2 - 2.0 ** (1 - digits)) * top  # representable in both dtypes
    grid = 2.0 ** (least - digits + 1)  # of the subnormal numbers

    def rounded(x):
        x = xp.clip(wide(x), -largest, largest)
        t = (2.0 ** (53 - digits) + 1) * x
        x = xp.where(xp.abs(x) < 2.0**least, xp.round(x / grid) * grid, t - (t - x))
        return xp.astype(x, w.dtype)
    return Dense(xp.reshape(in_blocks(rounded, xp.reshape(w, (-1,))), w.shape), width=16)


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
        Entries (−a, a); "scaled", or "fixed" without scale. Status "exact".

    Raises
    ------
    ValueError, TypeError
        w has a NaN or an infinity; w is not a real floating array; scale is not a bool.

    Notes
    -----
    O(n). Carreira-Perpiñán and Idelbayev, arXiv 1707.04319.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import binary
    >>> binary(np.array([0.5, -1.5, 1.0]), scale=True).decompress().tolist()
    [1.0, -1.0, 1.0]
    """
    most, xp = finite_magnitude(w), array_namespace(w)
    if not flag(scale, "scale"):
        return signs(w, 1.0, "fixed")
    unit, flat = scale_at(most), xp.reshape(w, (-1,))  # in this order, in any layout
    total = sum(float(xp.sum(xp.abs(scaled(flat[i:j], unit)))) for i, j in block_ends(flat))
    return signs(w, total / max(size(w), 1) * unit, "scaled")


def signs(w: Array, a: float, stored: str) -> Codebook:
    """a·sgn w with sgn 0 = 1."""
    xp, levels = array_namespace(w), (-1.0, 1.0) if stored == "scaled" else None
    zero = xp.zeros(1, dtype=w.dtype, device=device(w))
    entries = xp.asarray([-a, a], dtype=xp.float64, device=device(w))
    return _codebook(w, zero, entries, stored, levels)


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
        Entries (−a, 0, a); "scaled", or "fixed" without scale. Status "exact".

    Raises
    ------
    ValueError, TypeError
        w has a NaN or an infinity; w is not a real floating array; scale is not a bool.

    Notes
    -----
    O(n), with scale O(n log n) by one sort. Not unique where two j tie: the smaller is taken.
    Carreira-Perpiñán and Idelbayev, arXiv 1707.04319.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import ternary
    >>> ternary(np.array([4.0, -2.0, 0.5]), scale=True).decompress().tolist()
    [3.0, -3.0, 0.0]
    """
    if flag(scale, "scale"):
        return scaled_codebook(w, (-1.0, 0.0, 1.0))
    xp = real_array(w)
    half = xp.asarray([-0.5, 0.5], dtype=w.dtype, device=device(w))
    half = xp.where(half < 0, xp.nextafter(half, xp.zeros_like(half)), half)  # −½ is not nearer 0
    return _codebook(w, half, xp.asarray([-1.0, 0.0, 1.0], dtype=xp.float64, device=device(w)),
                     "fixed")


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
        distinct values they are the values themselves. Status "exact".

    Raises
    ------
    ValueError, TypeError
        k is not an integer or less than 1; w has a NaN or an infinity; w is not real floating.

    Notes
    -----
    O(n log n) by one sort; the dynamic programme is over buckets of weights, until the bounds of
    `clusters` leave few weights (of arrays up to 128 k^1.5 weights it is over them all, in
    O(k n log n) time and O(k n) memory). Centring first keeps the sums
    of squares accurate at any offset. Carreira-Perpiñán and Idelbayev, arXiv 1707.04319; Wu
    and Rokne, doi 10.1145/75427.75472.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import kmeans
    >>> kmeans(np.array([1.0, 8.0, 2.0, 9.0, 10.0]), k=2).decompress().tolist()
    [1.5, 9.0, 1.5, 9.0, 9.0]
    """
    xp, k = array_of(w, "w"), whole(k, "k", least=1)
    x = Ascending.of(xp.reshape(w, (-1,)))
    runs = best_clusters(x, k)
    lowest = xp.take(x.values, xp.asarray([i for i, _ in runs], dtype=xp.int64, device=device(w)))
    entries = run_means(x.values, runs, x.scale) * x.scale
    return _codebook(w, lowest[min(len(runs), 1):], entries, "free")
