"""Data sets: the bundled handwritten digits, and MNIST where its files are at hand.

The file digits.npz is the UCI "Optical Recognition of Handwritten Digits" set (E. Alpaydin and
C. Kaynak, 1998), licence CC BY 4.0. Nothing is ever downloaded.
"""
import gzip
import importlib.resources
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..inputs import did_you_mean

__all__ = ["Dataset", "load"]

SPLIT_SEED = 2   # of the permutation that splits the digits; its last N_TEST are the test set
N_TEST = 360        # of the 1,797 digits

IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049     # 0x803: bytes, 3 axes; 0x801: bytes, 1 axis
MNIST_FILES = {
    "x_train": ("train-images", IMAGES_MAGIC), "y_train": ("train-labels", LABELS_MAGIC),
    "x_test": ("t10k-images", IMAGES_MAGIC), "y_test": ("t10k-labels", LABELS_MAGIC),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification problem: a training and a test set.

    Attributes
    ----------
    name : str
    x_train, x_test : float32 arrays of shape (n, features)
    y_train, y_test : int64 arrays of shape (n,), with values 0 to classes − 1
    classes : int
    preprocessing : str
        How x comes from the pixels of the original files.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    preprocessing: str


def load(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Return a data set, its inputs centred by the mean image of the training set.

    - "digits", bundled: 1,797 images of 8 × 8 pixels, x = pixel / 16 − mean. The rows are
      permuted by `numpy.random.default_rng(SPLIT_SEED).permutation(1797)`, SPLIT_SEED = 2;
      the last 360 are the test set, the 1,437 before them the training set. Source: UCI
      "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, CC BY 4.0.
    - "mnist", from `data_dir`: x = pixel / 255 − mean, train and test as published. The four
      files may lie in MNIST/raw below the folder (torchvision's layout) or in the folder itself,
      be called train-images-idx3-ubyte or train-images.idx3-ubyte, and be gzipped (.gz) or not.

    Parameters
    ----------
    name : "digits" or "mnist"
    data_dir : path, optional
        Folder of the data sets that are not bundled; None is the environment variable LCREF_DATA.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        Unknown name; a file that is truncated, is of another kind or does not fit the others.
    FileNotFoundError
        The files of MNIST are not in the folder, or there is no folder.

    Notes
    -----
    MNIST takes 220 MB of memory. The mean is computed in float64, the rest in float32.
    """
    if name not in LOADERS:
        raise ValueError(f"unknown data set {name!r}{did_you_mean(name, LOADERS)}")
    return LOADERS[name](data_dir)


def _centred(name, x_train, y_train, x_test, y_test, *, scale):
    """Return the Dataset with x = pixels / scale − mean, from images of bytes."""
    mean = (x_train.mean(axis=0, dtype=np.float64) / scale).astype(np.float32)

    def prepared(pixels):
        x = pixels.astype(np.float32)
        x /= scale
        x -= mean
        return x.reshape(len(x), -1)

    return Dataset(name, prepared(x_train), y_train.astype(np.int64),
                   prepared(x_test), y_test.astype(np.int64), classes=10,
                   preprocessing=f"pixel / {scale} minus the mean training image")


def _load_digits(data_dir):
    with (importlib.resources.files("lcref.data") / "digits.npz").open("rb") as f:
        with np.load(f, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    train, test = order[:-N_TEST], order[-N_TEST:]
    return _centred("digits", images[train], labels[train], images[test], labels[test], scale=16)


def _load_mnist(data_dir):
    paths = _find_mnist(data_dir)
    arrays = {key: _read_idx(paths[key], magic) for key, (_, magic) in MNIST_FILES.items()}
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if len(x) != len(y):
            raise ValueError(f"{paths[f'x_{part}']} holds {len(x)} images, "
                             f"{paths[f'y_{part}']} {len(y)} labels")
        if y.max() > 9:
            raise ValueError(f"{paths[f'y_{part}']} holds the label {y.max()}, the largest is 9")
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        sizes = [" × ".join(map(str, arrays[key].shape[1:])) for key in ("x_train", "x_test")]
        raise ValueError(f"{paths['x_train']} holds images of {sizes[0]} pixels, "
                         f"{paths['x_test']} of {sizes[1]}")
    return _centred("mnist", **arrays, scale=255)


def _find_mnist(data_dir):
    """Return the paths of the four files by their key in MNIST_FILES."""
    root = data_dir if data_dir is not None else os.environ.get("LCREF_DATA")
    fix = "give the folder by --data-dir (data_dir in Python) or in the variable LCREF_DATA"
    if not root:
        raise FileNotFoundError(f"MNIST is not bundled: {fix}")
    folders = [Path(root, "MNIST", "raw"), Path(root)]
    paths, missing = {}, []
    for key, (stem, magic) in MNIST_FILES.items():
        names = [f"{stem}{separator}idx{magic % 256}-ubyte{ending}"
                 for separator in "-." for ending in ("", ".gz")]
        found = [path for folder in folders for file in names if (path := folder / file).is_file()]
        if found:
            paths[key] = found[0]
        else:
            missing.append(names[0])
    if missing:
        raise FileNotFoundError(f"no {', '.join(missing)} in {folders[1]} or {folders[0]} (looked "
                                f"for .idx instead of -idx and a .gz ending too): {fix}")
    return paths


def _read_idx(path, magic):
    """Return the array of bytes in an IDX file: magic, the length of each axis, the data."""
    content = _read_bytes(path)
    axes = magic % 256
    offset = 4 * (1 + axes)
    if len(content) < offset:
        raise ValueError(f"{path} is truncated: {len(content)} bytes, its header has {offset}")
    found, *shape = (int(field) for field in np.frombuffer(content, ">u4", 1 + axes))
    if found != magic:
        raise ValueError(f"{path} is not the IDX file it should be: it starts with the number "
                         f"{found}, not {magic}")
    size = math.prod(shape)
    if size == 0 or len(content) - offset != size:
        raise ValueError(f"{path} is truncated or damaged: its header says "
                         f"{' × '.join(map(str, shape))} bytes of data, "
                         f"{len(content) - offset} follow")
    return np.frombuffer(content, np.uint8, offset=offset).reshape(shape)


def _read_bytes(path):
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as f:
            return f.read()
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is truncated or no gzip file: {error}") from error


LOADERS = {"digits": _load_digits, "mnist": _load_mnist}
