"""Data sets: the bundled handwritten digits, others where their files are at hand, and batches.

The file digits.npz is the UCI "Optical Recognition of Handwritten Digits" set (E. Alpaydin and
C. Kaynak, 1998), licence CC BY 4.0. Nothing is ever downloaded.
"""
import importlib.resources
import os
from collections.abc import Callable

import numpy as np

from ..inputs import did_you_mean
from .cifar import load_cifar10
from .dataset import Dataset
from .epochs import batches
from .idx import centred, load_fashion_mnist, load_mnist
from .imagenet import load_imagenet

__all__ = ["Dataset", "batches", "load"]

SPLIT_SEED = 2   # of the permutation that splits the digits; its last N_TEST are the test set
N_TEST = 360        # of the 1,797 digits


def load(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Return a data set, split into training and test set as published.

    - "digits", bundled: 1,797 images of 8 × 8 pixels, x = pixel / 16 − mean, where mean is the
      mean image of the training set. The rows are permuted by
      `numpy.random.default_rng(SPLIT_SEED).permutation(1797)`, SPLIT_SEED = 2; the last 360 are
      the test set, the 1,437 before them the training set. Source: UCI "Optical Recognition of
      Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, CC BY 4.0.
    - "mnist", from `data_dir`: x = pixel / 255 − mean. The four files may lie in MNIST/raw below
      the folder (torchvision's layout) or in the folder itself, be called
      train-images-idx3-ubyte or train-images.idx3-ubyte, and be gzipped (.gz) or not.
    - "fashion-mnist", the same for Fashion-MNIST, whose files have the same names: they are
      looked for in FashionMNIST/raw (torchvision's layout) and fashion-mnist below the folder.
    - "cifar10", from `data_dir`: x holds the bytes, (n, 3, 32, 32) in red, green, blue, and
      prepare(x) = (x / 255 − mean) / std with the mean 0.485, 0.456, 0.406 and the std 0.229,
      0.224, 0.225 of the channels; augment(x, rng) mirrors each image or not and moves it by up
      to 4 pixels first. Read are the batches for Python, data_batch_1 to 5 and test_batch, in
      cifar-10-batches-py below the folder or in the folder itself, or else the binary version,
      with the ending .bin, in cifar-10-batches-bin or in the folder itself.
    - "imagenet", from `data_dir`, or images of other classes laid out alike: train/CLASS/ and
      val/CLASS/ in imagenet below the folder or in the folder itself, with files that end in
      .JPEG, .jpg or .png, in capitals or not. Label i is the i-th folder by sorted name, as
      torchvision has it, which the weights of a trained net must agree with. x holds the names of
      the files, which are read when their batch is needed: in red, green and blue, shrunk or
      grown (bilinear, as Pillow does it) until the shorter side has 256 pixels, cut to the central
      227 × 227, which is what AlexNet takes, and normalised as CIFAR-10; for augment(x, rng) cut
      anywhere, uniformly, and mirrored or not. A batch is read in the threads of `nets.threads`.

    Parameters
    ----------
    name : "digits", "mnist", "fashion-mnist", "cifar10" or "imagenet"
    data_dir : path, optional
        Folder of the data sets that are not bundled; None is the environment variable LCREF_DATA.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        Unknown name; a file that is truncated, is of another kind or does not fit the others; a
        label that is not 0 to 9; a pickle that holds anything but what those of CIFAR-10 hold;
        classes of ImageNet that only one of train and val has, or that have no image.
        `prepare` raises it for a file that is damaged or no image, with its name.
    FileNotFoundError
        The files are not in the folder, or there is no folder.

    Notes
    -----
    MNIST and Fashion-MNIST take 220 MB of memory each, CIFAR-10 185 MB, ImageNet some 50 MB of
    names. The mean is computed in float64, the rest in float32.
    """
    if name not in LOADERS:
        raise ValueError(f"unknown data set {name!r}{did_you_mean(name, LOADERS)}")
    return LOADERS[name](data_dir)


def _load_digits(data_dir):
    with (importlib.resources.files("lcref.data") / "digits.npz").open("rb") as f:
        with np.load(f, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    train, test = order[:-N_TEST], order[-N_TEST:]
    return centred("digits", images[train], labels[train], images[test], labels[test], scale=16)


LOADERS: dict[str, Callable[..., Dataset]] = {
    "digits": _load_digits, "mnist": load_mnist, "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar10, "imagenet": load_imagenet,
}
