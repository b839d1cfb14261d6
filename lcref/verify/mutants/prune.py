"""Wrong projections onto sparse vectors, and the right ones that they are variations of."""

import numpy as np

from . import mutant


def keep(w, where):
    """w at the given positions of the flattened array, or where the mask holds; zero elsewhere."""
    theta = np.zeros_like(w)
    theta.flat[where] = w.flat[where]
    return theta


def descending(w):
    """The positions of w by magnitude, largest first; a tie goes to the lower index."""
    return np.argsort(-np.abs(w), axis=None, kind="stable")


def largest(w, kappa):
    """The κ entries of largest magnitude: the projection onto ‖θ‖₀ ≤ κ."""
    return keep(w, descending(w)[:kappa])


def soft(w, tau):
    """sgn(w)·max(abs(w) − τ, 0)."""
    return np.sign(w) * np.maximum(np.abs(w) - tau, 0)


def count_above(magnitudes, radius):
    """How many of the descending magnitudes stay nonzero on the sphere ‖θ‖₁ = r."""
    steps = np.arange(1, magnitudes.size + 1)
    above = magnitudes * steps > np.cumsum(magnitudes) - radius
    return max(int(np.count_nonzero(above)), 1)


def tau_of(w, radius):
    """The threshold τ with Σ max(abs(w) − τ, 0) = r; negative for a w inside the ball."""
    magnitudes = np.sort(np.abs(w), axis=None)[::-1]
    j = count_above(magnitudes, radius)
    return (np.sum(magnitudes[:j]) - radius) / j


def nearest_in_l1_ball(w, radius):
    """The projection onto ‖θ‖₁ ≤ r; a norm above r by rounding is scaled back."""
    if np.sum(np.abs(w)) <= radius:
        return w.copy()
    theta = soft(w, tau_of(w, radius))
    return theta * min(1.0, radius / (np.sum(np.abs(theta)) or 1.0))


def other_axes(w, axis):
    """All axes but one, to sum over each slice along it."""
    return tuple(a for a in range(w.ndim) if a != axis % w.ndim)


def energies(w, axis):
    """The sum of squares of each slice along the axis."""
    return np.sum(w * w, axis=other_axes(w, axis))


def keep_slices(w, indices, axis):
    """w at the given slices along the axis; zero elsewhere."""
    theta = np.zeros_like(w)
    where = (slice(None),) * (axis % w.ndim) + (indices,)
    theta[where] = w[where]
    return theta


def largest_slices(w, scores, kappa, axis):
    """The κ slices of largest score."""
    return keep_slices(w, np.argsort(-scores, kind="stable")[:kappa], axis)


# ---- l0_ball(w, kappa)


@mutant("l0_ball", "slice of minus zero",
        "With kappa = 0 the slice [-kappa:] is [0:] and keeps every weight; sort in descending "
        "order and take [:kappa], or slice [n - kappa:].")
def l0_slice_of_minus_zero(w, kappa):
    return keep(w, np.argsort(np.abs(w), axis=None, kind="stable")[-kappa:])


@mutant("l0_ball", "magnitude forgotten",
        "The largest weights are kept instead of the largest magnitudes, so that large negative "
        "weights are lost; sort abs(w).")
def l0_largest_signed_values(w, kappa):
    return keep(w, np.argsort(-w, axis=None, kind="stable")[:kappa])


@mutant("l0_ball", "ties kept",
        "Keeping abs(w) >= the kappa-th largest magnitude keeps every weight that ties with it, "
        "more than kappa; keep positions instead, the lower indices of a tie.")
def l0_keeps_all_ties(w, kappa):
    if kappa == 0:
        return np.zeros_like(w)
    magnitudes = np.abs(w)
    return keep(w, magnitudes.ravel() >= np.sort(magnitudes, axis=None)[-min(kappa, w.size)])


@mutant("l0_ball", "ties dropped",
        "Keeping abs(w) > the (kappa+1)-th largest magnitude drops every weight that ties with it, "
        "so that fewer than kappa are kept; keep positions instead, the lower indices of a tie.")
def l0_drops_all_ties(w, kappa):
    if kappa >= w.size:
        return w.copy()
    magnitudes = np.abs(w).ravel()
    return keep(w, magnitudes > np.sort(magnitudes)[::-1][kappa])


@mutant("l0_ball", "wrong choice",
        "The kappa smallest magnitudes are kept, the largest are pruned; argsort is ascending, "
        "take its end.")
def l0_keeps_the_smallest(w, kappa):
    return keep(w, descending(w)[::-1][:kappa])


@mutant("l0_ball", "parameter misread",
        "kappa is taken for the number of weights to prune; it is the number of weights to keep.")
def l0_prunes_kappa(w, kappa):
    return keep(w, descending(w)[:max(w.size - kappa, 0)])


@mutant("l0_ball", "off by one",
        "One weight more than kappa is kept, as by [:kappa + 1] or a threshold at the "
        "(kappa+1)-th magnitude; take [:kappa].")
def l0_keeps_one_more(w, kappa):
    return keep(w, descending(w)[:kappa + 1])


