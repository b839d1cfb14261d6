"""Projections onto sparse vectors: most weights become zero."""

import math
from collections.abc import Callable, Sequence

from array_api_compat import array_namespace, device, is_numpy_array

from ..inputs import (axis_of, finite_magnitude, nonnegative, positive, real_array,
                      root_of_price, scale_at, scale_of, scaled, whole)
from ..parts import BLOCK, Array, Layout, Sparse, block_ends, combine, in_blocks, size
from ..tolerance import EPS, wide

SAMPLED, STRIDE = 2**16, 61  # more entries than this are sampled, by a step that no layer has
Piece = tuple[Callable, tuple[Array, ...]]  # a function and vectors, see `largest`
SPARE = 0.05  # of τ, beyond what the sample says
PASSES = 10  # of Michelot's method before what is left is sorted


def l0_ball(w: Array, kappa: int) -> Sparse:
    """Project onto the vectors with at most kappa nonzeros.

        min over θ of ‖w − θ‖²   subject to   ‖θ‖₀ ≤ κ

    θ keeps the κ entries of w of largest magnitude and zeroes the rest. Optimal because a kept
    entry costs 0 and a dropped one w_i², whatever the others do. Not unique when the κ-th and
    (κ+1)-th magnitudes are equal: the lower index is kept.

    Parameters
    ----------
    w : array of shape (...), real floating
    kappa : int, at least 0

    Returns
    -------
    Sparse
        min(κ, w.size) positions and values, in w's shape and dtype. Status "exact".

    Raises
    ------
    ValueError, TypeError
        kappa is negative or not an integer; w has a NaN or an infinity; w is not real floating.

    Notes
    -----
    O(n) by selection. Carreira-Perpiñán and Idelbayev, CVPR 2018, doi 10.1109/CVPR.2018.00890.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import l0_ball
    >>> l0_ball(np.array([3.0, -1.0, 2.0]), kappa=2).decompress().tolist()
    [3.0, 0.0, 2.0]
    """
    xp, kappa = real_array(w), whole(kappa, "kappa")
    flat = xp.reshape(w, (-1,))
    return Sparse(*largest([(itself, (flat,))], min(kappa, size(w))), tuple(w.shape))


def itself(x: Array) -> Array:
    """The function of a piece that is a vector."""
    return x


def largest(pieces: Sequence[Piece], kappa: int) -> tuple[Array, Array]:
    """Ascending positions of the κ values of largest magnitude, and the values; ties as `l0_ball`.

    A piece is a function and vectors, for the values function(*vectors); several lie end to end.
    They are computed in blocks, and not held: a sample tells about how large the least of the κ is,
    so that few are at least as large.
    """
    xp, n = array_namespace(pieces[0][1][0]), sum(size(vectors[0]) for _, vectors in pieces)
    if 4 * kappa < n > SAMPLED:
        sample = xp.concat([function(*(v[::STRIDE] for v in vectors))
                            for function, vectors in pieces])
        rank = min(kappa + 4 * math.isqrt(STRIDE * kappa), n) // STRIDE
        guess = _kth_largest(sample, max(rank, 1))
        near, values = chosen(pieces, lambda x: xp.abs(x) >= guess)
        if kappa <= size(near):
            kept = _largest(values, kappa)
            return xp.take(near, kept), xp.take(values, kept)
    values = xp.concat([in_blocks(function, *vectors) for function, vectors in pieces])
    kept = _largest(values, kappa)
    return kept, xp.take(values, kept)


def _largest(x, kappa):
    """Ascending positions of the kappa entries of largest magnitude; of equal ones the lower."""
    xp = array_namespace(x)
    if kappa in (0, size(x)):
        return xp.arange(kappa, dtype=xp.int64, device=device(x))
    threshold = _kth_largest(x, kappa)
    kept, values = chosen([(itself, (x,))], lambda y: xp.abs(y) >= threshold)
    tied = xp.abs(values) == threshold
    above = kept[~tied]
    return xp.sort(xp.concat([above, kept[tied][:kappa - size(above)]]))


