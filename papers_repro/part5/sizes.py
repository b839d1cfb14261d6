"""How large packed files are: accounted bits, the file, and positions beside other codes.

    python papers_repro/part5/sizes.py [--data-dir DIR] [--out DIR]

Reference nets are compressed directly, with corrections and factors in float32 and in float16, and
packed; the models that lenet300/run.py learned and kept are measured as they are. VGG16 has no
published weights here: its initial ones stand in, so its row is about sizes and not about errors.
Rows that the results already hold are not made again. Exit status 1 where a file is larger than
its accounted bits by more than 2% and 2 KiB.
"""

import argparse
import datetime
import functools
import json
import math
import os
import platform
import sys
from pathlib import Path

import numpy as np
import scipy
from scipy.special import gammaln
from tqdm import tqdm

import lcref
from lcref import Task, data, lc, nets, parse, storage
from lcref.parts import FULL_BITS, position_code

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import machine  # noqa: E402

RESULTS = Path(__file__).parent / "results"
LEARNED = Path(__file__).parent / "lenet300" / "results"    # models that lenet300/run.py learned

NETS = {  # the net, and its reference weights
    "lenet300": (("lenet300", 784, 10, "tanh"), "lenet300_mnist.npz"),
    "resnet20": (("resnet20", (3, 32, 32), 10, None), "resnet20_cifar10.npz"),
    "resnet32": (("resnet32", (3, 32, 32), 10, None), "resnet32_cifar10.npz"),
    "vgg16, initial weights": (("vgg16", (3, 32, 32), 10, None), None),
}
ONE_BIT, LOW_RANK = "each(quantize(k=2)) + prune(keep=0.03)", "lowrank(rank=2) + prune(keep=0.02)"
MORE = [f"each(quantize(k=2)) + prune(keep={keep})" for keep in (0.01, 0.05)] + ["prune(keep=0.05)"]
SHORT = f"sum({LOW_RANK.replace(' +', ',')}, cycles=3)"  # of 15 million weights: sizes are the same


def rows():
    """Pairs of a net's name and a text."""
    for name in NETS:
        large = name.startswith("vgg16")
        for text in (ONE_BIT, SHORT if large else LOW_RANK, *([] if large else MORE)):
            for width in ("float32", "float16"):
                yield name, str(storage.with_storage(parse(text), width))


def packed(name, text, data_dir):
    """The file of a net that is compressed directly."""
    how, weights = NETS[name]
    net = nets.build(*how)
    params = (net.init(np.random.default_rng(0)) if weights is None else
              nets.read_params(os.path.join(data_dir, "weights", weights), net))
    tasks = [Task(tuple(net.weights), parse(text))]
    thetas, _ = lc.direct_compression(params, tasks)
    return storage.pack(params, tasks, thetas, {
        "net": {"name": net.name, "input_shape": list(net.input_shape), "classes": net.classes,
                "activation": net.activation},
        "data": about("mnist" if net.name == "lenet300" else "cifar10", data_dir)})


@functools.cache
def about(name, data_dir):
    """What lcref compress says of a data set."""
    return {"name": name, "preprocessing": data.load(name, data_dir).preprocessing}


def measure(file):
    """The sizes of a packed file, from its bytes; in bits but for the ratios."""
    model = storage.unpack(file)
    full = FULL_BITS * sum(map(math.prod, model.shapes.values()))
    bits, stored = model.bits(), 8 * len(file)
    limit = 1.02 * bits + 8 * 2048
    found = {"date": datetime.date.today().isoformat(), "accounted": bits, "file": stored,
             "allowed": limit, "within": stored <= limit, "ratio, accounted": full / bits,
             "ratio, file": full / stored}
    sparse = [part for theta in model.thetas.values()
              for part in getattr(theta, "parts", (theta,)) if hasattr(part, "indices")]
    return found | (positions(sparse[0], model.tasks[0], model.shapes) if sparse else {})


