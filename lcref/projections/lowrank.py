"""Projections onto matrices of low rank."""

from array_api_compat import array_namespace, device

from ..parts import Array, LowRank
from .inputs import moderate, real_array, whole


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
        that the product is w itself.

    Raises
    ------
    ValueError, TypeError
        rank is negative or not an integer; w is not a matrix, has a NaN or an infinity, or is not
        real floating.

    Notes
    -----
    O(m n min(m, n)), decomposed in float64. Eckart and Young, Psychometrika 1, 1936; Idelbayev and
    Carreira-Perpiñán, CVPR 2020.
    """
    xp, rank = real_array(w), whole(rank, "rank")
    if w.ndim != 2:
        raise ValueError(f"w must be a matrix (2 axes), not an array of {w.ndim} axes")
    if rank >= min(w.shape):
        left, right = _whole_matrix(w)
    else:
        x, scale = moderate(w)
        u, s, vt = xp.linalg.svd(x, full_matrices=False)
        root = xp.sqrt(s[:rank])
        left, right = u[:, :rank] * root * scale, root[:, None] * vt[:rank, :]
    return LowRank(xp.astype(left, w.dtype), xp.astype(right, w.dtype), tuple(w.shape))


def _whole_matrix(w):
    """(w, I) or (I, w), the identity on the shorter side."""
    xp, (m, n) = array_namespace(w), w.shape
    identity = xp.eye(min(m, n), dtype=w.dtype, device=device(w))
    return (w, identity) if n <= m else (identity, w)


def as_matrix(w: Array, scheme: int = 1) -> Array:
    """A convolution (out, in, h, w) as out × (in·h·w), by scheme 2 as (out·h) × (in·w)."""
    xp = array_namespace(w)
    if w.ndim == 2:
        return w
    if w.ndim != 4:
        raise ValueError(f"low rank needs a matrix or a convolution (2 axes or 4), not {w.ndim}")
    out, inputs, height, width = w.shape
    if scheme == 1:
        return xp.reshape(w, (out, inputs * height * width))
    return xp.reshape(xp.permute_dims(w, (0, 2, 1, 3)), (out * height, inputs * width))
