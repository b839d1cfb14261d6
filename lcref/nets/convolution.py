"""Convolution as matrix products, forward and backward.

Arrays are channels-last inside the nets: x is (n, height, width, channels). Weights have
PyTorch's layout, (out, in, kernel height, kernel width).

There are two texts of the same sums. For any array of the array API standard, a patch matrix,
(n · out_height · out_width, in · kernel), gathered by an index, times the weights; so is the
gradient of x, whose pixels gather the outputs that they went into. For NumPy arrays a faster one,
which copies each input kernel_height times in place of kernel_height · kernel_width times:

    q[i, j] = (x[σ i, j], x[σ i + 1, j], ..)      the column of pixels that output row i sees,

so that the patch of output (i, j) is q[i, σ j], .., q[i, σ j + kernel_width − 1], which lie side
by side in memory: patches overlap, but every s-th one, s = ⌈kernel_width / σ⌉, is a row of a
plain reshape of q. So s matrix products, one for each residue, read them without a copy. Rows of
pixels follow each other with the left padding of the next as the right padding of this one; the
few products across the seam are not used.
"""
import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from autograd.extend import defvjp_argnums, primitive

from ..blocks import in_blocks, on_host, sum_over_pixels, workspace
from ..cuda import product
from ..inputs import array_of, together

__all__ = ["conv2d"]


@primitive
def conv2d(x, w, b=None, stride=1, padding=0):
    """Return the convolution (cross-correlation) of a batch of images with a set of kernels.

        y[n, i, j, o] = b[o] + Σ_{c, k, l} x[n, σ i + k − p, σ j + l − p, c] · w[o, c, k, l]

    with stride σ, padding p, and x = 0 outside the image.

    Parameters
    ----------
    x : array of shape (n, height, width, in), real floating
    w : array of shape (out, in, kernel_height, kernel_width), PyTorch's layout
    b : array of shape (out,), or None
    stride, padding : int, at least 1 and at least 0

    Returns
    -------
    array of shape (n, (height + 2p − kernel_height) // σ + 1, the same of the width, out)

    Raises
    ------
    ValueError
        The images have other channels than the kernels, or are too small for one output.

    Notes
    -----
    O(n · out_height · out_width · out · in · kernel) forward, twice that backward (once where x
    is data).
    """
    for name, a, axes in (("x", x, 4), ("w", w, 4), *([("b", b, 1)] if b is not None else [])):
        array_of(a, name, axes=(axes,))
    together(b is None or b.shape == w.shape[:1], b=b, w=w)
    if x.shape[3] != w.shape[1] or min(out_size(x.shape[1:3], w.shape[2:], stride, padding)) < 1:
        raise ValueError(f"kernels w of shape {tuple(w.shape)} with padding {padding} do not fit "
                         f"images x of shape {tuple(x.shape)}, channels last")
    return _correlate(x, _as_matrix(w), w.shape[2:], stride, padding, b)


def _conv2d_vjps(argnums, y, args, kwargs):
    x, w, _, stride, padding = _all_arguments(*args, **kwargs)

    def vjp(g):
        grads = {}
        if {0, 1} <= set(argnums) and _turnable(w, stride, padding) and on_host(g, x, w):
            grads[0], grads[1] = _both(g, x, w, padding)
        gradients = {0: lambda: _x_gradient(g, x, w, stride, padding),
                     1: lambda: _w_gradient(g, x, w, stride, padding),
                     2: lambda: sum_over_pixels(g)}                     # ∂b = Σ_{n, i, j} g
        return tuple(grads[i] if i in grads else gradients[i]() for i in argnums)
    return vjp


defvjp_argnums(conv2d, _conv2d_vjps)


def _all_arguments(x, w, b=None, stride=1, padding=0):
    return x, w, b, stride, padding


def _turnable(w, stride, padding):
    """Whether ∂x is a convolution of g, of stride 1 and with the same padding on both axes."""
    return stride == 1 and w.shape[2] == w.shape[3] and padding < w.shape[2]


def _turned(w):
    """The kernels turned by 180°, from the outputs to the inputs, as a matrix."""
    xp = array_namespace(w)
    return _as_matrix(xp.permute_dims(xp.flip(w, axis=(2, 3)), (1, 0, 2, 3)))


def _x_gradient(g, x, w, stride, padding):
    if not on_host(g, w):
        return _gathered_back(g, x, w, stride, padding)
    if _turnable(w, stride, padding):       # ∂x = g correlated with the turned kernels
        return _correlate(g, _turned(w), w.shape[2:], 1, w.shape[2] - 1 - padding)
    return _scatter(g, w, x.shape[1:3], stride, padding)


def _w_gradient(g, x, w, stride, padding):
    """∂w[o, c, k, l] = Σ_{n, i, j} g[n, i, j, o] · x[n, σ i + k − p, σ j + l − p, c]."""
    xp, (o, c, kh, kw) = array_namespace(w), w.shape
    matrix = _sum_of_patches(x, g, (kh, kw), stride, padding)
    return xp.permute_dims(xp.reshape(matrix, (kw, kh, c, o)), (3, 2, 1, 0))


