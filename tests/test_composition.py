"""Sums: solved exactly, by alternation, with penalties, reduced to one part; on every device."""

import itertools
import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest
from compared import (KINDS, LEVELS, MATRICES, MU, distance, heavy_tailed, objective, on_host,
                      same_bits, same_part, tensors, vector)
from hypothesis import given
from hypothesis import strategies as st
from places import projections, put

from lcref import (Binary, Compression, DescentError, Each, LowRank, Prune, Quantize, Round, Sum,
                   Ternary, composition, parse)
from lcref.parts import ByTensor, Codebook, Sparse
from lcref.parts import LowRank as LowRankPart
from lcref.parts import Sum as SumOfParts
from lcref.verify import oracles

pytestmark = pytest.mark.everywhere


# ---- sums solved exactly

def slack(w, deltas, objective):
    """The published constant for a sum: 8·n·ε·D + 2·u·F + n·(u·M)².

    D and F are of all the parts together, since the residual that a part projects is itself
    rounded to w's dtype: it is off by u·(abs(w) + Σ abs(Δ_j)), and θ moves by at most twice the
    root of the objective.
    """
    trees = [vector(tree) for tree in (w, *deltas)]
    n, u = trees[0].size, float(np.finfo(trees[0].dtype).eps)
    norms = [math.sqrt(math.fsum(x * x for x in t.tolist())) for t in trees]
    largest = max(float(np.max(np.abs(t), initial=0)) for t in trees)
    return (8 * n * 2.0**-52 * sum(v * v for v in norms)
            + 2 * u * 2 * sum(norms) * math.sqrt(objective) + n * (u * largest) ** 2)


GIVEN = {"binary()": [-1, 1], "ternary()": [-1, 0, 1], "powersoftwo(c=1)": [-1, -0.5, 0, 0.5, 1],
         "quantize(codebook=[-1, 0.25, 2])": LEVELS}
# a quantization, its joint solution with κ corrections, and the least objective by brute force
EXACT = {
    "quantize(k=2)": (lambda w, kappa: projections.kmeans_l0(w, 2, kappa),
                      lambda w, kappa: oracles.kmeans_l0(w, 2, kappa)),
    "binary(scale=True)": (projections.scaled_binary_l0, oracles.scaled_binary_l0),
    **{text: (lambda w, kappa, levels=levels: projections.codebook_l0(w, levels, kappa),
              lambda w, kappa, levels=levels: oracles.codebook_l0(w, levels, kappa))
       for text, levels in GIVEN.items()}}
for_exact_sums = pytest.mark.parametrize("text", EXACT)
WAYS = ["one array", "one codebook", "each"]
for_every_way = pytest.mark.parametrize("way", WAYS)


def pair_of(seed, way, shapes=((2, 2), (3,))):
    """Heavy-tailed tensors a and b; for "one array" the two as a vector."""
    w = {name: heavy_tailed(seed + i, shape) for i, (name, shape) in enumerate(zip("ab", shapes))}
    return vector(w) if way == "one array" else w


def between_prices(way):
    """Whole numbers of which no price corrects just two, for K-means: the sum has a gap."""
    a, b = ([4, -2, 2, -4], [6, -5, -3]) if way == "each" else ([4, -3, -5, -3], [-1, 4, -1])
    w = {"a": np.array(a, dtype=np.float64).reshape(2, 2), "b": np.array(b, dtype=np.float64)}
    return vector(w) if way == "one array" else w


def both_orders(text, way, kappa, **options):
    """The sum of a quantization and κ corrections, each first; for each, which part is which."""
    quantization, corrections = parse(f"each({text})" if way == "each" else text), Prune(kappa)
    yield Sum(quantization, corrections, **options), (0, 1)
    yield Sum(corrections, quantization, **options), (1, 0)


def least(text, way, w, kappa):
    """The optimum of a sum by brute force, with corrections shared over the tensors."""
    search = EXACT[text][1]
    curves = [[search(t, m) for m in range(min(kappa, t.size) + 1)]
              for t in (tensors(w) if way == "each" else [vector(w)])]
    return oracles.shared(curves, kappa)[kappa]


@for_every_way
@for_exact_sums
def test_an_exact_sum_is_the_joint_projection_with_the_parts_in_the_order_of_the_terms(text, way):
    for w, kappa in ((pair_of(0, way), 1), (pair_of(1, way), 3), (between_prices(way), 2)):
        joint = EXACT[text][0](w if way == "each" else vector(w), kappa)
        for both, places in both_orders(text, way, kappa):
            theta = both.project(w)
            for place, part in zip(places, joint.parts):
                dense = theta.parts[place].decompress()
                same_bits(vector(dense), vector(part.decompress()))
            assert isinstance(theta.parts[places[1]], Sparse)
            assert (theta.status, theta.gap) == (joint.status, joint.gap)


@for_every_way
@for_exact_sums
def test_an_exact_sum_decompresses_to_the_tensors_of_the_task(text, way):
    w = pair_of(0, way)
    for both, _ in both_orders(text, way, 2):
        theta = both.project(w)
        for delta in (theta.decompress(), *(part.decompress() for part in theta.parts)):
            assert isinstance(delta, dict) == isinstance(w, dict)
            assert [t.shape for t in tensors(delta)] == [t.shape for t in tensors(w)]
            assert not isinstance(w, dict) or list(delta) == list(w)


