"""Pooling: a window's maximum or mean, and the mean of a whole image.

Arrays are channels-last: (n, height, width, channels). A window is a sum or maximum over
shifted, strided views, so the same text runs on every array namespace.
"""
import math

import numpy as np
from array_api_compat import array_namespace, device
from autograd.extend import defvjp, primitive

from ..blocks import on_host, over_images
from ..inputs import array_of, together
from .convolution import out_size, pad

__all__ = ["average_pool", "global_average_pool", "max_pool"]


def _places(size, stride, height, width):
    """For each place in a window, the slices of the pixels that stand there, one a window."""
    return [(slice(None), slice(k, k + stride * (height - 1) + 1, stride),
             slice(j, j + stride * (width - 1) + 1, stride), slice(None))
            for k in range(size) for j in range(size)]


def _output(x, size, stride, padding):
    """(slices of the padded image, one for each place in a window; an empty output)."""
    xp, (n, h, w, c) = array_of(x, axes=(4,)), x.shape
    if 2 * padding > size:
        raise ValueError(f"padding={padding} is more than half the window, {size}")
    height, width = out_size((h, w), (size, size), stride or size, padding)
    return (_places(size, stride or size, height, width),
            xp.empty((n, height, width, c), dtype=x.dtype, device=device(x)))


@primitive
def max_pool(x, size, stride=None, padding=0):
    """Return the largest value of each window of size × size pixels, channel by channel.

    Parameters
    ----------
    x : array of shape (n, height, width, channels), real floating
    size : int
    stride : int, optional
        None is `size`: windows that do not overlap.
    padding : int
        Pixels of −∞ around the image; at most size / 2, so that no window is without a pixel.

    Returns
    -------
    array of shape (n, (height + 2 padding − size) // stride + 1, the same of the width, channels)

    Raises
    ------
    ValueError
        The padding is more than half the size.

    Notes
    -----
    The gradient goes to the first of equal values, row by row. O(n · outputs · size²).
    """
    (places, y), xp = _output(x, size, stride, padding), array_namespace(x)

    def work(block):
        image = pad(x[block, ...], padding, -float("inf"))
        best = image[places[0]]
        for place in places[1:]:
            best = xp.maximum(best, image[place])
        y[block, ...] = best
    over_images(work, x)
    return y


def _max_pool_vjp(y, x, size, stride=None, padding=0):
    xp, (places, _) = array_namespace(x), _output(x, size, stride, padding)

    def vjp(g):
        dx = xp.empty(x.shape, dtype=x.dtype, device=device(x))

        def work(block):
            image, best = pad(x[block, ...], padding, -float("inf")), y[block, ...]
            back, free = xp.zeros_like(image), xp.ones_like(best, dtype=xp.bool)
            for place in places:
                first = (image[place] == best) & free
                back[place] += g[block, ...] * xp.astype(first, x.dtype)
                free = free & ~first
            dx[block, ...] = _inside(back, x, padding)
        over_images(work, x)
        return dx
    return vjp


defvjp(max_pool, _max_pool_vjp)


def _inside(padded, x, padding):
    return padded[:, padding:padding + x.shape[1], padding:padding + x.shape[2], :]


@primitive
def average_pool(x, size, stride=None, padding=0):
    """Return the mean of each window of size × size pixels, zeros of the padding among them.

    Shapes and cost are those of `max_pool`.

    Parameters
    ----------
    x, size, stride, padding
        As of `max_pool`.

    Returns
    -------
    array of the shape that `max_pool` has
    """
    places, y = _output(x, size, stride, padding)

    def work(block):
        image = pad(x[block, ...], padding)
        y[block, ...] = sum(image[place] for place in places) / (size * size)
    over_images(work, x)
    return y


def _average_pool_vjp(y, x, size, stride=None, padding=0):
    xp, (places, _) = array_namespace(x), _output(x, size, stride, padding)

    def vjp(g):                                             # ∂x = Σ over its windows of g / size²
        dx = xp.empty(x.shape, dtype=x.dtype, device=device(x))

        def work(block):
            back, share = pad(xp.zeros_like(x[block, ...]), padding), g[block, ...] / (size * size)
            for place in places:
                back[place] += share
            dx[block, ...] = _inside(back, x, padding)
        over_images(work, x)
        return dx
    return vjp


defvjp(average_pool, _average_pool_vjp)


@primitive
def global_average_pool(x):
    """Return the mean of every channel over the image, (n, channels). O(size of x).

    Parameters
    ----------
    x : array of shape (n, height, width, channels), real floating

    Returns
    -------
    array of shape (n, channels)
    """
    xp = array_of(x, axes=(4,))
    together(math.prod(x.shape[1:3]) > 0, x=x)
    return xp.mean(np.ascontiguousarray(x) if on_host(x) else x, axis=(1, 2))


def _global_average_pool_vjp(y, x):
    def vjp(g):                                             # ∂x = g / (height · width)
        xp, (n, h, w, c) = array_namespace(g), x.shape
        return xp.asarray(xp.broadcast_to(g[:, None, None, :] / (h * w), (n, h, w, c)), copy=True,
                          device=device(g))
    return vjp


defvjp(global_average_pool, _global_average_pool_vjp)