def _both(g, x, w, padding):
    """(∂x, ∂w) from the patches of g, which are copied once.

    The patch of g at a pixel of x holds all outputs that the pixel goes into, the kernel's last
    place first; so ∂w, turned, is the sum over all pixels of patch ⊗ x.
    """
    (o, c, k, _), turned, dx = w.shape, _turned(w), np.empty(x.shape, x.dtype)

    def work(block):
        columns = _Columns(g[block], (k, k), 1, k - 1 - padding)
        y = workspace("products", columns.starts * c, x.dtype).reshape(-1, c)
        for patches, s in columns.residues():
            np.matmul(patches, turned, out=y[s::columns.every])
        dx[block] = columns.grid(y)
        columns.fill(y, x[block])
        return sum(patches.T @ y[s::columns.every] for patches, s in columns.residues())
    dw = sum(in_blocks(work, x.shape[0], _row_size(g, (k, k), x.shape[1])))
    return dx, np.flip(dw.reshape(k, k, o, c).transpose(2, 3, 1, 0), axis=(2, 3))


def _as_matrix(w):
    """(kernel_width · kernel_height · in, out): rows in the order of a patch of q."""
    xp = array_namespace(w)
    return xp.reshape(xp.permute_dims(w, (3, 2, 1, 0)), (-1, w.shape[0]))


