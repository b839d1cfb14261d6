"""Normalisation against fractions; flips and crops against loops over single pixels."""
import itertools
from fractions import Fraction

import array_api_strict
import numpy as np
import pytest

from lcref.data import cifar
from lcref.data.images import flipped_and_cropped, normalised

MEAN, STD = ("0.485", "0.456", "0.406"), ("0.229", "0.224", "0.225")


class Drawn:
    """A generator that draws what it is given."""

    def __init__(self, *values):
        self.values = list(values)

    def integers(self, high, size):
        value = np.array(self.values.pop(0))
        assert value.shape == (size if isinstance(size, tuple) else (size,))
        assert value.min() >= 0 and value.max() < high
        return value


def moved(image, mirror, top, left, pad):
    """One image of one channel, pixel by pixel: mirrored, framed by zeros, cut."""
    height, width = len(image), len(image[0])
    out = [[0] * width for _ in range(height)]
    for i in range(height):
        for j in range(width):
            row, column = i + top - pad, j + left - pad
            if 0 <= row < height and 0 <= column < width:
                out[i][j] = image[row][width - 1 - column if mirror else column]
    return out


def all_moved(x, mirror, top, left, pad):
    return [[moved(channel, *move, pad) for channel in image]
            for image, move in zip(x.tolist(), zip(mirror, *np.array([top, left]).tolist()))]


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_every_mirroring_and_every_cut_is_that_of_a_loop_over_pixels(pad):
    size = 2 * pad + 1
    moves = list(itertools.product(range(2), range(size), range(size)))
    mirror, top, left = map(list, zip(*moves))
    x = np.random.default_rng(0).integers(256, size=(len(moves), 3, 6, 5), dtype=np.uint8)
    before = x.copy()
    y = flipped_and_cropped(x, Drawn(mirror, [top, left]), pad)
    assert y.dtype == np.uint8 and y.tolist() == all_moved(x, mirror, top, left, pad)
    assert np.array_equal(x, before) and not np.shares_memory(x, y)


def test_the_draws_are_the_documented_ones_and_uniform():
    n = 16200
    x = np.random.default_rng(1).integers(1, 256, size=(n, 1, 2, 3), dtype=np.uint8)
    y = flipped_and_cropped(x, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    mirror, (top, left) = rng.integers(2, size=n), rng.integers(9, size=(2, n))
    assert y.tolist() == all_moved(x, mirror.tolist(), top, left, 4)
    counts = np.bincount(81 * mirror + 9 * top + left, minlength=162)
    assert np.sum((counts - 100) ** 2 / 100) < 230      # χ² of 161 degrees: 99.97% are below


@pytest.mark.parametrize("n", [0, 1])
def test_a_batch_of_one_image_or_none_keeps_its_shape(n):
    x = np.ones((n, 3, 32, 32), np.uint8)
    assert cifar.augment(x, np.random.default_rng(0)).shape == (n, 3, 32, 32)
    assert cifar.prepare(x).shape == (n, 3, 32, 32)


def test_prepare_is_the_normalisation_of_every_pixel_value_in_every_channel():
    x = np.zeros((2, 3, 32, 32), np.uint8)
    x[:, :, :16] = np.arange(512).reshape(16, 32) % 256
    y = cifar.prepare(x)
    assert y.dtype == np.float32 and y.shape == x.shape
    for c in range(3):
        for i in range(16):
            for j in range(32):
                exact = (Fraction(32 * i + j) % 256 / 255 - Fraction(MEAN[c])) / Fraction(STD[c])
                assert abs(float(y[1, c, i, j]) - exact) < 1e-6
    assert np.array_equal(y[0], y[1])


def test_a_mean_and_a_deviation_belong_to_their_channel():
    x = np.full((1, 2, 1, 1), 255, np.uint8)
    y = normalised(x, (0.5, 0.0), (0.25, 1.0))
    np.testing.assert_allclose(y.ravel(), [2.0, 1.0], rtol=1e-6)


def test_augment_is_prepare_of_the_moved_images_and_a_black_frame_is_black():
    x = np.random.default_rng(2).integers(256, size=(8, 3, 32, 32), dtype=np.uint8)
    y = cifar.augment(x, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    mirror, (top, left) = rng.integers(2, size=8), rng.integers(9, size=(2, 8))
    expected = np.array(all_moved(x, mirror.tolist(), top, left, 4), np.float64)
    for c in range(3):
        exact = (expected[:, c] / 255 - float(MEAN[c])) / float(STD[c])
        np.testing.assert_allclose(y[:, c], exact, rtol=0, atol=1e-6)
    assert y.dtype == np.float32


def test_flattened_images_are_prepared_and_augmented_as_images():
    x = np.random.default_rng(4).integers(256, size=(5, 3, 32, 32), dtype=np.uint8)
    flat = x.reshape(5, 3072)
    assert np.array_equal(cifar.prepare(flat), cifar.prepare(x).reshape(5, 3072))
    assert np.array_equal(cifar.augment(flat, np.random.default_rng(0)),
                          cifar.augment(x, np.random.default_rng(0)).reshape(5, 3072))


@pytest.mark.parametrize("shape", [(3, 32, 32), (3072,)])
def test_images_on_a_device_are_prepared_and_augmented_there_to_the_same_bits(shape):
    place = array_api_strict.Device("device1")      # no NumPy call can read an array there
    x = np.random.default_rng(6).integers(256, size=(7, *shape), dtype=np.uint8)
    there = array_api_strict.asarray(x, device=place)
    for expected, found in (
            (cifar.prepare(x), cifar.prepare(there)),
            (cifar.augment(x, np.random.default_rng(0)),
             cifar.augment(there, np.random.default_rng(0)))):
        assert found.device == place
        np.testing.assert_array_equal(
            np.asarray(found.to_device(array_api_strict.Device("CPU_DEVICE"))), expected,
            strict=True)
