"""The nets of images against the same nets written once more, channels first."""
import functools
import math
import re
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from channels_first import Forward, cross_entropy, positive
from places import on_host

from lcref.nets import build, evaluate, loss, value_and_grad
from lcref.nets.models import resnet
from lcref.nets.net import Training, he_normal

NETS = {
    "lenet5": (build("lenet5", (1, 28, 28), 10), Forward.lenet5),
    "lenet5-tanh": (build("lenet5", (2, 17, 22), 4, "tanh"),
                    lambda net, x: net.lenet5(x, np.tanh)),
    "resnet8": (resnet(8), lambda net, x: net.resnet(x, 1)),
    "resnet14": (resnet(14, (2, 9, 11), 3), lambda net, x: net.resnet(x, 2)),
    "vgg16": (build("vgg16", (3, 32, 32), 10), Forward.vgg16),
    "vgg16-large": (build("vgg16", (1, 32, 64), 3), Forward.vgg16),
    "vgg16-quarter": (build("vgg16-quarter", (3, 32, 32), 10), Forward.vgg16),
    "nin": (build("nin", (3, 12, 10), 5), Forward.nin),
    "alexnet": (build("alexnet", (3, 67, 67), 5), Forward.alexnet),
}
SMALL = ["lenet5", "lenet5-tanh", "resnet8", "resnet14", "nin"]
LARGE = ["vgg16", "alexnet"]


@functools.lru_cache(maxsize=2)
def problem(name, n, dtype=np.float64):
    """Parameters that have none of their first values, images and labels; a write is an error."""
    net, rng = NETS[name][0], np.random.default_rng(0)
    # AlexNet's own draws are so small that its logits say little of the first layers
    params = {key: (p * rng.uniform(.8, 1.2, p.shape) + rng.uniform(0, .1, p.shape)
                    if p.ndim == 1 else p).astype(dtype)
              for key, p in replace(net, draw=he_normal).init(rng, np.float64).items()}
    x, labels = rng.normal(size=(n, *net.input_shape)), rng.integers(0, net.classes, n)
    x = x.astype(dtype)
    for a in (x, labels, *params.values()):
        a.flags.writeable = False
    return MappingProxyType(params), x, labels


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", NETS)
def test_a_net_in_evaluation_is_what_its_paper_says(name, dtype):
    net, forward = NETS[name]
    params, x, _ = problem(name, 2, dtype)
    net.check(params)
    expected = forward(Forward({k: p.astype(float) for k, p in params.items()}), x.astype(float))
    logits = net.apply(params, x)
    assert logits.dtype == dtype and logits.shape == (2, net.classes)
    scale, u = np.abs(expected).max(), float(np.finfo(dtype).eps)
    assert np.ptp(expected, axis=0).max() > scale / 100     # the images matter
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1000 * u * scale)


@pytest.mark.parametrize("name", SMALL + LARGE)
def test_a_net_in_training_has_its_loss_and_its_running_statistics(name):
    net, forward = NETS[name]
    params, x, labels = problem(name, 2)
    before = {key: p.copy() for key, p in params.items()}
    reference = Forward(params, True, np.random.default_rng(5))
    expected = cross_entropy(forward(reference, x), labels)
    value, grads, statistics = value_and_grad(net)(params, x, labels, np.random.default_rng(5))
    assert value == pytest.approx(expected, rel=1e-9)
    assert sorted(statistics) == sorted(net.statistics) == sorted(reference.statistics)
    for key, exact in reference.statistics.items():
        np.testing.assert_allclose(statistics[key], exact, rtol=1e-9, atol=1e-12)
    assert sorted([*grads, *statistics]) == sorted(net.shapes)
    for key, p in params.items():
        np.testing.assert_array_equal(p, before[key])       # nothing is written to
        assert not any(np.shares_memory(p, d[key]) for d in (grads, statistics) if key in d)


@pytest.mark.parametrize("name", SMALL)
def test_the_slope_of_the_loss_along_each_parameter_is_the_gradients(name):
    net, forward = NETS[name]
    params, x, labels = problem(name, 2)
    _, grads, _ = value_and_grad(net)(params, x, labels, np.random.default_rng(5))
    rng = np.random.default_rng(2)

    def along(names, step):
        directions = {key: rng.normal(size=params[key].shape) for key in names}
        size = math.sqrt(sum((d * d).sum() for d in directions.values()))
        values = []
        for sign in (1, -1):
            moved = params | {key: params[key] + sign * step / size * d
                              for key, d in directions.items()}
            net_there = Forward(moved, True, np.random.default_rng(5))
            values.append(cross_entropy(forward(net_there, x), labels))
        exact = sum(np.vdot(grads[key], d) for key, d in directions.items()) / size
        return (values[0] - values[1]) / (2 * step), exact
    for key in grads:
        slope, exact = along([key], 1e-6)
        bound = 1e-4 * np.linalg.norm(grads[key]) / math.sqrt(grads[key].size) + 1e-8
        assert abs(slope - exact) <= bound, key


