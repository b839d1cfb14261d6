"""The oracles against each other, against feasible points, and against values worked by hand."""

import ast
import sys
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lcref.verify
from lcref.verify import oracles

WEIGHTS = st.lists(
    st.one_of(st.integers(-3, 3).map(float), st.floats(-1, 1), st.sampled_from([1e8, 1e8 + 1])),
    max_size=6,
)
MATRICES = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: st.lists(
        st.lists(st.integers(-4, 4).map(float), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    ).map(np.array)
)
ARRAYS = st.builds(  # one, two or three arrays of six numbers at most together, empty ones too
    lambda w, cuts: [w[i:j] for i, j in zip([0, *sorted(cuts)], [*sorted(cuts), len(w)])],
    WEIGHTS,
    st.lists(st.integers(0, 6), max_size=2),
)
RATIONALS = st.integers(-40, 40).map(lambda i: Fraction(i, 8))


def norm(w):
    """‖w‖², exactly."""
    return sum((Fraction(x) ** 2 for x in w), Fraction(0))


def distance(w, theta):
    """‖w − θ‖², exactly."""
    return norm(Fraction(a) - Fraction(b) for a, b in zip(w, theta))


def longdouble_error(w, n):
    """n·eps of a longdouble, relative to ‖w‖²."""
    return n * Fraction(float(np.finfo(np.longdouble).eps)) * norm(w)


# ---- worked by hand

