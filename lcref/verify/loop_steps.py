"""Read the steps that an LC loop returned, and measure how far each is from optimal.

L(w) = ½ ‖Xw − y‖². A step is judged by what the step before it returned: the L step by its
gradient, the C step by the exact optimum of its problem.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ..svd import decompose
from ..tolerance import EPS, objective_slack
from . import oracles
from .properties import Violation

L_STEP = 2e-8  # relative to the scale in `Moment.miss`: an L step iterated to 1e-8 passes

# ---- reading the steps


def trace(raw: Any) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Read what a loop returned or yielded as a list of (w, θ, λ), or say what is wrong with it."""
    if isinstance(raw, (dict, str, bytes)) or not hasattr(raw, "__iter__"):
        raise Violation("a loop returns or yields one entry (w, theta, lam) a step, not one "
                        f"{type(raw).__name__}", raw)
    entries = [_entry(entry, k) for k, entry in enumerate(list(raw))]
    if not entries:
        raise Violation("the loop returned no steps at all", raw)
    return entries


def _entry(entry, k):
    if isinstance(entry, dict):
        found = [entry.get(name) for name in ("w", "theta")]
        found.append(entry.get("lambda", entry.get("lam")))
    elif isinstance(entry, (tuple, list)):
        found = [*entry]
    else:
        found = [getattr(entry, name, None) for name in ("w", "theta", "lam")]
    if len(found) != 3 or any(part is None for part in found):
        raise Violation(f"step {k} is a {type(entry).__name__} that is not a tuple (w, theta, lam),"
                        ' a dict with "w", "theta" and "lambda", nor an object with attributes w, '
                        "theta and lam (with the quadratic penalty λ is an array of zeros)", entry)
    return tuple(_array(part, k, name) for part, name in zip(found, "wθλ"))


def _array(part, k, name):
    try:
        x = np.asarray(part.decompress() if hasattr(part, "decompress") else part)
    except (TypeError, ValueError) as error:
        raise Violation(f"{name} of step {k} is not an array: {error}", part) from None
    if x.dtype != np.float64:
        raise Violation(f"{name} of step {k} has dtype {x.dtype}, the weights have float64", x)
    if x.ndim != 1 or not np.all(np.isfinite(x)):
        what = "is not finite: the loop diverges" if x.ndim == 1 else f"has shape {x.shape}"
        raise Violation(f"{name} of step {k} {what}", x)
    return x


@dataclass(frozen=True, eq=False)
class Moment:
    """One step, with what the step before it returned.

    Before step 0, w is the reference, λ = 0, and θ is where the first L step must have aimed:
    w + ∇L(w)/μ0.
    """

    arguments: tuple
    k: int
    w: np.ndarray
    theta: np.ndarray
    lam: np.ndarray
    before: tuple[np.ndarray, np.ndarray, np.ndarray]

    def mu(self, later: int = 0) -> float:
        """μ of this step, or of one later or before."""
        return self.arguments[5] * self.arguments[6] ** (self.k + later)

    def target(self) -> np.ndarray:
        """θ + λ/μ of the step before, what the L step is pulled to."""
        return self.before[1] + self.before[2] / self.mu()

    def minimiser(self) -> np.ndarray:
        """What the L step should have found: (XᵀX + μI) w = Xᵀy + μ t."""
        X, y = self.arguments[:2]
        ridge = self.mu() * np.eye(X.shape[1])
        return np.linalg.solve(X.T @ X + ridge, X.T @ y + self.mu() * self.target())

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """∇L(w) = Xᵀ(Xw − y)."""
        X, y = self.arguments[:2]
        return X.T @ (X @ w - y)

    def scale(self, mu: float, target: np.ndarray) -> float:
        """‖A‖² ‖w‖ + ‖A‖ ‖b‖ of the L step as least squares, A = [X; √μ I], b = [y; √μ t].

        A stable solver leaves a gradient Aᵀ(Aw − b) of a few roundings of this, and no more than
        δ times this is left by an iterative one with a relative error δ in w, or one that stops at
        ‖Aᵀ(Aw − b)‖ ≤ δ ‖Aᵀb‖ or δ ‖A‖ ‖Aw − b‖.
        """
        X, y = self.arguments[:2]
        size = math.hypot(np.linalg.norm(X, 2), math.sqrt(mu))
        b = math.hypot(np.linalg.norm(y), math.sqrt(mu) * np.linalg.norm(target))
        return float(size * (size * np.linalg.norm(self.w) + b))

    def miss(self, mu: float, target: np.ndarray) -> float:
        """‖∇L(w) + μ (w − t)‖ relative to its scale; 0 where w minimises L + μ/2 ‖w − t‖²."""
        left = np.linalg.norm(self.gradient(self.w) + mu * (self.w - target))
        return float(left / max(self.scale(mu, target), np.finfo(float).tiny))


