"""What a data set is, and the folder from which those that are not bundled are read."""
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ..inputs import NUMBERS, array_of, together
from .epochs import take

__all__ = ["Dataset"]

FIX = "give the folder by --data-dir (data_dir in Python) or in the variable LCREF_DATA"


def unchanged(x: Any) -> Any:
    """Return x: the `prepare` of data sets whose arrays are what a net is fed."""
    return x


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification problem: a training and a test set.

    Attributes
    ----------
    name : str
    x_train, x_test : arrays of shape (n, ...)
        float32, or the bytes of the original files where `prepare` makes float32 of them, or the
        names of files where it reads them.
    y_train, y_test : int64 arrays of shape (n,), with values 0 to classes − 1
    classes : int
    preprocessing : str
        How a net's input comes from the pixels of the original files.
    image : tuple of int
        (channels, height, width) of one input, also where x holds it flattened; () where the
        inputs are no images.
    prepare : callable
        prepare(x) is what a net is fed, a float32 array of x's shape, or of (n, *image) where x
        holds names, for rows x of x_train or x_test.
    augment : callable or None
        augment(x, rng) is the same after a random change, for batches of training; None where
        nothing is changed.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    preprocessing: str
    image: tuple[int, ...] = ()
    prepare: Callable[[Any], Any] = unchanged
    augment: Callable[[Any, np.random.Generator], Any] | None = None

    def __post_init__(self):
        for name in ("x_train", "x_test"):
            array_of(getattr(self, name), name, NUMBERS, range(1, 9))
        for name in ("y_train", "y_test"):
            array_of(getattr(self, name), name, "integral", (1,))
        together(self.x_train.shape[0] == self.y_train.shape[0], x_train=self.x_train,
                 y_train=self.y_train)
        together(self.x_test.shape[0] == self.y_test.shape[0], x_test=self.x_test,
                 y_test=self.y_test)
        together(self.x_test.shape[1:] == self.x_train.shape[1:], x_test=self.x_test,
                 x_train=self.x_train)

    @property
    def read_later(self) -> bool:
        """Whether x holds names of files, which `prepare` reads, and not the inputs themselves."""
        return bool(self.image) and math.prod(self.x_train.shape[1:]) != math.prod(self.image)

    def then(self, change: Callable[[Any], Any]) -> "Dataset":
        """Return this data set with a change to what `prepare` and `augment` return."""
        prepare, augment = self.prepare, self.augment
        return replace(self, prepare=lambda x: change(prepare(x)),
                       augment=augment and (lambda x, rng: change(augment(x, rng))))

    def sample(self, number: int) -> "Dataset":
        """Return this data set with so many rows of its training set, or all where it has fewer.

        Which rows those are depends on the numbers of rows alone, drawn without replacement.
        """
        n = self.x_train.shape[0]
        rows = np.sort(np.random.default_rng(0).choice(n, min(number, n), replace=False))
        return replace(self, x_train=take(self.x_train, rows), y_train=take(self.y_train, rows))

    def split(self, share: float) -> tuple["Dataset", "Dataset"]:
        """Hold out a share of the training set, on which to choose between nets.

        Which rows are held out depends on their number and the share alone, drawn without
        replacement; the order of the others stays.

        Parameters
        ----------
        share : float
            Of the rows, rounded to a whole number of them: at least one, and not all.

        Returns
        -------
        rest, held : Dataset
            This data set without the rows, and one whose test set they are.

        Raises
        ------
        ValueError
            The share leaves nothing on one side.
        """
        n = self.x_train.shape[0]
        number = round(share * n)
        if not 0 < number < n:
            raise ValueError(f"a share of {share:g} of {n} rows to hold out is {number} of them; "
                             "it must be at least one, and leave one")
        held = np.zeros(n, bool)
        held[np.random.default_rng(0).choice(n, number, replace=False)] = True
        return (replace(self, x_train=self.x_train[~held], y_train=self.y_train[~held]),
                replace(self, x_test=self.x_train[held], y_test=self.y_train[held]))

    def shaped(self, shape: tuple[int, ...]) -> "Dataset":
        """Return this data set with inputs of another shape, such as a net's input_shape.

        Parameters
        ----------
        shape : tuple of int
            Shape of one input; x_train and x_test get the shape (n, *shape), and are views. Where
            they hold names of files, what is read from those gets that shape.

        Raises
        ------
        ValueError
            An input has another number of values; the message names both shapes.
        """
        old = self.image if self.read_later else tuple(self.x_train.shape[1:])
        new = tuple(shape)
        if min(new, default=0) < 0 or math.prod(old) != math.prod(new):
            raise ValueError(f"the inputs of {self.name} have the shape {old}, {math.prod(old)} "
                             f"values each; the shape {new} has {math.prod(new)}")
        if self.read_later:
            return self if old == new else self.then(lambda x: _view(x, new))
        return replace(self, x_train=_view(self.x_train, new), x_test=_view(self.x_test, new))


def _view(x, shape):
    return array_namespace(x).reshape(x, (x.shape[0], *shape), copy=False)


def data_folder(title: str, data_dir: str | os.PathLike | None) -> Path:
    """Return the folder of the data sets, data_dir or else what LCREF_DATA names.

    Raises
    ------
    FileNotFoundError
        Neither is given; the message begins with the title of the data set.
    """
    root = data_dir if data_dir is not None else os.environ.get("LCREF_DATA")
    if not root:
        raise FileNotFoundError(f"{title} is not bundled: {FIX}")
    return Path(root)
