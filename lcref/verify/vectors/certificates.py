"""What each certificate proves, evaluated in rational arithmetic from the case alone.

A reader can do the same in any language: the value is a lower bound of the optimum for "separable",
"price" and "dual", and for the others the objective of the point that the certificate describes.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from ..oracles import l1_ball_dual, price
from . import exact
from .exact import fractions, nearest, spread


def costs(kind: str, w: np.ndarray, parameters: tuple) -> list[Fraction]:
    """What each item costs that has no share of the budget."""
    if kind == "codebook_l0":
        return [nearest([x], parameters[0]).optimum for x in np.ravel(w)]
    if kind == "group_l0_ball":
        axis = parameters[1]
        slices = [np.take(w, i, axis=axis) for i in range(w.shape[axis])]
        return [sum((x * x for x in fractions(s)), Fraction(0)) for s in slices]
    return [x * x for x in fractions(w)]


def by_price(kind, w, parameters, certificate):
    """Σ min(cost, p) − κ·p with the price p of one item: a lower bound for every p ≥ 0."""
    every = costs(kind, w, parameters)
    kappa = parameters[1] if kind == "codebook_l0" else parameters[0]
    p = Fraction(0) if certificate["of"] is None else every[certificate["of"]]
    return sum((min(cost, p) for cost in every), Fraction(0)) - kappa * p


def by_dual(kind, w, parameters, certificate):
    """The Lagrangian's least value at the multiplier τ: a lower bound for every τ ≥ 0."""
    return l1_ball_dual(w, parameters[0], float.fromhex(certificate["tau"]))


def by_scales(kind, w, parameters, certificate):
    """The least cost of the scales a at which the largest magnitude of θ is the one given."""
    codebooks = {"binary": [-1.0, 1.0], "ternary": [-1.0, 0.0, 1.0]}
    if kind == "round_to":
        half = 2 ** (int(parameters[0][3:]) - 1)
        c = [Fraction(i) for i in range(-half, half)]
    else:
        c = fractions(codebooks.get(kind, parameters[0]))
    largest = Fraction(float.fromhex(certificate["largest"]))
    scales = {largest / abs(level) for level in c if level} or {Fraction(0)}
    return min(sum((min((x - a * level) ** 2 for level in c) for x in fractions(w)), Fraction(0))
               for a in scales)


def by_cuts(kind, w, parameters, certificate):
    """The distortion of the runs of the sorted weights that begin at the starts."""
    x, starts = sorted(fractions(w)), certificate["starts"]
    if len(starts) > parameters[0]:
        raise ValueError("more clusters than k")
    ends = [*starts[1:], len(x)]
    return sum((spread(x[i:j]) for i, j in zip(starts, ends)), Fraction(0))


def by_runs(kind, w, parameters, certificate):
    """K-means of the weights that are not corrected."""
    k, kappa = parameters
    if len(certificate["corrected"]) > kappa:
        raise ValueError("more corrections than κ")
    kept = [x for i, x in enumerate(fractions(w)) if i not in certificate["corrected"]]
    return exact.clusters(kept, k)[0]


def by_windows(kind, w, parameters, certificate):
    """The distance to their mean of n − κ sorted magnitudes, from the first one."""
    m, first = sorted(map(abs, fractions(w))), certificate["first"]
    return spread(m[first: first + max(len(m) - parameters[0], 0)])


def by_singular_values(kind, w, parameters, certificate):
    """Σ σ_i² beyond the rank, by the theorem of Eckart and Young, plus the price of the rank."""
    squares = [Fraction(float.fromhex(s)) ** 2 for s in certificate["sigma"]]
    total = sum(squares, Fraction(0))
    if abs(total - sum(x * x for x in fractions(w))) > total / 10**14:
        raise ValueError("the squares of the singular values do not add up to ‖w‖²")
    if kind == "rank_ball":
        return sum(squares[parameters[0]:], Fraction(0))
    r = certificate["rank"]
    return sum(squares[r:], Fraction(0)) + price(*parameters[:2]) * r * sum(w.shape)


EVALUATE: dict[str, Callable[[str, np.ndarray, tuple, dict], Fraction]] = {
    "separable": lambda kind, w, parameters, _: getattr(exact, kind)(w, *parameters).optimum,
    "price": by_price, "dual": by_dual, "scales": by_scales, "cuts": by_cuts, "runs": by_runs,
    "windows": by_windows, "singular_values": by_singular_values,
}


def complaint(kind: str, w: np.ndarray, parameters: tuple, certificate: dict[str, Any],
              optimum: Fraction, tolerance: Fraction) -> str | None:
    """What is wrong between an optimum as published and its certificate; None where nothing is.

    The published τ, scale and singular values are rounded; the rest must give the optimum itself,
    rounded once.
    """
    try:
        value = EVALUATE[certificate["how"]](kind, w, parameters, certificate)
    except ValueError as error:
        return str(error)
    if "exact" in certificate and Fraction(certificate["exact"]) != optimum:
        if float(Fraction(certificate["exact"])) != float(optimum):
            return f"the exact optimum {certificate['exact']} is not {float(optimum)!r}"
    loose = certificate["how"] in ("dual", "scales", "singular_values")
    near = abs(value - optimum) <= tolerance if loose else float(value) == float(optimum)
    return None if near else f"the certificate gives {float(value)!r}, not {float(optimum)!r}"
