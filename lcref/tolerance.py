"""How far above the optimum an objective may lie because of rounding alone."""

import math

from array_api_compat import array_namespace

from .inputs import moderate
from .parts import Array

EPS = 2.0**-52  # sums are accumulated in float64 whatever the dtype of w
TINY = 2.0**-1022


def squared_norm(x: Array) -> float:
    """‖x‖², accumulated in float64, as a Python float."""
    xp = array_namespace(x)
    x = xp.astype(x, xp.float64)
    return float(xp.sum(x * x))


def norm(x: Array) -> float:
    """‖x‖ of an array of any magnitude, as a Python float."""
    x, scale = moderate(x)
    return math.sqrt(squared_norm(x)) * scale


def slack(n: int, unit: float, spread: float, first_order: float, largest: float) -> float:
    """The published constant: an objective ‖w − θ‖² is accepted up to the optimum plus this.

        8·n·ε·D + 2·u·F + n·(u·M)² + n·tiny

    The first term bounds the error of sums of n terms of total size D, accumulated in float64
    (ε = 2⁻⁵²). The next two are the change of the objective when the entries of θ are rounded to
    w's dtype (unit u), to first order with F = ‖θ‖·‖w − θ‖ and to second with M the largest
    magnitude in w and in any part.
    """
    return 8 * n * EPS * spread + 2 * unit * first_order + n * (unit * largest) ** 2 + n * TINY


def objective_slack(w: Array, theta: Array, spread: float | None = None,
                    stationary: bool = False, largest: float = 0.0) -> float:
    """The slack of one projection's answer θ to w, a float.

    It is taken of w and θ divided by a power of two, and multiplied by its square, so that nothing
    overflows and n·tiny hides nothing. Below the smallest normal number θ is rounded to a
    multiple of h instead of to a relative precision, which adds 2·(h/2)·√n·‖w − θ‖ + n·(h/2)².

    Parameters
    ----------
    w, theta : arrays of the same shape, real floating
    spread : float, optional
        D. ‖w‖² when left out; ‖w − mean w‖² for kmeans, ‖w‖² + ‖θ‖² for fixed codebooks.
    stationary : bool
        Leave the first-order terms out: the free parameters of θ are stationary (kmeans).
    largest : float
        Largest magnitude in any part, where θ is a sum of parts larger than itself.
    """
    xp, n = array_namespace(w, theta), math.prod(w.shape)
    if n == 0:
        return 0.0
    limits = xp.finfo(w.dtype)
    _, s = moderate(xp.stack([xp.max(xp.abs(w)), xp.max(xp.abs(theta))]))
    x, y = xp.astype(w, xp.float64) / s, xp.astype(theta, xp.float64) / s
    spread = squared_norm(x) if spread is None else spread / s / s
    distance = math.sqrt(squared_norm(x - y))
    first_order = 0.0 if stationary else math.sqrt(squared_norm(y)) * distance
    largest = max(float(xp.max(xp.abs(x))), float(xp.max(xp.abs(y))), largest / s)
    half = float(limits.smallest_normal) * float(limits.eps) / 2 / s
    subnormal = n * half**2 + (0.0 if stationary else 2 * half * math.sqrt(n) * distance)
    return (slack(n, float(limits.eps), spread, first_order, largest) + subnormal) * s * s
