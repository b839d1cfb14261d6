"""The table of projections: what each one minimises, over what, and who knows the optimum."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Callable

import numpy as np
from hypothesis import strategies as st
from places import on_host as to_numpy
from places import projections

from lcref.tolerance import objective_slack
from lcref.verify import oracles
from lcref.verify.cases import codebooks, matrices, prices, radii, vectors

# ---- reading an answer


def differences(w, theta):
    """The entries of w − θ, exactly."""
    pairs = zip(w.ravel().tolist(), theta.ravel().tolist())
    return [Fraction(a) - Fraction(b) for a, b in pairs]


def objective(w, theta):
    """‖w − θ‖², exactly."""
    return sum((difference**2 for difference in differences(w, theta)), Fraction(0))


def distance_to_mean(w):
    """‖w − mean w‖², exactly."""
    x = [Fraction(value) for value in w.ravel().tolist()]
    return sum(v * v for v in x) - sum(x) ** 2 / max(len(x), 1)


def slack(problem, w, theta):
    """The published constant, plus the rounding of subnormal numbers.

    The constant is taken of w and θ divided by a power of two that brings them near 1, where
    nothing overflows and n·tiny hides nothing, and multiplied by its square. Entries of θ under
    the smallest normal number are off by up to half the smallest subnormal h, not by u·θ: that
    moves the objective by at most 2h·Σ abs(w − θ) + n·h², and by n·h² where θ is stationary.
    """
    largest = max(np.max(np.abs(w), initial=0), np.max(np.abs(theta), initial=0))
    exponent = int(np.frexp(largest)[1])
    near_1 = [np.ldexp(x, -exponent) for x in (w, theta)]
    spread = problem.spread(*near_1)
    published = objective_slack(*near_1, spread=spread, stationary=problem.stationary)
    h = Fraction(float(np.finfo(w.dtype).smallest_subnormal)) / 2
    distance = sum(abs(difference) for difference in differences(w, theta))
    subnormal = w.size * h**2 + (0 if problem.stationary else 2 * h * distance)
    return Fraction(published) * Fraction(4) ** exponent + subnormal


# ---- feasible sets; each is told w's dtype by theta


def has_few_values(theta, k):
    return np.unique(theta).size <= k


def is_in(levels, scale):
    def feasible(theta, _):
        a = np.max(np.abs(theta), initial=0) if scale else 1
        return bool(np.all(np.isin(theta, [a * level for level in levels])))

    return feasible


def is_sparse(theta, kappa):
    return np.count_nonzero(theta) <= kappa


def is_in_l1_ball(theta, radius):
    # every entry is rounded once, by at most half an eps of w's dtype: n eps are ample
    norm = sum(map(abs, map(Fraction, theta.ravel().tolist())), Fraction(0))
    return norm <= Fraction(radius) * (1 + theta.size * Fraction(float(np.finfo(theta.dtype).eps)))


def has_low_rank(theta, rank):
    if rank >= min(theta.shape):
        return True
    near_1 = np.ldexp(theta, -int(np.frexp(np.max(np.abs(theta)))[1])).astype(np.float64)
    sigma = np.linalg.svd(near_1, compute_uv=False)
    # the rounding of the entries of θ, u·σ₁ for each row and column, is noise beyond rank r
    return sigma[rank] <= 8 * max(theta.shape) * float(np.finfo(theta.dtype).eps) * sigma[0]


def is_in_codebook(theta, codebook):
    return bool(np.all(np.isin(theta, np.asarray(codebook, theta.dtype))))


def is_in_powers_of_two(theta, c):
    return set(np.abs(theta).ravel().tolist()) <= {0.0, *(2.0**-i for i in range(c + 1))}


def is_in_scaled_codebook(theta, codebook):
    """Some a ≥ 0 takes the codebook to θ, each product rounded once to θ's dtype."""
    x = [Fraction(value) for value in theta.ravel().tolist()]
    entries = [Fraction(float(c)) for c in codebook]
    top, info = max(x, key=abs, default=Fraction(0)), np.finfo(theta.dtype)
    u, h = Fraction(float(info.eps)), Fraction(float(info.smallest_subnormal))

    def fits(a):
        # a comes from a product that is itself rounded: two roundings of half a u, or of half an h
        levels = [(a * c, u * abs(a * c) + h * (1 + abs(c * a / top))) for c in entries]
        return all(any(abs(v - level) <= off for level, off in levels) for v in x)

    return top == 0 or any(fits(top / c) for c in entries if c * top > 0)


def is_rounded(theta, dtype):
    if dtype.startswith("int"):
        half = 2 ** (int(dtype[3:]) - 1)
        return is_in_scaled_codebook(theta, range(-half, half))
    return set(theta.ravel().tolist()) <= set(oracles.representable(dtype))


