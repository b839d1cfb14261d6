"""What a device must show: its tests, agreement with NumPy, speed beside PyTorch, a full LC run.

    python papers_repro/gpu/run.py [STAGE ...] --data-dir DIR

The stages are tests, agreement, lsteps and resnet20, all of them by default. Each writes
results/STAGE.json beside this file when it is done, with the command, the date, the versions and
the device's name; results/table.md has a row of every target, also of those that nothing was
measured for. A stage that has its file is passed over (remove the file to repeat it), and resnet20
goes on from its last checkpoint. --device strict runs the same on array_api_strict's second device,
which shows that it works and not how fast; --quick takes small sizes and the bundled digits.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

import numpy as np

import lcref
from lcref.bench.cases import CASES
from lcref.devices import device, host
from lcref.tolerance import objective_slack, squared_norm, wide

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
TESTS = ("tests/projections", "tests/test_parts.py", "tests/test_compressions.py",
         "tests/test_composition.py", "tests/test_half.py", "tests/test_lc.py",
         "tests/test_places.py", "tests/nets", "tests/test_cuda.py")
QUICK = "tests/test_cuda.py::test_a_product_is_that_of_numpy_where_the_arrays_live"
PLACES = {"cuda": "cuda", "strict": "array_api_strict-device1"}     # of the tests
RESNET20 = ("--net resnet20 --data cifar10 --batch 128 --augment --lr 7e-4 --epoch-decay 0.99 "
            "--lr-decay 1 --mu0 1e-3 --growth 1.25 --steps 50 --epochs 15 "
            "--compress 'each(quantize(k=2)) + prune(keep=0.05)'")
DIGITS = "--reference-epochs 2 --steps 2 --epochs 1"
NOT_RUN = "has not run on a GPU"


def main():
    args = arguments()
    here = device(args.device)
    for stage in args.stages:
        file = args.out / f"{stage}.json"
        if not file.exists():
            print(f"{stage} on {args.device}", file=sys.stderr, flush=True)
            begin = time.perf_counter()
            found = STAGES[stage](args, here)
            file.write_text(json.dumps({**about(args, here), **found, "seconds":
                                        round(time.perf_counter() - begin, 1)}, indent=1) + "\n")
        (args.out / "table.md").write_text(table(args.out))
    return 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", metavar="STAGE", default=[*STAGES],
                        help=f"of {', '.join(STAGES)} (default: all)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or strict (default: cuda)")
    parser.add_argument("--data-dir", default=os.environ.get("LCREF_DATA"), help="folder with "
                        "CIFAR-10 and weights/ (default: the environment variable LCREF_DATA)")
    parser.add_argument("--reference", help="the reference ResNet20 (default: "
                        "weights/resnet20_cifar10.npz in the data folder)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="small sizes, in a few minutes")
    args = parser.parse_args()
    for stage in args.stages:
        if stage not in STAGES:
            parser.error(f"unknown stage {stage!r}; known: {', '.join(STAGES)}")
    if "resnet20" in args.stages and not args.quick and not args.data_dir:
        parser.error("CIFAR-10 is needed: give --data-dir or set LCREF_DATA")
    try:
        device(args.device)
    except ValueError as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def about(args, here):
    """What made a result."""
    return {"command": "python papers_repro/gpu/run.py" + " --quick" * args.quick
            + f" --device {args.device}", "date": datetime.date.today().isoformat(),
            "device": {"name": here.name, **here.facts}, "machine": platform.machine(),
            "versions": {"lcref": lcref.__version__, "numpy": np.__version__,
                         "python": platform.python_version()}}


def call(words, **environment):
    """Run a program from the root of the project; what it prints on standard output."""
    return subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE, text=True,
                          cwd=ROOT, env={**os.environ, **environment}).stdout


# ---- the stages

def tests(args, here):
    """The tests that take the place where arrays live, there."""
    report = (args.out / "tests.xml").resolve()
    found = [QUICK] if args.quick else TESTS
    words = ["-q", "-m", "not long", "-p", "no:cacheprovider", "--place", PLACES[here.kind]]
    subprocess.run([sys.executable, "-m", "pytest", *found, *words, f"--junit-xml={report}"],
                   cwd=ROOT, stdout=sys.stderr)
    suite = xml.etree.ElementTree.parse(report).getroot().find("testsuite").attrib
    report.unlink()
    return {"tests": {name: int(suite[name])
                      for name in ("tests", "failures", "errors", "skipped")}}


def agreement(args, here):
    """Each projection there and on NumPy: its objective over NumPy's, in units of the tolerance."""
    n, rows = 10**4 if args.quick else 10**6, []
    for case in CASES:
        for dtype in ("float32", "float64"):
            w = case.data(n, dtype)
            one, other = (case.call(put(w), *case.arguments(w)) for put in (np.asarray, here.put))
            rows.append({"projection": case.name, "dtype": dtype, "n": w.size,
                         **compared(case, w, host(one.decompress()), host(other.decompress()))})
    return {"agreement": rows}


def compared(case, w, here, there):
    """How far an answer's objective is above the other's, by the slack; and whether feasible."""
    arguments = case.arguments(w)
    ours, theirs = (squared_norm(wide(w) - wide(theta)) + case.penalty(theta, *arguments)
                    for theta in (here, there))
    slack = objective_slack(w, there) + objective_slack(w, here)
    return {"excess": (theirs - ours) / slack if slack else float(theirs > ours),
            "infeasible": max(0.0, case.excess(there, *arguments)),
            "same": bool(np.array_equal(here, there))}


