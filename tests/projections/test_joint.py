"""Sums with an l0 part: the three joint projections, against searches that share no idea with them.

An answer is judged by its objective alone: between the exact optimum and the optimum plus the gap
it states plus the published constant.
"""

import contextlib
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Callable

import numpy as np
import pytest
from array_api_compat import array_namespace, device
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from places import binary, codebook_l0, kmeans, kmeans_l0, l0_ball, nearest, scaled_binary_l0
from problems import codebooks, distance_to_mean, name_of, objective, to_numpy, vectors

from lcref import parts
from lcref.parts import Codebook, Sparse, Sum
from lcref.projections import outliers, priced
from lcref.tolerance import objective_slack
from lcref.verify import oracles

pytestmark = pytest.mark.everywhere

# ---- one array, a list or a dict


def leaves(tree):
    """The arrays of one array, of a list or of a dict, as NumPy arrays."""
    arrays = tree.values() if isinstance(tree, dict) else tree
    return [to_numpy(x) for x in (arrays if isinstance(tree, (dict, list)) else [tree])]


def like(tree, arrays):
    """The arrays in the form of the tree."""
    if isinstance(tree, dict):
        return dict(zip(tree, arrays))
    return list(arrays) if isinstance(tree, list) else next(iter(arrays))


def flat(tree):
    """All entries as one vector."""
    return np.concatenate([x.ravel() for x in leaves(tree)])


def bits(tree):
    """The bytes of all arrays, so that equal means equal bit for bit."""
    return [(x.shape, x.dtype, np.ascontiguousarray(x).tobytes()) for x in leaves(tree)]


def size(tree):
    return sum(x.size for x in leaves(tree))


def each(budget, tree):
    """The budget of each array: a list of codebooks has one for each, all else is for all."""
    listed = isinstance(budget, list) and isinstance(budget[0], list)
    return budget if listed else [budget] * len(leaves(tree))


# ---- the three problems


def codebook_curve(w, codebook, kappa):
    """What is left without the κ largest of the exact residuals, which do not interact."""
    entries = [Fraction(c) for c in codebook]
    costs = sorted(min((Fraction(x) - c) ** 2 for c in entries) for x in w.ravel().tolist())
    return [sum(costs[: len(costs) - m], Fraction(0)) for m in range(min(kappa, w.size) + 1)]


def is_a_scaled_sign(theta, _):
    return np.unique(np.abs(theta)).size <= 1


@dataclass(frozen=True)
class Joint:
    """One problem: min ‖w − θ − s‖² over θ feasible for the budget, ‖s‖₀ ≤ κ."""

    project: Callable  # (w, budget, kappa) → Sum
    single: Callable  # (array, budget) → part: κ = 0
    search: Callable  # (array, budget, kappa) → Fraction, for at most 7 entries
    curve: Callable  # (array, budget, kappa) → list of Fraction, with 0, 1, .., kappa corrections
    feasible: Callable  # (θ of one array, budget) → bool
    budgets: Callable  # (w, how many arrays) → strategy of budgets
    spread: Callable  # (kept entries of one array) → Fraction, D of the published constant
    usual: object  # a budget that fits every w
    wide: object  # one in whole numbers
    stationary: bool = False  # the published constant has no first-order term
    stretch: Callable = lambda budget, s: budget  # for s·w
    mirror: Callable = lambda budget: budget  # for −w
    always_exact: Callable = lambda w, budget: True


def one_or_many_codebooks(w, count):
    one = codebooks(flat(w))
    return one if not isinstance(w, list) else st.one_of(
        one, st.lists(one, min_size=count, max_size=count))


def times(codebook, s):
    return [times(c, s) if isinstance(c, list) else c * s for c in codebook]


def mirrored(codebook):
    many = isinstance(codebook[0], list)
    return [mirrored(c) for c in codebook] if many else [-c for c in reversed(codebook)]


def one_array(w):
    return not isinstance(w, (list, dict)) or len(w) == 1


JOINTS = {
    "codebook_l0": Joint(
        codebook_l0,
        nearest,
        oracles.codebook_l0,
        codebook_curve,
        lambda theta, codebook: bool(np.all(np.isin(theta, np.asarray(codebook, theta.dtype)))),
        one_or_many_codebooks,
        None,
        [-1.0, 0.25, 2.0],
        [-2.0, 0.0, 1.0],
        stretch=times,
        mirror=mirrored,
    ),
    "scaled_binary_l0": Joint(
        lambda w, _, kappa: scaled_binary_l0(w, kappa),
        lambda w, _: binary(w, scale=True),
        lambda w, _, kappa: oracles.scaled_binary_l0(w, kappa),
        lambda w, _, kappa: oracles.scaled_binary_l0_windows(w, kappa),
        is_a_scaled_sign,
        lambda w, count: st.none(),
        lambda kept: distance_to_mean(np.abs(kept)),
        None,
        None,
        always_exact=lambda w, _: one_array(w),
    ),
    "kmeans_l0": Joint(
        kmeans_l0,
        kmeans,
        oracles.kmeans_l0,
        oracles.kmeans_l0_runs,
        lambda theta, k: np.unique(theta).size <= k,
        lambda w, count: st.integers(1, 4),
        distance_to_mean,
        2,
        1,
        stationary=True,
        always_exact=lambda w, k: one_array(w) and k == 1,
    ),
}


def for_joints(*names):
    chosen = [JOINTS[name] for name in names]
    return pytest.mark.parametrize("joint", chosen, ids=names)


for_every_joint = for_joints(*JOINTS)
for_learned_codebooks = for_joints("scaled_binary_l0", "kmeans_l0")


def curve(joint, w, budget, kappa):
    """The least objectives with 0, 1, .., κ corrections, over all arrays."""
    curves = [joint.curve(x, b, kappa) for x, b in zip(leaves(w), each(budget, w))]
    return oracles.shared(curves, kappa)


def optimum(joint, w, budget, kappa):
    """The least objective, by search."""
    curves = [[joint.search(x, b, m) for m in range(min(kappa, x.size) + 1)]
              for x, b in zip(leaves(w), each(budget, w))]
    return oracles.shared(curves, kappa)[kappa]


