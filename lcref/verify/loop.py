"""Judge an implementation of the LC loop on least squares, from the steps that it returned.

    L(w) = ½ ‖Xw − y‖²,   θ ← Π(w) of the minimiser w of L,   λ ← 0,   then for k = 0, 1, ...

        μ ← μ0·aᵏ
        w ← argmin L(w) + μ/2 ‖w − θ − λ/μ‖²
        θ ← argmin ‖w − λ/μ − θ‖²  over ‖θ‖₀ ≤ κ, over ‖θ‖₁ ≤ r, or over at most k distinct values
        λ ← λ − μ (w − θ)                    (quadratic penalty: λ stays 0)

Nothing is compared with another path, which a tie could send elsewhere: every step is judged for
the w, θ and λ that the step before it returned. Where a step is wrong, the usual wrong formulas are
tried on the same numbers, and those that fit are named.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st

from ..tolerance import EPS
from .loop_steps import (L_STEP, Moment, constrained_least_squares, distances, follow, infeasible,
                         nearest, rounding, shifted, spectrum, trace)
from .properties import Property, Violation

__all__ = ["PROPERTIES", "constrained_least_squares", "trace"]

LOOSE = 1e-6  # how well a wrong formula must fit to be named

# ---- naming mistakes: pairs of words and of a function that tells whether a step fits them

Mistakes = Sequence[tuple[str, Callable[[Moment], bool]]]


def probable(path: Sequence[Moment], mistakes: Mistakes,
             otherwise: str = "None of the usual mistakes fits") -> str:
    """Name the mistakes that explain every step, the three most common ones at most."""
    fitting = [words for words, fits in mistakes if all(fits(s) for s in path)]
    return f"Probable mistake: {'; or: '.join(fitting[:3])}." if fitting else f"{otherwise}."


def close(x: np.ndarray, y: np.ndarray, scale: float = 0.0) -> bool:
    """Equal but for LOOSE, relative to the larger one or to the scale."""
    size = max(float(np.linalg.norm(x)), float(np.linalg.norm(y)), scale)
    return bool(np.linalg.norm(x - y) <= LOOSE * size)


def pulls(formula: Callable[[Moment], tuple[float, np.ndarray]]) -> Callable[[Moment], bool]:
    """w minimises L + μ/2 ‖w − t‖² with the (μ, t) of the formula."""
    return lambda s: s.miss(*formula(s)) <= L_STEP


def aims(mu: Callable[[Moment], float]) -> Callable[[Moment], bool]:
    """As `pulls`, with t = θ + λ/μ for another μ."""
    return pulls(lambda s: (mu(s), s.before[1] + s.before[2] / mu(s)))


def weighs(mu: Callable[[Moment], float]) -> Callable[[Moment], bool]:
    """As `pulls`, with the right t and another μ."""
    return pulls(lambda s: (mu(s), s.target()))


WEIGHTS = (  # of the penalty by another factor, in the first step too
    ("μ/2 is taken as μ, the penalty has twice its weight", lambda s: 2 * s.mu()),
    ("the penalty has half its weight, or L is taken without its ½", lambda s: s.mu() / 2),
    ("L is the mean over the rows of X, not the sum", lambda s: s.mu() * len(s.arguments[1])),
)
SCHEDULES = (
    ("μ grows before the first step, μ0·aᵏ⁺¹ instead of μ0·aᵏ", lambda s: s.mu(1)),
    ("μ does not grow, it stays at μ0", lambda s: s.arguments[5]),
    ("μ grows one step late", lambda s: s.mu(-1)),
    ("μ grows linearly, μ0·(1 + k·(a − 1)) instead of μ0·aᵏ",
     lambda s: s.arguments[5] * (1 + s.k * (s.arguments[6] - 1))),
)
L_MISTAKES: Mistakes = (
    ("the target of the L step is θ − λ/μ, λ has the wrong sign there",
     pulls(lambda s: (s.mu(), s.before[1] - s.before[2] / s.mu()))),
    ("the target of the L step is θ, without λ/μ", pulls(lambda s: (s.mu(), s.before[1]))),
    ("the target of the L step is θ + λ, λ is not divided by μ",
     pulls(lambda s: (s.mu(), s.before[1] + s.before[2]))),
    *((words, weighs(mu)) for words, mu in WEIGHTS),
    *((words, aims(mu)) for words, mu in SCHEDULES),
    ("λ is divided by the μ of the step before",
     pulls(lambda s: (s.mu(), s.before[1] + s.before[2] / s.mu(-1)))),
    ("what is returned as λ is λ/μ",
     pulls(lambda s: (s.mu(), s.before[1] + s.before[2] * s.mu(-1) / s.mu()))),
    ("θ is returned one step late, before the C step",
     pulls(lambda s: (s.mu(), s.theta + s.before[2] / s.mu()))),
    ("the L step is pulled to the last w, not to θ",
     pulls(lambda s: (s.mu(), s.before[0] + s.before[2] / s.mu()))),
    ("the L step is left out, w does not move", lambda s: close(s.w, s.before[0])),
    ("the L step leaves L out, w is θ + λ/μ", lambda s: close(s.w, s.target())),
    ("what is returned as θ is w", lambda s: bool(infeasible(s)) and close(s.theta, s.w)),
    ("every step returns the same arrays, those of the last one, which were overwritten",
     lambda s: all(np.array_equal(x, z) for x, z in zip((s.w, s.theta, s.lam), s.before))),
)
UNFINISHED = ("None of the usual wrong formulas fits: perhaps the L step stops before its minimum, "
              "after a gradient step or too few iterations")


def projects(formula: Callable[[Moment], np.ndarray]) -> Callable[[Moment], bool]:
    """θ is a projection of the formula's vector."""
    def fits(s):
        v = formula(s)
        return nearest(s, v, s.theta, LOOSE * float(np.linalg.norm(v)))

    return fits


