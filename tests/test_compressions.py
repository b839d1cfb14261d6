"""Each kind is the projection that it stands for, on one tensor and on a task of several."""

import itertools
import math

import numpy as np
import pytest
from compared import (KINDS, MATRICES, MU, OF_ARRAYS, OF_WEIGHTS, distance, same_bits, same_part,
                      vector)
from hypothesis import given
from hypothesis import strategies as st
from places import projections

from lcref import (Binary, Each, LowRank, PowersOfTwo, Prune, Quantize, Round, Sum, Task, Ternary,
                   parse)
from lcref.budgets import check_budget
from lcref.parts import ByTensor
from lcref.verify import oracles

pytestmark = pytest.mark.everywhere


# ---- each kind is a projection


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("text", KINDS)
def test_a_kind_is_the_projection_that_it_stands_for(text, dtype):
    w = MATRICES["a"].astype(dtype)
    for compression in (parse(text), Each(parse(text))):
        for task in (w, {"w": w}):
            same_part(compression.project(task, MU), KINDS[text](w))


@pytest.mark.parametrize("text", OF_WEIGHTS)
def test_the_weights_of_a_task_are_projected_as_one_vector(text):
    delta = parse(text).project(MATRICES, MU).decompress()
    assert {name: t.shape for name, t in delta.items()} == {"a": (2, 3), "b": (2, 2)}
    same_bits(vector(delta), OF_WEIGHTS[text](vector(MATRICES)).decompress())


@pytest.mark.parametrize("text", KINDS)
def test_each_projects_every_tensor_of_a_task_on_its_own(text):
    theta = Each(parse(text)).project(MATRICES, MU)
    same_part(theta, ByTensor({name: KINDS[text](w) for name, w in MATRICES.items()}))


@pytest.mark.parametrize("text", OF_ARRAYS)
def test_low_rank_projects_every_tensor_of_a_task_on_its_own(text):
    theta = parse(text).project(MATRICES, MU)
    same_part(theta, ByTensor({name: OF_ARRAYS[text](w) for name, w in MATRICES.items()}))


def whole_matrices(columns):
    """Two matrices of small whole numbers, with as many rows as there are, of some columns."""
    return st.tuples(*(st.lists(st.lists(st.integers(-2, 2), min_size=n, max_size=n), min_size=1,
                                max_size=3).map(lambda rows: np.array(rows, dtype=np.float64))
                       for n in columns))


@given(whole_matrices((2, 3)), st.integers(0, 7), st.sampled_from([0, 1, -1, -2]))
def test_slices_shared_over_the_tensors_of_a_task_are_the_best_of_all_choices(pair, kappa, axis):
    w = dict(zip("ab", pair))
    delta = Prune(groups=kappa, axis=axis).project(w).decompress()
    kept = sum(np.any(t.take(i, axis)) for t in delta.values() for i in range(t.shape[axis]))
    costs = [np.sum(t.take(i, axis) ** 2) for t in pair for i in range(t.shape[axis])]
    left_out = itertools.combinations(costs, max(len(costs) - kappa, 0))
    assert kept <= kappa
    assert distance(w, [delta]) == min(map(sum, left_out))  # whole numbers: exact


def test_keep_along_an_axis_is_of_all_the_slices_of_a_task():
    w = {"a": np.ones((3, 2)), "b": np.full((3, 1), 9.0)}
    theta = Prune(keep=0.67, axis=0).project(w)  # ⌊0.67 · 6⌋ = 4 rows: the three of b, one of a
    same_bits(theta.decompress(), {"a": np.array([[1.0, 1], [0, 0], [0, 0]]), "b": w["b"]})


@pytest.mark.parametrize("groups, kept", [(1, [False, True]), (2, [True, True])])
def test_slices_of_a_task_are_compared_where_their_squares_overflow_and_vanish(groups, kept):
    w = {"a": np.array([[1e-200, 0]]), "b": np.array([[1.5e200, 0], [2e200, 2e200]])}
    delta = Prune(groups=groups, axis=0).project(w).decompress()
    same_bits(delta, {"a": 0 * w["a"], "b": w["b"] * np.array(kept)[:, None]})


