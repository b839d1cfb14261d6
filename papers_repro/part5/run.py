"""Reproduce a row of Part V.

    python papers_repro/part5/run.py ROW [--data-dir DIR] [--reference FILE]

Each row is one `lcref compress` command. Its numbers, history and pictures go to results/ROW beside
this file, with the command, the date, the machine and the versions that made them.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from threadpoolctl import threadpool_info

from lcref import cli

RESULTS = Path(__file__).parent / "results"
LENET300 = ("--net lenet300 --activation tanh --data mnist --reference lenet300_mnist.npz "
            "--batch 256 --mu0 9e-5 --growth 1.1 --steps 40 --epochs 20 --first-epochs 40 "
            "--lr-decay 0.98")
ROWS = {
    "digits": "",
    "lenet300-1bit-1percent":
        f"{LENET300} --lr 0.09 --compress 'quantize(k=2) + prune(kappa=2662)'",
    "lenet300-1bit-3percent-float16":
        f"{LENET300} --lr 0.09 --storage float16 "
        "--compress 'each(quantize(k=2)) + prune(keep=0.03)'",
    "lenet300-rank2-2percent-float16":
        f"{LENET300} --lr 0.09 --storage float16 --compress 'lowrank(rank=2) + prune(keep=0.02)'",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--data-dir", default=os.environ.get("LCREF_DATA"),
                        help="folder with MNIST (default: the environment variable LCREF_DATA)")
    parser.add_argument("--reference", help="the reference weights (default: "
                        "weights/lenet300_mnist.npz in the data folder)")
    args = parser.parse_args()
    flags = shlex.split(ROWS[args.row])
    if "--reference" in flags:
        if not args.data_dir:
            parser.error("MNIST is needed: give --data-dir or set LCREF_DATA")
        weights = args.reference or os.path.join(args.data_dir, "weights", "lenet300_mnist.npz")
        flags[flags.index("--reference") + 1] = weights
        flags += ["--data-dir", args.data_dir]
    with tempfile.TemporaryDirectory() as out:
        status = cli.main(["compress", *flags, "--out", out])
        if status == 0:
            keep(Path(out), args.row)
    return status


def keep(out, row):
    """Copy the model and the pictures; write result.json, the history with its command."""
    results = RESULTS / row
    results.mkdir(parents=True, exist_ok=True)
    for file in (out / "model.npz", *out.glob("*.png")):
        shutil.copy(file, results)
    history = json.loads((out / "history.json").read_text())
    for name in ("data_dir", "reference"):  # where the user's files lie is nobody's business
        del history["settings"][name]
    (results / "result.json").write_text(json.dumps({
        "command": f"lcref compress {ROWS[row]}".strip(),
        "date": datetime.date.today().isoformat(), "machine": machine(), **history},
        indent=1) + "\n")


def machine():
    """The processor, its cores, and the BLAS."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines()
             if line.startswith("model name")] if info.exists() else [platform.processor()]
    blas = [f"{b['internal_api']} {b['version']} ({b.get('architecture', '')})"
            for b in threadpool_info() if b["user_api"] == "blas"]
    return {"processor": names[0], "cores": os.cpu_count(), "system": platform.system(),
            "blas": sorted(set(blas))}


if __name__ == "__main__":
    sys.exit(main())
