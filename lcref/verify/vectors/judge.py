"""Judge one answer to one case: feasible, and its objective in rational arithmetic.

Nothing of the projections is used; the text of a sum is read by `lcref.text`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from ...svd import decompose
from ..oracles import price, representable
from . import Case, decode
from .exact import fractions, powers

# ---- feasible sets: (θ, parameters) → bool, each told w's dtype by θ


def is_in(theta, codebook):
    return bool(np.all(np.isin(theta, np.asarray(codebook, theta.dtype))))


def is_in_levels(theta, levels, scale):
    a = np.max(np.abs(theta), initial=0) if scale else 1
    return is_in(theta, [a * level for level in levels])


def is_in_scaled_codebook(theta, codebook):
    """Some a ≥ 0 takes the codebook to θ, each product rounded once to θ's dtype."""
    values, c = [Fraction(x) for x in {*theta.ravel().tolist()}], fractions(codebook)
    top, info = max(values, key=abs, default=Fraction(0)), np.finfo(theta.dtype)
    u, h = Fraction(float(info.eps)), Fraction(float(info.smallest_subnormal))

    def near(x, a):
        # a comes from a product that is itself rounded: two roundings of half a u, or of half an h
        at = bisect_left(c, x / a)
        return any(abs(x - a * e) <= u * abs(a * e) + h * (1 + abs(e * a / top))
                   for e in c[max(at - 1, 0): at + 1])

    return not top or any(all(near(x, top / e) for x in values) for e in c if e * top > 0)


def is_rounded(theta, dtype):
    if dtype.startswith("int"):
        half = 2 ** (int(dtype[3:]) - 1)
        return is_in_scaled_codebook(theta, range(-half, half))
    return set(theta.ravel().tolist()) <= set(representable(dtype))


def is_in_l1_ball(theta, radius):
    """‖θ‖₁ ≤ r·(1 + n·u), and n·h more, with h the spacing of the subnormal numbers."""
    info = np.finfo(theta.dtype)
    u, h = Fraction(float(info.eps)), Fraction(float(info.smallest_subnormal))
    limit = Fraction(radius) * (1 + theta.size * u) + (theta.size * h if radius else 0)
    return sum(map(abs, fractions(theta))) <= limit


def has_few_slices(theta, kappa, axis):
    return sum(np.any(np.take(theta, i, axis)) for i in range(theta.shape[axis])) <= kappa


def numerical_rank(theta):
    """How many singular values exceed 8·max(m, n)·u·σ₁."""
    largest = np.max(np.abs(theta), initial=0)
    if not largest:
        return 0
    near_1 = np.ldexp(theta, -int(np.frexp(largest)[1])).astype(np.float64)
    sigma = decompose(near_1)[1]
    noise = 8 * max(theta.shape) * float(np.finfo(theta.dtype).eps) * sigma[0]
    return int(np.sum(sigma > noise))


def has_low_rank(theta, rank):
    return rank >= min(theta.shape) or numerical_rank(theta) <= rank


def most_common(theta, k):
    """How many entries the k most common values have together."""
    return sum(count for _, count in Counter(theta.ravel().tolist()).most_common(k))


def anything(theta, *parameters):
    return True


FEASIBLE: dict[str, Callable[..., bool]] = {
    "nearest": is_in,
    "binary": lambda theta, scale: is_in_levels(theta, (-1, 1), scale),
    "ternary": lambda theta, scale: is_in_levels(theta, (-1, 0, 1), scale),
    "powers_of_two": lambda theta, c: is_in(theta, powers(c)),
    "scaled_codebook": is_in_scaled_codebook,
    "kmeans": lambda theta, k: np.unique(theta).size <= k,
    "l0_ball": lambda theta, kappa: np.count_nonzero(theta) <= kappa,
    "l1_ball": is_in_l1_ball,
    "l0_penalty": anything,
    "l1_penalty": anything,
    "group_l0_ball": has_few_slices,
    "rank_ball": has_low_rank,
    "rank_selection": anything,
    "round_to": is_rounded,
    # a sum with corrections: all but κ entries of θ are in the other part's set
    "codebook_l0": lambda theta, c, kappa: np.sum(
        ~np.isin(theta, np.asarray(c, theta.dtype))) <= kappa,
    "scaled_binary_l0": lambda theta, kappa: theta.size - most_common(np.abs(theta), 1) <= kappa,
    "kmeans_l0": lambda theta, k, kappa: theta.size - most_common(theta, k) <= kappa,
}

# ---- penalties

PENALTY: dict[str, Callable] = {
    "l0_penalty": lambda theta, alpha, mu: price(alpha, mu) * np.count_nonzero(theta),
    "l1_penalty": lambda theta, alpha, mu: price(alpha, mu) * sum(map(abs, fractions(theta))),
    "rank_selection": lambda theta, alpha, mu, cost: (
        price(alpha, mu) * numerical_rank(theta) * sum(theta.shape)),
}


def objective(kind: str, w: np.ndarray, theta: np.ndarray, parameters: tuple = ()) -> Fraction:
    """‖w − θ‖² plus the penalty of the penalty forms, exactly."""
    distance = sum(((a - b) ** 2 for a, b in zip(fractions(w), fractions(theta))), Fraction(0))
    return distance + (PENALTY[kind](theta, *parameters) if kind in PENALTY else 0)


# ---- sums


def terms(text: str) -> list[tuple[str, tuple]]:
    """The kinds and parameters of the parts of a sum, such as [("kmeans", (2,)), ...]."""
    from lcref.text import parse

    return [term(one) for one in getattr(parse(text), "terms", ())]