@for_every_way
@for_exact_sums
def test_an_exact_sum_is_within_its_gap_of_the_optimum_of_brute_force(text, way):
    for w in (*(pair_of(seed, way) for seed in range(3)), between_prices(way)):
        for kappa in (1, 2, 6, 9):
            optimum = least(text, way, w, kappa)
            for both, _ in both_orders(text, way, kappa):
                theta = both.project(w)
                assert theta.status in ("exact", "certified")
                deltas, reached = [p.decompress() for p in theta.parts], objective(w, theta)
                tolerance = Fraction(slack(w, deltas, float(reached)))
                assert optimum <= reached <= optimum + Fraction(theta.gap) + tolerance


@for_every_way
@for_exact_sums
def test_a_sum_is_solved_exactly_without_being_asked(text, way):
    w = pair_of(0, way)
    for auto, exact in zip(both_orders(text, way, 2),
                           both_orders(text, way, 2, solver="exact")):
        same_part(auto[0].project(w), exact[0].project(w))


@pytest.mark.costly
@for_every_way
@for_exact_sums
def test_no_alternation_is_below_an_exact_sum(text, way):
    for seed in range(3):
        w = pair_of(seed, way, ((5, 4), (20,)))
        exact = next(both_orders(text, way, 5))[0].project(w)
        lowest = objective(w, exact) - Fraction(exact.gap)
        for both, _ in both_orders(text, way, 5, solver="alternate"):
            theta = both.project(w)
            reached = objective(w, theta)
            deltas = [part.decompress() for part in theta.parts]
            assert theta.status in ("stationary", "unconverged")
            assert lowest <= reached + Fraction(slack(w, deltas, float(reached)))


@pytest.mark.costly
@for_every_way
@for_exact_sums
def test_an_exact_sum_is_the_same_wherever_it_starts(text, way):
    w, before = pair_of(0, way), pair_of(5, way)
    for both, _ in both_orders(text, way, 2):
        alternation = Sum(*both.terms, solver="alternate")
        for start in (both.project(before), alternation.project(before), alternation.project(w)):
            same_part(both.project(w, start=start), both.project(w))


@for_exact_sums
def test_keep_in_an_exact_sum_is_the_share_of_all_the_weights_of_the_task(text):
    w = pair_of(0, "each")  # ⌊0.3 · 7⌋ = 2
    for quantization in (parse(text), Each(parse(text))):
        same_part((quantization + Prune(keep=0.3)).project(w),
                  (quantization + Prune(kappa=2)).project(w))


@for_every_way
@pytest.mark.parametrize("zero", [Prune(kappa=0), Prune(radius=0.0), LowRank(0)], ids=str)
@for_exact_sums
def test_an_exact_sum_of_three_parts_of_which_one_is_zero_is_that_of_the_other_two(text, way, zero):
    w = pair_of(0, way, ((2, 2), (3, 1)))
    w = w if isinstance(w, dict) else w[:6].reshape(3, 2)
    two = next(both_orders(text, way, 2))[0]
    alone = two.project(w)
    for i in range(3):
        theta = Sum(*two.terms[:i], zero, *two.terms[i:]).project(w)
        same_bits(theta.decompress(), alone.decompress())
        assert (theta.status, theta.gap) == (alone.status, alone.gap)
        assert theta.parts[i].is_zero


@pytest.mark.costly
@pytest.mark.parametrize("n, solver, exactly", [
    (10, "auto", True), (11, "auto", False), (11, "exact", True), (10, "alternate", False)])
def test_a_codebook_is_learned_exactly_where_that_is_affordable_or_asked_for(
        n, solver, exactly, monkeypatch):
    monkeypatch.setattr(composition, "AFFORDABLE", 30)
    monkeypatch.setattr(composition, "FEW", 2)
    for codebook in (Quantize(3), Each(Quantize(3))):
        for w in (heavy_tailed(0, n), {"a": heavy_tailed(0, 4), "b": heavy_tailed(1, n - 4)}):
            status = Sum(codebook, Prune(kappa=2), solver=solver).project(w).status
            assert (status in ("exact", "certified")) == exactly


@pytest.mark.costly
def test_few_values_are_learned_exactly_whatever_the_number_of_weights(monkeypatch):
    monkeypatch.setattr(composition, "AFFORDABLE", 0)
    for k, statuses in ((16, ("exact", "certified")), (17, ("stationary", "unconverged"))):
        assert (Quantize(k) + Prune(kappa=2)).project(heavy_tailed(0, 40)).status in statuses


@pytest.mark.parametrize("text", [text for text in EXACT if "k=" not in text])
def test_a_codebook_that_is_not_learned_is_always_affordable(text, monkeypatch):
    monkeypatch.setattr(composition, "AFFORDABLE", 0)
    monkeypatch.setattr(composition, "FEW", 0)
    for both, _ in both_orders(text, "one array", 2):
        assert both.project(pair_of(0, "one array")).status == "exact"


NOT_EXACT = ["lowrank(rank=1) + prune(kappa=1)", "quantize(k=2) + prune(radius=1)",
             "ternary(scale=True) + prune(kappa=1)", "round(dtype='int3') + prune(kappa=1)",
             "quantize(codebook=[-1, 2], scale=True) + prune(kappa=1)",
             "quantize(k=2) + prune(alpha=0.1)", "binary() + prune(groups=1, axis=0)",
             "binary() + prune(keep=0.4, axis=1)", "quantize(k=2) + each(prune(kappa=1))",
             "binary() + ternary()", "prune(kappa=1) + prune(kappa=2)",
             "binary() + quantize(k=2) + prune(kappa=1)"]


@pytest.mark.parametrize("text", NOT_EXACT)
def test_a_sum_that_cannot_be_solved_exactly_alternates(text):
    assert parse(text).project(MATRICES, MU).status in ("stationary", "unconverged")


