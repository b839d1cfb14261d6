"""Arrays by name: the readers of .npz and .safetensors files, which run nothing that they hold."""
import math
import warnings
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from . import storage

__all__ = ["read_npz", "read_tensors"]

HEADERS: dict[Any, Any] = {(1, 0): np.lib.format.read_array_header_1_0,
                           (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(file: str | PathLike) -> dict[str, Any]:
    """Return the arrays of an .npz file by name, such as a state dict saved from PyTorch.

    Parameters
    ----------
    file : path

    Returns
    -------
    dict of name to array

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file; it cannot be read; it is not an .npz file of plain arrays; two of
        its arrays have one name; an array is larger than what the file holds of it.
    """
    with _opened(file) as stream:
        try:
            with zipfile.ZipFile(stream) as archive, warnings.catch_warnings():
                warnings.simplefilter("ignore")     # of NumPy's on files of Python 2
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                twice = next((name for name in names if names.count(name) > 1), None)
                if twice is not None:
                    raise ValueError(f"it holds {twice!r} twice")
                return {name: _array(archive, info, name)
                        for name, info in zip(names, archive.infolist())}
        except Exception as error:      # damaged bytes make zipfile and NumPy raise almost anything
            raise ValueError(f"{file} is not an .npz file of plain arrays ({error}); of PyTorch, "
                             "save a state dict as .safetensors") from None


def _array(archive, info, name):
    """One array, for which no memory is taken before its size is seen to be the member's."""
    try:
        with archive.open(info) as stream:
            shape, _, dtype = HEADERS[np.lib.format.read_magic(stream)](stream)
            length = stream.tell() + math.prod(shape) * dtype.itemsize
        if dtype.hasobject or length != info.file_size:
            raise ValueError("pickled objects" if dtype.hasobject else
                             f"its header says {length} bytes, it has {info.file_size}")
        with archive.open(info) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:
        raise ValueError(f"{name}: {' '.join(str(error).split())}") from None


def _opened(file):
    """The file, open to be read."""
    try:
        return open(file, "rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {file}") from None
    except (OSError, ValueError) as error:      # ValueError: a name with a NUL in it
        raise ValueError(f"{file} cannot be read: {getattr(error, 'strerror', error)}") from None


def read_tensors(file: str | PathLike) -> dict[str, Any]:
    """Return the arrays of an .npz or .safetensors file by name; the ending says which it is.

    Of a packed file (`lcref.storage`) the tensors are decompressed.

    Parameters
    ----------
    file : path

    Returns
    -------
    dict of name to array

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file; it cannot be read; it is not of its kind, or is damaged.
    """
    if Path(file).suffix.lower() != ".safetensors":
        return storage.load(file).decompress() if storage.is_packed(file) else read_npz(file)
    from safetensors.numpy import load_file
    _opened(file).close()
    try:
        return load_file(file)
    except Exception as error:      # SafetensorError, and what NumPy raises where it lacks a dtype
        raise ValueError(f"{file} is not a .safetensors file of NumPy's dtypes: {error}") from None
