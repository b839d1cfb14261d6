"""Normalisation against decimals of 60 digits, whose differences give the gradients."""
import decimal
from decimal import Decimal

import numpy as np
import pytest
from autograd.test_util import check_grads
from places import there
from plain_layers import (DIGITS, batch_moments, batch_normalised, cast, decimals, floats,
                          leave_nan, response_normalised, self_normalised, slopes, with_vjps,
                          with_vjps_there)

from lcref.nets.normalisation import (batch_norm, batch_norm_train, batch_statistics,
                                      local_response_norm)

EPS = 1e-5
SHAPES = [(2, 2, 3, 2), (1, 2, 2, 3), (3, 1, 1, 1), (2, 3, 1, 4)]


def arrays(shape, offset=0.0):
    """x, γ, β, running mean and variance, g: multiples of 1/64, so that float32 holds them."""
    rng, c = np.random.default_rng(shape), shape[-1]
    x, gamma, beta, mean, g = (np.round(64 * rng.normal(size=s)) / 64 for s in
                               (shape, (c,), (c,), (c,), shape))
    return x + offset, gamma + 1, beta, mean + offset, rng.integers(1, 9, c) / 8, g


def close(actual, exact, dtype, factor=64):
    """Equal within `factor` roundings of the largest entry."""
    assert actual.dtype == dtype and actual.shape == exact.shape
    bound = factor * float(np.finfo(dtype).eps) * max(1.0, np.abs(exact).max())
    assert (np.abs(actual.astype(float) - exact) <= bound).all()


def statistics(x):
    """(mean, variance) of the batch, correctly rounded to x's dtype, from decimals."""
    with decimal.localcontext(DIGITS):
        return [floats(a).astype(x.dtype) for a in batch_moments(decimals(x))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.everywhere
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [EPS, 0.5])
def test_batch_norm_with_given_statistics_and_its_gradients(shape, dtype, eps):
    *args, g = cast(arrays(shape), dtype)
    x, gamma, beta, mean, var, exact_g = map(decimals, (*args, g))
    e = Decimal(eps)
    exact = [floats(batch_normalised(x, gamma, beta, mean, var, e)),
             slopes(lambda x: batch_normalised(x, gamma, beta, mean, var, e), x, exact_g),
             slopes(lambda a: batch_normalised(x, a, beta, mean, var, e), gamma, exact_g),
             slopes(lambda b: batch_normalised(x, gamma, b, mean, var, e), beta, exact_g)]
    for one, other in zip(with_vjps_there(batch_norm, args, (0, 1, 2), g, eps=eps), exact):
        close(one, other, dtype)
    for one, other in zip(with_vjps_there(batch_norm, [*args, eps], (0, 1, 2), g), exact):
        close(one, other, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.everywhere
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [EPS, 0.5])
def test_batch_norm_in_training_and_its_gradients_with_the_batchs_statistics(shape, dtype,
                                                                             eps):
    x, gamma, beta, _, _, g = cast(arrays(shape), dtype)
    args = [x, gamma, beta, *statistics(x)]
    x, gamma, beta, exact_g = map(decimals, (x, gamma, beta, g))
    e = Decimal(eps)
    exact = [floats(self_normalised(x, gamma, beta, e)),
             slopes(lambda x: self_normalised(x, gamma, beta, e), x, exact_g),
             slopes(lambda a: self_normalised(x, a, beta, e), gamma, exact_g),
             slopes(lambda b: self_normalised(x, gamma, b, e), beta, exact_g)]
    for one, other in zip(with_vjps_there(batch_norm_train, args, (0, 1, 2), g, eps=eps), exact):
        close(one, other, dtype, 512)


@pytest.mark.parametrize("argnum", [0, 1, 2])
def test_the_gradients_of_batch_norm_agree_with_numerical_ones(argnum):
    *args, _ = arrays((3, 2, 2, 2))
    check_grads(batch_norm, argnum, modes=["rev"], order=1)(*args)


@pytest.mark.parametrize("argnum", [0, 1, 2])
def test_each_gradient_of_batch_norm_is_the_same_when_it_is_the_only_one_asked_for(argnum):
    *args, g = arrays((3, 2, 2, 2))
    for layer in (batch_norm, batch_norm_train):
        _, *all_three = with_vjps(layer, args, (0, 1, 2), g)
        np.testing.assert_array_equal(with_vjps(layer, args, (argnum,), g)[1], all_three[argnum])