def _kth_largest(x, k):
    """The k-th largest magnitude."""
    xp, magnitude = array_namespace(x), array_namespace(x).abs(x)
    if not is_numpy_array(x):
        return xp.sort(magnitude, descending=True)[k - 1]
    magnitude.partition(size(x) - k)  # by selection, O(n), in place
    return magnitude[size(x) - k]


def chosen(pieces: Sequence[Piece], test: Callable) -> tuple[Array, Array]:
    """Ascending positions of the values of the pieces that pass a test, and those values."""
    function, vectors = pieces[0]
    xp, start = array_namespace(vectors[0]), 0
    values = [function(*(v[:0] for v in vectors))]
    found = [xp.arange(0, dtype=xp.int64, device=device(vectors[0]))]
    for function, vectors in pieces:
        for i, j in block_ends(vectors[0]):
            block = function(*(v[i:j] for v in vectors))
            at = xp.astype(xp.nonzero(test(block))[0], xp.int64, copy=False)
            values.append(xp.take(block, at))
            at += start + i
            found.append(at)
        start += size(vectors[0])
    return xp.concat(found), xp.concat(values)


def l1_ball(w: Array, radius: float) -> Sparse:
    """Project onto the ball of the l1 norm.

        min over θ of ‖w − θ‖²   subject to   ‖θ‖₁ ≤ r

    θ = w where ‖w‖₁ ≤ r, and otherwise the soft threshold θ_i = sgn w_i · max(abs(w_i) − τ, 0) with
    the τ ≥ 0 for which ‖θ‖₁ = r. Optimal and unique because the problem is strictly convex and the
    soft threshold satisfies its KKT conditions, with τ the multiplier of the constraint.

    τ is found as δ = M − τ, with M the largest magnitude and d = M − abs(w): Σ (δ − d_i)₊ = r. All
    terms are positive, so nothing cancels at a large offset. Of any set of weights that has all
    those with d_i < δ in it, (r + Σ d_i) / (their number) is at least δ, so that weights beyond
    are left out; and it is δ when there are none.

    Parameters
    ----------
    w : array of shape (...), real floating
    radius : float, at least 0

    Returns
    -------
    Sparse
        The nonzeros of θ, in w's shape and dtype. Status "exact".

    Raises
    ------
    ValueError, TypeError
        radius is negative or not finite; w has a NaN or an infinity; w is not real floating.

    Notes
    -----
    About O(n): a few passes over ever fewer weights, and after ten of them one sort of what is
    left, so O(n log n) at worst. Michelot, J. Optimization Theory and Applications 50, 1986; sorted
    sums: Held, Wolfe and Crowder, Mathematical Programming 6, 1974.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import l1_ball
    >>> l1_ball(np.array([3.0, -1.0, 2.0]), radius=3.0).decompress().tolist()
    [2.0, 0.0, 1.0]
    """
    top, radius = finite_magnitude(w), nonnegative(radius, "radius")
    xp, flat, s = array_namespace(w), array_namespace(w).reshape(w, (-1,)), scale_at(top)
    found = _beyond_threshold(flat, s, top / s, radius / s)
    if found is None:  # inside the ball
        return Sparse(*chosen([(itself, (flat,))], lambda x: x != 0), tuple(w.shape))
    kept, excess = found
    x = xp.take(flat, kept)
    values = xp.minimum(excess, xp.abs(scaled(x, s))) * s  # τ ≥ 0
    return Sparse(kept, xp.astype(xp.where(x < 0, -values, values), w.dtype), tuple(w.shape))


