"""Corrections and factors in half precision: what is optimal, and how far the rest is from it.

The oracles search in rational arithmetic. For given positions the weights separate, and the cost of
one is convex in its value; so on the grid of half-precision numbers only the two neighbours of the
value that is best without rounding can be the best, and zero for a weight that is not kept.
"""

import bisect
import dataclasses
import itertools
import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from compared import distance, objective, on_host, same_bits, same_part, vector
from hypothesis import example, given
from hypothesis import strategies as st
from places import projections

from lcref import (DescentError, LowRank, Prune, Quantize, Schedule, Sum, Task,
                   compress, iterate, parse)
from lcref.lsteps import LeastSquares
from lcref.parts import ByTensor, Codebook, Dense, Sparse
from lcref.parts import LowRank as LowRankPart
from lcref.parts import Sum as SumOfParts
from lcref.storage import pack, unpack, with_storage

pytestmark = pytest.mark.everywhere

MU = 2.5
GRID = sorted({struct.unpack("<e", struct.pack("<H", word))[0] for word in range(2**16)
               if word >> 10 & 31 < 31})  # every finite number of half precision


def neighbours(x):
    """The half-precision numbers on both sides of x, one where x is one or beyond all."""
    i = bisect.bisect_left(GRID, x)
    return {Fraction(v) for v in GRID[max(i - 1, 0):i + 1]} if i == len(GRID) or GRID[i] != x else {
        Fraction(x)}


def nearest(x):
    """The squared distance of x to the grid."""
    return min((x - v) ** 2 for v in neighbours(x))


def exact(tree):
    return [Fraction(x) for x in vector(tree).tolist()]


def kept_at_most(w, kappa):
    """min ‖w − θ‖² over half-precision θ with at most kappa nonzeros, by all choices of them."""
    w = exact(w)
    return min(sum((nearest(x) if i in kept else x * x for i, x in enumerate(w)), Fraction(0))
               for kept in itertools.combinations(range(len(w)), min(kappa, len(w))))


def with_price(w, alpha, norm):
    """min ‖w − θ‖² + 2α/μ ‖θ‖₀ or ‖θ‖₁ over half-precision θ."""
    price, total = 2 * Fraction(alpha) / Fraction(MU), Fraction(0)
    for x in exact(w):
        best = x
        if norm:
            best = max(abs(x) - price / 2, 0) * (1 if x > 0 else -1)
        total += min((x - v) ** 2 + price * (abs(v) if norm else v != 0)
                     for v in neighbours(best) | {Fraction(0)})
    return total


def in_ball(w, radius):
    """min ‖w − θ‖² over ‖θ‖₁ ≤ r, not rounded: the soft threshold that meets the radius."""
    w, r = sorted(map(abs, exact(w)), reverse=True), Fraction(radius)
    if sum(w) <= r:
        return Fraction(0)
    tau = max((sum(w[:j]) - r) / j for j in range(1, len(w) + 1))
    return sum(min(x, tau) ** 2 for x in w)


def slack(w, theta, price=0):
    """8·n·ε·D + 2·u·‖θ‖·‖w − θ‖ + n·(u·M)² + n·tiny, as published; the price has D's role too."""
    w, theta = exact(w), exact(theta)
    n, u = len(w), Fraction(2) ** -52
    norm = math.sqrt(sum(t * t for t in theta))
    far = math.sqrt(sum((x - t) ** 2 for x, t in zip(w, theta)))
    largest = max([0, *map(abs, w), *map(abs, theta)])
    return (8 * n * u * (sum(x * x for x in w) + Fraction(price)) + 2 * UNIT * Fraction(norm)
            * Fraction(far) + n * (UNIT * largest) ** 2 + n * Fraction(2) ** -1022)


UNIT = Fraction(2) ** -23  # of float32, the coarser of the dtypes that are tried


def values_of(part):
    """The corrections and factors of a part, and of the parts inside it."""
    if isinstance(part, (SumOfParts, ByTensor)):
        inner = part.parts.values() if isinstance(part.parts, dict) else part.parts
        return [array for one in inner for array in values_of(one)]
    if isinstance(part, Sparse):
        return [part.values]
    return [part.left, part.right] if isinstance(part, LowRankPart) else []


def representable(part):
    """Every correction and factor is a half-precision number."""
    for array in values_of(part):
        array = on_host(array)
        assert np.all(np.abs(array) <= 65504)
        assert np.array_equal(array.astype(np.float16).astype(array.dtype), array)


