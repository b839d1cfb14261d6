"""The layers once more, entry by entry in exact arithmetic: what the tests expect of them.

Arrays here hold Python numbers (dtype object): integers and fractions, which are exact, or
decimals of 60 digits. No value comes from what is tested, and no derivative is written down: those
of sums of products follow from their terms, the others from differences in decimals,
where a step of 1e-20 leaves an error of about 1e-40.
"""
import decimal
import itertools
from decimal import Decimal
from fractions import Fraction

import numpy as np
from autograd.core import primitive_vjps
from places import on_host, put

from lcref import blocks

DIGITS = decimal.Context(prec=60)


def leave_nan():
    """Put NaN into the memory that is used again: what a layer has not written must not show."""
    for name in ("columns", "products", "centred"):
        blocks.workspace(name, 1 << 18, np.uint8)[:] = 255


def with_vjps(layer, args, argnums, g, **options):
    """(value, gradient for each argnum), all asked for at once."""
    leave_nan()
    value = layer(*args, **options)
    leave_nan()
    return [value, *primitive_vjps[layer](argnums, value, args, options)(g)]


def with_vjps_there(layer, args, argnums, g, **options):
    """The same, computed where the running test computes, see `places`."""
    args, g = put((list(args), g))
    found = with_vjps(layer, args, argnums, g, **options)
    assert {(type(a), getattr(a, "device", None)) for a in found} == {
        (type(g), getattr(g, "device", None))}
    return [on_host(a) for a in found]


def cast(args, dtype):
    return [a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a
            for a in args]


def integers(rng, *shape, most=5):
    """Integers from −most to most, as floats: sums of their products are exact."""
    return rng.integers(-most, most + 1, shape).astype(float)


def fractions(a):
    return np.vectorize(Fraction, otypes=[object])(a)


def decimals(a):
    return np.vectorize(lambda v: Decimal(float(v)), otypes=[object])(a)


def floats(a):
    return np.vectorize(float, otypes=[float])(a)


def zeros(shape):
    a = np.empty(shape, object)
    a[...] = 0
    return a


def slopes(f, x, g, step=Decimal("1e-20")):
    """∂ Σ g · f(x) / ∂x by central differences; x and g hold decimals."""
    result = zeros(x.shape)
    with decimal.localcontext(DIGITS):
        for i in np.ndindex(*x.shape):
            ahead, behind = x.copy(), x.copy()
            ahead[i] += step
            behind[i] -= step
            result[i] = np.sum(g * (f(ahead) - f(behind))) / (2 * step)
    return floats(result)


# ----- convolution ---------------------------------------------------------------------------

def outputs(size, kernel, stride, padding):
    """How many windows fit, counted."""
    return sum(first + kernel <= size + 2 * padding
               for first in range(0, size + 2 * padding, stride))


def terms(x_shape, w_shape, stride, padding):
    """Every product in a convolution: the indices of its output, its pixel and its weight."""
    n, height, width, channels = x_shape
    out, _, kh, kw = w_shape
    rows, columns = outputs(height, kh, stride, padding), outputs(width, kw, stride, padding)
    for image, i, j, k, l in itertools.product(range(n), range(rows), range(columns), range(kh),
                                               range(kw)):
        row, column = stride * i + k - padding, stride * j + l - padding
        if 0 <= row < height and 0 <= column < width:
            for c, o in itertools.product(range(channels), range(out)):
                yield (image, i, j, o), (image, row, column, c), (o, c, k, l)


def output_shape(x_shape, w_shape, stride, padding):
    rows, columns = (outputs(x_shape[a], w_shape[a + 1], stride, padding) for a in (1, 2))
    return x_shape[0], rows, columns, w_shape[0]


def convolution(x, w, b, g, stride, padding):
    """[y, ∂x, ∂w, ∂b] of Σ g · y, added up product by product."""
    y, dx, dw = zeros(g.shape), zeros(x.shape), zeros(w.shape)
    y += b
    for out, pixel, weight in terms(x.shape, w.shape, stride, padding):
        y[out] += x[pixel] * w[weight]
        dx[pixel] += g[out] * w[weight]
        dw[weight] += g[out] * x[pixel]
    return [y, dx, dw, sum(g.reshape(-1, g.shape[-1]))]


# ----- pooling -------------------------------------------------------------------------------

def windows(shape, size, stride, padding):
    """(output, the pixels of its window that are inside the image, row by row)."""
    n, height, width, channels = shape
    for image, i, j, c in itertools.product(
            range(n), range(outputs(height, size, stride, padding)),
            range(outputs(width, size, stride, padding)), range(channels)):
        yield (image, i, j, c), [
            (image, row, column, c)
            for row in range(stride * i - padding, stride * i - padding + size)
            for column in range(stride * j - padding, stride * j - padding + size)
            if 0 <= row < height and 0 <= column < width]


def maxima(x, g, size, stride, padding):
    """[y, ∂x], the gradient to the first of equals."""
    y, dx = zeros(g.shape), zeros(x.shape)
    for out, pixels in windows(x.shape, size, stride, padding):
        y[out] = max(x[pixel] for pixel in pixels)
        dx[next(pixel for pixel in pixels if x[pixel] == y[out])] += g[out]
    return [y, dx]


def means(x, g, size, stride, padding):
    """[y, ∂x] in fractions, the padding counted as zeros."""
    y, dx = zeros(g.shape), zeros(x.shape)
    for out, pixels in windows(x.shape, size, stride, padding):
        y[out] = Fraction(sum(x[pixel] for pixel in pixels)) / size ** 2
        for pixel in pixels:
            dx[pixel] += Fraction(g[out]) / size ** 2
    return [y, dx]


# ----- normalisation, in decimals ------------------------------------------------------------

def batch_moments(x):
    """(mean, variance) of each channel, the variance divided by the number of values."""
    rows = x.reshape(-1, x.shape[-1])
    mean = sum(rows) / len(rows)
    return mean, sum((row - mean) ** 2 for row in rows) / len(rows)


def batch_normalised(x, gamma, beta, mean, var, eps):
    with decimal.localcontext(DIGITS):
        return gamma * (x - mean) / np.array([(v + eps).sqrt() for v in var]) + beta


def self_normalised(x, gamma, beta, eps):
    with decimal.localcontext(DIGITS):
        return batch_normalised(x, gamma, beta, *batch_moments(x), eps)


def response_normalised(x, size, alpha, beta, k):
    y, reach = zeros(x.shape), size // 2
    with decimal.localcontext(DIGITS):
        for i in np.ndindex(*x.shape):
            near = x[i[:-1]][max(0, i[-1] - reach):i[-1] + reach + 1]
            y[i] = x[i] / (k + alpha * sum(v * v for v in near)) ** beta
    return y
