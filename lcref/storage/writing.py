"""Writing the packed file: see `lcref.storage` for the format."""
import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..compressions import Task
from ..inputs import array_of, named_arrays, named_parts, on_the_host
from ..parts import (FLOAT_BITS, ByTensor, Codebook, Dense, LowRank, Part, Sparse, Sum, leaves,
                     position_code)
from .model import CHUNK, DTYPES, FORMAT, convention, flat, scaled, top
from .reading import unpack


def pack(params: Mapping[str, Any], tasks: Sequence[Task], thetas: Mapping[int, Part],
         about: Mapping[str, Any] | None = None) -> bytes:
    """Return the packed file of a compressed net.

    Parameters
    ----------
    params : dict of name to float32 array
        The net. Of the tensors of the tasks only the shapes are read.
    tasks : sequence of Task
    thetas : dict of int to Part
        θ of each task by its index, as `lcref.Result.thetas` holds them.
    about : dict, optional
        What else the header is to say, in JSON's types: "net", "data".

    Returns
    -------
    bytes
        The same for the same net.

    Raises
    ------
    ValueError
        A number would not survive: a tensor or part is not float32, or a task stores in float16
        what was not rounded to it. Or the net is beyond what `load` reads.

    Notes
    -----
    O(number of weights). The file is read once before it is returned.
    """
    named_arrays(params, "params", _packable)
    named_parts(thetas)
    tasks, names = tuple(tasks), list(params)
    held = convention(tasks)
    streams: list[bytes] = []
    records = [{"tensors": [names.index(name) for name in task.names],
                "compress": str(task.compression),
                "theta": _encode(thetas[i], FLOAT_BITS[held], streams)}
               for i, task in enumerate(tasks)]
    taken = {name for task in tasks for name in task.names}
    rest = {name: params[name] for name in names if name not in taken}
    named_arrays(rest, "params")
    streams += [_floats(array, "float32", name) for name, array in rest.items()]
    header = {"format": FORMAT, "about": dict(about or {}), "storage": held,
              "tensors": _nested({name: _sides(params[name].shape) for name in names}),
              "tasks": records}
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    return _read_back(_stored(header=text, payload=b"".join(streams)), tasks)