HALF, THIRD = Fraction(1, 2), Fraction(1, 3)
BY_HAND = [
    (oracles.kmeans, ([0.0, 1.0, 5.0, 7.0], 2), HALF + 2),
    (oracles.kmeans, ([0.0, 1.0, 5.0, 7.0], 1), Fraction(131, 4)),  # 75 − 13²/4
    (oracles.kmeans, ([3.0, 0.0, 3.0, 0.0], 2), 0),
    (oracles.kmeans, ([], 3), 0),
    (oracles.kmeans_intervals, ([5.0, 0.0, 7.0, 1.0], 2), HALF + 2),
    (oracles.kmeans_intervals, ([], 1), 0),
    (oracles.binary, ([2.0, -3.0, 0.0], False), 1 + 4 + 1),
    (oracles.binary, ([1.0, -2.0, 6.0], True), 4 + 1 + 9),  # a = 3
    (oracles.ternary, ([0.25, -3.0, 0.75], False), Fraction(1, 16) + 4 + Fraction(1, 16)),
    (oracles.ternary, ([1.0, -7.0, 5.0], True), 1 + 1 + 1),  # a = 6 on two entries
    (oracles.l0_ball, ([1.0, -5.0, 2.0], 1), 5),
    (oracles.l0_ball, ([1.0, -5.0, 2.0], 7), 0),
    (oracles.l1_ball, ([3.0, -1.0], 2.0), 2),  # θ = (2, 0), on a vertex
    (oracles.l1_ball, ([4.0, -3.0, 1.0], 4.0), 2 * Fraction(9, 4) + 1),  # τ = 3/2
    (oracles.l1_ball, ([1.0, 1.0, 1.0], 2.0), THIRD),  # τ = 1/3
    (oracles.l1_ball, ([3.0, -1.0], 4.0), 0),
    (oracles.l1_ball, ([3.0, -1.0], 0.0), 10),
    (oracles.l1_ball_dual, ([3.0, -1.0], 2.0, 1.0), 2),
    (oracles.l1_ball_root, ([], 1.0), 0),
    (oracles.l1_ball_root, ([5e-324], 1.0), 0),
    (oracles.rank_ball, ([[0.0, 3.0, 0.0], [-5.0, 0.0, 0.0], [0.0, 0.0, 4.0]], 1), 9 + 16),
    (oracles.rank_ball, (np.zeros((0, 3)), 0), 0),
    (oracles.kmeans_l0, ([0.0, 1.0, 50.0, 5.0, 7.0], 2, 1), HALF + 2),
    (oracles.scaled_binary_l0, ([1.0, -1.0, 2.0, 40.0], 1), 2 * THIRD),  # 1, 1, 2 about 4/3
    (oracles.codebook_l0, ([0.0, 3.0, -1.0, 9.0], [0.0, 4.0], 1), 1 + 1),
    (oracles.nearest, ([0.0, 3.0, -1.0], [0.0, 4.0]), 1 + 1),
    (oracles.powers_of_two, ([0.75, -3.0, 0.125], 1), Fraction(1, 16) + 4 + Fraction(1, 64)),
    (oracles.scaled_codebook, ([2.0, 1.0, -5.0], [-1.0, 0.5]), Fraction(11, 6)),  # 30 − 6.5² / 1.5
    (oracles.scaled_codebook, ([-1.0, -2.0], [1.0, 3.0]), 5),  # a = 0
    (oracles.round_to, ([2049.0, 70000.0, 2.0**-26], "float16"), 1 + 4496**2 + Fraction(1, 2**52)),
    (oracles.round_to, ([257.0, -2.0**-134], "bfloat16"), 1 + Fraction(1, 2**268)),
    (oracles.round_to, ([-2.0, 1.0, 1.0], "int2"), 0),
    (oracles.round_to, ([2.0, 1.0], "int2"), HALF),  # a = 3/2
    (oracles.l0_penalty, ([1.0, -5.0, 2.0], 4.0, 2.0), 1 + 4 + 4),
    (oracles.l1_penalty, ([3.0, -0.5], 2.0, 2.0), 1 + 4 + Fraction(1, 4)),  # θ = (2, 0)
    (oracles.group_l0_ball, ([[1.0, 5.0], [4.0, 4.0]], 1, 0), 26),
    (oracles.group_l0_ball, ([[1.0, 5.0], [4.0, 4.0]], 1, -1), 17),
    (oracles.group_l0_ball, (np.zeros((0, 3)), 1, 0), 0),
    (oracles.rank_selection, ([[5.0, 0.0], [0.0, 1.0]], 1.0, 1.0, lambda r: 2 * r), 1 + 4),
]
CURVES_BY_HAND = [  # with 0, 1, 2, .. corrections
    (oracles.kmeans_l0_runs, ([5.0, 50.0, 0.0, 7.0, 1.0], 2, 9), [131 * HALF**2, 5 * HALF, HALF]),
    (oracles.kmeans_l0_runs, ([2.0, 0.0, 2.0, 2.0], 1, 1), [3, 0]),
    (oracles.kmeans_l0_runs, ([0.0, 9.0, 5.0, 8.0], 1, 2), [49, 26 * THIRD, HALF]),  # 0 first
    (oracles.kmeans_l0_runs, ([], 2, 3), [0]),
    (oracles.scaled_binary_l0_windows, ([3.0, -9.0, 0.0, 10.0], 9), [69, 86 * THIRD, HALF]),
    (oracles.scaled_binary_l0_windows, ([3.0, -9.0, 0.0, 10.0], 0), [69]),
    (oracles.scaled_binary_l0_windows, ([], 3), [0]),
]
FIXED = (oracles.powers_of_two, oracles.round_to)  # sets that do not scale


@pytest.mark.parametrize(
    "oracle, arguments, expected", BY_HAND, ids=lambda x: getattr(x, "__name__", None)
)
def test_the_oracle_finds_the_value_worked_by_hand(oracle, arguments, expected):
    # squares and roots in longdouble: a few eps of the sum, 50
    assert abs(oracle(*arguments) - expected) <= Fraction(1, 10**13)


