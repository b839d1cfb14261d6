"""One optimal answer and the tolerance of every case: from the projections, held to the optimum."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ... import projections
from ...tolerance import objective_slack, sum_slack
from .. import oracles
from . import exact
from .exact import Found, fractions, spread
from .judge import FEASIBLE, objective

STEP = 128  # tolerances are rounded up to 8 significant bits, and so agree between machines


@dataclass(frozen=True)
class Solved:
    """One optimal answer, its parts where it is a sum, and how far above the optimum is accepted.
    """

    theta: np.ndarray
    parts: tuple[np.ndarray, ...]
    tolerance: Fraction


# ---- D of the published constant, of w and θ near 1


def norm_of_w(w, theta, kept):
    return sum(v * v for v in fractions(w))


def norms_of_both(w, theta, kept):
    return norm_of_w(w, theta, kept) + norm_of_w(theta, w, kept)


def distance_to_mean(w, theta, kept):
    return spread([v for v, inside in zip(fractions(w), kept) if inside])


def distance_of_magnitudes(w, theta, kept):
    return distance_to_mean(np.abs(w), theta, kept)


FIXED = ("nearest", "powers_of_two", "codebook_l0")
STATIONARY = ("kmeans", "kmeans_l0", "l1_penalty")


def spread_of(kind: str, parameters: tuple) -> Callable:
    """Which D a kind has."""
    unscaled = kind in ("binary", "ternary") and not parameters[0]
    if kind in FIXED or unscaled or (kind == "round_to" and parameters[0][:3] != "int"):
        return norms_of_both
    return {"kmeans": distance_to_mean, "kmeans_l0": distance_to_mean,
            "scaled_binary_l0": distance_of_magnitudes}.get(kind, norm_of_w)


def slack(kind: str, parameters: tuple, w: np.ndarray, theta: np.ndarray,
          parts: tuple[np.ndarray, ...]) -> Fraction:
    """The published constant, taken near 1, plus the rounding of subnormal numbers."""
    every = [w, theta, *parts]
    largest = max(float(np.max(np.abs(x), initial=0)) for x in every)
    e = math.frexp(largest)[1]
    near, near_theta = np.ldexp(w, -e), np.ldexp(theta, -e)
    kept = (parts[1] == 0 if parts else np.ones(w.shape, bool)).ravel().tolist()
    stationary = kind in STATIONARY
    d = float(spread_of(kind, parameters)(near, near_theta, kept))
    published = objective_slack(near, near_theta, spread=d, stationary=stationary,
                                largest=math.ldexp(largest, -e))
    h = Fraction(float(np.finfo(w.dtype).smallest_subnormal)) / 2
    off = sum(abs(a - b) for a, b in zip(fractions(w), fractions(theta)))
    return Fraction(published) * Fraction(4) ** e + w.size * h * h + (
        0 if stationary else 2 * h * off)


def published(tolerance: Fraction, optimum: Fraction, n: int) -> Fraction:
    """The tolerance as the file has it: a double with 8 significant bits, rounded up.

    It holds the rounding of the optimum to a double too.
    """
    if n == 0:
        return Fraction(0)
    total = tolerance + abs(optimum - Fraction(float(optimum))) + Fraction(2) ** -1074
    mantissa, e = math.frexp(math.nextafter(float(total), math.inf))
    e = max(e, -1066)
    up = Fraction(math.ceil(total / Fraction(2) ** (e - 8))) * Fraction(2) ** (e - 8)
    return Fraction(float(up))


# ---- answers


PROJECT = {name: getattr(projections, name) for name in (
    "nearest", "binary", "ternary", "powers_of_two", "scaled_codebook", "kmeans", "l0_ball",
    "l1_ball", "l0_penalty", "l1_penalty", "group_l0_ball", "rank_ball", "rank_selection",
    "round_to", "codebook_l0", "scaled_binary_l0", "kmeans_l0")}


def search(kind: str, w: np.ndarray, parameters: tuple) -> Fraction | None:
    """The optimum by exhaustive search, where `oracles` can; None where w is too large."""
    most = {"round_to": 4, "scaled_codebook": 5, "kmeans": 8, "kmeans_l0": 6, "l1_ball": 6,
            "scaled_binary_l0": 6, "ternary": 6}.get(kind, 8)
    if w.size > most or kind[:4] == "rank":
        return None
    if kind == "round_to" and parameters[0] in ("int4", "int5", "int6", "int7", "int8"):
        return None
    return Fraction(getattr(oracles, kind)(w, *parameters))


def optimum(kind: str, w: np.ndarray, parameters: tuple) -> Found:
    """The exact optimum, two ways where a search is affordable."""
    found = getattr(exact, kind)(w, *parameters)
    searched = search(kind, w, parameters)
    if searched is not None and searched != found.optimum:
        raise ArithmeticError(f"{kind} of {w} with {parameters}: {found.optimum} is not "
                              f"the {searched} of an exhaustive search")
    certificate = {**found.certificate, "searched": searched is not None}
    text = f"{found.optimum.numerator}/{found.optimum.denominator}"
    if kind[:4] != "rank" and len(text) <= 100:
        certificate["exact"] = text
    return Found(found.optimum, found.unique, certificate)


def corrected(found: Found, w: np.ndarray, k: int, parts: tuple[np.ndarray, ...]) -> Found:
    """The positions of K-means with corrections, from an answer, where no search gave them.

    K-means of the entries left alone must have the optimum's distortion exactly.
    """
    if found.certificate["how"] != "runs" or "corrected" in found.certificate:
        return found
    positions = np.flatnonzero(parts[1].ravel()).tolist()
    kept = [x for i, x in enumerate(fractions(w)) if i not in positions]
    if exact.clusters(kept, k)[0] != found.optimum:
        raise ArithmeticError(f"the corrections {positions} of {w} are not optimal")
    return Found(found.optimum, found.unique, {**found.certificate, "corrected": positions})


def solve(kind: str, w: np.ndarray, parameters: tuple, found: Found) -> Solved:
    """An answer of the projections, feasible and within its tolerance of the exact optimum."""
    part = PROJECT[kind](w, *parameters)
    parts = tuple(p.decompress() for p in part.parts) if hasattr(part, "parts") else ()
    theta = part.decompress()
    tolerance = slack(kind, parameters, w, theta, parts)
    value = objective(kind, w, theta, parameters)
    if not FEASIBLE[kind](theta, *parameters) or value > found.optimum + tolerance:
        raise ArithmeticError(f"{kind} of {w!r} with {parameters}: {theta!r} has {float(value)!r}, "
                              f"the optimum is {float(found.optimum)!r}")
    return Solved(theta, parts, published(tolerance, found.optimum, w.size))


def solve_sum(text: str, w: np.ndarray) -> Solved:
    """An answer of a sum without a solver of its own, with the tolerance of an alternation."""
    from ...text import parse

    part: Any = parse(text).project(w)
    theta, parts = part.decompress(), tuple(p.decompress() for p in part.parts)
    value = objective("sum", w, theta)
    unit = 2.0 ** math.frexp(float(np.max(np.abs(w), initial=0)))[1]
    tolerance = Fraction(sum_slack(w, parts, float(value) / unit / unit, unit)) * Fraction(unit)**2
    return Solved(theta, parts, published(tolerance, value, w.size))
