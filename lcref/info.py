"""`lcref info` and `lcref export`: what a packed file holds, and its weights for other programs."""

import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import nets, storage
from .folder import naming
from .inference import by_tensor, dense_operations, operations, positions
from .nets.checkpoints import write_npz
from .parts import (FLOAT_BITS, FULL_BITS, ByTensor, Codebook, Dense, LowRank, Sparse, Sum, leaves,
                    position_code)

__all__ = ["net_of", "run_export", "run_info"]

LARGEST_INPUT = 1 << 20     # numbers in one input: a file could ask for any amount of memory


def net_of(model: storage.Model) -> nets.Net:
    """Return the net that a packed file is for, by name, checked against its tensors.

    Raises
    ------
    ValueError
        The file names no net, or one that lcref does not have, or has other tensors.
    """
    about = model.says("net")
    try:
        if not 0 < math.prod(about["input_shape"]) <= LARGEST_INPUT:
            raise ValueError(f"the file says that an input has the shape {about['input_shape']}")
        net = nets.build(about["name"], tuple(about["input_shape"]), about["classes"],
                         about["activation"])
    except (KeyError, TypeError):
        raise ValueError("the file does not say which of lcref's nets it holds") from None
    if dict(net.shapes) != model.shapes:
        raise ValueError(f"the file says that it holds {net.name}, but its tensors are others")
    return net


# ---- lcref info


def run_info(args) -> int:
    """lcref info: print the parts, bits and operations of a packed file."""
    model = storage.load(args.file)
    summary = _summary(model, args.file.stat().st_size)
    summary["file"] = str(args.file)
    if args.flops:
        _add_operations(summary, model)
    if args.json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
    if not args.quiet:
        print(_text(summary), file=sys.stderr if args.json else sys.stdout)
    return 0


def _summary(model, file_bytes):
    """What --json prints."""
    full = FULL_BITS * sum(map(math.prod, model.shapes.values()))
    bits = {width: model.bits(width) for width in FLOAT_BITS}
    tasks = [{"tensors": list(task.names), "compression": str(task.compression),
              "status": model.thetas[i].status,
              "gap": model.thetas[i].gap if math.isfinite(model.thetas[i].gap) else None}
             for i, task in enumerate(model.tasks)]
    layers, shared = _layers(model)
    ratio = {width: full / max(1, bits[width]) for width in bits}
    return {"bits": bits, "ratio": ratio | {"file": full / (8 * file_bytes)},
            "file_bytes": file_bytes,
            "storage": model.storage, "tasks": tasks, "layers": layers, "shared_bits": shared,
            **{key: model.says(key) for key in ("net", "data") if model.says(key)}}


def _layers(model):
    """A row for each tensor, in the net's order, and the bits of codebooks over several."""
    rows: dict[str, dict[str, Any]] = {
        name: {"name": name, "shape": list(shape), "weights": math.prod(shape), "parts": []}
        for name, shape in model.shapes.items()}
    shared = dict.fromkeys(FLOAT_BITS, 0)
    for i, task in enumerate(model.tasks):
        for name, what, bits in _parts(model.thetas[i], task.names):
            if name is None:
                shared = {width: shared[width] + bits[width] for width in bits}
            else:
                rows[name]["parts"].append({"part": what, "bits": bits})
    for row in rows.values():
        full = FULL_BITS * row["weights"]
        compressed = any(row["name"] in task.names for task in model.tasks)
        row["bits"] = {width: sum(part["bits"][width] for part in row["parts"])
                       if compressed else full for width in FLOAT_BITS}
    return list(rows.values()), shared


def _parts(theta, names):
    """Triples (tensor, what, bits by convention) of the parts; without a tensor what all share."""
    if isinstance(theta, ByTensor):
        return [row for name, part in zip(names, leaves(theta.parts))
                for row in _parts(part, (name,))]
    if isinstance(theta, Sum):
        return [row for part in theta.parts for row in _parts(part, names)]
    pieces = by_tensor(theta, names)
    if len(names) == 1:
        bits = [{width: theta.bits(width) for width in FLOAT_BITS}]
    else:
        bits = _shares(theta)
    rows = [(name, _what(piece), share) for (name, piece), share in zip(pieces.items(), bits)]
    left = {width: theta.bits(width) - sum(share[width] for share in bits) for width in FLOAT_BITS}
    return rows + ([(None, "codebook", left)] if any(left.values()) else [])


