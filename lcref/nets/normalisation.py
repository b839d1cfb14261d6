"""Normalisation of activations: over the batch, and over neighbouring channels.

Arrays are channels-last: (n, height, width, channels).
"""
import math

import numpy as np
from array_api_compat import array_namespace
from autograd.extend import defvjp, defvjp_argnums, primitive

from ..blocks import channel_sums, in_rows, on_host, over_images, sum_over_pixels, workspace
from ..cuda import fused
from ..inputs import array_of, together

__all__ = ["batch_norm", "batch_norm_train", "batch_statistics", "local_response_norm"]


@primitive
def batch_norm(x, gamma, beta, mean, var, eps=1e-5):
    """Return γ (x − m) / √(v + ε) + β, channel by channel, with given m and v: evaluation.

    Parameters
    ----------
    x : array of shape (n, height, width, channels), real floating
    gamma, beta : arrays of shape (channels,)
    mean, var : arrays of shape (channels,)
        The running statistics of training.
    eps : float

    Returns
    -------
    array of x's shape and dtype

    Notes
    -----
    O(n · height · width · channels). Ioffe and Szegedy, ICML 2015, arXiv 1502.03167.
    """
    return _checked(x, gamma, beta, mean, var, eps)


def _batch_norm_vjps(argnums, y, args, kwargs):
    x, gamma, _, mean, var, *eps = args
    inv = 1 / array_namespace(var).sqrt(var + (eps[0] if eps else kwargs.get("eps", 1e-5)))

    def vjp(g):
        g_sum, gx_sum = _sums(g, x, mean)
        grads = {0: lambda: g * (gamma * inv),                          # ∂x = γ g / √(v + ε)
                 1: lambda: gx_sum * inv, 2: lambda: g_sum,             # ∂γ = Σ g x̂, ∂β = Σ g
                 3: lambda: -gamma * inv * g_sum,                       # ∂m = −γ Σ g / √
                 4: lambda: -0.5 * gamma * inv ** 3 * gx_sum}           # ∂v, as (v + ε)^(−1/2)
        return tuple(grads[i]() for i in argnums)
    return vjp


defvjp_argnums(batch_norm, _batch_norm_vjps)


def batch_statistics(x):
    """Return (mean, variance) of each channel over the batch, the variance divided by its size.

    In two passes, for the one-pass formula E[x²] − E[x]² cancels. Sums over blocks of images are
    added up in float64. Not differentiated: `batch_norm_train` knows its own statistics.

    Parameters
    ----------
    x : array of shape (n, height, width, channels), real floating

    Returns
    -------
    mean, var : arrays of shape (channels,)
    """
    array_of(x, axes=(4,))
    n = math.prod(x.shape[:3])
    together(n > 0, x=x)
    mean = sum_over_pixels(x) / n
    if not on_host(x):
        return mean, sum_over_pixels(_square(x, mean)) / n
    m = _tiled(mean, x)

    def squares(block):
        d = _centred(x[block], m)
        return channel_sums(np.multiply(d, d, out=d), x.shape[-1])
    return mean, (sum(over_images(squares, x)) / n).astype(x.dtype)


@primitive
def batch_norm_train(x, gamma, beta, mean, var, eps=1e-5):
    """Return γ (x − m) / √(v + ε) + β with m and v the batch's own: training.

    Parameters
    ----------
    x, gamma, beta, eps
        As in `batch_norm`.
    mean, var : arrays of shape (channels,)
        `batch_statistics(x)`. They depend on x, and the gradient knows it.

    Returns
    -------
    array of x's shape and dtype

    Notes
    -----
    With x̂ = (x − m) / √(v + ε) and N values a channel, m and v contribute so that
    ∂x = γ / √(v + ε) · (g − (Σ g + x̂ Σ g x̂) / N): Ioffe and Szegedy, section 3.
    """
    return _checked(x, gamma, beta, mean, var, eps)


def _batch_norm_train_vjps(argnums, y, args, kwargs):
    x, gamma, _, mean, var, *eps = args
    inv = 1 / array_namespace(var).sqrt(var + (eps[0] if eps else kwargs.get("eps", 1e-5)))
    n = x.size // x.shape[-1]

    def vjp(g):
        g_sum, gx_sum = _sums(g, x, mean)
        slope = gamma * inv
        grads = {0: lambda: _combined(g, x, mean, slope, slope * inv * inv * gx_sum / n,
                                      slope * g_sum / n),
                 1: lambda: gx_sum * inv, 2: lambda: g_sum}             # ∂γ = Σ g x̂, ∂β = Σ g
        return tuple(grads[i]() for i in argnums)
    return vjp


