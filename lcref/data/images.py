"""What is done to a batch of images on the way to a net: normalisation, random flips and crops."""
import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["normalised", "flipped_and_cropped"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)    # of red, green and blue, in ImageNet


def normalised(x: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Return (x / 255 − mean) / std, channel by channel.

    Parameters
    ----------
    x : uint8 array of shape (n, channels, height, width), on any device
    mean, std : tuples of float, one for each channel

    Returns
    -------
    float32 array of x's shape

    Notes
    -----
    Computed as (x − 255 mean) · 1/(255 std), two passes; in float32 with an error under 1e-6
    where std is at least 0.2.
    """
    xp = array_namespace(x)
    shift, factor = (xp.asarray(values, dtype=xp.float32, device=device(x))[:, None, None]
                     for values in ([255 * m for m in mean], [1 / (255 * s) for s in std]))
    # uint8 and float32 make float32, but the standard does not promise it
    y = (x if is_numpy_array(x) else xp.astype(x, xp.float32)) - shift
    y *= factor
    return y


def flipped_and_cropped(x: np.ndarray, rng: np.random.Generator, pad: int = 4) -> np.ndarray:
    """Return every image mirrored left to right or not, then moved by up to `pad` pixels.

    Each image is mirrored with probability 1/2, framed by `pad` pixels of 0 on every side, and
    cut to its old size at a place that is uniform among the (2 pad + 1)² there are.

    Parameters
    ----------
    x : array of shape (n, channels, height, width)
    rng : numpy.random.Generator
        Draws integers(2, size=n), 1 to mirror, then integers(2 · pad + 1, size=(2, n)), the row
        and the column of the framed image where the cut begins.
    pad : int, at least 0

    Returns
    -------
    array of x's shape and dtype

    Notes
    -----
    One gather for the mirrored images and one for the cuts: about four passes over x; on a device
    one gather in all. He, Zhang, Ren and Sun, CVPR 2016, arXiv 1512.03385, section 4.2.
    """
    n, channels, height, width = x.shape
    mirror = rng.integers(2, size=n).astype(bool)
    top, left = rng.integers(2 * pad + 1, size=(2, n))
    if not is_numpy_array(x):
        return _gathered(x, mirror, top - pad, left - pad)
    framed = np.zeros((n, channels, height + 2 * pad, width + 2 * pad), x.dtype)
    inner = framed[:, :, pad:pad + height, pad:pad + width]
    inner[...] = x
    inner[mirror] = x[mirror, :, :, ::-1]
    cuts = sliding_window_view(framed, (height, width), axis=(2, 3))    # (n, c, top, left, h, w)
    return cuts[np.arange(n), :, top, left]


def _gathered(x, mirror, down, right):
    """The images moved by down and right, of mirrored ones the image in the mirror; 0 outside."""
    xp, here, (n, channels, height, width) = array_namespace(x), device(x), x.shape
    mirror, down, right = (xp.asarray(a, device=here)[:, None] for a in (mirror, down, right))
    row, column = (xp.arange(size, device=here) + first
                   for size, first in ((height, down), (width, right)))
    inside = (((row >= 0) & (row < height))[:, :, None]
              & ((column >= 0) & (column < width))[:, None, :])
    column = xp.where(mirror, width - 1 - column, column)
    pixel = xp.arange(n, device=here)[:, None, None] * (height * width) + xp.where(
        inside, row[:, :, None] * width + column[:, None, :], 0)
    pixels = xp.reshape(xp.permute_dims(x, (1, 0, 2, 3)), (channels, -1))
    moved = xp.reshape(xp.take(pixels, xp.reshape(pixel, (-1,)), axis=1),
                       (channels, n, height, width))
    return xp.permute_dims(xp.where(inside, moved, xp.zeros_like(moved)), (1, 0, 2, 3))
