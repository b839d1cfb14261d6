"""Pruning: what holds of one projection only, and values worked by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from places import group_l0_ball, l0_ball, l0_penalty, l1_ball, l1_penalty
from problems import PROBLEMS, matrices, objective, prices, slack, vectors

from lcref.verify import oracles

pytestmark = pytest.mark.everywhere

DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])


# ---- both


@pytest.mark.parametrize("project, budgets", [(l0_ball, [0, 1, 5, 30]), (l1_ball, [0.0, 2.0, 1e9])])
@given(data=st.data())
def test_positions_ascend_and_lie_within_w(project, budgets, data):
    w = data.draw(vectors(max_size=30))
    indices = project(w, data.draw(st.sampled_from(budgets))).indices
    ends = np.concatenate([[-1], indices, [w.size]])
    assert np.all(ends[1:] > ends[:-1])


@pytest.mark.parametrize("project", [l0_ball, l1_ball])
@given(w=vectors(max_size=30))
def test_a_budget_of_nothing_leaves_zero(project, w):
    assert not np.any(project(w, 0).decompress())


# ---- l0


@given(w=vectors(max_size=30), more=st.integers(0, 3))
def test_l0_ball_with_room_for_all_returns_w_itself(w, more):
    assert l0_ball(w, w.size + more).decompress().tobytes() == w.tobytes()


@given(w=vectors(max_size=30), kappa=st.integers(0, 31))
def test_l0_ball_keeps_kappa_positions_at_most(w, kappa):
    assert l0_ball(w, kappa).indices.size <= kappa


@given(w=vectors(max_size=30), kappa=st.integers(0, 31))
def test_l0_ball_keeps_entries_as_they_are_or_drops_them(w, kappa):
    theta = l0_ball(w, kappa).decompress()
    assert np.all((theta == w) | (theta == 0))


@given(w=vectors(max_size=30), kappa=st.integers(0, 31))
def test_l0_ball_drops_no_magnitude_above_one_that_it_keeps(w, kappa):
    kept = l0_ball(w, kappa).decompress() != 0
    assert np.max(np.abs(w[~kept]), initial=0) <= np.min(np.abs(w[kept]), initial=np.inf)


@given(magnitudes=st.lists(st.integers(1, 3), min_size=1, max_size=12), data=st.data())
def test_l0_ball_gives_a_tie_to_the_lower_index(magnitudes, data):
    signs = data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=12, max_size=12))
    w = np.array([m * sign for m, sign in zip(magnitudes, signs)])
    kappa = data.draw(st.integers(0, w.size))
    first = sorted(range(w.size), key=lambda i: (-magnitudes[i], i))[:kappa]
    assert l0_ball(w, kappa).indices.tolist() == sorted(first)


def test_l0_ball_of_a_matrix_counts_positions_row_by_row():
    part = l0_ball(np.array([[1.0, -5.0, 2.0], [4.0, 0.0, -3.0]]), 2)
    assert (part.indices.tolist(), part.values.tolist()) == ([1, 3], [-5.0, 4.0])


def test_l0_ball_sees_that_the_largest_magnitudes_are_negative():
    assert l0_ball(np.array([-9.0, 1.0, 2.0, -8.0]), 2).decompress().tolist() == [-9.0, 0, 0, -8.0]


# ---- l1


@given(w=vectors(max_size=60), fraction=st.floats(0.001, 1.2))
def test_l1_ball_reaches_the_lower_bound_of_its_dual(w, fraction):
    radius = fraction * float(np.sum(np.abs(w), dtype=np.float64))
    theta = l1_ball(w, radius).decompress()
    # the published constant; the root is found to 1e-15, which enters squared
    optimum = oracles.l1_ball_root(w, radius)
    assert objective(w, theta) <= optimum + slack(PROBLEMS["l1_ball"], w, theta)


@DTYPES
@pytest.mark.parametrize("radius", [1e-3, 10.0, 1000.0])
def test_l1_ball_reaches_the_lower_bound_of_its_dual_on_two_thousand_points(dtype, radius):
    w = np.random.default_rng(0).standard_t(2, size=2000).astype(dtype)
    theta = l1_ball(w, radius).decompress()
    # the published constant; the root is found to 1e-15, which enters squared
    optimum = oracles.l1_ball_root(w, radius)
    assert objective(w, theta) <= optimum + slack(PROBLEMS["l1_ball"], w, theta)


# sums in float64 tell the inside from the outside to n·ε, here below 2⁻⁴⁰
@given(w=vectors(max_size=30), factor=st.sampled_from([1 + 2**-40, 1.5, 100]))
def test_l1_ball_returns_w_itself_from_inside(w, factor):
    radius = math.fsum(abs(w).tolist()) * factor
    assert l1_ball(w, radius).decompress().tolist() == w.tolist()


@given(w=vectors(max_size=30), fraction=st.floats(0.001, 0.99))
def test_l1_ball_spends_the_whole_radius_from_outside(w, fraction):
    radius = fraction * float(np.sum(np.abs(w), dtype=np.float64))
    norm = sum(map(abs, map(Fraction, l1_ball(w, radius).decompress().tolist())), Fraction(0))
    # as in the feasibility of the other side, n·u, of ‖w‖₁ since τ comes from sums that large
    u, total = Fraction(float(np.finfo(w.dtype).eps)), sum(map(abs, map(Fraction, w.tolist())))
    assert norm >= Fraction(radius) - w.size * u * total


@given(w=vectors(max_size=30), fraction=st.one_of(st.just(1.0), st.floats(0.001, 1.2)))
@example(w=np.array([1e-67, 3e-67, 1e-72, 1e-72]), fraction=1.0)  # the sum rounds above the radius
def test_l1_ball_shrinks_and_keeps_signs(w, fraction):
    theta = l1_ball(w, fraction * math.fsum(abs(w).tolist())).decompress()
    assert np.all((np.abs(theta) <= np.abs(w)) & ((theta == 0) | (np.sign(theta) == np.sign(w))))


@DTYPES
def test_l1_ball_shrinks_all_by_the_same_threshold(dtype):
    # outside: (4 + 3 + 1) − 3·τ = 4 gives τ = 4/3 > 1, so the 1 goes and (4 + 3) − 2·τ = 4
    theta = l1_ball(np.array([4.0, -3.0, 1.0], dtype), 4.0).decompress()
    assert theta.tolist() == [2.5, -1.5, 0.0]


@DTYPES
def test_l1_ball_leaves_a_vertex_where_one_entry_dominates(dtype):
    assert l1_ball(np.array([1.0, -9.0, 2.0], dtype), 3.0).decompress().tolist() == [0.0, -3.0, 0.0]


@DTYPES
def test_l1_ball_of_the_largest_numbers_does_not_overflow(dtype):
    largest = float(np.finfo(dtype).max)
    theta = l1_ball(np.full(2, largest, dtype), largest).decompress()
    # half of the largest number is exact in binary
    assert theta.tolist() == [largest / 2, largest / 2]


# ---- penalties


@pytest.mark.parametrize("project", [l0_penalty, l1_penalty])
@given(w=vectors(max_size=30), mu=st.sampled_from([1e-3, 1.0, 7.0]))
def test_a_price_of_nothing_returns_w_itself(project, w, mu):
    assert project(w, 0, mu).decompress().tolist() == w.tolist()


@pytest.mark.parametrize("project", [l0_penalty, l1_penalty])
def test_a_penalty_has_positions_that_ascend_and_values_that_are_not_zero(project):
    part = project(np.array([[0.0, -3.0], [0.5, 4.0]]), 1.0, 1.0)
    assert part.indices.tolist() == [1, 3] and np.all(part.values)


@pytest.mark.parametrize("project", [l0_penalty, l1_penalty])
@given(w=vectors(max_size=30))
def test_as_mu_goes_to_zero_theta_goes_to_zero(project, w):
    assert project(w, 1e300, 1e-300).values.size == 0


@DTYPES
def test_l0_penalty_is_worked_by_hand(dtype):
    # 2α/μ = 4: at w² = 4 the weight is dropped
    w = np.array([2.0, -2.0, np.nextafter(dtype(2), dtype(3)), 1.0, -3.0], dtype)
    assert l0_penalty(w, 1.0, 0.5).decompress().tolist() == [0.0, 0.0, float(w[2]), 0.0, -3.0]


@given(w=vectors(max_size=30), data=st.data())
def test_l0_penalty_twice_is_l0_penalty_once(w, data):
    budget = data.draw(prices(2)(w))
    once = l0_penalty(w, *budget).decompress()
    assert l0_penalty(once, *budget).decompress().tolist() == once.tolist()


@given(w=vectors(max_size=30), data=st.data())
def test_l0_penalty_is_the_l0_ball_of_as_many_nonzeros(w, data):
    theta = l0_penalty(w, *data.draw(prices(2)(w))).decompress()
    ball = l0_ball(w, np.count_nonzero(theta)).decompress()
    assert objective(w, theta) == objective(w, ball)


@DTYPES
def test_l1_penalty_is_worked_by_hand(dtype):
    # α/μ = 1.5
    w = np.array([4.0, -2.0, 1.5, -1.5, 0.0, 1.0], dtype)
    assert l1_penalty(w, 3.0, 2.0).decompress().tolist() == [2.5, -0.5, 0.0, 0.0, 0.0, 0.0]


def test_l1_penalty_shrinks_again_when_it_is_repeated():
    once = l1_penalty(np.array([4.0]), 1.0, 1.0).decompress()
    assert l1_penalty(once, 1.0, 1.0).decompress().tolist() == [2.0]


@given(w=vectors(max_size=30), data=st.data())
def test_l1_penalty_shrinks_and_keeps_signs(w, data):
    theta = l1_penalty(w, *data.draw(prices(1)(w))).decompress()
    assert np.all((np.abs(theta) <= np.abs(w)) & ((theta == 0) | (np.sign(theta) == np.sign(w))))


@pytest.mark.parametrize("project, power", [(l0_penalty, 2), (l1_penalty, 1)])
@given(w=vectors(max_size=30), data=st.data())
def test_a_larger_price_leaves_no_more_nonzeros(project, power, w, data):
    alpha, mu = data.draw(prices(power)(w))
    assert project(w, 1.5 * alpha, mu).values.size <= project(w, alpha, mu).values.size


# ---- groups


def test_group_l0_ball_keeps_the_rows_or_columns_of_largest_norm():
    # norms² of the rows 26, 32, 25; of the columns 25 + 1 + 0, 25 + 16 + 16
    w = np.array([[5.0, 1.0], [4.0, 4.0], [0.0, -5.0]])
    rows, columns = group_l0_ball(w, 2, 0), group_l0_ball(w, 1, 1)
    assert rows.decompress().tolist() == [[5.0, 1.0], [4.0, 4.0], [0.0, 0.0]]
    assert columns.decompress().tolist() == [[0.0, 1.0], [0.0, 4.0], [0.0, -5.0]]
    assert (rows.indices.tolist(), columns.values.tolist()) == ([0, 1], [[1.0], [4.0], [-5.0]])


def test_group_l0_ball_compares_squares_not_magnitudes():
    # of (3, 3) and (5, 0) the first has the larger sum, the second the larger norm
    assert group_l0_ball(np.array([[3.0, 3.0], [5.0, 0.0]]), 1, 0).indices.tolist() == [1]


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@given(rows=st.lists(st.integers(1, 2), min_size=4, max_size=4), kappa=st.integers(0, 5))
def test_group_l0_ball_gives_a_tie_to_the_lower_index(axis, rows, kappa):
    w = np.moveaxis(np.array(rows)[:, None, None] * np.array([[3.0, -4.0]]), 0, axis)
    first = sorted(range(4), key=lambda i: (-rows[i], i))[:kappa]
    assert group_l0_ball(w, kappa, axis).indices.tolist() == sorted(first)


@given(w=vectors(max_size=30), kappa=st.integers(0, 31))
def test_group_l0_ball_of_single_entries_is_the_l0_ball(w, kappa):
    # at the same scale squares tie where magnitudes do, but those that vanish in a sum
    theta = group_l0_ball(w, kappa, 0).decompress()
    assert abs(objective(w, theta) - objective(w, l0_ball(w, kappa).decompress())) <= slack(
        PROBLEMS["l0_ball"], w, theta)


@given(w=matrices(max_size=30), more=st.integers(0, 2), axis=st.integers(0, 1))
def test_group_l0_ball_with_room_for_all_returns_w_itself(w, more, axis):
    theta = group_l0_ball(w, w.shape[axis] + more, axis).decompress()
    assert theta.tobytes() == w.tobytes()


@given(w=matrices(max_size=30), axis=st.integers(0, 1))
def test_group_l0_ball_of_no_slices_leaves_zero(w, axis):
    assert not np.any(group_l0_ball(w, 0, axis).decompress())


@pytest.mark.parametrize("axis", range(4))
def test_an_axis_may_be_counted_from_the_end(axis):
    w = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
    part, other = group_l0_ball(w, 1, axis), group_l0_ball(w, 1, axis - 4)
    assert part.axis == other.axis == axis
    assert part.decompress().tolist() == other.decompress().tolist()
