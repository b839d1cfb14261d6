"""Pooling against loops over the pixels of each window."""
import functools
from fractions import Fraction

import numpy as np
import pytest
from autograd.test_util import check_grads
from plain_layers import (cast, floats, fractions, integers, maxima, means, with_vjps_there,
                          outputs, with_vjps)

from lcref.nets.pooling import average_pool, global_average_pool, max_pool

CASES = [(image, size, stride, padding)
         for image in [(6, 6), (5, 7)] for size in (1, 2, 3, 4) for stride in (1, 2, 3)
         for padding in range(size // 2 + 1)] + [((1, 1), 1, 1, 0), ((1, 1), 2, 2, 1),
                                                 ((3, 3), 3, 2, 0), ((2, 9), 2, 4, 1)]


def arrays(image, size, stride, padding, n=2, channels=3, most=2):
    rng = np.random.default_rng([*image, size, stride, padding])
    rows, columns = (outputs(a, size, stride, padding) for a in image)
    return integers(rng, n, *image, channels, most=most), integers(rng, n, rows, columns, channels)


@functools.cache
def expected(pool, case):
    x, g = arrays(*case)
    return pool(fractions(x), fractions(g), *case[1:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.everywhere
@pytest.mark.parametrize("case", CASES, ids=str)
def test_max_pool_is_the_maximum_and_the_first_of_equals_has_the_gradient(case, dtype):
    x, g = cast(arrays(*case), dtype)       # values −2 to 2: most windows have ties
    found = with_vjps_there(max_pool, (x, *case[1:]), (0,), g)
    for one, exact in zip(found, expected(maxima, case)):
        assert one.dtype == dtype and one.tolist() == exact.tolist()


def test_one_window_of_equal_values_gives_its_gradient_to_the_upper_left():
    x = np.full((1, 2, 2, 1), 4.0)
    _, dx = with_vjps(max_pool, (x, 2), (0,), np.full((1, 1, 1, 1), 3.0))
    assert dx.tolist() == [[[[3], [0]], [[0], [0]]]]


def test_the_maximum_of_negative_values_at_the_edge_is_not_the_padding():
    x = np.full((1, 2, 2, 1), -7.0)
    y, dx = with_vjps(max_pool, (x, 3, 2, 1), (0,), np.ones((1, 1, 1, 1)))
    assert y.tolist() == [[[[-7]]]] and dx.sum() == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.everywhere
@pytest.mark.parametrize("case", CASES, ids=str)
def test_average_pool_is_the_mean_with_the_padding_as_zeros(case, dtype):
    x, g = cast(arrays(*case), dtype)
    y, dx = with_vjps_there(average_pool, (x, *case[1:]), (0,), g)
    exact_y, exact_dx = expected(means, case)
    u = np.finfo(dtype).eps
    assert y.dtype == dx.dtype == dtype
    # integers add up exactly; one division rounds y, up to 16 of them and their sum round ∂x
    assert (np.abs(fractions(y) - exact_y) <= u * np.abs(exact_y)).all()
    assert (np.abs(fractions(dx) - exact_dx) <= 32 * 5 * float(u)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.everywhere
def test_global_average_pool_is_the_mean_of_each_channel(dtype):
    x, g = cast((arrays((4, 7), 1, 1, 0)[0], integers(np.random.default_rng(0), 2, 3)), dtype)
    y, dx = with_vjps_there(global_average_pool, (x,), (0,), g)
    exact = [[sum(Fraction(float(x[n, i, j, c])) for i in range(4) for j in range(7)) / 28
              for c in range(3)] for n in range(2)]
    u = float(np.finfo(dtype).eps)
    assert y.dtype == dx.dtype == dtype and dx.shape == x.shape
    np.testing.assert_allclose(y, floats(exact), rtol=28 * u, atol=28 * u)
    for n, i, j, c in np.ndindex(*x.shape):
        assert abs(Fraction(float(dx[n, i, j, c])) - Fraction(float(g[n, c])) / 28) <= u


@pytest.mark.parametrize("pool, args", [
    (max_pool, (2,)), (max_pool, (3, 2, 1)), (average_pool, (2,)), (average_pool, (3, 2, 1)),
    (average_pool, (3, 1, 1)), (global_average_pool, ())])
def test_the_gradients_of_pooling_agree_with_numerical_ones(pool, args):
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 2))
    check_grads(lambda x: pool(x, *args), modes=["rev"], order=1)(x)


def test_without_a_stride_windows_do_not_overlap():
    x, _ = arrays((6, 7), 2, 2, 0)
    for pool in (max_pool, average_pool):
        np.testing.assert_array_equal(pool(x, 2), pool(x, 2, 2))
        np.testing.assert_array_equal(pool(x, 3), pool(x, 3, 3))


@pytest.mark.parametrize("pool, args", [(max_pool, (3, 2, 1)), (max_pool, (2,)),
                                        (average_pool, (3, 2, 1)), (average_pool, (1,)),
                                        (global_average_pool, ())])
def test_pooling_takes_views_and_leaves_them_as_they_were(pool, args):
    x, _ = arrays((6, 6), 3, 2, 1)
    y = pool(x, *args)
    g = integers(np.random.default_rng(1), *y.shape)
    first = with_vjps(pool, (x, *args), (0,), g)
    views = [a.T.copy().T for a in (x, g)]
    for v in views:
        v.flags.writeable = False
    second = with_vjps(pool, (views[0], *args), (0,), views[1])
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(views[0], x)
    np.testing.assert_array_equal(views[1], g)
    assert not any(np.shares_memory(a, v) for a in second for v in views)
