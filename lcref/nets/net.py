"""A net as a function of a dict of parameters, its loss, and the gradient of the loss.

Parameters have the names and layouts that PyTorch users have ("fc1.weight" is (out, in)), so
that a state dict of NumPy arrays is a parameter dict.
"""
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj
from autograd.core import VJPNode, backward_pass
from autograd.tracer import getval, new_box, trace_stack

from ..blocks import floats, on_host
from ..inputs import NUMBERS, array_of, named_arrays, real_array, together
from .devices import register
from .layers import softmax_cross_entropy
from .normalisation import batch_norm, batch_norm_train, batch_statistics

__all__ = ["Net", "Training", "evaluate", "he_normal", "glorot_uniform", "loss", "normalised",
           "value_and_grad"]

Array = Any
Params = dict[str, Array]
MOMENTUM = 0.1      # of running statistics: PyTorch's
MOST_NAMES = 20     # of one kind that a message lists


@dataclass(frozen=True, eq=False)
class Training:
    """What one batch of training needs beside the parameters, and leaves behind.

    Attributes
    ----------
    rng : numpy.random.Generator or None
        Of dropout.
    statistics : dict of name to array
        New running statistics, filled by the layers that have them.
    """

    rng: np.random.Generator | None = None
    statistics: Params = field(default_factory=dict)


