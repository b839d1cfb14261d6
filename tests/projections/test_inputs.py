"""What is refused, and what the refusal says."""

import re

import numpy as np
import pytest
from places import (binary, group_l0_ball, kmeans, l0_ball, l0_penalty, l1_ball, l1_penalty,
                    nearest, powers_of_two, rank_ball, rank_selection, round_to, scaled_codebook,
                    ternary)

pytestmark = pytest.mark.everywhere

W = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, 2.0]])

CALLS = pytest.mark.parametrize(
    "project, budget",
    [(kmeans, [2]), (binary, []), (ternary, []), (binary, [True]), (ternary, [True])]
    + [(l0_ball, [2]), (l1_ball, [2.0]), (rank_ball, [1]), (nearest, [[0, 1]])]
    + [(powers_of_two, [1]), (scaled_codebook, [[0, 1]]), (round_to, ["float16"])]
    + [(round_to, ["bfloat16"]), (round_to, ["int4"]), (l0_penalty, [1.0, 1.0])]
    + [(l1_penalty, [1.0, 1.0]), (group_l0_ball, [1, 0]), (rank_selection, [1.0, 1.0])],
)
BAD = [
    (kmeans, "k", 1, [0, -1, 1.5, np.nan, np.inf]),
    (l0_ball, "kappa", 0, [-1, 1.5, np.nan, np.inf]),
    (l1_ball, "radius", 0, [-1.0, -1e-300, np.nan, np.inf]),
    (rank_ball, "rank", 0, [-1, 1.5, np.nan, np.inf]),
    (powers_of_two, "c", 0, [-1, 1.5, np.nan, np.inf]),
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


# ---- the arguments of one projection each

PENALTIES = pytest.mark.parametrize("project", [l0_penalty, l1_penalty, rank_selection])
EVEN_WHERE_EMPTY = pytest.mark.parametrize("w", [W, np.zeros((0, 3))], ids=["w", "empty"])


@PENALTIES
@EVEN_WHERE_EMPTY
@pytest.mark.parametrize("alpha", [-1.0, -1e-300, np.nan, np.inf, "x"])
def test_a_bad_alpha_is_refused_by_name(project, w, alpha):
    with pytest.raises(ValueError, match=r"\balpha\b.*at least 0"):
        project(w, alpha, 1.0)


@PENALTIES
@EVEN_WHERE_EMPTY
@pytest.mark.parametrize("mu", [0, 0.0, -0.0, -1.0, np.nan, np.inf, None])
def test_a_bad_mu_is_refused_by_name(project, w, mu):
    with pytest.raises(ValueError, match=r"\bmu\b"):
        project(w, 1.0, mu)


@EVEN_WHERE_EMPTY
@pytest.mark.parametrize("project", [nearest, scaled_codebook])
@pytest.mark.parametrize("codebook", [
    [], [1.0, 0.0], [0.0, 1.0, 1.0], [np.nan], [0.0, np.inf], 1.0, [[0.0, 1.0]], None,
])
def test_a_bad_codebook_is_refused_by_name(project, w, codebook, place):
    with pytest.raises(ValueError, match=r"\bcodebook\b"):
        project(place(w), codebook)


@pytest.mark.parametrize("project", [nearest, scaled_codebook])
def test_a_codebook_is_refused_where_its_entries_are_one_number_in_the_dtype_of_w(project):
    close = [1.0, 1.0 + 1e-9]
    assert project(W, close).entries.size == 2
    with pytest.raises(ValueError, match=r"\bcodebook\b.*\bfloat32\b"):
        project(W.astype(np.float32), close)


@pytest.mark.parametrize("project", [nearest, scaled_codebook])
@pytest.mark.parametrize("kind", [tuple, np.array, lambda c: np.array(c, np.float32)])
def test_a_codebook_may_be_any_sequence_and_is_not_written_to(project, kind, place):
    codebook = kind([0.5, 2.0])
    theta = project(W, codebook).decompress()
    assert theta.tolist() == project(W, [0.5, 2.0]).decompress().tolist()
    assert list(codebook) == [0.5, 2.0]
    assert project(place(W), place(np.array([0.5, 2.0]))).entries.shape == (2,)


@EVEN_WHERE_EMPTY
@pytest.mark.parametrize("dtype, meant", [
    ("float8", "float16"), ("int9", "int8"), ("int1", "int"), ("Float16", "float16"),
    (None, "bfloat16"), (np.float16, "bfloat16"),
])
def test_an_unknown_dtype_is_refused_with_what_is_known(w, dtype, meant):
    with pytest.raises(ValueError, match=rf"\bdtype\b.*{meant}"):
        round_to(w, dtype)


@EVEN_WHERE_EMPTY
@pytest.mark.parametrize("axis", [2, -3, 0.0, "0", None, (0, 1)])
def test_an_axis_that_w_has_not_is_refused_by_name(w, axis):
    with pytest.raises(ValueError, match=r"\baxis\b.*\b2 axes"):
        group_l0_ball(w, 1, axis)


def test_a_number_without_axes_has_no_slices():
    with pytest.raises(ValueError, match=r"\baxis\b"):
        group_l0_ball(np.array(1.0), 1, 0)


@pytest.mark.parametrize("kappa", [-1, 1.5, np.nan])
def test_a_bad_number_of_slices_is_refused_by_name(kappa):
    with pytest.raises(ValueError, match=r"\bkappa\b"):
        group_l0_ball(W, kappa, 0)


@EVEN_WHERE_EMPTY
@pytest.mark.parametrize("cost", ["memory", "Storage", None, ["storage"]])
def test_an_unknown_cost_is_refused_by_name(w, cost):
    with pytest.raises(ValueError, match=r"\bcost\b.*'storage'.*'flops'"):
        rank_selection(w, 1.0, 1.0, cost)


@EVEN_WHERE_EMPTY
@pytest.mark.parametrize("positions", [0, -1, 1.5, np.nan])
def test_a_bad_number_of_positions_is_refused_by_name(w, positions):
    with pytest.raises(ValueError, match=r"\bpositions\b.*at least 1"):
        rank_selection(w, 1.0, 1.0, "flops", positions)


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3)])
def test_a_rank_is_selected_for_nothing_but_a_matrix(shape, place):
    with pytest.raises(ValueError, match=r"\bw\b"):
        rank_selection(place(np.ones(shape)), 1.0, 1.0)