# ---- one answer


@dataclass(frozen=True)
class Answer:
    """What was returned, ‖w − θ − s‖² exactly, how far it may be above the optimum by rounding."""

    sum: Sum
    value: Fraction
    gap: Fraction  # of the sum; at most ‖w‖², where it overflows
    slack: Fraction

    @property
    def limit(self):
        return self.gap + self.slack


def slack(joint, w, theta, corrections):
    """The published constant for the sum, plus the rounding of subnormal numbers.

    D is over the kept entries, those without a correction; M is the largest magnitude in w and in
    both parts. Taken near 1 and scaled back, with the subnormal term, as `problems.slack`.
    """
    x, total = flat(w), flat(theta) + flat(corrections)
    largest = max(np.max(np.abs(y), initial=0) for y in (x, flat(theta), flat(corrections)))
    exponent = int(np.frexp(largest)[1])
    near, near_total = (np.ldexp(y, -exponent) for y in (x, total))
    if joint.spread is None:
        spread = sum(v**2 for v in map(Fraction, [*near.tolist(), *near_total.tolist()]))
    else:
        kept = [np.ldexp(a[s == 0], -exponent) for a, s in zip(leaves(w), leaves(corrections))]
        spread = sum(joint.spread(a) for a in kept)
    published = objective_slack(near, near_total, spread=float(spread),
                                stationary=joint.stationary,
                                largest=float(np.ldexp(largest, -exponent)))
    h = Fraction(float(np.finfo(x.dtype).smallest_subnormal)) / 2
    off = sum(abs(Fraction(a) - Fraction(b)) for a, b in zip(x.tolist(), total.tolist()))
    subnormal = x.size * h**2 + (0 if joint.stationary else 2 * h * off)
    return Fraction(published) * Fraction(4) ** exponent + subnormal


def answer(joint, w, budget, kappa):
    found = joint.project(w, budget, kappa)
    theta, corrections = (part.decompress() for part in found.parts)
    gap = Fraction(found.gap) if math.isfinite(found.gap) else objective(flat(w), 0 * flat(w))
    value = objective(flat(w), flat(found.decompress()))
    return Answer(found, value, gap, slack(joint, w, theta, corrections))


def assert_between(least, found):
    """A feasible point is never under the optimum, and this one above it by its limit at most."""
    # the gap it states, and the published constant: rounding of the parts and of sums in float64
    assert least <= found.value <= least + found.limit


# ---- inputs


@st.composite
def weights(draw, max_size=7, at_all_scales=True, forms=("array", "list", "dict")):
    """Draw one array, or a list or dict of one to three of one dtype, some of them empty."""
    x = draw(vectors(max_size=max_size, at_all_scales=at_all_scales))
    form = draw(st.sampled_from(forms))
    if form == "array":
        return x
    ends = [0, *sorted(draw(st.lists(st.integers(0, x.size), max_size=2))), x.size]
    shrink = [10.0 ** -draw(st.integers(0, 2)) for _ in ends[1:]]
    arrays = [(x[i:j] * s).astype(x.dtype) for i, j, s in zip(ends, ends[1:], shrink)]
    return arrays if form == "list" else dict(zip("abc", arrays))


def draw_case(data, joint, max_size=7, **how):
    """Draw w, a budget and κ."""
    w = data.draw(weights(max_size=max_size, **how), label="w")
    budget = data.draw(joint.budgets(w, len(leaves(w))), label="budget")
    return w, budget, data.draw(st.integers(0, size(w) + 1), label="kappa")


DRAWS = {
    "Gaussian": lambda rng, n: rng.normal(size=n),
    "Laplace": lambda rng, n: rng.laplace(size=n),
    "Student t": lambda rng, n: rng.standard_t(1.5, size=n),
    "integers": lambda rng, n: np.rint(3 * rng.standard_t(2, size=n)),
}
for_every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
for_both_dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def three_arrays(draw, dtype, seed):
    """Three matrices of unlike sizes and scales, the second one empty."""
    rng = np.random.default_rng(seed)
    pairs = [((10, 5), 1.0), ((0, 3), 1.0), ((7, 10), 0.25)]
    return [(draw(rng, math.prod(s)).reshape(s) * scale).astype(dtype) for s, scale in pairs]


# ---- the ways by which learned codebooks are solved: (SMALL, COUNTABLE, BUCKETS, BLOCK)

WAYS = {"counting": (512, 10**8, 2048, 30_000), "prices, tables": (512, 0, 2048, 30_000),
        "prices, halving": (0, 0, 2048, 30_000), "prices, buckets": (0, 0, 1, 4)}


@contextlib.contextmanager
def by_way(way):
    """Solve small problems as large ones are, whatever their size."""
    places = [(outliers, "SMALL"), (outliers, "COUNTABLE"), (priced, "BUCKETS"), (parts, "BLOCK")]
    before = [getattr(*place) for place in places]
    small, *_ = now = WAYS[way]
    for place, value in zip([*places, (priced, "SMALL")], [*now, small]):
        setattr(*place, value)
    try:
        yield
    finally:
        for place, value in zip([*places, (priced, "SMALL")], [*before, before[0]]):
            setattr(*place, value)


@pytest.fixture(scope="module", params=WAYS)
def way(request):
    with by_way(request.param):
        yield


@pytest.fixture(scope="module", params=["counting", "prices, tables"])
def way_without_doubt(request):
    with by_way(request.param):
        yield


# ---- the optimum


@for_every_joint
@given(data=st.data())
def test_no_feasible_sum_is_nearer_by_more_than_the_gap(joint, count, data):
    w, budget, kappa = draw_case(data, joint)
    least, found = optimum(joint, w, budget, kappa), answer(joint, w, budget, kappa)
    count(name_of(joint, JOINTS), leaves(w), (budget, kappa), found.value - least - found.gap,
          found.slack)
    assert_between(least, found)


