"""Each layer against rational arithmetic, closed formulas and differences; none uses autograd's
own rules as the expected value."""
import math
from fractions import Fraction

import numpy as np
import pytest
from autograd import grad, make_vjp
from autograd.core import primitive_vjps
from autograd.test_util import check_grads
from places import on_host, put
from plain_layers import cast, with_vjps

from lcref import blocks
from lcref.nets import affine, devices, relu, softmax_cross_entropy, tanh
from lcref.nets.layers import add, channels_last, dropout, flatten, subsample

RNG = np.random.default_rng(0)
X, W, B = RNG.normal(size=(5, 4)), RNG.normal(size=(3, 4)), RNG.normal(size=3)
LABELS = np.array([0, 2, 1, 1, 0])
LOGITS = 3 * RNG.normal(size=(5, 3))


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_the_gradients_of_affine_agree_with_numerical_ones(argument):
    check_grads(affine, argnum=argument, modes=["rev"], order=1)(X, W, B)


@pytest.mark.parametrize("layer", [relu, tanh])
def test_the_gradient_of_an_activation_agrees_with_the_numerical_one(layer):
    check_grads(layer, modes=["rev"], order=1)(X)


def test_the_gradient_of_the_cross_entropy_agrees_with_the_numerical_one():
    check_grads(lambda z: softmax_cross_entropy(z, LABELS), modes=["rev"], order=1)(LOGITS)


def integers(*shape):
    return RNG.integers(-9, 10, shape)


def test_affine_and_its_vjps_are_exact_on_integers():
    x, w, b, g = integers(4, 3), integers(2, 3), integers(2), integers(4, 2)
    floats = [a.astype(float) for a in (x, w, b)]
    vjp, y = make_vjp(lambda args: affine(*args))(tuple(floats))
    n, inputs, outputs = range(4), range(3), range(2)
    assert y.tolist() == [[sum(int(x[i, k] * w[j, k]) for k in inputs) + b[j] for j in outputs]
                          for i in n]
    dx, dw, db = vjp(g.astype(float))
    assert dx.tolist() == [[sum(g[i, j] * w[j, k] for j in outputs) for k in inputs] for i in n]
    assert dw.tolist() == [[sum(g[i, j] * x[i, k] for i in n) for k in inputs] for j in outputs]
    assert db.tolist() == [sum(g[i, j] for i in n) for j in outputs]


def test_relu_passes_the_gradient_where_its_input_is_positive_only():
    x = np.array([[-2.0, -0.0, 0.0, 1e-300, 3.0]])
    vjp, y = make_vjp(relu)(x)
    assert y.tolist() == [[0, 0, 0, 1e-300, 3]]
    assert vjp(np.full((1, 5), 7.0)).tolist() == [[0, 0, 0, 7, 7]]
    assert np.isnan(relu(np.array([np.nan])))


def test_the_derivative_of_tanh_is_one_over_cosh_squared():
    x = np.array([[-20.0, -1.0, 0.0, 0.3, 2.0]])
    vjp, _ = make_vjp(tanh)(x)
    g = np.array([[1.0, 2.0, 3.0, -4.0, 5.0]])
    expected = [[c / math.cosh(v) ** 2 for c, v in zip(g[0], x[0])]]
    np.testing.assert_allclose(vjp(g), expected, rtol=1e-13, atol=1e-15)
    assert g.tolist() == [[1, 2, 3, -4, 5]]     # a vjp does not write to what it is given


