"""The layers the nets are made of: each is one autograd primitive, with its vjp beside it.

A vjp maps the gradient g of the loss with respect to a layer's output to the gradients with
respect to its inputs; `defvjp` takes one for every input. The array namespace is that of the
input, so the same text runs on NumPy arrays and on any array of the array API standard. Every
layer keeps the dtype it is given, in its output and in its gradients.
"""
import math

import numpy as np
from array_api_compat import array_namespace, device
from autograd.extend import defvjp, primitive
from autograd.tracer import getval

from ..blocks import floats, in_blocks, on_host
from ..cuda import product
from ..inputs import array_of, together

PRODUCTS_PER_ELEMENT = 64    # a multiplication takes so much less than an element's way from memory

__all__ = ["add", "affine", "channels_last", "dropout", "flatten", "relu", "softmax_cross_entropy",
           "subsample", "tanh"]


@primitive
def affine(x, w, b):
    """Return the fully connected layer y = x Wᵀ + b.

    Parameters
    ----------
    x : array of shape (n, inputs), real floating
    w : array of shape (outputs, inputs), PyTorch's layout
    b : array of shape (outputs,)

    Returns
    -------
    array of shape (n, outputs), of the same dtype

    Notes
    -----
    One matrix product forward, two backward (one where x is data): O(n · inputs · outputs) each.
    """
    for name, a, axes in (("x", x, 2), ("w", w, 2), ("b", b, 1)):
        floats(a, name, (axes,))
    together(x.shape[1] == w.shape[1] and b.shape == w.shape[:1], x=x, w=w, b=b)
    y = _product(x, w.T)
    y += b
    return y


defvjp(
    affine,
    lambda y, x, w, b: lambda g: _product(g, w),                       # ∂x = g W
    lambda y, x, w, b: lambda g: _product(g.T, x),                     # ∂W = gᵀ x
    lambda y, x, w, b: lambda g: array_namespace(g).sum(g, axis=0),    # ∂b = Σ_n g_n
)