@for_learned_codebooks
@given(data=st.data())
def test_the_gap_bounds_the_distance_to_the_optimum_by_every_way(joint, way, data):
    w, budget, kappa = draw_case(data, joint)
    assert_between(optimum(joint, w, budget, kappa), answer(joint, w, budget, kappa))


@pytest.mark.costly
@for_every_joint
@given(data=st.data())
def test_no_run_or_window_of_thirty_values_is_nearer_by_more_than_the_gap(joint, way, data):
    w, budget, kappa = draw_case(data, joint, max_size=30)
    assert_between(curve(joint, w, budget, kappa)[kappa], answer(joint, w, budget, kappa))


@pytest.mark.costly
@for_both_dtypes
@for_every_draw
@pytest.mark.parametrize("k", [1, 2, 5])
def test_kmeans_l0_reaches_the_dynamic_programme_on_120_values(dtype, draw, k, way):
    joint, w = JOINTS["kmeans_l0"], draw(np.random.default_rng(k), 120).astype(dtype)
    least = curve(joint, w, k, 30)
    for kappa in (1, 2, 5, 12, 30):
        assert_between(least[kappa], answer(joint, w, k, kappa))


@pytest.mark.costly
@for_every_joint
@for_both_dtypes
@for_every_draw
def test_three_arrays_of_120_values_share_the_corrections_in_the_best_way(joint, dtype, draw, way):
    w = three_arrays(draw, dtype, seed=0)
    least = curve(joint, w, joint.usual, 30)
    for kappa in (1, 2, 5, 12, 30):
        assert_between(least[kappa], answer(joint, w, joint.usual, kappa))


@pytest.mark.costly
@for_joints("codebook_l0", "scaled_binary_l0")
@for_both_dtypes
@for_every_draw
def test_the_largest_residuals_or_the_best_window_of_300_values_are_found(joint, dtype, draw):
    w = draw(np.random.default_rng(0), 300).astype(dtype)
    least = curve(joint, w, joint.usual, 150)
    for kappa in (1, 3, 15, 50, 150):
        assert_between(least[kappa], answer(joint, w, joint.usual, kappa))


def unit_at(end, dtype):
    """A unit at one end of the floating range: 3 − (−3) of the largest do not overflow."""
    info = np.finfo(dtype)
    return {"largest": 2.0 ** (math.frexp(float(info.max))[1] - 4),
            "smallest normal": float(info.tiny),
            "smallest subnormal": float(info.smallest_subnormal)}[end]


def at_both_ends(test):
    test = pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])(test)
    ends = ["largest", "smallest normal", "smallest subnormal"]
    return for_every_joint(pytest.mark.parametrize("end", ends)(test))


@at_both_ends
@given(data=st.data())
@settings(max_examples=12)
def test_the_optimum_survives_at_both_ends_of_the_floating_range(joint, end, dtype, data):
    small = data.draw(weights(at_all_scales=False), label="w / unit")
    arrays = [np.rint(x).astype(np.float64) * unit_at(end, dtype) for x in leaves(small)]
    w = like(small, [x.astype(dtype) for x in arrays])
    budget = data.draw(joint.budgets(w, len(leaves(w))), label="budget")
    kappa = data.draw(st.integers(0, size(w)), label="kappa")
    assert_between(optimum(joint, w, budget, kappa), answer(joint, w, budget, kappa))


@pytest.mark.costly
@at_both_ends
@pytest.mark.parametrize("small", [[[0], [0, 1]], [[0, 1], [1, 3]], [[0, 2, -1, 3, -3]],
                                   [[3, 3, 0], [-1, -2]]])
def test_a_few_integers_are_solved_at_both_ends_of_the_floating_range(joint, end, dtype, small):
    unit = unit_at(end, dtype)
    w = [np.array(numbers, dtype) * dtype(unit) for numbers in small]
    budget = joint.stretch(joint.wide, unit)
    for kappa in range(4):
        assert_between(optimum(joint, w, budget, kappa), answer(joint, w, budget, kappa))


def chords(values, m):
    """The heights at m of all chords between the points (i, values[i]), i < m < j."""
    return [(values[i] * (j - m) + values[j] * (m - i)) / (j - i)
            for i in range(m) for j in range(m + 1, len(values))]


def envelope(values):
    """The lower convex envelope of the points (m, values[m]), at every m."""
    return [min([value, *chords(values, m)]) for m, value in enumerate(values)]


@for_learned_codebooks
@given(data=st.data())
def test_the_gap_reaches_down_to_the_convex_envelope_of_the_optima_at_most(
        joint, way_without_doubt, data):
    # the bound by the best price of a correction is that envelope, by Lagrangian duality
    w, budget, kappa = draw_case(data, joint, max_size=16)
    below = envelope(curve(joint, w, budget, size(w) + 1))[kappa]
    found = answer(joint, w, budget, kappa)
    # the published constant
    assert found.value - found.gap >= below - found.slack


@pytest.mark.costly
@for_every_draw
@pytest.mark.parametrize("listed", [False, True])
def test_the_gap_of_kmeans_l0_on_forty_values_is_that_to_the_convex_envelope(draw, listed):
    # the bound by the best price of a correction is that envelope, by Lagrangian duality
    joint, w = JOINTS["kmeans_l0"], draw(np.random.default_rng(4), 40)
    w = [w[:15], 4 * w[15:]] if listed else w
    below = envelope(curve(joint, w, 3, 40))
    for kappa in range(0, 25):
        with by_way("prices, tables"):
            found = answer(joint, w, 3, kappa)
        # the published constant
        assert abs(found.value - found.gap - below[kappa]) <= found.slack


@for_learned_codebooks
@given(data=st.data())
def test_the_optimum_at_the_last_corner_of_the_convex_envelope_up_to_kappa_is_reached(
        joint, way_without_doubt, data):
    # some price gives exactly that many corrections, and the ones left over do no harm
    w, budget, kappa = draw_case(data, joint, max_size=16)
    least, found = curve(joint, w, budget, size(w) + 1), answer(joint, w, budget, kappa)
    # a corner that rounding could straighten is none: a few times the published constant
    corner = max(m for m in range(kappa + 1)
                 if all(height > least[m] + 4 * found.slack for height in chords(least, m)))
    # the published constant
    assert found.value <= least[corner] + found.slack