def lsteps(args, here):
    """L steps beside PyTorch eager, without and with TF32, which CUPY_TF32=1 allows to both."""
    small = args.quick or here.kind == "strict"
    names, rows = ["lenet300"] if small else ["lenet300", "lenet5", "resnet20"], []
    for tf32 in ("0", "1")[:2 if here.kind == "cuda" else 1]:
        for name in names:
            words = ["lsteps", "--net", name, "--device", args.device, "--json", "--quiet",
                     "--turns", "1" if args.quick else "7"]
            found = json.loads(call(["-m", "lcref", "bench", *words], CUPY_TF32=tf32))["l_step"]
            rows += [{"tf32": tf32 == "1", **row} for row in found]
    return {"l_step": rows}


def resnet20(args, here):
    """A full-size LC run of ResNet20, in OUT/resnet20, which goes on where it was stopped."""
    folder, flags = args.out / "resnet20", DIGITS if args.quick else RESNET20
    if not (folder / "history.json").exists():
        if any(folder.glob("checkpoint-*.npz")):
            words = ["--resume", folder]
        else:
            weights = args.reference or os.path.join(args.data_dir or "", "weights",
                                                     "resnet20_cifar10.npz")
            words = [*shlex.split(flags), "--device", args.device, "--out", folder,
                     *([] if args.quick else ["--reference", weights])]
        where = ["--data-dir", args.data_dir] if args.data_dir else []
        call(["-m", "lcref", "compress", *map(str, [*words, *where]), "--quiet"])
    history = json.loads((folder / "history.json").read_text())
    for name in ("data_dir", "reference"):      # where the user's files lie is nobody's business
        history["settings"].pop(name, None)
    return {"flags": flags, "run": history}


STAGES = {"tests": tests, "agreement": agreement, "lsteps": lsteps, "resnet20": resnet20}


# ---- the table

@dataclasses.dataclass(frozen=True)
class Row:
    """A target, and what was measured of it: a text, or None; and where."""

    what: str
    target: str
    measured: str | None = None
    where: str = ""


def table(out):
    """Every target in Markdown, with what the files of the stages say."""
    found = {stage: json.loads((out / f"{stage}.json").read_text())
             for stage in STAGES if (out / f"{stage}.json").exists()}
    lines = ["| what | target | measured | on |", "|---|---|---|---|"]
    for row in rows_of(found):
        lines.append(f"| {row.what} | {row.target} | {row.measured or NOT_RUN} "
                     f"| {row.where if row.measured else ''} |")
    return "\n".join(lines) + "\n"


def rows_of(found):
    """The rows, measured or not."""
    places = {stage: file["device"].get("gpu", f"{file['device']['name']}; {NOT_RUN}")
              for stage, file in found.items()}
    for stage, what, target, text in (
            ("tests", "tests of the core and the nets", "none fails", _tests),
            ("agreement", "every projection against NumPy", "excess at most 1 tolerance",
             _agreement)):
        yield Row(what, target, text(found[stage]) if stage in found else None,
                  places.get(stage, ""))
    # what follows is time, or too long for a stand-in
    found = {stage: file for stage, file in found.items() if "gpu" in file["device"]}
    yield Row("C steps of ResNet20 over its L steps", "under 1%", _c_step(found["resnet20"])
              if "resnet20" in found else None, places.get("resnet20", ""))
    for tf32 in (False, True):
        for name in ("lenet300", "lenet5", "resnet20"):
            row = next((row for row in found.get("lsteps", {}).get("l_step", ())
                        if (row["net"], row["tf32"]) == (name, tf32)), None)
            yield Row(f"L step of {name}, TF32 {'on' if tf32 else 'off'}",
                      "faster than PyTorch eager" if name == "resnet20" else "",
                      row and _l_step(row), places.get("lsteps", ""))
    yield Row("ResNet20, 1 bit + 5%, 750 epochs", "finishes, and goes on where it was stopped",
              _errors(found["resnet20"]["run"]) if "resnet20" in found else None,
              places.get("resnet20", ""))


def _tests(file):
    counts = file["tests"]
    return (f"{counts['tests']} tests, {counts['failures'] + counts['errors']} failed, "
            f"{counts['skipped']} skipped")


def _agreement(file):
    worst = max(file["agreement"], key=lambda row: row["excess"])
    beyond = sum(row["infeasible"] > 0 for row in file["agreement"])
    same = sum(row["same"] for row in file["agreement"])
    return (f"{len(file['agreement'])} answers, {same} of them the same bits, largest excess "
            f"{worst['excess']:.2g} ({worst['projection']}, {worst['dtype']}), {beyond} infeasible")


def _c_step(file):
    seconds = file["run"]["seconds"]
    return f"{100 * seconds['c_step'] / seconds['l_step']:.2g}%"


def _l_step(row):
    theirs = "no PyTorch there" if row["torch_ms"] is None else (
        f"PyTorch {row['torch_ms']:.3g}, ratio {row['ratio']:.2f}")
    return f"{row['lcref_ms']:.3g} ms a batch; {theirs}"


def _errors(run):
    return (f"{run['settings']['net']} on {run['settings']['data']}: reference "
            f"{run['reference']['test_error']:.2f}%, LC {run['lc']['test_error']:.2f}%, ratio "
            f"{run['ratio']['float32']:.2f} (float32), {run['ratio']['float16']:.2f} (float16)")


if __name__ == "__main__":
    sys.exit(main())