@mutant("l0_ball", "off by one",
        "One weight fewer than kappa is kept, as by a strict > against the kappa-th largest "
        "magnitude itself; take the first kappa positions.")
def l0_keeps_one_fewer(w, kappa):
    return w.copy() if kappa >= w.size else keep(w, descending(w)[:max(kappa - 1, 0)])


@mutant("l0_ball", "half precision",
        "Magnitudes are compared in single precision, where close ones are equal and the order is "
        "lost; compare them in w's own dtype.")
def l0_compares_in_single_precision(w, kappa):
    return keep(w, descending(w.astype(np.float32))[:kappa])


# ---- l1_ball(w, radius)


@mutant("l1_ball", "off by one",
        "The threshold is taken one index too late: tau = (sum of the rho largest - r) / rho with "
        "one magnitude too many; rho is the last index at which u_rho exceeds this number.")
def l1_threshold_one_index_late(w, radius):
    magnitudes = np.sort(np.abs(w), axis=None)[::-1]
    if np.sum(magnitudes) <= radius:
        return w.copy()
    j = min(count_above(magnitudes, radius) + 1, w.size)
    return soft(w, max((np.sum(magnitudes[:j]) - radius) / j, 0))


@mutant("l1_ball", "inside moved",
        "A point inside the ball is moved out to its surface, because tau comes out negative; "
        "return w itself when its l1 norm is at most the radius.")
def l1_moves_points_inside_to_the_surface(w, radius):
    return soft(w, tau_of(w, radius))


@mutant("l1_ball", "loose bisection",
        "The bisection for tau stops too early and its lower end leaves the l1 norm above the "
        "radius; compute tau from the sorted magnitudes, which is exact.")
def l1_bisects_ten_times(w, radius):
    below, above = 0.0, float(np.max(np.abs(w)))
    if np.sum(np.abs(w)) <= radius:
        return w.copy()
    for _ in range(10):
        middle = (below + above) / 2
        outside = np.sum(np.maximum(np.abs(w) - middle, 0)) > radius
        below, above = (middle, above) if outside else (below, middle)
    return soft(w, below)


@mutant("l1_ball", "heuristic",
        "w is scaled to the radius, which is feasible but not nearest; every magnitude has to be "
        "lowered by the same tau and cut at zero.")
def l1_scales_to_the_radius(w, radius):
    norm = np.sum(np.abs(w))
    return w.copy() if norm <= radius else w * (radius / norm)


@mutant("l1_ball", "wrong threshold",
        "tau is (l1 norm - r) / n over all n entries, as if none became zero, so that the norm "
        "stays too large; divide by the number of entries that stay nonzero.")
def l1_divides_by_all_entries(w, radius):
    excess = np.sum(np.abs(w)) - radius
    return soft(w, max(excess, 0) / w.size)


@mutant("l1_ball", "wrong statistic",
        "The projection is onto the l2 ball: w is scaled until its Euclidean norm is the radius; "
        "the constraint is on the sum of magnitudes.")
def l1_ball_of_the_wrong_norm(w, radius):
    norm = np.sqrt(np.sum(w * w))
    return w.copy() if norm <= radius else w * (radius / norm)


@mutant("l1_ball", "wrong sign",
        "The thresholded magnitudes are returned without the signs of w; multiply by sign(w).")
def l1_loses_the_signs(w, radius):
    theta = nearest_in_l1_ball(w, radius)
    return theta if np.sum(np.abs(w)) <= radius else np.abs(theta)


@mutant("l1_ball", "magnitude forgotten",
        "w itself is sorted and thresholded, as for the simplex, so that negative weights become "
        "zero; threshold abs(w) and give the signs back.")
def l1_projects_onto_the_simplex(w, radius):
    if np.sum(np.abs(w)) <= radius:
        return w.copy()
    values = np.sort(w, axis=None)[::-1]
    j = count_above(values, radius)
    return np.maximum(w - (np.sum(values[:j]) - radius) / j, 0)


@mutant("l1_ball", "wrong shrinkage",
        "The largest magnitudes are kept whole while their sum stays within the radius; the "
        "nearest point lowers every magnitude by the same tau instead.")
def l1_keeps_whole_weights(w, radius):
    order = descending(w)
    return keep(w, order[np.cumsum(np.abs(w.ravel()[order])) <= radius])


@mutant("l1_ball", "half precision",
        "tau is summed in single precision, and the l1 norm misses the radius by 1e-7 of itself; "
        "accumulate in double precision.")
def l1_sums_in_single_precision(w, radius):
    if np.sum(np.abs(w)) <= radius:
        return w.copy()
    return soft(w, float(tau_of(w.astype(np.float32), np.float32(radius))))


# ---- l0_penalty(w, alpha, mu) and l1_penalty(w, alpha, mu)


@mutant("l0_penalty", "wrong threshold",
        "abs(w), not w squared, is compared with 2 alpha/mu; the threshold of abs(w) is the square "
        "root of 2 alpha/mu.")
