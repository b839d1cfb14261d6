"""Whole runs of the learning-compression algorithm in rational arithmetic.

    L step:  w ← argmin ½‖Xw − y‖² + μ/2 ‖w − θ − λ/μ‖²,   C step:  θ ← Π(w − λ/μ),   then λ

Every step is exact: the L step is a linear system of Fractions, the C step an exhaustive search or
a formula. A run is published only where each C step has one optimum by a margin, so that a right
implementation in floating point follows the same path.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, combinations, product
from typing import Any

import numpy as np

from .exact import dot, spread

MARGIN = Fraction(1, 200)  # how clearly a C step's choice beats the next, for max abs(x) = 1
SHARE = 2.0**-30  # the tolerance of a path, in units of its largest number
STEPS = 6

Vector = list[Fraction]


def solve(a: list[Vector], b: Vector) -> Vector:
    """The solution of a regular linear system, by Gauss and Jordan."""
    n, rows = len(b), [[*row, right] for row, right in zip(a, b)]
    for i in range(n):
        at = next(r for r in range(i, n) if rows[r][i])
        rows[i], rows[at] = rows[at], rows[i]
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for r in range(n):
            if r != i and (factor := rows[r][i]):
                rows[r] = [x - factor * pivot for x, pivot in zip(rows[r], rows[i])]
    return [row[n] for row in rows]


# ---- C steps: (θ, by how much the choice wins, which choice it is)


def l0_ball(x: Vector, kappa: int) -> tuple[Vector, Fraction, Any]:
    """The κ largest magnitudes; the margin is the step between the last kept and the next."""
    order = sorted(range(len(x)), key=lambda i: -abs(x[i]))
    kept = set(order[:kappa])
    margin = (abs(x[order[kappa - 1]]) - abs(x[order[kappa]])) / abs(x[order[0]])
    return [v if i in kept else Fraction(0) for i, v in enumerate(x)], margin, sorted(kept)


def l1_ball(x: Vector, radius: float) -> tuple[Vector, Fraction, Any]:
    """The soft threshold; the projection is continuous, so that any margin is enough."""
    magnitudes, r = sorted(map(abs, x), reverse=True), Fraction(radius)
    tau = max((total - r) / j for j, total in enumerate(accumulate(magnitudes), start=1))
    tau = tau if sum(magnitudes) > r else Fraction(0)
    theta = [max(abs(v) - tau, Fraction(0)) * (1 if v > 0 else -1) for v in x]
    return theta, Fraction(1), [i for i, v in enumerate(theta) if v]


def kmeans(x: Vector, k: int) -> tuple[Vector, Fraction, Any]:
    """All cuts of the sorted numbers; the margin is the step between the two best distortions."""
    order, found = sorted(range(len(x)), key=lambda i: x[i]), []
    for cuts in combinations(range(1, len(x)), k - 1):
        blocks = [order[i:j] for i, j in zip((0, *cuts), (*cuts, len(x)))]
        found.append((sum(spread([x[i] for i in block]) for block in blocks), blocks))
    (least, blocks), second = sorted(found)[0], sorted(found)[1][0]
    theta = list(x)
    for block in blocks:
        for i in block:
            theta[i] = sum((x[i] for i in block), Fraction(0)) / len(block)
    return theta, (second - least) / max(map(abs, x)) ** 2, sorted(map(sorted, blocks))


C_STEPS = {"l0_ball": l0_ball, "l1_ball": l1_ball, "kmeans": kmeans}


# ---- a run


@dataclass(frozen=True)
class Problem:
    """min ½‖Xw − y‖² over w in the set; the arrays as published, and the schedule."""

    x: np.ndarray
    y: np.ndarray
    w: np.ndarray
    projection: str
    budget: Any
    mu0: float
    a: float
    steps: int
    penalty: str

    @property
    def arguments(self) -> dict[str, Any]:
        return {"X": self.x, "y": self.y, "w": self.w, "projection": self.projection,
                "budget": self.budget, "mu0": self.mu0, "a": self.a, "steps": self.steps,
                "penalty": self.penalty}


@dataclass(frozen=True)
class Step:
    """One exact step: λ as it is after its update, the objective as both steps left it."""

    mu: Fraction
    w: Vector
    theta: Vector
    lam: Vector
    margin: Fraction
    choice: Any
    objective: Fraction


def exactly(array: np.ndarray) -> Any:
    """A vector or a matrix as (a list of) lists of Fractions."""
    return [[Fraction(v) for v in row] if isinstance(row, list) else Fraction(row)
            for row in array.tolist()]


def run(problem: Problem) -> Iterator[Step]:
    """The direct compression as step 0 with λ = 0 and μ = 0, then the steps."""
    x, y, w = map(exactly, (problem.x, problem.y, problem.w))
    c_step, columns = C_STEPS[problem.projection], list(zip(*x))
    gram, xty = [[dot(p, q) for q in columns] for p in columns], [dot(p, y) for p in columns]
    theta, margin, choice = c_step(w, problem.budget)
    lam = [Fraction(0)] * len(w)
    yield Step(Fraction(0), w, theta, lam, margin, choice, Fraction(0))
    for k in range(problem.steps):
        mu = Fraction(problem.mu0) * Fraction(problem.a) ** k
        # L step: (XᵀX + μI) w = Xᵀy + μθ + λ
        matrix = [[g + mu * (i == j) for j, g in enumerate(row)] for i, row in enumerate(gram)]
        w = solve(matrix, [b + mu * t + each for b, t, each in zip(xty, theta, lam)])
        # C step: θ = Π(w − λ/μ)
        shifted = [v - each / mu for v, each in zip(w, lam)]
        theta, margin, choice = c_step(shifted, problem.budget)
        residual, off = [dot(row, w) - b for row, b in zip(x, y)], [
            v - t for v, t in zip(shifted, theta)]
        objective = (dot(residual, residual) + mu * dot(off, off)) / 2
        if problem.penalty == "augmented":
            lam = [each - mu * (v - t) for each, v, t in zip(lam, w, theta)]
        yield Step(mu, w, theta, lam, margin, choice, objective)


def flags(problem: Problem, steps: list[Step]) -> list[str]:
    """The flags of a run, from its data."""
    chosen = {"augmented_lagrangian": problem.penalty == "augmented",
              "quadratic_penalty": problem.penalty == "quadratic",
              "fixed_mu": problem.a == 1, "growing_mu": problem.a > 1,
              "leaves_direct_compression": any(s.choice != steps[0].choice for s in steps),
              "already_feasible": steps[0].w == steps[0].theta}
    return [name for name, holds in chosen.items() if holds]


# ---- choosing problems


def problem_of(rng, projection, penalty, a):
    """A small least-squares problem of short decimals in base 2, and its rounded minimiser."""
    n = rng.choice([4, 5, 6])
    m = n + rng.choice([1, 2, 4])
    x = [[Fraction(rng.randint(-8, 8), 4) for _ in range(n)] for _ in range(m)]
    y = [Fraction(rng.randint(-40, 40), 8) for _ in range(m)]
    columns = list(zip(*x))
    gram = [[dot(p, q) for q in columns] for p in columns]
    w = np.array([float(v) for v in solve(gram, [dot(p, y) for p in columns])])
    budget: Any = {"l0_ball": rng.randint(1, n - 1), "kmeans": rng.choice([2, 2, 3]),
                   "l1_ball": round(float(np.sum(np.abs(w))) * rng.choice([0.3, 0.5, 0.8]) * 64)
                   / 64}[projection]
    mu0 = rng.choice([0.25, 1.0, 2.0, 8.0])
    return Problem(np.array(x, dtype=float), np.array(y, dtype=float), w, projection, budget, mu0,
                   a, STEPS, penalty)


def clear(problem, steps):
    """Whether every choice wins by the margin, and the numbers stay moderate."""
    unit = max(map(abs, steps[0].w))
    return (unit < 20 and problem.budget > 0
            and all(step.margin >= MARGIN for step in steps))


def problems(each: int = 4) -> Iterator[tuple[Problem, list[Step]]]:
    """Runs of all projections × penalties × fixed and growing μ, half of which move (where that
    is not too rare)."""
    for projection, penalty, a in product(C_STEPS, ("augmented", "quadratic"), (1.0, 1.5)):
        rng, moving, resting = random.Random(f"lc {projection} {penalty} {a}"), 0, 0
        tries = 0
        while moving + resting < each:
            tries += 1
            try:
                problem = problem_of(rng, projection, penalty, a)
            except StopIteration:  # X has not full column rank
                continue
            steps = list(run(problem)) if np.max(np.abs(problem.w)) < 20 else []
            moves = bool(steps) and "leaves_direct_compression" in flags(problem, steps)
            if not steps or not clear(problem, steps) or (
                    not moves and 2 * resting >= each and tries < 25):
                continue
            moving, resting = moving + moves, resting + (not moves)
            yield problem, steps


def published(step: Step) -> dict[str, Any]:
    """A step as the file has it, every number the double nearest to the exact one."""
    distance = math.sqrt(sum((v - t) ** 2 for v, t in zip(step.w, step.theta)))
    norm = math.sqrt(sum(v * v for v in step.w))
    vectors = {"w": step.w, "theta": step.theta, "lambda": step.lam}
    return {"mu": float(step.mu),
            **{name: np.array([float(v) for v in vector]) for name, vector in vectors.items()},
            "feasibility": distance / norm, "objective": float(step.objective)}


def tolerance(trace: list[dict[str, Any]]) -> float:
    """How far any entry of w, θ and λ may be from the trace."""
    return SHARE * max(float(np.max(np.abs(step[name]), initial=1.0))
                       for step in trace for name in ("w", "theta", "lambda"))
