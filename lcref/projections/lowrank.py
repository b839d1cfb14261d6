"""Projections onto matrices of low rank."""

from collections.abc import Callable

from array_api_compat import array_namespace, device

from ..inputs import moderate, one_of, real_array, root_of_price, whole
from ..parts import Array, LowRank
from ..svd import truncated


def rank_ball(w: Array, rank: int) -> LowRank:
    """Project onto the matrices of at most the given rank.

        min over θ of ‖w − θ‖²_F   subject to   rank(θ) ≤ r

    θ = U_r S_r V_rᵀ, the singular value decomposition of w cut after its r largest singular values,
    held as the factors U_r √S_r and √S_r V_rᵀ. Optimal by the theorem of Eckart and Young: no
    matrix of rank r has a squared distance below Σ_{i>r} σ_i². Not unique when σ_r = σ_{r+1}: the
    one that the decomposition puts first.

    Parameters
    ----------
    w : array of shape (m, n), real floating
    rank : int, at least 0

    Returns
    -------
    LowRank
        Factors (m, r) and (r, n) in w's dtype. With r ≥ min(m, n) they are w and the identity, so
        that the product is w itself. Status "exact".

    Raises
    ------
    ValueError, TypeError
        rank is negative or not an integer; w is not a matrix, has a NaN or an infinity, or is not
        real floating.

    Notes
    -----
    O(m n min(m, n)), in float64, of large matrices by the Gram matrix, see `svd.truncated`. Eckart
    and Young, Psychometrika 1, 1936; Idelbayev and Carreira-Perpiñán, CVPR 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import rank_ball
    >>> w = np.array([[2.0, 0.0], [0.0, 1.0]])
    >>> theta = rank_ball(w, rank=1)
    >>> round(float(np.sum((w - theta.decompress()) ** 2)), 9)
    1.0
    """
    xp, rank = _matrix(w), whole(rank, "rank")
    if rank >= min(w.shape):
        left, right = _whole_matrix(w)
    else:
        x, scale = moderate(w)
        left, right = truncated(x, lambda squares: rank)
        left = left * scale
    return LowRank(xp.astype(left, w.dtype), xp.astype(right, w.dtype), tuple(w.shape))


def _matrix(w):
    """The namespace of w, a finite real floating matrix."""
    xp = real_array(w)
    if w.ndim != 2:
        raise ValueError(f"w must be a matrix (2 axes), not an array of {w.ndim} axes")
    return xp


def _whole_matrix(w):
    """(w, I) or (I, w), the identity on the shorter side."""
    xp, (m, n) = array_namespace(w), w.shape
    identity = xp.eye(min(m, n), dtype=w.dtype, device=device(w))
    return (w, identity) if n <= m else (identity, w)


def rank_selection(w: Array, alpha: float, mu: float,
                   cost: str | Callable[[int], float] = "storage", positions: int = 1) -> LowRank:
    """Project with a price on the rank, which is learned.

        min over r, θ of ‖w − θ‖²_F + (2α/μ) cost(r)   subject to   rank(θ) ≤ r

    For each r the best θ is the truncated singular value decomposition, at Σ_{i>r} σ_i²; so r is
    found by scanning 0..min(m, n), exactly. Not unique where two r tie: the smallest is taken.

    Parameters
    ----------
    w : array of shape (m, n), real floating
    alpha : float, at least 0
    mu : float, positive
    cost : "storage", "flops" or callable
        r(m + n) numbers; that many multiplications for each of the output positions; or cost(r).
    positions : int, at least 1
        Output positions of a convolution, for "flops".

    Returns
    -------
    LowRank
        As from rank_ball with the optimal r. Status "exact".

    Raises
    ------
    ValueError, TypeError
        alpha is negative or not finite; mu is not positive and finite; cost is unknown; positions
        is not an integer, at least 1; w is not a matrix, has a NaN or an infinity, or is not real
        floating.

    Notes
    -----
    O(m n min(m, n)), one decomposition. Idelbayev and Carreira-Perpiñán, CVPR 2020, pp. 8046-8056.

    Examples
    --------
    >>> import numpy as np
    >>> from lcref.projections import rank_selection
    >>> w = np.array([[2.0, 0.0], [0.0, 1.0]])     # 5, 3 and 4 for ranks 0, 1 and 2
    >>> rank_selection(w, alpha=0.25, mu=1.0).left.shape
    (2, 1)
    """
    xp, worth = _matrix(w), root_of_price(alpha, mu)
    x, scale = moderate(w)
    charge = rank_cost(cost, sum(w.shape), whole(positions, "positions", least=1))
    costs = [charge(r) for r in range(min(w.shape) + 1)]
    prices = [worth / scale * (worth / scale) * cost if cost else 0.0 for cost in costs]

    def cheapest(squares):
        tails = xp.cumulative_sum(xp.flip(squares), include_initial=True)  # r descending
        totals = [float(tails[len(prices) - 1 - r]) + price for r, price in enumerate(prices)]
        return totals.index(min(totals))
    left, right = truncated(x, cheapest)
    left, right = _whole_matrix(w) if left.shape[1] == min(w.shape) else (left * scale, right)
    return LowRank(xp.astype(left, w.dtype), xp.astype(right, w.dtype), tuple(w.shape))


def rank_cost(cost, sides, positions):
    """cost(r) as a function."""
    if callable(cost):
        return cost
    one_of(cost, "cost (when not a function of r)", ("storage", "flops"))
    return lambda r: r * sides * (positions if cost == "flops" else 1)


def as_matrix(w: Array, scheme: int = 1) -> Array:
    """A convolution (out, in, h, w) as out × (in·h·w), by scheme 2 as (out·h) × (in·w)."""
    xp = array_namespace(w)
    if w.ndim == 2:
        return w
    if w.ndim != 4:
        raise ValueError(f"w must be a matrix or a convolution (2 axes or 4), not {w.ndim} axes")
    out, inputs, height, width = w.shape
    if scheme == 1:
        return xp.reshape(w, (out, inputs * height * width))
    return xp.reshape(xp.permute_dims(w, (0, 2, 1, 3)), (out * height, inputs * width))
