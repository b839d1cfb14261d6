"""The nets, as functions of a dict of parameters, and the gradient of their loss.

Parameters have the names and layouts that PyTorch users have ("fc1.weight" is (out, in)), so
that a state dict of NumPy arrays is a parameter dict.
"""
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from autograd.core import make_vjp
from autograd.extend import defvjp, primitive

from ..inputs import did_you_mean
from .layers import affine, relu, softmax_cross_entropy, tanh

__all__ = ["Net", "linear", "lenet300", "build", "loss", "value_and_grad", "evaluate"]

Array = Any
Params = dict[str, Array]
ACTIVATIONS = {"relu": relu, "tanh": tanh}


@dataclass(frozen=True, eq=False)
class Net:
    """A net: its shapes and its function, but not its parameters.

    Attributes
    ----------
    name : str
    input_shape : tuple of int
        Shape of one input, without the batch axis.
    classes : int
    activation : str or None
        "relu", "tanh", or None for a net without hidden layers.
    shapes : mapping of str to tuple of int
        Shape of every parameter, in the order of the layers.
    function : callable
        function(params, x) is the logits, (n, classes), for x of shape (n, *input_shape).
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    activation: str | None
    shapes: Mapping[str, tuple[int, ...]]
    function: Callable[[Params, Array], Array]

    @property
    def weights(self) -> list[str]:
        """Names of the tensors that can be compressed; the rest are biases."""
        return [name for name in self.shapes if name.endswith(".weight")]

    def init(self, rng: np.random.Generator, dtype=np.float32) -> Params:
        """Draw parameters: every weight independent with mean 0, every bias 0.

        With relu, weights are normal of variance 2 / fan_in (He, Zhang, Ren and Sun, ICCV 2015,
        arXiv 1502.01852, eq. 10). Otherwise they are uniform of variance 2 / (fan_in + fan_out),
        that is on ±√(6 / (fan_in + fan_out)) (Glorot and Bengio, AISTATS 2010, eq. 16).

        Parameters
        ----------
        rng : numpy.random.Generator
        dtype : floating dtype of the result. The draws are float64, then rounded: one seed
            gives the same net at every precision.

        Returns
        -------
        dict of name to numpy array
        """
        return {name: self._draw(rng, shape).astype(dtype) for name, shape in self.shapes.items()}

    def _draw(self, rng, shape):
        if len(shape) == 1:
            return np.zeros(shape)
        window = math.prod(shape[2:])       # 1 for a fully connected layer
        fan_out, fan_in = shape[0] * window, shape[1] * window
        if self.activation == "relu":
            return rng.normal(0.0, math.sqrt(2 / fan_in), shape)
        bound = math.sqrt(6 / (fan_in + fan_out))
        return rng.uniform(-bound, bound, shape)

    def apply(self, params: Params, x: Array) -> Array:
        """Return the logits of a batch.

        Parameters
        ----------
        params : dict of name to array
        x : array of shape (n, *input_shape), of the parameters' dtype

        Returns
        -------
        array of shape (n, classes)

        Raises
        ------
        ValueError
            x has another shape.
        """
        if tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(f"{self.name} takes inputs of shape (n, "
                             f"{', '.join(map(str, self.input_shape))}), got {tuple(x.shape)}")
        return self.function(params, x)

    def check(self, params: Mapping[str, Array]) -> None:
        """Raise ValueError unless `params` fits this net; the message lists all that is wrong.

        Wrong are: missing and extra names, other shapes, tensors with a NaN or an infinity.
        O(number of parameters).
        """
        faults = [f"missing: {name} {shape}" for name, shape in self.shapes.items()
                  if name not in params]
        faults += [f"not of this net: {name}" for name in params if name not in self.shapes]
        for name in self.shapes.keys() & params.keys():
            faults += _faults_of(name, params[name], self.shapes[name])
        if faults:
            raise ValueError(f"these are not the parameters of {self.name}: " + "; ".join(faults))


def _faults_of(name, tensor, shape):
    if tuple(tensor.shape) != tuple(shape):
        return [f"{name} has shape {tuple(tensor.shape)}, not {tuple(shape)}"]
    xp = array_namespace(tensor)
    if not xp.isdtype(tensor.dtype, "real floating"):
        return [f"{name} has dtype {tensor.dtype}, not a real floating one"]
    if not bool(xp.all(xp.isfinite(tensor))):
        return [f"{name} has a NaN or an infinity"]
    return []


# ----- the nets ------------------------------------------------------------------------------

def linear(inputs: int, classes: int) -> Net:
    """Return the net with one layer: logits = x Wᵀ + b, with W the parameter "fc1.weight"."""
    return _multilayer("linear", [inputs, classes], None)


def lenet300(inputs: int = 784, classes: int = 10, activation: str = "tanh") -> Net:
    """Return LeNet300: inputs-300-100-classes, fully connected, "fc1" to "fc3".

    Parameters
    ----------
    inputs, classes : int
        784 and 10 give the 266,200 weights and 410 biases of LeNet300 on MNIST.
    activation : "tanh" or "relu", after both hidden layers

    Raises
    ------
    ValueError
        Unknown activation; inputs or classes under 1.

    Notes
    -----
    LeCun, Bottou, Bengio and Haffner, Proc. IEEE 1998 (LeNet-300-100).
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}"
                         f"{did_you_mean(activation, ACTIVATIONS)}")
    return _multilayer("lenet300", [inputs, 300, 100, classes], activation)


