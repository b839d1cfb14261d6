"""What the reproductions share: their rows, how they are run, and what is kept of them.

A row is a name and the flags of one `lcref compress`. A long one runs as that command, in a
working folder of its own, WORK/NAME, and goes on from its last checkpoint where it was stopped. A
short one, of a minute, is computed to the same bits without evaluating the net after every LC step,
which would take as long as the training. A row that has a result is passed over. What is known of
the rows is one file, results.json, a row a line.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info
from tqdm import tqdm

import fronts
from lcref import cells, experiment, lc, nets, storage, training
from lcref.devices import device, host
from lcref.flags import add_job_flags
from lcref.nets.checkpoints import read_params
from lcref.parts import ByTensor, LowRank, Sparse, Sum, leaves

ROOT = Path(__file__).parent
REFERENCE = "lenet300_mnist.npz"    # in weights/ of the data folder, unless --reference is given
SINGLE = Path(__file__).parent / "part5" / "lenet300" / "results" / "results.json"
PATH = ("mu", "feasibility", "loss", "compressed_loss", "compressed_train_error", "test_error",
        "compressed_test_error")
SHORT = "--mu0 1e-3 --growth 1.25 --steps 20 --epochs 1 --lr 0.09 --lr-decay 0.93"
LENET300 = f"--net lenet300 --activation tanh --data mnist --reference {REFERENCE} --batch 256"
QUICK = "--reference-epochs 5 --steps 2 --epochs 1"     # of LeNet300 on the bundled digits


def arguments(text, folder, reference=REFERENCE):
    """The flags of a run.py whose folder is given; with --quick nothing goes there by default."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--data-dir", default=os.environ.get("LCREF_DATA"), help="folder with the "
                        "data and weights/ (default: the environment variable LCREF_DATA)")
    parser.add_argument("--quick", action="store_true", help="a small version, in a minute or so")
    parser.add_argument("--out", type=Path, help="the folder of the results (default: results "
                        "beside the script; with --quick a new temporary one)")
    if reference:
        parser.add_argument("--reference", help="the reference weights (default: "
                            f"weights/{reference} in the data folder)")
        parser.add_argument("--work", type=Path, help="where runs have their folders (default: "
                            "papers_repro/work; with --quick in --out)")
        parser.add_argument("--workers", type=int, default=1, help="rows at a time (default: 1)")
        parser.add_argument("--only", action="append", metavar="PATTERN", help="the rows whose "
                            "names fit, such as 'short-prune-*'; repeat it for more")
    args = parser.parse_args()
    if reference and not args.quick and not args.data_dir:
        parser.error("the data are needed: give --data-dir or set LCREF_DATA")
    args.out = args.out or (Path(tempfile.mkdtemp()) if args.quick else folder / "results")
    args.out.mkdir(parents=True, exist_ok=True)
    if reference:
        args.work = args.work or (args.out if args.quick else ROOT) / "work"
        if args.data_dir and not args.reference:
            args.reference = os.path.join(args.data_dir, "weights", reference)
    return args


