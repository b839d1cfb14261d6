"""The paper's nets.

Parameters have the names and layouts that PyTorch users have, so that a state dict of NumPy
arrays is a parameter dict. Images are (n, channels, height, width), as there; inside the nets
channels are last, where convolution is fast.
"""
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..inputs import did_you_mean
from . import multilayer
from .convolution import conv2d, out_size
from .layers import add, affine, channels_last, dropout, flatten, relu, subsample, tanh
from .net import Net, glorot_uniform, he_normal, normalised
from .normalisation import local_response_norm
from .pooling import average_pool, global_average_pool, max_pool

__all__ = ["MODELS", "alexnet", "build", "lenet300", "lenet5", "linear", "nin", "resnet", "vgg16"]

ACTIVATIONS: dict[str, Callable] = {"relu": relu, "tanh": tanh}
Shapes = dict[str, tuple[int, ...]]


# ----- fully connected -----------------------------------------------------------------------

def linear(inputs: int, classes: int) -> Net:
    """Return the net with one layer: logits = x Wᵀ + b, with W the parameter "fc1.weight".

    Parameters
    ----------
    inputs, classes : int, at least 1

    Returns
    -------
    Net
    """
    return _multilayer("linear", [inputs, classes], None)


def lenet300(inputs: int = 784, classes: int = 10, activation: str = "tanh") -> Net:
    """Return LeNet300: inputs-300-100-classes, fully connected, "fc1" to "fc3".

    Parameters
    ----------
    inputs, classes : int
        784 and 10 give the 266,200 weights and 410 biases of LeNet300 on MNIST.
    activation : "tanh" or "relu", after both hidden layers

    Returns
    -------
    Net

    Raises
    ------
    ValueError
        Unknown activation; inputs or classes under 1.

    Notes
    -----
    LeCun, Bottou, Bengio and Haffner, Proc. IEEE 1998 (LeNet-300-100).
    """
    return _multilayer("lenet300", [inputs, 300, 100, classes], _known(activation))


def _known(activation):
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}"
                         f"{did_you_mean(activation, ACTIVATIONS)}")
    return activation


def _multilayer(name, widths, activation):
    if min(widths) < 1:
        raise ValueError(f"{name} needs at least one input and one class, got "
                         f"inputs={widths[0]}, classes={widths[-1]}")
    layers = [f"fc{i}" for i in range(1, len(widths))]
    shapes: Shapes = {}
    for layer, n_in, n_out in zip(layers, widths[:-1], widths[1:]):
        _fc_shapes(shapes, layer, n_in, n_out)

    def function(params, x, training):
        h = x
        for layer in layers[:-1]:
            h = ACTIVATIONS[activation](_fc(params, layer, h))
        return _fc(params, layers[-1], h)

    draw = he_normal if activation == "relu" else glorot_uniform
    return Net(name, (widths[0],), widths[-1], activation, shapes, function, draw,
               value_and_grad=partial(multilayer.value_and_grad, layers, activation))


def _fc(params, layer, h):
    w, b = params[f"{layer}.weight"], params[f"{layer}.bias"]
    return w.affine(h, b) if hasattr(w, "affine") else affine(h, w, b)  # of parts, or an array


def _fc_shapes(shapes, layer, n_in, n_out):
    shapes[f"{layer}.weight"], shapes[f"{layer}.bias"] = (n_out, n_in), (n_out,)


def _conv(params, layer, h, stride=1, padding=0):
    w, b = params[f"{layer}.weight"], params.get(f"{layer}.bias")
    if hasattr(w, "conv2d"):    # of parts, see lcref.inference
        return w.conv2d(h, b, stride, padding)
    return conv2d(h, w, b, stride, padding)


def _conv_shapes(shapes, layer, n_in, n_out, kernel, bias=True):
    shapes[f"{layer}.weight"] = (n_out, n_in, kernel, kernel)
    if bias:
        shapes[f"{layer}.bias"] = (n_out,)


def _norm_shapes(shapes, layer, channels):
    for kind in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{layer}.{kind}"] = (channels,)


# ----- convolutional, on small images --------------------------------------------------------

