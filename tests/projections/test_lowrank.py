"""Low rank: what holds of this projection only, and values worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import rank_ball, rank_selection
from problems import PROBLEMS, matrices, objective, slack, storage

from lcref.verify import oracles

pytestmark = pytest.mark.everywhere

DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])


@DTYPES
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (60, 5)])
@pytest.mark.parametrize("rank", [1, 4, 19])
def test_the_residual_is_the_tail_of_the_singular_values(dtype, shape, rank):
    rng = np.random.default_rng(0)
    decay = np.exp(-0.5 * np.arange(shape[1]))  # singular values over several orders of magnitude
    w = (rng.normal(size=shape) * decay).astype(dtype)
    theta = rank_ball(w, rank).decompress()
    # the published constant; the oracle works in longdouble
    optimum = oracles.rank_ball(w, rank)
    assert objective(w, theta) <= optimum + slack(PROBLEMS["rank_ball"], w, theta)


@pytest.mark.costly
@DTYPES
@pytest.mark.parametrize("shape", [(90, 70), (70, 90), (64, 200)])
@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("rank", [1, 4, 16, 40])
def test_a_few_vectors_of_a_large_matrix_leave_the_tail_too(dtype, shape, decay, rank):
    rng = np.random.default_rng(0)  # by the Gram matrix but for decay 2, which that would blur
    w = (rng.normal(size=shape) * np.exp(-decay * np.arange(shape[1]))).astype(dtype)
    part = rank_ball(w, rank)
    optimum = oracles.rank_ball(w, rank)
    assert objective(w, part.decompress()) <= optimum + slack(PROBLEMS["rank_ball"], w,
                                                              part.decompress())
    assert (part.left.shape, part.right.shape) == ((shape[0], rank), (rank, shape[1]))


@DTYPES
@pytest.mark.parametrize("size", [65, 150])
def test_a_large_matrix_of_low_rank_is_given_back_to_its_last_digits(dtype, size):
    rng = np.random.default_rng(0)
    w = (rng.normal(size=(size, 3)) @ rng.normal(size=(3, 80))).astype(dtype)
    # by the Gram matrix √ε of w would be lost, 1e-8 in double precision
    assert np.max(np.abs(rank_ball(w, 5).decompress() - w)) <= 100 * np.finfo(dtype).eps * np.max(
        np.abs(w))


@DTYPES
@pytest.mark.parametrize("shape", [(80, 70), (70, 80)])
def test_the_factors_of_a_large_matrix_share_the_singular_values(dtype, shape):
    w = np.random.default_rng(0).normal(size=shape).astype(dtype)
    part, roots = rank_ball(w, 6), np.sqrt(np.linalg.svd(w, compute_uv=False)[:6])
    for norms in (np.linalg.norm(part.left, axis=0), np.linalg.norm(part.right, axis=1)):
        # the rounding of the factors, and of 80 squares
        np.testing.assert_allclose(norms, roots, rtol=100 * np.finfo(dtype).eps)


@given(w=matrices(max_size=30), data=st.data())
def test_the_factors_are_thin(w, data):
    m, n = w.shape
    rank = data.draw(st.integers(0, min(m, n)))
    part = rank_ball(w, rank)
    assert (part.left.shape, part.right.shape) == ((m, rank), (rank, n))


@given(w=matrices(max_size=30), data=st.data())
def test_the_factors_have_the_dtype_of_w(w, data):
    part = rank_ball(w, data.draw(st.integers(0, min(w.shape) + 1)))
    assert (part.left.dtype, part.right.dtype) == (w.dtype, w.dtype)


@given(w=matrices(max_size=30), more=st.integers(0, 2))
def test_full_rank_returns_w_itself(w, more):
    w = w + 0.0  # a product with the identity turns −0 into 0
    assert rank_ball(w, min(w.shape) + more).decompress().tobytes() == w.tobytes()


@given(w=matrices(max_size=30))
def test_rank_zero_leaves_zero(w):
    assert not np.any(rank_ball(w, 0).decompress())


@DTYPES
def test_the_largest_singular_values_stay(dtype):
    w = np.array([[0.0, 3.0, 0.0], [-5.0, 0.0, 0.0], [0.0, 0.0, 4.0]], dtype)
    theta = rank_ball(w, 2).decompress()
    # square roots of 5 and 4, squared again: a few eps of 5
    expected = [[0.0, 0.0, 0.0], [-5.0, 0.0, 0.0], [0.0, 0.0, 4.0]]
    np.testing.assert_allclose(theta, expected, rtol=0, atol=20 * float(np.finfo(dtype).eps))


@DTYPES
def test_the_singular_values_are_shared_evenly_by_the_factors(dtype):
    w = np.array([[3.0, 4.0], [6.0, 8.0], [-6.0, -8.0]], dtype)  # (1, 2, −2)ᵀ (3, 4): σ₁ = 15
    part = rank_ball(w, 1)
    norms = [float(np.sum(factor.astype(np.float64) ** 2)) for factor in (part.left, part.right)]
    # sums of squares of numbers rounded to w's dtype: a few eps of 15
    np.testing.assert_allclose(norms, [15.0, 15.0], rtol=10 * float(np.finfo(dtype).eps))


@given(w=matrices(max_size=30), data=st.data())
def test_what_is_left_is_orthogonal_to_what_is_kept(w, data):
    theta = rank_ball(w, data.draw(st.integers(0, min(w.shape) + 1))).decompress()
    u, exponent = float(np.finfo(w.dtype).eps), int(np.frexp(np.max(np.abs(w), initial=0))[1])
    w, theta = (np.ldexp(x, -exponent).astype(np.float64) for x in (w, theta))
    # singular vectors are orthogonal to 8·max(m, n)·u, as for the rank, relative to ‖w‖²; and θ, a
    # sum of r products of rounded factors, is off by (r + 2)·u of ‖w‖, beside θ and beside w − θ
    off = 8 * max(w.shape) + 2 * (min(w.shape) + 2)
    assert np.all(np.abs((w - theta).T @ theta) <= off * u * float(np.sum(w * w)))


# ---- a price on the rank

DIAGONAL = np.diag([4.0, 2.0, 1.0])  # tails 21, 5, 1, 0


@DTYPES
@pytest.mark.parametrize("alpha, rank", [
    (0.0, 3), (0.1, 2), (0.5, 1), (2.0, 0),  # 12α a rank: 1.2, 6, 24
    (1 / 12, 2), (1 / 3, 1), (4 / 3, 0),  # 1, 4, 16: the gain of a rank, and the smaller is taken
])
def test_rank_selection_is_worked_by_hand(dtype, alpha, rank):
    part = rank_selection(DIAGONAL.astype(dtype), alpha, 1.0)
    assert part.left.shape == (3, rank)


@pytest.mark.parametrize("power", [0, 1, 2])
def test_of_equal_totals_the_smallest_rank_is_taken(power):
    # cost(r) = what a rank gains, 16, 4, 1 at a price of 1: every r totals 21
    gains = [0, 16, 20, 21]
    part = rank_selection(DIAGONAL * 2.0**power, 4.0**power, 2.0, gains.__getitem__)
    assert part.left.shape == (3, 0)


@pytest.mark.parametrize("cost, options, each", [
    ("storage", (), 3 + 5), ("storage", (7,), 3 + 5), ("flops", (), 3 + 5), ("flops", (7,), 56),
    (lambda r: 20 * r, (), 20),
])
def test_the_cost_of_a_rank(cost, options, each):
    w = np.zeros((3, 5))
    w[0, 0] = 1.0  # one rank gains 1: it is kept while 2α/μ·each is below that
    for price, rank in ((0.999 / each, 1), (1.001 / each, 0)):
        assert rank_selection(w, price, 2.0, cost, *options).left.shape[1] == rank


@given(w=matrices(max_size=20), data=st.data())
def test_rank_selection_is_the_rank_ball_of_the_rank_it_selects(w, data):
    part = rank_selection(w, *data.draw(PROBLEMS["rank_selection"].budgets(w)))
    ball = rank_ball(w, part.left.shape[1])
    assert part.decompress().tobytes() == ball.decompress().tobytes()


@given(w=matrices(max_size=20), data=st.data())
def test_a_larger_price_selects_no_larger_rank_but_for_rounding(w, data):
    alpha, mu = data.draw(PROBLEMS["rank_selection"].budgets(w))
    rank, other = (rank_selection(w, a, mu).left.shape[1] for a in (alpha, 2 * alpha))
    if other > rank:  # then the tails of both are equal within the slack, and so nothing is paid
        tails = [objective(w, rank_ball(w, r).decompress()) for r in (rank, other)]
        assert tails[0] - tails[1] <= slack(PROBLEMS["rank_ball"], w, w)


@given(w=matrices(max_size=20))
def test_a_rank_without_a_price_returns_w(w):
    theta = rank_selection(w, 0, 1.0).decompress()
    # all that is left is lost in the sums of squares
    assert objective(w, theta) <= slack(PROBLEMS["rank_ball"], w, theta)


@given(w=matrices(max_size=20))
def test_as_mu_goes_to_zero_the_rank_goes_to_zero(w):
    assert rank_selection(w, 1e300, 1e-300).left.shape[1] == 0


def test_a_rank_that_is_free_is_selected_at_any_scale():
    part = rank_selection(np.array([[1e-200]]), 1.0, 1.0, lambda r: 1 - r)
    assert part.left.shape == (1, 1)


@pytest.mark.costly
@DTYPES
@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 1e-1])
def test_rank_selection_reaches_the_least_total_of_all_ranks(dtype, shape, alpha):
    rng = np.random.default_rng(0)
    w = (rng.normal(size=shape) * np.exp(-0.5 * np.arange(shape[1]))).astype(dtype)
    part = rank_selection(w, alpha, 1.0)
    theta = part.decompress()
    value = objective(w, theta) + oracles.price(alpha, 1) * storage(shape)(part.left.shape[1])
    # the published constant; the oracle works in longdouble
    optimum = oracles.rank_selection(w, alpha, 1.0, storage(shape))
    assert value <= optimum + slack(PROBLEMS["rank_ball"], w, theta)