@pytest.mark.parametrize("text", NOT_EXACT)
def test_to_insist_on_an_exact_solution_that_is_not_known_is_an_error(text):
    with pytest.raises(ValueError, match="solver='exact'"):
        Sum(*parse(text).terms, solver="exact")


# ---- sums by alternation

@dataclass(frozen=True)
class Spy(Compression):
    """The compression inside, noting its place, every problem and start, and its answer."""

    inner: Compression
    place: int
    log: list = field(compare=False)

    def _one(self, w, mu, start):
        theta = self.inner.project(w, mu, start)
        self.log.append((self.place, vector(w), start, theta))
        return theta

    def penalty(self, theta, mu, unit=1.0):
        return self.inner.penalty(theta, mu, unit)


def spied(*terms, **options):
    """The alternation with every part first in its place, and its log."""
    log, options = [], {"solver": "alternate", "restarts": False, **options}
    return Sum(*(Spy(term, i, log) for i, term in enumerate(terms)), **options), log


def rounding(w, deltas, objective):
    """How far a float64 sum of squares of w − Δ1 − ... − Δm may be from exact, m up to 3.

    The differences are off by e, ‖e‖ ≤ 2·2⁻⁵²·(‖w‖ + Σ‖Δ_j‖), the sum of their n squares and of
    the penalties by n·2⁻⁵² of itself.
    """
    norms = [math.sqrt(math.fsum(x * x for x in vector(t).tolist())) for t in (w, *deltas)]
    e = 2 * 2.0**-52 * sum(norms)
    return 2 * e * math.sqrt(objective) + e * e + w.size * 2.0**-52 * objective


# Zero is feasible in all of these, so that no part can make the start, all parts at zero, worse.
WITH_ZERO = {"quantize": Quantize(2), "binary": Binary(scale=True), "ternary": Ternary(scale=True),
             "kappa": Prune(kappa=3), "radius": Prune(radius=2.0), "lowrank": LowRank(1),
             "groups": Prune(groups=1, axis=0), "rounded": Round("int3")}
SUMS = [*itertools.permutations(WITH_ZERO, 2), *itertools.combinations(WITH_ZERO, 3)]


@pytest.mark.of_numpy
@pytest.mark.parametrize("dtype, offset", [(np.float64, 0), (np.float32, 0), (np.float64, 1e8)])
def test_no_half_step_of_an_alternation_raises_the_objective(dtype, offset):
    for seed, names in enumerate(SUMS):
        w = heavy_tailed(seed, dtype=dtype, offset=offset)
        compression, log = spied(*(WITH_ZERO[name] for name in names))
        theta = compression.project(w)
        deltas = [part.decompress() for part in theta.parts]
        wide = [(residual.astype(np.longdouble), vector(theta.decompress()))
                for _, residual, _, theta in log]
        reached = [float(((residual - delta) ** 2).sum()) for residual, delta in wide]
        assert len(log) >= 2 * len(names)  # a second cycle, to see that nothing is left to gain
        for before, after in zip(reached, reached[1:]):
            assert after <= before + slack(w, deltas, before), names


@pytest.mark.costly
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_trace_is_the_objective_after_every_half_step(dtype):
    for seed, names in enumerate(SUMS):
        w = heavy_tailed(seed, dtype=dtype)
        compression, log = spied(*(WITH_ZERO[name] for name in names))
        theta = compression.project(w)
        assert len(theta.trace) == len(log)
        assert sorted(theta.trace, reverse=True) == list(theta.trace)
        deltas, last = [part.decompress() for part in theta.parts], float(objective(w, theta))
        assert abs(theta.trace[-1] - last) <= rounding(w, deltas, last)


@pytest.mark.costly
def test_an_alternation_is_no_worse_than_its_first_part_alone():
    for seed, names in enumerate(SUMS):
        w, terms = heavy_tailed(seed), [WITH_ZERO[name] for name in names]
        alone = distance(w, [terms[0].project(w).decompress()])
        theta = Sum(*terms, restarts=False, solver="alternate").project(w)
        deltas = [part.decompress() for part in theta.parts]
        assert objective(w, theta) <= alone + Fraction(slack(w, deltas, float(alone))), names


@dataclass(frozen=True)
class Swollen(Compression):
    """A wrong projection: w itself, which it makes too large by `excess` more at every call."""

    excess: float
    calls: list = field(compare=False, default_factory=list)

    def _one(self, w, mu, start):
        theta = projections.l0_ball(w * (1 + self.excess * len(self.calls)), w.size)
        self.calls.append(w)
        return theta


@dataclass(frozen=True)
class Smallest(Compression):
    """A wrong projection: keeps the entries of smallest magnitude, unless they are zero."""

    kappa: int

    def _one(self, w, mu, start):
        w = on_host(w)
        order = np.argsort(np.abs(w) + 1e9 * (w == 0))
        kept = np.sort(order[:self.kappa])
        return put(Sparse(kept, w[kept], w.shape))


@pytest.mark.parametrize("wrong, part", [((Binary(), Swollen(1e-5)), 2),
                                         ((Swollen(1e-5), Binary()), 1),
                                         ((Quantize(2), Smallest(2)), 2)])
def test_a_projection_that_raises_the_objective_is_an_error_that_names_the_part(wrong, part):
    w = np.array([0.3, -1.7, 2.5, -0.9, 4.0, 0.1])
    with pytest.raises(DescentError, match=f"part {part} "):
        Sum(*wrong, restarts=False, solver="alternate").project(w)