# ---- feasible, and what is claimed


@for_every_joint
@given(data=st.data())
def test_theta_is_feasible_in_every_array_and_at_most_kappa_entries_are_corrected(joint, data):
    w, budget, kappa = draw_case(data, joint, max_size=16)
    found = joint.project(w, budget, kappa)
    theta, corrections = (leaves(part.decompress()) for part in found.parts)
    assert all(joint.feasible(x, b) for x, b in zip(theta, each(budget, w)))
    assert sum(map(np.count_nonzero, corrections)) <= kappa


@for_every_joint
@given(data=st.data())
def test_the_sum_is_that_of_its_two_parts(joint, data):
    w, budget, kappa = draw_case(data, joint, max_size=16)
    found = joint.project(w, budget, kappa)
    quantized, sparse = found.parts
    assert isinstance(found, Sum) and isinstance(sparse, Sparse)
    assert isinstance(quantized, Codebook) or isinstance(w, (list, dict))
    parts = zip(*(leaves(part.decompress()) for part in (quantized, sparse)))
    added = [theta + s for theta, s in parts]
    assert all(map(np.array_equal, leaves(found.decompress()), added))


@for_every_joint
@given(data=st.data())
def test_an_exact_sum_states_no_gap_and_a_certified_one_a_finite_one(joint, way, data):
    w, budget, kappa = draw_case(data, joint, max_size=16)
    found = joint.project(w, budget, kappa)
    assert found.status in ("exact", "certified")
    assert found.gap == 0 if found.status == "exact" else 0 <= found.gap < math.inf


@for_every_joint
@given(data=st.data())
def test_what_is_always_solved_exactly_says_so(joint, data):
    w, budget, kappa = draw_case(data, joint, max_size=16)
    assume(joint.always_exact(w, budget) or kappa == 0)
    assert joint.project(w, budget, kappa).status == "exact"


# ---- symmetry, scale, budget: facts about objectives, not about points


def assert_same_value(found, other):
    # each is within its limit of the same optimum
    assert abs(found.value - other.value) <= max(found.limit, other.limit)


@for_every_joint
@given(data=st.data())
def test_the_objective_does_not_change_when_entries_and_arrays_are_permuted(joint, data):
    w, _, kappa = draw_case(data, joint, max_size=12)
    budget = joint.usual
    moved = like(w, [x[data.draw(st.permutations(range(x.size)))] for x in leaves(w)])
    moved = moved[::-1] if isinstance(moved, list) else moved
    assert_same_value(answer(joint, w, budget, kappa), answer(joint, moved, budget, kappa))


@for_every_joint
@given(data=st.data())
def test_the_objective_does_not_change_when_all_signs_change(joint, data):
    w, budget, kappa = draw_case(data, joint, max_size=12)
    flipped = like(w, [-x for x in leaves(w)])
    other = answer(joint, flipped, joint.mirror(budget), kappa)
    assert_same_value(answer(joint, w, budget, kappa), other)


@given(data=st.data())
def test_the_objective_of_scaled_binary_does_not_change_when_any_sign_changes(data):
    joint = JOINTS["scaled_binary_l0"]
    w, budget, kappa = draw_case(data, joint, max_size=12)
    signs = [data.draw(st.lists(st.sampled_from([-1, 1]), min_size=x.size, max_size=x.size))
             for x in leaves(w)]
    flipped = like(w, [x * np.array(s, x.dtype) for x, s in zip(leaves(w), signs)])
    assert_same_value(answer(joint, w, budget, kappa), answer(joint, flipped, budget, kappa))


@for_every_joint
@given(data=st.data(), half=st.integers(-20, 20))
def test_the_objective_scales_with_the_square_of_a_power_of_two(joint, data, half):
    w, budget, kappa = draw_case(data, joint, max_size=12, at_all_scales=False)
    s = 4.0**half
    scaled = like(w, [x * x.dtype.type(s) for x in leaves(w)])
    found = answer(joint, w, budget, kappa)
    other = answer(joint, scaled, joint.stretch(budget, s), kappa)
    # exact: multiplying by a power of two rounds nothing
    assert other.value == found.value * Fraction(s) ** 2
    assert (other.sum.status, other.sum.gap) == (found.sum.status, found.sum.gap * s**2)


@pytest.mark.costly
@for_learned_codebooks
@for_every_draw
@pytest.mark.parametrize("s", [2.0**-40, 2.0**60])
def test_parts_status_and_gap_scale_with_120_values(joint, draw, s, way):
    w = three_arrays(draw, np.float64, seed=1)
    for kappa in (1, 5, 12, 30):
        found = joint.project(w, joint.usual, kappa)
        other = joint.project([x * s for x in w], joint.usual, kappa)
        # exact: multiplying by a power of two rounds nothing
        for part, scaled in zip(found.parts, other.parts):
            assert bits(scaled.decompress()) == bits([x * s for x in part.decompress()])
        assert (other.status, other.gap) == (found.status, found.gap * s**2)


@for_every_joint
@given(data=st.data())
def test_another_correction_never_costs_more(joint, data):
    w, budget, kappa = draw_case(data, joint, max_size=12)
    tight, loose = (answer(joint, w, budget, m) for m in (kappa, kappa + 1))
    # the looser one is within its limit of an optimum that is no higher
    assert loose.value <= tight.value + loose.limit


@given(data=st.data())
def test_another_cluster_never_costs_more(data):
    joint = JOINTS["kmeans_l0"]
    w, k, kappa = draw_case(data, joint, max_size=12)
    tight, loose = (answer(joint, w, c, kappa) for c in (k, k + 1))
    # the looser one is within its limit of an optimum that is no higher
    assert loose.value <= tight.value + loose.limit


@for_every_joint
@given(data=st.data())
def test_corrections_never_cost_more_than_quantization_alone(joint, data):
    w, budget, kappa = draw_case(data, joint, max_size=12)
    alone = [joint.single(x, b).decompress() for x, b in zip(leaves(w), each(budget, w))]
    found = answer(joint, w, budget, kappa)
    # the published constant: s = 0 is feasible
    assert found.value <= objective(flat(w), flat(alone)) + found.slack


