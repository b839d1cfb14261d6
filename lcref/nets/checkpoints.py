"""Reading and writing the weights of nets."""
import zipfile
from os import PathLike
from typing import Any

import numpy as np

__all__ = ["read_npz"]


def read_npz(file: str | PathLike) -> dict[str, Any]:
    """Return the arrays of an .npz file by name, such as a state dict saved from PyTorch.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file; it is not an .npz file of plain arrays.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {file}") from None
    except (AttributeError, EOFError, OSError, TypeError, ValueError, zipfile.BadZipFile):
        raise ValueError(f"{file} is not an .npz file of plain arrays") from None