def term(part):
    """The kind and the parameters of one part of a sum."""
    name = type(part).__name__.lower()
    if name == "quantize" and part.k is None:
        return "scaled_codebook" if part.scale else "nearest", (list(part.codebook),)
    return {"quantize": lambda: ("kmeans", (part.k,)),
            "binary": lambda: ("binary", (part.scale,)),
            "ternary": lambda: ("ternary", (part.scale,)),
            "powersoftwo": lambda: ("powers_of_two", (part.c,)),
            "prune": lambda: ("l0_ball", (part.kappa,)),
            "lowrank": lambda: ("rank_ball", (part.rank,))}[name]()


def as_joint(parts: list[tuple[str, tuple]]) -> tuple[str, tuple] | None:
    """The joint kind of a codebook plus corrections, with its parameters; None for other sums."""
    corrections = [parameters[0] for kind, parameters in parts if kind == "l0_ball"]
    others = [one for one in parts if one[0] != "l0_ball"]
    if len(corrections) != 1 or len(others) != 1:
        return None
    kind, parameters = others[0]
    fixed = {"nearest": parameters[0], "powers_of_two": None, "binary": [-1.0, 1.0],
             "ternary": [-1.0, 0.0, 1.0]}
    if kind == "kmeans":
        return "kmeans_l0", (parameters[0], corrections[0])
    if kind == "binary" and parameters[0]:
        return "scaled_binary_l0", (corrections[0],)
    if kind not in fixed or parameters[0] is True:
        return None
    return "codebook_l0", (fixed[kind] or powers(parameters[0]), corrections[0])


def infeasible_sum(text, theta, parts):
    """What is wrong with the parts of a sum, or with their total where that tells."""
    wanted = terms(text)
    if parts is None:
        joint = as_joint(wanted)
        if joint is None:
            return f"the answer to {text} must be its parts, one array each"
        return None if FEASIBLE[joint[0]](theta, *joint[1]) else f"not feasible for {text}"
    if len(parts) != len(wanted):
        return f"{len(parts)} parts for a sum of {len(wanted)}"
    for i, (part, (kind, parameters)) in enumerate(zip(parts, wanted)):
        if not FEASIBLE[kind](part, *parameters):
            return f"part {i + 1} of {text} is not feasible"
    return None


# ---- one answer


def arrays(answer: Any) -> tuple[np.ndarray, list[np.ndarray] | None]:
    """(the sum, its parts or None) of an array, an lcref part, or a tuple of arrays.

    A NumPy scalar is an array without axes.
    """
    if hasattr(answer, "decompress"):
        parts = getattr(answer, "parts", None)
        return answer.decompress(), [part.decompress() for part in parts] if parts else None
    if isinstance(answer, (tuple, list)):
        parts = [np.asarray(part) for part in answer]
        return np.sum(parts, axis=0, dtype=parts[0].dtype), parts
    return np.asarray(answer) if isinstance(answer, np.generic) else answer, None


def wrong_array(theta, w):
    """What is wrong with an array that should have w's shape and dtype."""
    if not isinstance(theta, np.ndarray):
        return f"returned {type(theta).__name__}, not an array"
    if theta.shape != w.shape or theta.dtype != w.dtype:
        return (f"returned shape {theta.shape} and {theta.dtype}, not w's {w.shape} and {w.dtype}")
    return None if np.all(np.isfinite(theta)) else "returned a NaN or an infinity"


def verdict(case: Case, answer: Any) -> str | None:
    """What is wrong with an answer to a case, in a sentence; None where nothing is."""
    if case.kind == "lc":
        return wrong_path(case, answer)
    (w, *parameters), (theta, parts) = case.arguments, arrays(answer)
    for array in [theta, *(parts or [])]:
        if message := wrong_array(array, w):
            return message
    if case.kind == "sum":
        if message := infeasible_sum(parameters[0], theta, parts):
            return message
    elif not FEASIBLE[case.kind](theta, *parameters):
        return f"not feasible for {case.kind} with {parameters}"
    value = objective(case.kind, w, theta, tuple(parameters))
    limit = decode(case.fields["bound"]["upper"]) if case.optimum is None else case.optimum
    if value > Fraction(limit) + Fraction(case.tolerance or 0):
        what = "the optimum" if case.optimum is not None else "the better part alone"
        return f"the objective {float(value)!r} exceeds {what}, {limit!r}, by more than rounding"
    return None


# ---- a path of the algorithm


def entry(step, name):
    """An array of one step: of a tuple (w, θ, λ), a dict or an object."""
    if isinstance(step, dict):
        return np.asarray(step[name])
    if isinstance(step, (tuple, list)):
        return np.asarray(step[("w", "theta", "lambda").index(name)])
    return np.asarray(getattr(step, {"lambda": "lam"}.get(name, name)))


def wrong_path(case, answer):
    """The first step at which a path leaves the case's trace."""
    steps, trace = list(answer), case.fields["trace"]
    if len(steps) != len(trace):
        return f"{len(steps)} steps, not {len(trace)}"
    for k, (step, fields) in enumerate(zip(steps, trace)):
        for name in ("w", "theta", "lambda"):
            found, right = entry(step, name), decode(fields[name])
            if found.shape != right.shape or not np.all(np.abs(found - right) <= case.tolerance):
                return f"{name} of step {k} is {found.tolist()}, not {right.tolist()}"
    return None