UNCOMPRESSED: Mistakes = (
    ("θ is w itself, without a projection", lambda s: close(s.theta, s.w)),
    ("θ is w − λ/μ itself, without a projection", lambda s: close(s.theta, shifted(s))),
)
C_MISTAKES: Mistakes = (
    ("the C step projects w, not w − λ/μ", projects(lambda s: s.w)),
    ("entries that were 0 stay 0, whatever their weights",
     projects(lambda s: shifted(s) * (np.abs(s.before[1]) > LOOSE * np.max(np.abs(s.w))))),
    ("the C step projects w + λ/μ, λ has the wrong sign there",
     projects(lambda s: s.w + s.before[2] / s.mu())),
    ("the C step projects w − λ, λ is not divided by μ", projects(lambda s: s.w - s.before[2])),
    ("the multipliers are updated before the C step, which uses the new ones",
     projects(lambda s: s.w - s.lam / s.mu())),
    ("the C step is left out, θ does not move", lambda s: close(s.theta, s.before[1])),
    ("the C step projects the target of the L step, θ + λ/μ", projects(lambda s: s.target())),
    ("the C step projects the w of the step before",
     projects(lambda s: s.before[0] - s.before[2] / s.mu())),
)


def adds(formula: Callable[[Moment], np.ndarray]) -> Callable[[Moment], bool]:
    """λ is the formula's vector."""
    return lambda s: close(s.lam, formula(s), float(np.linalg.norm(s.before[2])))


LAM_MISTAKES: Mistakes = (
    ("λ has the wrong sign: μ (w − θ) was added",
     adds(lambda s: s.before[2] + s.mu() * (s.w - s.theta))),
    ("λ is never updated", adds(lambda s: s.before[2])),
    ("w − θ is subtracted without μ", adds(lambda s: s.before[2] - (s.w - s.theta))),
    ("the multipliers are updated before the C step, with the old θ",
     adds(lambda s: s.before[2] - s.mu() * (s.w - s.before[1]))),
    ("λ is replaced by −μ (w − θ), not added up", adds(lambda s: -s.mu() * (s.w - s.theta))),
    ("λ is updated with the μ of the next step",
     adds(lambda s: s.before[2] - s.mu(1) * (s.w - s.theta))),
    ("λ is updated with the μ of the step before",
     adds(lambda s: s.before[2] - s.mu(-1) * (s.w - s.theta))),
    ("λ is updated with μ/2", adds(lambda s: s.before[2] - s.mu() / 2 * (s.w - s.theta))),
    ("what is returned as λ is λ/μ",
     adds(lambda s: s.before[2] * s.mu(-1) / s.mu() - (s.w - s.theta))),
)


# ---- the properties


