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
from lcref.data import Dataset, batches, load

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
    assert (data.name, data.classes, data.image) == ("mnist", 10, (1, 2, 2))
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


@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "fashion-mnist"])
@pytest.mark.parametrize("gzipped", [False, True])
def test_fashion_mnist_is_read_from_its_own_folders_as_mnist_is(tmp_path, folder, gzipped):
    def rename(name):
        return name + (".gz" if gzipped else "")

    write(tmp_path / folder, tiny_mnist(), rename, gzip.compress if gzipped else bytes)
    data = load("fashion-mnist", tmp_path)
    np.testing.assert_allclose(data.x_train, centred(TRAIN), rtol=0, atol=1e-7)
    np.testing.assert_allclose(data.x_test, centred(TEST), rtol=0, atol=1e-7)
    assert data.y_train.tolist() == [7, 0, 9] and data.y_test.tolist() == [1, 2]
    assert (data.name, data.classes, data.image) == ("fashion-mnist", 10, (1, 2, 2))
    assert data.preprocessing == "pixel / 255 minus the mean training image"


@pytest.mark.parametrize("folder", ["MNIST/raw", "."])
def test_the_files_of_mnist_are_not_taken_for_fashion_mnist(tmp_path, folder, monkeypatch):
    write(tmp_path / folder, tiny_mnist())
    load("mnist", tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        load("fashion-mnist", tmp_path)
    for words in ("train-images-idx3-ubyte", str(tmp_path / "FashionMNIST" / "raw"),
                  str(tmp_path / "fashion-mnist"), "--data-dir", "LCREF_DATA"):
        assert words in str(error.value)
    monkeypatch.delenv("LCREF_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="Fashion-MNIST is not bundled"):
        load("fashion-mnist")


def test_the_files_of_fashion_mnist_are_not_taken_for_mnist(tmp_path):
    write(tmp_path / "FashionMNIST" / "raw", tiny_mnist())
    write(tmp_path / "fashion-mnist", tiny_mnist())
    with pytest.raises(FileNotFoundError):
        load("mnist", tmp_path)


def test_a_damaged_file_of_fashion_mnist_is_named_with_its_folder(tmp_path):
    write(tmp_path / "fashion-mnist", tiny_mnist() | {"t10k-labels-idx1-ubyte": idx([1, 10], 2)})
    with pytest.raises(ValueError, match="fashion-mnist.t10k-labels-idx1-ubyte.* label 10"):
        load("fashion-mnist", tmp_path)


def test_an_unknown_data_set_is_an_error_that_lists_the_known_ones():
    known = "digits, mnist, fashion-mnist, cifar10, imagenet"
    with pytest.raises(ValueError, match=f"{known}; did you mean 'mnist'"):
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


@pytest.mark.mnist
@pytest.mark.skipif("LCREF_DATA" not in os.environ, reason="needs MNIST: set LCREF_DATA")
def test_files_of_mnist_s_size_in_the_folder_of_fashion_mnist_are_read_as_such(tmp_path):
    raw = Path(os.environ["LCREF_DATA"], "MNIST", "raw")
    (tmp_path / "fashion-mnist").mkdir()
    for path in raw.glob("*-ubyte*"):
        (tmp_path / "fashion-mnist" / path.name).symlink_to(path.resolve())
    data = load("fashion-mnist", tmp_path)
    assert data.x_train.shape == (60000, 784) and data.image == (1, 28, 28)
    opened = gzip.open if not (raw / "t10k-images-idx3-ubyte").is_file() else open
    ending = ".gz" if opened is gzip.open else ""
    with opened(raw / f"t10k-images-idx3-ubyte{ending}", "rb") as f:
        pixels = np.frombuffer(f.read()[16:], np.uint8).reshape(10000, 784).astype(np.float64)
    differences = 255 * (data.x_test.astype(np.float64) - data.x_test[0])
    np.testing.assert_allclose(differences, pixels - pixels[0], rtol=0, atol=1e-4)


# ----- Dataset ----------------------------------------------------------------------------------

def test_what_a_net_is_fed_of_the_digits_is_what_they_hold():
    data = load("digits")
    assert data.image == (1, 8, 8) and data.augment is None
    assert data.prepare(data.x_train) is data.x_train


def plain(x_train, x_test):
    labels = [np.zeros(len(x), np.int64) for x in (x_train, x_test)]
    return Dataset("plain", x_train, labels[0], x_test, labels[1], 2, "none")


def test_a_data_set_without_images_needs_no_more_than_its_arrays():
    data = plain(X := np.ones((3, 4), np.float32), X)
    assert (data.image, data.augment) == ((), None) and data.prepare(X) is X


@pytest.mark.parametrize("shape", [(3, 4), (2, 6), (12,), (1, 2, 2, 3), [4, 3]])
def test_a_shaped_data_set_has_views_of_the_same_values(shape):
    x_train, x_test = np.arange(60.0).reshape(5, 2, 6), np.arange(24.0).reshape(2, 2, 6)
    data = plain(x_train, x_test)
    other = data.shaped(shape)
    for old, new in ((x_train, other.x_train), (x_test, other.x_test)):
        assert new.shape == (len(old), *shape) and np.shares_memory(old, new)
        assert new.ravel().tolist() == old.ravel().tolist()
    assert (other.y_train is data.y_train) and other.name == "plain" and other.classes == 2
    assert data.x_train is x_train


def test_the_digits_as_images_are_the_rows_of_their_pixels():
    data = load("digits")
    shaped = data.shaped(data.image)
    assert shaped.x_train.shape == (1437, 1, 8, 8) and shaped.x_test.shape == (360, 1, 8, 8)
    assert shaped.x_train[5, 0, 3].tolist() == data.x_train[5, 24:32].tolist()
    assert shaped.image == (1, 8, 8)


@pytest.mark.parametrize("shape", [(28, 28), (63,), (), (-8, -8), (1, 8, 9)])
def test_a_shape_of_another_number_of_values_is_an_error_that_names_both(shape):
    with pytest.raises(ValueError) as error:
        load("digits").shaped(shape)
    assert "(64,)" in str(error.value) and str(shape) in str(error.value)


def test_an_empty_training_set_can_be_shaped():
    assert plain(np.ones((0, 6)), np.ones((2, 6))).shaped((2, 3)).x_train.shape == (0, 2, 3)


def test_batches_of_a_data_set_are_rows_with_their_labels():
    data = load("digits")
    rows = {row.tobytes(): label for row, label in zip(data.x_train, data.y_train.tolist())}
    for x, labels in batches(data.x_train, data.y_train, 256, np.random.default_rng(0)):
        assert [rows[row.tobytes()] for row in x] == labels.tolist()


# ---- a sample, and what is held out


@pytest.mark.parametrize("number, rows", [(100, 100), (1437, 1437), (5000, 1437)])
def test_a_sample_has_rows_of_the_training_set_each_at_most_once(number, rows):
    digits = load("digits")
    sample = digits.sample(number)
    places = {image.tobytes(): i for i, image in enumerate(digits.x_train)}
    drawn = [places[image.tobytes()] for image in sample.x_train]
    assert drawn == sorted(set(drawn)) and len(drawn) == rows
    assert sample.y_train.tolist() == digits.y_train[drawn].tolist()
    assert sample.x_test is digits.x_test
    assert (digits.sample(number).x_train == sample.x_train).all()


@pytest.mark.parametrize("share, number", [(0.1, 144), (0.5, 718), (0.0004, 1), (0.9995, 1436)])
def test_a_share_of_the_training_set_is_held_out_and_the_rest_keeps_its_order(share, number):
    digits = load("digits")     # 1,437 for training
    rest, held = digits.split(share)
    rows = {image.tobytes(): i for i, image in enumerate(digits.x_train)}
    assert len(rows) == len(digits.x_train)             # no two images are the same
    kept = [rows[image.tobytes()] for image in rest.x_train]
    out = [rows[image.tobytes()] for image in held.x_test]
    assert len(out) == number and sorted(kept + out) == list(range(1437)) and kept == sorted(kept)
    assert rest.y_train.tolist() == digits.y_train[kept].tolist()
    assert held.y_test.tolist() == digits.y_train[out].tolist()
    assert rest.x_test is digits.x_test and held.x_train is digits.x_train
    assert (digits.split(share)[1].x_test == held.x_test).all()


@pytest.mark.parametrize("share", [0.0, 1.0, 0.0003, 0.9999, 2.0, -0.5])
def test_a_share_that_leaves_one_side_empty_is_refused(share):
    with pytest.raises(ValueError, match="of 1437 rows to hold out"):
        load("digits").split(share)