@for_learned_codebooks
@given(data=st.data())
def test_a_codebook_never_costs_more_than_pruning_alone(joint, data):
    w, budget, kappa = draw_case(data, joint, max_size=12)
    alone = l0_ball(flat(w), kappa).decompress()
    found = answer(joint, w, budget, kappa)
    # the published constant: θ = 0 is feasible
    assert found.value <= objective(flat(w), alone) + found.slack


# ---- the boundary


@for_every_joint
@given(data=st.data())
def test_without_corrections_theta_is_that_of_each_array_alone_bit_for_bit(joint, data):
    w, budget, _ = draw_case(data, joint, max_size=16)
    alone = [joint.single(x, b).decompress() for x, b in zip(leaves(w), each(budget, w))]
    assert bits(joint.project(w, budget, 0).decompress()) == bits(alone)


@for_learned_codebooks
@given(data=st.data(), more=st.integers(0, 2))
def test_as_many_corrections_as_entries_give_w_back(joint, data, more):
    w, budget, _ = draw_case(data, joint, max_size=16)
    found = joint.project(w, budget, size(w) + more)
    assert all(map(np.array_equal, leaves(found.decompress()), leaves(w)))
    assert (found.status, found.gap) == ("exact", 0)


@given(data=st.data(), more=st.integers(0, 2))
def test_as_many_corrections_as_entries_give_w_back_but_for_rounding_of_the_sum(data, more):
    w, codebook, _ = draw_case(data, JOINTS["codebook_l0"], max_size=16)
    found = codebook_l0(w, codebook, size(w) + more)
    x, q = flat(w), flat(found.parts[0].decompress())
    # half an eps of w − q, then half an eps of the sum
    assert np.all(np.abs(flat(found.decompress()) - x)
                  <= np.finfo(x.dtype).eps * (np.abs(x) + np.abs(q)))


@for_every_joint
@for_both_dtypes
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3), (4,), (2, 3)])
def test_zeros_cost_nothing_but_the_distance_to_the_codebook(joint, dtype, shape):
    w = np.zeros(shape, dtype)
    for kappa in (0, 1, 3, 9):
        left = max(w.size - kappa, 0)  # 1/4 is the nearest entry
        found = answer(joint, w, joint.usual, kappa)
        assert found.value == (Fraction(left, 16) if joint is JOINTS["codebook_l0"] else 0)
        assert (found.sum.status, found.sum.gap) == ("exact", 0)


@for_every_joint
@pytest.mark.parametrize("value", [-3.0, 2.0**-900, 1e8])
def test_one_entry_is_corrected_or_quantized(joint, value):
    w = np.array([value])
    alone = joint.single(w, joint.usual).decompress()
    assert bits(joint.project(w, joint.usual, 0).decompress()) == bits(alone)
    found = joint.project(w, joint.usual, 1).decompress()
    # exact but for a fixed entry, which takes an eps of itself from so small a number
    assert np.abs(found - w) <= (2.0**-54 if joint is JOINTS["codebook_l0"] else 0)


@for_every_joint
@given(data=st.data())
def test_a_list_of_one_array_is_that_array(joint, data):
    w, budget, kappa = draw_case(data, joint, max_size=16, forms=("array",))
    alone, listed, named = (joint.project(x, budget, kappa) for x in (w, [w], {"only": w}))
    (first,), second = listed.decompress(), named.decompress()["only"]
    assert bits(first) == bits(second) == bits(alone.decompress())
    assert (alone.status, alone.gap) == (listed.status, listed.gap) == (named.status, named.gap)


@for_every_joint
@given(data=st.data())
def test_a_list_is_the_dict_of_its_arrays(joint, data):
    w, budget, kappa = draw_case(data, joint, max_size=16, forms=("list",))
    listed, named = (joint.project(x, budget, kappa) for x in (w, dict(enumerate(w))))
    assert list(named.decompress()) == list(range(len(w)))
    assert bits(named.decompress()) == bits(listed.decompress())


@for_every_joint
@given(data=st.data())
def test_an_empty_array_in_the_list_changes_nothing(joint, data):
    w, _, kappa = draw_case(data, joint, max_size=12, forms=("list",))
    more = [np.zeros((2, 0), w[0].dtype), *w, np.zeros(0, w[0].dtype)]
    found, other = answer(joint, w, joint.usual, kappa), answer(joint, more, joint.usual, kappa)
    assert [x.shape for x in other.sum.decompress()] == [x.shape for x in more]
    assert_same_value(found, other)


@pytest.mark.costly
@for_every_joint
@pytest.mark.parametrize("dtype, unit", [(np.float64, 1.0), (np.float32, 64.0)])
@pytest.mark.parametrize("kappa", [1, 4, 20])
def test_an_offset_of_1e8_loses_nothing(joint, dtype, unit, kappa):
    w = (np.random.default_rng(0).normal(size=100) * unit + 1e8).astype(dtype)
    budget = [1e8 - unit, 1e8, 1e8 + unit] if joint is JOINTS["codebook_l0"] else joint.usual
    least = curve(joint, w, budget, kappa)[kappa]
    assert_between(least, answer(joint, w, budget, kappa))


@pytest.mark.costly
@for_every_joint
@for_both_dtypes
@pytest.mark.parametrize("kappa", [5, 9])
@pytest.mark.parametrize("listed", [False, True])
def test_five_outliers_of_1e8_are_corrected_and_the_others_solved_to_their_own_scale(
    joint, dtype, kappa, listed
):
    x = np.random.default_rng(3).normal(size=(2, 50))
    x[0, [3, 17, 40]], x[1, [0, 49]] = [1e8, -1e8, 1.5e8], [1e8, -2e8]
    w = list(x.astype(dtype)) if listed else x.astype(dtype)
    assert_kept_entries_are_between(curve(joint, w, joint.usual, kappa)[kappa], joint, w, kappa)