def steps(subject, arguments):
    """One entry a step; fewer only where the last has w = θ, at which the stop rule ends."""
    path, asked = follow(subject, arguments), arguments[7]
    last, found = path[-1], f"{asked} steps asked for, {len(path)} returned"
    stopped = np.linalg.norm(last.w - last.theta) <= 4 * EPS * np.linalg.norm(last.w)
    if len(path) < asked and not stopped:
        raise Violation(f"{found}: the loop ends too early, w is not θ yet", len(path), asked)
    if len(path) > asked:
        start = np.array_equal(path[0].w, arguments[2])
        raise Violation(f"{found}: " + ("the start is returned as if it were a step" if start else
                                        "the loop ends too late"), len(path), asked)
    for s, after in zip(path, path[1:]):
        for name, x, y in (("w", s.w, after.w), ("θ", s.theta, after.theta)):
            if np.shares_memory(x, y):
                raise Violation(f"{name} of steps {s.k} and {after.k} is the same array, which the "
                                "later step overwrites: return a copy of it")


def l_step_is_optimal(subject, arguments):
    """∇L(w) + μ (w − θ) − λ = 0 with θ and λ of the step before, but for L_STEP of its scale."""
    path = follow(subject, arguments)[1:]
    wrong = [s for s in path if not s.miss(s.mu(), s.target()) <= L_STEP]
    if wrong:
        s = wrong[0]
        raise Violation(
            f"w of step {s.k} does not minimise L(w) + μ/2 ‖w − θ − λ/μ‖² with θ and λ of step "
            f"{s.k - 1}: its gradient is {s.miss(s.mu(), s.target()):.1e} of the terms' size. "
            + probable(path, L_MISTAKES, UNFINISHED), s.w, s.minimiser())


def c_step_is_optimal(subject, arguments):
    """θ is feasible, and as near to w − λ/μ as the exact optimum, but for the published slack."""
    path = follow(subject, arguments)
    for s in path:
        if excess := infeasible(s):
            raise Violation(f"θ of step {s.k} is not feasible: {excess}. "
                            + probable([s], UNCOMPRESSED), s.theta)
    wrong = [s for s in path if not nearest(s, shifted(s), s.theta, rounding(s))]
    if wrong:
        s, name = wrong[0], arguments[3]
        found, least, _ = distances(s, shifted(s), s.theta)
        raise Violation(f"θ of step {s.k} is not the projection of w − λ/μ, with λ of the step "
                        f"before: ‖w − λ/μ − θ‖² is {found!r}, the optimum {least!r}. "
                        + probable(path, C_MISTAKES, "None of the usual mistakes fits: check the "
                                   f"projection by itself, as {name}"), found, least)


def multipliers(subject, arguments):
    """λ = λ_before − μ (w − θ) to 8 + k roundings of the size of its terms, k for μ; or λ = 0."""
    path, quadratic = follow(subject, arguments), arguments[8] == "quadratic"
    if quadratic and any(np.any(s.lam) for s in path):
        s = next(s for s in path if np.any(s.lam))
        raise Violation(f"λ of step {s.k} is not 0: with the quadratic penalty λ stays 0, it is "
                        "not updated", s.lam, np.zeros_like(s.lam))
    expected = [s.before[2] - s.mu() * (s.w - s.theta) for s in path]
    wrong = [(s, e) for s, e in zip(path, expected) if not quadratic and not np.all(
        np.abs(s.lam - e) <= (8 + s.k) * EPS * (
            np.abs(s.before[2]) + s.mu() * (np.abs(s.w) + np.abs(s.theta))))]
    if wrong:
        s, e = wrong[0]
        raise Violation(f"λ of step {s.k} is not λ − μ (w − θ). "
                        + probable(path, LAM_MISTAKES), s.lam, e)


def direct(s, mu):
    """Where a first L step with this μ must have aimed is a projection of the reference."""
    target = s.w + s.gradient(s.w) / mu
    inexact = L_STEP * s.scale(mu, target) / mu
    from_set = math.sqrt(distances(s, target, target)[1])
    return from_set <= inexact and nearest(s, s.arguments[2], target, inexact)


START_MISTAKES: Mistakes = (
    ("the loop starts from θ = 0, not from direct compression",
     lambda s: close(s.before[1], np.zeros_like(s.w), float(np.linalg.norm(s.arguments[2])))),
    ("the loop starts from θ = w, not from direct compression, or its first L step is left out",
     lambda s: close(s.before[1], s.arguments[2])),
    *((words, lambda s, mu=mu: direct(s, mu(s))) for words, mu in (*WEIGHTS, SCHEDULES[0])),
)


