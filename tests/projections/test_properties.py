"""What holds of every projection, one property a test, for each row of the table of problems."""

from fractions import Fraction

import numpy as np
import pytest
from array_api_compat import array_namespace, device
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (PROBLEMS, answer, name_of, no_penalty, objective, slack, to_numpy,
                      vectors)

pytestmark = pytest.mark.everywhere


def for_problems(condition):
    """Run a test for each row of the table that fulfils the condition."""
    chosen = {name: problem for name, problem in PROBLEMS.items() if condition(problem)}
    return pytest.mark.parametrize("problem", chosen.values(), ids=chosen.keys())


for_every_problem = for_problems(lambda problem: True)


def draw_case(data, problem, max_size=8, **how):
    """Draw w and a budget for it."""
    w = data.draw(problem.weights(max_size=max_size, **how), label="w")
    return w, data.draw(problem.budgets(w), label="budget")


def projected(problem, w, budget):
    """Π(w), decompressed, as a NumPy array."""
    return to_numpy(problem.project(w, budget).decompress())


def bits(x):
    """The bytes of x, so that equal means equal bit for bit."""
    return x.shape, x.dtype, np.ascontiguousarray(x).tobytes()


# ---- the optimum


@for_every_problem
@given(data=st.data())
def test_no_feasible_point_is_nearer_than_the_projection(problem, count, data):
    w, budget = draw_case(data, problem, problem.small)
    found = answer(problem, w, budget)
    gap = found.value - problem.optimum(w, budget)
    count(name_of(problem), w, budget, gap, found.slack)
    # the published constant: rounding of θ and of sums in float64, see `slack`
    assert gap <= found.slack


@for_every_problem
@given(data=st.data())
def test_the_projection_is_feasible(problem, data):
    w, budget = draw_case(data, problem, max_size=30)
    assert problem.feasible(projected(problem, w, budget), budget)


@for_problems(lambda problem: problem.penalty is no_penalty)
@given(data=st.data())
def test_projecting_a_feasible_point_costs_nothing(problem, data):
    w, budget = draw_case(data, problem, max_size=30)
    theta = projected(problem, w, budget)
    again = projected(problem, theta, budget)
    # θ itself has objective 0, so the published constant is all that is left
    assert objective(theta, again) <= slack(problem, theta, again)


LARGEST = {np.float64: 2.0**1020, np.float32: 2.0**124, np.float16: 2.0**12}