def _shares(theta):
    """The bits of each tensor of a part over several, without those of a codebook's entries.

    A correction's position counts in the tensor that it is in, from the correction before it.
    """
    starts, sizes = theta.layout.offsets, [math.prod(s) for s in theta.layout.shapes]
    if isinstance(theta, Sparse):
        b, _ = position_code(theta.indices)
        zeros = np.diff(theta.indices, prepend=-1) - 1
        coded = np.concatenate([[0], np.cumsum(b * (1 + zeros // max(1, 2**b - 1)))])
        ends = np.searchsorted(theta.indices, starts)
        return [{width: int((j - i) * bits + coded[j] - coded[i])
                 for width, bits in FLOAT_BITS.items()} for i, j in zip(ends, ends[1:])]
    each = theta.width if isinstance(theta, Dense) else (
        max(np.unique(theta.codes).size - 1, 0).bit_length())
    return [dict.fromkeys(FLOAT_BITS, n * each) for n in sizes]


def _what(part):
    """A part of one tensor in a few words."""
    if isinstance(part, Codebook):
        return f"{len(part.entries)} values" if part.stored == "free" else f"{part.stored} values"
    if isinstance(part, LowRank):
        return f"rank {part.left.shape[1]}"
    if isinstance(part, Dense):
        return f"{part.width}-bit floats"
    kept = len(part.indices)
    return f"{kept:,} nonzeros" if part.axis is None else f"{kept} slices"


def _add_operations(summary, model):
    """Multiplications and additions of every layer for one input, beside the dense product's."""
    times = positions(net_of(model))
    pieces = {name: part for i, task in enumerate(model.tasks)
              for name, part in by_tensor(model.thetas[i], task.names).items()}
    for row in summary["layers"]:
        if row["name"] not in times:
            continue
        n, shape = times[row["name"]], tuple(row["shape"])
        dense = dense_operations(shape)
        parts = operations(pieces[row["name"]], shape) if row["name"] in pieces else dense
        row["positions"] = n
        for label, counts in (("operations", parts), ("dense_operations", dense)):
            row[label] = dict(zip(("multiplications", "additions"), (n * c for c in counts)))


# ---- as text


def _text(summary):
    """The summary for people."""
    width, about = summary["storage"], summary.get("net", {})
    other = next(w for w in FLOAT_BITS if w != width)
    data = summary.get("data", {}).get("name", "data of its own")
    rows = [f"{about.get('name', 'a net')} on {data}; corrections and factors in {width}"]
    for task in summary["tasks"]:
        gap = f", at most {task['gap']:.3g} above the optimum" if task["gap"] else ""
        rows.append(f"{_few(task['tensors'])}: {task['compression']} (last C step: "
                    f"{task['status']}{gap})")
    rows += ["", *_table(summary, width), ""]
    bits, ratio, stored = summary["bits"], summary["ratio"], summary["file_bytes"]
    rows += [f"{bits[width]:,} bits, {-(-bits[width] // 8):,} bytes; the file has {stored:,} bytes",
             f"ratio {ratio[width]:.2f} as stored, {ratio['file']:.2f} by the file's size; "
             f"{ratio[other]:.2f} were corrections and factors counted in {other}"]
    if any("operations" in row for row in summary["layers"]):
        rows += ["", *_operations_table(summary["layers"])]
    return "\n".join(rows)


def _few(names):
    return ", ".join(names) if len(names) < 5 else f"{names[0]}, .., {names[-1]} ({len(names)})"


def _table(summary, width):
    """A row for each compressed tensor, and one for all the others."""
    rows = [("tensor", "shape", "weights", "bits", "a weight", "parts")]
    for row in summary["layers"]:
        if row["parts"]:
            rows.append((row["name"], "×".join(map(str, row["shape"])), f"{row['weights']:,}",
                         f"{row['bits'][width]:,}",
                         f"{row['bits'][width] / max(1, row['weights']):.2f}",
                         " + ".join(part["part"] for part in row["parts"])))
    rest = [row for row in summary["layers"] if not row["parts"]]
    rows.append((f"not compressed ({len(rest)})", "", f"{sum(r['weights'] for r in rest):,}",
                 f"{sum(r['bits'][width] for r in rest):,}", "", ""))
    if summary["shared_bits"][width]:
        rows.append(("codebooks of several", "", "", f"{summary['shared_bits'][width]:,}", "", ""))
    return _aligned(rows, "<>>>><")


def _operations_table(layers):
    """Multiplications and additions for one input: from the parts, dense, and their ratio."""
    kinds = ("multiplications", "additions")
    rows: list[tuple[str, ...]] = [("for one input", "positions", *kinds, "of dense", "of dense")]
    counted = [row for row in layers if "operations" in row]
    for row in [*counted, None]:
        each = counted if row is None else [row]
        sums = [[sum(r[label][kind] for r in each) for kind in kinds]
                for label in ("operations", "dense_operations")]
        rows.append(("in all" if row is None else row["name"],
                     "" if row is None else f"{row['positions']:,}", *(f"{n:,}" for n in sums[0]),
                     *(f"{n / max(1, d):.1%}" for n, d in zip(*sums))))
    return _aligned(rows, "<>>>>>")


def _aligned(rows, sides):
    """Rows of text with their columns under each other."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(f"{cell:{side}{width}}" for cell, side, width
                      in zip(row, sides, widths)).rstrip() for row in rows]


# ---- lcref export


def run_export(args) -> int:
    """lcref export: write the dense weights under their names."""
    params = storage.load(args.file).decompress()
    ending = ".safetensors" if args.to == "safetensors" else ".npz"
    out = args.out or args.file.with_name(f"{args.file.stem}-dense{ending}")
    if out.is_dir() or not out.parent.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file in it" if out.is_dir() else
                         f"--out {out}: there is no folder {out.parent}")
    if out.exists() and out.samefile(args.file):
        raise ValueError(f"--out {out} is the file to be read")
    with naming(out):
        write_npz(out, params) if args.to == "npz" else _write_safetensors(out, params)
    if args.json:
        print(json.dumps({"weights": str(out), "to": args.to, "tensors": len(params)}, indent=1))
    if not args.quiet:
        print(f"{len(params)} tensors written to {out}",
              file=sys.stderr if args.json else sys.stdout)
    return 0


def _write_safetensors(out, params):
    """The same in the format of safetensors, whole or not at all."""
    from safetensors.numpy import save

    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        Path(folder, "part").write_bytes(save({name: np.ascontiguousarray(array)
                                               for name, array in params.items()}))
        os.replace(Path(folder, "part"), out)