def assert_kept_entries_are_between(least, joint, w, kappa):
    """The kept entries alone cost no more than the optimum, however large the corrected ones."""
    found = joint.project(w, joint.usual, kappa)
    theta, corrections = (flat(part.decompress()) for part in found.parts)
    kept = corrections == 0
    w, theta = flat(w)[kept], theta[kept]
    assert np.count_nonzero(~kept) <= kappa
    # the published constant of the kept entries; those that are corrected are free
    allowed = Fraction(objective_slack(w, theta, stationary=joint.stationary))
    assert objective(w, theta) <= least + Fraction(found.gap) + allowed


@for_learned_codebooks
@pytest.mark.parametrize("step", [-4, -2, -1, 1, 2, 4])
@pytest.mark.parametrize("listed", [False, True])
def test_an_outlier_of_1e8_does_not_blur_which_of_two_ends_is_nearer(
        joint, step, listed, way_without_doubt):
    # 1, 2 cost 1/2 and 2, 3 + δ cost δ more: the eps of 1e8 is larger than δ
    x = np.array([1.0, 3.0 + step * 1e-9, 1e8, 2.0])
    w = [x, np.zeros(2)] if listed else x
    if joint is JOINTS["kmeans_l0"]:
        w = [np.append(x, [50.0] * 3), np.zeros(2)] if listed else np.append(x, [50.0] * 3)
    assert_kept_entries_are_between(curve(joint, w, joint.usual, 2)[2], joint, w, 2)


# ---- worked by hand

TIED = np.array([0.0, 5.0, 0.0, 5.0, 0.0, 5.0, 0.0])
TIED_LEFT = [300 / 7, 100 / 3, 20, 0]  # Σ w² − (Σ w)² / m of the m = 7, 6, 5, 4 that are kept
LINEAR = np.array([0.0, 0.0, 0.0, 0.0, 7.0])  # one correction saves 49 − 49/5


def close(found, expected):
    """Within a few roundings of the numbers themselves, none above 50."""
    return abs(found - expected) <= 1e-12


@for_both_dtypes
@pytest.mark.parametrize("kappa, left", list(enumerate(TIED_LEFT)))
def test_some_of_several_equal_values_are_corrected_where_kappa_ends_among_them(
    dtype, kappa, left
):
    found = answer(JOINTS["kmeans_l0"], TIED.astype(dtype), 1, kappa)
    # first-order in nothing: the centre is rounded once, to an eps of 5 that is squared
    assert abs(found.value - left) <= 7 * (5 * np.finfo(dtype).eps) ** 2 + 1e-12
    assert np.count_nonzero(found.sum.parts[1].decompress()) == kappa


def test_equal_values_beside_a_second_cluster_are_corrected_in_part_and_the_gap_says_how_well():
    w = np.concatenate([TIED, [100.0] * 4])
    for kappa, left in enumerate(TIED_LEFT):
        found = answer(JOINTS["kmeans_l0"], w, 2, kappa)
        # one rounding of the hand value
        assert left - 1e-12 <= found.value <= left + float(found.limit) + 1e-12


def test_one_correction_among_equally_good_ones_is_made():
    two_clusters = np.concatenate([LINEAR, LINEAR + 100])
    for w, k in [(two_clusters, 2), ([LINEAR, LINEAR], 1), ([LINEAR, -LINEAR, 0 * LINEAR], 1)]:
        for kappa, left in enumerate([2 * 39.2, 39.2, 0]):
            assert close(answer(JOINTS["kmeans_l0"], w, k, kappa).value, left)


def test_a_fixed_codebook_corrects_as_many_of_the_equal_residuals_as_it_may():
    w = [np.array([1.0, 4.0, 1.0]), np.array([[1.0, -1.0]])]
    for kappa, left in enumerate([4 + 4, 4, 3, 2, 1, 0]):  # the 4 first, then the ones
        assert answer(JOINTS["codebook_l0"], w, [0.0, 2.0], kappa).value == left


def test_corrections_are_not_given_to_arrays_greedily():
    # the 7 pays 39.2 for one correction, the two 8 pay 34.1 and then 51.2
    w = [LINEAR, np.array([0.0, 8.0, 0.0, -8.0, 0.0, 0.0])]
    left = [39.2 + 128 - 256 / 6, 128 - 256 / 6, 39.2, 0]
    for kappa in (0, 2, 3):
        assert close(answer(JOINTS["scaled_binary_l0"], w, None, kappa).value, left[kappa])
    one = answer(JOINTS["scaled_binary_l0"], w, None, 1)
    # the envelope lies 3.5 under the optimum there, so a gap is allowed
    assert left[1] - 1e-12 <= one.value <= left[1] + float(one.limit) + 1e-12


def test_each_array_may_have_a_codebook_of_its_own():
    w = [np.array([1.0, 2.0]), np.array([10.0, 27.0])]
    found = codebook_l0(w, [[0.0, 2.0], [10.0, 20.0]], 1)
    assert [x.tolist() for x in found.parts[0].decompress()] == [[0.0, 2.0], [10.0, 20.0]]
    assert [x.tolist() for x in found.decompress()] == [[0.0, 2.0], [10.0, 27.0]]


def test_the_paper_s_headline_case_is_worked_by_hand():
    # of 1, 2, 2, 3, 40: the window 1, 2, 2, 3 without 40 has variance 2; a = 2
    found = scaled_binary_l0(np.array([1.0, -2.0, 40.0, 2.0, -3.0]), 1)
    quantized, sparse = found.parts
    assert quantized.decompress().tolist() == [2.0, -2.0, 2.0, 2.0, -2.0]
    assert sparse.decompress().tolist() == [0.0, 0.0, 38.0, 0.0, 0.0]
    assert (found.status, found.gap) == ("exact", 0)


def test_more_clusters_than_distinct_values_leave_nothing():
    w = np.array([3.0, -1.0, 3.0, 2.0])
    for kappa in range(5):
        for k in (3, 4, 9):
            assert kmeans_l0(w, k, kappa).decompress().tolist() == w.tolist()