def machine():
    """The processor, its cores, and the BLAS."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines()
             if line.startswith("model name")] if info.exists() else [platform.processor()]
    blas = [f"{b['internal_api']} {b['version']} ({b.get('architecture', '')})"
            for b in threadpool_info() if b["user_api"] == "blas"]
    return {"processor": names[0], "cores": os.cpu_count(), "system": platform.system(),
            "blas": sorted(set(blas))}


def made_by(script, args):
    """The command, the date, the machine and the versions of a result that is no row."""
    import scipy

    import lcref
    return {"command": f"python papers_repro/{script}" + " --quick" * args.quick,
            "date": datetime.date.today().isoformat(), "machine": machine(),
            "versions": {"lcref": lcref.__version__, "numpy": np.__version__,
                         "scipy": scipy.__version__, "python": platform.python_version()}}


# ---- rows --------------------------------------------------------------------------------------


def run(rows, args, shared=(), taken=None):
    """Run the rows that have no result, write results.json and .csv; return all known records.

    Parameters
    ----------
    rows : dict of name to flags
        Those whose name begins with "short-" are short.
    args : what `arguments` returned
    shared : files of results, from which rows of the same name and command are taken
    taken : see `measure`
    """
    file = args.out / "results.json"
    known = {name: row for other in shared for name, row in read(other).items()
             if name in rows and row["command"] == command(rows[name])} | read(file)
    todo = {name: flags for name, flags in rows.items()
            if not args.only or any(fnmatch(name, pattern) for pattern in args.only)}
    todo = {name: flags for name, flags in todo.items()
            if name not in known or known[name]["command"] != command(flags)}
    with ProcessPoolExecutor(args.workers) as pool:
        pending = [pool.submit(measure, name, flags, args, taken or whole)
                   if name.startswith("short-") else pool.submit(compress, name, flags, args)
                   for name, flags in todo.items()]
        for done in tqdm(as_completed(pending), total=len(pending), unit="row", disable=None):
            if not done.exception():
                known[done.result()["name"]] = done.result()
                write(known, rows, file)
    write(known, rows, file)
    for done in pending:
        done.result()   # the first error, now that the other rows have their results
    return known


def read(file):
    """The records in a results.json by name; none where there is no file."""
    return {row["name"]: row for row in json.loads(file.read_text())} if file.exists() else {}


def write(known, rows, file):
    """Write the records, in the order of rows: results.json a row a line, and results.csv."""
    places = {name: i for i, name in enumerate(rows)}
    ordered = sorted(known.values(), key=lambda row: places.get(row["name"], len(places)))
    file.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in ordered)
                    + "\n]\n")
    with open(file.with_suffix(".csv"), "w", newline="", encoding="utf-8") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([value(row) for value in COLUMNS.values()] for row in ordered)


COLUMNS = {
    "name": lambda row: row["name"], "kind": lambda row: row["kind"],
    "tasks": lambda row: "; ".join(row["tasks"]),
    **{f"ratio {width}": lambda row, width=width: round(row["ratio"][width], 3)
       for width in ("float32", "float16")},
    "file bytes": lambda row: row.get("file_bytes", ""),
    **{f"{net} {what}": lambda row, net=net, what=what: row[net][f"{what}_error"]
       for net in ("reference", "direct", "lc") for what in ("train", "test")},
    "low": lambda row: round(fronts.interval(row)[0], 3),
    "high": lambda row: round(fronts.interval(row)[1], 3),
    "loss": lambda row: row["lc"]["loss"], "feasibility": lambda row: row["feasibility"],
    "seconds": lambda row: round(row["seconds"]["total"], 1), "date": lambda row: row["date"],
}


def command(flags):
    """The command of a row, as a reader would type it."""
    return f"lcref compress {flags}".strip()


def flags_of(flags, args):
    """The flags of a row as words, with the files that the user has."""
    words = shlex.split(flags)
    if "--reference" in words:
        words[words.index("--reference") + 1] = args.reference
    return words + (["--data-dir", args.data_dir] if args.data_dir else [])


def parsed(words):
    """The flags of `lcref compress`, as it reads them."""
    parser = argparse.ArgumentParser()
    add_job_flags(parser)
    return parser.parse_args(words, argparse.Namespace(out=None, quiet=True))


def compress(name, flags, args):
    """The record of a long row: run `lcref compress` in WORK/NAME, unless that has ended there."""
    folder = args.work / name
    if not (folder / "history.json").exists():
        begun = any(folder.glob("checkpoint-*.npz"))
        words = [*flags_of(flags, args), "--quiet", "--resume" if begun else "--out", str(folder)]
        subprocess.run([sys.executable, "-m", "lcref", "compress", *words], check=True,
                       stdout=sys.stderr, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    history = json.loads((folder / "history.json").read_text())
    same_settings(history.pop("settings"), flags, folder)
    ended = datetime.date.fromtimestamp((folder / "history.json").stat().st_mtime)
    steps = history.pop("steps")
    return {**about(name, flags, ended), **history, "status": steps[-1]["status"],
            "wrong": left_wrong(folder, parsed(flags_of(flags, args))),
            "path": {key: [rounded(step[key]) for step in steps] for key in PATH}}


def whole(job):
    """The L step of a job, and its evaluation."""
    return job.l_step, job.evaluate


def trained(name, flags, args):
    """The weights that `lcref train` leaves in WORK/name, which goes on where it was stopped."""
    folder = args.work / name
    begun = any(folder.glob("checkpoint-*"))
    if begun or not (folder / "weights.npz").exists():
        subprocess.run([sys.executable, "-m", "lcref", "train", *flags.split(), "--data-dir",
                        args.data_dir, "--quiet", "--resume" if begun else "--out", str(folder)],
                       check=True, stdout=sys.stderr)
    return folder / "weights.npz"


def measure(name, flags, args, taken=whole):
    """The record of a short row; `taken` makes the L step and the evaluation of its job."""
    asked, start = parsed(flags_of(flags, args)), time.perf_counter()
    with nets.threads(1):
        job = experiment.prepare(asked)
        l_step, evaluate = taken(job)
        reference, report = reference_of(job, flags, evaluate)
        result = lc.compress(reference, job.tasks, l_step, job.schedule)
        found = {"reference": report, "direct": evaluate(result.direct),
                 "lc": evaluate(result.params)}
    seconds = {phase: sum(step["seconds"][phase] for step in result.history)
               for phase in ("l_step", "c_step")} | {"total": time.perf_counter() - start}
    packed = storage.pack(result.params, job.tasks, result.thetas, job.about)
    return {**about(name, flags, datetime.date.today()), **found, "ratio": result.ratio,
            "storage": storage.convention(job.tasks), "file_bytes": len(packed),
            "feasibility": result.feasibility, "seconds": seconds,
            "tasks": [str(task) for task in job.tasks],
            "versions": training.about(asked)["versions"],
            "status": result.history[-1]["status"], "ranks": ranks(result.thetas),
            "nonzeros": nonzeros(result.thetas), "left": left(result),
            "wrong": wrong(job.net, result.params, job.dataset),
            "path": {key: [rounded(step[key]) for step in result.history] for key in PATH[:2]}}


REFERENCES: dict[str, tuple] = {}   # of this process: reports, and weights where none were given


def reference_of(job, flags, evaluate):
    """The reference weights of a job, and their errors; trained, and evaluated, once a process."""
    key = re.sub("--(compress|task) '[^']*'", "", flags)
    if key not in REFERENCES:
        params = job.params if job.args.reference else experiment.reference_weights(job.args)
        REFERENCES[key] = params, evaluate(params)
    return REFERENCES[key]


def about(name, flags, date):
    """What a row is, and what made it."""
    return {"name": name, "kind": kind(flags), "command": command(flags),
            "date": date.isoformat(), "threads": 1, "machine": machine()}


def same_settings(settings, flags, folder):
    """ValueError unless the run in a folder had the settings of the flags."""
    asked = vars(parsed(shlex.split(flags)))
    other = [name for name, value in settings.items()
             if name in asked and name not in ("reference", "data_dir", "threads", "storage")
             and value != asked[name]]
    if other:
        raise ValueError(f"{folder} holds a run with another {', '.join(other)}; remove it")


def ranks(thetas):
    """The rank of each tensor whose part is a product of two factors."""
    return {name: int(part.left.shape[1]) for theta in thetas.values()
            if isinstance(theta, ByTensor) for name, part in theta.parts.items()
            if isinstance(part, LowRank)}


def nonzeros(thetas):
    """How many corrections, or weights of a pruned net, the parts have together."""
    def count(part):
        if isinstance(part, (Sum, ByTensor)):
            return sum(map(count, leaves(part.parts) if isinstance(part, ByTensor) else part.parts))
        return int(np.count_nonzero(part.values)) if isinstance(part, Sparse) else 0
    return sum(map(count, thetas.values()))


def left(result):
    """Of each compressed tensor: its nonzeros, and how many direct compression has at 0."""
    return {name: [int(np.count_nonzero(delta)),
                   int(np.count_nonzero((delta != 0) & (result.direct[name] == 0)))]
            for name, delta in result.last.delta.items()}


def rounded(value):
    return float(f"{value:.6g}")


def kind(flags):
    """The kinds of compression, such as "quantize + prune"; of several tasks, each once."""
    asked = parsed(shlex.split(flags))
    return cells.kind({name: value for name in ("compress", "task")
                       if (value := getattr(asked, name))})


def left_wrong(folder, asked):
    """The positions of the test images that the net of a folder gets wrong, found where it ran."""
    dataset, net = training.problem(asked)
    params = device(asked.device).put(read_params(folder / "compressed.npz", net))
    with nets.threads(asked.threads):
        return wrong(net, params, dataset)


def wrong(net, params, dataset, batch=500):
    """The positions of the test images that a net gets wrong, both on one device."""
    found, n = [], dataset.y_test.shape[0]
    for i in range(0, n, batch):
        rows = slice(i, min(i + batch, n))
        x, y = dataset.x_test[rows, ...], dataset.y_test[rows]
        logits = host(net.apply(params, dataset.prepare(x)))
        found += (i + np.flatnonzero(np.argmax(logits, axis=1) != host(y))).tolist()
    return found


def keep(names, args):
    """Copy the pictures and the packed model of finished rows to the results."""
    for name in names:
        for file in (*sorted((args.work / name).glob("*.png")), args.work / name / "model.npz"):
            if file.exists():
                (args.out / name).mkdir(exist_ok=True)
                shutil.copy(file, args.out / name)


def short(base, texts):
    """Rows of a short schedule, named after the texts of their compressions."""
    return {"short-" + "-".join(re.findall(r"[a-z0-9.]+", text)): f"{base} --compress '{text}'"
            for text in texts}
