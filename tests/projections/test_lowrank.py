"""Low rank: what holds of this projection only, and values worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import PROBLEMS, matrices, objective, slack

from lcref.projections import rank_ball
from lcref.verify import oracles

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
    # singular vectors are orthogonal to 8·max(m, n)·u, as for the rank, relative to ‖w‖²
    assert np.all(np.abs((w - theta).T @ theta) <= 8 * max(w.shape) * u * float(np.sum(w * w)))