def out_size(size, kernel, stride, padding):
    """How many outputs fit along each axis of an image."""
    return tuple((n + 2 * padding - k) // stride + 1 for n, k in zip(size, kernel))


def _correlate(x, matrix, kernel, stride, padding, b=None):
    n, o = x.shape[0], matrix.shape[1]
    height, width = out_size(x.shape[1:3], kernel, stride, padding)
    if not on_host(x, matrix):
        y = product(_patches(x, kernel, stride, padding), matrix)
        y = array_namespace(y).reshape(y, (n, height, width, o))
        return y if b is None else y + b
    out = np.empty((n, height, width, o), x.dtype)

    def work(block):
        columns = _Columns(x[block], kernel, stride, padding)
        y = workspace("products", columns.starts * o, x.dtype).reshape(-1, o)
        for patches, s in columns.residues():
            np.matmul(patches, matrix, out=y[s::columns.every])
        if b is None:
            out[block] = columns.grid(y)
        else:
            np.add(columns.grid(y), b, out=out[block])
    in_blocks(work, n, _row_size(x, kernel, height))
    return out


def _sum_of_patches(x, g, kernel, stride, padding):
    """Σ over all outputs of patch ⊗ g, (kernel_width · kernel_height · in, out)."""
    if not on_host(x, g):
        outputs = array_namespace(g).reshape(g, (-1, g.shape[-1]))
        return product(_patches(x, kernel, stride, padding).T, outputs)

    def work(block):
        columns = _Columns(x[block], kernel, stride, padding)
        y = workspace("products", columns.starts * g.shape[-1], g.dtype).reshape(-1, g.shape[-1])
        columns.fill(y, g[block])
        return sum(patches.T @ y[s::columns.every] for patches, s in columns.residues())
    return sum(in_blocks(work, x.shape[0], _row_size(x, kernel, g.shape[1])))


def _row_size(x, kernel, height):
    return height * x.shape[2] * kernel[0] * x.shape[3]


def _pixels(x):
    """x with all channels of a pixel as one element, which NumPy copies twice as fast."""
    x = np.ascontiguousarray(x)
    return x.view(np.dtype((np.void, x.shape[-1] * x.itemsize)))[..., 0]


class _Columns:
    """The array q of a few images, and where the patches lie in it."""

    def __init__(self, x, kernel, stride, padding):
        n, _, w, c = x.shape
        (kh, kw), p = kernel, padding
        self.height, self.out_width = out_size(x.shape[1:3], kernel, stride, padding)
        width = stride * max(self.out_width, -(-(w + p) // stride))     # with its padding
        self.every = -(-kw // stride)                       # patches from one to the next apart
        self.used, self.shape = n * self.height * width // stride, (n, self.height, width // stride)
        self.rows = -(-self.used // self.every)
        self.starts = self.rows * self.every
        self.patch, self.step = kw * kh * c, stride * kh * c
        q = workspace("columns", self.starts * self.step + self.patch, x.dtype)
        q[n * self.height * width * kh * c:] = 0
        self.q = q
        grid = _pixels(q[:n * self.height * width * kh * c].reshape(n, self.height, width, kh, c))
        grid[:, :, :p] = grid[:, :, p + w:] = np.zeros((), grid.dtype)
        for k in range(kh):
            self._copy_rows(_pixels(x), grid[:, :, p:p + w, k], k - p, stride)

    def _copy_rows(self, x, to, shift, stride):
        """to[:, i] = x[:, σ i + shift], and 0 outside the image."""
        first = max(0, -(shift // stride))
        end = max(first, min(self.height, (x.shape[1] - 1 - shift) // stride + 1))
        to[:, :first] = to[:, end:] = np.zeros((), to.dtype)
        stop = max(0, stride * (end - 1) + shift + 1)       # where no row is left, an empty slice
        to[:, first:end] = x[:, stride * first + shift:stop:stride]

    def residues(self):
        """(every s-th patch as a matrix, s): the products belong to outputs s, s + every, .."""
        stride = self.every * self.step
        for s in range(self.every):
            block = self.q[s * self.step:]
            yield np.lib.stride_tricks.as_strided(
                block, (self.rows, self.patch),
                (stride * block.itemsize, block.itemsize), writeable=False), s

    def grid(self, products):
        """The products that are outputs, as a view (n, out_height, out_width, out)."""
        return products[:self.used].reshape(*self.shape, -1)[:, :, :self.out_width]

    def fill(self, products, outputs):
        """Put outputs where their products are, and 0 where products are not used."""
        products[self.used:] = 0
        products[:self.used].reshape(*self.shape, -1)[:, :, self.out_width:] = 0
        self.grid(products)[...] = outputs


# ---- on a device, by one gather

def _patches(x, kernel, stride, padding):
    """The patch of every output, (n · out_height · out_width, kernel's width · height · in)."""
    return _gathered(pad(x, padding), _seen, x.shape[1:3], kernel, stride, padding)


def _gathered_back(g, x, w, stride, padding):
    """∂x: every pixel gathers the gradients of the outputs it went into, times the kernel.

    The frame of zeros around g is what a place of the kernel gathers that made no output.
    """
    xp, (_, c, *kernel) = array_namespace(g), w.shape
    outputs = _gathered(pad(g, 1), _went_into, x.shape[1:3], tuple(kernel), stride, padding)
    weights = xp.reshape(xp.permute_dims(w, (3, 2, 0, 1)), (-1, c))
    return xp.reshape(product(outputs, weights), x.shape)


def _gathered(framed, places, size, kernel, stride, padding):
    """Rows of pixels of framed images, as the index `places` of an image of a size says."""
    xp, (n, h, w, c) = array_namespace(framed), framed.shape
    index = _on_device(framed, places, tuple(size), kernel, stride, padding)
    rows = xp.take(xp.reshape(framed, (n, h * w, c)), index, axis=1)
    return xp.reshape(rows, (-1, math.prod(kernel) * c))


def _on_device(like, places, *geometry):
    """The index of a geometry, on the device of `like`; it is sent there once."""
    key = array_namespace(like).__name__, str(device(like)), places, *geometry
    if key not in _indices:
        _indices[key] = array_namespace(like).asarray(places(*geometry), device=device(like))
    return _indices[key]


_indices: dict[tuple, Any] = {}     # of one image each: small, and few


def _seen(size, kernel, stride, padding):
    """For each output and place of the kernel, column by column, the pixel of the padded image."""
    i, j = (stride * np.arange(n) for n in out_size(size, kernel, stride, padding))
    k, m = np.arange(kernel[0]), np.arange(kernel[1])[:, None]
    row, column = i[:, None, None, None] + k, j[:, None, None] + m
    return (row * (size[1] + 2 * padding) + column).ravel()


def _went_into(size, kernel, stride, padding):
    """For each pixel and place of the kernel, the output it made there, in a frame of one; or 0."""
    places = []
    for pixels, k, outputs in zip(size, kernel, out_size(size, kernel, stride, padding)):
        output, rest = np.divmod(np.arange(pixels)[:, None] + padding - np.arange(k), stride)
        there = (rest == 0) & (output >= 0) & (output < outputs)
        places.append(np.where(there, output + 1, 0))
    rows, columns = places[0][:, None, None, :], places[1][:, :, None]
    width = out_size(size, kernel, stride, padding)[1] + 2
    return np.where((rows > 0) & (columns > 0), rows * width + columns, 0).ravel()


def pad(x, padding, value=0.0):
    """x with `padding` rows and columns of a value on all four sides."""
    if not padding:
        return x
    xp, (n, h, w, c) = array_namespace(x), x.shape
    out = xp.full((n, h + 2 * padding, w + 2 * padding, c), value, dtype=x.dtype, device=device(x))
    out[:, padding:padding + h, padding:padding + w, :] = x
    return out


def _scatter(g, w, size, stride, padding):
    """∂x: every output gives its gradient, times the kernel, back to the pixels of its patch."""
    n, height, width, _ = g.shape
    _, c, kh, kw = w.shape
    h, v = size[0] + 2 * padding, size[1] + 2 * padding
    dx = np.zeros((n, h, v, c), g.dtype)

    def work(block):
        for k in range(kh):
            for j in range(kw):
                dx[block, k:k + stride * (height - 1) + 1:stride,
                   j:j + stride * (width - 1) + 1:stride, :] += g[block] @ w[:, :, k, j]
    in_blocks(work, n, h * v * c)
    return dx[:, padding:h - padding, padding:v - padding, :]