@pytest.mark.parametrize("oracle, arguments, expected", BY_HAND)
def test_the_oracle_scales_exactly_with_the_square_of_a_power_of_two(oracle, arguments, expected):
    w, *budget = arguments
    for s in (2.0**-50, 2.0**500):
        scaled = [b * s if isinstance(b, float) else b for b in budget]
        if oracle in (oracles.codebook_l0, oracles.nearest):
            scaled[0] = [c * s for c in budget[0]]
        if oracle in (oracles.l0_penalty, oracles.rank_selection):
            scaled[1] = budget[1] / s  # 2α/μ by s²
        if oracle is oracles.l1_penalty:
            scaled[1] = budget[1]  # 2α/μ by s
        if oracle in FIXED or oracle in (oracles.binary, oracles.ternary) and not budget[0]:
            continue  # {−1, 0, 1} does not scale
        value = oracle(np.array(w) * s, *scaled)
        assert value == oracle(w, *budget) * Fraction(s) ** 2


@pytest.mark.parametrize("oracle, arguments, expected", CURVES_BY_HAND)
@pytest.mark.parametrize("s", [1.0, 2.0**-50, 2.0**500])
def test_the_oracle_finds_the_curve_worked_by_hand_at_every_scale(oracle, arguments, expected, s):
    w, *budget = arguments
    length = min(len(w), budget[-1]) + 1
    curve = [value * Fraction(s) ** 2 for value in expected] + [0] * (length - len(expected))
    assert oracle(np.array(w) * s, *budget) == curve


def test_corrections_are_shared_by_the_best_split_and_not_greedily():
    # the one value pays 39.2 for a correction; the other two pay 34.1, then 51.2
    one, two = [0.0, 0.0, 0.0, 0.0, 7.0], [0.0, 0.0, 0.0, 0.0, 8.0, -8.0]
    curves = [oracles.scaled_binary_l0_windows(w, 4) for w in (one, two)]
    first, both = 49 - Fraction(7**2, 5), 128 - Fraction(16**2, 6)
    assert oracles.shared(curves, 4) == [first + both, both, first, 0, 0]


# ---- against each other


@given(w=WEIGHTS, k=st.integers(1, 7))
def test_an_optimal_clustering_is_made_of_intervals(w, k):
    # 4·n·eps in longdouble of the squared distance to the mean, as documented
    spread = oracles.kmeans(w, 1)
    error = 4 * len(w) * Fraction(float(np.finfo(np.longdouble).eps)) * spread
    assert abs(oracles.kmeans(w, k) - oracles.kmeans_intervals(w, k)) <= error


@given(w=WEIGHTS, tau=st.floats(0, 3), radius=st.floats(0, 5))
def test_the_dual_of_the_l1_ball_is_a_lower_bound_for_any_multiplier(w, tau, radius):
    assert oracles.l1_ball_dual(w, radius, tau) <= oracles.l1_ball(w, radius)


@given(w=WEIGHTS, radius=st.floats(0, 5))
def test_the_best_dual_of_the_l1_ball_meets_the_best_face(w, radius):
    best, root = oracles.l1_ball(w, radius), oracles.l1_ball_root(w, radius)
    largest = max(map(abs, w), default=0)
    # the root's error, 1e-15 of the largest magnitude and as much from fsum's terms, squared
    assert 0 <= best - root <= len(w) * Fraction(4e-15 * largest) ** 2


@given(w=MATRICES, data=st.data())
def test_rotations_and_lapack_find_the_same_singular_values(w, data):
    rank = data.draw(st.integers(0, 4))
    tail = np.linalg.svd(w, compute_uv=False)[rank:]
    # LAPACK is backward stable: off by about max(m, n)·eps·σ₁ in each singular value
    error = 16 * 4 * 2**-52 * float(norm(w.ravel()))
    assert abs(float(oracles.rank_ball(w, rank)) - np.sum(tail**2)) <= error


@given(w=MATRICES)
def test_all_squared_singular_values_sum_to_the_squared_norm(w):
    assert abs(oracles.rank_ball(w, 0) - norm(w.ravel())) <= longdouble_error(w.ravel(), 8 * w.size)