def has_few_slices(theta, budget):
    kappa, axis = budget
    return sum(np.any(np.take(theta, i, axis)) for i in range(theta.shape[axis])) <= kappa


def anything(theta, _):
    return True


# ---- penalties, exactly


def no_penalty(part, theta, budget):
    return Fraction(0)


def price_of_nonzeros(part, theta, budget):
    return oracles.price(*budget) * np.count_nonzero(theta)


def price_of_norm(part, theta, budget):
    norm = sum((abs(Fraction(value)) for value in theta.ravel().tolist()), Fraction(0))
    return oracles.price(*budget) * norm


def storage(shape):
    return lambda r: r * sum(shape)


def price_of_rank(part, theta, budget):
    return oracles.price(*budget) * storage(theta.shape)(part.left.shape[1])


# ---- the table


def norm_of_w(w, theta):
    return float(objective(w, np.zeros_like(w)))


def norms_of_both(w, theta):
    return norm_of_w(w, theta) + norm_of_w(theta, w)


def spread_of_w(w, theta):
    return float(distance_to_mean(w))


def no_budget(w):
    return st.none()


def whole_numbers(start):
    return lambda w: st.integers(start, w.size + 1)


@dataclass(frozen=True)
class Problem:
    """One projection: min ‖w − θ‖² + penalty over the θ with `feasible(θ, budget)`.

    The published constant covers a penalty too. The price 2α/μ comes of two roundings, so it is off
    by at most ε of itself, and θ is optimal for the price as rounded. Neither θ nor the optimum
    pays more than ‖w‖², which is the cost of 0: the two differ by at most 2·ε·‖w‖².
    """

    project: Callable  # (w, budget) → part
    optimum: Callable  # (w, budget) → Fraction, for small w
    feasible: Callable  # (θ, budget) → bool
    budgets: Callable = no_budget  # w → strategy of budgets
    weights: Callable = vectors  # strategy of w
    spread: Callable = norm_of_w  # D of the published constant
    stationary: bool = False  # the published constant has no first-order term
    larger: Callable | None = None  # budget → a larger budget
    penalty: Callable = no_penalty  # (part, θ, budget) → Fraction
    usual: object = None  # a budget that fits every w
    small: int = 8  # entries that the oracle can search
    homogeneous: bool = True  # s·θ is feasible for stretch(budget, s) when θ is for budget
    stretch: Callable = lambda budget, s: budget
    shapes: tuple = ((), (0,), (1,), (7,), (2, 3), (2, 0, 3), (2, 1, 3, 2))
    signs: str = "each"  # what may be negated: each entry, "all" at once, "lines" of a matrix, ""


