"""A function under test whose arrays are on a device."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj

from ..devices import device, host
from ..parts import Part
from ..tree import placed

__all__ = ["OnDevice", "on_device"]


class OnDevice:
    """A function of arrays on a device as one of NumPy arrays: they are put there and back.

    What it writes to its arrays is written to those it was given, so that it is seen.
    """

    def __init__(self, fn: Callable, name: str):
        functools.update_wrapper(self, fn, updated=())
        self.fn, self.place = fn, device(name)

    def __call__(self, *arguments: Any) -> Any:
        self.place.use()    # in this thread
        there = [self.place.put(a) for a in arguments]
        answer = self.fn(*there)
        answer = _back(list(answer) if isinstance(answer, Iterator) else answer)
        for here, a in zip(arguments, there):
            if isinstance(here, np.ndarray):
                here[...] = host(a)
        return answer


def _back(answer):
    """An array, a part, or several, on the host; anything else as it is."""
    if isinstance(answer, Part):
        return placed(answer, host)
    if isinstance(answer, dict):
        return {name: _back(one) for name, one in answer.items()}
    if type(answer) in (list, tuple):
        return type(answer)(map(_back, answer))
    known = isinstance(answer, (np.ndarray, np.generic)) or not is_array_api_obj(answer)
    return answer if known else host(answer)


def on_device(fn: Callable, device: str) -> OnDevice:
    """A function to `check`, of arrays on a device and not of NumPy's.

    Parameters
    ----------
    fn : callable
        As of `check`; the arrays it is given are on the device. It may answer with such, with
        NumPy's, or with a part of lcref that holds either.
    device : str
        "cpu"; "cuda" or "cuda:N", a GPU, for CuPy arrays; or "strict", array_api_strict's second
        device.

    Returns
    -------
    OnDevice
        A function of NumPy arrays, with the signature of fn.

    Raises
    ------
    TypeError
        fn is not callable.
    ValueError
        There is no such device, or its package is not installed.
    """
    if not callable(fn):
        raise TypeError(f"fn must be a function, not {fn!r:.60}")
    return OnDevice(fn, device)