@given(u=st.lists(st.integers(-5, 5), min_size=4, max_size=4), data=st.data())
def test_a_product_of_thin_factors_has_no_tail(u, data):
    rank = data.draw(st.integers(1, 2))
    v = data.draw(st.lists(st.integers(-5, 5), min_size=6, max_size=6))
    w = np.reshape(u, (-1, rank)).astype(float) @ np.reshape(v, (rank, -1))
    assert oracles.rank_ball(w, rank) <= longdouble_error(w.ravel(), 8 * w.size)


@given(w=WEIGHTS, k=st.integers(1, 3))
def test_a_sum_without_corrections_is_its_other_part(w, k):
    assert oracles.kmeans_l0(w, k, 0) == oracles.kmeans(w, k)
    assert oracles.scaled_binary_l0(w, 0) == oracles.binary(w, True)
    assert oracles.codebook_l0(w, [-1.0, 1.0], 0) == oracles.binary(w, False)


@given(w=WEIGHTS, kappa=st.integers(0, 7))
def test_a_sum_with_the_codebook_of_zero_is_the_l0_ball(w, kappa):
    assert oracles.codebook_l0(w, [0.0], kappa) == oracles.l0_ball(w, kappa)


@given(w=WEIGHTS, kappa=st.integers(0, 6))
def test_another_correction_never_costs_more(w, kappa):
    assert oracles.kmeans_l0(w, 2, kappa + 1) <= oracles.kmeans_l0(w, 2, kappa)
    assert oracles.scaled_binary_l0(w, kappa + 1) <= oracles.scaled_binary_l0(w, kappa)


@given(w=WEIGHTS, k=st.integers(1, 4))
def test_some_optimal_clusters_are_runs_with_the_corrections_between_them(w, k):
    search = [oracles.kmeans_l0(w, k, m) for m in range(len(w) + 1)]
    assert oracles.kmeans_l0_runs(w, k, len(w) + 1) == search


@given(w=WEIGHTS)
def test_some_optimal_kept_set_is_a_window_of_the_magnitudes(w):
    search = [oracles.scaled_binary_l0(w, m) for m in range(len(w) + 1)]
    assert oracles.scaled_binary_l0_windows(w, len(w) + 1) == search


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("kappa", [1, 2, 3])
def test_the_runs_of_twelve_values_are_as_good_as_all_supports(k, kappa):
    w = np.random.default_rng(10 * k + kappa).standard_t(2, size=12)
    search = oracles.corrected(w, kappa, lambda kept: oracles.kmeans_intervals(kept, k))
    # 4·n·eps in longdouble of the squared distance to the mean, as documented
    error = 4 * 12 * Fraction(float(np.finfo(np.longdouble).eps)) * norm(w)
    assert abs(oracles.kmeans_l0_runs(w, k, kappa)[kappa] - search) <= error


@pytest.mark.parametrize("k", [1, 2, 5])
def test_runs_of_a_hundred_values_without_corrections_are_intervals(k):
    w = np.random.default_rng(k).standard_t(2, size=100)
    (optimum,) = oracles.kmeans_l0_runs(w, k, 0)
    # 4·n·eps in longdouble of the squared distance to the mean, as documented
    error = 4 * 100 * Fraction(float(np.finfo(np.longdouble).eps)) * norm(w)
    assert abs(optimum - oracles.kmeans_intervals(w, k)) <= error


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy"])
def test_one_run_of_the_magnitudes_is_a_window(draw):
    w = getattr(np.random.default_rng(0), draw)(size=60)
    assert oracles.scaled_binary_l0_windows(w, 20) == oracles.kmeans_l0_runs(np.abs(w), 1, 20)


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy"])
@pytest.mark.parametrize("k", [2, 4])
def test_no_choice_of_entries_beats_the_runs_of_a_hundred_values(draw, k):
    rng = np.random.default_rng(k)
    w = getattr(rng, draw)(size=100)
    curve = oracles.kmeans_l0_runs(w, k, 30)
    for _ in range(100):  # any entries, then the largest residuals are corrected
        cost = np.sort(np.min((w[:, None] - rng.choice(w, size=k)) ** 2, axis=1))
        # the costs and their sum are rounded in float64
        assert all(f <= np.sum(cost[: 100 - m]) * (1 + 1e-13) for m, f in enumerate(curve))