def starts_at_direct_compression(subject, arguments):
    """The first L step aims at Π(w_ref), so that for μ0 → 0 the path starts at w_ref and Π(w_ref).

    The aim is t = w + ∇L(w)/μ0, known to L_STEP of the L step's scale over μ0. With the least
    eigenvalue l of XᵀX, ‖w − w_ref‖ ≤ μ0/(l + μ0)·‖t − w_ref‖; θ is as near to w_ref, but for that.
    """
    s, reference, mu = follow(subject, arguments)[0], arguments[2], arguments[5]
    least = distances(s, reference, reference)[1]
    if not direct(s, mu):
        raise Violation("w of step 0 does not minimise L(w) + μ0/2 ‖w − θ‖² with θ the direct "
                        f"compression of the reference. {probable([s], START_MISTAKES)}", s.w)
    below = mu + spectrum(arguments[0])[0]
    near = mu / below * math.sqrt(least) + L_STEP * s.scale(mu, s.before[1]) / below
    if not (np.linalg.norm(s.w - reference) <= near and nearest(s, reference, s.theta, near)):
        raise Violation(f"at μ0 = {mu:g} the first w and θ are farther from the reference and its "
                        f"direct compression than {near:.1e}", s.theta)


def reaches_the_constrained_optimum(subject, arguments):
    """The end of the path: the optimum of the l1 ball at a fixed μ, w = θ where μ grows.

    A loop that ended by the stop rule is left to the other properties.
    """
    path = follow(subject, arguments)
    if len(path) == arguments[7]:
        (closes if arguments[6] > 1 else converges)(path, arguments)


def closes(path, arguments):
    """‖w − θ‖ ≤ 18 (u/μ)·‖w_ref‖ for μ0 ≥ 4u, a = 2, with u the largest eigenvalue of XᵀX.

    The C step's w − λ/μ is θ_before − ∇L(w)/μ, by the L step. Hence θ moves by at most 2 ‖∇L(w)‖/μ,
    ‖λ‖ ≤ 3 ‖∇L(w)‖ and ‖w − θ‖ = ‖λ_before − λ‖/μ ≤ 3 (‖∇L(w_before)‖ + ‖∇L(w)‖)/μ; in the same
    way ‖w − w_ref‖ stays under 3 ‖w_ref‖, the product of 1 + 3u/μ_k being finite. With the 24 steps
    of the cases that is 6e-7·‖w_ref‖; the rest, and twice L_STEP, are left for inexact L steps.
    """
    last, size = path[-1], float(np.linalg.norm(arguments[2]))
    gap = float(np.linalg.norm(last.w - last.theta))
    if not gap <= 1e-6 * size + 2 * L_STEP * last.scale(last.mu(), last.target()) / last.mu():
        raise Violation(f"μ has grown to {last.mu():.0e}, yet ‖w − θ‖ is still {gap:.1e}, with the "
                        f"reference of norm {size:.1e}: the constraint is not enforced", gap, 0.0)


def converges(path, arguments):
    """L(θ) is the constrained minimum: with multipliers and a fixed μ the loop is ADMM.

    With l and u the extreme eigenvalues of XᵀX, z = w − λ/μ contracts to z* = θ* − ∇L(θ*)/μ by
    c = max(u/(u + μ), μ/(l + μ)) a step, and ‖θ − θ*‖ ≤ ‖z − z*‖ =: E. At the first step
    E ≤ (3 + √(u/l) + u/μ)·‖w_ref‖, from L(θ*) ≤ L(0). An inexact L step adds L_STEP of its scale
    over l + μ, so that 1/(1 − c) of that remains. Then L(θ) − L(θ*) ≤ ‖∇L(θ*)‖ E + u E²/2, with
    ‖∇L(θ*)‖ ≤ u ‖w_ref‖.
    """
    X, y, reference, _, radius, mu = arguments[:6]
    (low, high), size, theta = spectrum(X), float(np.linalg.norm(reference)), path[-1].theta
    rate = max(high / (high + mu), mu / (low + mu))
    left = max(s.scale(mu, s.target()) for s in path) * L_STEP / (low + mu) / (1 - rate)
    error = rate ** (len(path) - 1) * (3 + math.sqrt(high / low) + high / mu) * size + left
    _, optimum, _ = constrained_least_squares(X, y, radius)
    value = 0.5 * float(np.sum((X @ theta - y) ** 2))
    if not value <= optimum * (1 + 1e-13) + high * error * (size + error / 2):
        stays = "" if np.any(path[-1].lam) else ". λ stays 0, as in the quadratic penalty"
        raise Violation(f"after {len(path)} steps at a fixed μ with multipliers, which is ADMM, "
                        f"L(θ) is {value!r}, the constrained minimum {optimum!r}{stays}",
                        value, optimum)