@pytest.mark.parametrize("name", LARGE)
def test_the_slope_of_a_large_nets_loss_against_its_gradient_is_the_gradients_norm(name):
    net, _ = NETS[name]
    params, x, labels = problem(name, 2)
    _, grads, _ = value_and_grad(net)(params, x, labels, np.random.default_rng(5))
    norm = math.sqrt(sum((g * g).sum() for g in grads.values()))
    ahead, behind = (
        loss(net, params | {key: params[key] + s / norm * g for key, g in grads.items()}, x,
             labels, Training(np.random.default_rng(5))) for s in (1e-6, -1e-6))
    assert (ahead - behind) / 2e-6 == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("name", ["vgg16", "nin", "alexnet"])
def test_dropout_repeats_with_the_seed_and_changes_with_it(name):
    net, _ = NETS[name]
    assert net.random
    params, x, labels = problem(name, 2)
    one, again, other = (float(loss(net, params, x, labels, Training(np.random.default_rng(s))))
                         for s in (3, 3, 4))
    assert one == again != other
    if name == "nin":
        f = value_and_grad(net)
        one, again = (f(params, x, labels, np.random.default_rng(3))[1] for _ in range(2))
        for key in one:
            np.testing.assert_array_equal(one[key], again[key])


def test_a_net_without_dropout_draws_nothing():
    for name in ("lenet5", "resnet8"):
        assert not NETS[name][0].random


@pytest.mark.away
@pytest.mark.parametrize("name", ["lenet5", "lenet5-tanh", "resnet8", "resnet14", "nin"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_step_where_the_arrays_live_equals_numpys_within_rounding(name, dtype, place):
    net, _ = NETS[name]
    params, x, labels = problem(name, 2, dtype)
    f = value_and_grad(net)
    there = {key: place(p) for key, p in params.items()}
    net.check(there)
    value, *dicts = f(there, place(x), place(labels), np.random.default_rng(5))
    exact, *expected = f(params, x, labels, np.random.default_rng(5))
    u = float(np.finfo(dtype).eps)
    assert float(value) == pytest.approx(exact, rel=1000 * u)
    for one, other in zip(dicts, expected, strict=True):
        assert sorted(one) == sorted(other)
        scale = max((np.linalg.norm(e) for e in other.values()), default=0)
        for key, e in other.items():
            a = on_host(one[key])
            assert a.dtype == dtype and a.shape == e.shape
            assert np.linalg.norm(a - e) <= 2e4 * u * (np.linalg.norm(e) + 1e-3 * scale), key


@pytest.mark.away
@pytest.mark.parametrize("name", ["lenet5", "resnet8"])
def test_a_net_of_images_is_evaluated_where_its_arrays_live(name, place):
    net, _ = NETS[name]
    params, x, labels = problem(name, 5)
    there = {key: place(p) for key, p in params.items()}
    assert net.apply(there, place(x)).device == place(x).device
    result = evaluate(net, there, place(x), place(labels), batch=2)
    assert result == pytest.approx(evaluate(net, params, x, labels), rel=1e-10)


def test_evaluation_takes_what_is_prepared_batch_by_batch():
    net, forward = NETS["resnet8"]
    params, x, labels = problem("resnet8", 5)
    seen = []

    def prepare(pixels):
        assert pixels.dtype == np.uint8
        seen.append(len(pixels))
        return pixels / 128 - 1
    pixels = np.random.default_rng(0).integers(0, 256, x.shape, np.uint8)
    logits = forward(Forward(params), pixels / 128 - 1)
    result = evaluate(net, params, pixels, labels, batch=2, prepare=prepare)
    assert seen == [2, 2, 1]
    assert result["error"] == 100 * np.sum(logits.argmax(axis=1) != labels) / 5
    assert result["loss"] == pytest.approx(cross_entropy(logits, labels), rel=1e-10)


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "vgg16", "nin", "alexnet"])
def test_images_of_another_size_are_refused_with_both_shapes(name):
    net, _ = NETS[name]
    params, x, labels = problem(name, 2)
    takes = ", ".join(map(str, net.input_shape))
    for wrong in (x[:, :, 1:], x.transpose(0, 2, 3, 1), x.reshape(2, -1), x[:, :, :, :, None]):
        says = re.escape(f"{net.name} takes inputs x of shape (n, {takes}), got {wrong.shape}")
        for f in (lambda: net.apply(params, wrong), lambda: evaluate(net, params, wrong, labels),
                  lambda: value_and_grad(net)(params, wrong, labels, np.random.default_rng(0))):
            with pytest.raises(ValueError, match=says):
                f()


