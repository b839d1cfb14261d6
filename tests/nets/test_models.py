"""The nets against formulas written out, and their gradients against differences."""
import math
import os
from pathlib import Path

import autograd
import numpy as np
import pytest

from lcref.data import load
from lcref.nets import build, evaluate, lenet300, linear, loss, value_and_grad, vgg16
from lcref.nets.models import MODELS

RNG = np.random.default_rng(1)
X, LABELS = RNG.normal(size=(7, 6)), RNG.integers(0, 3, 7)


def test_lenet300_has_266200_weights_and_410_biases():
    net = lenet300()
    params = net.init(np.random.default_rng(0))
    assert sum(params[name].size for name in net.weights) == 266_200
    assert sum(p.size for name, p in params.items() if name not in net.weights) == 410
    assert net.weights == ["fc1.weight", "fc2.weight", "fc3.weight"]
    assert {name: p.shape for name, p in params.items()} == {
        "fc1.weight": (300, 784), "fc1.bias": (300,), "fc2.weight": (100, 300),
        "fc2.bias": (100,), "fc3.weight": (10, 100), "fc3.bias": (10,)}
    assert (net.name, net.input_shape, net.classes) == ("lenet300", (784,), 10)


def test_the_linear_net_is_one_matrix_and_one_bias():
    net = linear(6, 3)
    assert dict(net.shapes) == {"fc1.weight": (3, 6), "fc1.bias": (3,)}
    params = net.init(RNG, np.float64)
    expected = np.einsum("ni,oi->no", X, params["fc1.weight"]) + params["fc1.bias"]
    np.testing.assert_allclose(net.apply(params, X), expected, rtol=1e-13, atol=1e-14)


def random_params(net, dtype=np.float64):
    rng = np.random.default_rng(2)
    return {name: (p + 0.1 * rng.normal(size=p.shape)).astype(dtype)
            for name, p in net.init(rng, np.float64).items()}