def test_a_correction_stands_in_for_the_cluster_that_is_missing():
    w = np.array([3.0, -1.0, 3.0, 2.0])
    assert kmeans_l0(w, 2, 1).decompress().tolist() == w.tolist()
    assert kmeans_l0(w, 1, 2).decompress().tolist() == w.tolist()


# ---- arrays


@pytest.mark.torch
@for_every_joint
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("kappa", [0, 2])
def test_the_sum_has_the_shapes_and_dtype_of_w(joint, dtype, kappa, place):
    shapes = [(), (7,), (2, 0, 3), (2, 3), (1,), (2, 1, 3, 2)]
    rng = np.random.default_rng(0)
    at = place if dtype is not np.float16 else np.asarray  # the standard has no float16
    w = [at(np.asarray(rng.normal(size=shape), dtype)) for shape in shapes]
    for tree in (w[0], w[2], w[3], w, dict(zip("abcdef", w))):
        found = joint.project(tree, joint.usual, kappa)
        for part in (found, *found.parts):
            theta = part.decompress()
            assert type(theta) is type(tree)
            assert not isinstance(tree, dict) or list(theta) == list(tree)
            pairs = zip(leaves(theta), leaves(tree))
            assert all((x.shape, x.dtype) == (y.shape, y.dtype) for x, y in pairs)


@pytest.mark.torch
@for_every_joint
@given(data=st.data())
@settings(max_examples=10)
def test_every_namespace_gives_as_good_an_answer(joint, place, data):
    w, budget, kappa = draw_case(data, joint, max_size=16)
    placed = [place(x) for x in leaves(w)]
    there = answer(joint, like(w, placed), budget, kappa)
    assert_same_value(answer(joint, w, budget, kappa), there)


@pytest.mark.torch
@for_every_joint
@pytest.mark.parametrize("kappa", [0, 2, 9])
def test_the_parts_stay_in_the_namespace_and_on_the_device_of_w(joint, kappa, place):
    one = place(np.array([[3.0, -1.0, 0.5], [2.0, 2.0, -4.0]]))
    for w in (one, [one, place(np.array([0.5, 7.0]))]):
        found = joint.project(w, joint.usual, kappa)
        for part in (found, *found.parts):
            theta = part.decompress()
            for x in theta if isinstance(theta, list) else [theta]:
                assert (array_namespace(x), device(x)) == (array_namespace(one), device(one))


@pytest.mark.of_numpy
@for_every_joint
@given(data=st.data())
def test_w_is_not_written_to_and_later_changes_of_it_change_nothing(joint, data):
    w, budget, kappa = draw_case(data, joint, max_size=12)
    before = bits(w)
    found = joint.project(w, budget, kappa)
    answered = bits(found.decompress())
    assert bits(w) == before
    for x in leaves(w):
        x[...] = 7
    assert bits(found.decompress()) == answered


@for_every_joint
@given(data=st.data())
def test_the_same_w_gives_the_same_bits(joint, data):
    w, budget, kappa = draw_case(data, joint, max_size=16)
    again = like(w, [x.copy() for x in leaves(w)])
    found, other = joint.project(w, budget, kappa), joint.project(again, budget, kappa)
    assert bits(found.decompress()) == bits(other.decompress())
    assert (found.status, found.gap) == (other.status, other.gap)


@pytest.mark.of_numpy
@for_every_joint
def test_the_layout_of_w_in_memory_does_not_matter(joint):
    w = np.random.default_rng(0).normal(size=(6, 5))
    spaced = np.repeat(w.T, 2, axis=0)[::2].T  # column by column, with a gap after each
    assert not spaced.flags.c_contiguous
    found, other = (answer(joint, x, joint.usual, 4) for x in (w, spaced))
    assert_same_value(found, other)


# ---- what is refused

W = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, 2.0]])
BAD_WHOLE = [-1, 1.5, math.nan, math.inf, True]


def refusal(project, *arguments):
    """The words of the ValueError."""
    with pytest.raises(ValueError) as refused:
        project(*arguments)
    return set(re.findall(r"[\w.+-]*\w", str(refused.value)))


@for_every_joint
@pytest.mark.parametrize("value", BAD_WHOLE)
@pytest.mark.parametrize("w", [W, [W, W], {"a": W}, W[:0]], ids=["one", "list", "dict", "empty"])
def test_a_bad_number_of_corrections_is_refused_with_its_value_and_limit(joint, value, w):
    assert {"kappa", str(value), "0"} <= refusal(joint.project, w, joint.usual, value)


@pytest.mark.parametrize("value", [0, *BAD_WHOLE])
@pytest.mark.parametrize("w", [W, [W, W], W[:0]], ids=["one", "list", "empty"])
def test_a_bad_number_of_clusters_is_refused_with_its_value_and_limit(value, w):
    for kappa in (0, 1, 9):
        assert {"k", str(value), "1"} <= refusal(kmeans_l0, w, value, kappa)


@for_every_joint
def test_a_whole_number_of_any_type_is_a_number_of_corrections(joint):
    same = bits(joint.project(W, joint.usual, 2).decompress())
    for whole in (np.int64, np.uint8):
        assert bits(joint.project(W, joint.usual, whole(2)).decompress()) == same


@pytest.mark.parametrize("codebook", [
    [], [2.0, 1.0], [1.0, 1.0], [0.0, math.nan], [math.inf], [1.0, 1.0 + 1e-9],
    [[0.0, 1.0], [2.0, 1.0]], [[0.0, 1.0], []],
])
@pytest.mark.parametrize("kappa", [0, 1, 99])
def test_a_codebook_that_does_not_ascend_is_refused(codebook, kappa):
    w = W.astype(np.float32)
    with pytest.raises(ValueError, match="codebook"):
        codebook_l0([w, w], codebook, kappa)


@pytest.mark.parametrize("codebooks", [[[0.0, 1.0]], [[0.0, 1.0]] * 3])
def test_another_number_of_codebooks_than_of_arrays_is_refused(codebooks):
    with pytest.raises(ValueError, match="codebook"):
        codebook_l0([W, W], codebooks, 1)


