"""Pruning: what holds of one projection only, and values worked by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from problems import PROBLEMS, objective, slack, vectors

from lcref.projections import l0_ball, l1_ball
from lcref.verify import oracles

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