@pytest.mark.parametrize("activation, f", [("tanh", np.tanh), ("relu", lambda h: h * (h > 0))])
def test_lenet300_is_the_composition_of_its_three_layers(activation, f):
    net = lenet300(6, 3, activation)
    p = random_params(net)
    h = X.T
    for layer in ("fc1", "fc2"):
        h = f(np.einsum("oi,in->on", p[f"{layer}.weight"], h) + p[f"{layer}.bias"][:, None])
    expected = np.einsum("oi,in->on", p["fc3.weight"], h).T + p["fc3.bias"]
    np.testing.assert_allclose(net.apply(p, X), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("net", [linear(6, 3), lenet300(6, 3, "tanh"), lenet300(6, 3, "relu")],
                         ids=["linear", "tanh", "relu"])
def test_the_slope_of_the_loss_along_each_parameter_is_the_gradients(net):
    params = random_params(net)
    value, grads, statistics = value_and_grad(net)(params, X, LABELS)
    assert isinstance(value, float) and list(grads) == list(params) and statistics == {}
    logits = net.apply(params, X)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert math.isclose(value, -np.log(p[np.arange(7), LABELS]).mean(), rel_tol=1e-12)
    step = 1e-5
    for name, w in params.items():
        d = RNG.normal(size=w.shape)
        d /= np.linalg.norm(d)
        ahead, behind = (float(loss(net, params | {name: w + s * d}, X, LABELS))
                         for s in (step, -step))
        assert (ahead - behind) / (2 * step) == pytest.approx(np.vdot(grads[name], d), abs=1e-8)


def test_the_gradient_equals_that_of_a_function_of_the_dict_bit_for_bit():
    net = lenet300(6, 3)
    params, x = random_params(net, np.float32), X.astype(np.float32)
    expected = autograd.grad(lambda p: loss(net, p, x, LABELS))(params)
    for _ in range(2):
        _, grads, _ = value_and_grad(net)(params, x, LABELS)
        for name in params:
            assert grads[name].dtype == np.float32
            np.testing.assert_array_equal(grads[name], expected[name])


def test_initial_weights_have_the_variance_of_their_source():
    net = lenet300(500, 10, "relu")
    params = net.init(np.random.default_rng(0))
    for name, fan_in in (("fc1.weight", 500), ("fc2.weight", 300)):
        n = params[name].size
        assert abs(params[name].mean()) < 4 * math.sqrt(2 / fan_in / n)
        assert params[name].var() == pytest.approx(2 / fan_in, rel=5 * math.sqrt(2 / n))
    params = lenet300(500, 10, "tanh").init(np.random.default_rng(0))
    for name, bound in (("fc1.weight", math.sqrt(6 / 800)), ("fc2.weight", math.sqrt(6 / 400))):
        assert 0.999 * bound < np.abs(params[name]).max() <= np.float32(bound)
        assert params[name].var() == pytest.approx(bound**2 / 3, rel=0.03)
    assert all(not p.any() for name, p in params.items() if name.endswith("bias"))


def test_a_seed_gives_one_net_rounded_to_each_precision():
    net = lenet300(6, 3)
    single, double = (net.init(np.random.default_rng(5), t) for t in (np.float32, np.float64))
    other = net.init(np.random.default_rng(6))
    for name in net.weights:
        assert single[name].dtype == np.float32 and double[name].dtype == np.float64
        np.testing.assert_array_equal(single[name], double[name].astype(np.float32))
        assert (single[name] != other[name]).any()


def test_check_lists_all_that_is_wrong_in_one_message():
    net = lenet300(6, 3)
    params = net.init(np.random.default_rng(0))
    net.check(params)
    del params["fc1.bias"]
    params["fc4.weight"] = params["fc3.weight"]
    params["fc3.weight"] = params["fc3.weight"].T
    params["fc2.weight"][3, 4] = np.nan
    params["fc2.bias"] = np.zeros(100, int)
    with pytest.raises(ValueError) as error:
        net.check(params)
    for fault in ("lenet300", "missing: fc1.bias (300,)", "not of this net: fc4.weight",
                  "fc3.weight has shape (100, 3), not (3, 100)", "fc2.weight has a NaN",
                  "fc2.bias has dtype int64"):
        assert fault in str(error.value)
    assert "fc1.weight" not in str(error.value) and "fc3.bias" not in str(error.value)


def test_an_input_of_another_width_is_an_error():
    net = linear(6, 3)
    with pytest.raises(ValueError, match=r"linear takes .*\(n, 6\), got \(7, 5\)"):
        net.apply(net.init(RNG), X[:, :5])


def test_build_finds_a_net_by_name():
    assert build("lenet300", 784, 10).activation == "tanh"
    assert build("lenet300", 784, 10, "relu").activation == "relu"
    assert build("linear", 64, 10).weights == ["fc1.weight"]
    assert build("linear", (1, 8, 8), 10).input_shape == (64,)
    assert build("lenet300", (1, 28, 28), 10).shapes == lenet300().shapes
    assert build("lenet5", (1, 28, 28), 10).activation == "relu"
    assert build("lenet5", (1, 28, 28), 10, "tanh").activation == "tanh"
    for name in MODELS.keys() - {"linear", "lenet300"}:
        net = build(name, (3, 67, 67), 7)
        assert (net.name, net.input_shape, net.classes) == (name, (3, 67, 67), 7)


@pytest.mark.parametrize("args, says", [
    (("lenet30", 784, 10), "linear, lenet300, .*; did you mean 'lenet300'"),
    (("lenet300", 784, 10, "tanhh"), "relu, tanh; did you mean 'tanh'"),
    (("linear", 784, 10, "tanh"), "no hidden layer"),
    (("linear", 0, 10), "inputs=0"),
    (("lenet5", 784, 10), r"lenet5 needs images, \(channels, height, width\), got 784"),
    (("resnet20", (28, 28), 10), r"resnet20 needs images, .*, got \(28, 28\)"),
    (("lenet5", (1, 15, 28), 10), r"at least 16 × 16 pixels, got \(1, 15, 28\)"),
    (("vgg16", (3, 32, 31), 10), r"at least 32 × 32 pixels, got \(3, 32, 31\)"),
    (("alexnet", (3, 66, 99), 10), r"at least 67 × 67 pixels, got \(3, 66, 99\)"),
    (("resnet20", (3, 32, 32), 10, "tanh"), "resnet20 has relu, and no other; got 'tanh'"),
    (("lenet5", (1, 28, 28), 10, "sigmoid"), "unknown activation 'sigmoid'"),
])
def test_build_says_what_it_knows_when_it_does_not_know(args, says):
    with pytest.raises(ValueError, match=says):
        build(*args)


def test_a_vgg16_of_another_width_says_so_and_one_of_none_is_refused():
    assert vgg16(width=2).name == "vgg16 of width 2"
    with pytest.raises(ValueError, match="width of at least 1, got 0"):
        vgg16(width=0)


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_evaluate_counts_errors_and_averages_the_loss_over_all_inputs(batch):
    net = linear(3, 3)
    params = {"fc1.weight": np.eye(3), "fc1.bias": np.zeros(3)}
    x = np.log(np.array([[1., 2, 5], [6, 1, 1], [2, 5, 1], [1, 1, 6], [1, 5, 2], [4, 3, 1],
                         [3, 4, 1]]))
    labels = np.array([2, 0, 1, 2, 2, 1, 0])            # the last three are wrong
    result = evaluate(net, params, x, labels, batch=batch)
    odds = [5, 6, 5, 6, 2, 3, 3]                        # of the right class, out of 8
    assert result["error"] == 100 * 3 / 7
    assert result["loss"] == pytest.approx(-sum(math.log(o / 8) for o in odds) / 7, rel=1e-13)


@pytest.mark.parametrize("x, labels, says", [
    (X[:0], LABELS[:0], "at least one"), (X, LABELS[:-1], "as many labels"),
    (X, LABELS - 1, "0 to 2, got -1 to"), (X, LABELS + 1, "got 1 to 3")])
def test_evaluate_rejects_labels_that_do_not_fit(x, labels, says):
    assert set(LABELS.tolist()) == {0, 1, 2}
    net = linear(6, 3)
    with pytest.raises(ValueError, match=says):
        evaluate(net, net.init(RNG, np.float64), x, labels)


@pytest.mark.away
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_net_is_evaluated_where_its_arrays_live(activation, place):
    net = lenet300(6, 3, activation)
    params = random_params(net)
    there = {name: place(p) for name, p in params.items()}
    net.check(there)
    x, labels = map(place, (X, LABELS))
    assert net.apply(there, x).device == x.device
    result = evaluate(net, there, x, labels, batch=3)
    assert result == pytest.approx(evaluate(net, params, X, LABELS), rel=1e-12)


@pytest.mark.mnist
@pytest.mark.skipif("LCREF_DATA" not in os.environ, reason="needs MNIST: set LCREF_DATA")
def test_the_reference_lenet300_misclassifies_213_of_the_10000_mnist_test_digits():
    file = Path(os.environ["LCREF_DATA"], "weights", "lenet300_mnist.npz")
    if not file.exists():
        pytest.skip(f"needs the reference weights, {file}")
    with np.load(file) as archive:
        params = dict(archive)
    data, net = load("mnist"), lenet300()
    net.check(params)
    assert evaluate(net, params, data.x_test, data.y_test)["error"] == 2.13
    assert evaluate(net, params, data.x_train, data.y_train)["error"] == pytest.approx(
        0.198, abs=0.0005)
