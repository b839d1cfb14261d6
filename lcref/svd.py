"""The singular value decomposition, checked, and by another driver where the first one fails."""

import math
import warnings
from collections.abc import Callable

from array_api_compat import array_namespace, device

from .inputs import on_the_host
from .parts import Array
from .tolerance import EPS, norm, squared_norm

LARGE = 64  # rows and columns from which the singular vectors are found by a Gram matrix


def decompose(x: Array) -> tuple[Array, Array, Array]:
    """U, S, Vᵀ with x = U S Vᵀ, of a finite float64 matrix, on its device.

    NumPy's driver, LAPACK's gesdd (divide and conquer), fails on rare finite matrices, or answers
    wrongly; so its answer is taken only if it is finite and Σσ² = ‖x‖² within rounding. Otherwise a
    RuntimeWarning says why, and gesvd (QR iteration: slower, and another algorithm) answers.

    Raises
    ------
    ValueError
        gesvd did not converge either.
    """
    xp = array_namespace(x)
    try:
        found = xp.linalg.svd(x, full_matrices=False)
        why = "" if _decomposes(x, *found) else "its answer is wrong"
    except (ValueError, RuntimeError) as error:  # NumPy's and CuPy's LinAlgError, PyTorch's
        why = str(error)
    if why:
        warnings.warn(f"the singular value decomposition of a {x.shape[0]} × {x.shape[1]} matrix "
                      f"failed ({why}); LAPACK's gesvd is used instead, on the host",
                      RuntimeWarning, stacklevel=3)
        found = tuple(xp.asarray(part, device=device(x)) for part in _by_gesvd(on_the_host(x)))
    return found


def truncated(x: Array, choose: Callable[[Array], int]) -> tuple[Array, Array]:
    """Factors U_r √S_r and √S_r V_rᵀ of a finite float64 matrix, r = choose(σ², descending).

    Of large matrices by the Gram matrix G = x xᵀ (or xᵀ x, the smaller), unless σ_r² < √ε·σ_1²,
    which its rounding blurs. Its computed leading eigenvectors Q have tr QᵀGQ ≥ Σ_{i≤r} σ_i² −
    2r‖E‖ by Ky Fan's theorem, E the rounding of G, ‖E‖ ≤ max(m, n)·ε·‖x‖²; so Q Qᵀx is as near to
    x as the best matrix of rank r, within the published constant. One step of subspace iteration,
    Q ← orthonormal basis of G Q, raises tr QᵀGQ, and mends most of what the squares lost.

    Notes
    -----
    O(m n min(m, n)); with the Gram matrix the smaller part of that, in matrix products.
    """
    m, n = x.shape
    xp, tall = array_namespace(x), m > n
    y = xp.matrix_transpose(x) if tall else x
    found = _by_gram(y, choose) if min(m, n) >= LARGE else None
    if found is None:
        u, s, vt = decompose(x)
        rank = choose(s * s)
        root = xp.sqrt(s[:rank])
        return u[:, :rank] * root, root[:, None] * vt[:rank, :]
    return tuple(map(xp.matrix_transpose, reversed(found))) if tall else found


def _by_gram(y, choose):
    """The same for m ≤ n; None where the squares do not do."""
    xp, m = array_namespace(y), y.shape[0]
    try:
        squares, q = xp.linalg.eigh(y @ xp.matrix_transpose(y))
    except (ValueError, RuntimeError):
        return None
    rank, whole = choose(xp.clip(xp.flip(squares), min=0.0)), squared_norm(y)
    right = abs(float(xp.sum(squares)) - whole) <= 8 * math.prod(y.shape) * EPS * whole
    if not right or not rank or not float(squares[m - rank]) >= math.sqrt(EPS) * float(squares[-1]):
        return None
    q = q[:, m - rank:]
    q = xp.linalg.qr(y @ (xp.matrix_transpose(y) @ q))[0] if rank < m else q
    b = xp.matrix_transpose(q) @ y
    _, turn = xp.linalg.eigh(b @ xp.matrix_transpose(b))  # rows of b at right angles, largest first
    turn = xp.flip(turn, axis=1)
    b = xp.matrix_transpose(turn) @ b
    root = xp.sqrt(xp.sqrt(xp.sum(b * b, axis=1)))
    b /= root[:, None]
    return q @ turn * root, b


def _decomposes(x, u, s, vt):
    """Whether the factors are finite and Σσ² = ‖x‖², within the published constant."""
    xp, length = array_namespace(x), norm(x)
    return (all(bool(xp.all(xp.isfinite(part))) for part in (u, s, vt))
            and abs(norm(s) - length) <= 8 * math.prod(x.shape) * EPS * length)


def _by_gesvd(x):
    """The same of a NumPy array by the other driver."""
    from scipy.linalg import LinAlgError, svd
    try:
        return svd(x, full_matrices=False, lapack_driver="gesvd")
    except LinAlgError as error:
        raise ValueError(f"w, as a {x.shape[0]} × {x.shape[1]} matrix, has no singular value "
                         f"decomposition by gesvd either: {error}") from error