def test_a_rise_within_rounding_is_no_error_and_changes_nothing():
    w = np.array([0.3, -1.7, 2.5, -0.9])
    theta = Sum(Binary(), Swollen(2.0**-52), restarts=False).project(w)
    # at the first cycle w − sgn w is corrected in full, exactly but for its own rounding
    assert objective(w, theta) <= 4 * (2.0**-52 * 3.5) ** 2


BRUTE_FORCE = {
    "binary() + prune(kappa=1)": lambda w: oracles.codebook_l0(w, [-1, 1], 1),
    "prune(kappa=2) + binary()": lambda w: oracles.codebook_l0(w, [-1, 1], 2),
    "binary(scale=True) + prune(kappa=1)": lambda w: oracles.scaled_binary_l0(w, 1),
    "prune(kappa=2) + binary(scale=True)": lambda w: oracles.scaled_binary_l0(w, 2),
    "quantize(k=2) + prune(kappa=1)": lambda w: oracles.kmeans_l0(w, 2, 1),
    "prune(kappa=2) + quantize(k=2)": lambda w: oracles.kmeans_l0(w, 2, 2),
    "quantize(codebook=[-1, 2], scale=True) + prune(kappa=1)":
        lambda w: oracles.corrected(w, 1, lambda kept: oracles.scaled_codebook(kept, [-1, 2])),
    "round(dtype='int2') + prune(kappa=1)":
        lambda w: oracles.corrected(w, 1, lambda kept: oracles.round_to(kept, "int2")),
    # the slices of a vector are its entries
    "prune(groups=2, axis=0) + ternary()": lambda w: oracles.codebook_l0(w, [-1, 0, 1], 2),
}


def alternation(text, **options):
    return Sum(*parse(text).terms, solver="alternate", **options)


SMALL = st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats(-8, 8, width=32)), min_size=1,
                 max_size=6).map(np.array)


@pytest.mark.parametrize("text", BRUTE_FORCE)
@given(SMALL)
def test_no_alternation_is_below_the_optimum_of_brute_force(text, w):
    # exact on both sides, with the parts as they are: no tolerance
    assert objective(w, alternation(text).project(w)) >= BRUTE_FORCE[text](w)


SINGLE = {  # the least of one part's problem, by brute force
    "quantize(k=2)": lambda r: oracles.kmeans(r, 2), "binary()": lambda r: oracles.binary(r, False),
    "binary(scale=True)": lambda r: oracles.binary(r, True),
    "ternary(scale=True)": lambda r: oracles.ternary(r, True),
    "prune(kappa=2)": lambda r: oracles.l0_ball(r, 2),
    "prune(radius=1.5)": lambda r: oracles.l1_ball(r, 1.5)}


@pytest.mark.costly
@pytest.mark.parametrize("terms", [
    *(" + ".join(pair) for pair in itertools.combinations(SINGLE, 2)),
    "prune(radius=1.5) + binary(scale=True) + prune(kappa=2)",
    "prune(kappa=2) + ternary(scale=True) + quantize(k=2)"])
def test_at_a_stationary_sum_no_part_alone_can_gain_more_than_the_tolerance(terms):
    for seed in (0, 1, 2, 7):  # others lead to 0, which is approached for as long as cycles last
        w = np.random.default_rng(seed).integers(-40, 40, size=6) / 8
        theta = alternation(terms).project(w)
        assert theta.status == "stationary"
        reached = float(objective(w, theta))
        deltas = [part.decompress() for part in theta.parts]
        for i, term in enumerate(terms.split(" + ")):
            residual = w - sum(deltas[:i] + deltas[i + 1:])
            best = float(SINGLE[term](residual))
            # 1e-6 is the sum's tol; the last cycle may stop up to that above it
            assert reached <= best + 1e-6 * reached + slack(w, deltas, reached)


CAUGHT = "quantize(k=2) + prune(kappa=1)"
OUTLIER = np.array([0.0, 0, 1, 1, 10])  # {0, 1} and one correction; K-means first is caught by 10


def two_values_and_the_outlier():
    return SumOfParts((Codebook(np.array([0, 0, 1, 1, 0], dtype=np.uint8), np.array([0.0, 1])),
                       Sparse(np.array([4]), np.array([10.0]), (5,))), "exact", 0.0)


def test_each_part_takes_the_first_turn_where_there_is_no_start():
    def reached(restarts):
        return objective(OUTLIER, alternation(CAUGHT, restarts=restarts).project(OUTLIER))
    assert reached(False) > 0
    assert reached(None) == reached(True) == 0


@pytest.mark.parametrize("text", list(BRUTE_FORCE)[2:6])
@given(SMALL)
def test_restarts_are_never_worse_than_none(text, w):
    with_restarts, without = (alternation(text, restarts=r).project(w) for r in (True, False))
    reached = objective(w, without)
    # the best is chosen by objectives of residuals that are rounded
    deltas = [part.decompress() for part in without.parts]
    assert objective(w, with_restarts) <= reached + 2 * slack(w, deltas, float(reached))


def test_an_alternation_that_starts_at_the_optimum_stays():
    start = two_values_and_the_outlier()
    for restarts in (None, False, True):
        theta = alternation(CAUGHT, restarts=restarts).project(OUTLIER, start=start)
        assert objective(OUTLIER, theta) == 0
    same_bits(theta.decompress(), OUTLIER)