def _product(a, b):
    """a @ b, in blocks of rows of a."""
    if not on_host(a, b):
        return product(a, b)
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    in_blocks(lambda rows: np.matmul(a[rows], b, out=out[rows]), a.shape[0],
              b.size // PRODUCTS_PER_ELEMENT)
    return out


@primitive
def relu(x):
    """Return max(x, 0) elementwise; the derivative at 0 is taken as 0, and a NaN stays a NaN.

    Parameters
    ----------
    x : array of any shape, real floating

    Returns
    -------
    array of x's shape and dtype
    """
    floats(x)
    if on_host(x):
        return _by_rows(lambda x, out: np.maximum(x, 0.0, out=out), x)
    return array_namespace(x).maximum(x, 0.0)


def _relu_vjp(y, x):
    def vjp(g):                                                        # ∂x = g · 1[y > 0]
        if on_host(g, y):
            return _by_rows(lambda g, y, out: np.multiply(g, y > 0, out=out), g, y)
        return g * array_namespace(y).astype(y > 0, y.dtype)
    return vjp


defvjp(relu, _relu_vjp)


def _by_rows(f, x, *others):
    """f(x, *others, out) elementwise, in blocks of rows."""
    out = np.empty(x.shape, x.dtype)
    if x.ndim == 0:
        return f(x, *others, out=out)
    in_blocks(lambda b: f(x[b], *(y[b] for y in others), out=out[b]), x.shape[0],
              x.size // max(1, x.shape[0]))
    return out


@primitive
def add(x, y):
    """Return x + y, arrays of one shape: a residual connection. Both gradients are g itself.

    Parameters
    ----------
    x, y : arrays of one shape, real floating

    Returns
    -------
    array of that shape
    """
    floats(x, "x")
    floats(y, "y")
    together(x.shape == y.shape, x=x, y=y)
    if on_host(x, y):
        return _by_rows(lambda x, y, out: np.add(x, y, out=out), x, y)
    return x + y


defvjp(add, lambda s, x, y: lambda g: g, lambda s, x, y: lambda g: g)


@primitive
def tanh(x):
    """Return tanh x elementwise.

    Parameters
    ----------
    x : array of any shape, real floating

    Returns
    -------
    array of x's shape and dtype
    """
    return floats(x).tanh(x)


def _tanh_vjp(y, x):
    def vjp(g):                                                        # ∂x = g · (1 − y²)
        slope = 1.0 - y * y
        slope *= g      # in place: one temporary less
        return slope
    return vjp


defvjp(tanh, _tanh_vjp)


def dropout(x, rate, rng):
    """Return x with each entry zeroed with probability `rate`, the others divided by 1 − rate.

    So the expectation is x, and evaluation leaves the layer out.

    Parameters
    ----------
    x : array of any shape, real floating
    rate : float, at least 0 and under 1
    rng : numpy.random.Generator
        The draws are those of NumPy on every device.

    Returns
    -------
    array of x's shape and dtype

    Raises
    ------
    ValueError
        The rate is not in [0, 1), or there is no rng.

    Notes
    -----
    O(size of x). Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, JMLR 15 (2014).
    """
    if not 0 <= rate < 1 or rng is None:
        raise ValueError(f"dropout needs a rate from 0 to under 1 and a generator to draw from, "
                         f"got rate={rate}, rng={rng}")
    array_of(getval(x))
    return _masked(x, rng.random(x.shape, np.float32) >= rate, 1 / (1 - rate))


@primitive
def _masked(x, kept, factor):
    return x * _factors(x, kept, factor)


defvjp(_masked, lambda y, x, kept, factor: lambda g: g * _factors(x, kept, factor))


def _factors(x, kept, factor):
    return array_namespace(x).asarray(kept * factor, dtype=x.dtype, device=device(x))


# ----- the shape of activations --------------------------------------------------------------

@primitive
def channels_last(x):
    """Return (n, height, width, channels) of images (n, channels, height, width).

    Parameters
    ----------
    x : array of shape (n, channels, height, width)

    Returns
    -------
    array of shape (n, height, width, channels)
    """
    y = array_of(x, axes=(4,)).permute_dims(x, (0, 2, 3, 1))
    return np.ascontiguousarray(y) if on_host(y) else y


defvjp(channels_last,
       lambda y, x: lambda g: array_namespace(g).permute_dims(g, (0, 3, 1, 2)))


@primitive
def flatten(x):
    """Return (n, channels · height · width) of (n, height, width, channels).

    The order is that of PyTorch, whose channels come first, so that the weights of the next layer
    have PyTorch's order too.

    Parameters
    ----------
    x : array of shape (n, height, width, channels)

    Returns
    -------
    array of shape (n, channels · height · width)
    """
    xp = array_of(x, axes=(4,))
    return xp.reshape(xp.permute_dims(x, (0, 3, 1, 2)), (x.shape[0], math.prod(x.shape[1:])))


def _flatten_vjp(y, x):
    def vjp(g):
        xp, (n, h, w, c) = array_namespace(g), x.shape
        return xp.permute_dims(xp.reshape(g, (n, c, h, w)), (0, 2, 3, 1))
    return vjp


defvjp(flatten, _flatten_vjp)


@primitive
def subsample(x, stride, channels):
    """Return every stride-th pixel, with channels of zeros on both sides: ResNet's option A.

        y[:, i, j, p + c] = x[:, stride i, stride j, c],   p = (channels − x's) // 2

    Parameters
    ----------
    x : array of shape (n, height, width, c)
    stride, channels : int, channels at least c

    Returns
    -------
    array of shape (n, ⌈height / stride⌉, ⌈width / stride⌉, channels)

    Notes
    -----
    He, Zhang, Ren and Sun, CVPR 2016, section 3.3 (A): it has no parameters.
    """
    xp, (n, h, w, c) = array_of(x, axes=(4,)), x.shape
    first = (channels - c) // 2
    y = xp.zeros((n, -(-h // stride), -(-w // stride), channels), dtype=x.dtype, device=device(x))
    y[:, :, :, first:first + c] = x[:, ::stride, ::stride, :]
    return y


def _subsample_vjp(y, x, stride, channels):
    def vjp(g):
        first, dx = (channels - x.shape[3]) // 2, array_namespace(g).zeros_like(x)
        dx[:, ::stride, ::stride, :] = g[:, :, :, first:first + x.shape[3]]
        return dx
    return vjp


defvjp(subsample, _subsample_vjp)


# ----- the loss ------------------------------------------------------------------------------

@primitive
def softmax_cross_entropy(logits, labels):
    """Return the mean over the batch of −log softmax(z)_y, z a row of logits, y its label.

    The largest logit is subtracted first, so that no exponential overflows and one of them is 1:
    −log softmax(z)_y = log Σ_j exp(z_j − max z) − (z_y − max z).

    Parameters
    ----------
    logits : array of shape (n, classes), real floating, n at least 1
    labels : array of shape (n,), integer, 0 to classes − 1

    Returns
    -------
    scalar array, of the dtype of the logits

    Raises
    ------
    IndexError
        A label is at least `classes`, on the host; on a device, and for negative ones, that is for
        the caller to see to.

    Notes
    -----
    O(n · classes).
    """
    floats(logits, "logits", (2,))
    array_of(labels, "labels", "integral", (1,))
    together(labels.shape[0] == logits.shape[0] > 0 < logits.shape[1], logits=logits, labels=labels)
    return cross_entropy_and_slope(logits, labels)[0]


def cross_entropy_and_slope(logits, labels, g=1.0):
    """Return the loss and its vjp, ∂z = g · (softmax(z) − 1[j = y]) / n: they share exponentials.

    Arrays of n rows are worked on as columns: NumPy reduces over the few classes much sooner so.
    """
    xp = array_namespace(logits)
    z = _columns(logits)
    z = z - xp.max(z, axis=0)
    p = xp.exp(z)
    total = xp.sum(p, axis=0)
    of_label = labels == xp.arange(z.shape[0], device=device(z))[:, None]
    loss = xp.mean(xp.log(total) - _at_labels(z, labels, of_label))
    p /= total
    p -= xp.astype(of_label, p.dtype)
    p *= g / z.shape[1]
    return loss, _columns(p)


def _at_labels(z, labels, of_label):
    """The entry of each column that its label names; a sum on a device, where indexing is slow."""
    if on_host(z):
        return z[labels, np.arange(z.shape[1])]
    xp = array_namespace(z)
    return xp.sum(xp.where(of_label, z, xp.zeros_like(z)), axis=0)


def _columns(a):
    """aᵀ, on the host in C's order."""
    return np.ascontiguousarray(a.T) if on_host(a) else a.T


defvjp(softmax_cross_entropy,
       lambda loss, logits, labels: lambda g: cross_entropy_and_slope(logits, labels, g)[1], None)
