"""Every projection is timed, on data that are the same each time."""

import numpy as np
import pytest

from lcref import projections
from lcref.bench.cases import BY_NAME, CASES, matrix, weights


def test_every_projection_has_a_case_and_every_case_a_name_of_its_own():
    assert {case.function for case in CASES} == set(projections.__all__)
    assert len(BY_NAME) == len(CASES)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_are_gaussian_layers_with_deviations_from_two_hundredths_to_two_tenths(dtype):
    w = weights(100_000, dtype)
    assert w.shape == (100_000,) and w.dtype == dtype
    deviations = np.std(w.reshape(20, -1), axis=1)
    expected = 0.02 * 10 ** (np.arange(20) / 19)
    # the deviation of 5,000 draws has a relative standard error of 1%
    assert np.all(np.abs(deviations / expected - 1) < 0.05)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_matrix_is_nine_times_as_wide_as_high_and_that_of_the_target_is_512_by_4608(dtype):
    w = matrix(512 * 4608, dtype)
    assert w.shape == (512, 4608) and w.dtype == dtype
    assert abs(np.std(w) / 0.05 - 1) < 0.01
    assert matrix(1, dtype).shape == (1, 9)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_case_calls_its_projection_on_the_same_data_each_time(name, dtype):
    case = BY_NAME[name]
    w, again = case.data(20_000, dtype), case.data(20_000, dtype)
    assert w.tobytes() == again.tobytes()
    theta = case.call(w, *case.arguments(w)).decompress()
    assert theta.shape == w.shape and theta.dtype == w.dtype
    assert not np.array_equal(theta, w), "nothing to do"
    assert np.any(theta), "all is zero"
    assert case.excess(theta, *case.arguments(w)) <= 0
    assert case.family in ("quantize", "prune", "lowrank", "joint")


def test_the_budgets_bind_so_that_a_point_beyond_them_is_seen():
    w = weights(2000, "float64")
    l0, l1 = BY_NAME["l0_ball 1%"], BY_NAME["l1_ball"]
    assert l0.arguments(w) == (20,) and l0.excess(np.r_[np.ones(21), np.zeros(9)], 20) == 1
    assert l1.excess(w, *l1.arguments(w)) > 0.8 * np.sum(np.abs(w))


def test_the_penalties_are_those_of_the_docstrings():
    theta = np.array([[1.0, -2.0, 0.0], [2.0, -4.0, 0.0]])      # of rank 1, four nonzeros, norm 9
    prices = {"l0_penalty": 4, "l1_penalty": 9, "rank_selection": 1 * (2 + 3)}
    for name, count in prices.items():
        assert BY_NAME[name].penalty(theta, 0.3, 2.0) == pytest.approx(2 * 0.3 / 2.0 * count)


def test_the_price_of_the_rank_selects_neither_none_nor_all():
    case = BY_NAME["rank_selection"]
    for n in (2000, 100_000):
        w = case.data(n, "float64")
        assert 0.1 < np.linalg.matrix_rank(case.call(w, *case.arguments(w)).decompress()) / len(
            w) < 0.9