def test_training_in_one_piece_agrees_with_numerical_gradients():
    x, gamma, beta, _, _, g = arrays((3, 2, 2, 2))

    def slope(d):   # of Σ g y along d, by differences
        step = 1e-5
        y = [batch_norm_train(z, gamma, beta, *batch_statistics(z))
             for z in (x + step * d, x - step * d)]
        return np.sum(g * (y[0] - y[1])) / (2 * step)
    dx = with_vjps(batch_norm_train, (x, gamma, beta, *batch_statistics(x)), (0,), g)[1]
    for d in np.random.default_rng(3).normal(size=(5, *x.shape)):
        assert slope(d) == pytest.approx(np.sum(dx * d), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.everywhere
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("shape", [*SHAPES, (5, 9, 8, 3)])
def test_the_statistics_of_a_batch_do_not_cancel(shape, offset, dtype):
    x = arrays(shape, offset)[0].astype(dtype)
    with decimal.localcontext(DIGITS):
        mean, var = map(floats, batch_moments(decimals(x)))
    leave_nan()
    got = there(batch_statistics)(x)
    u = float(np.finfo(dtype).eps)
    for one, exact, bound in zip(got, (mean, var), (64 * u * (1 + abs(offset)), 64 * u)):
        assert one.dtype == dtype and one.shape == exact.shape
        # m is off by u |m|, which changes the variance by its square
        assert (np.abs(one - exact) <= bound * np.maximum(1, var) + (64 * u * offset) ** 2).all()


LRN = [(5, 1e-4, .75, 2.0), (5, .5, .75, 1.0), (3, .25, .5, 2.0), (1, 1.0, 1.0, .5),
       (7, .5, .25, 1.0)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.everywhere
@pytest.mark.parametrize("shape", [(1, 1, 2, 7), (2, 1, 1, 3), (1, 1, 1, 1), (1, 1, 1, 2)])
@pytest.mark.parametrize("options", LRN, ids=str)
def test_local_response_norm_and_its_gradient(shape, options, dtype):
    x, g = cast(arrays(shape)[::5], dtype)
    exact_x, exact_g = decimals(x), decimals(g)
    size, *rest = options
    rest = [Decimal(v) for v in rest]
    exact = [floats(response_normalised(exact_x, size, *rest)),
             slopes(lambda x: response_normalised(x, size, *rest), exact_x, exact_g)]
    for one, other in zip(with_vjps_there(local_response_norm, (x, *options), (0,), g), exact):
        close(one, other, dtype)


def test_the_defaults_of_local_response_norm_are_those_of_alexnets_paper():
    x = 9 * arrays((2, 2, 2, 8))[0]
    exact = response_normalised(decimals(x), 5, *map(Decimal, ("1e-4", "0.75", "2")))
    close(local_response_norm(x), floats(exact), np.float64)


@pytest.mark.parametrize("options", LRN, ids=str)
def test_the_gradient_of_local_response_norm_agrees_with_the_numerical_one(options):
    check_grads(lambda x: local_response_norm(x, *options), modes=["rev"],
                order=1)(arrays((2, 2, 2, 6))[0])


def test_normalisation_takes_views_and_leaves_them_as_they_were():
    *args, g = arrays((3, 4, 5, 6))
    cases = [(batch_norm, args, (0, 1, 2)), (batch_norm_train, args, (0, 1, 2)),
             (local_response_norm, args[:1], (0,))]
    for layer, args, argnums in cases:
        first = with_vjps(layer, args, argnums, g)
        views = [np.repeat(a, 2, axis=-1)[..., ::2].T.copy().T for a in (*args, g)]
        for v in views:
            v.flags.writeable = False
        second = with_vjps(layer, views[:-1], argnums, views[-1])
        for a, b in zip(first, second):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
        for v, a in zip(views, (*args, g)):
            np.testing.assert_array_equal(v, a)
    mean, var = batch_statistics(views[0])
    np.testing.assert_allclose(mean, args[0].mean((0, 1, 2)), atol=1e-14)
    np.testing.assert_allclose(var, args[0].var((0, 1, 2)), atol=1e-14)
