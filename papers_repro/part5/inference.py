"""Time the product with a layer's weights from their parts, against the dense product.

    python papers_repro/part5/inference.py [--out DIR] [--threads N]

The layers are those of LeNet300, ResNet20, VGG16 and AlexNet, with random weights and inputs. A
product is timed at 1 and at 128 inputs, that of a convolution at 1 and at 16 images. All forms of
one layer take turns, and the median of the turns is kept. "dense" is the layer of the net, "dense
part" the same weights in the code that multiplies parts; the faster of these two is the measure.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import scipy
from tqdm import tqdm

import lcref
from lcref.inference import Weight, operations
from lcref.nets import threads
from lcref.nets.convolution import conv2d
from lcref.parts import Codebook, Dense, LowRank, Sparse, Sum

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import machine  # noqa: E402

RESULTS = Path(__file__).parent / "results"

LAYERS = {      # shape, height and width of the input (a convolution of 3 × 3 has padding 1)
    "LeNet300 fc1": ((300, 784), None),
    "LeNet300 fc2": ((100, 300), None),
    "ResNet20 layer1": ((16, 16, 3, 3), 32),
    "ResNet20 layer2": ((32, 32, 3, 3), 16),
    "ResNet20 layer3": ((64, 64, 3, 3), 8),
    "VGG16 features.3": ((64, 64, 3, 3), 32),
    "VGG16 features.17": ((256, 256, 3, 3), 8),
    "VGG16 features.40": ((512, 512, 3, 3), 2),
    "VGG16 classifier.1": ((512, 512), None),
    "AlexNet conv3": ((384, 256, 3, 3), 13),
    "AlexNet fc6": ((4096, 9216), None),
    "AlexNet fc8": ((1000, 4096), None),
}
TURNS, SECONDS = 15, 1.5   # at most so many turns, and of all forms of a layer so long together
FEWEST = 3


def codebook(rng, shape, k):
    """k values, the codes drawn evenly; for k = 2, ±a."""
    entries = np.array([-0.1, 0.1]) if k == 2 else np.sort(rng.normal(size=k))
    return Codebook(rng.integers(0, k, shape).astype(np.uint8), entries.astype(np.float32),
                    "scaled" if k == 2 else "free")


def sparse(rng, shape, keep):
    size = int(np.prod(shape))
    at = np.sort(rng.choice(size, int(size * keep), replace=False))
    return Sparse(at, rng.normal(size=at.size).astype(np.float32), shape)


def low_rank(rng, shape, rank, scheme=1):
    out, inputs, height, width = (*shape, 1, 1)[:4]
    rows, columns = ((out, inputs * height * width) if scheme == 1 else
                     (out * height, inputs * width))
    left, right = rng.normal(size=(rows, rank)), rng.normal(size=(rank, columns))
    return LowRank(left.astype(np.float32), right.astype(np.float32), shape, scheme)


def forms(rng, shape):
    """Every kind of part, by name."""
    one_bit, two = codebook(rng, shape, 2), low_rank(rng, shape, 2)
    parts = {"dense part": Dense(rng.normal(size=shape).astype(np.float32)), "1 bit": one_bit,
             "1 bit + 3%": Sum((one_bit, sparse(rng, shape, 0.03)), "exact", 0.0),
             "k = 4": codebook(rng, shape, 4), "k = 16": codebook(rng, shape, 16)}
    parts |= {f"{keep:.0%}": sparse(rng, shape, keep) for keep in (0.01, 0.03, 0.1)}
    parts |= {"rank 2": two, "rank 8": low_rank(rng, shape, 8),
              "rank 2 + 2%": Sum((two, sparse(rng, shape, 0.02)), "exact", 0.0)}
    return parts | ({"rank 8, scheme 2": low_rank(rng, shape, 8, 2)} if len(shape) == 4 else {})


def prepared(part, x):
    """(the Weight, the bytes that it holds beside θ after its first product)."""
    product(Weight(part), x)    # what is imported and kept for all weights is not counted
    tracemalloc.start()
    weight = Weight(part)
    product(weight, x)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return weight, size


def inputs(rng, shape, side, n):
    size = (n, side, side, shape[1]) if side else (n, shape[1])
    return rng.normal(size=size).astype(np.float32)


def medians(calls):
    """Median milliseconds of each call, in turns, after one call of each that is not counted."""
    for call in calls.values():
        call()
    seconds = {name: [] for name in calls}
    start = time.perf_counter()
    for turn in range(TURNS):
        if turn >= FEWEST and time.perf_counter() - start > SECONDS:
            break
        for name, call in calls.items():
            before = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - before)
    return {name: 1e3 * float(np.median(s)) for name, s in seconds.items()}


def product(weight, x):
    return weight.affine(x) if weight.ndim == 2 else weight.conv2d(x, None, 1, 1)


def measure(rng, shape, side):
    """The forms of one layer: operations, bits, bytes, and milliseconds by number of inputs."""
    parts, weights, records = forms(rng, shape), {}, {}
    dense = parts["dense part"].values
    for name, part in {"dense": parts["dense part"], **parts}.items():
        weights[name], size = prepared(part, inputs(rng, shape, side, 1))
        records[name] = {"operations": operations(part, shape), "bits": part.bits(),
                         "prepared": size}
    for n in (1, 16 if side else 128):
        x = inputs(rng, shape, side, n)
        calls = {name: lambda w=w, x=x: product(w, x) for name, w in weights.items()}
        calls["dense"] = (lambda x=x: conv2d(x, dense, None, 1, 1)) if side else (
            lambda x=x: x @ dense.T)
        for name, milliseconds in medians(calls).items():
            records[name][f"ms, {n}"] = milliseconds
    return records


def ratios(results, form, index):
    """The time of a form over that of the faster dense one, by layer; index 0 is for one input."""
    found = {}
    for layer, records in results["layers"].items():
        if form in records:
            key = [key for key in records[form] if key.startswith("ms")][index]
            found[layer] = records[form][key] / faster_dense(records, key)
    return found


def faster_dense(records, key):
    return min(records[name][key] for name in ("dense", "dense part"))


def summary(results):
    """A row for each form: its time over that of the dense one, and the memory it takes."""
    rows = [["form", "1 input: faster in", "least, largest", "many: faster in", "least, largest",
             "storage, MB", "prepared, MB", "dense, MB"], 8 * ["---"]]
    layers = results["layers"].values()
    dense = ("dense", "dense part")
    for name in dict.fromkeys(name for records in layers for name in records if name not in dense):
        rows.append([name])
        for i in (0, 1):
            found = ratios(results, name, i)
            faster = [layer for layer, ratio in found.items() if ratio < 1]
            which = f" ({', '.join(faster)})" if 0 < len(faster) <= 3 else ""
            rows[-1] += [f"{len(faster)} of {len(found)}{which}",
                         f"{min(found.values()):.2g}, {max(found.values()):.2g}"]
        each = [records for records in layers if name in records]
        rows[-1] += [f"{sum(r[name]['bits'] for r in each) / 8e6:.3g}",
                     f"{sum(r[name]['prepared'] for r in each) / 1e6:.3g}",
                     f"{sum(r['dense part']['bits'] for r in each) / 8e6:.3g}"]
    return rows


def table(results):
    """The results in Markdown: a row for each layer and form."""
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    rows = [["layer", "form", "multiplications", "additions", "storage, KB", "prepared, KB",
             "ms at 1", "over dense", "ms at 128, or 16 images", "over dense"], 10 * ["---"]]
    for layer, records in results["layers"].items():
        for name, record in records.items():
            rows.append([layer, name, *(f"{count:,}" for count in record["operations"]),
                         f"{record['bits'] / 8e3:,.1f}", f"{record['prepared'] / 1e3:,.1f}"])
            for key in [key for key in record if key.startswith("ms")]:
                share = record[key] / faster_dense(records, key)
                rows[-1] += [f"{record[key]:.3g}", f"{share:.2f}"]
    return (f"`{results['command']}`, {results['date']}, {results['machine']['processor']}, "
            f"{results['threads']} of {results['machine']['cores']} cores, load before the run "
            f"{results['load']:.1f}, {versions}. float32; operations are for one output "
            f"position; prepared is what the product holds beside θ; many are 128 inputs, of "
            f"convolutions 16 images. Time over that of the faster dense one:\n\n{lines(results)}\n"
            + "".join(f"| {' | '.join(row)} |\n" for row in rows))


def lines(results):
    return "".join(f"| {' | '.join(row)} |\n" for row in summary(results))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "inference",
                        help="the folder to write (default: results/inference)")
    parser.add_argument("--threads", type=int, default=1, help="of the products (default: 1)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    command = "python papers_repro/part5/inference.py" + (
        f" --threads {args.threads}" if args.threads > 1 else "")
    versions = {module.__name__: module.__version__ for module in (lcref, np, scipy)}
    results = {"command": command, "date": datetime.date.today().isoformat(),
               "machine": machine(), "threads": args.threads, "load": os.getloadavg()[0],
               "versions": {"python": platform.python_version(), **versions}}
    rng = np.random.default_rng(0)
    with threads(args.threads):
        results["layers"] = {name: measure(rng, *layer)
                             for name, layer in tqdm(LAYERS.items(), unit="layer")}
    (args.out / "result.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.out / "table.md").write_text(table(results))
    print(lines(results))


if __name__ == "__main__":
    sys.exit(main())
