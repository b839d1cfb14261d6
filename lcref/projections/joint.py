"""Sums that are solved exactly: a codebook plus at most κ corrections.

    min over θ, s of ‖w − θ − s‖²   subject to   θ_i ∈ C,  ‖s‖₀ ≤ κ

A correction repairs its weight at no cost, so the problem is to quantize all but κ weights. Each
function takes one array, or a list or dict of arrays that have a codebook each and share κ.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ..inputs import finite_magnitude, largest_magnitude, scale_at, scaled, whole
from ..parts import ByTensor, Layout, Sparse, Sum, combine, leaves, size
from ..tolerance import wide
from .outliers import kmeans_with_outliers
from .prune import largest
from .quantize import binary, kmeans, nearest, signs


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

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import codebook_l0
    >>> theta = codebook_l0(np.array([0.9, -1.2, 5.0]), codebook=[-1, 1], kappa=1)
    >>> theta.decompress().tolist(), theta.parts[1].indices.tolist()
    ([1.0, -1.0, 5.0], [2])
    """
    arrays, kappa, _ = _checked(w, kappa)
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
    O(n) by selection of the ends of the window, and O(κ log κ); O(n log n) by one sort where κ is
    over a quarter of n; several arrays as kmeans_l0. Carreira-Perpiñán and Idelbayev, arXiv
    2107.04380.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import scaled_binary_l0
    >>> theta = scaled_binary_l0(np.array([1.0, -2.0, 3.0, 10.0]), kappa=1)
    >>> theta.decompress().tolist(), theta.status
    ([2.0, -2.0, 2.0, 10.0], 'exact')
    """
    return _learned(w, 1, kappa, lambda t: binary(t, scale=True), abs,
                    lambda t, entries: signs(t, float(entries[0]), "scaled"))


def kmeans_l0(w: Any, k: int, kappa: int) -> Sum:
    """Project onto at most k distinct values plus at most kappa corrections: K-means with outliers.

        min over c, θ, s of ‖w − θ − s‖²   subject to   θ ∈ {c_1, ..., c_k}ⁿ,  ‖s‖₀ ≤ κ

    For one array and k = 1 the n − κ weights kept are a window of the sorted weights, of least
    variance: exact. For a few hundred weights dynamic programming over the last run and the number
    of corrections is exact too. Otherwise each correction is given a price α, and

        g(α) = min over θ, s of ‖w − θ − s‖² + α ‖s‖₀

    is solved exactly for every array: in ascending order the kept weights form at most k runs with
    outliers between, found by dynamic programming over the ends of the runs. g(α) − ακ is a lower
    bound of the optimum for every α ≥ 0, and where the solution has κ corrections it is optimal.
    α is sought on the convex hull of the solutions; where no price gives κ corrections the best
    feasible point found is returned, by Lloyd's steps with the κ largest residuals left out, then
    by K-means of what is kept and so on, and its distance to the best bound is the gap. Not unique
    in general.

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
    O(n log n) by one sort; for each of a few prices dynamic programmes over buckets of weights,
    until the bounds of `priced` leave few weights; O(n) for one array and k = 1, as
    scaled_binary_l0; O(k κ n²) where arrays of up to 512 weights need at most 10⁸ steps of that.
    The sums run outwards from the middle of the kept weights, so that outliers leave theirs as they
    are; where outliers still cost digits, the gap holds that.
    Carreira-Perpiñán and Idelbayev, arXiv 2107.04380; the layers are those of `kmeans`.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import kmeans_l0
    >>> theta = kmeans_l0(np.array([1.0, 2.0, 8.0, 10.0, 50.0]), k=2, kappa=1)
    >>> theta.decompress().tolist(), theta.status
    ([1.5, 1.5, 9.0, 9.0, 50.0], 'exact')
    """
    k = whole(k, "k", least=1)

    def book(t, entries):
        xp = array_namespace(t)
        entries = xp.unique_values(xp.astype(entries, t.dtype))
        return dataclasses.replace(nearest(t, entries), stored="free")
    return _learned(w, k, kappa, lambda t: kmeans(t, k), lambda t: 1 * t, book)


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
    """The arrays of w, kappa up to the number of their entries, and the scale of w."""
    arrays = leaves(w)
    most = max(map(finite_magnitude, arrays), default=0.0)
    if isinstance(w, (list, dict)):
        Layout.of(w)  # at least one, and of one dtype
    return arrays, min(whole(kappa, "kappa"), sum(map(size, arrays))), scale_at(most)


def _corrected(w, books, kappa, gap=0.0):
    """The codebooks, one for each array of w, with their κ largest residuals corrected."""
    layout, tensors = Layout.of(w) if isinstance(w, (list, dict)) else None, leaves(w)
    each = iter(books)
    theta = next(each) if layout is None else ByTensor(combine(lambda t: next(each), w))
    with np.errstate(over="ignore"):
        kept, values = largest([_residual(*pair) for pair in zip(tensors, books)], kappa)
        values = array_namespace(values).astype(values, tensors[0].dtype)
    if not math.isfinite(largest_magnitude(values)):
        raise ValueError(f"a weight of w is farther from its codebook than {values.dtype} can hold")
    shape = tuple(w.shape) if layout is None else (sum(map(size, tensors)),)
    return Sum((theta, Sparse(kept, values, shape, layout)), "certified" if gap else "exact", gap)


def _residual(t, book):
    """The piece w − Δ(θ), in float64."""
    xp, entries = array_namespace(t), wide(book.entries)

    def residual(x, codes):
        return scaled(x, 1) - xp.take(entries, xp.astype(codes, xp.int64))
    return residual, (xp.reshape(t, (-1,)), xp.reshape(book.codes, (-1,)))


def _learned(w, k, kappa, alone, view, book):
    """The sum of learned codebooks and κ corrections.

    K-means with κ outliers of view(w), a new array, gives the entries, `book` the codebook of an
    array with given entries, and `alone` that of an array without corrections.
    """
    arrays, kappa, unit = _checked(w, kappa)
    if kappa == 0:
        return _corrected(w, [alone(t) for t in arrays], 0)
    some = [t for t in arrays if size(t)]
    entries, gap = kmeans_with_outliers(
        [view(array_namespace(t).reshape(t, (-1,))) for t in some], k, kappa, unit)
    each = iter(entries)
    books = [book(t, next(each) * unit) if size(t) else alone(t) for t in arrays]
    return _corrected(w, books, kappa, gap * unit * unit)