@pytest.mark.parametrize("shift, says", [(-1, "0 to 9, got -1 to"), (1, r"0 to 9, got \d to 10")])
def test_labels_out_of_range_are_refused_before_anything_is_computed(shift, says):
    net, _ = NETS["resnet8"]
    with pytest.raises(ValueError, match=says):
        evaluate(net, {}, np.zeros((10, 3, 32, 32)), np.arange(10) + shift)


# ----- sizes, names and first values ---------------------------------------------------------

@pytest.mark.parametrize("name, shape, classes, weights, rest", [
    ("lenet5", (1, 28, 28), 10, 430_500, 580),
    ("resnet20", (3, 32, 32), 10, 268_336, 269_722 - 268_336),
    ("resnet32", (3, 32, 32), 10, 461_872, 464_154 - 461_872),
    ("resnet56", (3, 32, 32), 10, 848_944, 853_018 - 848_944),
    ("resnet110", (3, 32, 32), 10, 1_719_856, 1_727_962 - 1_719_856),
    ("vgg16", (3, 32, 32), 10, 15_239_872, 15_253_578 - 15_239_872),
    # as wide as a quarter: 9·(3·16 + 16² + 16·32 + 32² + 32·64 + 2·64² + 64·128 + 5·128²), then
    # 2·128² + 1280; of each of the 1,056 channels a bias and two of normalisation, then 266
    ("vgg16-quarter", (3, 32, 32), 10, 9 * (48 + 256 + 512 + 1_024 + 2_048 + 8_192 + 8_192 + 81_920)
     + 34_048, 3 * 1_056 + 266),
    # NIN: 3·192·25 + 192·160 + 160·96 + 96·192·25 + 2·192² + 192·192·9 + 192² + 1920
    ("nin", (3, 32, 32), 10, 14_400 + 30_720 + 15_360 + 460_800 + 73_728 + 331_776 + 36_864
     + 1_920, 192 + 160 + 96 + 5 * 192 + 10),
    ("alexnet", (3, 227, 227), 1000, 62_367_776, 10_568)])
def test_a_net_has_as_many_weights_as_its_paper_says(name, shape, classes, weights, rest):
    net = build(name, shape, classes)
    sizes = {key: math.prod(s) for key, s in net.shapes.items()}
    assert sum(sizes[key] for key in net.weights) == weights
    others = sizes.keys() - set(net.weights) - set(net.statistics)
    assert sum(sizes[key] for key in others) == rest


@pytest.mark.parametrize("depth", [2, 7, 9, 21, 110 + 1])
def test_a_depth_that_is_not_6m_plus_2_is_refused(depth):
    with pytest.raises(ValueError, match=f"6m \\+ 2 layers.*not {depth}"):
        resnet(depth)


@pytest.mark.parametrize("name", ["lenet5", "lenet5-tanh", "resnet14", "vgg16", "nin"])
def test_first_weights_have_the_variance_of_their_source(name):
    net, _ = NETS[name]
    params = net.init(np.random.default_rng(0))
    for key in net.weights:
        w, (out, fan_in, *kernel) = params[key], net.shapes[key]
        window = math.prod(kernel)
        variance = 2 / (fan_in * window)                                # He
        if name == "lenet5-tanh":
            variance = 2 / ((fan_in + out) * window)                    # Glorot: bound² / 3
            assert np.abs(w).max() <= np.float32(math.sqrt(3 * variance))
        assert w.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / w.size)), key
        assert abs(w.mean()) < 5 * math.sqrt(variance / w.size)
    for key in net.shapes.keys() - set(net.weights):
        one = key.endswith((".running_var", ".weight"))
        assert (params[key] == one).all(), key


def test_alexnets_first_values_are_those_of_its_paper():
    net, _ = NETS["alexnet"]
    params = net.init(np.random.default_rng(0))
    for key in net.weights:
        assert params[key].std() == pytest.approx(0.01, rel=5 / math.sqrt(2 * params[key].size))
    biases = {key: set(p.tolist()) for key, p in params.items() if key.endswith("bias")}
    assert biases == {f"{layer}.bias": {float(layer not in ("conv1", "conv3", "fc8"))} for layer in
                      ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")}


def test_the_running_statistics_are_neither_weights_nor_trained():
    net, _ = NETS["resnet8"]
    assert len(net.statistics) == 2 * 7 and not set(net.statistics) & set(net.weights)
    assert set(net.weights) == {key for key in net.shapes if "conv" in key} | {"linear.weight"}
    assert positive(np.array([-1.0, 2])).tolist() == [0, 2]
