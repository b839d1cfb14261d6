"""The parts in the payload of a packed file, as their records say: nothing is read unchecked."""
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..compressions import Compression, Each
from ..compressions import LowRank as LowRankText
from ..compressions import Sum as SumText
from ..parts import STATUSES, ByTensor, Codebook, Dense, Layout, LowRank, Sparse, Sum
from .model import CHUNK, DTYPES, scaled

MOST_PARTS = 10_000     # of the whole net


def whole(value: Any, what: str, most: int, least: int = 0) -> int:
    """The value, an integer in its range; a bool is none."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{what} must be an integer from {least} to {most}, not {value!r:.50}")
    return value


class Payload:
    """The payload, and how much of it has been read."""

    def __init__(self, data):
        self.data, self.at, self.parts, self.storage = np.frombuffer(data, np.uint8), 0, 0, ""

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
        """The next codes, in pieces of at most CHUNK; that they are there is checked at once."""
        raw, weights = self.take(-(-count * bits // 8)), 1 << np.arange(bits)[::-1]
        if count * bits % 8 and raw[-1] & (0xFF >> count * bits % 8):
            raise ValueError("the bits after the last code are not zero")
        chunks = ((min(CHUNK, count - i), raw[i * bits // 8:(i + CHUNK) * bits // 8 + 1])
                  for i in range(0, count, CHUNK))
        return (np.unpackbits(chunk)[:n * bits].reshape(n, bits) @ weights for n, chunk in chunks)

    def end(self):
        if self.at < self.data.size:
            raise ValueError("the payload is longer than the header says")


def decode(record: Any, compression: Compression, shapes: dict[str, tuple[int, ...]],
           payload: Payload) -> Any:
    """The part that a record and the next of the payload hold, over tensors of these shapes.

    The record has the structure that the compression gives its parts.
    """
    payload.parts += 1
    if payload.parts > MOST_PARTS:
        raise ValueError(f"the net has more than {MOST_PARTS} parts")
    inner = compression.inner if isinstance(compression, Each) else compression
    apart = isinstance(compression, (Each, LowRankText)) or getattr(inner, "axis", None) is not None
    if apart and len(shapes) > 1:
        return _decode_each(record, inner, shapes, payload)
    if isinstance(inner, SumText):
        part = _decode_sum(record, inner, shapes, payload)
    else:
        kind = next((kind for kind in DECODERS if kind in record), None)
        if kind is None:
            raise ValueError(f"unknown record {record!r:.80}")
        part = DECODERS[kind](record, shapes, payload)
    if "status" not in record:
        return part
    gap = math.inf if record["gap"] is None else record["gap"]
    if record["status"] not in STATUSES or type(gap) not in (int, float) or gap < 0:
        raise ValueError(f"no status and gap: {record['status']!r:.50}, {gap}")
    return dataclasses.replace(part, status=record["status"], gap=float(gap))


def _decode_each(record, compression, shapes, payload):
    records = record["each"] * (len(shapes) if len(record["each"]) == 1 else 1)
    if len(records) != len(shapes):
        raise ValueError(f"{len(records)} records for {len(shapes)} tensors")
    return ByTensor({name: decode(one, compression, {name: shape}, payload)
                     for one, (name, shape) in zip(records, shapes.items())})


def _decode_sum(record, compression, shapes, payload):
    if len(record["sum"]) != len(compression.terms):
        raise ValueError(f"{len(record['sum'])} records for {len(compression.terms)} parts")
    parts = tuple(decode(one, term, shapes, payload)
                  for one, term in zip(record["sum"], compression.terms))
    return Sum(parts, "exact", 0.0)


def _laid(shapes):
    """The shape of a part over tensors of these shapes, and its layout."""
    if len(shapes) == 1:
        return next(iter(shapes.values())), None
    return (sum(map(math.prod, shapes.values())),), Layout(tuple(shapes), tuple(shapes.values()))


def _decode_codebook(record, shapes, payload):
    (shape, layout), stored = _laid(shapes), record["codebook"]
    n, levels = math.prod(shape), None
    if stored == "free":
        entries = payload.floats((whole(record["k"], "k", n),), "float32")
    else:
        levels = _levels(record["levels"])
        if stored == "scaled":
            entries = scaled(payload.floats((min(len(levels), 1),), "float32"), levels)
        elif stored == "fixed":
            with np.errstate(over="ignore"):
                entries = np.array(levels, np.float32)
        else:
            raise ValueError(f"unknown codebook {stored!r:.50}")
    k = entries.size
    if k > n or n and not k or not np.all(np.isfinite(entries)):
        raise ValueError(f"a codebook of {k} entries for {n} weights, or one that is not finite")
    return Codebook(_codes(payload, n, k).reshape(shape), entries, stored, layout,
                    levels if stored == "scaled" else None)


def _levels(levels):
    if not isinstance(levels, list) or not all(type(level) in (int, float) for level in levels):
        raise ValueError("the levels of a codebook are no list of numbers")
    return tuple(map(float, levels))


def _codes(payload, n, k):
    """The codes of n weights, each of which is under k; with one entry no bits and no memory."""
    if k < 2:
        return np.broadcast_to(np.uint8(0), n)
    stream = payload.codes(n, (k - 1).bit_length())
    codes = np.zeros(n, np.uint8 if k <= 256 else np.int64)
    for i, chunk in enumerate(stream):
        if chunk.max(initial=0) >= k:
            raise ValueError(f"a code is beyond the {k} entries")
        codes[i * CHUNK:(i + 1) * CHUNK] = chunk
    if np.unique(codes).size < k:
        raise ValueError("an entry of a codebook is not used")
    return codes


def _decode_sparse(record, shapes, payload):
    shape, layout = _laid(shapes)
    axis, sides = record.get("axis"), (math.prod(shape),)
    if axis is not None:
        if layout:
            raise ValueError("slices of several tensors")
        axis, sides = whole(axis, "axis", len(shape) - 1), shape
    n = sides[axis or 0]
    count = whole(record["sparse"], "the number of values", n)
    sides = (*sides[:axis or 0], count, *sides[(axis or 0) + 1:])
    bits = whole(record["bits"], "the bits of a code", 34, least=min(count, 1))
    codes = whole(record["codes"], "the number of codes", count and count + n, least=count)
    values = payload.floats(sides, payload.storage)
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


def _decode_lowrank(record, shapes, payload):
    shape, layout = _laid(shapes)
    scheme = whole(record["scheme"], "scheme", 2, least=1)
    if layout or len(shape) < 2 or scheme == 2 and len(shape) != 4:
        raise ValueError("factors of what is not one matrix or convolution")
    rows, columns = shape[0], math.prod(shape[1:])
    if scheme == 2:
        rows, columns = shape[0] * shape[2], shape[1] * shape[3]
    rank = whole(record["low rank"], "a rank", min(rows, columns))
    left = payload.floats((rows, rank), payload.storage)
    return LowRank(left, payload.floats((rank, columns), payload.storage), shape, scheme)


def _decode_dense(record, shapes, payload):
    shape, layout = _laid(shapes)
    if record["dense"] not in DTYPES:
        raise ValueError(f"unknown dtype {record['dense']!r:.50}")
    values = payload.floats(shape, record["dense"])
    return Dense(values, layout, 32 if record["dense"] == "float32" else 16)


DECODERS: dict[str, Callable] = {"codebook": _decode_codebook, "sparse": _decode_sparse,
                                 "low rank": _decode_lowrank, "dense": _decode_dense}
