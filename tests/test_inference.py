"""Inference from parts: the dense product within rounding, and the operations that it takes."""
import dataclasses
import itertools
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcref import Task, inference, parse
from lcref.inference import (Weight, by_tensor, dense_operations, from_parts, operations,
                             positions)
from lcref.nets import alexnet, build, evaluate, lenet5, lenet300, nin, resnet, vgg16
from lcref.nets.models import MODELS
from lcref.parts import Codebook, Dense, LowRank, Sparse, Sum

MU = 3.0
TEXTS = ["quantize(k={k})", "quantize(codebook=[-1, 0, 2])", "powersoftwo(c=3)",
         "quantize(codebook=[1, 2], scale=True)", "binary()", "binary(scale=True)", "ternary()",
         "ternary(scale=True)", "round(dtype='float16')", "round(dtype='int4')",
         "prune(kappa={k})", "prune(keep=0.5)", "prune(radius=0.7)", "prune(alpha=0.3)",
         "prune(alpha=0.3, norm=1)", "prune(groups=1, axis=0)", "prune(groups=1, axis=1)",
         "prune(groups=1, axis=-1)", "lowrank(rank=2)", "lowrank(rank=9)", "lowrank(alpha=0.1)",
         "lowrank(rank=0)", "lowrank(rank=2, scheme=2)", "lowrank(rank=0, scheme=2)",
         "binary(scale=True) + prune(keep=0.1)", "quantize(k={k}) + prune(kappa=2)",
         "binary() + prune(kappa=0)", "lowrank(rank=1) + prune(keep=0.1)",
         "lowrank(rank=1, scheme=2) + quantize(k=2)",
         "prune(groups=1, axis=0) + prune(kappa=2) + lowrank(rank=1)",
         "round(dtype='float16') + round(dtype='float16')"]
sharing = st.sampled_from([1, 128])     # share sums of neighbouring inputs always, or as usual
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([np.float32, np.float64])
entries = st.integers(1, 16)
few = settings(max_examples=settings().max_examples // 4)   # of each text
every_text = pytest.mark.parametrize("text", TEXTS)


def draws(seed, shape, dtype):
    """Heavy-tailed, with ties and zeros, of one sign in every fourth case."""
    rng = np.random.default_rng(seed)
    w = rng.standard_t(3, size=shape)
    w = np.abs(w) if seed % 4 == 0 else w
    return np.where(rng.random(shape) < 0.3, np.round(w), w).astype(dtype), rng


def project(text, w):
    return parse(text).project(w, MU)


def sizes(part):
    """(the sum over the parts of bounds on the weights' size that rounding sees, terms).

    A bucket's sum may be that of all inputs less the others': e_0 s + Σ (e_c − e_0) s_c, in which
    every input meets weights of 3 max|e| at most. Of low rank the factors' sizes count.
    """
    if isinstance(part, Sum):
        bounds, terms = zip(*map(sizes, part.parts))
        return sum(bounds), sum(terms)
    if isinstance(part, Codebook):
        largest = np.max(np.abs(part.entries.astype(np.float64)))
        return np.full(part.codes.shape, 3 * largest), part.entries.size
    if isinstance(part, LowRank):
        bound = dataclasses.replace(part, left=np.abs(part.left), right=np.abs(part.right))
        return bound.decompress().astype(np.float64), part.left.shape[1]
    return np.abs(part.decompress().astype(np.float64)), 1


def check(y, part, w, times, n):
    """|y − Δ x| is at most (n + terms + 10) u times the sizes: a sum of n products in any order
    is off by n u Σ|w||x| (Higham, Accuracy and Stability, section 3.1), Δ itself by terms u |w|.

    `times` is the product of a weight with the inputs; w the float64 Δ, and `times(|w|)` is with
    the magnitudes of the inputs.
    """
    bound, terms = sizes(part)
    eps = np.finfo(y.dtype).eps
    assert np.all(np.abs(y - times(w, 1)) <= (n + terms + 10) * eps * times(bound, -1))


# ----- products ------------------------------------------------------------------------------

@every_text
@few
@given(entries, st.tuples(st.integers(1, 9), st.integers(1, 20)), st.integers(0, 40), dtypes, seeds,
       sharing, st.booleans())
def test_a_fully_connected_layer_of_parts_is_the_dense_product(text, k, shape, n, dtype, seed,
                                                               outputs, biased):
    w, rng = draws(seed, shape, dtype)
    part = project(text.format(k=k), w)
    x = rng.normal(size=(n, shape[1])).astype(dtype)
    b = rng.normal(size=shape[0]).astype(dtype) if biased else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "SHARING", outputs)
        weight = Weight(part)
        y = weight.affine(x, b)
    assert (weight.shape, weight.ndim, weight.dtype) == (shape, 2, dtype)
    assert (y.shape, y.dtype) == ((n, shape[0]), dtype)

    def times(v, sign):
        b64 = 0 if b is None else b.astype(np.float64)
        return (x.astype(np.float64) @ v.T + b64 if sign > 0 else
                np.abs(x.astype(np.float64)) @ v.T + np.abs(b64))
    check(y, part, part.decompress().astype(np.float64), times, shape[1])


