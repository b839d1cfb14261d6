"""What is refused, and what the refusal says."""

import re

import numpy as np
import pytest

from lcref.projections import binary, kmeans, l0_ball, l1_ball, rank_ball, ternary

W = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, 2.0]])

CALLS = pytest.mark.parametrize(
    "project, budget",
    [(kmeans, [2]), (binary, []), (ternary, []), (binary, [True]), (ternary, [True])]
    + [(l0_ball, [2]), (l1_ball, [2.0]), (rank_ball, [1])],
)
BAD = [
    (kmeans, "k", 1, [0, -1, 1.5, np.nan, np.inf]),
    (l0_ball, "kappa", 0, [-1, 1.5, np.nan, np.inf]),
    (l1_ball, "radius", 0, [-1.0, -1e-300, np.nan, np.inf]),
    (rank_ball, "rank", 0, [-1, 1.5, np.nan, np.inf]),
]


@CALLS
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number_is_refused_by_name(project, budget, dtype, value, place):
    w = W.astype(dtype)
    w[1, 1] = value
    with pytest.raises(ValueError, match=r"\bw\b"):
        project(place(w), *budget)


@CALLS
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.complex128])
def test_weights_that_are_not_real_floating_are_refused_by_name(project, budget, dtype, place):
    with pytest.raises((TypeError, ValueError), match=r"\bw\b"):
        project(place(np.ones((2, 3), dtype)), *budget)


@pytest.mark.parametrize(
    "project, name, limit, value", [(*row[:3], value) for row in BAD for value in row[3]]
)
def test_a_bad_budget_is_refused_with_its_name_value_and_limit(project, name, limit, value):
    with pytest.raises(ValueError) as refused:
        project(W, value)
    words = re.findall(r"[\w.+-]*\w", str(refused.value))
    assert {name, str(value), str(limit)} <= set(words)


@pytest.mark.parametrize("project, name, limit, values", BAD)
def test_a_bad_budget_is_refused_even_where_w_is_empty(project, name, limit, values):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        project(np.zeros((0, 3)), values[0])


@pytest.mark.parametrize("project", [kmeans, l0_ball, rank_ball])
@pytest.mark.parametrize("whole", [np.int64, np.uint8, np.int32])
def test_a_whole_number_of_any_type_is_a_budget(project, whole):
    same = project(W, 2).decompress().tolist()
    assert project(W, whole(2)).decompress().tolist() == same


@pytest.mark.parametrize("number", [int, np.float32, np.int64])
def test_a_radius_may_be_any_real_number(number):
    assert l1_ball(W, number(2)).decompress().tolist() == l1_ball(W, 2.0).decompress().tolist()


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3)])
def test_a_rank_is_refused_to_anything_but_a_matrix(shape, place):
    with pytest.raises(ValueError, match=r"\bw\b"):
        rank_ball(place(np.ones(shape)), 1)