def claims(part):
    """The gap, after the status was seen to go with it."""
    assert part.gap >= 0
    assert part.status == ("certified" if part.gap else "exact")
    return Fraction(part.gap)


def half(text):
    return with_storage(parse(text), "float16")


# ties of the rounding, numbers below the least half, at the largest and far beyond it
AWKWARD = [0.0, -0.0, 2.0**-24, -2.0**-25, 3 * 2.0**-26, 2.0**-26, 1.5 * 2.0**-24, 2.0**-14,
           2.0**-14 - 2.0**-26, 1 / 3, -0.1, 1 + 2.0**-11, 1 + 3 * 2.0**-11, -1 - 2.0**-12, 1.0,
           2049.0, -2051.0, 65504.0, 65519.0, 65520.0, -65535.0, 1e6, -1e6, 1e30, 1e-30]
entries = st.one_of(st.sampled_from(AWKWARD), st.floats(-4, 4, width=32),
                    st.floats(-2.0**-20, 2.0**-20, width=32))
dtypes = st.sampled_from([np.float32, np.float64])


@st.composite
def weights(draw, most=5, entry=entries):
    return np.array(draw(st.lists(entry, max_size=most)), draw(dtypes))


@st.composite
def matrices(draw, most=4, least=1):
    m, n = (draw(st.integers(least, most)) for _ in range(2))
    scale = 10.0 ** draw(st.integers(-6, 6))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return (rng.standard_t(2, size=(m, n)) * scale).astype(draw(dtypes))


moderate = st.floats(-4, 4, width=32) | st.sampled_from([a for a in AWKWARD if abs(a) < 1e5])
budgets = st.integers(0, 6)
prices = st.floats(0, 10) | st.sampled_from([0.0, 1e-15, 1e-8, 1e4, 1e12])

# ---- one part: exact optima


@given(weights(), budgets)
def test_the_largest_rounded_are_the_optimum_of_the_rounded_problem(w, kappa):
    theta = half(f"prune(kappa={kappa})").project(w)
    representable(theta)
    assert np.count_nonzero(theta.decompress()) <= kappa
    assert distance(w, [theta.decompress()]) == kept_at_most(w, kappa)
    assert claims(theta) == 0


@given(weights(), st.sampled_from([0.0, 0.2, 0.5, 0.6, 1.0]))
def test_a_share_of_the_weights_rounded_is_the_optimum_of_the_rounded_problem(w, keep):
    theta = half(f"prune(keep={keep})").project({"a": w, "b": w[:1]})
    kappa = math.floor(Fraction(str(keep)) * (w.size + w[:1].size))
    representable(theta)
    both = np.concatenate([w, w[:1]])
    assert distance(both, [theta.decompress()]) == kept_at_most(both, kappa)
    assert claims(theta) == 0


@given(weights(), prices)
@example(np.array([0.33333334], np.float32), 2e-313)    # whose worth in units of it overflows
def test_with_a_price_on_each_nonzero_the_rounded_optimum_is_found(w, alpha):
    theta = half(f"prune(alpha={alpha!r})").project(w, MU)
    representable(theta)
    price = 2 * Fraction(alpha) / Fraction(MU)
    # the price is rounded, and a weight's worth is: no more than the terms of D allow
    room = 8 * w.size * Fraction(2) ** -52 * (sum(x * x for x in exact(w)) + w.size * price)
    cost = distance(w, [theta.decompress()]) + price * theta.values.size
    assert cost - with_price(w, alpha, 0) <= room
    assert claims(theta) == 0


