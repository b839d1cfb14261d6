"""The data sets against the files they come from, written here byte by byte."""
import gzip
import io
import os
import struct
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import lcref.data
from lcref.data import load

TRAIN = [[0, 255, 51, 102], [255, 255, 0, 204], [0, 0, 0, 0]]
TEST = [[255, 0, 0, 51], [1, 2, 3, 4]]


def idx(values, *shape):
    """Return an IDX file of bytes with axes `shape`: magic 0x800 + axes, lengths, data."""
    return struct.pack(f">{1 + len(shape)}I", 0x800 + len(shape), *shape) + bytes(values)


def tiny_mnist():
    return {
        "train-images-idx3-ubyte": idx(sum(TRAIN, []), 3, 2, 2),
        "train-labels-idx1-ubyte": idx([7, 0, 9], 3),
        "t10k-images-idx3-ubyte": idx(sum(TEST, []), 2, 2, 2),
        "t10k-labels-idx1-ubyte": idx([1, 2], 2),
    }


def write(folder, files, rename=lambda name: name, pack=lambda content: content):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / rename(name)).write_bytes(pack(content))


def centred(rows):
    """The preprocessing in rational numbers: pixel / 255 minus the mean of TRAIN."""
    mean = [Fraction(sum(column), len(TRAIN)) for column in zip(*TRAIN)]
    return [[float((p - m) / 255) for p, m in zip(row, mean)] for row in rows]


@pytest.mark.parametrize("folder", ["MNIST/raw", "."])
@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("gzipped", [False, True])
def test_mnist_is_the_same_in_every_layout(tmp_path, folder, dotted, gzipped):
    def rename(name):
        return (name.replace("-idx", ".idx") if dotted else name) + (".gz" if gzipped else "")

    write(tmp_path / folder, tiny_mnist(), rename, gzip.compress if gzipped else bytes)
    data = load("mnist", tmp_path)
    assert data.x_train.dtype == data.x_test.dtype == np.float32
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    np.testing.assert_allclose(data.x_train, centred(TRAIN), rtol=0, atol=1e-7)
    np.testing.assert_allclose(data.x_test, centred(TEST), rtol=0, atol=1e-7)
    assert data.y_train.tolist() == [7, 0, 9] and data.y_test.tolist() == [1, 2]
    assert (data.name, data.classes) == ("mnist", 10)
    assert data.preprocessing == "pixel / 255 minus the mean training image"


def test_the_folder_of_mnist_comes_from_the_environment_unless_given(tmp_path, monkeypatch):
    write(tmp_path / "here", tiny_mnist())
    monkeypatch.setenv("LCREF_DATA", str(tmp_path / "here"))
    assert load("mnist").x_train.shape == (3, 4)
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        load("mnist", tmp_path / "elsewhere")


def test_a_folder_without_mnist_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    files = tiny_mnist()
    del files["t10k-labels-idx1-ubyte"]
    write(tmp_path, files)
    with pytest.raises(FileNotFoundError) as error:
        load("mnist", tmp_path)
    message = str(error.value)
    for word in (str(tmp_path), "t10k-labels-idx1-ubyte", "--data-dir", "LCREF_DATA"):
        assert word in message
    assert "train-images" not in message
    monkeypatch.delenv("LCREF_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="LCREF_DATA"):
        load("mnist")


@pytest.mark.parametrize("name, content, says", [
    ("train-images-idx3-ubyte", idx(sum(TRAIN, []), 3, 2, 2)[:-1], "3 × 2 × 2.* 11 follow"),
    ("train-images-idx3-ubyte", idx(sum(TRAIN, []), 3, 2, 2) + b"\0", "13 follow"),
    ("train-images-idx3-ubyte", b"\0\0\x08", "truncated: 3 bytes"),
    ("train-images-idx3-ubyte", idx([], 0, 2, 2), "0 × 2 × 2"),
    ("train-images-idx3-ubyte", idx([], 2**32 - 1, 2**32 - 1, 2**32 - 1), "0 follow"),
    ("t10k-labels-idx1-ubyte", idx([1, 2], 1, 1, 2), "2051, not 2049"),
    ("t10k-images-idx3-ubyte", b"<!DOCTYPE html><html>", "not 2051"),
    ("train-labels-idx1-ubyte", idx([7, 0], 2), "3 images.* 2 labels"),
    ("train-labels-idx1-ubyte", idx([7, 0, 10], 3), "label 10"),
    ("t10k-images-idx3-ubyte", idx(range(12), 2, 2, 3), "2 × 2 pixels.* 2 × 3"),
])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, name, content, says):
    write(tmp_path, tiny_mnist() | {name: content})
    with pytest.raises(ValueError, match=says) as error:
        load("mnist", tmp_path)
    assert name in str(error.value)


@pytest.mark.parametrize("pack", [
    lambda content: gzip.compress(content)[:-9],
    lambda content: gzip.compress(content)[:10] + b"\xff" * 20,
    lambda content: content,
])
def test_a_damaged_gzip_file_is_an_error_that_names_it(tmp_path, pack):
    write(tmp_path, tiny_mnist(), lambda name: name + ".gz", pack)
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz"):
        load("mnist", tmp_path)


def test_an_unknown_data_set_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="digits, mnist; did you mean 'mnist'"):
        load("MNISTT")


def bundled():
    """Images and labels as the file has them, read without lcref.data's code."""
    path = Path(lcref.data.__file__).parent / "digits.npz"
    with zipfile.ZipFile(path) as archive:
        return [np.load(io.BytesIO(archive.read(name + ".npy"))) for name in ("images", "labels")]


def test_the_digits_are_split_without_loss_by_the_documented_permutation():
    images, labels = bundled()
    data = load("digits")
    assert data.x_train.shape == (1437, 64) and data.x_test.shape == (360, 64)
    order = np.random.default_rng(2).permutation(1797)
    assert data.y_train.tolist() == labels[order[:1437]].tolist()
    assert data.y_test.tolist() == labels[order[1437:]].tolist()
    # 16 (x − x[0]) are differences of pixels: integers, whatever the mean
    rows = np.concatenate([data.x_train, data.x_test]).astype(np.float64)
    pixels = images.reshape(1797, 64)[order].astype(np.float64)
    np.testing.assert_allclose(16 * (rows - rows[0]), pixels - pixels[0], rtol=0, atol=1e-5)


def test_the_mean_training_digit_is_zero_and_the_mean_test_digit_is_not():
    data = load("digits")
    assert np.abs(data.x_train.mean(axis=0, dtype=np.float64)).max() < 1e-7
    assert np.abs(data.x_test.mean(axis=0, dtype=np.float64)).max() > 1e-3
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int64)
    assert set(data.y_train.tolist()) == set(data.y_test.tolist()) == set(range(10))


@pytest.mark.mnist
@pytest.mark.skipif("LCREF_DATA" not in os.environ, reason="needs MNIST: set LCREF_DATA")
def test_mnist_has_its_published_size_and_is_centred():
    data = load("mnist")
    assert data.x_train.shape == (60000, 784) and data.x_test.shape == (10000, 784)
    assert np.abs(data.x_train.mean(axis=0, dtype=np.float64)).max() < 1e-6
    assert data.y_test[:5].tolist() == [7, 2, 1, 0, 4]