@pytest.mark.of_numpy
def test_every_part_goes_on_from_its_own_last_answer():
    w, answers = heavy_tailed(0), [set(), set()]
    compression, log = spied(LowRank(1), Quantize(2), cycles=4)
    before = compression.project(w)
    assert [start for _, _, start, _ in log[:2]] == [None, None]
    log.clear()
    compression.project(w, start=before)
    for place, _, start, theta in log:
        assert start is before.parts[place] or id(start) in answers[place]
        answers[place].add(id(theta))  # which the log keeps alive


def test_with_a_start_the_other_first_turns_are_tried_only_with_restarts():
    stuck = alternation(CAUGHT, restarts=False).project(OUTLIER)
    for restarts in (None, False):  # 10 keeps a value: at best 0, 1, 1 and one 0 corrected, 2/3
        gone_on = alternation(CAUGHT, restarts=restarts).project(OUTLIER, start=stuck)
        assert objective(OUTLIER, gone_on) > 0.6
    assert objective(OUTLIER, alternation(CAUGHT, restarts=True).project(OUTLIER, start=stuck)) == 0


def test_a_sum_whose_cycles_run_out_is_unconverged():
    w = heavy_tailed(0, (6, 6))
    theta = Sum(LowRank(1), Prune(kappa=4), cycles=2, restarts=False).project(w)
    assert (theta.status, len(theta.trace)) == ("unconverged", 2 * 2)


def test_a_sum_that_stops_by_itself_is_stationary_and_claims_no_bound():
    w = heavy_tailed(0, (6, 6))
    theta = Sum(LowRank(1), Prune(kappa=4), cycles=10_000, restarts=False).project(w)
    assert (theta.status, theta.gap) == ("stationary", math.inf)


@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_a_sum_stops_after_the_first_cycle_that_gains_at_most_tol(tol):
    w = heavy_tailed(0, (6, 6))
    longest = Sum(LowRank(1), Prune(kappa=4), cycles=10_000, restarts=False, tol=0.0).project(w)
    ends = longest.trace[1::2]  # after each cycle of two half-steps
    gains = [before - after <= tol * after for before, after in zip(ends, ends[1:])]
    theta = Sum(LowRank(1), Prune(kappa=4), cycles=10_000, restarts=False, tol=tol).project(w)
    assert len(theta.trace) == 2 * (gains.index(True) + 2)


def test_the_status_of_a_task_a_tensor_is_its_weakest():
    easy, hard = np.array([[1.0, 1], [1, 1], [1, 1]]), heavy_tailed(0, (6, 6))
    sums = Each(Sum(LowRank(1), Prune(kappa=4), cycles=3, restarts=False))
    assert sums.project({"easy": easy, "easy too": easy}).status == "stationary"
    for task in ({"easy": easy, "hard": hard}, {"hard": hard, "easy": easy}):
        theta = sums.project(task)
        assert isinstance(theta, ByTensor)
        assert theta.status == "unconverged"


def test_each_goes_on_from_the_part_of_each_tensor():
    start = ByTensor({"a": two_values_and_the_outlier(), "b": two_values_and_the_outlier()})
    sums = Each(alternation(CAUGHT, restarts=False))
    same_bits(sums.project({"a": OUTLIER, "b": OUTLIER}, start=start).decompress(),
              {"a": OUTLIER, "b": OUTLIER})


def test_alternation_stops_where_only_rounding_is_left():
    w = np.array([18, 35, 30, 0, 35, 38]) / 8
    theta = (Prune(radius=1.5) + Binary(scale=True) + Prune(kappa=2)).project(w)
    assert theta.status == "stationary"


# ---- alternation with penalties

PRICED = {"price": Prune(alpha=0.4), "norm": Prune(alpha=0.4, norm=1), "rank": LowRank(alpha=0.03)}
MIXED = {**PRICED, **{name: WITH_ZERO[name]
                      for name in ("quantize", "kappa", "groups", "rounded", "lowrank")}}
PRICED_SUMS = [names for names in (*itertools.permutations(MIXED, 2),
                                   *itertools.combinations(MIXED, 3)) if {*names} & {*PRICED}]


def price_of(name, theta, mu):
    """What a part costs beside the squared distance, exactly, of however many tensors."""
    dense = tensors(theta.decompress())
    if name == "price":
        return oracles.price(0.4, mu) * sum(map(np.count_nonzero, dense))
    if name == "norm":
        return oracles.price(0.4, mu) * sum(abs(Fraction(x)) for t in dense for x in t.flat)
    if name == "rank":
        return oracles.price(0.03, mu) * sum(np.linalg.matrix_rank(t) * sum(t.shape) for t in dense)
    return 0


def half_steps(w, names, log, mu):
    """For every half-step the objective with its answer, and with it or what it replaces; exact."""
    thetas, reached = {}, math.inf
    for place, *_, theta in log:
        trial, value = {**thetas, place: theta}, math.inf
        if len(trial) == len(names):
            value = distance(w, [part.decompress() for part in trial.values()]) + sum(
                price_of(names[i], part, mu) for i, part in trial.items())
        if place not in thetas or value <= reached:
            thetas = trial
        reached = min(value, reached)
        yield value, reached


@pytest.mark.costly
@pytest.mark.parametrize("mu", [0.5, 3.0, 40.0])
def test_no_half_step_raises_the_squared_distance_plus_the_penalties(mu):
    for seed, names in enumerate(PRICED_SUMS):
        w = heavy_tailed(seed, (3, 4))
        compression, log = spied(*(MIXED[name] for name in names), cycles=6)
        theta = compression.project(w, mu)
        deltas, before = [part.decompress() for part in theta.parts], math.inf
        for value, reached in half_steps(w, names, log, mu):
            if before < math.inf:
                assert value <= before + Fraction(slack(w, deltas, float(before))), names
            before = reached