def convolution(x, w, stride, padding):
    """y[n, i, j, o] = Σ x[n, σ i + k − p, σ j + l − p, c] w[o, c, k, l], an output at a time."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    kh, kw = w.shape[2:]
    rows, columns = [range(0, size - k + 1, stride) for size, k in zip(x.shape[1:], (kh, kw))]
    y = np.empty((x.shape[0], len(rows), len(columns), w.shape[0]))
    for i, j in itertools.product(range(len(rows)), range(len(columns))):
        patch = x[:, rows[i]:rows[i] + kh, columns[j]:columns[j] + kw]
        y[:, i, j] = np.einsum("nklc,ockl->no", patch, w)
    return y


@every_text
@few
@given(entries, st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3),
       st.integers(1, 3)), st.tuples(st.integers(3, 6), st.integers(3, 6)),
       st.integers(0, 12), st.integers(1, 2), st.integers(0, 2), dtypes, seeds, sharing)
def test_a_convolution_of_parts_is_the_dense_one(text, k, shape, size, n, stride, padding,
                                                 dtype, seed, outputs):
    w, rng = draws(seed, shape, dtype)
    part = project(text.format(k=k), w)
    x = rng.normal(size=(n, *size, shape[1])).astype(dtype)
    b = rng.normal(size=shape[0]).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "SHARING", outputs)
        y = Weight(part).conv2d(x, b, stride, padding)

    def times(v, sign):
        x64, b64 = x.astype(np.float64), b.astype(np.float64)
        return (convolution(x64, v, stride, padding) + b64 if sign > 0 else
                convolution(np.abs(x64), v, stride, padding) + np.abs(b64))
    assert y.dtype == dtype
    assert y.shape == (n, *((s + 2 * padding - k) // stride + 1
                            for s, k in zip(size, shape[2:])), shape[0])
    check(y, part, part.decompress().astype(np.float64), times, w[0].size)


@pytest.mark.parametrize("k", [1, 2, 3, 16])
@pytest.mark.parametrize("columns", [1, 3, 300])
@pytest.mark.parametrize("zero", [False, True])
def test_a_layer_of_many_outputs_shares_sums_of_inputs_and_is_the_dense_product(k, columns, zero):
    rng = np.random.default_rng(k)
    entries = np.sort(rng.normal(size=k))
    entries[k // 2] = 0 if zero else entries[k // 2]
    part = Codebook(rng.integers(0, k, (150, 1001)).astype(np.uint8), entries)
    x = rng.normal(size=(columns, 1001))
    check(Weight(part).affine(x), part, part.decompress(),
          lambda v, sign: (x if sign > 0 else np.abs(x)) @ v.T, 1001)


def test_a_sum_of_sums_of_parts_is_the_dense_product():
    w, rng = draws(1, (5, 8), np.float64)
    inner = project("binary(scale=True) + prune(kappa=3)", w)
    part = Sum((inner, project("lowrank(rank=1)", w)), "stationary", 0.0)
    x = rng.normal(size=(4, 8))
    np.testing.assert_allclose(Weight(part).affine(x), x @ part.decompress().T, rtol=1e-12,
                               atol=1e-12)


def test_an_input_that_does_not_fit_is_an_error():
    w, _ = draws(1, (4, 3, 3, 3), np.float32)
    convolutional, full = Weight(project("binary()", w)), Weight(project("binary()", w[:, :, 0, 0]))
    with pytest.raises(ValueError, match=r"\(4, 3\) do not fit inputs of shape \(2, 5\)"):
        full.affine(np.ones((2, 5), np.float32))
    with pytest.raises(ValueError, match=r"\(4, 3, 3, 3\) do not fit inputs"):
        convolutional.conv2d(np.ones((2, 2, 7, 3), np.float32))
    with pytest.raises(ValueError, match="do not fit"):
        convolutional.affine(np.ones((2, 3), np.float32))
    with pytest.raises(TypeError, match="float32, not ndarray of float64"):
        full.affine(np.ones((2, 3)))
    with pytest.raises(TypeError, match="NumPy arrays"):
        full.affine(array_api_strict.ones((2, 3), dtype=array_api_strict.float32))


def test_parts_that_inference_cannot_multiply_are_an_error():
    on_device = parse("binary()").project(array_api_strict.asarray([[1.0, -2.0]]))
    for wrong in (lambda: Weight(on_device), lambda: by_tensor(on_device, ["fc1.weight"]),
                  lambda: operations(on_device, (1, 2))):
        with pytest.raises(TypeError, match="for NumPy arrays"):
            wrong()
    with pytest.raises(TypeError, match="float32 or float64, not float16"):
        Weight(Dense(np.ones((2, 2), np.float16)))
    with pytest.raises(ValueError, match="2 or 4 axes, not 1"):
        Weight(Dense(np.ones(2)))
    each = parse("each(binary())").project({"a": np.ones((2, 2)), "b": np.ones((2, 2))})
    with pytest.raises(TypeError, match="not ByTensor"):
        Weight(each)


def peak(f):
    tracemalloc.start()
    try:
        f()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_memory_used_is_less_than_that_of_the_dense_weight():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, (1024, 2048)).astype(np.uint8)
    bits = Codebook(codes, np.array([-0.1, 0.1]))
    part = Sum((bits, project("prune(keep=0.03)", rng.normal(size=codes.shape))), "exact", 0.0)
    one, many = rng.normal(size=(1, 2048)), rng.normal(size=(64, 2048))
    dense_bytes, weight = codes.size * 8, Weight(part)
    assert peak(lambda: Weight(part).affine(one)) < 0.6 * dense_bytes
    weight.affine(many)     # makes the matrix that adds up the buckets, and keeps it
    assert peak(lambda: weight.affine(many)) < 0.6 * dense_bytes


# ----- a part for each tensor ----------------------------------------------------------------

SHAPES = {"a": (4, 6), "b": (3, 2, 3, 2), "c": (5,)}


@pytest.mark.parametrize("names", [["a", "b", "c"], ["b"]], ids=["three tensors", "one tensor"])
@pytest.mark.parametrize("text", [
    "quantize(k=3)", "each(quantize(k=3))", "prune(kappa=9)", "round(dtype='float16')",
    "each(quantize(k=2)) + prune(kappa=4)", "quantize(k=2) + prune(kappa=4)",
    "each(binary(scale=True)) + prune(kappa=0)", "prune(groups=3, axis=0)",
    "each(quantize(k=2) + prune(kappa=2))",
    "prune(kappa=5) + round(dtype='float16') + quantize(codebook=[-1, 1])"])
def test_the_parts_of_the_tensors_decompress_to_the_tensors_of_the_task(text, names):
    w = {name: draws(5, SHAPES[name], np.float32)[0] for name in names}
    theta = project(text, w)
    dense = theta.decompress() if len(names) > 1 else {names[0]: theta.decompress()}
    parts = by_tensor(theta, names)
    assert list(parts) == names
    for name in names:
        delta = parts[name].decompress()
        assert (delta.shape, delta.dtype) == (SHAPES[name], np.float32)
        assert delta.tobytes() == dense[name].tobytes()


def test_each_tensor_has_the_bits_of_its_own_part():
    w = {name: draws(6, shape, np.float32)[0] for name, shape in SHAPES.items()}
    theta = project("each(quantize(k=2)) + prune(kappa=12)", w)
    nonzeros = {name: part.parts[1].values.size for name, part in by_tensor(theta, SHAPES).items()}
    assert sum(nonzeros.values()) == 12
    assert nonzeros == {name: np.count_nonzero(d) for name, d
                        in theta.parts[1].decompress().items()}


# ----- nets ----------------------------------------------------------------------------------

SMALL = {"linear": 20, "lenet300": 30, "lenet5": (1, 16, 16), "nin": (3, 16, 16),
         "resnet20": (3, 8, 8), "vgg16": (3, 32, 32), "vgg16-quarter": (3, 32, 32),
         "alexnet": (3, 67, 67)}


def compressed(net, large, dtype=np.float64):
    """(parameters, tasks, θ): a bias, and the weights by two sums, of which one is low rank."""
    rng = np.random.default_rng(3)
    params = net.init(rng, dtype)
    params |= {name: rng.normal(size=net.shapes[name]) for name in net.shapes
               if name.endswith(".bias")}
    first, rest = net.weights[::2], net.weights[1::2]
    second = "each(binary(scale=True))" if large else "lowrank(rank=2) + prune(kappa=40)"
    tasks = [Task(first, parse("each(binary(scale=True)) + prune(keep=0.03)"))]
    tasks += [Task(rest, parse(second))] if rest else []
    biases = [name for name in net.shapes if name.endswith(".bias")][:1]
    tasks += [Task(biases, parse("prune(keep=0.5)"))]
    thetas = {i: task.compression.project({name: params[name] for name in task.names}, MU)
              for i, task in enumerate(tasks)}
    return params, tasks, thetas


def dense(params, tasks, thetas):
    delta = {}
    for i, task in enumerate(tasks):
        tensors = thetas[i].decompress()
        delta.update(tensors if len(task.names) > 1 else {task.names[0]: tensors})
    return {**params, **delta}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (
    name in ("alexnet", "vgg16"))) for name in SMALL])
def test_a_net_from_parts_has_the_logits_of_the_dense_net(name):
    net = build(name, SMALL[name], 5)
    model = compressed(net, name in ("vgg16", "alexnet"))
    x = np.random.default_rng(4).normal(size=(3, *net.input_shape))
    weights = from_parts(*model)
    logits = net.apply(dense(*model), x)
    # float64 layers of under 10⁴ inputs: about 1e-12 a layer, and at most 22 layers
    np.testing.assert_allclose(net.apply(weights, x), logits, rtol=0,
                               atol=1e-10 * np.max(np.abs(logits)))
    labels = np.arange(3)
    wrong = np.count_nonzero(logits.argmax(axis=1) != labels)
    assert evaluate(net, weights, x, labels)["error"] == 100 * wrong / 3


def test_every_net_is_tried_up_to_its_depth():
    assert set(MODELS) - set(SMALL) == {"resnet32", "resnet44", "resnet56", "resnet110"}


def test_a_net_from_parts_holds_weights_in_the_place_of_the_compressed_tensors():
    net = lenet300(8, 3)
    params, tasks, thetas = compressed(net, False)
    weights = from_parts(params, tasks, thetas)
    assert list(weights) == list(params)
    assert [name for name, w in weights.items() if isinstance(w, Weight)] == net.weights
    assert np.count_nonzero(weights["fc1.bias"]) == 150     # half of them
    assert weights["fc2.bias"] is params["fc2.bias"]


def test_a_net_from_parts_runs_without_decompression(monkeypatch):
    net = resnet(8, (3, 8, 8))
    params, tasks, thetas = compressed(net, False)

    def forbidden(part):
        raise AssertionError("decompressed")
    weights = from_parts(params, tasks[:2], thetas)
    for kind in (Codebook, Sparse, LowRank, Dense, Sum):
        monkeypatch.setattr(kind, "decompress", forbidden)
    assert np.all(np.isfinite(net.apply(weights, np.ones((2, 3, 8, 8)))))


def file(*names):
    if "LCREF_DATA" not in os.environ:
        pytest.skip("needs CIFAR-10 and weights: set LCREF_DATA")
    path = Path(os.environ["LCREF_DATA"], *names)
    if not path.exists():
        pytest.skip(f"needs {path}")
    return path


def test_the_reference_resnet20_at_one_bit_and_3_percent_gives_the_same_classes_from_its_parts():
    with np.load(file("weights", "resnet20_cifar10.npz")) as archive:
        net = build("resnet20", (3, 32, 32), 10)
        params = {name: archive[name] for name in net.shapes}
    with file("cifar-10-batches-py", "test_batch").open("rb") as stream:
        pixels = pickle.load(stream, encoding="bytes")[b"data"][:300].reshape(-1, 3, 32, 32)
    mean, std = (np.array(v)[:, None, None] for v in ((.485, .456, .406), (.229, .224, .225)))
    x = ((pixels / 255 - mean) / std).astype(np.float32)
    task = Task(net.weights, parse("each(quantize(k=2)) + prune(keep=0.03)"))
    model = params, [task], {0: task.compression.project({n: params[n] for n in net.weights})}
    logits, expected = net.apply(from_parts(*model), x), net.apply(dense(*model), x)
    scale = np.max(np.abs(expected))
    assert np.max(np.abs(logits - expected)) < 1e-4 * scale     # 20 layers of about 600 u each
    first, second = np.sort(expected, axis=1)[:, :-3:-1].T
    clear = first - second > 2e-4 * scale       # a tie within rounding may go either way
    assert np.mean(clear) > 0.99
    assert np.array_equal(logits.argmax(axis=1)[clear], expected.argmax(axis=1)[clear])


# ----- operations ----------------------------------------------------------------------------

class Counter:
    """Arithmetic that counts; a term is (sign, value), since a sign costs nothing."""

    def __init__(self):
        self.products = self.additions = 0

    def times(self, factor, value):
        self.products += 1
        return factor * value

    def sum(self, terms):
        if not terms:
            return 0.0
        (sign, total), *others = terms
        total = sign * total
        for sign, value in others:
            self.additions += 1
            total += sign * value
        return total

    def dot(self, row, x):
        return self.sum([(1, self.times(v, value)) for v, value in zip(row, x)])


def terms_of(part, o, x, count, shared):
    """The terms of output o on one patch x (flat), by the method of each kind, in plain loops."""
    if isinstance(part, Sum):
        return [term for i, p in enumerate(part.parts)
                for term in terms_of(p, o, x, count, shared.setdefault(i, {}))]
    if isinstance(part, Codebook):
        terms, buckets = [], {}
        for c, value in zip(part.codes[o].ravel(), x):
            if entry := float(part.entries[c]):
                buckets.setdefault(abs(entry), []).append((1 if entry > 0 else -1, value))
        for size, bucket in buckets.items():
            if size == 1:
                terms += bucket
            else:
                terms.append((1, count.times(size, count.sum(bucket))))
        return terms
    if isinstance(part, Dense):
        return [(1, count.times(v, value)) for v, value in zip(part.values[o].ravel(), x)]
    if isinstance(part, Sparse):
        w = dataclasses.replace(part, values=np.ones_like(part.values)).decompress()[o].ravel()
        full = part.decompress()[o].ravel()
        return [(1, count.times(v, value)) for v, kept, value in zip(full, w, x) if kept]
    rank = part.left.shape[1]
    if part.scheme == 1:
        if "hidden" not in shared:
            shared["hidden"] = [count.dot(part.right[r], x) for r in range(rank)]
        return [(1, count.times(part.left[o, r], h)) for r, h in enumerate(shared["hidden"])]
    _, inputs, height, width = part.shape
    patch = np.reshape(x, (inputs, height, width))
    if "hidden" not in shared:      # of the rows of the patch, one is new to this position
        shared["hidden"] = [[(count if k == height - 1 else Counter()).dot(
            part.right[r], patch[:, k].ravel()) for r in range(rank)] for k in range(height)]
    return [(1, count.times(part.left[o * height + k, r], shared["hidden"][k][r]))
            for k in range(height) for r in range(rank)]


@every_text
@few
@given(entries, st.one_of(st.tuples(st.integers(1, 4), st.integers(1, 7)),
       st.tuples(*4 * [st.integers(1, 3)])), seeds)
def test_the_operations_are_those_that_the_method_takes_in_plain_loops(text, k, shape, seed):
    w, rng = draws(seed, shape, np.float64)
    part = project(text.format(k=k), w)
    x, count, shared = rng.normal(size=w[0].size), Counter(), {}
    y = [count.sum(terms_of(part, o, x, count, shared)) for o in range(shape[0])]
    np.testing.assert_allclose(y, part.decompress().reshape(shape[0], -1) @ x, atol=1e-9)
    assert operations(part, shape) == (count.products, count.additions)
    assert Weight(part).operations == (count.products, count.additions)


@given(st.tuples(st.integers(1, 5), st.integers(1, 7)), seeds)
def test_the_operations_of_a_dense_weight_are_those_of_plain_loops(shape, seed):
    w, rng = draws(seed, shape, np.float64)
    count = Counter()
    for row in w:
        count.dot(row, rng.normal(size=shape[1]))
    assert dense_operations(shape) == (count.products, count.additions)
    assert operations(Dense(w), shape) == (count.products, count.additions)


def test_one_bit_of_a_large_layer_takes_one_multiplication_an_output():
    codes = np.arange(100 * 784).reshape(100, 784) % 2
    bits = Codebook(codes.astype(np.uint8), np.array([-0.2, 0.2]), "scaled")
    repair = Sparse(np.array([5, 784, 785]), np.ones(3), (100, 784))
    assert dense_operations((100, 784)) == (78_400, 78_300)
    assert operations(bits, (100, 784)) == (100, 78_300)
    assert operations(Sum((bits, repair), "exact", 0.0), (100, 784)) == (103, 78_303)


def test_the_positions_of_lenet5_are_those_worked_out_by_hand():
    assert positions(lenet5()) == {"conv1.weight": 24 * 24, "conv2.weight": 8 * 8,
                                   "fc1.weight": 1, "fc2.weight": 1}


def test_the_positions_of_resnet20_are_those_worked_out_by_hand():
    found = list(positions(resnet(20)).values())
    assert found == 7 * [32 * 32] + 6 * [16 * 16] + 6 * [8 * 8] + [1]


def test_the_positions_of_vgg16_are_those_worked_out_by_hand():
    found = list(positions(vgg16()).values())
    assert found == [1024, 1024, 256, 256, 64, 64, 64, 16, 16, 16, 4, 4, 4, 1, 1, 1]


def test_the_positions_of_alexnet_are_those_worked_out_by_hand():
    assert positions(alexnet()) == {
        "conv1.weight": 55 * 55, "conv2.weight": 27 * 27, "conv3.weight": 13 * 13,
        "conv4.weight": 13 * 13, "conv5.weight": 13 * 13,
        "fc6.weight": 1, "fc7.weight": 1, "fc8.weight": 1}


def test_the_positions_of_nin_are_those_worked_out_by_hand():
    assert list(positions(nin()).values()) == 3 * [1024] + 3 * [256] + 3 * [64]


def test_inference_imports_scipy_only_when_it_multiplies():
    code = "import sys, lcref.inference; assert 'scipy.sparse' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
