"""Feasible sets: why an answer is not in one, in words, and the sets that a text stands for."""

import math
import sys
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from .. import compressions
from ..text import parse
from .vectors.judge import FEASIBLE, as_joint


def terms_of(text: str) -> Sequence:
    """The parts of a sum's text; ValueError where it is not a sum, or cannot be verified as one."""
    compression = parse(text)
    if not isinstance(compression, compressions.Sum):
        raise ValueError("kind sum needs a sum of compressions, such as 'quantize(k=2) + "
                         f"prune(kappa=3)', not {text!r}")
    if "storage='float16'" in str(compression):
        raise ValueError(f"a sum that is rounded to half precision cannot be verified: {text!r}")
    if any(getattr(term, "alpha", None) is not None for term in compression.terms):
        raise ValueError(f"a penalty in a sum cannot be verified: {text!r}")
    return compression.terms


def over_the_radius(w, theta, radius):
    """Why ‖θ‖₁ ≤ r does not hold, up to n·u·max(r, ‖w‖₁).

    The textbook method must pass. Its τ is (Σ − r)/k with Σ the k largest magnitudes, added one
    after another: k − 1 roundings of at most u/2·‖w‖₁ each, as no partial sum is larger. The
    difference, the quotient (k times) and the k entries of θ round by as much once more each:
    (k + 2)·u/2·‖w‖₁ in all, at most n·u·‖w‖₁ for n ≥ 2, and u·‖w‖₁ for n = 1.
    """
    info, n = np.finfo(w.dtype), w.size
    u, h = Fraction(float(info.eps)), Fraction(float(info.smallest_subnormal))
    most = max(Fraction(radius), _length(w) if radius else 0)
    if _length(theta) <= Fraction(radius) + n * (u * most + h * (radius > 0)):
        return ""
    norm = min(_length(theta), Fraction(sys.float_info.max))
    return f"‖θ‖₁ is {float(norm)!r}, more than the radius {radius!r} and its rounding"


def _length(x):
    """‖x‖₁, the exact sum rounded once, also where it is beyond the largest float."""
    x = np.abs(x).ravel().astype(np.float64, copy=False)
    unit = 2.0 ** -64 if np.max(x, initial=0) > 2.0 ** 900 else 1.0
    return Fraction(math.fsum((x * unit).tolist())) / Fraction(unit)


def infeasible_parts(name, parts, arguments):
    """Why the two parts of a quantization with corrections are not feasible."""
    *quantized, kappa = arguments
    set_of, given = {"codebook_l0": ("nearest", quantized), "kmeans_l0": ("kmeans", quantized),
                     "scaled_binary_l0": ("binary", [True])}[name]
    if not FEASIBLE[set_of](parts[0], *given):
        return WHY[set_of]
    return "" if np.count_nonzero(parts[1]) <= kappa else "there are more than κ corrections"


WHY = {
    "nearest": "a value is not in the codebook",
    "binary": "the values are not −a and a of one a (−1 and 1 without scale)",
    "ternary": "the values are not −a, 0 and a of one a (−1, 0 and 1 without scale)",
    "powers_of_two": "a value is not 0 or ± a power of two from 2⁻ᶜ to 1",
    "scaled_codebook": "no scale a ≥ 0 takes the codebook to these values",
    "kmeans": "there are more than k distinct values",
    "l0_ball": "there are more than κ nonzeros",
    "group_l0_ball": "more than κ slices along the axis are not zero",
    "rank_ball": "the rank is above r: σ_{r+1} is more than rounding",
    "round_to": "a value is not representable (for intN: not one scale times the levels)",
    "codebook_l0": "more than κ values are not in the codebook",
    "scaled_binary_l0": "more than κ values are neither −a nor a",
    "kmeans_l0": "more than κ values are not among k",
}


def as_kind(term, w) -> tuple[str, tuple]:
    """The kind of a single compression and its parameters for weights like w (μ is left out)."""
    if isinstance(term, compressions.Each):
        return as_kind(term.inner, w)
    if isinstance(term, compressions.Quantize):
        if term.k is not None:
            return "kmeans", (term.k,)
        entries = np.array(term.codebook, w.dtype).tolist()
        return "scaled_codebook" if term.scale else "nearest", (entries,)
    if isinstance(term, (compressions.Binary, compressions.Ternary)):
        return type(term).__name__.lower(), (term.scale,)
    if isinstance(term, compressions.PowersOfTwo):
        return "powers_of_two", (term.c,)
    if isinstance(term, compressions.Round):
        return "round_to", (term.dtype,)
    if isinstance(term, compressions.LowRank):
        return ("rank_ball", (term.rank,)) if term.alpha is None else ("rank_selection", ())
    if isinstance(term, compressions.Prune):
        return as_pruning(term, w)
    raise ValueError(f"{term} cannot be verified as a part of a sum")


def as_pruning(prune, w):
    if prune.radius is not None:
        return "l1_ball", (prune.radius,)
    if prune.alpha is not None:
        return ("l1_penalty" if prune.norm else "l0_penalty"), ()
    if prune.axis is not None:
        return "group_l0_ball", (prune.budget(w), prune.axis)
    return "l0_ball", (prune.budget(w),)


def infeasible_sum(terms, w, theta, parts):
    """Why the parts of a sum are not feasible, or their total where that tells; "" where all is."""
    if not parts:
        joint = as_joint(terms)
        if joint is None:
            return ("of this sum the total does not show whether each part is feasible: return "
                    "the parts, a tuple of arrays in the order of the text")
        return "" if FEASIBLE[joint[0]](theta, *joint[1]) else WHY[joint[0]]
    if len(parts) != len(terms):
        return f"{len(parts)} parts were returned for a sum of {len(terms)}"
    for i, (part, (kind, parameters)) in enumerate(zip(parts, terms), 1):
        if kind == "l1_ball":
            why = over_the_radius(part, part, *parameters)
        else:
            why = "" if FEASIBLE[kind](part, *parameters) else WHY[kind]
        if why:
            return f"part {i}: {why}"
    return ""