def _multilayer(name, widths, activation):
    if min(widths) < 1:
        raise ValueError(f"{name} needs at least one input and one class, got "
                         f"inputs={widths[0]}, classes={widths[-1]}")
    layers = [f"fc{i}" for i in range(1, len(widths))]
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, n_in, n_out in zip(layers, widths[:-1], widths[1:]):
        shapes[f"{layer}.weight"], shapes[f"{layer}.bias"] = (n_out, n_in), (n_out,)

    def function(params, x):
        h = x
        for layer in layers[:-1]:
            h = ACTIVATIONS[activation](_fc(params, layer, h))
        return _fc(params, layers[-1], h)

    return Net(name, (widths[0],), widths[-1], activation, shapes, function)


def _fc(params, layer, h):
    return affine(h, params[f"{layer}.weight"], params[f"{layer}.bias"])


MODELS: dict[str, Callable[..., Net]] = {"linear": linear, "lenet300": lenet300}


def build(name: str, inputs: int, classes: int, activation: str | None = None) -> Net:
    """Return the net of that name.

    Parameters
    ----------
    name : "linear" or "lenet300"
    inputs, classes : int
    activation : str, optional
        None is the net's own default.

    Raises
    ------
    ValueError
        Unknown name or activation, or an activation for a net that has none.
    """
    if name not in MODELS:
        raise ValueError(f"unknown net {name!r}{did_you_mean(name, MODELS)}")
    if activation is None:
        return MODELS[name](inputs, classes)
    if name == "linear":
        raise ValueError(f"linear has no hidden layer, so no activation; got {activation!r}")
    return MODELS[name](inputs, classes, activation=activation)


# ----- their loss ----------------------------------------------------------------------------

def loss(net: Net, params: Params, x: Array, labels: Array) -> Array:
    """Return the mean cross-entropy of one batch, a scalar of the parameters' dtype.

    For the loss over a data set use `evaluate`, which works in batches and adds up in float64.
    """
    return softmax_cross_entropy(net.apply(params, x), labels)


@primitive
def _parameter(root, value, name, grads):
    """Return `value`; its vjp writes the gradient to grads[name].

    `root` is a number that every parameter pretends to depend on. So one trace has one root,
    and autograd need not build a zero-filled dict of all parameters, as it does for a function
    of a dict: the gradients are the arrays that the layers return.
    """
    return value


def _parameter_vjp(value, root, _, name, grads):
    def vjp(g):
        grads[name] = g
        return 0.0
    return vjp


defvjp(_parameter, _parameter_vjp)


def value_and_grad(net: Net) -> Callable[[Params, Array, Array], tuple[float, Params]]:
    """Return f with f(params, x, labels) = (loss, gradient of the loss), by autograd.

    Parameters
    ----------
    net : Net

    Returns
    -------
    callable
        Its gradient is a dict of new arrays with the names, shapes and dtypes of params.

    Notes
    -----
    About three times the cost of the loss alone, less the gradient of x, which is not computed.
    Nothing is checked here, for this is the inner loop: `net.check(params)` once, before it.
    """
    def f(params, x, labels):
        grads: Params = {}

        def traced(root):
            leaves = {name: _parameter(root, p, name, grads) for name, p in params.items()}
            return loss(net, leaves, x, labels)

        vjp, value = make_vjp(traced, 0.0)
        vjp(1.0)
        return float(value), {name: grads[name] for name in params}
    return f


def evaluate(net: Net, params: Params, x: Array, labels: Array,
             batch: int = 1000) -> dict[str, float]:
    """Return the loss and the classification error of a net over a data set.

    Parameters
    ----------
    net : Net
    params : dict of name to array
    x : array of shape (n, *input_shape), n at least 1
    labels : array of shape (n,), integer, 0 to classes − 1
    batch : int, how many inputs at once; it bounds the memory, and sums of batches are float64

    Returns
    -------
    dict
        "loss": mean cross-entropy; "error": 100 · (number misclassified) / n, in percent.

    Raises
    ------
    ValueError
        No inputs, another number of labels than of inputs, or a label outside the classes.
    """
    _check_labels(net, x, labels)
    n = x.shape[0]
    total, wrong = 0.0, 0
    for i in range(0, n, batch):
        rows = slice(i, min(i + batch, n))
        y, logits = labels[rows], net.apply(params, x[rows, ...])
        xp = array_namespace(logits)
        total += float(softmax_cross_entropy(logits, y)) * y.shape[0]
        wrong += int(xp.count_nonzero(xp.argmax(logits, axis=1) != y))
    return {"loss": total / n, "error": 100 * wrong / n}


def _check_labels(net, x, labels):
    xp = array_namespace(labels)
    if x.shape[0] == 0 or tuple(labels.shape) != (x.shape[0],):
        raise ValueError(f"need at least one input and as many labels, got x of shape "
                         f"{tuple(x.shape)} and labels of shape {tuple(labels.shape)}")
    lowest, highest = int(xp.min(labels)), int(xp.max(labels))
    if lowest < 0 or highest >= net.classes:
        raise ValueError(f"labels of {net.name} are 0 to {net.classes - 1}, "
                         f"got {lowest} to {highest}")