def _beyond_threshold(flat, s, top, radius):
    """Positions with d < δ, and δ − d; None where the l1 norm of w / s is at most the radius.

    Few weights are looked at more than once: those with d below a bound of δ, from a sample, or
    from the norm. It was one if δ, taken of them, is below it, since Σ (bound − d)₊ is then over r.
    """
    n, delta, most = size(flat), math.inf, -math.inf
    if radius and n > SAMPLED:
        sample = top - abs(scaled(flat[::STRIDE], s))
        most = _soft_threshold(sample, radius * size(sample) / n)
        most += SPARE * max(top - most, 0.0)
        near, minus_d = chosen(_below(flat, s, top), lambda minus_d: minus_d > -most)
        delta = _soft_threshold(-minus_d, radius)
    if delta > min(most, top):  # no sample, or one that misled, or all weights inside the ball
        norm = sum(float(array_namespace(flat).sum(abs(scaled(flat[i:j], s))))
                   for i, j in block_ends(flat))
        if radius and norm <= radius:
            return None
        most = (radius + (n * top - norm)) / max(n, 1) + 8 * n * EPS * top  # for its rounding
        near, minus_d = chosen(_below(flat, s, top), lambda minus_d: minus_d > -most)
        delta = _soft_threshold(-minus_d, radius) if radius else 0.0
    kept = minus_d > -delta
    return near[kept], (delta + minus_d)[kept]


def _below(flat, s, top):
    """The piece −d = abs(w) / s − top."""
    def minus_d(x):
        x = abs(scaled(x, s))
        x -= top
        return x
    return [(minus_d, (flat,))]


def _soft_threshold(d, radius):
    """δ with Σ (δ − d_i)₊ = r > 0, of d ≥ 0, one of them 0 or nearly."""
    xp = array_namespace(d)
    for _ in range(PASSES):
        delta, before = (radius + float(xp.sum(d))) / size(d), size(d)
        d = d[d < delta]
        if size(d) == before:
            return delta
    d = xp.sort(d, stable=False)
    j = xp.arange(1, size(d) + 1, dtype=xp.float64, device=device(d))
    delta = (radius + xp.cumulative_sum(d)) / j
    d = d[:int(xp.sum(xp.astype(d < delta, xp.int64)))]
    return (radius + float(xp.sum(d))) / size(d)


def l0_penalty(w: Array, alpha: float, mu: float) -> Sparse:
    """Project with a price on every nonzero.

        min over θ of ‖w − θ‖² + (2α/μ) ‖θ‖₀

    θ_i = w_i where w_i² > 2α/μ, and 0 elsewhere. Optimal because the weights separate: keeping w_i
    costs 2α/μ, dropping it w_i². Not unique where they are equal: the weight is dropped.

    Parameters
    ----------
    w : array of shape (...), real floating
    alpha : float, at least 0
    mu : float, positive

    Returns
    -------
    Sparse
        The kept positions and values, in w's shape and dtype. Status "exact".

    Raises
    ------
    ValueError, TypeError
        alpha is negative or not finite; mu is not positive and finite; w has a NaN or an
        infinity, or is not real floating.

    Notes
    -----
    O(n). Carreira-Perpiñán and Idelbayev, CVPR 2018, doi 10.1109/CVPR.2018.00890.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import l0_penalty
    >>> l0_penalty(np.array([3.0, -1.0, 2.0]), alpha=2.0, mu=2.0).decompress().tolist()
    [3.0, 0.0, 2.0]
    """
    xp, worth = real_array(w), root_of_price(alpha, mu)
    flat = xp.reshape(w, (-1,))
    kept, values = chosen([(itself, (flat,))], lambda x: xp.abs(scaled(x, 1)) > worth)
    return Sparse(kept, values, tuple(w.shape))


