"""Reading the packed file, which may be hostile: every size and range is checked before its use."""
import dataclasses
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..compressions import Task
from ..parts import (FLOAT_BITS, STATUSES, ByTensor, Codebook, Dense, Layout, LowRank, Sparse, Sum)
from ..text import parse
from .model import CHUNK, DTYPES, FORMAT, Model, flat, scaled

LARGEST = 1 << 32   # bytes of the file, and of the decompressed net, up to which it is read
LONGEST_TEXT = 10_000
DAMAGED = (EOFError, OSError, RuntimeError, ValueError, OverflowError, MemoryError, TypeError,
           zipfile.BadZipFile, zlib.error)     # what zipfile raises on such files


def load(file: str | os.PathLike) -> Model:
    """Return what a packed file holds, after every size in it was checked.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file; it is not a packed file of this format, or is damaged.

    Notes
    -----
    Nothing in the file is executed. Memory is bounded by the sizes of the file and of the net that
    the header declares, at most 4 GiB.
    """
    path = Path(file)
    if not path.exists():
        raise FileNotFoundError(f"no file {file}")
    if not path.is_file() or path.stat().st_size > LARGEST:
        raise ValueError(f"{file} is not a file of at most {LARGEST} bytes")
    try:
        return unpack(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def is_packed(file: str | os.PathLike) -> bool:
    """Whether a file has the two members of a packed file."""
    try:
        with zipfile.ZipFile(file) as archive:
            return sorted(archive.namelist()) == ["header.npy", "payload.npy"]
    except DAMAGED:
        return False


def unpack(data: bytes) -> Model:
    """Return the Model of a packed file's bytes; `load` says what is checked."""
    try:
        header, payload = _members(data)
    except DAMAGED as error:
        raise ValueError(f"not a packed file, or a damaged one: {error}") from None
    try:
        header = json.loads(header)
        if header["format"] != FORMAT:
            raise ValueError(f"it has format {header['format']!r}, this version reads {FORMAT}")
        return _model(header, _Payload(payload))
    except KeyError as error:
        raise ValueError(f"damaged packed file: its header lacks {error}") from None
    except (ArithmeticError, AttributeError, MemoryError, RecursionError, TypeError,
            ValueError) as error:
        raise ValueError(f"damaged packed file: {error}") from None


def _members(data):
    """The bytes of the header and of the payload."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = {info.filename: info for info in archive.infolist()}
        if sorted(found) != ["header.npy", "payload.npy"] or len(archive.infolist()) > 2:
            raise ValueError("it does not hold a header and a payload")
        for info in found.values():
            if info.compress_type or info.file_size != info.compress_size > len(data):
                raise ValueError("a member is compressed, or larger than the file")
        return [_bytes_of(archive.read(found[f"{name}.npy"])) for name in ("header", "payload")]


def _bytes_of(member):
    """The content of an .npy file that is one row of bytes."""
    stream = io.BytesIO(member)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("a member is not an .npy file of version 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype != np.uint8 or shape != (len(member) - stream.tell(),):
        raise ValueError("a member is not a row of bytes")
    return member[stream.tell():]


def _model(header, payload):
    shapes = {name: _shape(name, shape) for name, shape in flat(header["tensors"]).items()}
    if 4 * sum(map(math.prod, shapes.values())) > LARGEST:
        raise ValueError(f"the net it declares has more than {LARGEST} bytes")
    if header["storage"] not in FLOAT_BITS or not isinstance(header["about"], dict):
        raise ValueError("its storage or what it is about is unknown")
    names, tasks, thetas = list(shapes), [], {}
    for i, task in enumerate(header["tasks"]):
        named = [names[_whole(j, "the number of a tensor", len(names) - 1)]
                 for j in task["tensors"]]
        if not isinstance(task["compress"], str) or len(task["compress"]) > LONGEST_TEXT:
            raise ValueError("the text of a compression is none, or too long")
        tasks.append(Task(tuple(named), parse(task["compress"])))
        thetas[i] = _decode(task["theta"], {name: shapes[name] for name in named}, payload,
                            header["storage"])
    taken = [name for task in tasks for name in task.names]
    if len(set(taken)) < len(taken):
        raise ValueError("two tasks share a tensor")
    rest = {name: payload.floats(shape, "float32") for name, shape in shapes.items()
            if name not in set(taken)}
    payload.end()
    return Model(shapes, rest, tuple(tasks), thetas, header["storage"], header["about"])


def _whole(value, what, most, least=0):
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{what} must be an integer from {least} to {most}, not {value!r:.50}")
    return value


def _shape(name, shape):
    sides = shape if isinstance(shape, list) else [shape]
    if len(sides) > 32:
        raise ValueError(f"{name:.50} has more than 32 axes")
    return tuple(_whole(side, f"a side of {name:.50}", LARGEST) for side in sides)


class _Payload:
    """The payload, and how much of it has been read."""

    def __init__(self, data):
        self.data, self.at = np.frombuffer(data, np.uint8), 0

    def take(self, count):
        """The next bytes; there must be as many."""
        if count > self.data.size - self.at:
            raise ValueError("the payload is shorter than the header says")
        self.at += count
        return self.data[self.at - count:self.at]

    def floats(self, shape, dtype):
        """The next numbers, in float32; all must be finite."""
        raw = self.take(math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize)
        values = raw.view(DTYPES[dtype])
        if dtype == "bfloat16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        values = values.astype(np.float32).reshape(shape)
        if not np.all(np.isfinite(values)):
            raise ValueError("a number in the payload is not finite")
        return values

    def codes(self, count, bits) -> Iterator[np.ndarray]:
        """The next codes, in pieces of at most CHUNK."""
        raw, weights = self.take(-(-count * bits // 8)), 1 << np.arange(bits)[::-1]
        for i in range(0, count, CHUNK):
            chunk = np.unpackbits(raw[i * bits // 8:(i + CHUNK) * bits // 8 + 1])
            n = min(CHUNK, count - i)
            yield chunk[:n * bits].reshape(n, bits) @ weights
        if count * bits % 8 and raw[-1] & (0xFF >> count * bits % 8):
            raise ValueError("the bits after the last code are not zero")

    def end(self):
        if self.at < self.data.size:
            raise ValueError("the payload is longer than the header says")


def _decode(record, shapes, payload, storage):
    """The part that a record and the next of the payload hold, over tensors of these shapes."""
    kind = next((kind for kind in DECODERS if kind in record), None)
    if kind is None:
        raise ValueError(f"unknown record {record!r:.80}")
    part = DECODERS[kind](record, shapes, payload, storage)
    if "status" not in record:
        return part
    gap = math.inf if record["gap"] is None else float(record["gap"])
    if record["status"] not in STATUSES or not gap >= 0:
        raise ValueError(f"no status and gap: {record['status']!r:.50}, {gap}")
    return dataclasses.replace(part, status=record["status"], gap=gap)


def _decode_each(record, shapes, payload, storage):
    records = record["each"] * (len(shapes) if len(record["each"]) == 1 else 1)
    if len(records) != len(shapes):
        raise ValueError(f"{len(records)} records for {len(shapes)} tensors")
    return ByTensor({name: _decode(one, {name: shape}, payload, storage)
                     for one, (name, shape) in zip(records, shapes.items())})


def _decode_sum(record, shapes, payload, storage):
    parts = tuple(_decode(one, shapes, payload, storage) for one in record["sum"])
    if not parts:
        raise ValueError("a sum of no parts")
    return Sum(parts, "exact", 0.0)


def _laid(shapes):
    """The shape of a part over tensors of these shapes, and its layout."""
    if len(shapes) == 1:
        return next(iter(shapes.values())), None
    return (sum(map(math.prod, shapes.values())),), Layout(tuple(shapes), tuple(shapes.values()))


def _decode_codebook(record, shapes, payload, storage):
    (shape, layout), stored = _laid(shapes), record["codebook"]
    n, levels = math.prod(shape), None
    if stored == "free":
        entries = payload.floats((_whole(record["k"], "k", n),), "float32")
    else:
        levels = tuple(map(float, record["levels"]))
        entries = np.array(levels, np.float32)
        if stored == "scaled":
            entries = scaled(payload.floats((min(len(levels), 1),), "float32"), levels)
        elif stored != "fixed":
            raise ValueError(f"unknown codebook {stored!r:.50}")
    k = entries.size
    if k > n or n and not k or not np.all(np.isfinite(entries)):
        raise ValueError(f"a codebook of {k} entries for {n} weights, or one that is not finite")
    codes = np.zeros(n, np.uint8 if k <= 256 else np.int64)
    if k > 1:
        for i, chunk in enumerate(payload.codes(n, (k - 1).bit_length())):
            if chunk.max(initial=0) >= k:
                raise ValueError(f"a code is beyond the {k} entries")
            codes[i * CHUNK:(i + 1) * CHUNK] = chunk
    if np.unique(codes).size < k:
        raise ValueError("an entry of a codebook is not used")
    return Codebook(codes.reshape(shape), entries, stored, layout,
                    levels if stored == "scaled" else None)


def _decode_sparse(record, shapes, payload, storage):
    shape, layout = _laid(shapes)
    axis = record.get("axis")
    if axis is not None and (layout or _whole(axis, "axis", len(shape) - 1) is None):
        raise ValueError("slices of several tensors")
    n = math.prod(shape) if axis is None else shape[axis]
    count = _whole(record["sparse"], "the number of values", n)
    sides = (count,) if axis is None else (*shape[:axis], count, *shape[axis + 1:])
    bits = _whole(record["bits"], "the bits of a code", 34, least=min(count, 1))
    codes = _whole(record["codes"], "the number of codes", count and count + n, least=count)
    values = payload.floats(sides, storage)
    return Sparse(_positions(payload.codes(codes, bits), count, bits, n), values, shape, layout,
                  axis)


def _positions(codes, count, bits, n):
    """The positions that delta codes give, all of them checked."""
    indices, filled, at, reserved = np.empty(count, np.int64), 0, 0, 2**bits - 1
    for chunk in codes:
        is_value = chunk != reserved
        ends = at + np.cumsum(chunk + is_value)
        found, at = ends[is_value] - 1, int(ends[-1])
        if at > n or found.size > count - filled:
            raise ValueError("a position is beyond the tensors, or there are too many")
        indices[filled:filled + found.size] = found
        filled += found.size
        last = bool(is_value[-1])
    if filled < count or count and not last:
        raise ValueError("the positions do not end with the last value")
    return indices


def _decode_lowrank(record, shapes, payload, storage):
    shape, layout = _laid(shapes)
    scheme = _whole(record["scheme"], "scheme", 2, least=1)
    if layout or len(shape) < 2 or scheme == 2 and len(shape) != 4:
        raise ValueError("factors of what is not one matrix or convolution")
    rows, columns = shape[0], math.prod(shape[1:])
    if scheme == 2:
        rows, columns = shape[0] * shape[2], shape[1] * shape[3]
    rank = _whole(record["low rank"], "a rank", min(rows, columns))
    left = payload.floats((rows, rank), storage)
    return LowRank(left, payload.floats((rank, columns), storage), shape, scheme)


def _decode_dense(record, shapes, payload, storage):
    shape, layout = _laid(shapes)
    if record["dense"] not in DTYPES:
        raise ValueError(f"unknown dtype {record['dense']!r:.50}")
    values = payload.floats(shape, record["dense"])
    return Dense(values, layout, 32 if record["dense"] == "float32" else 16)


DECODERS: dict[str, Callable] = {
    "each": _decode_each, "sum": _decode_sum, "codebook": _decode_codebook,
    "sparse": _decode_sparse, "low rank": _decode_lowrank, "dense": _decode_dense}
