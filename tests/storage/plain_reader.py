"""A reader of the packed file that shares no code with the package: plain Python, bit after bit.

It checks nothing and is slow. Beside every number it gives the room that the unspecified order of
summation in a product of factors leaves; the room of everything else is 0, and it is exact.
"""

import io
import json
import math
import struct

import numpy as np

U = 2.0**-23


def single(x):
    """x rounded to float32; sums and products of two float32 are then rounded but once."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def members(data):
    """(header, payload) of the bytes of a file."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        assert sorted(archive.files) == ["header", "payload"]
        return json.loads(bytes(archive["header"])), bytes(archive["payload"])


def flat(tree, before=""):
    """[(name, shape)] of the nested names."""
    found = []
    for name, value in [(name, value) for names, value in tree.items()
                        for name in names.split(",")]:
        if isinstance(value, dict):
            found += flat(value, f"{before}{name}.")
        else:
            found.append((before + name, [value] if isinstance(value, int) else value))
    return found


class Bytes:
    """The payload from its start to its end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def floats(self, count, dtype):
        width, letter = {"float32": (4, "f"), "float16": (2, "e"), "bfloat16": (2, "H")}[dtype]
        values = struct.unpack_from(f"<{count}{letter}", self.data, self.at)
        self.at += width * count
        if dtype == "bfloat16":  # the upper half of a float32
            values = [struct.unpack("<f", struct.pack("<I", word << 16))[0] for word in values]
        return list(values)

    def codes(self, count, bits):
        """Codes of some bits each, the highest first; then zeros up to a whole byte."""
        found, bit = [], 8 * self.at
        for _ in range(count):
            code = 0
            for _ in range(bits):
                code = 2 * code + (self.data[bit // 8] >> (7 - bit % 8) & 1)
                bit += 1
            found.append(code)
        while bit % 8:
            assert not self.data[bit // 8] >> (7 - bit % 8) & 1
            bit += 1
        self.at = bit // 8
        return found


def codebook(record, shapes, stream, storage):
    n = sum(map(math.prod, shapes))
    if record["codebook"] == "free":
        entries = stream.floats(record["k"], "float32")
    elif record["codebook"] == "fixed":
        entries = [single(level) for level in record["levels"]]
    else:
        levels = record["levels"]
        (largest,) = stream.floats(1, "float32") if levels else [0.0]
        top = max(levels, key=abs, default=0.0)  # the first of two
        entries = [single(largest / top * c) if top else largest for c in levels]
    bits = 0  # ⌈log2 k⌉
    while 2**bits < len(entries):
        bits += 1
    return [entries[code] for code in stream.codes(n, bits)], [0.0] * n


def sparse(record, shapes, stream, storage):
    m, b, axis = record["sparse"], record["bits"], record.get("axis")
    if axis is None:
        before, along, after = 1, sum(map(math.prod, shapes)), 1
    else:
        (shape,) = shapes
        before, along, after = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1:])
    values = stream.floats(before * m * after, storage)
    dense, j, at = [0.0] * (before * along * after), 0, 0
    for code in stream.codes(record["codes"], b):
        at += code
        if code < 2**b - 1:
            for i in range(before):
                for k in range(after):
                    dense[(i * along + at) * after + k] = values[(i * m + j) * after + k]
            j, at = j + 1, at + 1
    assert j == m
    return dense, [0.0] * len(dense)


def low_rank(record, shapes, stream, storage):
    (shape,), r = shapes, record["low rank"]
    out, inputs, height, width = shape if len(shape) == 4 else (*shape, 1, 1)
    by_height = record["scheme"] == 2  # rows (out, h) and columns (in, w)
    rows = out * height if by_height else out
    columns = inputs * width if by_height else inputs * height * width
    left, right = stream.floats(rows * r, storage), stream.floats(r * columns, storage)
    dense, room = [], []
    for o in range(out):
        for i in range(inputs):
            for h in range(height):
                for v in range(width):
                    row, column = ((o * height + h, i * width + v) if by_height else
                                   (o, (i * height + h) * width + v))
                    terms = [left[row * r + j] * right[j * columns + column] for j in range(r)]
                    dense.append(single(math.fsum(terms)))
                    room.append(r * U * math.fsum(map(abs, terms)) + 2.0**-149 * r)
    return dense, room


def full(record, shapes, stream, storage):
    n = sum(map(math.prod, shapes))
    return stream.floats(n, record["dense"]), [0.0] * n


def is_zero(record):
    """No values or rank 0, in all of it: such parts are left out of a sum."""
    if "sum" in record or "each" in record:
        return all(map(is_zero, record.get("sum", []) + record.get("each", [])))
    return record.get("sparse") == 0 or record.get("low rank") == 0


def each(record, shapes, stream, storage):
    records = record["each"] if len(record["each"]) > 1 else record["each"] * len(shapes)
    dense, room = [], []
    for one, shape in zip(records, shapes, strict=True):
        values, rooms = read(one, [shape], stream, storage)
        dense, room = dense + values, room + rooms
    return dense, room


def total(record, shapes, stream, storage):
    terms = [read(one, shapes, stream, storage) for one in record["sum"]]
    live = [term for term, one in zip(terms, record["sum"]) if not is_zero(one)] or terms[:1]
    dense, room = live[0]
    for values, rooms in live[1:]:
        dense = [single(a + b) for a, b in zip(dense, values, strict=True)]
        room = [r + s + (U * abs(x) if r + s else 0.0) for r, s, x in zip(room, rooms, dense)]
    return dense, room


READERS = {"codebook": codebook, "sparse": sparse, "low rank": low_rank, "dense": full,
           "each": each, "sum": total}


def read(record, shapes, stream, storage):
    """The values and the rooms of a record's tensors, end to end."""
    (kind,) = READERS.keys() & record.keys()
    return READERS[kind](record, shapes, stream, storage)


def dense(data):
    """{name: (float32 array, room)} of all tensors of a packed file, in order."""
    header, payload = members(data)
    assert header["format"] == 1
    tensors, stream, found = flat(header["tensors"]), Bytes(payload), {}
    for task in header["tasks"]:
        shapes = [tensors[j][1] for j in task["tensors"]]
        values, rooms = read(task["theta"], shapes, stream, header["storage"])
        for j, shape in zip(task["tensors"], shapes, strict=True):
            n = math.prod(shape)
            found[tensors[j][0]] = values[:n], rooms[:n]
            values, rooms = values[n:], rooms[n:]
        assert not values
    for name, shape in tensors:
        if name not in found:
            n = math.prod(shape)
            found[name] = stream.floats(n, "float32"), [0.0] * n
    assert stream.at == len(payload)
    return {name: tuple(np.array(column, dtype).reshape(shape) for column, dtype
                        in zip(found[name], (np.float32, np.float64))) for name, shape in tensors}