CONVOLUTION = np.random.default_rng(0).normal(size=(4, 3, 2, 2))  # out, in, height, width
SCHEMES_BY_HAND = [
    (1, lambda t: np.array([t[o].ravel() for o in range(4)])),
    (2, lambda t: np.array([t[o, :, y, :].ravel() for o in range(4) for y in range(2)]))]


@pytest.mark.parametrize("scheme, matrix", SCHEMES_BY_HAND)
def test_a_convolution_has_low_rank_as_the_matrix_of_its_scheme(scheme, matrix):
    dense = LowRank(2, scheme=scheme).project(CONVOLUTION).decompress()
    assert dense.shape == CONVOLUTION.shape
    # Eckart and Young: the residual is the tail of the spectrum of that matrix
    tail = np.linalg.svd(matrix(CONVOLUTION), compute_uv=False)[2:]
    assert np.linalg.matrix_rank(matrix(dense)) == 2
    assert np.sum((CONVOLUTION - dense) ** 2) == pytest.approx(np.sum(tail**2), rel=1e-12)


@pytest.mark.parametrize("cost, positions", [("storage", 1), ("storage", 4), ("flops", 4)])
@pytest.mark.parametrize("scheme, matrix", SCHEMES_BY_HAND)
def test_the_rank_of_a_convolution_is_selected_as_of_the_matrix_of_its_scheme(
        scheme, matrix, cost, positions):
    compression = LowRank(alpha=0.2, cost=cost, positions=positions, scheme=scheme)
    each = sum(matrix(CONVOLUTION).shape) * (positions if cost == "flops" else 1)
    for mu in (2.0, 6.0, 20.0):
        theta = compression.project(CONVOLUTION, mu)
        alone = projections.rank_selection(matrix(CONVOLUTION), 0.2, mu, lambda r: r * each)
        same_bits(matrix(theta.decompress()), alone.decompress())
        # 2α/μ, times the rank, times what one rank costs: three roundings
        price = float(oracles.price(0.2, mu) * alone.left.shape[1] * each)
        assert compression.penalty(theta, mu) == pytest.approx(price, rel=3 * 2.0**-52)


def test_low_rank_takes_two_axes_or_four():
    with pytest.raises(ValueError, match="2 axes or 4"):
        LowRank(1).project(np.ones((2, 2, 2)))


