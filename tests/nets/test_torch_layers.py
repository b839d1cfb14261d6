"""Each layer against PyTorch's of the same name, forward and backward."""
import numpy as np
import pytest
from autograd import make_vjp

from lcref.nets.convolution import conv2d
from lcref.nets.layers import affine, flatten, relu, softmax_cross_entropy, subsample, tanh
from lcref.nets.net import Training, normalised
from lcref.nets.normalisation import (batch_norm, batch_norm_train, batch_statistics,
                                      local_response_norm)
from lcref.nets.pooling import average_pool, global_average_pool, max_pool

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install lcref[peers]")
F = torch.nn.functional
DTYPES = [np.float64, np.float32]


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def first(a):
    """Channels first, where a is a batch of images."""
    return a.transpose(0, 3, 1, 2) if a.ndim == 4 else a


def compare(layer, args, peer, images, dtype, factor=100):
    """The value and the gradients to all array arguments; those numbered in `images` are images.
    """
    args = [a.astype(dtype) if isinstance(a, np.ndarray) else a for a in args]
    leaves = {i: torch.tensor(np.ascontiguousarray(first(a) if i in images else a),
                              requires_grad=True)
              for i, a in enumerate(args) if isinstance(a, np.ndarray)}
    theirs = peer(*(leaves.get(i, a) for i, a in enumerate(args)))
    vjps = [make_vjp(layer, i)(*args) for i in leaves]
    y = vjps[0][1]
    g = normal(*y.shape, seed=9).astype(dtype)
    theirs.backward(torch.tensor(first(g).copy()))
    ours = [y, *(vjp(g) for vjp, _ in vjps)]
    expected = [theirs.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves.values())]
    for i, (one, other) in enumerate(zip(ours, expected, strict=True)):
        one = first(one) if i == 0 or list(leaves)[i - 1] in images else one
        assert one.dtype == other.dtype == dtype and one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=factor * np.finfo(dtype).eps
                                   * max(1, np.abs(other).max()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel, stride, padding, image", [
    ((3, 3), 1, 1, (16, 16)), ((3, 3), 2, 1, (16, 16)), ((5, 5), 1, 2, (12, 11)),
    ((5, 5), 1, 0, (14, 14)), ((1, 1), 1, 0, (8, 9)), ((11, 11), 4, 0, (31, 27)),
    ((3, 3), 3, 2, (10, 13)), ((2, 5), 2, 1, (9, 8)), ((7, 7), 2, 3, (15, 15))])
@pytest.mark.parametrize("bias", [True, False])
def test_convolution(kernel, stride, padding, image, bias, dtype):
    x, w = normal(3, *image, 4), normal(6, 4, *kernel)
    args = (x, w, normal(6)) if bias else (x, w)
    compare(lambda *a: conv2d(*a, stride=stride, padding=padding) if bias else
            conv2d(*a, None, stride, padding), args,
            lambda *a: F.conv2d(*a, stride=stride, padding=padding), {0}, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size, stride, padding", [(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1),
                                                   (2, 3, 1), (4, 3, 2)])
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool(size, stride, padding, ties, dtype):
    x = np.round(normal(2, 9, 10, 3)) if ties else normal(2, 9, 10, 3)
    compare(max_pool, (x, size, stride, padding), F.max_pool2d, {0}, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size, stride, padding", [(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1),
                                                   (4, 3, 2)])
def test_average_pool(size, stride, padding, dtype):
    compare(average_pool, (normal(2, 9, 10, 3), size, stride, padding),
            lambda *a: F.avg_pool2d(*a, count_include_pad=True), {0}, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_global_average_pool(dtype):
    compare(global_average_pool, (normal(2, 9, 10, 3),), lambda x: x.mean(dim=(2, 3)), {0}, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_local_response_norm_whose_alpha_is_pytorchs_by_the_size(dtype):
    for size, alpha, beta, k in ((5, 1e-4, .75, 2.), (5, .3, .75, 1.), (3, .1, .5, 2.)):
        compare(local_response_norm, (normal(2, 4, 3, 9), size, alpha, beta, k),
                lambda x, size, alpha, beta, k: F.local_response_norm(x, size, alpha * size, beta,
                                                                      k), {0}, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_in_evaluation(dtype):
    mean, var = normal(5).astype(dtype), (normal(5) ** 2 + .1).astype(dtype)
    compare(lambda x, a, b: batch_norm(x, a, b, mean, var), (normal(4, 6, 7, 5), normal(5),
                                                             normal(5)),
            lambda x, a, b: F.batch_norm(x, torch.tensor(mean), torch.tensor(var), a, b), {0},
            dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 6, 7, 5), (2, 1, 1, 5), (1, 3, 2, 5)])
def test_batch_norm_in_training(shape, dtype):
    x = normal(*shape).astype(dtype)
    mean, var = batch_statistics(x)
    compare(lambda x, a, b: batch_norm_train(x, a, b, mean, var), (x, normal(5), normal(5)),
            lambda x, a, b: F.batch_norm(x, None, None, a, b, training=True), {0}, dtype, 400)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_running_statistics_of_batch_norm(dtype):
    x = normal(2, 3, 2, 5).astype(dtype)
    params = {"bn.weight": normal(5), "bn.bias": normal(5, seed=1),
              "bn.running_mean": normal(5, seed=2), "bn.running_var": normal(5, seed=3) ** 2}
    params = {name: p.astype(dtype) for name, p in params.items()}
    peer = torch.nn.BatchNorm2d(5, dtype=torch.float64 if dtype == np.float64 else torch.float32)
    peer.load_state_dict({name[3:]: torch.tensor(p) for name, p in params.items()})
    y = peer(torch.tensor(first(x).copy())).detach().numpy()
    training = Training()
    u = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(first(normalised(params, "bn", x, training)), y, atol=100 * u)
    assert len(training.statistics) == 2
    for name, new in training.statistics.items():
        assert new.dtype == dtype
        np.testing.assert_allclose(new, getattr(peer, name[3:]).numpy(), atol=20 * u)
    peer.eval()
    y = peer(torch.tensor(first(x).copy())).detach().numpy()
    np.testing.assert_allclose(first(normalised(params | training.statistics, "bn", x, None)), y,
                               atol=200 * u)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_without_parameters(dtype):
    x = normal(3, 5, 4, 6)
    compare(relu, (x,), torch.relu, {0}, dtype)
    compare(tanh, (x,), torch.tanh, {0}, dtype)
    compare(flatten, (x,), lambda x: x.flatten(1), {0}, dtype)
    compare(subsample, (x, 2, 12), lambda x, stride, channels: F.pad(
        x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3)), {0}, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fully_connected_layers_and_the_loss(dtype):
    compare(affine, (normal(7, 5), normal(3, 5), normal(3)), F.linear, set(), dtype)
    labels = np.array([0, 2, 1, 1, 0, 2, 2])
    compare(lambda z: softmax_cross_entropy(z, labels), (5 * normal(7, 3),),
            lambda z: F.cross_entropy(z, torch.tensor(labels)), set(), dtype)
