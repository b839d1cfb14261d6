"""The singular value decomposition, checked, and by another driver where the first one fails."""

import math
import warnings

from array_api_compat import array_namespace, device

from .inputs import on_the_host
from .parts import Array
from .tolerance import EPS, norm


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