@given(arrays=ARRAYS, k=st.integers(1, 3), kappa=st.integers(0, 7))
def test_sharing_corrections_is_choosing_a_support_of_all_arrays_at_once(arrays, k, kappa):
    curves = [[oracles.kmeans_l0(w, k, m) for m in range(len(w) + 1)] for w in arrays]
    places = [(t, x) for t, w in enumerate(arrays) for x in w]
    search = min(
        sum(oracles.kmeans([x for t, x in kept if t == array], k) for array in range(len(arrays)))
        for kept in combinations(places, max(len(places) - kappa, 0))
    )
    assert oracles.shared(curves, kappa)[kappa] == search


@given(arrays=ARRAYS, kappa=st.integers(0, 7))
def test_arrays_with_one_given_codebook_share_corrections_as_one_array(arrays, kappa):
    book = [-1.0, 0.5, 2.0]
    curves = [[oracles.codebook_l0(w, book, m) for m in range(kappa + 1)] for w in arrays]
    joined = [oracles.codebook_l0(sum(arrays, []), book, m) for m in range(kappa + 1)]
    assert oracles.shared(curves, kappa) == joined


# ---- no feasible point is better: candidates drawn at random, then the best of a fine grid


@given(w=WEIGHTS, values=st.lists(RATIONALS, min_size=1, max_size=3), data=st.data())
def test_no_choice_of_values_beats_kmeans(w, values, data):
    theta = [data.draw(st.sampled_from(values)) for _ in w]
    assert oracles.kmeans(w, len(values)) <= distance(w, theta)


@pytest.mark.parametrize(
    "oracle, levels", [(oracles.binary, [-1, 1]), (oracles.ternary, [-1, 0, 1])]
)
@given(w=WEIGHTS, a=RATIONALS.map(abs), data=st.data())
def test_no_pattern_with_any_scale_beats_the_oracle(oracle, levels, w, a, data):
    s = [data.draw(st.sampled_from(levels)) for _ in w]
    assert oracle(w, True) <= distance(w, [a * level for level in s])
    assert oracle(w, False) <= distance(w, s)


@given(w=WEIGHTS, direction=st.lists(RATIONALS, min_size=6, max_size=6), radius=st.integers(0, 5))
def test_no_point_of_the_l1_ball_beats_the_best_face(w, direction, radius):
    size = sum(map(abs, direction[: len(w)]))
    theta = [x * radius / size if size else 0 for x in direction[: len(w)]]
    assert oracles.l1_ball(w, radius) <= distance(w, theta)


@given(w=MATRICES, numbers=st.lists(st.integers(-4, 4), min_size=8, max_size=8))
def test_no_outer_product_beats_the_tail_beyond_rank_one(w, numbers):
    theta = np.outer(numbers[: w.shape[0]], numbers[4:][: w.shape[1]]) / 4
    allowed = longdouble_error(w.ravel(), 8 * w.size)
    assert oracles.rank_ball(w, 1) <= distance(w.ravel(), theta.ravel()) + allowed


@given(w=WEIGHTS, a=RATIONALS.map(abs), kappa=st.integers(0, 6), data=st.data())
def test_no_pattern_with_any_corrections_beats_the_sum(w, a, kappa, data):
    signs = [data.draw(st.sampled_from([-1, 1])) for _ in w]
    where = data.draw(st.sets(st.integers(0, 5), max_size=kappa))
    theta = [x if i in where else a * s for i, (x, s) in enumerate(zip(w, signs))]
    assert oracles.scaled_binary_l0(w, kappa) <= distance(w, theta)
    assert oracles.codebook_l0(w, [-float(a), float(a)], kappa) <= distance(w, theta)
    assert oracles.kmeans_l0(w, 2, kappa) <= distance(w, theta)


