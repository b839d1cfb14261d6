"""Part V on ResNet20 and CIFAR-10: one bit a weight plus corrections.

    python papers_repro/part5/resnet20/run.py [--quick] [--data-dir DIR] [--reference FILE]

Without --only the REDUCED rows run, 20 epochs each, which takes a CPU an hour or two a row. The
FULL ones have the schedule of the authors' code, 750 epochs, and are for a GPU:

    python papers_repro/part5/resnet20/run.py --only 'resnet20-full-*'

Of the rows that are KEPT, packed.md has what the packed file holds, the errors of the net that is
loaded from it, and its operations part by part. With --quick the net is LeNet300 on the digits.
"""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

from lcref import inference, info, nets, storage
from lcref.parts import Codebook, Sum

sys.path.insert(0, str(Path(__file__).parents[2]))
import common  # noqa: E402
import fronts  # noqa: E402

REFERENCE = "resnet20_cifar10.npz"
BASE = f"--net resnet20 --data cifar10 --reference {REFERENCE} --batch 128 --augment"
SHORT = f"{BASE} --steps 10 --epochs 2 --mu0 3e-3 --growth 2.5 --lr 0.02 --lr-decay 0.7"
LONG = (f"{BASE} --steps 50 --epochs 15 --mu0 1e-3 --growth 1.25 --lr 7e-4 --lr-decay 1 "
        "--epoch-decay 0.99 --device cuda")
ONE_BIT = "each(quantize(k=2))"


def rows_of(base, stem, percentages):
    """One bit a weight, alone and with corrections of some percentages in half precision."""
    return {f"{stem}1bit": f"{base} --compress '{ONE_BIT}'"} | {
        f"{stem}1bit-{p}percent": f"{base} --storage float16 --compress "
        f"'{ONE_BIT} + prune(keep={p / 100:g})'" for p in percentages}


REDUCED = rows_of(SHORT, "resnet20-", [5])
FULL = rows_of(LONG, "resnet20-full-", [1, 2, 3, 5])
QUICK = rows_of(common.QUICK, "", [5])
KEPT = {"resnet20-1bit-5percent", "1bit-5percent", *FULL}


def without_statistics(row, width):
    """The ratio when running means and variances count on neither side."""
    shapes = nets.build("resnet20", (3, 32, 32), 10).shapes
    statistics = 32 * sum(math.prod(shape) for name, shape in shapes.items() if "running" in name)
    full = 32 * sum(map(math.prod, shapes.values()))
    return (full - statistics) / (full / row["ratio"][width] - statistics)


def errors_table(rows, quick):
    """The rows: errors beside direct compression, and the ratio by each convention."""
    lines = []
    for row in rows:
        low, high = fronts.interval(row)
        ratios = [f"{row['ratio'][width]:.2f}" + (
            "" if quick else f"; {without_statistics(row, width):.2f}")
            for width in ("float16", "float32")]
        lines.append([fronts.what(row), *ratios, f"{row['reference']['test_error']:.2f}%",
                      f"{row['direct']['test_error']:.2f}%",
                      f"{row['lc']['test_error']:.2f}% ({low:.2f} to {high:.2f})",
                      f"{row['lc']['train_error']:.2f}%", f"{row['feasibility']:.1e}",
                      f"{row['seconds']['total']:,.0f}"])
    return fronts.markdown(
        ["compression", "ratio float16; without statistics", "float32; without", "reference",
         "direct compression", "LC, test error (95%)", "training error", "feasibility", "seconds"],
        lines)


def pairs_table(rows):
    """Every two rows on the same test images."""
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1:]]
    return fronts.markdown(
        ["one", "other", "only the one wrong", "only the other", "p (McNemar)"],
        [[fronts.what(a), fronts.what(b), only, others, f"{p:.2g}"]
         for a, b in pairs for only, others, p in [fronts.paired(a, b)]])


# ---- the packed file ---------------------------------------------------------------------------


def loaded(file, args, *flags):
    """What `lcref eval` says of a packed file."""
    place = ["--data-dir", args.data_dir] if args.data_dir else []
    done = subprocess.run([sys.executable, "-m", "lcref", "eval", file, "--json", "--quiet",
                           *place, *flags], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["test_error"]


def operations(file):
    """Multiplications and additions for one input by kind of part, and those of dense layers."""
    model = storage.load(file)
    times, counts = inference.positions(info.net_of(model)), {}
    pieces = {name: part for i, task in enumerate(model.tasks)
              for name, part in inference.by_tensor(model.thetas[i], task.names).items()}
    for name, part in pieces.items():
        shape = model.shapes[name]
        parts = part.parts if isinstance(part, Sum) else (part,)
        for label, count in [("dense", inference.dense_operations(shape)),
                             ("all parts", inference.operations(part, shape)),
                             *((label_of(one), inference.operations(one, shape)) for one in parts)]:
            counts.setdefault(label, Counter()).update(
                dict(zip(("multiplications", "additions"), (times[name] * c for c in count))))
    return counts


def label_of(part):
    return "quantized part" if isinstance(part, Codebook) else "corrections"


def packed(row, args):
    """The packed file of a row in Markdown."""
    file = args.work / row["name"] / "model.npz"
    errors = loaded(file, args), loaded(file, args, "--from-parts")
    counts = operations(file)
    dense = counts["dense"]
    table = fronts.markdown(
        ["for one input", "multiplications", "of dense", "additions", "of dense"],
        [[label, *(cell for kind, n in count.items() for cell in
                   (f"{n:,}", f"{n / dense[kind]:.1%}"))] for label, count in counts.items()])
    about = subprocess.run([sys.executable, "-m", "lcref", "info", file, "--flops"], check=True,
                           stdout=subprocess.PIPE, text=True).stdout
    return (f"## {fronts.what(row)}\n\nThe file has {file.stat().st_size:,} bytes. The run "
            f"reported a test error of {row['lc']['test_error']:.2f}%; loaded from the file it is "
            f"{errors[0]:.2f}%, computed from the parts {errors[1]:.2f}%.\n\n{table}\n"
            f"```text\n{about}```\n")


def main():
    args = common.arguments(__doc__, Path(__file__).parent, REFERENCE)
    rows = QUICK if args.quick else REDUCED | FULL
    args.only = args.only or list(QUICK if args.quick else REDUCED)
    known = list(common.run(rows, args).values())
    kept = [row for row in known if row["name"] in KEPT and (args.work / row["name"]).exists()]
    common.keep([row["name"] for row in kept], args)
    text = f"{errors_table(known, args.quick)}\n{pairs_table(known)}"
    (args.out / "tables.md").write_text(text)
    if kept:
        (args.out / "packed.md").write_text("\n".join(packed(row, args) for row in kept))
    if len(known) > 2:
        fronts.picture(known, args.out)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