def l1_penalty(w: Array, alpha: float, mu: float) -> Sparse:
    """Project with a price on the l1 norm.

        min over θ of ‖w − θ‖² + (2α/μ) ‖θ‖₁

    θ_i = sgn w_i · max(abs(w_i) − α/μ, 0), the soft threshold. Optimal and unique because each
    weight's problem is strictly convex and 2(θ_i − w_i) + (2α/μ) sgn θ_i = 0 there, or abs(w_i) ≤
    α/μ at θ_i = 0.

    Parameters
    ----------
    w : array of shape (...), real floating
    alpha : float, at least 0
    mu : float, positive

    Returns
    -------
    Sparse
        The nonzeros of θ, in w's shape and dtype. Status "exact".

    Raises
    ------
    ValueError, TypeError
        alpha is negative or not finite; mu is not positive and finite; w has a NaN or an
        infinity, or is not real floating.

    Notes
    -----
    O(n). Carreira-Perpiñán and Idelbayev, CVPR 2018, doi 10.1109/CVPR.2018.00890.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import l1_penalty
    >>> l1_penalty(np.array([3.0, -1.0, 2.0]), alpha=3.0, mu=2.0).decompress().tolist()
    [1.5, 0.0, 0.5]
    """
    xp, tau = real_array(w), nonnegative(alpha, "alpha") / positive(mu, "mu")
    flat = xp.reshape(w, (-1,))
    kept, values = chosen([(itself, (flat,))], lambda x: xp.abs(scaled(x, 1)) > tau)

    def shrunk(x):
        return xp.astype(xp.where(x < 0, wide(x) + tau, wide(x) - tau), w.dtype)
    return Sparse(kept, in_blocks(shrunk, values), tuple(w.shape))


def group_l0_ball(w: Array, kappa: int, axis: int) -> Sparse:
    """Project onto the arrays with at most kappa nonzero slices along an axis.

        min over θ of ‖w − θ‖²   subject to   at most κ of the w.take(i, axis) nonzero

    θ keeps the κ slices of largest norm (rows, columns, filters, channels) and zeroes the rest.
    Optimal because a kept slice costs 0 and a dropped one its squared norm, whatever the others do.
    Not unique when two norms tie: the lower index is kept.

    Parameters
    ----------
    w : array of shape (...), at least one axis, real floating
    kappa : int, at least 0
    axis : int

    Returns
    -------
    Sparse
        With the axis: min(κ, w.shape[axis]) slices, in w's shape and dtype. Status "exact".

    Raises
    ------
    ValueError, TypeError
        kappa is negative or not an integer; w has no such axis, has a NaN or an infinity, or is not
        real floating.

    Notes
    -----
    O(n). The l0 ball of Carreira-Perpiñán and Idelbayev, CVPR 2018, doi 10.1109/CVPR.2018.00890,
    with slices in the place of weights.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import group_l0_ball
    >>> group_l0_ball(np.array([[3.0, 1.0], [0.0, 2.0]]), kappa=1, axis=0).decompress().tolist()
    [[3.0, 1.0], [0.0, 0.0]]
    """
    xp, kappa = real_array(w), whole(kappa, "kappa")
    axis = axis_of(w, axis)
    kept = _largest(_slice_norms(w, axis, scale_of(w)), min(kappa, w.shape[axis]))
    return Sparse(kept, xp.take(w, kept, axis=axis), tuple(w.shape), axis=axis)


def _slice_norms(w, axis, unit):
    """‖w.take(i, axis)‖² for every i, in units of unit²; a few rows of the first axis at a time."""
    xp, rows = array_namespace(w), max(w.shape[0], 1)
    step = max(1, BLOCK * rows // max(size(w), 1)) if is_numpy_array(w) else rows
    others = tuple(a for a in range(w.ndim) if a != axis)
    norms = []
    for i in range(0, rows, step):
        x = scaled(w[i:min(i + step, w.shape[0]), ...], unit)
        norms.append(xp.sum(x * x, axis=others))
    return xp.concat(norms) if axis == 0 else sum(norms[1:], start=norms[0])


def share_slices(tensors: dict[str, Array], kappa: int, axis: int) -> dict[str, int]:
    """How many slices each tensor has among the kappa of largest norm over all tensors."""
    Layout.of(tensors)  # of one dtype
    unit = scale_of(*tensors.values())
    norms = combine(lambda tensor: _slice_norms(tensor, axis_of(tensor, axis), unit), tensors)
    layout = Layout.of(norms)
    kept = _largest(layout.join(norms), min(kappa, layout.offsets[-1]))
    ends = [int(array_namespace(kept).sum(wide(kept < end))) for end in layout.offsets]
    return {name: b - a for name, a, b in zip(tensors, ends, ends[1:])}
