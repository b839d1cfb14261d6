"""Backpropagation written out against autograd, bit for bit, and against its own arguments."""
import autograd
import numpy as np
import pytest
from places import on_host

from lcref import blocks
from lcref.nets import lenet300, linear, loss, threads, value_and_grad

NETS = [linear(6, 3), lenet300(6, 3, "tanh"), lenet300(6, 3, "relu")]
IDS = ["linear", "tanh", "relu"]


def problem(net, n=7, dtype=np.float32):
    rng = np.random.default_rng(0)
    params = {name: (p + 0.1 * rng.normal(size=p.shape)).astype(dtype)
              for name, p in net.init(rng, np.float64).items()}
    x = rng.normal(size=(n, *net.input_shape)).astype(dtype)
    return params, x, rng.integers(0, net.classes, n)


def by_autograd(net, params, x, labels):
    """Through the primitives of the layers."""
    return loss(net, params, x, labels), autograd.grad(lambda p: loss(net, p, x, labels))(params)


@pytest.mark.parametrize("net", NETS, ids=IDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loss_and_gradient_have_the_bits_of_autograds(net, dtype):
    params, x, labels = problem(net, dtype=dtype)
    expected, slopes = by_autograd(net, params, x, labels)
    value, grads, statistics = value_and_grad(net)(params, x, labels)
    assert value == float(expected) and statistics == {} and list(grads) == list(params)
    for name, g in grads.items():
        assert g.dtype == dtype
        np.testing.assert_array_equal(g, slopes[name], err_msg=name)


@pytest.mark.away
@pytest.mark.parametrize("net", NETS, ids=IDS)
def test_on_a_device_the_bits_are_those_of_numpy(net, place):
    params, x, labels = problem(net)
    value, grads, _ = value_and_grad(net)(params, x, labels)
    far, far_grads, _ = value_and_grad(net)({name: place(p) for name, p in params.items()},
                                            place(x), place(labels))
    assert far == value
    for name, g in far_grads.items():
        assert g.device == place(x).device
        np.testing.assert_array_equal(on_host(g), grads[name])


@pytest.mark.parametrize("net", NETS, ids=IDS)
def test_nothing_is_written_to_but_what_is_returned(net):
    params, x, labels = problem(net)
    for a in (*params.values(), x, labels):
        a.flags.writeable = False       # a write is an error
    first = value_and_grad(net)(params, x, labels)[1]
    kept = {name: g.copy() for name, g in first.items()}
    value_and_grad(net)(params, x, labels)
    for name, g in first.items():
        np.testing.assert_array_equal(g, kept[name])
        assert not any(np.shares_memory(g, a) for a in (*params.values(), x))


@pytest.mark.parametrize("block", [1, 20_000, 1 << 40])
def test_blocks_of_outputs_change_rounding_only_and_threads_nothing(block, monkeypatch):
    net = lenet300(40, 10)
    params, x, labels = problem(net, 64, np.float64)
    _, expected = by_autograd(net, params, x, labels)
    monkeypatch.setattr(blocks, "BLOCK", block)
    with threads(1):        # and one in the BLAS
        one = value_and_grad(net)(params, x, labels)[1]
    with threads(2):
        two = value_and_grad(net)(params, x, labels)[1]
    for name, g in one.items():
        np.testing.assert_array_equal(two[name], g)
        np.testing.assert_allclose(g, expected[name], rtol=0, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("change, error, says", [
    ({"x": np.zeros((7, 5), np.float32)}, ValueError, r"inputs x of shape \(n, 6\)"),
    ({"x": np.zeros((7, 6))}, ValueError, "are float64, its parameters fc1.weight float32"),
    ({"labels": np.zeros(7)}, TypeError, "labels must have a whole number dtype"),
    ({"labels": np.zeros(6, int)}, ValueError, "do not fit each other"),
    ({"labels": np.full(7, 3)}, IndexError, "3"),
    ({"params": [1]}, TypeError, "params must be a dict")])
def test_what_does_not_fit_the_net_is_an_error(change, error, says):
    given = dict(zip(("params", "x", "labels"), problem(NETS[1]))) | change
    with pytest.raises(error, match=says):
        value_and_grad(NETS[1])(**given)