@given(w=WEIGHTS, a=RATIONALS.map(abs), entries=st.sets(st.integers(-3, 3), min_size=1, max_size=3))
def test_no_choice_of_entries_with_any_scale_beats_the_scaled_codebook(w, a, entries):
    theta = [min((a * c for c in entries), key=lambda level: abs(Fraction(x) - level)) for x in w]
    assert oracles.scaled_codebook(w, sorted(entries)) <= distance(w, theta)


@given(w=WEIGHTS, dtype=st.sampled_from(["float16", "bfloat16"]), data=st.data())
def test_no_representable_point_beats_rounding(w, dtype, data):
    theta = [data.draw(st.sampled_from(oracles.representable(dtype))) for _ in w]
    assert oracles.round_to(w, dtype) <= distance(w, theta)


@given(w=st.lists(st.floats(-65504, 65504, width=32), max_size=6))
def test_rounding_to_float16_is_that_of_numpy(w):
    assert oracles.round_to(w, "float16") == distance(w, np.array(w).astype(np.float16).tolist())


def test_the_finite_numbers_of_a_dtype_are_as_many_as_its_bit_patterns_without_infinities():
    # 2¹⁶ patterns less two signs of a full exponent; −0 and 0 are one number
    assert len(oracles.representable("float16")) == 2**16 - 2 * 2**10 - 1
    assert len(oracles.representable("bfloat16")) == 2**16 - 2 * 2**7 - 1


@given(w=WEIGHTS, numbers=st.lists(RATIONALS, min_size=6, max_size=6), alpha=st.floats(0, 5))
def test_no_point_beats_a_penalty(w, numbers, alpha):
    theta, price = numbers[: len(w)], oracles.price(alpha, 2.0)
    count, norm_1 = sum(map(bool, theta)), sum(map(abs, theta))
    assert price == Fraction(alpha)
    assert oracles.l0_penalty(w, alpha, 2.0) <= distance(w, theta) + price * count
    assert oracles.l1_penalty(w, alpha, 2.0) <= distance(w, theta) + price * norm_1


@given(w=MATRICES, numbers=st.lists(st.integers(-4, 4), min_size=8, max_size=8))
def test_no_outer_product_beats_the_best_rank(w, numbers):
    theta = np.outer(numbers[: w.shape[0]], numbers[4:][: w.shape[1]]) / 4
    optimum = oracles.rank_selection(w, 1.0, 2.0, lambda r: r)
    allowed = longdouble_error(w.ravel(), 8 * w.size)
    assert optimum <= distance(w.ravel(), theta.ravel()) + 1 + allowed


@given(w=MATRICES, kappa=st.integers(0, 4), data=st.data())
def test_no_set_of_slices_beats_the_best(w, kappa, data):
    axis = data.draw(st.integers(0, 1))
    kept = data.draw(st.sets(st.integers(0, 3), max_size=kappa))
    dropped = [norm(np.take(w, i, axis)) for i in range(w.shape[axis]) if i not in kept]
    assert oracles.group_l0_ball(w, kappa, axis) <= sum(dropped)


def test_every_partition_is_tried():
    w = [4.0, 0.0, 9.0, 1.0]
    labels = product(range(3), repeat=4)  # all maps to 3 blocks, each partition many times
    blocks = [[[x for x, b in zip(w, label) if b == c] for c in range(3)] for label in labels]
    costs = [sum(norm(b) - Fraction(sum(b)) ** 2 / max(len(b), 1) for b in some) for some in blocks]
    assert oracles.kmeans(w, 3) == min(costs)


# ---- independence


def imported(path):
    """Top-level names of the modules that a file imports, "" for a relative import."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "" if node.level else node.module.split(".")[0]


def test_the_oracles_import_nothing_of_what_they_judge():
    assert set(imported(Path(oracles.__file__))) <= {*sys.stdlib_module_names, "numpy", "scipy"}


def test_the_verify_package_imports_only_the_lazy_loader_by_itself():
    assert list(imported(Path(lcref.verify.__file__))) == ["lazy_loader"]
