"""Projections onto sparse vectors: most weights become zero."""

import math
from collections.abc import Callable

from array_api_compat import array_namespace, device, is_numpy_array

from ..inputs import (axis_of, largest_magnitude, nonnegative, positive, real_array,
                      root_of_price, scale_at, scale_of, scaled, whole)
from ..parts import BLOCK, Array, Layout, Sparse, block_ends, combine, in_blocks, size
from ..tolerance import EPS, wide

SAMPLED, STRIDE = 2**16, 61  # more entries than this are sampled, by a step that no layer has
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
        min(κ, w.size) positions and values, in w's shape and dtype.

    Raises
    ------
    ValueError, TypeError
        kappa is negative or not an integer; w has a NaN or an infinity; w is not real floating.

    Notes
    -----
    O(n) by selection. Carreira-Perpiñán and Idelbayev, CVPR 2018, doi 10.1109/CVPR.2018.00890.
    """
    xp, kappa = real_array(w), whole(kappa, "kappa")
    flat = xp.reshape(w, (-1,))
    kept = largest(flat, min(kappa, size(w)))
    return Sparse(kept, xp.take(flat, kept), tuple(w.shape))


def largest(x: Array, kappa: int, exact: Callable | None = None) -> Array:
    """Ascending positions of the kappa entries of largest magnitude; of equal ones the lower index.

    `exact(i)`, where given, has the magnitudes before they were rounded to those of x, for an array
    of positions: rounding keeps their order, but for those that became equal.
    """
    xp, n = array_namespace(x), size(x)
    if kappa in (0, n):
        return xp.arange(kappa, dtype=xp.int64, device=device(x))
    if 4 * kappa < n > SAMPLED:  # the least magnitude is about that of a sample: few are above
        guess = _kth_largest(x[::STRIDE], min(kappa + 4 * math.isqrt(STRIDE * kappa), n) // STRIDE)
        near = positions(x, lambda y: xp.abs(y) >= guess)
        if kappa <= size(near) < n:
            found = largest(xp.take(x, near), kappa, exact and (lambda i: exact(xp.take(near, i))))
            return xp.take(near, found)
    threshold = _kth_largest(x, kappa)
    kept = positions(x, lambda y: xp.abs(y) >= threshold)
    if size(kept) == kappa:
        return kept
    tied = xp.abs(xp.take(x, kept)) == threshold
    above, ties = kept[~tied], kept[tied]
    wanted = kappa - size(above)
    first = xp.take(ties, largest(exact(ties), wanted)) if exact else ties[:wanted]
    return xp.sort(xp.concat([above, first]))


def _kth_largest(x, k):
    """The k-th largest magnitude; the largest for k = 0."""
    xp, magnitude = array_namespace(x), array_namespace(x).abs(x)
    if not is_numpy_array(x):
        return xp.sort(magnitude, descending=True)[max(k, 1) - 1]
    at = size(x) - max(k, 1)  # by selection, O(n), in place
    magnitude.partition(at)
    return magnitude[at]


def positions(x: Array, chosen: Callable) -> Array:
    """Ascending positions of the entries of a vector that are chosen, looked at in blocks."""
    xp = array_namespace(x)
    found = [xp.astype(xp.nonzero(chosen(x[i:j]))[0], xp.int64) + i for i, j in block_ends(x)]
    return xp.concat([xp.arange(0, dtype=xp.int64, device=device(x)), *found])


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
        The nonzeros of θ, in w's shape and dtype.

    Raises
    ------
    ValueError, TypeError
        radius is negative or not finite; w has a NaN or an infinity; w is not real floating.

    Notes
    -----
    About O(n): a few passes over ever fewer weights, and after ten of them one sort of what is
    left, so O(n log n) at worst. Michelot, J. Optimization Theory and Applications 50, 1986; sorted
    sums: Held, Wolfe and Crowder, Mathematical Programming 6, 1974.
    """
    xp, radius = real_array(w), nonnegative(radius, "radius")
    flat, top = xp.reshape(w, (-1,)), largest_magnitude(w)
    s = scale_at(top)
    norm = sum(float(xp.sum(xp.abs(scaled(flat[i:j], s)))) for i, j in block_ends(flat))
    if radius == 0 or norm > radius / s:
        top = top / s
        delta = _soft_threshold(flat, s, top, radius / s, norm) if radius else 0.0
        kept = positions(flat, lambda x: top - xp.abs(scaled(x, s)) < delta)

        def shrunk(x):
            magnitude = xp.abs(scaled(x, s))
            value = xp.minimum(delta - (top - magnitude), magnitude) * s  # τ ≥ 0
            return xp.astype(xp.where(x < 0, -value, value), w.dtype)
        values = in_blocks(shrunk, xp.take(flat, kept))
    else:
        kept = positions(flat, lambda x: x != 0)
        values = xp.take(flat, kept)
    return Sparse(kept, values, tuple(w.shape))


def _soft_threshold(flat, s, top, radius, norm):
    """δ with Σ (δ − d_i)₊ = r > 0, d = top − abs(w) / s; norm is the l1 norm of w / s."""
    xp, n = array_namespace(flat), size(flat)
    most = (radius + (n * top - norm)) / n + 8 * n * EPS * top  # not below δ by rounding either

    def near(x):
        d = top - xp.abs(scaled(x, s))
        return d[d < most]
    d = xp.concat([near(flat[i:j]) for i, j in block_ends(flat)])
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
        The kept positions and values, in w's shape and dtype.

    Raises
    ------
    ValueError, TypeError
        alpha is negative or not finite; mu is not positive and finite; w has a NaN or an
        infinity, or is not real floating.

    Notes
    -----
    O(n). Carreira-Perpiñán and Idelbayev, CVPR 2018, doi 10.1109/CVPR.2018.00890.
    """
    xp, worth = real_array(w), root_of_price(alpha, mu)
    flat = xp.reshape(w, (-1,))
    kept = positions(flat, lambda x: xp.abs(wide(x)) > worth)
    return Sparse(kept, xp.take(flat, kept), tuple(w.shape))


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
        The nonzeros of θ, in w's shape and dtype.

    Raises
    ------
    ValueError, TypeError
        alpha is negative or not finite; mu is not positive and finite; w has a NaN or an
        infinity, or is not real floating.

    Notes
    -----
    O(n). Carreira-Perpiñán and Idelbayev, CVPR 2018, doi 10.1109/CVPR.2018.00890.
    """
    xp, tau = real_array(w), nonnegative(alpha, "alpha") / positive(mu, "mu")
    flat = xp.reshape(w, (-1,))
    kept = positions(flat, lambda x: xp.abs(wide(x)) > tau)

    def shrunk(x):
        return xp.astype(xp.where(x < 0, wide(x) + tau, wide(x) - tau), w.dtype)
    return Sparse(kept, in_blocks(shrunk, xp.take(flat, kept)), tuple(w.shape))


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
        With the axis: min(κ, w.shape[axis]) slices, in w's shape and dtype.

    Raises
    ------
    ValueError, TypeError
        kappa is negative or not an integer; w has no such axis, has a NaN or an infinity, or is not
        real floating.

    Notes
    -----
    O(n).
    """
    xp, kappa = real_array(w), whole(kappa, "kappa")
    axis = axis_of(w, axis)
    kept = largest(_slice_norms(w, axis, scale_of(w)), min(kappa, w.shape[axis]))
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
    kept = largest(layout.join(norms), min(kappa, layout.offsets[-1]))
    ends = [int(array_namespace(kept).sum(wide(kept < end))) for end in layout.offsets]
    return {name: b - a for name, a, b in zip(tensors, ends, ends[1:])}