@pytest.mark.costly
@pytest.mark.parametrize("mu", [0.5, 3.0, 40.0])
def test_the_trace_is_the_squared_distance_plus_the_penalties(mu):
    for seed, names in enumerate(PRICED_SUMS):
        w = heavy_tailed(seed, (3, 4))
        compression, log = spied(*(MIXED[name] for name in names), cycles=6)
        theta = compression.project(w, mu)
        deltas = [part.decompress() for part in theta.parts]
        exact = [float(reached) for _, reached in half_steps(w, names, log, mu)]
        assert len(theta.trace) == len(exact)
        for told, value in zip(theta.trace, exact):
            # where the trace and its replay disagree by rounding on which θ is better, both go on
            # from one that is optimal within rounding: ten times that of one sum is ample
            assert told == value or abs(told - value) <= 10 * rounding(w, deltas, value), names


A_TASK = {"a": heavy_tailed(1, (3, 4)), "b": heavy_tailed(2, (5, 2))}


@pytest.mark.parametrize("mu", [0.5, 3.0])
@pytest.mark.parametrize("name", PRICED)
def test_the_penalty_of_a_task_is_that_of_all_its_tensors(name, mu):
    for compression in (PRICED[name], Each(PRICED[name])):
        theta = compression.project(A_TASK, mu)
        # a sum of some twenty terms, each rounded once or twice
        exact = float(price_of(name, theta, mu))
        assert compression.penalty(theta, mu) == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize("mu", [0.5, 3.0])
@pytest.mark.parametrize("outer", [
    Sum(Each(PRICED["price"]), PRICED["rank"], cycles=3),
    Sum(Sum(PRICED["price"], PRICED["rank"], cycles=2), Prune(kappa=1), cycles=3),
    Sum(Each(Sum(PRICED["price"], PRICED["rank"], cycles=2)), Prune(kappa=1), cycles=3)], ids=str)
def test_the_trace_of_a_task_counts_the_penalties_of_tensors_and_of_sums_inside(outer, mu):
    def cost(theta):
        if isinstance(theta, SumOfParts):
            return sum(map(cost, theta.parts))
        if isinstance(theta, ByTensor):
            return sum(map(cost, theta.parts.values()))
        name = {Sparse: "price", LowRankPart: "rank"}[type(theta)]
        return price_of(name, theta, mu)
    theta = outer.project(A_TASK, mu)
    parts = [part for part, term in zip(theta.parts, outer.terms) if term != Prune(kappa=1)]
    exact = objective(A_TASK, theta) + sum(map(cost, parts))
    assert theta.trace[-1] == pytest.approx(float(exact), rel=1e-12)  # far above rounding


def priced(w, theta, each):
    """‖w − Σ Δ_j‖² + each · ‖θ2‖₀ of a quantization θ1 and corrections θ2, in either order."""
    sparse, = (part for part in theta.parts if isinstance(part, Sparse))
    return objective(w, theta) + each * np.count_nonzero(sparse.decompress())


EIGHTHS = st.lists(st.integers(-40, 40), min_size=1, max_size=6).map(lambda i: np.array(i) / 8)
ALPHAS, MUS = st.sampled_from([0.0, 0.125, 0.5, 2.0, 8.0]), st.sampled_from([0.5, 1.0, 4.0])


@pytest.mark.parametrize("text", GIVEN)
@given(EIGHTHS, ALPHAS, MUS)
def test_with_a_given_codebook_every_weight_is_at_its_nearest_level_or_pays_its_price(
        text, w, alpha, mu):
    each = oracles.price(alpha, mu)
    optimum = sum(min(each, *((Fraction(x) - Fraction(c)) ** 2 for c in GIVEN[text]))
                  for x in w.tolist())
    for both in (parse(text) + Prune(alpha=alpha), Prune(alpha=alpha) + parse(text)):
        assert priced(w, both.project(w, mu), each) == optimum  # dyadic: exact


@pytest.mark.parametrize("text", GIVEN)
@given(EIGHTHS, ALPHAS, MUS)
def test_corrected_at_a_price_first_a_weight_worth_its_price_from_the_level_of_zero_pays_for_good(
        text, w, alpha, mu):
    # It is corrected to 0, which is given the level nearest to 0, and stays corrected if it is
    # worth the price from there, too, though another level may be nearer.
    each, levels = oracles.price(alpha, mu), [Fraction(c) for c in GIVEN[text]]
    of_zero = 1 if text == "binary()" else min(levels, key=abs)  # sgn 0 = 1
    expected = Fraction(0)
    for x in map(Fraction, w.tolist()):
        stuck = min(x**2, (x - of_zero) ** 2) > each
        expected += each if stuck else min(each, *((x - c) ** 2 for c in levels))
    theta = Sum(Prune(alpha=alpha), parse(text), restarts=False).project(w, mu)
    assert priced(w, theta, each) == expected


@pytest.mark.parametrize("text, search", [
    ("quantize(k=2)", lambda w, kappa: oracles.kmeans_l0(w, 2, kappa)),
    ("binary(scale=True)", oracles.scaled_binary_l0),
    ("round(dtype='int2')", lambda w, kappa: oracles.corrected(
        w, kappa, lambda kept: oracles.round_to(kept, "int2")))])