def l0_penalty_forgets_the_root(w, alpha, mu):
    return np.where(np.abs(w) > 2 * alpha / mu, w, 0)


@mutant("l0_penalty", "wrong threshold",
        "w squared is compared with alpha/mu; with mu/2 before the squared distance the price of a "
        "nonzero is 2 alpha/mu.")
def l0_penalty_forgets_the_two(w, alpha, mu):
    return np.where(w * w > alpha / mu, w, 0)


@mutant("l0_penalty", "parameter ignored",
        "mu is ignored: w squared is compared with 2 alpha; compare with 2 alpha/mu.")
def l0_penalty_ignores_mu(w, alpha, mu):
    return np.where(w * w > 2 * alpha, w, 0)


@mutant("l0_penalty", "wrong shrinkage",
        "The kept weights are shrunk by the threshold, as for an l1 penalty; an l0 penalty leaves "
        "them as they are.")
def l0_penalty_shrinks(w, alpha, mu):
    return soft(w, np.sqrt(2 * alpha / mu))


@mutant("l1_penalty", "wrong threshold",
        "The soft threshold is 2 alpha/mu; the factor 2 cancels against that of the squared "
        "distance, it is alpha/mu.")
def l1_penalty_threshold_twice_too_large(w, alpha, mu):
    return soft(w, 2 * alpha / mu)


@mutant("l1_penalty", "wrong shrinkage",
        "The weights above the threshold are kept as they are; an l1 penalty lowers their "
        "magnitudes by alpha/mu.")
def l1_penalty_does_not_shrink(w, alpha, mu):
    return np.where(np.abs(w) > alpha / mu, w, 0)


@mutant("l1_penalty", "magnitude forgotten",
        "max(w - alpha/mu, 0) zeroes all negative weights; threshold abs(w) and give the signs "
        "back.")
def l1_penalty_loses_negative_weights(w, alpha, mu):
    return np.maximum(w - alpha / mu, 0)


@mutant("l1_penalty", "parameter ignored",
        "mu is ignored: the soft threshold is alpha; it is alpha/mu.")
def l1_penalty_ignores_mu(w, alpha, mu):
    return soft(w, alpha)


# ---- group_l0_ball(w, kappa, axis)


@mutant("group_l0_ball", "wrong statistic",
        "Slices are ranked by their sum of magnitudes; dropping a slice costs its sum of squares, "
        "rank by that.")
def group_by_l1_norm(w, kappa, axis):
    return largest_slices(w, np.sum(np.abs(w), axis=other_axes(w, axis)), kappa, axis)


@mutant("group_l0_ball", "wrong statistic",
        "Slices are ranked by their largest magnitude; dropping a slice costs its sum of squares, "
        "rank by that.")
def group_by_largest_entry(w, kappa, axis):
    return largest_slices(w, np.max(np.abs(w), axis=other_axes(w, axis)), kappa, axis)


@mutant("group_l0_ball", "magnitude forgotten",
        "Slices are ranked by the absolute value of their sum, where entries of opposite sign "
        "cancel; rank by the sum of squares.")
def group_by_sum(w, kappa, axis):
    return largest_slices(w, np.abs(np.sum(w, axis=other_axes(w, axis))), kappa, axis)


@mutant("group_l0_ball", "wrong axis",
        "The slices are taken along the other axis: norm(w, axis=axis) sums along the axis, not "
        "over the rest. Slice i is w.take(i, axis); sum over all other axes.")
def group_along_the_other_axis(w, kappa, axis):
    other = w.ndim - 1 - axis % w.ndim
    return largest_slices(w, energies(w, other), kappa, other)


@mutant("group_l0_ball", "wrong axis",
        "A negative axis is not found among 0..ndim-1, so that the norm runs over the whole "
        "array; take axis modulo ndim first.")
def group_misses_negative_axes(w, kappa, axis):
    rest = tuple(a for a in range(w.ndim) if a != axis)
    return largest_slices(w, np.atleast_1d(np.sum(w * w, axis=rest)), kappa, axis)


@mutant("group_l0_ball", "ties kept",
        "Keeping slices whose norm is >= the kappa-th largest keeps every slice that ties with it, "
        "more than kappa; keep indices instead.")
def group_keeps_all_ties(w, kappa, axis):
    scores = energies(w, axis)
    least = np.sort(scores)[::-1][min(kappa, scores.size) - 1] if kappa else np.inf
    return keep_slices(w, np.flatnonzero(scores >= least), axis)


@mutant("group_l0_ball", "slice of minus zero",
        "With kappa = 0 the slice [-kappa:] is [0:] and keeps every slice; sort in descending "
        "order and take [:kappa].")
def group_slice_of_minus_zero(w, kappa, axis):
    return keep_slices(w, np.argsort(energies(w, axis), kind="stable")[-kappa:], axis)


@mutant("group_l0_ball", "parameter misread",
        "kappa single weights are kept instead of kappa slices; rank the slices along the axis by "
        "their sums of squares and keep whole ones.")
def group_keeps_single_weights(w, kappa, axis):
    return largest(w, kappa)