def follow(subject: Callable, arguments: tuple) -> list[Moment]:
    """Run the loop and pair each step with the one before."""
    steps, n = trace(subject(*arguments).raw), arguments[2].size
    for k, step in enumerate(steps):
        if any(x.shape != (n,) for x in step):
            shapes = ", ".join(str(x.shape) for x in step)
            raise Violation(f"w, θ, λ of step {k} have shapes {shapes}, the weights ({n},)", step)
    X, y, zero = *arguments[:2], np.zeros(n)
    first = steps[0][0]
    before = [(arguments[2], first + X.T @ (X @ first - y) / arguments[5], zero), *steps]
    return [Moment(arguments, k, *step, before[k]) for k, step in enumerate(steps)]


# ---- the C step's problem


def infeasible(s: Moment) -> str:
    """Say in what θ is not feasible; empty where it is."""
    projection, budget = s.arguments[3:5]
    if projection == "l1_ball":
        length = sum(abs(Fraction(x)) for x in s.theta.tolist())
        limit = Fraction(budget) * (1 + s.theta.size * Fraction(EPS))
        return f"‖θ‖₁ is {float(length)!r}, r is {budget!r}" if length > limit else ""
    if projection == "l0_ball":
        count, what = int(np.count_nonzero(s.theta)), "nonzeros, κ"
    else:
        count, what = len(set(s.theta.tolist())), "distinct values, k"
    return f"θ has {count} {what} is {budget}" if count > budget else ""


def distances(s: Moment, v: np.ndarray, theta: np.ndarray) -> tuple[float, float, float]:
    """‖v − θ‖², the least over the feasible set, exact before rounding, and the published slack."""
    pairs = zip(v.tolist(), theta.tolist())
    found = sum((Fraction(x) - Fraction(z)) ** 2 for x, z in pairs)
    means = s.arguments[3] == "kmeans"
    spread = float(np.sum((v - np.mean(v)) ** 2)) if means else None
    slack = objective_slack(v, theta, spread=spread, stationary=means)
    least = getattr(oracles, s.arguments[3])(v, s.arguments[4])
    return float(found), float(least), slack


def nearest(s: Moment, v: np.ndarray, theta: np.ndarray, inexact: float) -> bool:
    """θ is as near to v as any feasible point, where v is known up to an error of norm `inexact`.

    If θ is optimal up to the slack for v + e, then ‖v + e − θ‖² ≤ (√optimum + ‖e‖)² + slack.
    """
    found, least, slack = distances(s, v, theta)
    return math.sqrt(found) <= math.hypot(math.sqrt(least) + inexact, math.sqrt(slack)) + inexact


def shifted(s: Moment) -> np.ndarray:
    """w − λ/μ, what the C step projects."""
    return s.w - s.before[2] / s.mu()


def rounding(s: Moment) -> float:
    """Of w − λ/μ: one for each of the two operations and k for μ, each counted as EPS."""
    return float((4 + s.k) * EPS * np.linalg.norm(np.abs(s.w) + np.abs(s.before[2]) / s.mu()))


# ---- the end of the path


def spectrum(X):
    """The least and the largest eigenvalue of XᵀX."""
    singular = decompose(X)[1]
    return float(singular[-1]) ** 2, float(singular[0]) ** 2


def constrained_least_squares(X, y, radius):
    """Solve min ½ ‖Xθ − y‖² over ‖θ‖₁ ≤ r without any loop: (θ, its value, a bound on its gap).

    The ball is the convex hull of ±r e_i, so Xθ − y runs over the hull of the columns of
    A = [rX, −rX] − y. Its point of least norm is A s with s proportional to the v ≥ 0 that
    minimises ‖A v‖² + (Σv − 1)², nonnegative least squares. The gap: by convexity no feasible
    point is below L(θ) + min over ‖z‖₁ ≤ r of ⟨∇L(θ), z − θ⟩ = L(θ) − ⟨g, θ⟩ − r ‖g‖∞.
    """
    from scipy.optimize import nnls

    corners = np.hstack([radius * X, -radius * X]) - y[:, None]
    corners /= np.max(np.abs(corners), initial=0.0) or 1.0
    v, _ = nnls(np.vstack([corners, np.ones(corners.shape[1])]), np.append(0.0 * y, 1.0))
    plus, minus = np.split(v / np.sum(v), 2)
    theta = radius * (plus - minus)
    g = X.T @ (X @ theta - y)
    gap = float(g @ theta + radius * np.max(np.abs(g)))
    return theta, 0.5 * float(np.sum((X @ theta - y) ** 2)), max(gap, 0.0)
