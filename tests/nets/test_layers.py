"""Each layer against rational arithmetic, closed formulas and differences; none uses autograd's
own rules as the expected value."""
import math
from fractions import Fraction

import array_api_strict
import numpy as np
import pytest
from autograd import grad, make_vjp
from autograd.core import primitive_vjps
from autograd.test_util import check_grads

from lcref.nets import affine, relu, softmax_cross_entropy, tanh

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


CASES = [
    (affine, (X, W, B), (0, 1, 2), RNG.normal(size=(5, 3))),
    (relu, (X,), (0,), RNG.normal(size=(5, 4))),
    (tanh, (X,), (0,), RNG.normal(size=(5, 4))),
    (softmax_cross_entropy, (LOGITS, LABELS), (0,), np.array(0.7)),
]


def rounded(args, dtype):
    return [a.astype(dtype) if a.dtype.kind == "f" else a for a in args]


@pytest.mark.parametrize("layer, args, argnums, g", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_keeps_the_dtype_in_its_value_and_gradients(layer, args, argnums, g, dtype):
    args = rounded(args, dtype)
    for argnum in argnums:
        vjp, value = make_vjp(layer, argnum)(*args)
        gradient = vjp(g.astype(dtype))
        assert value.dtype == gradient.dtype == dtype
        assert gradient.shape == args[argnum].shape


@pytest.mark.parametrize("layer, args, argnums, g", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("where", ["CPU_DEVICE", "device1"])
def test_a_layer_on_a_device_of_the_array_standard_equals_numpy(layer, args, argnums, g, dtype,
                                                                where):
    place = array_api_strict.Device(where)
    args, (g,) = rounded(args, dtype), rounded([g], dtype)
    there = [array_api_strict.asarray(a, device=place) for a in args]
    g_there = array_api_strict.asarray(g, device=place)

    def to_numpy(a):
        assert a.device == place
        return np.asarray(a.to_device(array_api_strict.Device("CPU_DEVICE")))

    here_value, there_value = layer(*args), layer(*there)
    np.testing.assert_array_equal(to_numpy(there_value), here_value)
    vjps = primitive_vjps[layer]
    for here_grad, there_grad in zip(vjps(argnums, here_value, args, {})(g),
                                     vjps(argnums, there_value, there, {})(g_there)):
        np.testing.assert_array_equal(to_numpy(there_grad), here_grad)