PROBLEMS = {
    "kmeans": Problem(
        lambda w, k: projections.kmeans(w, k),
        oracles.kmeans,
        has_few_values,
        whole_numbers(1),
        spread=spread_of_w,
        stationary=True,
        larger=lambda k: k + 1,
        usual=1,
        signs="all",
    ),
    "binary": Problem(
        lambda w, _: projections.binary(w),
        lambda w, _: oracles.binary(w, False),
        is_in((-1, 1), False),
        spread=norms_of_both,
        homogeneous=False,
    ),
    "scaled_binary": Problem(
        lambda w, _: projections.binary(w, scale=True),
        lambda w, _: oracles.binary(w, True),
        is_in((-1, 1), True),
    ),
    "ternary": Problem(
        lambda w, _: projections.ternary(w),
        lambda w, _: oracles.ternary(w, False),
        is_in((-1, 0, 1), False),
        spread=norms_of_both,
        homogeneous=False,
    ),
    "scaled_ternary": Problem(
        lambda w, _: projections.ternary(w, scale=True),
        lambda w, _: oracles.ternary(w, True),
        is_in((-1, 0, 1), True),
    ),
    "l0_ball": Problem(
        lambda w, kappa: projections.l0_ball(w, kappa),
        oracles.l0_ball,
        is_sparse,
        whole_numbers(0),
        larger=lambda kappa: kappa + 1,
        usual=1,
    ),
    "l1_ball": Problem(
        lambda w, radius: projections.l1_ball(w, radius),
        oracles.l1_ball,
        is_in_l1_ball,
        radii,
        larger=lambda radius: 1.25 * radius,
        usual=1,
        stretch=lambda radius, s: radius * s,
    ),
    "rank_ball": Problem(
        lambda w, rank: projections.rank_ball(w, rank),
        oracles.rank_ball,
        has_low_rank,
        lambda w: st.integers(0, min(w.shape) + 1),
        weights=matrices,
        larger=lambda rank: rank + 1,
        usual=1,
        shapes=((0, 0), (0, 3), (2, 0), (1, 1), (1, 5), (4, 1), (3, 4)),
        signs="lines",
    ),
    "nearest": Problem(
        lambda w, codebook: projections.nearest(w, codebook),
        oracles.nearest,
        is_in_codebook,
        codebooks,
        spread=norms_of_both,
        larger=lambda codebook: sorted({*codebook, 0.0}),
        usual=[-1.0, 0.25, 2.0],
        stretch=lambda codebook, s: [c * s for c in codebook],
        signs="",
    ),
    "powers_of_two": Problem(
        lambda w, c: projections.powers_of_two(w, c),
        oracles.powers_of_two,
        is_in_powers_of_two,
        lambda w: st.integers(0, 10),
        spread=norms_of_both,
        larger=lambda c: c + 1,
        usual=1,
        homogeneous=False,
    ),
    "scaled_codebook": Problem(
        lambda w, codebook: projections.scaled_codebook(w, codebook),
        oracles.scaled_codebook,
        is_in_scaled_codebook,
        lambda w: codebooks(w, unit=1.0),
        larger=lambda codebook: sorted({*codebook, 0.5}),
        usual=[-1.0, 0.25, 2.0],
        small=5,
        signs="",
    ),
    "float16": Problem(
        lambda w, _: projections.round_to(w, "float16"),
        lambda w, _: oracles.round_to(w, "float16"),
        lambda theta, _: is_rounded(theta, "float16"),
        spread=norms_of_both,
        homogeneous=False,
    ),
    "bfloat16": Problem(
        lambda w, _: projections.round_to(w, "bfloat16"),
        lambda w, _: oracles.round_to(w, "bfloat16"),
        lambda theta, _: is_rounded(theta, "bfloat16"),
        spread=norms_of_both,
        homogeneous=False,
    ),
    "int2 and int3": Problem(
        lambda w, dtype: projections.round_to(w, dtype),
        oracles.round_to,
        is_rounded,
        lambda w: st.sampled_from(["int2", "int3"]),
        usual="int2",
        small=4,
        signs="",
    ),
    "l0_penalty": Problem(
        lambda w, budget: projections.l0_penalty(w, *budget),
        lambda w, budget: oracles.l0_penalty(w, *budget),
        anything,
        prices(2),
        penalty=price_of_nonzeros,
        usual=(0.25, 1.0),
        stretch=lambda budget, s: (budget[0] * s**2, budget[1]),
    ),
    "l1_penalty": Problem(
        lambda w, budget: projections.l1_penalty(w, *budget),
        lambda w, budget: oracles.l1_penalty(w, *budget),
        anything,
        prices(1),
        penalty=price_of_norm,
        stationary=True,
        usual=(0.25, 1.0),
        stretch=lambda budget, s: (budget[0] * s, budget[1]),
    ),
    "group_l0_ball": Problem(
        lambda w, budget: projections.group_l0_ball(w, *budget),
        lambda w, budget: oracles.group_l0_ball(w, *budget),
        has_few_slices,
        lambda w: st.tuples(st.integers(0, 5), st.integers(-w.ndim, w.ndim - 1)),
        weights=matrices,
        larger=lambda budget: (budget[0] + 1, budget[1]),
        usual=(1, -1),
        shapes=((0,), (7,), (0, 3), (2, 0), (2, 3), (2, 1, 3, 2)),
    ),
    "rank_selection": Problem(
        lambda w, budget: projections.rank_selection(w, *budget),
        lambda w, budget: oracles.rank_selection(w, *budget, storage(w.shape)),
        anything,
        prices(2),
        weights=matrices,
        penalty=price_of_rank,
        usual=(0.01, 1.0),
        stretch=lambda budget, s: (budget[0] * s**2, budget[1]),
        shapes=((0, 0), (0, 3), (2, 0), (1, 1), (1, 5), (4, 1), (3, 4)),
        signs="lines",
    ),
}


def name_of(problem, table=PROBLEMS):
    """The name of a row of a table of problems."""
    return next(name for name, other in table.items() if other is problem)


# ---- one answer


@dataclass(frozen=True)
class Answer:
    """What one projection returned for one w and budget, and how it is judged."""

    theta: np.ndarray
    value: Fraction  # ‖w − θ‖² + penalty
    slack: Fraction


def answer(problem, w, budget):
    """Π(w), decompressed, as a NumPy array, with its value and its slack; w may lie anywhere."""
    part, w = problem.project(w, budget), to_numpy(w)
    theta = to_numpy(part.decompress())
    value = objective(w, theta) + problem.penalty(part, theta, budget)
    return Answer(theta, value, slack(problem, w, theta))