@given(weights(), prices)
def test_with_a_price_on_the_l1_norm_the_rounded_optimum_is_found(w, alpha):
    theta = half(f"prune(alpha={alpha!r}, norm=1)").project(w, MU)
    representable(theta)
    delta, price = theta.decompress(), 2 * Fraction(alpha) / Fraction(MU)
    norm = sum(map(abs, exact(delta)))
    cost, optimum = distance(w, [delta]) + price * norm, with_price(w, alpha, 1)
    assert optimum <= cost
    # α/μ is rounded, by a half of ε, and so is w − α/μ: the nearest half may be the other one of
    # two that are as near, up to that difference and a step of a half
    assert cost - optimum <= slack(w, delta) + sum(
        2 * abs(t) * price / 2 * 2 * Fraction(2) ** -52 + abs(t) * UNIT * (abs(t) + price) / 2**10
        for t in exact(delta))
    assert claims(theta) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_rounds_to_nothing_is_not_worth_its_price(dtype):
    # 2⁻²⁵ is half of the least half: keeping it at 0 or at 2⁻²⁴ gains nothing
    w = np.array([2.0**-25, 2.0**-24, 2.0**-26, 2.0], dtype)
    assert half("prune(alpha=0)").project(w, MU).indices.tolist() == [1, 3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_price_between_the_gain_and_the_square_drops_a_weight(dtype):
    # w = 1 + 2⁻¹¹ rounds to 1 or to 1 + 2⁻¹⁰ and gains w² − 2⁻²²; half a step above it is the price
    w = np.array([1 + 2.0**-11], dtype)
    square = float(w[0]) ** 2
    for price, kept in ((square - 2.0**-23, 0), (square - 2.0**-21, 1)):
        assert half(f"prune(alpha={price * MU / 2!r})").project(w, MU).values.size == kept


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_saturate_at_the_largest_half(dtype):
    w = np.array([[1e6, -1e30], [65519.0, -70000.0]], dtype)
    expected = np.array([[65504, -65504], [65504, -65504]], dtype)
    for text in ("prune(kappa=4)", "prune(keep=1.0)", "prune(alpha=0.1)", "prune(radius=1e31)",
                 "prune(groups=2, axis=0)"):
        same_bits(half(text).project(w, MU).decompress(), expected)
    theta = half("lowrank(rank=2)").project(w)
    representable(theta)
    same_bits(theta.decompress(), expected)
    assert theta.status == "certified"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_halves_below_the_normal_ones_are_used(dtype):
    w = np.array([2.0**-24, 3 * 2.0**-24, 1.4 * 2.0**-24, 2.9 * 2.0**-25, 0.9 * 2.0**-25], dtype)
    expected = np.array([1, 3, 1, 1, 0], dtype) * dtype(2.0**-24)
    same_bits(half("prune(kappa=5)").project(w).decompress(), expected)


@given(weights())
def test_what_is_representable_is_left_as_it_is(w):
    w = np.clip(w, -65504, 65504).astype(np.float16).astype(w.dtype)
    for text in ("prune(kappa=3)", "prune(keep=0.5)", "prune(alpha=0.1)", "prune(radius=1e9)"):
        one, other = half(text).project(w, MU), parse(text).project(w, MU)
        same_part(one, other)


# ---- one part: feasible, and no further from the optimum than the gap

@given(weights(), st.floats(0, 8) | st.sampled_from([0.0, 0.5, 2.0**-24, 2.0**-25, 7e4, 1e31]))
def test_the_rounded_point_lies_in_the_l1_ball_and_is_within_its_gap(w, radius):
    theta = half(f"prune(radius={radius!r})").project(w)
    representable(theta)
    delta = theta.decompress()
    assert sum(map(abs, exact(delta))) <= Fraction(radius)
    unrounded = projections.l1_ball(w, radius).decompress()
    excess = distance(w, [delta]) - in_ball(w, radius)
    assert 0 <= excess <= claims(theta) + slack(w, unrounded)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("radius", [0.5 - 2.0**-40, 1 - 2.0**-52, 3 - 1e-12, 0.1, 1 / 3])
def test_the_ball_is_not_left_where_the_radius_is_just_below_a_half(radius, dtype):
    for w in ([3.0], [3.0, -3.0], [5.0, 0.1, -0.2], [1.0, 2.0, -4.0, 8.0]):
        theta = half(f"prune(radius={radius!r})").project(np.array(w, dtype))
        representable(theta)
        assert sum(map(abs, exact(theta.decompress()))) <= Fraction(radius)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("units, kept", [(0.4, 0), (0.9, 0), (1.9, 1), (2.6, 2), (1023.7, 1023)])
def test_below_the_normal_halves_too_values_are_rounded_into_the_ball(units, kept, dtype):
    theta = half(f"prune(radius={units * 2.0**-24!r})").project(np.array([1.0], dtype))
    assert theta.decompress().tolist() == [kept * 2.0**-24]


def best_slices(w, groups, axis):
    """min ‖w − θ‖² over half-precision θ with few nonzero slices, by all choices of them."""
    rows = [[Fraction(x) for x in row] for row in np.moveaxis(w, axis, 0).tolist()]
    return min(sum((nearest(x) if i in kept else x * x for i, row in enumerate(rows) for x in row),
                   Fraction(0))
               for kept in itertools.combinations(range(len(rows)), min(groups, len(rows))))


@given(weights(most=6, entry=moderate), st.integers(0, 4), st.sampled_from([0, 1, -1]))
def test_slices_are_feasible_and_within_their_gap_of_the_rounded_optimum(values, groups, axis):
    w = np.resize(values, (3, 2)).astype(values.dtype) if values.size else values.reshape(3, 0)
    theta = half(f"prune(groups={groups}, axis={axis})").project(w)
    representable(theta)
    delta = theta.decompress()
    assert np.count_nonzero(np.any(delta, axis=(axis + 1) % 2)) <= groups
    excess = distance(w, [delta]) - best_slices(w, groups, axis)
    assert 0 <= excess <= claims(theta) + slack(w, delta)


def test_slices_that_the_rounding_moves_past_others_are_not_claimed_to_be_optimal():
    # the larger is kept, √2·65504 < 95000, though the half nearest to it is a long way off
    w = np.array([[65504.0, 65504.0], [95000.0, 0.0]])
    theta = half("prune(groups=1, axis=0)").project(w)
    assert theta.indices.tolist() == [1]
    excess = distance(w, [theta.decompress()]) - best_slices(w, 1, 0)
    assert 0 < excess <= claims(theta)


def test_slices_over_several_tensors_are_rounded_each_with_its_gap():
    w = {"a": np.array([[0.1, 0.2], [4.0, 5.0]]), "b": np.array([[0.3, 7.0]])}
    theta = half("prune(keep=0.7, axis=0)").project(w)
    representable(theta)
    excess = distance(w, [theta.decompress()]) - Fraction(0.1) ** 2 - Fraction(0.2) ** 2
    assert theta.parts["a"].status == "exact"
    assert theta.parts["b"].status == "certified"
    assert 0 < excess <= claims(theta) + slack(w, theta.decompress())


def tail(w, rank):
    """Σ_{i>r} σ_i², the least squared distance of a matrix to those of the rank."""
    s = np.linalg.svd(np.asarray(w, np.float64), compute_uv=False)
    return Fraction(math.fsum(x * x for x in s[rank:]))


@given(matrices(), st.integers(0, 5))
def test_rounded_factors_have_the_rank_and_are_within_their_gap_of_the_optimum(w, rank):
    theta = half(f"lowrank(rank={rank})").project(w)
    representable(theta)
    assert theta.left.shape[1] == theta.right.shape[0] <= min(rank, *w.shape)
    delta = theta.decompress()
    excess = distance(w, [delta]) - tail(w, rank)
    room = 4 * slack(w, delta) + 16 * Fraction(2) ** -52 * sum(x * x for x in exact(w))  # of σ²
    assert -room <= excess <= claims(theta) + room


@given(matrices(), st.floats(0, 2))
def test_rounded_factors_of_a_priced_rank_are_within_their_gap_of_the_optimum(w, alpha):
    full, rounded = parse(f"lowrank(alpha={alpha!r})"), half(f"lowrank(alpha={alpha!r})")
    one, other = full.project(w, MU), rounded.project(w, MU)
    representable(other)
    assert one.left.shape == other.left.shape
    excess = distance(w, [other.decompress()]) - distance(w, [one.decompress()])
    assert excess <= claims(other) + 4 * slack(w, other.decompress())
    assert excess >= claims(other) - 4 * slack(w, other.decompress()) or other.gap == 0


@given(matrices(), st.sampled_from(["prune(radius={})", "prune(groups=1, axis=0)",
                                    "lowrank(rank=1)"]))
def test_the_gap_is_what_rounding_adds_to_the_distance(w, text):
    text = text.format(float(np.abs(w).sum()) / 3)
    one, other = (c.project(w) for c in (parse(text), half(text)))
    adds = distance(w, [other.decompress()]) - distance(w, [one.decompress()])
    assert abs(max(adds, 0) - claims(other)) <= slack(w, other.decompress())


# ---- a quantization plus corrections

def levels_and_corrections(w, levels, kappa):
    """min ‖w − q − c‖²: q_i in levels, c in half precision with at most κ nonzeros."""
    w = exact(w)
    free = [min((x - q) ** 2 for q in levels) for x in w]
    paid = [min(nearest(x - q) for q in levels) for x in w]
    return min(sum((paid[i] if i in kept else free[i] for i in range(len(w))), Fraction(0))
               for kept in itertools.combinations(range(len(w)), min(kappa, len(w))))


def runs(ordered, k):
    """The least distortion of sorted values in at most k runs, each at its mean."""
    if not ordered:
        return Fraction(0)
    if k == 0:
        return None
    costs = []
    for i in range(1, len(ordered) + 1):
        mean = sum(ordered[:i]) / i
        rest = runs(ordered[i:], k - 1)
        if rest is not None:
            costs.append(sum((x - mean) ** 2 for x in ordered[:i]) + rest)
    return min(costs, default=None)


def learned_and_corrections(w, kappa, distortion):
    """min over the corrected positions of the distortion of the others: not rounded."""
    w = exact(w)
    return min(distortion(sorted(x for i, x in enumerate(w) if i not in out))
               for out in itertools.combinations(range(len(w)), min(kappa, len(w))))


LEVELS = {"binary()": [-1, 1], "ternary()": [-1, 0, 1], "powersoftwo(c=1)": [-1, -.5, 0, .5, 1],
          "quantize(codebook=[-1, 0.25, 2])": [-1, 0.25, 2]}


@pytest.mark.parametrize("text", LEVELS)
@given(w=weights(entry=moderate), kappa=budgets)
def test_a_fixed_codebook_with_rounded_corrections_is_within_its_gap_of_the_rounded_optimum(
        text, w, kappa):
    levels = [Fraction(level) for level in LEVELS[text]]
    for both in (f"{text} + prune(kappa={kappa})", f"prune(kappa={kappa}) + {text}"):
        theta = half(both).project(w)
        representable(theta)
        (sparse,) = [part for part in theta.parts if isinstance(part, Sparse)]
        assert np.count_nonzero(sparse.values) <= kappa
        excess = objective(w, theta) - levels_and_corrections(w, levels, kappa)
        room = slack(np.concatenate([w, w]), np.concatenate([p.decompress() for p in theta.parts]))
        assert 0 <= excess <= claims(theta) + room


@pytest.mark.parametrize("text, distortion", [
    ("quantize(k=1)", lambda kept: runs(kept, 1)), ("quantize(k=2)", lambda kept: runs(kept, 2)),
    ("binary(scale=True)", lambda kept: runs(sorted(map(abs, kept)), 1))])
@given(w=weights(entry=moderate).filter(len), kappa=budgets)
def test_learned_entries_with_rounded_corrections_are_within_the_gap_of_the_optimum(
        text, distortion, w, kappa):
    theta = half(f"{text} + prune(kappa={kappa})").project(w)
    representable(theta)
    assert np.count_nonzero(theta.parts[1].values) <= kappa
    excess = objective(w, theta) - learned_and_corrections(w, kappa, distortion)
    room = slack(np.concatenate([w, w]), np.concatenate([p.decompress() for p in theta.parts]))
    assert -room <= excess <= claims(theta) + room


def test_corrections_of_a_sum_that_are_rounded_leave_a_gap_and_others_none():
    w = np.array([1.0, -1, 1.1, 3])
    for storage, status in (("float16", "certified"), ("float32", "exact")):
        theta = with_storage(parse("binary() + prune(kappa=2)"), storage).project(w)
        assert theta.status == status
        assert Fraction(theta.gap) >= objective(w, theta)  # 0 without rounding
    assert half("binary() + prune(kappa=1)").project(w).status == "exact"  # 3 = 1 + 2


def test_rounded_corrections_add_to_the_gap_that_the_joint_solver_left(monkeypatch):
    exact_solver = Quantize.corrected

    def with_a_gap(self, w, kappa):
        return dataclasses.replace(exact_solver(self, w, kappa), status="certified", gap=0.5)
    monkeypatch.setattr(Quantize, "corrected", with_a_gap)
    w = np.array([1.0, -1, 1.1, 3.3])
    full, rounded = (with_storage(parse("quantize(k=1) + prune(kappa=2)"), storage).project(w)
                     for storage in ("float32", "float16"))
    adds = objective(w, rounded) - objective(w, full)
    assert (full.status, full.gap, rounded.status) == ("certified", 0.5, "certified")
    assert 0 < adds < 1e-3
    assert abs(Fraction(rounded.gap) - Fraction(0.5) - adds) <= slack(w, w)


def test_each_tensor_with_shared_rounded_corrections_is_within_the_gap():
    w = {"a": np.array([1.1, -1.2, 1e5]), "b": np.array([0.3, 0.3, -7.7])}
    theta = half("each(quantize(k=1)) + prune(kappa=2)").project(w)
    representable(theta)
    optimum = min(learned_and_corrections(w["a"], i, lambda kept: runs(kept, 1))
                  + learned_and_corrections(w["b"], 2 - i, lambda kept: runs(kept, 1))
                  for i in range(3))
    assert objective(w, theta) - optimum <= Fraction(theta.gap) + slack(w, w)
    assert theta.status == "certified"


# ---- alternation

SUMS = ["lowrank(rank=1) + prune(kappa=3)", "prune(keep=0.2) + lowrank(rank=2)",
        "lowrank(rank=1) + quantize(k=2) + prune(kappa=2)", "lowrank(rank=1) + binary(scale=True)",
        "sum(quantize(k=2), prune(kappa=3), solver='alternate')",
        "lowrank(alpha=0.01) + prune(alpha=0.01)", "lowrank(rank=1) + prune(alpha=0.02, norm=1)",
        "lowrank(rank=1) + prune(radius=2.0)", "prune(groups=1, axis=0) + prune(groups=1, axis=1)",
        "prune(groups=1, axis=1) + prune(kappa=2) + lowrank(rank=1)",
        "sum(ternary(scale=True), prune(radius=1.0), prune(kappa=1))"]


def short(text):
    """The sum in half precision, in a few cycles."""
    both = half(text)
    return Sum(*both.terms, solver=both.solver, cycles=6)


def cost(terms, w, theta):
    """‖w − Σ Δ_j‖² + penalties, the distance exactly."""
    price = sum(term.penalty(part, MU) for term, part in zip(terms, theta.parts))
    return objective(w, theta) + Fraction(price)


def sum_slack(w, theta):
    """The published constant of all parts together: their residuals are rounded to w's dtype."""
    deltas = [part.decompress() for part in theta.parts]
    both = np.concatenate([vector(w), *map(vector, deltas)])
    u, n = Fraction(float(np.finfo(both.dtype).eps)), both.size
    size, far = sum(x * x for x in exact(both)), distance(w, deltas)
    return (8 * n * Fraction(2) ** -52 * size + n * u * u * size
            + 8 * u * Fraction(math.sqrt(size)) * Fraction(math.sqrt(far)))


@pytest.mark.parametrize("text", SUMS)
@given(w=matrices(most=5, least=2), again=st.integers(0, 99))
def test_an_alternation_in_half_precision_never_raises_its_objective(text, w, again):
    compression = short(text)
    theta = compression.project(w, MU)  # a rise would be a DescentError
    representable(theta)
    assert all(b <= a for a, b in zip(theta.trace, theta.trace[1:]))
    reached = cost(compression.terms, w, theta)
    if theta.trace:  # none where κ = 0 leaves one part
        assert abs(reached - Fraction(theta.trace[-1])) <= sum_slack(w, theta)
    # from the last C step, for other weights: not above where it starts
    moved = w + (0.01 * np.random.default_rng(again).normal(size=w.shape) * w).astype(w.dtype)
    warm = compression.project(moved, MU, theta)
    representable(warm)
    assert cost(compression.terms, moved, warm) <= (cost(compression.terms, moved, theta)
                                                    + sum_slack(moved, theta))


@given(matrices(), st.sampled_from(SUMS))
def test_an_alternation_that_starts_at_its_own_answer_does_not_move_up(w, text):
    compression = short(text)
    first = compression.project(w, MU)
    second = compression.project(w, MU, first)
    assert cost(compression.terms, w, second) <= (cost(compression.terms, w, first)
                                                  + sum_slack(w, first))


@pytest.mark.of_numpy
def test_a_part_keeps_its_last_value_where_the_rounded_new_one_is_worse():
    # the factors are halves; those of the singular value decomposition are irrational
    left, right = np.array([[1.0], [2], [5]]), np.array([[3.0, 7]])
    w = left @ right
    compression = Sum(LowRank(rank=1, storage="float16"), Prune(kappa=1, storage="float16"))
    start = SumOfParts((LowRankPart(left, right, w.shape), compression.terms[1].project(0 * w)),
                       "stationary", math.inf)
    alone = compression.terms[0].project(w)
    assert distance(w, [alone.decompress()]) > 0
    theta = compression.project(w, None, start)
    assert theta.parts[0] is start.parts[0]
    assert objective(w, theta) == 0


def test_a_part_takes_the_rounded_new_value_where_it_is_better():
    w = np.array([[1.0, 2], [3, 4.1]])
    compression = Sum(LowRank(rank=1, storage="float16"), Prune(kappa=1, storage="float16"))
    poor = SumOfParts((LowRankPart(np.ones((2, 1)), np.ones((1, 2)), w.shape),
                       compression.terms[1].project(0 * w)), "stationary", math.inf)
    theta = compression.project(w, None, poor)
    assert theta.parts[0] is not poor.parts[0]
    assert objective(w, theta) < objective(w, poor) / 10


@pytest.mark.of_numpy
def test_a_projection_that_raises_the_objective_above_its_gap_is_still_reported(monkeypatch):
    compression = half("lowrank(rank=1) + prune(kappa=1)")
    w = np.array([[1.0, 2], [3, 4.1]])
    start = compression.project(w)

    def worse(self, matrix, mu, start):
        return LowRankPart(np.full((2, 1), 9.0), np.full((1, 2), 9.0), w.shape,
                           status="certified", gap=1e-3)
    monkeypatch.setattr(LowRank, "_one", worse)
    with pytest.raises(DescentError, match="part 1"):
        compression.project(w, None, start)


# ---- what does not change, and what is the same everywhere

KINDS = ["prune(kappa=3)", "prune(keep=0.4)", "prune(radius=1.5)", "prune(alpha=0.1)",
         "prune(alpha=0.1, norm=1)", "prune(groups=1, axis=0)", "prune(keep=0.5, axis=1)",
         "quantize(k=2) + prune(kappa=2)", "binary() + prune(keep=0.2)",
         "sum(ternary(scale=True), prune(kappa=1), prune(radius=0.5))", "each(prune(kappa=1))"]
W = np.random.default_rng(3).standard_t(2, size=(4, 5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("text", KINDS)
def test_every_place_finds_the_same_rounded_part(text, dtype, place):
    w = W.astype(dtype)
    found, expected = (half(text).project(x, MU) for x in (place(w), w))
    same_bits(found.decompress(), expected.decompress())
    assert found.status == expected.status
    assert found.gap == pytest.approx(expected.gap, rel=1e-9)  # sums may be in another order
    several = half(text).project({"a": place(w), "b": place(w[:2])}, MU)
    same_bits(several.decompress(), half(text).project({"a": w, "b": w[:2]}, MU).decompress())


def test_every_place_rounds_its_factors(place):
    for text in ("lowrank(rank=2)", "lowrank(rank=9)", "lowrank(rank=1) + prune(kappa=2)"):
        theta = half(text).project(place(W), MU)
        representable(theta)
        expected = half(text).project(W, MU).decompress()
        # a decomposition of another build may round its factors to the other neighbours
        np.testing.assert_allclose(on_host(theta.decompress()), expected, atol=2.0**-9 * 20)


@pytest.mark.parametrize("text", [*KINDS, "lowrank(rank=2)", "lowrank(rank=9)", "lowrank(rank=0)",
                                  "lowrank(alpha=0.1)"])
def test_the_dtype_and_the_shape_are_those_of_the_weights(text):
    for dtype in (np.float32, np.float64):
        for w in (W.astype(dtype), np.zeros((3, 2), dtype)):
            delta = half(text).project(w, MU).decompress()
            assert (delta.dtype, delta.shape) == (w.dtype, w.shape)


def test_scheme_2_rounds_the_factors_of_the_convolution():
    w = np.random.default_rng(0).normal(size=(3, 2, 2, 3))
    for scheme in (1, 2):
        theta = half(f"lowrank(rank=1, scheme={scheme})").project(w)
        representable(theta)
        full = parse(f"lowrank(rank=1, scheme={scheme})").project(w)
        adds = distance(w, [theta.decompress()]) - distance(w, [full.decompress()])
        assert abs(adds - claims(theta)) <= slack(w, w)
        assert theta.decompress().shape == w.shape


@pytest.mark.parametrize("text", ["prune(kappa=3)", "lowrank(rank=2)", "prune(groups=2, axis=1)",
                                  "quantize(k=2) + prune(kappa=2)"])
def test_the_bits_are_the_same_with_and_without_the_rounding(text):
    one, other = parse(text).project(W), half(text).project(W)
    for convention in ("float16", "float32"):
        assert one.bits(convention) == other.bits(convention)


@pytest.mark.parametrize("text", [*KINDS, *SUMS])
def test_the_text_of_a_half_precision_compression_reads_back(text):
    for storage in ("float16", "float32"):
        compression = with_storage(parse(text), storage)
        assert parse(str(compression)) == compression
        assert ("storage='float16'" in str(compression)) == (storage == "float16")
    assert with_storage(half(text), "float32") == parse(text)


@pytest.mark.parametrize("kind", [lambda s: Prune(kappa=1, storage=s),
                                  lambda s: LowRank(rank=1, storage=s)])
def test_another_storage_is_refused(kind):
    for storage in ("float64", "bfloat16", "half", 16, True):
        with pytest.raises(ValueError, match="storage must be 'float16' or 'float32'"):
            kind(storage)


@pytest.mark.of_numpy
def test_weights_are_not_written_to():
    w = W.copy()
    w.flags.writeable = False
    for text in (*KINDS, *SUMS):
        half(text).project(w, MU)
    same_bits(w, W)


# ---- in the loop, what is evaluated is what is stored

RNG = np.random.default_rng(8)
X, Y = (RNG.normal(size=(30, 6)).astype(np.float32), RNG.normal(size=(30, 4)).astype(np.float32))
LOOPS = ["prune(kappa=7)", "lowrank(rank=1)", "lowrank(rank=1) + prune(kappa=3)",
         "quantize(k=2) + prune(kappa=3)", "prune(radius=0.8)", "prune(groups=2, axis=0)",
         "lowrank(rank=1) + quantize(k=2) + prune(kappa=2)", "prune(alpha=0.01)"]


@pytest.mark.costly
@pytest.mark.parametrize("text", LOOPS)
def test_what_every_step_of_the_loop_evaluates_is_representable_part_by_part(text):
    l_step, seen = LeastSquares(X, Y), []

    def evaluate(params):
        seen.append(params["weight"])
        return {"loss": l_step.loss(params)}
    params, tasks = {"weight": np.zeros((4, 6), np.float32) + np.linspace(
        -1, 1, 24, dtype=np.float32).reshape(4, 6)}, [Task("weight", half(text))]
    for step in iterate(params, tasks, l_step, Schedule(0.5, 1.5, 8), evaluate):
        representable(step.theta[0])
        delta = step.theta[0].decompress()
        same_bits(seen[-1], delta)
        same_bits(step.compressed["weight"], delta)
        stored = unpack(pack(step.compressed, tasks, step.theta)).decompress()
        same_bits(stored["weight"], seen[-1])


@pytest.mark.costly
@pytest.mark.parametrize("text", LOOPS)
def test_the_net_that_the_loop_returns_is_the_net_in_its_file(text):
    tasks = [Task("weight", half(text))]
    params = {"weight": RNG.normal(size=(4, 6)).astype(np.float32)}
    result = compress(params, tasks, LeastSquares(X, Y), Schedule(0.5, 1.5, 5))
    same_bits(unpack(pack(result.params, tasks, result.thetas)).decompress(), result.params)
    representable(result.thetas[0])


# ---- a scaled codebook is one number

@given(weights(most=12, entry=st.floats(-100, 100, width=32)
               | st.floats(-2.0**-10, 2.0**-10, width=32)),
       st.lists(st.floats(-9, 9, width=32).filter(lambda c: abs(c) > 1e-3 or c == 0), min_size=1,
                max_size=6, unique=True))
def test_the_entries_of_a_scaled_codebook_follow_from_the_largest_in_use(w, levels):
    theta = projections.scaled_codebook(w, sorted(levels))
    used = sorted(set(theta.codes.ravel().tolist()))
    if not used:
        return
    assert theta.levels == tuple(float(c) for c in sorted(levels))
    top = max(used, key=lambda j: abs(theta.levels[j]))  # the first of two
    largest, at = theta.entries[top], theta.levels[top]
    for j in used:
        expected = w.dtype.type(float(largest) / at * theta.levels[j]) if at else largest
        assert theta.entries[j] == expected


@pytest.mark.parametrize("dtype", [f"int{bits}" for bits in range(2, 9)])
def test_integers_times_a_scale_follow_from_the_largest_in_use(dtype):
    w = np.random.default_rng(5).standard_t(3, size=300).astype(np.float32)
    theta = projections.round_to(w, dtype)
    used = np.unique(theta.codes)
    levels = np.array(theta.levels)[used]
    top = np.argmax(np.abs(levels))
    largest = float(theta.entries[used][top])
    expected = [np.float32(largest / levels[top] * c) for c in levels]
    same_bits(theta.entries[used], np.array(expected, np.float32))


def test_scaled_parts_say_what_their_levels_are_and_others_have_none():
    for text, levels in (("binary(scale=True)", (-1, 1)), ("ternary(scale=True)", (-1, 0, 1)),
                         ("quantize(codebook=[1, 2], scale=True)", (1, 2)),
                         ("binary()", None), ("quantize(k=2)", None)):
        part = parse(text).project(W)
        assert isinstance(part, Codebook)
        assert part.levels == levels
    assert isinstance(parse("round(dtype='float16')").project(W), Dense)