def positions(part, task, shapes):
    """Bits a correction for its position, as coded and by other codes.

    The entropy is log2 of the number of ways to choose κ of n positions, of all of them or layer by
    layer: no code that knows only these counts needs fewer on average over all ways.
    """
    starts = np.cumsum([0, *(math.prod(shapes[name]) for name in task.names)])
    counts = np.diff(np.searchsorted(part.indices, starts))
    kappa, n = len(part.indices), int(starts[-1])
    b, codes = position_code(part.indices)
    gaps = np.diff(np.sort(np.random.default_rng(0).choice(n, kappa, replace=False)), prepend=-1)
    return {"corrections": kappa, "bits a code": b, "fillers": codes - kappa,
            "delta code": b * codes / kappa,
            "entropy": float(log2_choose(n, kappa)) / kappa,
            "entropy by layer": float(np.sum(log2_choose(np.diff(starts), counts))) / kappa,
            "bitmap": n / kappa, "plain index": (n - 1).bit_length(),
            "delta code, random positions": math.prod(position_code(np.cumsum(gaps) - 1)) / kappa}


def log2_choose(n, k):
    return (gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)) / math.log(2)


def run(file, data_dir):
    """Make the rows that the file does not hold for these versions, and save after each."""
    versions = {module.__name__: module.__version__ for module in (lcref, np, scipy)}
    made_by = {"command": "python papers_repro/part5/sizes.py", "machine": machine(),
               "versions": {"python": platform.python_version(), **versions}}
    old = json.loads(file.read_text()) if file.exists() else {}
    results = {**made_by, "rows": old["rows"] if made_by.items() <= old.items() else {}}
    kept = {f"learned, lenet300-{path.parent.name}": path
            for path in sorted(LEARNED.glob("*-float16/model.npz"))}
    for name, text in tqdm(list(rows()), unit="row"):
        if f"{name}: {text}" not in results["rows"]:
            results["rows"][f"{name}: {text}"] = measure(packed(name, text, data_dir))
            file.write_text(json.dumps(results, indent=1) + "\n")
    for name, path in kept.items():
        text = "; ".join(str(task.compression) for task in storage.load(path).tasks)
        results["rows"][f"{name}: {text}"] = measure(path.read_bytes())
    file.write_text(json.dumps(results, indent=1) + "\n")
    return results


def tables(results):
    """The results in Markdown: the sizes, then the positions."""
    sizes = [["net", "compression", "accounted, bytes", "file, bytes", "more", "allowed", "ratio",
              "ratio by file"], ["---"] * 8]
    coded = [["net", "compression", "κ", "b", "fillers", "delta code", "of random positions",
              "entropy", "entropy by layer", "bitmap", "plain index"], ["---"] * 11]
    for name, row in results["rows"].items():
        net, text = name.split(": ", 1)
        accounted, file = -(-row["accounted"] // 8), row["file"] // 8
        sizes.append([net, f"`{text}`", f"{accounted:,}", f"{file:,}", f"{file - accounted:,}",
                      f"{row['allowed'] / 8 - accounted:,.0f}", f"{row['ratio, accounted']:.2f}",
                      f"{row['ratio, file']:.2f}"])
        if "corrections" in row and ("float16" not in text or net.startswith("learned")):
            coded.append([net, f"`{text}`", f"{row['corrections']:,}", str(row["bits a code"]),
                          f"{row['fillers']:,}", *(f"{row[key]:.2f}" for key in (
                              "delta code", "delta code, random positions", "entropy",
                              "entropy by layer", "bitmap")), str(row["plain index"])])
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    dates = sorted({row["date"] for row in results["rows"].values()})
    head = (f"`{results['command']}`, {' to '.join(sorted({dates[0], dates[-1]}))}, "
            f"{results['machine']['processor']}, {versions}.")
    lines = ["".join(f"| {' | '.join(row)} |\n" for row in rows) for rows in (sizes, coded)]
    return f"{head}\n\n{lines[0]}\nPositions, in bits a correction:\n\n{lines[1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data_dir = os.environ.get("LCREF_DATA")
    parser.add_argument("--data-dir", default=data_dir, required=not data_dir, help="folder with "
                        "weights/ (default: the environment variable LCREF_DATA)")
    parser.add_argument("--out", type=Path, default=RESULTS / "sizes", help="the folder to write")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = run(args.out / "result.json", args.data_dir)
    (args.out / "table.md").write_text(tables(results))
    over = [name for name, row in results["rows"].items() if not row["within"]]
    print(f"{args.out}: {len(results['rows'])} files, over the limit: {', '.join(over) or 'none'}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