def lenet5(shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10,
           activation: str = "relu") -> Net:
    """Return LeNet5 as in Caffe: two convolutions of 5 × 5 with 2 × 2 maxima, then two layers.

    20 and 50 channels, then 500 units: "conv1", "conv2", "fc1", "fc2". With images of 1 × 28 × 28
    and 10 classes, 430,500 weights and 580 biases. The activation follows each layer but the last.

    Parameters
    ----------
    shape : (channels, height, width) of the images
    classes : int
    activation : "relu" or "tanh"

    Returns
    -------
    Net

    Raises
    ------
    ValueError
        Unknown activation; images of under 16 pixels a side.
    """
    side = [((n - 4) // 2 - 4) // 2 for n in shape[1:]]
    if min(side) < 1:
        raise ValueError(f"lenet5 needs images of at least 16 × 16 pixels, got {shape}")
    f = ACTIVATIONS[_known(activation)]
    shapes: Shapes = {}
    _conv_shapes(shapes, "conv1", shape[0], 20, 5)
    _conv_shapes(shapes, "conv2", 20, 50, 5)
    _fc_shapes(shapes, "fc1", 50 * math.prod(side), 500)
    _fc_shapes(shapes, "fc2", 500, classes)

    def function(params, x, training):
        h = channels_last(x)
        for layer in ("conv1", "conv2"):
            h = max_pool(f(_conv(params, layer, h)), 2)
        return _fc(params, "fc2", f(_fc(params, "fc1", flatten(h))))

    draw = he_normal if activation == "relu" else glorot_uniform
    return Net("lenet5", tuple(shape), classes, activation, shapes, function, draw)


def resnet(depth: int, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> Net:
    """Return the residual net of CIFAR-10 with 6 m + 2 layers and shortcuts without parameters.

    A convolution to 16 channels, then three groups of m blocks with 16, 32 and 64 channels; a
    block is relu(x + norm(conv(relu(norm(conv(x)))))), and the first of groups 2 and 3 halves the
    image. Names as in the state dicts of akamaster/pytorch_resnet_cifar10: "conv1", "bn1",
    "layer1.0.conv1", .., "linear".

    Parameters
    ----------
    depth : int
        20, 32, 44, 56 or 110, or any other 6 m + 2.
    shape : (channels, height, width) of the images
    classes : int

    Returns
    -------
    Net

    Raises
    ------
    ValueError
        depth is not 6 m + 2 with m at least 1.

    Notes
    -----
    He, Zhang, Ren and Sun, CVPR 2016, section 4.2, option A.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"a ResNet of this kind has 6m + 2 layers, such as 20 or 32, not {depth}")
    blocks = [(f"layer{group + 1}.{i}", 16 << max(0, group - (i == 0)), 16 << group)
              for group in range(3) for i in range((depth - 2) // 6)]
    shapes: Shapes = {}
    _conv_shapes(shapes, "conv1", shape[0], 16, 3, bias=False)
    _norm_shapes(shapes, "bn1", 16)
    for block, n_in, n_out in blocks:
        for i, channels in ((1, n_in), (2, n_out)):
            _conv_shapes(shapes, f"{block}.conv{i}", channels, n_out, 3, bias=False)
            _norm_shapes(shapes, f"{block}.bn{i}", n_out)
    _fc_shapes(shapes, "linear", 64, classes)

    def function(params, x, training):
        h = _conv(params, "conv1", channels_last(x), padding=1)
        h = relu(normalised(params, "bn1", h, training))
        for block, n_in, n_out in blocks:
            h = _residual(params, block, h, n_in, n_out, training)
        return _fc(params, "linear", global_average_pool(h))

    return Net(f"resnet{depth}", tuple(shape), classes, "relu", shapes, function)


def _residual(params, block, x, n_in, n_out, training):
    stride = 2 if n_out > n_in else 1
    h = _conv(params, f"{block}.conv1", x, stride, padding=1)
    h = relu(normalised(params, f"{block}.bn1", h, training))
    h = _conv(params, f"{block}.conv2", h, padding=1)
    h = normalised(params, f"{block}.bn2", h, training)
    return relu(add(h, subsample(x, 2, n_out) if stride == 2 else x))


# channels of the convolutions over those of the first; None is a 2 × 2 maximum
VGG16 = (1, 1, None, 2, 2, None, 4, 4, 4, None, 8, 8, 8, None, 8, 8, 8, None)


def vgg16(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, width: int = 64) -> Net:
    """Return VGG16 for CIFAR-10: 13 convolutions of 3 × 3 with batch normalisation, 3 layers.

    Five groups of channels 64, 128, 256, 512 and 512, each ending in a 2 × 2 maximum; then 512,
    512 and `classes` units, with dropout before the first two. 15,239,872 weights with images of
    3 × 32 × 32 and 10 classes. Names as in the state dicts of chengyangfu/pytorch-vgg-cifar10
    with normalisation: "features.0", "features.1", .., "classifier.1", "classifier.4",
    "classifier.6".

    Parameters
    ----------
    shape : (channels, height, width) of the images
    classes : int
    width : int
        Channels of the first convolution; all others, and the units, are in proportion. With 16,
        the net "vgg16-quarter", there are 953,776 weights.

    Returns
    -------
    Net

    Raises
    ------
    ValueError
        Images of under 32 pixels a side; width under 1.

    Notes
    -----
    Simonyan and Zisserman, ICLR 2015, configuration D, arXiv 1409.1556; normalisation and the
    classifier of width 512 are those of its use on CIFAR-10.
    """
    if min(shape[1:]) < 32:
        raise ValueError(f"vgg16 needs images of at least 32 × 32 pixels, got {shape}")
    if width < 1:
        raise ValueError(f"vgg16 needs a width of at least 1, got {width}")
    shapes: Shapes = {}
    steps: list[int | None] = []
    at, channels = 0, shape[0]
    for multiple in VGG16:
        if multiple is None:
            steps, at = [*steps, None], at + 1
            continue
        _conv_shapes(shapes, f"features.{at}", channels, multiple * width, 3)
        _norm_shapes(shapes, f"features.{at + 1}", multiple * width)
        steps, at, channels = [*steps, at], at + 3, multiple * width
    units, pixels = 8 * width, (shape[1] // 32) * (shape[2] // 32)
    for layer, n_in, n_out in ((1, units * pixels, units), (4, units, units), (6, units, classes)):
        _fc_shapes(shapes, f"classifier.{layer}", n_in, n_out)
    name = {64: "vgg16", 16: "vgg16-quarter"}.get(width, f"vgg16 of width {width}")
    return Net(name, tuple(shape), classes, "relu", shapes, _vgg_function(steps), random=True)


def _vgg_function(steps):
    def function(params, x, training):
        h = channels_last(x)
        for at in steps:
            if at is None:
                h = max_pool(h, 2)
            else:
                h = _conv(params, f"features.{at}", h, padding=1)
                h = relu(normalised(params, f"features.{at + 1}", h, training))
        h = flatten(h)
        for layer in ("classifier.1", "classifier.4"):
            h = relu(_fc(params, layer, _dropped(h, training)))
        return _fc(params, "classifier.6", h)
    return function


def _dropped(h, training):
    return h if training is None else dropout(h, 0.5, training.rng)


# (outputs, kernel, padding) of each convolution of NIN, by group; a pool ends each group
NIN = (((192, 5, 2), (160, 1, 0), (96, 1, 0)), ((192, 5, 2), (192, 1, 0), (192, 1, 0)),
       ((192, 3, 1), (192, 1, 0), (None, 1, 0)))


def nin(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> Net:
    """Return the network in network of CIFAR-10: three groups of three convolutions.

    Each group is a convolution of 5 × 5 or 3 × 3 and two of 1 × 1, a relu after each. Maxima, then
    means, of 3 × 3 pixels with stride 2 and dropout stand between the groups; the mean over the
    image of the last group's `classes` channels is the logits. 965,568 weights with images of
    3 × 32 × 32 and 10 classes. Names are positions in PyTorch's sequence of layers:
    "classifier.0", 2, 4, 8, 10, 12, 16, 18 and 20.

    Parameters
    ----------
    shape : (channels, height, width) of the images
    classes : int

    Returns
    -------
    Net

    Notes
    -----
    Lin, Chen and Yan, ICLR 2014, arXiv 1312.4400. The paper does not say how it drew the weights;
    here they are `he_normal`.
    """
    shapes: Shapes = {}
    groups, channels = [], shape[0]
    for g, group in enumerate(NIN):
        layers = [(f"classifier.{8 * g + 2 * i}", kernel, padding, outputs or classes)
                  for i, (outputs, kernel, padding) in enumerate(group)]
        for name, kernel, _, outputs in layers:
            _conv_shapes(shapes, name, channels, outputs, kernel)
            channels = outputs
        groups.append(layers)

    def function(params, x, training):
        h = channels_last(x)
        for layers, pool in zip(groups, (max_pool, average_pool, None)):
            for name, _, padding, _ in layers:
                h = relu(_conv(params, name, h, padding=padding))
            if pool:
                h = _dropped(pool(h, 3, 2, 1), training)
        return global_average_pool(h)

    return Net("nin", tuple(shape), classes, "relu", shapes, function, random=True)


# ----- AlexNet -------------------------------------------------------------------------------

ALEXNET = {"conv1": (96, 11, 4, 0), "conv2": (256, 5, 1, 2), "conv3": (384, 3, 1, 1),
           "conv4": (384, 3, 1, 1), "conv5": (256, 3, 1, 1)}   # outputs, kernel, stride, padding


def alexnet(shape: tuple[int, int, int] = (3, 227, 227), classes: int = 1000) -> Net:
    """Return AlexNet, in one piece: the two halves of the original see each other's channels.

    Five convolutions, "conv1" to "conv5", with local response normalisation after the first two,
    and maxima of 3 × 3 pixels with stride 2 after the first, second and fifth; then "fc6", "fc7",
    "fc8" with dropout before the first two. 62,367,776 weights and 10,568 biases with images of
    3 × 227 × 227 and 1000 classes.

    Parameters
    ----------
    shape : (channels, height, width) of the images
    classes : int

    Returns
    -------
    Net

    Raises
    ------
    ValueError
        Images of under 67 pixels a side.

    Notes
    -----
    Krizhevsky, Sutskever and Hinton, NIPS 2012: weights are drawn with deviation 0.01, and biases
    are 1 in the second, fourth and fifth convolution and the hidden layers (section 5).
    """
    if min(shape[1:]) < 67:
        raise ValueError(f"alexnet needs images of at least 67 × 67 pixels, got {shape}")
    shapes: Shapes = {}
    size, channels = shape[1:], shape[0]
    for name, (outputs, kernel, stride, padding) in ALEXNET.items():
        _conv_shapes(shapes, name, channels, outputs, kernel)
        size, channels = out_size(size, (kernel, kernel), stride, padding), outputs
        if name in POOLED:
            size = out_size(size, (3, 3), 2, 0)
    for name, n_in, n_out in (("fc6", 256 * math.prod(size), 4096), ("fc7", 4096, 4096),
                              ("fc8", 4096, classes)):
        _fc_shapes(shapes, name, n_in, n_out)
    return Net("alexnet", tuple(shape), classes, "relu", shapes, _alexnet, _alexnet_draw, True)


POOLED = ("conv1", "conv2", "conv5")


def _alexnet(params, x, training):
    h = channels_last(x)
    for name, (_, _, stride, padding) in ALEXNET.items():
        h = relu(_conv(params, name, h, stride, padding))
        if name in ("conv1", "conv2"):
            h = local_response_norm(h)
        if name in POOLED:
            h = max_pool(h, 3, 2)
    h = flatten(h)
    for name in ("fc6", "fc7"):
        h = relu(_fc(params, name, _dropped(h, training)))
    return _fc(params, "fc8", h)


def _alexnet_draw(name, shape, rng):
    if len(shape) > 1:
        return rng.normal(0.0, 0.01, shape)
    return np.full(shape, float(name.split(".")[0] in ("conv2", "conv4", "conv5", "fc6", "fc7")))


# ----- by name -------------------------------------------------------------------------------

MODELS: dict[str, Callable[..., Net]] = {
    "linear": linear, "lenet300": lenet300, "lenet5": lenet5, "nin": nin,
    **{f"resnet{depth}": partial(resnet, depth) for depth in (20, 32, 44, 56, 110)},
    "vgg16": vgg16, "vgg16-quarter": partial(vgg16, width=16), "alexnet": alexnet}
CHOOSE = ("lenet300", "lenet5")     # whose activation can be chosen


def build(name: str, inputs: int | tuple[int, ...], classes: int,
          activation: str | None = None) -> Net:
    """Return the net of that name.

    Parameters
    ----------
    name : str
        One of MODELS: "linear", "lenet300", "lenet5", "nin", "resnet20", "resnet32", "resnet44",
        "resnet56", "resnet110", "vgg16", "vgg16-quarter" or "alexnet".
    inputs : int, or (channels, height, width)
        Of one input. The fully connected nets take the number of its values, the others need
        its shape.
    classes : int
    activation : str, optional
        "relu" or "tanh" for lenet300 and lenet5; None is the net's own.

    Returns
    -------
    Net

    Raises
    ------
    ValueError
        Unknown name or activation, an activation for a net that has no choice, or inputs that
        the net cannot take.
    """
    if name not in MODELS:
        raise ValueError(f"unknown net {name!r}{did_you_mean(name, MODELS)}")
    if classes < 1:
        raise ValueError(f"{name} needs at least one class, got classes={classes}")
    shape: Any = tuple(np.atleast_1d(inputs).tolist())
    if name in ("linear", "lenet300"):
        shape = math.prod(shape)
    elif len(shape) != 3:
        raise ValueError(f"{name} needs images, (channels, height, width), got {inputs}")
    if activation is not None and name in CHOOSE:
        return MODELS[name](shape, classes, activation=activation)
    net = MODELS[name](shape, classes)
    if activation not in (None, net.activation):
        has = (f"{net.activation}, and no other" if net.activation else
               "no hidden layer, so no activation")
        raise ValueError(f"{name} has {has}; got {activation!r}")
    return net