# ---- cases


@st.composite
def problems(draw, condition=30.0):
    """X of small whole numbers with a condition number of at most `condition`, y, the minimiser.

    Where X is worse, a multiple of the identity is added. The minimiser w is right to about
    EPS·condition²: it enters as what is compressed first, and is judged as it is given.
    """
    n = draw(st.integers(2, 5))
    m = draw(st.integers(n, 8))
    entries = draw(st.lists(st.integers(-4, 4), min_size=m * n, max_size=m * n))
    X = np.array(entries, dtype=float).reshape(m, n)
    X = next(x for x in (X + c * np.eye(m, n) for c in (0, 4, 16, 256))
             if np.linalg.cond(x) <= condition)
    y = np.array(draw(st.lists(st.integers(-9, 9), min_size=m, max_size=m)), dtype=float)
    y *= draw(st.sampled_from([1.0, 1.0, 0.125, 1000.0]))
    return X, y, np.linalg.lstsq(X, y)[0]


def budgets(projection, w):
    """From nothing to more than enough, mostly between."""
    if projection == "l1_ball":
        parts = st.sampled_from([0.5, 0.25, 0.75, 0.0, 1.0, 1.5])
        return parts.map(lambda part: part * float(np.sum(np.abs(w))))
    return st.one_of(st.integers(1, w.size - 1), st.integers(projection == "kmeans", w.size))


@st.composite
def paths(draw, least=1, mus=(0.75, 0.25, 0.0625, 3.0)):
    """The arguments of a loop of at most 8 steps; μ0 is one of `mus` times about ‖X‖².

    From the third step on, λ holds more than the last w − θ.
    """
    X, y, w = draw(problems())
    projection = draw(st.sampled_from(["l1_ball", "kmeans", "l0_ball"]))
    mu0 = draw(st.sampled_from(mus)) * 2.0 ** round(math.log2(spectrum(X)[1]))
    return (X, y, w, projection, draw(budgets(projection, w)), mu0,
            draw(st.sampled_from([1.5, 1.0, 1.1, 2.0])), draw(st.integers(least, 8)),
            draw(st.sampled_from(["augmented", "quadratic"])))


@st.composite
def long_paths(draw):
    """Paths to their end: at a fixed μ until 1e-9 is left, or with μ doubled 23 times."""
    X, y, w = draw(problems(condition=3.0))
    low, high = spectrum(X)
    if draw(st.booleans()):
        projection, penalty = "l1_ball", "augmented"
        mu0, a = draw(st.sampled_from([1.0, 0.5, 2.0])) * math.sqrt(low * high), 1.0
        count = math.ceil(math.log(1e-9) / math.log(max(high / (high + mu0), mu0 / (low + mu0))))
    else:
        projection = draw(st.sampled_from(["l1_ball", "kmeans", "l0_ball"]))
        penalty, mu0, a, count = draw(st.sampled_from(["augmented", "quadratic"])), 4 * high, 2., 24
    return X, y, w, projection, draw(budgets(projection, w)), mu0, a, count, penalty


PROPERTIES = (
    Property("steps", "one entry a step, of w's shape and dtype, finite, each with its own arrays",
             lambda kind: paths(), steps),
    Property("l_step_is_optimal", "w minimises L(w) + μ/2 ‖w − θ − λ/μ‖²",
             lambda kind: paths(least=3), l_step_is_optimal),
    Property("c_step_is_optimal", "θ is feasible and nearest to w − λ/μ",
             lambda kind: paths(least=3), c_step_is_optimal),
    Property("multipliers", "λ ← λ − μ (w − θ), or λ = 0 with the quadratic penalty",
             lambda kind: paths(least=3), multipliers),
    Property("starts_at_direct_compression", "the first L step aims at Π(w_ref)",
             lambda kind: paths(mus=(0.75, 0.25, 3.0, 1e-9)), starts_at_direct_compression),
    Property("reaches_the_constrained_optimum", "a fixed μ with multipliers converges to the "
             "optimum in the l1 ball, a growing μ to w = θ",
             lambda kind: long_paths(), reaches_the_constrained_optimum),
)
