"""Fully connected nets without autograd: backpropagation written out.

    h_0 = x,   z_l = h_{l−1} W_lᵀ + b_l,   h_l = f(z_l),   L = mean cross-entropy of the last z
    δ_l = ∂L/∂z_l:   ∂W_l = δ_lᵀ h_{l−1},   ∂b_l = Σ_n δ_l,   δ_{l−1} = (δ_l W_l) · f'(z_{l−1})

It has the bits that autograd has from the primitives of `layers`, in three quarters of the time on
LeNet300: no tracing, and a hidden layer's array becomes its activation and then the slope of it in
place, where autograd, which cannot know that nobody else needs it, fills new memory.
"""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ..blocks import in_blocks, on_host
from ..cuda import product
from .layers import PRODUCTS_PER_ELEMENT, cross_entropy_and_slope

__all__ = ["value_and_grad"]

Array = Any
TILE = 16   # rows that the kernels of a BLAS take at a time: a block with a part of one is slower


def value_and_grad(layers: Sequence[str], activation: str | None, params: Mapping[str, Array],
                   x: Array, labels: Array) -> tuple[Array, dict[str, Array]]:
    """Return the loss of a batch, a scalar array, and its gradient by the parameters' names.

    Parameters
    ----------
    layers : the names of the layers; "NAME.weight" and "NAME.bias" are in params
    activation : "relu", "tanh" or None, after all layers but the last
    x : array of shape (n, inputs), of the parameters' dtype
    labels : integer array of shape (n,)
    """
    w, b = ([params[f"{layer}.{kind}"] for layer in layers] for kind in ("weight", "bias"))
    hidden, grads = [x], dict[str, Array]()
    for i in range(len(layers)):
        z = _outputs(hidden[-1], w[i])
        z += b[i]                                               # z = h Wᵀ + b
        hidden.append(FORWARD[activation](z) if i < len(layers) - 1 else z)
    value, d = cross_entropy_and_slope(hidden.pop(), labels)    # δ of the last layer
    for i in reversed(range(len(layers))):
        h = hidden.pop()
        grads[f"{layers[i]}.weight"] = _product(d.T, h)         # ∂W = δᵀ h
        grads[f"{layers[i]}.bias"] = array_namespace(d).sum(d, axis=0)
        if i:
            d = SLOPE[activation](_product(d, w[i]), h)         # δ ← (δ W) · f'
    return value, grads


# ----- activations, in place on the host, and their slopes times a gradient, from h = f(z) -----

def _tanh(z):
    return np.tanh(z, out=z) if on_host(z) else array_namespace(z).tanh(z)


def _relu(z):
    return np.maximum(z, 0.0, out=z) if on_host(z) else array_namespace(z).maximum(z, 0.0)


def _times_tanh_slope(g, h):
    if not on_host(g, h):
        return g * (1.0 - h * h)
    h *= h
    np.subtract(1.0, h, out=h)
    g *= h
    return g


def _times_relu_slope(g, h):
    g *= array_namespace(h).astype(h > 0, h.dtype)
    return g


FORWARD: dict[str | None, Callable] = {"tanh": _tanh, "relu": _relu}
SLOPE: dict[str | None, Callable] = {"tanh": _times_tanh_slope, "relu": _times_relu_slope}


# ----- products, in blocks of the outputs of a layer -----------------------------------------

def _outputs(x, w):
    """x Wᵀ."""
    if not on_host(x, w):
        return product(x, w.T)
    y = np.empty((x.shape[0], w.shape[0]), x.dtype)
    _in_blocks(lambda outputs: np.matmul(x, w[outputs].T, out=y[:, outputs]), w.shape[0], x.size)
    return y


def _product(a, b):
    """a @ b; of δᵀ and h the same thread has the rows of ∂W that it had of W, mostly."""
    if not on_host(a, b):
        return product(a, b)
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    _in_blocks(lambda rows: np.matmul(a[rows], b, out=out[rows]), a.shape[0], b.size)
    return out


def _in_blocks(work, rows, products):
    in_blocks(work, rows, products // PRODUCTS_PER_ELEMENT, TILE)