def he_normal(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw weights of variance 2 / fan_in, biases 0: for relu.

    He, Zhang, Ren and Sun, ICCV 2015, arXiv 1502.01852, eq. 10.
    """
    if len(shape) == 1:
        return np.zeros(shape)
    return rng.normal(0.0, math.sqrt(2 / math.prod(shape[1:])), shape)


def glorot_uniform(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw weights uniformly on ±√(6 / (fan_in + fan_out)), biases 0: for tanh, or no activation.

    Glorot and Bengio, AISTATS 2010, eq. 16.
    """
    if len(shape) == 1:
        return np.zeros(shape)
    window = math.prod(shape[2:])       # 1 for a fully connected layer
    bound = math.sqrt(6 / ((shape[0] + shape[1]) * window))
    return rng.uniform(-bound, bound, shape)


@dataclass(frozen=True, eq=False)
class Net:
    """A net: its shapes and its function, but not its parameters.

    Attributes
    ----------
    name : str
    input_shape : tuple of int
        Shape of one input, without the batch axis: (features,) or (channels, height, width).
    classes : int
    activation : str or None
        "relu", "tanh", or None for a net without hidden layers.
    shapes : mapping of str to tuple of int
        Shape of every parameter, in the order of the layers.
    function : callable
        function(params, x, training) is the logits, (n, classes), for x of shape
        (n, *input_shape); training is a Training, or None for evaluation.
    draw : callable
        draw(name, shape, rng) is the initial value of a weight or a bias, float64.
    random : bool
        Whether training draws random numbers, for dropout.
    value_and_grad : callable or None
        value_and_grad(params, x, labels) is (loss, gradients), for a net that does not need
        autograd.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    activation: str | None
    shapes: Mapping[str, tuple[int, ...]]
    function: Callable[[Params, Array, Training | None], Array]
    draw: Callable[[str, tuple[int, ...], np.random.Generator], np.ndarray] = he_normal
    random: bool = False
    value_and_grad: Callable[[Params, Array, Array], tuple[Array, Params]] | None = None

    @property
    def weights(self) -> list[str]:
        """Names of the tensors that can be compressed; the rest are biases and normalisation."""
        return [name for name, shape in self.shapes.items() if len(shape) > 1]

    @property
    def statistics(self) -> list[str]:
        """Names of the running means and variances, which have no gradient."""
        return [name for name in self.shapes if name.endswith((".running_mean", ".running_var"))]

    def init(self, rng: np.random.Generator, dtype=np.float32) -> Params:
        """Draw parameters by the net's own rule; normalisation starts as the identity.

        Parameters
        ----------
        rng : numpy.random.Generator
        dtype : floating dtype of the result
            The draws are float64, then rounded: one seed gives the same net at every precision.

        Returns
        -------
        dict of name to numpy array
        """
        return {name: self._initial(name, shape, rng).astype(dtype)
                for name, shape in self.shapes.items()}

    def _initial(self, name, shape, rng):
        if name.endswith(".running_var") or name.endswith(".weight") and len(shape) == 1:
            return np.ones(shape)
        if name in self.statistics:
            return np.zeros(shape)
        return self.draw(name, shape, rng)

    def apply(self, params: Params, x: Array, training: Training | None = None) -> Array:
        """Return the logits of a batch.

        Parameters
        ----------
        params : dict of name to array
        x : array of shape (n, *input_shape), of the parameters' dtype
        training : Training, optional
            None is evaluation: running statistics, no dropout.

        Returns
        -------
        array of shape (n, classes)

        Raises
        ------
        ValueError
            x has another shape, or another dtype than the parameters.
        """
        self.check_inputs(params, x)
        return self.function(params, x, training)

    def check_inputs(self, params: Params, x: Array) -> None:
        """Raise unless x and the parameters there are have the net's shapes and one dtype."""
        floats(getval(x), "x")
        if tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(f"{self.name} takes inputs x of shape (n, "
                             f"{', '.join(map(str, self.input_shape))}), got {tuple(x.shape)}")
        named_arrays(params, "params", partial(self._fits, x.dtype))

    def _fits(self, dtype, tensor, name):
        """Raise unless a parameter has the shape that it has in this net, and the inputs' dtype."""
        tensor = getval(tensor)
        if not hasattr(tensor, "affine"):       # not of parts, see lcref.inference
            floats(tensor, name)
        if tuple(tensor.shape) != tuple(self.shapes.get(name, tensor.shape)):
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {self.shapes[name]}")
        if tensor.dtype != dtype:
            raise ValueError(f"the inputs x of {self.name} are {dtype}, its parameters {name} "
                             f"{tensor.dtype}")

    def check(self, params: Mapping[str, Array]) -> None:
        """Raise ValueError unless `params` fits this net; the message lists all that is wrong.

        Wrong are: missing and extra names, other shapes, tensors with a NaN or an infinity.
        O(number of parameters).
        """
        faults = _listed("missing", [f"{name} {shape}" for name, shape in self.shapes.items()
                                     if name not in params])
        faults += _listed("not of this net", [name for name in params if name not in self.shapes])
        for name in self.shapes:
            if name in params:
                faults += _faults_of(name, params[name], self.shapes[name])
        if faults:
            raise ValueError(f"these are not the parameters of {self.name}: " + "; ".join(faults))


def _listed(what, names):
    """["what: names"], of many the first ones and how many more there are; [] of none."""
    more = [f"and {len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return [f"{what}: " + ", ".join(names[:MOST_NAMES] + more)] if names else []


def _faults_of(name, tensor, shape):
    if not is_array_api_obj(tensor) or hasattr(tensor, "mask"):
        return [f"{name} is of type {type(tensor).__name__}, not a plain array"]
    if tuple(tensor.shape) != tuple(shape):
        return [f"{name} has shape {tuple(tensor.shape)}, not {tuple(shape)}"]
    xp = array_namespace(tensor)
    if not xp.isdtype(tensor.dtype, "real floating") or xp.finfo(tensor.dtype).bits > 64:
        return [f"{name} has dtype {tensor.dtype}, not a real floating one of at most 64 bits"]
    if not bool(xp.all(xp.isfinite(tensor))):
        return [f"{name} has a NaN or an infinity"]
    return []


def normalised(params: Params, name: str, h: Array, training: Training | None) -> Array:
    """Return the batch normalisation `name` of h, and in training note the running statistics.

    The new ones are 0.9 times the old plus 0.1 times the batch's, whose variance is divided by
    the number of values less one, as PyTorch does.
    """
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    running = [params[f"{name}.running_mean"], params[f"{name}.running_var"]]
    if training is None:
        return batch_norm(h, weight, bias, *running)
    mean, var = batch_statistics(getval(h))
    n = math.prod(h.shape[:-1])
    for kind, old, new in zip(("mean", "var"), running, (mean, var * (n / max(1, n - 1)))):
        training.statistics[f"{name}.running_{kind}"] = (1 - MOMENTUM) * old + MOMENTUM * new
    return batch_norm_train(h, weight, bias, mean, var)


# ----- the loss ------------------------------------------------------------------------------

def loss(net: Net, params: Params, x: Array, labels: Array,
         training: Training | None = None) -> Array:
    """Return the mean cross-entropy of one batch, a scalar of the parameters' dtype.

    For the loss over a data set use `evaluate`, which works in batches and adds up in float64.

    Parameters
    ----------
    net : Net
    params : dict of name to array
    x : array of shape (n, ...)
    labels : array of shape (n,), integer
    training : Training, optional
        None evaluates: without dropout, and with the running statistics.

    Returns
    -------
    scalar array
    """
    logits = net.apply(params, x, training)
    _fits_labels(x, labels)
    return softmax_cross_entropy(logits, labels)


def _fits_labels(x, labels):
    array_of(labels, "labels", "integral", (1,))
    together(x.shape[0] == labels.shape[0] > 0, x=x, labels=labels)


def _leaf(name, grads):
    """The root of a trace that a parameter is: its vjp notes the gradient as grads[name].

    Every parameter is a root of its own, so autograd builds no zero-filled dict of all of them,
    as it does for a function of a dict: the gradients are the arrays that the layers return.
    """
    def vjp(g):
        grads[name] = g
        return ()
    node = VJPNode.new_root()
    node.vjp = vjp
    return node


def value_and_grad(net: Net) -> Callable[..., tuple[float, Params, Params]]:
    """Return f with f(params, x, labels) = (loss, gradients, statistics).

    Parameters
    ----------
    net : Net

    Returns
    -------
    callable
        f(params, x, labels, rng=None), of one batch in training: `rng` is drawn from, and
        needed, where the net is random. The loss is a float, on a device a scalar array there, so
        that nothing waits for it. The gradients are a dict of new arrays with the names,
        shapes and dtypes of the parameters but the running statistics; the statistics are their
        new values, an empty dict where a net has none.

    Notes
    -----
    About three times the cost of the loss alone, less the gradient of x, which is not computed.
    Nothing is checked here, for this is the inner loop: `net.check(params)` once, before it.
    """
    trained = [name for name in net.shapes if name not in net.statistics]

    def f(params: Params, x: Array, labels: Array, rng: np.random.Generator | None = None):
        if not isinstance(params, Mapping):
            raise TypeError(f"params must be a dict of name to array, not {type(params).__name__}")
        training = Training(rng)
        if net.value_and_grad:
            net.check_inputs(params, x)
            _fits_labels(x, labels)
            value, grads = net.value_and_grad(params, x, labels)
        else:
            value, grads = _by_autograd(net, params, x, labels, training)
        value = float(value) if on_host(value) else value
        return value, {name: grads[name] for name in trained}, training.statistics
    return f


def _by_autograd(net, params, x, labels, training):
    fixed, grads = net.statistics, dict[str, Array]()
    register(*{type(p) for p in params.values()})
    with trace_stack.new_trace() as trace:
        leaves = {name: p if name in fixed else new_box(p, trace, _leaf(name, grads))
                  for name, p in params.items()}
        value = loss(net, leaves, x, labels, training)
    backward_pass(1.0, value._node)
    return getval(value), grads


def evaluate(net: Net, params: Params, x: Array, labels: Array, batch: int = 1000,
             prepare: Callable[[Array], Array] | None = None) -> dict[str, float]:
    """Return the loss and the classification error of a net over a data set.

    Parameters
    ----------
    net : Net
    params : dict of name to array
    x : array of shape (n, *input_shape), n at least 1
    labels : array of shape (n,), integer, 0 to classes − 1
    batch : int, how many inputs at once; it bounds the memory, and sums of batches are float64
    prepare : callable, optional
        Makes inputs of the net of a batch of x, such as `Dataset.prepare`.

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
    named_arrays(params, "params", lambda a, name: hasattr(a, "affine") or real_array(a, name))
    n = x.shape[0]
    total, wrong = 0.0, 0
    for i in range(0, n, batch):
        rows = slice(i, min(i + batch, n))
        inputs = prepare(x[rows, ...]) if prepare else x[rows, ...]
        real_array(inputs, "x")
        y, logits = labels[rows], net.apply(params, inputs)
        xp = array_namespace(logits)
        total += float(softmax_cross_entropy(logits, y)) * y.shape[0]
        wrong += int(xp.count_nonzero(xp.argmax(logits, axis=1) != y))
    return {"loss": total / n, "error": 100 * wrong / n}


def _check_labels(net, x, labels):
    xp = array_of(labels, "labels", "integral")
    array_of(x, "x", NUMBERS, range(1, 9))
    if x.shape[0] == 0 or tuple(labels.shape) != (x.shape[0],):
        raise ValueError(f"need at least one input and as many labels, got x of shape "
                         f"{tuple(x.shape)} and labels of shape {tuple(labels.shape)}")
    lowest, highest = int(xp.min(labels)), int(xp.max(labels))
    if lowest < 0 or highest >= net.classes:
        raise ValueError(f"labels of {net.name} are 0 to {net.classes - 1}, "
                         f"got {lowest} to {highest}")