def test_the_cross_entropy_of_log_integers_is_rational():
    # softmax of (log a, log b, log c) is (a, b, c) / (a + b + c)
    odds, labels = [[1, 2, 5], [3, 3, 4]], [2, 0]
    p = [[Fraction(a, sum(row)) for a in row] for row in odds]
    expected = -sum(math.log(row[y]) for row, y in zip(p, labels)) / 2
    logits, labels = np.log(np.array(odds, float)), np.array(labels)
    assert math.isclose(softmax_cross_entropy(logits, labels), expected, rel_tol=1e-14)
    slope = [[float((q - (j == y)) / 2) for j, q in enumerate(row)] for row, y in zip(p, labels)]
    np.testing.assert_allclose(grad(softmax_cross_entropy)(logits, labels), slope,
                               rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("logits, label, loss, slope", [
    ([1e4, -1e4], 0, 0, [0, 0]),
    ([1e4, -1e4], 1, 2e4, [1, -1]),
    ([-1e4, -1e4], 0, math.log(2), [-.5, .5]),
    ([1e4, 1e4], 0, math.log(2), [-.5, .5]),
])
def test_the_cross_entropy_is_right_for_huge_logits(logits, label, loss, slope, dtype):
    z, y = np.array([logits], dtype), np.array([label])
    assert softmax_cross_entropy(z, y) == pytest.approx(loss, rel=1e-7)
    np.testing.assert_allclose(grad(softmax_cross_entropy)(z, y), [slope], atol=1e-7)


def test_a_label_above_the_classes_is_an_error():
    with pytest.raises(IndexError):
        softmax_cross_entropy(LOGITS, LABELS + 1)


# ----- the shape of activations, each against its definition entry by entry ------------------

IMAGES = RNG.normal(size=(3, 4, 5, 2))


def test_channels_last_moves_the_channels_and_its_gradient_moves_them_back():
    y, dx = with_vjps(channels_last, (IMAGES,), (0,), RNG.normal(size=(3, 5, 2, 4)))
    assert y.shape == (3, 5, 2, 4) and dx.shape == IMAGES.shape
    assert all(y[n, i, j, c] == IMAGES[n, c, i, j] for n, c, i, j in np.ndindex(*IMAGES.shape))
    back = with_vjps(channels_last, (IMAGES,), (0,), y)[1]
    np.testing.assert_array_equal(back, IMAGES)


def test_flatten_has_the_order_of_pytorch_channels_then_rows_then_columns():
    y, _ = with_vjps(flatten, (IMAGES,), (0,), np.zeros((3, 40)))
    _, height, width, channels = IMAGES.shape
    for n, i, j, c in np.ndindex(*IMAGES.shape):
        assert y[n, (c * height + i) * width + j] == IMAGES[n, i, j, c]
    np.testing.assert_array_equal(with_vjps(flatten, (IMAGES,), (0,), y)[1], IMAGES)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("channels", [2, 4, 5, 8])
@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (1, 1, 1, 1), (2, 6, 3, 1)])
def test_subsample_takes_every_stride_th_pixel_between_channels_of_zeros(shape, channels, stride):
    x = RNG.normal(size=shape)
    n, height, width, c = shape
    g = RNG.normal(size=(n, len(range(0, height, stride)), len(range(0, width, stride)), channels))
    y, dx = with_vjps(subsample, (x, stride, channels), (0,), g)
    below = (channels - c) // 2
    exact, exact_dx = np.zeros(g.shape), np.zeros(shape)
    for m, i, j, k in np.ndindex(*g.shape):
        if below <= k < below + c:
            exact[m, i, j, k] = x[m, stride * i, stride * j, k - below]
            exact_dx[m, stride * i, stride * j, k - below] = g[m, i, j, k]
    np.testing.assert_array_equal(y, exact)
    np.testing.assert_array_equal(dx, exact_dx)


def test_the_sum_of_two_layers_gives_each_the_whole_gradient():
    x, y, g = (RNG.normal(size=(3, 4, 5, 2)) for _ in range(3))
    total, dx, dy = with_vjps(add, (x, y), (0, 1), g)
    assert total.ravel().tolist() == [a + b for a, b in zip(x.flat, y.flat)]
    np.testing.assert_array_equal(dx, g)
    np.testing.assert_array_equal(dy, g)
    assert grad(lambda x: softmax_cross_entropy(add(x, x), LABELS))(LOGITS).tolist() == (
        2 * grad(softmax_cross_entropy)(2 * LOGITS, LABELS)).tolist()


@pytest.mark.parametrize("layer", [channels_last, flatten, lambda x: subsample(x, 2, 5),
                                   lambda x: add(x, x)])
def test_the_gradients_of_a_change_of_shape_agree_with_numerical_ones(layer):
    check_grads(layer, modes=["rev"], order=1)(IMAGES)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_zeroes_where_the_draw_is_under_the_rate_and_scales_the_others(rate, dtype):
    x, g = (RNG.normal(size=(50, 40)).astype(dtype) for _ in range(2))
    kept = np.random.default_rng(3).random((50, 40), np.float32) >= rate
    vjp, y = make_vjp(lambda x: dropout(x, rate, np.random.default_rng(3)))(x)
    assert y.dtype == vjp(g).dtype == dtype
    np.testing.assert_array_equal(y, np.where(kept, x * dtype(1 / (1 - rate)), 0))
    np.testing.assert_array_equal(vjp(g), np.where(kept, g * dtype(1 / (1 - rate)), 0))
    # of 2000 entries the share kept is within 5 deviations of 1 - rate
    assert abs(np.mean(y != 0) - (1 - rate)) <= 5 * math.sqrt(rate * (1 - rate) / 2000)


