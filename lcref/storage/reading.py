"""Reading the packed file, which may be hostile: every size and range is checked before its use."""
import io
import json
import math
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..compressions import Task
from ..text import parse
from .decoding import Payload, decode, whole
from .model import FORMAT, Model, convention, flat

LARGEST = 1 << 32   # bytes of the file, and of the decompressed net, up to which it is read
LONGEST_TEXT = 10_000   # characters of a compression
MOST_CALLS = 64     # parentheses in it, and so parts in a sum
LONGEST_MESSAGE = 300
MEMBERS = ["header.npy", "payload.npy"]
DAMAGED = (EOFError, OSError, RuntimeError, ValueError, OverflowError, MemoryError, TypeError,
           zipfile.BadZipFile, zlib.error)     # what zipfile raises on such files


def load(file: str | os.PathLike) -> Model:
    """Return what a packed file holds, after every size in it was checked.

    Parameters
    ----------
    file : path

    Returns
    -------
    Model

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file; it is not a packed file of this format, or is damaged.

    Notes
    -----
    Nothing in the file is executed. Time and memory are bounded by the sizes of the file and of the
    net that the header declares, at most 4 GiB. Sums of finite parts may overflow: that is for
    whoever uses the weights to check.
    """
    path = Path(file)
    if not path.exists():
        raise FileNotFoundError(f"no file {file}")
    if not path.is_file():
        raise ValueError(f"{file} is not a file: name a packed one")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{file} has more than {LARGEST} bytes")
    try:
        return unpack(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def is_packed(file: str | os.PathLike) -> bool:
    """Whether a file has the two members of a packed file.

    Parameters
    ----------
    file : path

    Returns
    -------
    bool
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return sorted(archive.namelist()) == MEMBERS
    except DAMAGED:
        return False


def unpack(data: bytes) -> Model:
    """Return the Model of a packed file's bytes; `load` says what is checked.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    Model
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data must be the bytes of a file, not {type(data).__name__}")
    try:
        header, payload = _members(data)
    except DAMAGED as error:
        raise ValueError(f"not a packed file, or a damaged one: {_in_short(error)}") from None
    try:
        header = json.loads(header, parse_constant=_finite, parse_float=_finite,
                            object_pairs_hook=_distinct)
        _shallow(header)
        if type(header["format"]) is not int or header["format"] != FORMAT:
            raise ValueError(f"it has format {header['format']!r:.50}, this version reads {FORMAT}")
        return _model(header, Payload(payload))
    except KeyError as error:
        raise ValueError(f"damaged packed file: its header lacks {_in_short(error)}") from None
    except (ArithmeticError, AttributeError, IndexError, MemoryError, RecursionError, TypeError,
            ValueError) as error:
        raise ValueError(f"damaged packed file: {_in_short(error)}") from None


def _in_short(error):
    """The message of an error on one line that any terminal can show."""
    words = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)[:LONGEST_MESSAGE]


def _members(data):
    """The bytes of the header and of the payload."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = archive.infolist()
        if sorted(info.filename for info in found) != MEMBERS:
            raise ValueError("it does not hold a header and a payload")
        for info in found:
            if info.compress_type or info.file_size != info.compress_size or (
                    info.file_size > len(data)):
                raise ValueError("a member is compressed, or larger than the file")
        return [_bytes_of(archive.read(name)) for name in MEMBERS]


def _bytes_of(member):
    """The content of an .npy file that is one row of bytes.

    NumPy's header is compared and not read: its reader knows more than may be trusted.
    """
    head = io.BytesIO()
    length = max(0, len(member) - 128)
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (length,)})
    if not member.startswith(head.getvalue()) or len(head.getvalue()) != 128:
        raise ValueError("a member is not a row of bytes in an .npy file of version 1.0")
    return member[128:]


def _finite(text):
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.50} is no finite number")
    return number


def _distinct(pairs):
    """A JSON object, each key of which is there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key of the header is there twice")
    return found


def _shallow(value, levels=50):
    """Raise ValueError where lists and objects lie more than some levels deep in each other."""
    if levels == 0:
        raise ValueError("its header is too deep")
    inside = value.values() if isinstance(value, dict) else value
    for inner in inside if isinstance(value, (dict, list)) else ():
        _shallow(inner, levels - 1)


def _model(header, payload):
    shapes = {name: _shape(name, shape) for name, shape in flat(header["tensors"]).items()}
    if 4 * sum(math.prod(max(side, 1) for side in shape) for shape in shapes.values()) > LARGEST:
        raise ValueError(f"the net it declares has more than {LARGEST} bytes")
    tasks = [_task(task, list(shapes)) for task in header["tasks"]]
    taken = {name for task in tasks for name in task.names}
    if len(taken) < sum(len(task.names) for task in tasks):
        raise ValueError("two tasks share a tensor")
    if header["storage"] != convention(tasks) or not isinstance(header["about"], dict):
        raise ValueError("its storage is not that of its tasks, or what it is about is no object")
    payload.storage = header["storage"]
    thetas = {i: decode(record["theta"], task.compression,
                        {name: shapes[name] for name in task.names}, payload)
              for i, (record, task) in enumerate(zip(header["tasks"], tasks))}
    rest = {name: payload.floats(shape, "float32") for name, shape in shapes.items()
            if name not in taken}
    payload.end()
    return Model(shapes, rest, tuple(tasks), thetas, payload.storage, header["about"])


def _task(record, names):
    """The Task of a record, whose text reads back from what it is written as again."""
    text = record["compress"]
    if not isinstance(text, str) or len(text) > LONGEST_TEXT or text.count("(") > MOST_CALLS:
        raise ValueError("the text of a compression is none, or too long")
    task = Task(tuple(names[whole(i, "the number of a tensor", len(names) - 1)]
                      for i in record["tensors"]), parse(text))
    again = str(task.compression)
    if len(again) > LONGEST_TEXT or again.count("(") > MOST_CALLS:
        raise ValueError("the text of a compression is too long")
    return task


def _shape(name, shape):
    sides = shape if isinstance(shape, list) else [shape]
    if len(sides) > 32:
        raise ValueError(f"{name!r:.50} has more than 32 axes")
    return tuple(whole(side, f"a side of {name!r:.50}", LARGEST) for side in sides)
