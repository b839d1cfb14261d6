"""Reading and writing the weights of nets."""
import os
import tempfile
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj

from ..inputs import NUMBERS, array_of, named_arrays, on_the_host
from ..tensors import read_npz, read_tensors
from .net import Net

__all__ = ["read_npz", "read_params", "read_tensors", "write_npz"]

PREFIX = "module."                      # of the names of a net inside PyTorch's DataParallel
COUNTERS = ".num_batches_tracked"       # of PyTorch's batch normalisation, which nothing needs


def read_params(file: str | PathLike, net: Net, dtype: Any = np.float32) -> dict[str, Any]:
    """Return the parameters of a net from an .npz or .safetensors file.

    PyTorch's names are taken as they are, without the "module." of a net that was trained in
    parallel and without the counters of batches.

    Parameters
    ----------
    file : path
    net : Net
    dtype : floating dtype of the result

    Returns
    -------
    dict of name to array, in the net's order

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is not of its kind, or not of this net: the message lists the names that are missing,
        those that are too many, and those whose shape, dtype or values are wrong.
    """
    tensors = {name: tensor for name, tensor in read_tensors(file).items()
               if not name.endswith(COUNTERS)}
    if tensors and all(name.startswith(PREFIX) for name in tensors):
        tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    try:
        net.check(tensors)
        with np.errstate(over="ignore"):
            params = {name: tensors[name].astype(dtype) for name in net.shapes}
        net.check(params)       # a float64 may overflow
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return params


def _writable(array, name):
    if isinstance(array, np.ndarray) or not hasattr(array, "__array__"):
        array_of(array, name, (*NUMBERS, "bool"))


def write_npz(file: str | PathLike, params: Mapping[str, Any]) -> None:
    """Write arrays by name, from any device, to an .npz file, whole or not at all.

    Parameters
    ----------
    file : path
    params : dict of name to array

    Raises
    ------
    OSError
        The folder does not exist or cannot be written to, or the disk is full.
    """
    named_arrays(params, "params", _writable)
    file = Path(file)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}-") as folder:
        part = Path(folder, "part")         # a file of one's own would be readable by nobody else
        with zipfile.ZipFile(part, "w") as archive:
            for name, array in params.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    array = on_the_host(array) if is_array_api_obj(array) else array
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
        os.replace(part, file)