def test_dropout_draws_anew_from_a_generator_that_goes_on():
    x, rng = np.ones((50, 40)), np.random.default_rng(3)
    one, two = dropout(x, 0.5, rng), dropout(x, 0.5, rng)
    assert (one != two).any() and (x == 1).all()
    np.testing.assert_array_equal(one, dropout(x, 0.5, np.random.default_rng(3)))


@pytest.mark.away
def test_dropout_on_a_device_draws_what_it_draws_on_the_host(place):
    x, g = RNG.normal(size=(2, 5, 4))
    devices.register(type(place(x)))
    here, there = (make_vjp(lambda x: dropout(x, 0.25, np.random.default_rng(3)))(a)
                   for a in (x, place(x)))
    np.testing.assert_array_equal(on_host(there[1]), here[1])
    np.testing.assert_array_equal(on_host(there[0](place(g))), here[0](g))


# ----- what holds for every layer ------------------------------------------------------------

CASES = [
    (affine, (X, W, B), (0, 1, 2), RNG.normal(size=(5, 3))),
    (relu, (X,), (0,), RNG.normal(size=(5, 4))),
    (tanh, (X,), (0,), RNG.normal(size=(5, 4))),
    (softmax_cross_entropy, (LOGITS, LABELS), (0,), np.array(0.7)),
    (add, (X, 2 * X), (0, 1), RNG.normal(size=(5, 4))),
    (relu, (IMAGES,), (0,), RNG.normal(size=(3, 4, 5, 2))),
    (channels_last, (IMAGES,), (0,), RNG.normal(size=(3, 5, 2, 4))),
    (flatten, (IMAGES,), (0,), RNG.normal(size=(3, 40))),
    (subsample, (IMAGES, 2, 5), (0,), RNG.normal(size=(3, 2, 3, 5))),
]


@pytest.mark.parametrize("layer, args, argnums, g", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_keeps_the_dtype_in_its_value_and_gradients(layer, args, argnums, g, dtype):
    args = cast(args, dtype)
    for argnum in argnums:
        vjp, value = make_vjp(layer, argnum)(*args)
        gradient = vjp(g.astype(dtype))
        assert value.dtype == gradient.dtype == dtype
        assert gradient.shape == args[argnum].shape


@pytest.mark.away
@pytest.mark.parametrize("layer, args, argnums, g", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_on_a_device_equals_numpy(layer, args, argnums, g, dtype, place):
    args, (g,) = cast(args, dtype), cast([g], dtype)
    there, g_there = put(list(args), place), place(g)

    def to_numpy(a):
        assert a.device == g_there.device
        return on_host(a)

    here_value, there_value = layer(*args), layer(*there)
    np.testing.assert_array_equal(to_numpy(there_value), here_value)
    vjps = primitive_vjps[layer]
    for here_grad, there_grad in zip(vjps(argnums, here_value, args, {})(g),
                                     vjps(argnums, there_value, there, {})(g_there)):
        np.testing.assert_array_equal(to_numpy(there_grad), here_grad)


@pytest.mark.parametrize("layer, args, argnums, g", CASES)
@pytest.mark.parametrize("block", [1, blocks.BLOCK])
def test_a_layer_takes_views_and_leaves_them_as_they_were(layer, args, argnums, g, block,
                                                          monkeypatch):
    first = with_vjps(layer, args, argnums, g)
    views = [np.repeat(a, 2, axis=0)[::2].T.copy().T if isinstance(a, np.ndarray) and a.ndim
             else a for a in (*args, g)]
    for v in views:
        if isinstance(v, np.ndarray):
            v.flags.writeable = False       # a write is an error
    monkeypatch.setattr(blocks, "BLOCK", block)
    for a, b in zip(first, with_vjps(layer, views[:-1], argnums, views[-1])):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)
    for v, a in zip(views, (*args, g)):
        np.testing.assert_array_equal(v, a)


@pytest.mark.parametrize("layer, args, argnums, g", CASES[:4])
def test_a_batch_of_one_is_a_row_of_the_batch(layer, args, argnums, g):
    one = [a[:1] if i == 0 or layer is softmax_cross_entropy else a for i, a in enumerate(args)]
    y, dx = with_vjps(layer, one, (0,), g[:1] if g.ndim else g)
    if g.ndim:
        whole = with_vjps(layer, args, (0,), g)
        np.testing.assert_allclose(y, whole[0][:1], rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(dx, whole[1][:1], rtol=1e-13, atol=1e-15)
    else:
        z = LOGITS[0]
        assert y == pytest.approx(math.log(sum(map(math.exp, z))) - z[LABELS[0]], rel=1e-13)
        assert dx.shape == (1, 3) and abs(dx.sum()) < 1e-15