defvjp_argnums(batch_norm_train, _batch_norm_train_vjps)


@primitive
def local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=2.0):
    """Return each value divided by a power of the sum of squares of its neighbours.

        y[c] = x[c] / d[c]^β,   d[c] = k + α Σ_{c'} x[c']²,   |c' − c| ≤ (size − 1) / 2

    over the channels at one pixel that exist.

    Parameters
    ----------
    x : array of shape (n, height, width, channels), real floating
    size : int, odd
    alpha, beta, k : float
        The defaults are those of the paper. PyTorch's and Caffe's α is size times this one.

    Returns
    -------
    array of x's shape and dtype

    Raises
    ------
    ValueError
        size is even.

    Notes
    -----
    O(size of x · size). Krizhevsky, Sutskever and Hinton, NIPS 2012, section 3.3.
    """
    array_of(x, axes=(4,))
    if size % 2 == 0:
        raise ValueError(f"the window of local_response_norm has an odd size, not {size}")
    return x * (k + alpha * _neighbours(x * x, size)) ** -beta


def _local_response_norm_vjp(y, x, size=5, alpha=1e-4, beta=0.75, k=2.0):
    d = k + alpha * _neighbours(x * x, size)

    def vjp(g):             # ∂x[c] = g[c] d[c]^−β − 2 α β x[c] Σ_{c'} g[c'] x[c'] d[c']^(−β − 1)
        power = d ** -beta
        return g * power - (2 * alpha * beta) * x * _neighbours(g * x * power / d, size)
    return vjp


defvjp(local_response_norm, _local_response_norm_vjp)


def _neighbours(x, size):
    """Σ over the channels at most (size − 1) / 2 away."""
    total = array_namespace(x).zeros_like(x) + x
    for shift in range(1, min((size + 1) // 2, x.shape[-1])):
        total[..., shift:] += x[..., :-shift]
        total[..., :-shift] += x[..., shift:]
    return total


# ---- on a device, each one kernel

@fused
def _line(x, mean, slope, beta):
    return (x - mean) * slope + beta


@fused
def _square(x, mean):
    return (x - mean) * (x - mean)


@fused
def _times(g, x, mean):
    return g * (x - mean)


@fused
def _slope(g, x, mean, a, b, c):
    return a * g - b * (x - mean) - c


# ---- in blocks of images; a row is (width · channels,), long enough for a fast inner loop


def _tiled(channels, x):
    return np.tile(channels, x.shape[-2])


def _centred(x, tiled_mean):
    """x − m of a block of images, in rows, in memory that is used again."""
    rows = in_rows(x)
    d = workspace("centred", rows.size, rows.dtype).reshape(rows.shape)
    return np.subtract(rows, tiled_mean, out=d)


def _checked(x, gamma, beta, mean, var, eps):
    """γ (x − m) / √(v + ε) + β, after a look at the arrays' shapes and dtypes."""
    array_of(x, axes=(4,))
    for name, a in (("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)):
        array_of(a, name, axes=(1,))
        together(a.shape == x.shape[3:], **{name: a, "x": x})
    return _normalised(x, mean, gamma / array_namespace(var).sqrt(var + eps), beta)


def _normalised(x, mean, slope, beta):
    """slope (x − m) + β."""
    if not on_host(x, mean):
        return _line(x, mean, slope, beta)
    out, (m, s, b) = np.empty(x.shape, x.dtype), (_tiled(c, x) for c in (mean, slope, beta))

    def work(block):
        to = in_rows(out[block])
        np.subtract(in_rows(x[block]), m, out=to)
        to *= s
        to += b
    over_images(work, x)
    return out


def _sums(g, x, mean):
    """(Σ g, Σ g (x − m)), by channel."""
    if not on_host(g, x):
        return sum_over_pixels(g), sum_over_pixels(_times(g, x, mean))
    m = _tiled(mean, x)

    def work(block):
        rows, d = in_rows(g[block]), _centred(x[block], m)
        d *= rows
        return channel_sums(rows, x.shape[-1]), channel_sums(d, x.shape[-1])
    return [sum(sums).astype(g.dtype) for sums in zip(*over_images(work, x))]


def _combined(g, x, mean, a, b, c):
    """a g − b (x − m) − c."""
    if not on_host(g, x):
        return _slope(g, x, mean, a, b, c)
    out, (m, a, b, c) = np.empty(x.shape, x.dtype), (_tiled(v, x) for v in (mean, a, b, c))

    def work(block):
        to, d = in_rows(out[block]), _centred(x[block], m)
        d *= b
        d += c
        np.multiply(in_rows(g[block]), a, out=to)
        to -= d
    over_images(work, x)
    return out