@given(EIGHTHS.map(lambda w: w[:5]), ALPHAS, MUS)
def test_no_alternation_with_a_price_is_below_the_optimum_of_brute_force(
        text, search, w, alpha, mu):
    each = oracles.price(alpha, mu)
    optimum = min(search(w, kappa) + each * kappa for kappa in range(w.size + 1))
    for both in (parse(text) + Prune(alpha=alpha), Prune(alpha=alpha) + parse(text)):
        assert priced(w, both.project(w, mu), each) >= optimum  # exact on both sides


# ---- a sum of which one part is not forced to zero

ZEROS = [Prune(kappa=0), Prune(keep=0), Prune(radius=0), Prune(groups=0, axis=0), LowRank(0)]
COMPOSED_ZEROS = [Prune(keep=0.1, axis=1), Each(Prune(kappa=0)), Each(LowRank(0)),
                  Prune(kappa=0) + LowRank(0)]
SINGLES = [*map(parse, KINDS), Quantize(1), Prune(kappa=10), Prune(radius=100.0), Each(Quantize(2)),
           Each(Prune(kappa=4)), Each(Prune(keep=0.3)), Each(LowRank(1)), Each(Prune(alpha=0.6)),
           Each(Binary(scale=True) + Prune(kappa=1)), Prune(kappa=0), LowRank(0),
           Sum(Binary(), Prune(alpha=0.6), cycles=1)]


def around(terms, zeros):
    """The sums of the terms and the zeros, in their order, the zeros together in every position."""
    for i in range(len(terms) + 1):
        yield Sum(*terms[:i], *zeros, *terms[i:])
    if len(zeros) == 2:
        yield Sum(zeros[0], *terms, zeros[1])


@pytest.mark.costly
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("single", SINGLES, ids=str)
def test_a_sum_whose_other_parts_are_forced_to_zero_is_the_single_projection(single, dtype):
    w = {name: t.astype(dtype) for name, t in MATRICES.items()}
    for task in (w, w["b"]):
        alone = single.project(task, MU)
        for others in (*((zero,) for zero in ZEROS + COMPOSED_ZEROS),
                       *itertools.combinations(ZEROS, 2)):
            for both in around([single], others):
                theta = both.project(task, MU)
                same_bits(theta.decompress(), alone.decompress())
                assert (theta.status, theta.gap) == (alone.status, alone.gap)


@for_exact_sums
def test_an_exact_sum_without_corrections_is_the_quantization(text):
    for task in (MATRICES, MATRICES["a"]):
        for both, (place, _) in both_orders(text, "one codebook", 0, solver="exact"):
            theta = both.project(task)
            same_part(theta.parts[place], parse(text).project(task))
            assert (theta.status, theta.gap) == ("exact", 0)


@pytest.mark.costly
def test_a_sum_of_three_parts_of_which_one_is_zero_is_the_sum_of_the_other_two():
    zeros = itertools.cycle(ZEROS)
    for i, pair in enumerate(itertools.combinations(map(parse, KINDS), 2)):
        task = MATRICES if i % 2 else MATRICES["b"]
        two = Sum(*pair, cycles=2).project(task, MU)
        for three in around(pair, [next(zeros)]):
            theta = Sum(*three.terms, cycles=2).project(task, MU)
            same_bits(theta.decompress(), two.decompress())
            assert (theta.status, theta.gap, theta.trace) == (two.status, two.gap, two.trace)


def test_a_sum_reduced_to_one_part_goes_on_from_where_that_part_was():
    single = Each(alternation(CAUGHT, restarts=False))
    start = ByTensor({"a": two_values_and_the_outlier(), "b": two_values_and_the_outlier()})
    nothing = Prune(kappa=0).project({"a": OUTLIER, "b": OUTLIER})
    theta = (single + Prune(kappa=0)).project({"a": OUTLIER, "b": OUTLIER},
                                              start=SumOfParts((start, nothing), "exact", 0.0))
    same_bits(theta.decompress(), {"a": OUTLIER, "b": OUTLIER})


def test_a_share_of_every_tensor_that_is_none_of_any_is_forced_to_zero():
    # 0.1 of each tensor's 5 weights is none, although 0.1 of all 10 would be one
    w = {"a": np.arange(5.0), "b": np.arange(5.0) - 2}
    assert (Binary() + Each(Prune(keep=0.1))).project(w).status == "exact"


# ---- other dtypes, devices, sizes

EVERYWHERE = ["quantize(k=2) + prune(kappa=3)", "each(quantize(k=3)) + prune(kappa=2)",
              "binary(scale=True) + prune(keep=0.2)", "ternary(scale=True) + prune(radius=2.0)",
              "each(ternary(scale=True)) + binary(scale=True)", "binary() + lowrank(rank=1)",
              "sum(prune(kappa=2), lowrank(rank=1), quantize(k=2), cycles=5)",
              "quantize(k=2) + prune(kappa=0)", "ternary() + prune(alpha=0.5)",
              "sum(prune(keep=0.3), each(powersoftwo(c=1)), solver='exact')",
              "sum(quantize(k=2), prune(kappa=3), solver='alternate')",
              "round(dtype='int3') + prune(groups=2, axis=1) + lowrank(alpha=0.2)", *KINDS]


def leaves(theta):
    inner = getattr(theta, "parts", None)
    if inner is None:
        return [theta]
    return sum((leaves(p) for p in (inner.values() if isinstance(inner, dict) else inner)), [])


def task(dtype):
    return {"a": heavy_tailed(1, (3, 4), dtype), "b": heavy_tailed(2, (4, 4), dtype)}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("text", EVERYWHERE)
