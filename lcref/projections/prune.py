"""Projections onto sparse vectors: most weights become zero."""

from array_api_compat import array_namespace, device, is_numpy_array

from ..inputs import (axis_of, common_scale, moderate, nonnegative, positive, real_array,
                      root_of_price, whole)
from ..parts import Array, Layout, Sparse, combine, size
from ..tolerance import wide


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
    kept = _largest(xp.abs(flat), min(kappa, size(w)))
    return Sparse(kept, xp.take(flat, kept), tuple(w.shape))


def _largest(magnitude, kappa):
    """Ascending positions of the kappa largest entries; of equal ones the lower index."""
    xp, n = array_namespace(magnitude), size(magnitude)
    if kappa in (0, n):
        return xp.arange(kappa, dtype=xp.int64, device=device(magnitude))
    if not is_numpy_array(magnitude):
        order = xp.argsort(magnitude, descending=True, stable=True)
        return xp.astype(xp.sort(order[:kappa]), xp.int64)
    threshold = xp.partition(magnitude, n - kappa)[n - kappa]  # the κ-th largest, O(n)
    above, ties = xp.flatnonzero(magnitude > threshold), xp.flatnonzero(magnitude == threshold)
    return xp.sort(xp.concat([above, ties[:kappa - size(above)]]))


def l1_ball(w: Array, radius: float) -> Sparse:
    """Project onto the ball of the l1 norm.

        min over θ of ‖w − θ‖²   subject to   ‖θ‖₁ ≤ r

    θ = w where ‖w‖₁ ≤ r, and otherwise the soft threshold θ_i = sgn w_i · max(abs(w_i) − τ, 0) with
    the τ ≥ 0 for which ‖θ‖₁ = r. Optimal and unique because the problem is strictly convex and the
    soft threshold satisfies its KKT conditions, with τ the multiplier of the constraint.

    τ is found as δ = M − τ, with M the largest magnitude and d = M − abs(w): Σ (δ − d_i)₊ = r. In
    ascending order of d, δ = (r + d_1 + ... + d_j) / j with the largest j for which d_j < δ. All
    terms are positive, so nothing cancels at a large offset.

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
    O(n log n) by one sort. The soft threshold by sorted sums: Held, Wolfe and Crowder, Mathematical
    Programming 6, 1974.
    """
    xp, radius = real_array(w), nonnegative(radius, "radius")
    flat = xp.reshape(w, (-1,))
    x, scale = moderate(flat)
    magnitude = xp.abs(x)
    if radius == 0 or float(xp.sum(magnitude)) > radius / scale:
        kept, values = _soft_threshold(magnitude, radius / scale)
        values = xp.where(xp.take(x, kept) < 0, -values, values) * scale
    else:
        kept = xp.nonzero(flat)[0]
        values = xp.take(flat, kept)
    return Sparse(xp.astype(kept, xp.int64), xp.astype(values, w.dtype), tuple(w.shape))


def _soft_threshold(magnitude, radius):
    """Positions and values of the nonzeros of (magnitude − τ)₊, whose sum is the radius."""
    xp, n = array_namespace(magnitude), size(magnitude)
    if radius == 0:
        return xp.arange(0, dtype=xp.int64, device=device(magnitude)), magnitude[:0]
    d = xp.max(magnitude) - magnitude
    ordered = xp.sort(d)
    j = xp.arange(1, n + 1, dtype=xp.float64, device=device(magnitude))
    delta = (radius + xp.cumulative_sum(ordered)) / j
    j = int(xp.sum(xp.astype(ordered < delta, xp.int64)))
    active, delta = ordered[:j], delta[j - 1]
    delta = delta - (xp.sum(delta - active) - radius) / j  # one Newton step mends the running sum
    kept = xp.nonzero(d < delta)[0]
    return kept, xp.minimum(delta - xp.take(d, kept), xp.take(magnitude, kept))  # τ ≥ 0


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
    kept = xp.astype(xp.nonzero(xp.abs(xp.astype(flat, xp.float64)) > worth)[0], xp.int64)
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
    x = xp.astype(flat, xp.float64)
    kept = xp.astype(xp.nonzero(xp.abs(x) > tau)[0], xp.int64)
    x = xp.take(x, kept)
    values = xp.astype(xp.where(x < 0, x + tau, x - tau), w.dtype)
    return Sparse(kept, values, tuple(w.shape))


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
    kept = _largest(_slice_norms(w, axis, moderate(w)[1]), min(kappa, w.shape[axis]))
    return Sparse(kept, xp.take(w, kept, axis=axis), tuple(w.shape), axis=axis)


def _slice_norms(w, axis, unit):
    """‖w.take(i, axis)‖² for every i, in units of unit²."""
    x = wide(w) / unit
    others = tuple(a for a in range(w.ndim) if a != axis % w.ndim)
    return array_namespace(w).sum(x * x, axis=others)


def share_slices(tensors: dict[str, Array], kappa: int, axis: int) -> dict[str, int]:
    """How many slices each tensor has among the kappa of largest norm over all tensors."""
    Layout.of(tensors)  # of one dtype
    unit = common_scale(tensors.values())
    norms = combine(lambda tensor: _slice_norms(tensor, axis, unit), tensors)
    layout = Layout.of(norms)
    kept = _largest(layout.join(norms), min(kappa, layout.offsets[-1]))
    ends = [int(array_namespace(kept).sum(wide(kept < end))) for end in layout.offsets]
    return {name: b - a for name, a, b in zip(tensors, ends, ends[1:])}
