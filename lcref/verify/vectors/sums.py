"""The cases of kind sum: texts, inputs, and the exact optimum or a bound."""

import random
from collections.abc import Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from .. import oracles
from . import exact, inputs
from .answers import Solved, corrected, optimum, solve, solve_sum
from .exact import Found
from .flags import FLAGS, of_the_weights
from .judge import as_joint, infeasible_sum, objective, terms

EXACT = ["quantize(k=2) + prune(kappa=3)", "quantize(k=3) + prune(kappa=1)",
         "prune(kappa=2) + quantize(k=1)", "quantize(codebook=[-1, 0, 1]) + prune(kappa=2)",
         "prune(kappa=1) + quantize(codebook=[-0.5, 0.25])", "binary(scale=True) + prune(kappa=2)",
         "binary() + prune(kappa=1)", "powersoftwo(c=2) + prune(kappa=2)",
         "ternary() + prune(kappa=1)", "quantize(k=2) + prune(kappa=0)",
         "binary(scale=True) + prune(kappa=0)", "lowrank(rank=1) + prune(kappa=0)",
         "lowrank(rank=0) + prune(kappa=2)"]
BOUNDED = ["ternary(scale=True) + prune(kappa=2)", "lowrank(rank=1) + prune(kappa=2)",
           "lowrank(rank=2) + prune(kappa=1)", "prune(kappa=3) + lowrank(rank=1)",
           "quantize(codebook=[-1, 0, 1]) + lowrank(rank=1)", "quantize(k=2) + lowrank(rank=1)",
           "ternary(scale=True) + lowrank(rank=1)",
           "quantize(k=2) + lowrank(rank=1) + prune(kappa=1)"]
NO_MINIMISER = ("lowrank(rank=1) + prune(kappa=1)", [[0.0, 1, 1], [1, 0, 0], [1, 0, 0]])
SHAPES = [(2, 3), (2, 2), (3, 2), (3, 3)]


def given() -> Iterator[tuple[str, np.ndarray]]:
    """(text, w) of all cases."""
    rng = random.Random("lcref vectors sum")
    yield NO_MINIMISER[0], np.array(NO_MINIMISER[1])
    edges = [np.zeros((2, 2)), np.array([[1e8, 1e8 + 1], [1e8 + 5, 1e8 + 1.5]]), np.array([[0.5]]),
             np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([[0.5, -0.0], [1.5, -0.5]])]
    for i, text in enumerate([*EXACT, *BOUNDED]):
        for j in range(5):
            shape = (2, 3) if text.startswith("ternary(s") else SHAPES[(i + j) % len(SHAPES)]
            w = np.array(inputs.DRAWS[(i + j) % 5](rng, shape[0] * shape[1])).reshape(shape)
            yield text, w.astype(np.float32) if j == 3 else w
        yield text, edges[i % len(edges)]


def reduced(text: str) -> tuple[str, tuple] | None:
    """The problem that a sum is: of its one part that has a budget, or a joint one."""
    parts = terms(text)
    live = [part for part in parts if part not in (("rank_ball", (0,)), ("l0_ball", (0,)))]
    return live[0] if len(live) == 1 else as_joint(parts)


def bound(text: str, w: np.ndarray) -> dict[str, Any]:
    """What is known of a sum without a solver: upper and lower bounds of the infimum.

    0 is feasible for every part here, so each part alone is feasible for the sum.
    """
    alone = [getattr(exact, kind)(w, *parameters).optimum for kind, parameters in terms(text)]
    least, how = lower(text, w)
    return {"upper": min(alone), "lower": least, "alone": alone, "how": how}


def lower(text: str, w: np.ndarray) -> tuple[Fraction, str]:
    """A lower bound of the infimum, and what proves it."""
    parts = dict(terms(text))
    if set(parts) == {"ternary", "l0_ball"} and w.size <= 6:
        return oracles.corrected(w, parts["l0_ball"][0],
                                 lambda kept: oracles.ternary(kept, True)), "search"
    if set(parts) == {"rank_ball", "l0_ball"}:
        rank = parts["rank_ball"][0] + parts["l0_ball"][0]
        return exact.rank_ball(w, rank).optimum, "rank"
    if set(parts) == {"nearest", "rank_ball"} and 2 in w.shape and w.size <= 6:
        return patterns_and_rank_1(w, parts["nearest"][0]), "search"
    return Fraction(0), "zero"


def patterns_and_rank_1(w: np.ndarray, codebook: list[float]) -> Fraction:
    """All patterns of a codebook, each with the smaller eigenvalue of the rest's 2 × 2 Gram."""
    short = w if w.shape[0] == 2 else w.T
    x = [[Decimal(float(v)) for v in row] for row in short]
    levels = [Decimal(c) for c in codebook]
    with localcontext(prec=100):
        return Fraction(min(smaller_square(
            [a - q for a, q in zip(x[0], s)], [b - q for b, q in zip(x[1], s[len(x[0]):])])
            for s in product(levels, repeat=short.size)))


def smaller_square(a, b):
    """The smaller squared singular value of the matrix with rows a and b."""
    aa, bb, ab = (sum(x * y for x, y in zip(p, q)) for p, q in ((a, a), (b, b), (a, b)))
    root = ((aa - bb) ** 2 + 4 * ab * ab).sqrt()
    return max(2 * (aa * bb - ab * ab) / (aa + bb + root), Decimal(0)) if aa + bb else Decimal(0)


def flags(text: str, w: np.ndarray, found: Found, bounded: bool) -> list[str]:
    """The flags of a case of kind sum."""
    parts = terms(text)
    budgets = [parameters[0] for kind, parameters in parts if kind in ("l0_ball", "rank_ball")]
    bottom = (text, w.tolist()) == NO_MINIMISER
    holds = {**of_the_weights("sum", w), "alternation": bounded, "single_part": 0 in budgets,
             "zero_budget": 0 in budgets, "no_minimiser": bottom,
             "tie": not bounded and found.unique is False,
             "pruning_first": parts[0][0] == "l0_ball",
             "already_feasible": not bounded and not found.optimum}
    return [flag for flag in FLAGS if holds.get(flag)]


def solved(text: str, w: np.ndarray) -> tuple[Found, Solved, dict[str, Any] | None]:
    """(what is known of the optimum, one answer, the bound where there is no solver)."""
    if problem := reduced(text):
        kind, parameters = problem
        found = optimum(kind, w, parameters)
        tolerance = solve(kind, w, parameters, found).tolerance
        answer, limit = solve_sum(text, w), None
    else:
        limit = bound(text, w)
        found = Found(limit["upper"], None, {"how": "bound", "lower": limit.pop("how")})
        answer = solve_sum(text, w)
        tolerance = answer.tolerance
    value = objective("sum", w, answer.theta)
    if value > found.optimum + tolerance or infeasible_sum(text, answer.theta, answer.parts):
        raise ArithmeticError(f"{text} of {w}: {answer.parts} is not right")
    answer = Solved(answer.theta, answer.parts, tolerance)
    if problem and problem[0] == "kmeans_l0":
        at = [kind for kind, _ in terms(text)].index("l0_ball")
        found = corrected(found, w, problem[1][0], (answer.parts[1 - at], answer.parts[at]))
    return found, answer, limit