def test_codes_and_positions_are_the_same_on_every_device(text, dtype, place):
    w = task(dtype)
    host = leaves(parse(text).project(w, MU))
    there = leaves(parse(text).project({name: place(t) for name, t in w.items()}, MU))
    for a, b in zip(host, there, strict=True):
        for name in ("codes", "indices"):
            same_bits(getattr(a, name, w), on_host(getattr(b, name)) if hasattr(b, name) else w)


@pytest.mark.parametrize("text", EVERYWHERE)
def test_a_compression_decompresses_to_the_same_weights_on_every_device(text, place):
    w = task(np.float64)
    placed = {name: place(t) for name, t in w.items()}
    delta = parse(text).project(placed, MU).decompress()
    for name, t in parse(text).project(w, MU).decompress().items():
        assert getattr(delta[name], "device", None) == getattr(placed[name], "device", None)
        # sums in another order, in a contraction of a few dozen cycles: far under 1e-12 of w
        np.testing.assert_allclose(on_host(delta[name]), t, rtol=0, atol=1e-12 * np.abs(t).max())


@pytest.mark.parametrize("text", EVERYWHERE)
def test_a_compression_keeps_shapes_and_dtype(text):
    w = task(np.float32)
    delta = parse(text).project(w, MU).decompress()
    assert [(name, t.shape, t.dtype) for name, t in delta.items()] == [
        (name, t.shape, t.dtype) for name, t in w.items()]


@pytest.mark.of_numpy
@pytest.mark.parametrize("text", EVERYWHERE)
def test_a_compression_writes_to_nothing_it_is_given(text):
    w = task(np.float64)
    copies = {name: t.copy() for name, t in w.items()}
    for t in w.values():
        t.setflags(write=False)
    parse(text).project(w, MU, start=parse(text).project(w, MU))
    same_bits(w, copies)


@pytest.mark.parametrize("text", ["binary(scale=True) + prune(kappa=1)",
                                  "quantize(k=2) + prune(radius=1.0)",
                                  "sum(quantize(k=2), prune(kappa=1), solver='exact')"])
def test_a_sum_of_no_weights_has_none(text):
    assert parse(text).project(np.zeros((0, 3))).decompress().shape == (0, 3)


@pytest.mark.parametrize("exponent", [-400, 400])
@pytest.mark.parametrize("norm", [0, 1])
def test_the_sum_with_a_price_of_a_scaled_vector_is_the_scaled_sum(norm, exponent):
    w = np.array([1.0, 2, 4, -9, 3, -5])

    def answer(e):  # the price of a weight grows with its square, that of the norm with itself
        price = Prune(alpha=math.ldexp(1.5, e if norm else 2 * e), norm=norm)
        return Sum(Binary(scale=True), price, restarts=False, cycles=6).project(np.ldexp(w, e), 1.0)
    scaled, alone = answer(exponent), answer(0)
    same_bits(np.ldexp(scaled.decompress(), -exponent), alone.decompress())
    assert scaled.status == alone.status
    assert [math.ldexp(value, -2 * exponent) for value in scaled.trace] == list(alone.trace)


@pytest.mark.parametrize("exponent", [-560, 560])
@pytest.mark.parametrize("text", ["binary(scale=True) + prune(kappa=1)",
                                  "quantize(k=2) + prune(kappa=2)",
                                  "sum(quantize(k=2), prune(kappa=2), solver='alternate')"])
def test_the_sum_of_a_scaled_vector_is_the_scaled_sum_at_extreme_magnitudes(text, exponent):
    w = np.array([1.0, 2, 4, -9, 3, -5])
    scaled = parse(text).project(np.ldexp(w, exponent)).decompress()  # rounds nothing
    same_bits(np.ldexp(scaled, -exponent), parse(text).project(w).decompress())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_sum_of_a_vector_that_is_not_finite_is_an_error(bad):
    with pytest.raises(ValueError, match="NaN or an infinity"):
        (Binary() + Prune(kappa=1)).project(np.array([1.0, bad]))


def test_a_zero_part_does_not_change_an_alternation_of_weights_that_are_minus_zero():
    w = np.array([[-0.0, 2, 2], [-2, 1e-3, 0.0]])
    two = (Binary() + LowRank(1)).project(w)
    three = (Binary() + LowRank(1) + Prune(kappa=0)).project(w)
    same_bits(three.decompress(), two.decompress())


def test_the_trace_of_single_precision_counts_the_l1_norm_in_double():
    w = heavy_tailed(0, (30, 40), np.float32)
    theta = Sum(Binary(scale=True), Prune(alpha=0.4, norm=1), restarts=False,
                cycles=3).project(w, MU)
    norm = sum(map(abs, map(Fraction, theta.parts[1].values.tolist())))
    exact = float(objective(w, theta) + oracles.price(0.4, MU) * norm)
    # 1,200 terms in float64: a few hundred ulps at most, where float32 is off by 1e-8
    assert theta.trace[-1] == pytest.approx(exact, rel=1e-12)


def test_a_price_beyond_all_numbers_forces_a_part_to_zero():
    w = np.array([1.0, -2, 3.5])
    theta = (Binary(scale=True) + Prune(alpha=1e308)).project(w, 1.0)
    assert theta.status == "stationary" and not any(map(math.isnan, theta.trace))
    same_bits(theta.parts[1].decompress(), np.zeros(3))


def test_a_price_under_all_numbers_raises_no_objective():
    w = np.array([1.89, -5.2, -4.1, -24, 18, 11, -3.3, 7.7]) * 1e-201
    theta = (Quantize(2) + Prune(alpha=1e-200) + Ternary(scale=True)).project(w, 1e200)
    assert theta.status == "stationary"