@pytest.mark.parametrize("mu", [None, 0, 0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("text", [
    "prune(alpha=1)", "prune(alpha=1, norm=1)", "lowrank(alpha=1)", "each(prune(alpha=1))",
    "prune(alpha=1) + prune(kappa=0)", "binary() + prune(alpha=1)", "prune(alpha=0) + binary()",
    "lowrank(alpha=1) + prune(kappa=1)", "each(ternary() + prune(alpha=1, norm=1))"])
def test_a_penalty_form_without_a_positive_mu_is_an_error_that_says_mu(text, mu):
    for task in (MATRICES, MATRICES["a"]):
        with pytest.raises(ValueError, match=r"\bmu\b"):
            parse(text).project(task, mu)


# ---- one compression and several tensors

@given(st.integers(1, 9), st.data(), st.integers(0, 10**4))
def test_keep_is_the_share_in_exact_decimal_arithmetic(digits, data, n):
    numerator = data.draw(st.integers(0, 10**digits))
    keep = float(f"{numerator}e-{digits}")  # the float whose shortest text is that decimal
    w = np.broadcast_to(0.0, (n,))  # of n weights, which take no room
    assert Prune(keep=keep).budget(w) == numerator * n // 10**digits


@pytest.mark.parametrize("keep, n, kappa", [(0.29, 100, 29), (0.57, 100, 57), (0.07, 300, 21),
                                            (1e-05, 300_000, 3), (0.3, 10, 3), (1, 7, 7)])
def test_keep_does_not_lose_one_to_binary_rounding(keep, n, kappa):
    w = np.arange(1.0, n + 1)
    assert np.count_nonzero(Prune(keep=keep).project(w).decompress()) == kappa


def test_keep_is_of_all_the_weights_of_a_task():
    w = {"a": np.arange(1.0, 7).reshape(2, 3), "b": np.array([-9.0, 8, 0, 0])}
    theta = Prune(keep=0.3).project(w)  # ⌊0.3 · 10⌋ = 3, wherever they are
    same_bits(theta.decompress(), {"a": np.array([[0.0, 0, 0], [0, 0, 6]]),
                                   "b": np.array([-9.0, 8, 0, 0])})


PAIR = {"a": np.array([[0.0, 1], [1, 0]]), "b": np.array([10.0, 11, 11, 10])}


def test_a_codebook_is_one_for_all_tensors_of_a_task():
    same_bits(Quantize(k=2).project(PAIR).decompress(),
              {"a": np.full((2, 2), 0.5), "b": np.full(4, 10.5)})


def test_each_gives_every_tensor_its_own_codebook():
    theta = Each(Quantize(k=2)).project(PAIR)
    same_bits(theta.decompress(), PAIR)
    assert theta.bits() == 2 * (4 + 2 * 32)


def test_each_of_a_share_is_the_share_of_every_tensor():
    theta = Each(Prune(keep=0.5)).project(PAIR)
    same_bits(theta.decompress(), {"a": np.array([[0.0, 1], [1, 0]]),
                                   "b": np.array([0.0, 11, 11, 0])})


@pytest.mark.parametrize("inner", [Quantize(2), Prune(kappa=3), LowRank(1),
                                   Binary(scale=True) + Prune(kappa=1)], ids=str)
def test_each_of_a_single_tensor_is_the_compression_itself(inner):
    w = np.random.default_rng(0).normal(size=(4, 3))
    for task in (w, {"w": w}):
        same_bits(Each(inner).project(task).decompress(), inner.project(w).decompress())


def test_low_rank_takes_every_tensor_as_a_matrix_of_its_own():
    # integers: the outer products are exact, and so is their rank
    w = {"a": np.outer([1.0, 2], [3, 1, 2]), "b": np.outer([1.0, -1, 1, 2], [1, 4])}
    delta = LowRank(1).project(w).decompress()
    assert list(delta) == ["a", "b"]
    for name in w:  # one decomposition in float64: a few ulps of the largest singular value, 12
        np.testing.assert_allclose(delta[name], w[name], rtol=0, atol=1e-13)


def test_a_single_tensor_gives_an_array_and_several_a_dict():
    kinds = [Quantize(2), Prune(kappa=1), LowRank(1), Each(Binary()), Binary() + Prune(kappa=1)]
    square = {"a": PAIR["a"], "b": PAIR["b"].reshape(2, 2)}
    for compression in kinds:
        assert compression.project(PAIR["a"]).decompress().shape == (2, 2)
        assert compression.project({"a": PAIR["a"]}).decompress().shape == (2, 2)
        assert {name: t.shape for name, t in compression.project(square).decompress().items()} == {
            "a": (2, 2), "b": (2, 2)}


@pytest.mark.parametrize("compression, says", [
    (Prune(kappa=9), "kappa=9.* 8 "), (Prune(groups=5, axis=1), "groups=5.* 4 "),
    (Prune(groups=1, axis=2), "axis=2.*2 axes"), (Each(Prune(groups=3, axis=0)), "groups=3.* 2 "),
    (LowRank(3), "rank=3.*a"), (Each(Prune(kappa=5)), "kappa=5"),
    (Binary() + Prune(kappa=9), "kappa=9"), (Each(Binary() + LowRank(3)), "rank=3")], ids=str)
def test_a_budget_above_what_the_tensors_hold_is_found_by_check(compression, says):
    square = {"a": PAIR["a"], "b": PAIR["b"].reshape(2, 2)}
    with pytest.raises(ValueError, match=says):
        check_budget(compression, square)


@pytest.mark.of_numpy
@pytest.mark.parametrize("make", [
    lambda: Quantize(0), lambda: Quantize(2.5), lambda: Prune(), lambda: Prune(kappa=-1),
    lambda: Prune(keep=1.5), lambda: Prune(keep=math.nan), lambda: Prune(radius=-1.0),
    lambda: Prune(kappa=1, radius=1.0), lambda: LowRank(-1), lambda: LowRank(1, scheme=3),
    lambda: Quantize(2, codebook=[1.0]), lambda: Quantize(2, scale=True), lambda: PowersOfTwo(0.5),
    lambda: Quantize(codebook=[0.0, math.nan]), lambda: Quantize(codebook=np.ones((2, 2))),
    lambda: Round("float8"), lambda: Round(16), lambda: Prune(alpha=math.inf),
    lambda: Prune(alpha=1.0, norm=2), lambda: Prune(radius=1.0, norm=1), lambda: Prune(groups=1),
    lambda: Prune(groups=1, axis=0.5), lambda: Prune(radius=1.0, axis=0), lambda: Prune(axis=0),
    lambda: LowRank(), lambda: LowRank(1, alpha=1.0), lambda: LowRank(alpha=math.nan),
    lambda: LowRank(alpha=1.0, cost=len), lambda: LowRank(alpha=1.0, positions=1.5),
    lambda: Each(2), lambda: Sum(Binary()), lambda: Sum(Binary(), 2),
    lambda: Sum(Binary(), Ternary(), solver="magic"), lambda: Sum(Binary(), Ternary(), cycles=0),
    lambda: Sum(Binary(), Ternary(), tol=math.nan), lambda: Task((), Binary()),
    lambda: Task(("a", "a"), Binary()), lambda: Task("a", 2)])
def test_a_setting_out_of_its_range_is_an_error_when_it_is_made(make):
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize("make", [Binary, Ternary])
def test_a_flag_is_true_or_false_and_not_a_text(make):
    with pytest.raises(ValueError, match="scale must be True or False, not 'no'"):
        make(scale="no")


def test_an_infinite_radius_is_an_error():
    with pytest.raises(ValueError, match="finite"):
        Prune(radius=np.inf)


@pytest.mark.parametrize("w", [np.ones((3, 2)), {"a": np.ones((3, 2)), "b": np.ones((3, 2))}],
                         ids=["array", "dict"])
def test_a_share_of_the_slices_along_an_axis_that_is_not_there_is_an_error(w):
    with pytest.raises(ValueError, match="one of the 2 axes of w, not 2"):
        Prune(keep=0.5, axis=2).project(w)


def test_slices_shared_by_tensors_of_two_dtypes_are_an_error():
    with pytest.raises(ValueError, match="dtype"):
        Prune(groups=1, axis=0).project({"a": np.ones(2, dtype=np.float32), "b": np.ones(2)})


@pytest.mark.of_numpy
@pytest.mark.parametrize("compression", [Binary(), Each(Binary()), LowRank(1),
                                         Binary(scale=True) + Prune(kappa=1)], ids=str)
def test_a_list_of_arrays_is_no_task(compression):
    with pytest.raises(TypeError, match="not a list"):
        compression.project([np.array([1.0, 2]), np.array([3.0])])


@pytest.mark.parametrize("make", [
    lambda: LowRank(2, cost="flops"), lambda: LowRank(2, positions=9), lambda: Prune(radius="5"),
    lambda: Prune(alpha=True), lambda: Quantize(codebook=["1", "2"]),
    lambda: Quantize(codebook=[True, 2]), lambda: Sum(Binary(), Ternary(), tol="1e-3")])
def test_a_setting_that_would_be_ignored_or_is_no_number_is_an_error(make):
    with pytest.raises(ValueError):
        make()


@pytest.mark.of_numpy
def test_a_power_of_two_that_the_dtype_has_not_is_an_error_that_names_c_in_a_sum_too():
    w = np.ones(3, dtype=np.float32)
    for compression in (PowersOfTwo(150), PowersOfTwo(150) + Prune(kappa=1)):
        with pytest.raises(ValueError, match="^c must leave .* float32, not 150$"):
            compression.project(w)
