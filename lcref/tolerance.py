"""How far above the optimum an objective may lie because of rounding alone."""

import math
from collections.abc import Sequence
from typing import Any

from array_api_compat import array_namespace

from .inputs import NUMBERS, array_of, largest_magnitude, moderate, scale_of, together
from .parts import Array, block_ends, leaves, size

EPS = 2.0**-52  # sums are accumulated in float64 whatever the dtype of w
TINY = 2.0**-1022


def wide(x: Array) -> Array:
    """The array in float64; itself where it is that already."""
    xp = array_of(x, "x", (*NUMBERS, "bool"))
    return xp.astype(x, xp.float64, copy=False)


def squared_norm(x: Array) -> float:
    """‖x‖², accumulated in float64, as a Python float."""
    x = wide(x)
    x = array_namespace(x).reshape(x, (-1,))  # a sum in the order of C, in any layout
    return sum(float(array_namespace(x).sum(x[i:j] * x[i:j])) for i, j in block_ends(x))


def norm(x: Array) -> float:
    """‖x‖ of an array of any magnitude, as a Python float."""
    array_of(x, "x")
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
    second = unit * largest
    return 8 * n * EPS * spread + 2 * unit * first_order + n * second * second + n * TINY


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
    array_of(w, "w")
    array_of(theta, "theta")
    together(w.shape == theta.shape, w=w, theta=theta)
    xp, n = array_namespace(w, theta), math.prod(w.shape)
    if n == 0:
        return 0.0
    limits = xp.finfo(w.dtype)
    s = scale_of(w, theta)
    x, y = wide(w) / s, wide(theta) / s
    spread = squared_norm(x) if spread is None else spread / s / s
    distance = math.sqrt(squared_norm(x - y))
    first_order = 0.0 if stationary else math.sqrt(squared_norm(y)) * distance
    largest = max(largest_magnitude(x), largest_magnitude(y), largest / s)
    half = float(limits.smallest_normal) * float(limits.eps) / 2 / s
    subnormal = n * half**2 + (0.0 if stationary else 2 * half * math.sqrt(n) * distance)
    return (slack(n, float(limits.eps), spread, first_order, largest) + subnormal) * s * s


def sum_slack(w: Any, deltas: Sequence[Any], objective: float, unit: float) -> float:
    """The slack of a sum's objective ‖w − Σ_j Δ_j‖², both in units of unit².

    The residual w − Σ_{j≠i} Δ_j that a part projects is itself rounded to w's dtype. That perturbs
    its problem by e, abs(e) ≤ u·(abs(w) + Σ abs(Δ_j)), and its optimum by at most 2·⟨e, θ − θ'⟩
    with ‖θ − θ'‖ up to twice the root of the objective. Below the smallest normal number each
    part, and w less the others, is off by up to h/2 an entry instead: of m − 1 parts that adds
    2·m·h·√n times that root, and n·h².

    Parameters
    ----------
    w : array, or list or dict of arrays
    deltas : the decompressed parts, each like w
    objective, unit : float
    """
    trees = [leaves(tree) for tree in (w, *deltas)]
    for name, tree in zip(["w"] + ["deltas"] * len(deltas), trees):
        for tensor in tree:
            array_of(tensor, name)
    norms = [math.hypot(*(norm(t) / unit for t in tree)) for tree in trees]
    largest = max(largest_magnitude(t) / unit for tree in trees for t in tree)
    limits = array_namespace(trees[0][0]).finfo(trees[0][0].dtype)
    n, smallest = sum(map(size, trees[0])), float(limits.smallest_normal * limits.eps) / unit
    subnormal = n * smallest**2 + 2 * len(trees) * smallest * math.sqrt(n * objective)
    return slack(n, float(limits.eps), sum(v * v for v in norms),
                 2 * sum(norms) * math.sqrt(objective), largest) + subnormal