def _stored(**members):
    """The bytes of an .npz file of these bytes, not deflated."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            array = io.BytesIO()
            np.lib.format.write_array(array, np.frombuffer(content, np.uint8), (1, 0))
            info = zipfile.ZipInfo(f"{name}.npy")
            info.create_system = 3      # the same bytes from every system
            archive.writestr(info, array.getvalue())
    return file.getvalue()


def _packable(tensor, name):
    if "float" in str(getattr(tensor, "dtype", "float")):
        return array_of(tensor, name)
    raise ValueError(f"the packed file holds float32, {name} is {tensor.dtype}: cast it")


def _read_back(data, tasks):
    """The file, which must be readable and say which compressions it holds."""
    try:
        same = unpack(data).tasks == tasks
    except ValueError as error:
        raise ValueError(f"this net cannot be packed: {error}") from None
    if not same:
        raise ValueError("this net cannot be packed: the text of a compression reads back as "
                         "another, or is of a kind that has no text")
    return data


def _sides(shape):
    return shape[0] if len(shape) == 1 else list(shape)


def _nested(shapes):
    """{"fc1.weight": s} as {"fc1": {"weight": s}}, and neighbours that are alike under one key.

    Names stay whole where one leads to another, or where the net's order is not that of the tree.
    """
    if comma := next((name for name in shapes if "," in name), None):
        raise ValueError(f"a name with a comma cannot be packed: {comma!r}")
    tree: dict[str, Any] = {}
    for name, shape in shapes.items():
        at, (*path, last) = tree, name.split(".")
        for step in path:
            at = at.setdefault(step, {})
            if not isinstance(at, dict):
                return _merged(shapes)
        if last in at:
            return _merged(shapes)
        at[last] = shape
    merged = _merged(tree)
    return merged if list(flat(merged)) == list(shapes) else _merged(shapes)


def _merged(tree):
    """{"weight": s, "bias": s} as {"weight,bias": s}."""
    rows: list[tuple[list[str], Any]] = []
    for name, inner in tree.items():
        inner = _merged(inner) if isinstance(inner, dict) else inner
        if rows and json.dumps(rows[-1][1]) == json.dumps(inner):   # in the same order, too
            rows[-1][0].append(name)
        else:
            rows.append(([name], inner))
    return {",".join(names): inner for names, inner in rows}


def _floats(array, dtype, name="a part"):
    """The bytes of a float32 array as another dtype that holds its values."""
    array = on_the_host(array)
    if array.dtype != np.float32:
        raise ValueError(f"the packed file holds float32, {name} is {array.dtype}: cast the "
                         "weights before they are compressed")
    if dtype == "bfloat16":
        words = np.ascontiguousarray(array).view(np.uint32)
        narrow, exact = (words >> 16).astype("<u2"), not np.any(words & 0xFFFF)
    else:
        with np.errstate(over="ignore"):
            narrow = array.astype(DTYPES[dtype])
        exact = np.array_equal(narrow.astype(np.float32), array)
    if not exact:
        raise ValueError(f"values that are to be stored in {dtype} were not rounded to it")
    return narrow.tobytes()


def _encode(part, width, streams, claims=True):
    """The record of a part, with what its C step claims; its streams are appended."""
    if isinstance(part, ByTensor):
        records = [_encode(one, width, streams, claims) for one in leaves(part.parts)]
        return {"each": records[:1] if all(r == records[0] for r in records) else records}
    if isinstance(part, Sum):
        record: dict[str, Any] = {"sum": [_encode(one, width, streams, claims=False)
                                          for one in part.parts]}
    else:
        record, stream = ENCODERS[type(part)](part, f"float{width}")
        streams.append(stream)
    if claims and (part.status != "exact" or part.gap):
        record |= {"status": part.status, "gap": part.gap if math.isfinite(part.gap) else None}
    return record


def _encode_codebook(part, width):
    codes, entries = on_the_host(part.codes), on_the_host(part.entries)
    used = np.unique(codes)
    again = np.zeros(max(entries.size, 1), codes.dtype)
    again[used] = np.arange(used.size)
    entries, record = entries[used], {"codebook": part.stored}
    numbers = entries
    if part.stored == "free":
        record["k"] = used.size
    else:
        levels = np.asarray(entries if part.stored == "fixed" else part.levels, np.float64)
        record["levels"] = levels[... if part.stored == "fixed" else used].tolist()
        numbers = entries[:0]
    if part.stored == "scaled" and used.size:
        numbers = entries[[top(record["levels"])]]
        if not np.array_equal(scaled(numbers, record["levels"]), entries):
            raise ValueError("the entries of a scaled codebook are not multiples of its levels")
    bits = (used.size - 1).bit_length() if used.size else 0
    return record, _floats(numbers, "float32") + pack_codes(again[codes.ravel()], bits)


def _encode_sparse(part, width):
    indices = on_the_host(part.indices)
    bits, count = position_code(indices)
    zeros = np.diff(indices, prepend=-1) - 1
    filled = zeros // (2**bits - 1) if bits else zeros
    codes = np.full(count, 2**bits - 1, np.int64)
    codes[np.cumsum(filled + 1) - 1] = zeros - filled * (2**bits - 1)
    record = {"sparse": indices.size, "bits": bits, "codes": count}
    if part.axis is not None:
        record["axis"] = part.axis
    return record, _floats(part.values, width) + pack_codes(codes, bits)


def _encode_lowrank(part, width):
    return ({"low rank": part.left.shape[1], "scheme": part.scheme},
            _floats(part.left, width) + _floats(part.right, width))


def _encode_dense(part, width):
    if part.width == 32:
        return {"dense": "float32"}, _floats(part.values, "float32")
    try:
        return {"dense": "float16"}, _floats(part.values, "float16")
    except ValueError:
        return {"dense": "bfloat16"}, _floats(part.values, "bfloat16")


ENCODERS: dict[type, Callable] = {Codebook: _encode_codebook, Sparse: _encode_sparse,
                                  LowRank: _encode_lowrank, Dense: _encode_dense}


def pack_codes(codes: np.ndarray, bits: int) -> bytes:
    """Codes of some bits each, the highest bit first, filled with zeros up to a byte."""
    shifts = np.arange(bits)[::-1].astype(codes.dtype)
    return b"".join(np.packbits((codes[i:i + CHUNK, None] >> shifts) & 1).tobytes()
                    for i in range(0, codes.size, CHUNK)) if bits else b""