@for_every_problem
@pytest.mark.parametrize("dtype", LARGEST, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("end", ["largest", "smallest normal", "smallest subnormal"])
@given(data=st.data())
@settings(max_examples=20)
def test_the_optimum_survives_at_both_ends_of_the_floating_range(problem, end, dtype, data):
    info = np.finfo(dtype)
    unit = {
        "largest": LARGEST[dtype],  # times 3 and doubled by a sum it overflows
        "smallest normal": float(info.tiny),
        "smallest subnormal": float(info.smallest_subnormal),
    }[end]
    small = problem.weights(max_size=min(6, problem.small), at_all_scales=False).map(np.rint)
    w = (data.draw(small, label="w / unit").astype(np.float64) * unit).astype(dtype)
    budget = data.draw(problem.budgets(w), label="budget")
    found = answer(problem, w, budget)
    # the published constant and half a spacing of the subnormal numbers, see `slack`
    assert found.value <= problem.optimum(w, budget) + found.slack


# ---- symmetry, scale, budget: facts about objectives, not about points


@for_every_problem
@given(data=st.data())
def test_the_objective_does_not_change_when_entries_are_permuted(problem, data):
    w, budget = draw_case(data, problem, max_size=30)
    moved = w
    for axis in range(w.ndim):
        moved = np.take(moved, data.draw(st.permutations(range(w.shape[axis]))), axis=axis)
    found, other = answer(problem, w, budget), answer(problem, moved, budget)
    # both are within their slack of the same optimum
    assert abs(found.value - other.value) <= max(found.slack, other.slack)


@for_problems(lambda problem: problem.signs)
@given(data=st.data())
def test_the_objective_does_not_change_when_signs_change(problem, data):
    w, budget = draw_case(data, problem, max_size=30)
    choose = {"all": (1,) * w.ndim, "each": w.shape, "lines": (w.shape[0], 1)[: w.ndim]}
    shape = choose[problem.signs]
    count = int(np.prod(shape))
    signs = data.draw(st.lists(st.sampled_from([-1, 1]), min_size=count, max_size=count))
    flipped = w * np.reshape(signs, shape).astype(w.dtype)
    found, other = answer(problem, w, budget), answer(problem, flipped, budget)
    # both are within their slack of the same optimum
    assert abs(found.value - other.value) <= max(found.slack, other.slack)


@for_problems(lambda problem: problem.homogeneous)
@given(data=st.data(), half=st.integers(-20, 20))
def test_the_objective_scales_with_the_square_of_a_power_of_two(problem, data, half):
    w, budget = draw_case(data, problem, max_size=30, at_all_scales=False)
    s = 4.0**half  # a power of four: the factors of a low-rank part scale by its root
    found = answer(problem, w, budget)
    scaled = answer(problem, w * w.dtype.type(s), problem.stretch(budget, s))
    # exact: multiplying by a power of two rounds nothing
    assert scaled.value == found.value * Fraction(s) ** 2


@for_problems(lambda problem: problem.larger)
@given(data=st.data())
def test_a_larger_budget_never_costs_more(problem, data):
    w, budget = draw_case(data, problem, max_size=30)
    tight = projected(problem, w, budget)
    loose = projected(problem, w, problem.larger(budget))
    # the looser one is within its slack of an optimum that is no higher
    assert objective(w, loose) <= objective(w, tight) + slack(problem, w, loose)


# ---- arrays


@for_every_problem
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@given(data=st.data())
def test_theta_has_the_shape_and_dtype_of_w(problem, dtype, data):
    w = np.random.default_rng(0).normal(size=data.draw(st.sampled_from(problem.shapes)))
    w = np.asarray(w, dtype=dtype)
    theta = problem.project(w, problem.usual).decompress()
    assert (theta.shape, theta.dtype) == (w.shape, w.dtype)


@pytest.mark.torch
@for_every_problem
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(data=st.data())
def test_theta_has_the_shape_and_dtype_of_w_in_every_namespace(problem, dtype, place, data):
    w = np.random.default_rng(0).normal(size=data.draw(st.sampled_from(problem.shapes)))
    w = place(np.asarray(w, dtype=dtype))
    theta = problem.project(w, problem.usual).decompress()
    assert (theta.shape, theta.dtype) == (w.shape, w.dtype)


@pytest.mark.torch
@for_every_problem
@given(data=st.data())
@settings(max_examples=20)
def test_w_is_not_written_to(problem, place, data):
    w, budget = draw_case(data, problem, max_size=30)
    placed = place(w.copy())
    problem.project(placed, budget).decompress()
    assert bits(to_numpy(placed)) == bits(w)


@pytest.mark.of_numpy
@for_every_problem
@given(data=st.data())
def test_theta_does_not_change_when_w_is_overwritten_later(problem, data):
    w, budget = draw_case(data, problem, max_size=30)
    part = problem.project(w, budget)
    before = bits(part.decompress())
    w[...] = 7
    assert bits(part.decompress()) == before


@for_every_problem
@given(data=st.data())
def test_the_same_w_gives_the_same_bits(problem, data):
    w, budget = draw_case(data, problem, max_size=30)
    assert bits(projected(problem, w, budget)) == bits(projected(problem, w.copy(), budget))


@pytest.mark.of_numpy
@for_every_problem
@given(data=st.data())
def test_the_layout_of_w_in_memory_does_not_matter(problem, data):
    w = data.draw(vectors(shape=(3, 4)), label="w")
    budget = data.draw(problem.budgets(w), label="budget")
    spaced = np.repeat(w.T, 2, axis=0)[::2].T  # column by column, with a gap after each
    assert bits(spaced) == bits(w) and not spaced.flags.c_contiguous
    found, other = answer(problem, w, budget), answer(problem, spaced, budget)
    # both are within their slack of the same optimum (BLAS may sum in another order)
    assert abs(found.value - other.value) <= max(found.slack, other.slack)


def numbers(part):
    """The whole numbers in a part, which must agree exactly: codes, positions, the rank."""
    fields = [getattr(part, name, None) for name in ("codes", "indices")]
    rank = [part.left.shape[1]] if hasattr(part, "left") else []
    return [to_numpy(x).tolist() for x in fields if x is not None] + rank


@pytest.mark.torch
@for_every_problem
@given(data=st.data())
@settings(max_examples=20)
def test_every_namespace_gives_the_same_part(problem, place, data):
    w, budget = draw_case(data, problem, max_size=30)
    here, there = problem.project(w, budget), problem.project(place(w), budget)
    assert numbers(there) == numbers(here)
    found, other = answer(problem, w, budget), answer(problem, place(w), budget)
    # the values come from other orders of summation: judged by the published constant
    assert abs(found.value - other.value) <= max(found.slack, other.slack)


@pytest.mark.torch
@for_every_problem
def test_the_part_stays_in_the_namespace_and_on_the_device_of_w(problem, place):
    w = place(np.array([[3.0, -1.0, 0.5], [2.0, 2.0, -4.0]]))
    part = problem.project(w, problem.usual)
    names = ("codes", "entries", "indices", "values", "left", "right")
    arrays = [getattr(part, name) for name in names if hasattr(part, name)]
    for x in [part.decompress(), *arrays]:
        assert (array_namespace(x), device(x)) == (array_namespace(w), device(w))