@for_every_joint
@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("kappa", [0, 2, 99])
def test_a_weight_that_is_no_number_is_refused_by_name(joint, value, kappa, place):
    bad = W.copy()
    bad[1, 1] = value
    good, bad = place(W), place(bad)
    for w in (bad, [good, bad], {"a": bad, "b": good}):
        with pytest.raises(ValueError, match=r"\bw\b"):
            joint.project(w, joint.usual, kappa)


@for_every_joint
@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex128])
def test_weights_that_are_not_real_floating_are_refused_by_name(joint, dtype, place):
    bad = place(np.ones((2, 3), dtype))
    for w in (bad, [bad, bad], {"a": bad}):
        with pytest.raises(TypeError, match=r"\bw\b"):
            joint.project(w, joint.usual, 1)


@for_every_joint
def test_what_is_no_array_at_all_is_refused(joint):
    for w in (1.0, "w", [1.0, 2.0], [W, None]):
        with pytest.raises(TypeError, match=r"\bw\b"):
            joint.project(w, joint.usual, 1)


@for_every_joint
def test_arrays_of_different_dtypes_are_refused(joint):
    for w in ([W, W.astype(np.float32)], {"a": W.astype(np.float32), "b": W}):
        assert "dtype" in refusal(joint.project, w, joint.usual, 1)


@for_every_joint
@pytest.mark.parametrize("w", [[], {}], ids=["list", "dict"])
def test_no_arrays_at_all_are_refused(joint, w):
    with pytest.raises(ValueError, match="no tensors|at least one|empty"):
        joint.project(w, joint.usual, 1)


# ---- answers that rounding, or a code of one byte, once spoilt


def test_a_gap_is_reported_where_most_weights_of_an_array_are_corrected_and_lie_far():
    far = [-1e8 * i * i for i in range(1, 8)]
    w = np.array([-1.0, 2, -9, 5, -16, -2, *far])
    theta = kmeans_l0(w, 2, 8)
    least = oracles.kmeans_l0_runs(w, 2, 8)[8]
    excess = objective(w, theta.decompress()) - least
    # the optimum is on no corner of the hull of prices, so a gap of several units must be told
    assert excess <= Fraction(theta.gap) + Fraction(2) ** -20  # entries of 1e9 rounded: under 1e-6


@pytest.mark.costly
@pytest.mark.parametrize("project", [lambda w, kappa: kmeans_l0(w, 1, kappa), scaled_binary_l0])
def test_the_narrowest_of_two_nearly_equal_windows_of_thousands_is_found(project):
    n, rng = 5000, np.random.default_rng(0)
    for d in [1.4799879238078322, *rng.uniform(1, 2, size=20)]:
        other = 1.4799879228494437 if d == 1.4799879238078322 else d * (1 - 6e-10)
        for below, above in ((d, other), (other, d)):  # the window of the nearer end wins
            w = np.concatenate([np.full(n, 4 - below), [4.0], np.full(n, 4 + above)])
            found = objective(w, project(w, n).decompress())
            least = min((Fraction(4) - Fraction(x)) ** 2 for x in (w[0], w[-1])) * n / (n + 1)
            # the published constant, with D about the mean of the kept ones and M² under 64
            slack = 8 * w.size * Fraction(2) ** -52 * least + w.size * Fraction(64, 2**104)
            assert found <= least + slack


@for_learned_codebooks
@pytest.mark.parametrize("far", [-1e8, 1e8])
@pytest.mark.parametrize("sign", [-1, 1])
def test_an_outlier_on_either_side_does_not_blur_the_narrowest_window(joint, far, sign):
    # of 1 ± i·2⁻³⁰, i = 0, 1, 2, 3, 5, the first four are nearest to one another
    w = np.array([*(1 + sign * i * 2.0**-30 for i in (0, 1, 2, 3, 5)), far])
    kept = joint.project(w, 1, 2).parts[1].decompress() == 0
    assert kept.tolist() == [True, True, True, True, False, False]


@pytest.mark.costly
def test_outliers_of_a_million_times_the_spread_do_not_hide_the_best_clusters_of_many_weights():
    rng = np.random.default_rng(1)
    base = np.concatenate([rng.normal(c, 0.05, 50) for c in range(10)]) + 1e7
    w = [np.concatenate([base, rng.uniform(-100, 100, 600)]), np.repeat([-1.0, 1.0], 1000)]
    theta = kmeans_l0(w, 8, 600)
    feasible = objective(base, kmeans(base, 8).decompress())  # and the 600 corrected
    # 500 entries at 1e7 are rounded by up to 2⁻³⁰ each, times a residual of about 1
    assert objective(flat(w), flat(theta.decompress())) <= feasible + Fraction(500, 2**30)
    assert theta.gap > 0


@pytest.mark.parametrize("dtype, far", [(np.float16, 6e4), (np.float32, 3e38),
                                        (np.float64, 1.7e308)])
def test_a_correction_that_the_dtype_cannot_hold_is_an_error(dtype, far):
    with pytest.raises(ValueError, match="farther from its codebook"), np.errstate(over="ignore"):
        codebook_l0(np.array([far], dtype), [-far], 1)


def test_codebooks_by_name_go_to_the_arrays_of_that_name():
    w = {"a": np.array([1.0, 2]), "b": np.array([10.0, 27])}
    theta = codebook_l0(w, {"b": [10.0, 20], "a": [0.0, 2]}, 1)
    assert bits(theta.parts[0].decompress()) == bits({"a": np.array([0.0, 2]),
                                                      "b": np.array([10.0, 20])})
    for names in ("xy", "ac", "abc"):
        with pytest.raises(ValueError, match="names of w"):
            codebook_l0(w, dict.fromkeys(names, [0.0]), 1)


@pytest.mark.costly
def test_two_hundred_and_fifty_six_values_are_all_kept():
    w = np.concatenate([np.repeat(np.arange(256.0), 3) + np.tile([0, 0.1, -0.1], 256), [1e4]])
    theta = kmeans_l0(w, 256, 1)
    # 1e4 is corrected, and each of 256 triples costs 2·0.1² about its mean
    assert objective(w, theta.decompress()) == pytest.approx(256 * 0.02, rel=1e-9)
