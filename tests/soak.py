"""Soak: small random runs of lcref, killed at random, and every step's record judged.

    python tests/soak.py --minutes 45 --out DIR         # goes on where it was stopped
    python tests/soak.py --case 17                      # one case of the seed again

Case n of a seed is always the same run; a signal comes after a share of the seconds that the
unbroken run took, or of those between its start-up and its pictures. Linux with glibc. Every case
of `lcref compress` is walked in this process, which must not grow: the path of the run, with its
checkpoints, and each step's record judged, see `step_record.CHECKS`. One case in four is first run
as a command, `lcref compress` or `lcref train`:

- unbroken; then killed up to four times by SIGKILL, SIGINT or SIGTERM, and resumed each time; all
  files must have the same bytes, but for seconds in history.json;
- nothing is left but the result: in the folder, in that of temporary files, in the home and the
  current folder, no process;
- the resumed processes need at most ROOM more memory than the unbroken one;
- what is walked in this process, from the same reference weights, has the same bits.

--out gets a line a case in cases.jsonl, and at the end summary.json; the exit status is 1 where
something failed. The memory is flat where the median of the last quarter of the cases is at most
GROWTH above that of the second quarter, and the medians of descriptors and threads are no higher.
What is free is given back to the system first, else the largest case so far would show. Of 600
cases 300 lie between the two: each may leave 27 KiB, an eighth of a LeNet300 on the digits.
"""
import argparse
import collections
import contextlib
import ctypes
import datetime
import gc
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import step_record
from soak_cases import case, digits

import lcref
from lcref import cli, experiment, lc, lsteps, nets, resume

LIMIT = 120.0           # seconds of one process: ten times the slowest
ROOM = 8 << 10          # KiB: ten trees of the largest net, 0.22 MB each, are read and copied
GROWTH = 8 << 10        # KiB, see above
FEW = 40                # cases in one process of which no growth is read
STARTED_OVER = ("after the end", "before the run began")     # there is nothing to resume
PICTURES = ("path", "parts", "layer")

# ---- a case as a command, killed


class Box:
    """The folders of a case, and its processes."""
    empty = ("home", "tmp", "here")

    def __init__(self, root):
        self.root, self.out, self.peaks = root, root / "out", []
        self.begun = self.seconds = 0.0     # of the last process: until it had its folder, in all
        for name in self.empty:
            (root / name).mkdir()
        digits(root / "data")
        self.env = {**os.environ, "HOME": str(root / "home"), "TMPDIR": str(root / "tmp"),
                    "MPLCONFIGDIR": str(root.parent / "matplotlib"), "OPENBLAS_NUM_THREADS": "1",
                    "PYTHONPATH": str(Path(lcref.__file__).parents[1])}

    def run(self, verb, flags, number=None, after=LIMIT):
        """Run lcref, with a signal after so many seconds; (status, what it said)."""
        with open(self.root / "said", "w+b") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "lcref", verb, "--quiet", *flags], cwd=self.root / "here",
                env=self.env, stdout=said, stderr=said, start_new_session=True)
            try:
                status = self._waited(process, number, after)
            finally:
                left = _alive(process.pid)
            said.seek(0)
            return status, said.read().decode() + "a process is left\n" * left

    def _waited(self, process, number, after):
        """The status of a process that is sent a signal after a time, and its times and peak."""
        start, self.begun = time.monotonic(), 0.0
        try:
            while (found := os.wait4(process.pid, os.WNOHANG))[0] == 0:
                self.seconds = time.monotonic() - start
                if not self.begun and (self.out / ".lock").exists():
                    self.begun = self.seconds
                if number and self.seconds >= after:
                    process.send_signal(number)
                    number = None
                if self.seconds > LIMIT:
                    process.kill()
                time.sleep(0.002)
            process.returncode = os.waitstatus_to_exitcode(found[1])
        finally:
            if process.returncode is None:      # the soak itself is being stopped
                process.kill()
                process.wait()
        self.peaks.append(found[2].ru_maxrss)       # KiB
        return process.returncode

    def left(self):
        """Files that are there besides the result."""
        found = [file.relative_to(self.root).as_posix() for name in self.empty
                 for file in (self.root / name).rglob("*")]
        found += {file.name for file in self.root.iterdir()} - {
            *self.empty, "data", "out", "path", "said", "whole"}
        return [f"{file} is left behind" for file in found]


def _alive(group):
    """Whether a process of the group is left; it is ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
        return True
    return False


def moment(out):
    """What a kill hit, by what it left."""
    names = os.listdir(out) if out.exists() else []
    ended = "settings.json" in names and resume.read_settings(out).get("ended")
    points = sorted(out.glob("checkpoint-*.npz"))
    if ended or "settings.json" not in names:
        return "after the end" if ended else "before the run began"
    if ".writing" in names:
        return "in the pictures and files at the end"
    if [name for name in names if name.startswith(".") and name != ".lock"]:
        return "while a file was written"
    if not points:
        return "before the first checkpoint"
    with np.load(points[-1]) as archive:
        compressing = any(name.startswith("reference") for name in archive.files)
    return "in LC" if compressing else "in training"


def contents(out):
    """The bytes of every file by name; of history.json what it says, but for seconds."""
    found = {file.name: file.read_bytes() for file in out.iterdir()}
    found["history.json"] = without_seconds(json.loads(found["history.json"]))
    return found


def without_seconds(tree):
    if isinstance(tree, dict):
        return {key: without_seconds(value) for key, value in tree.items() if key != "seconds"}
    return [without_seconds(each) for each in tree] if isinstance(tree, list) else tree


def strangers(verb, names):
    """Files that are no part of a result."""
    own = {"settings.json", "history.json", *(("weights.npz",) if verb == "train" else (
        "model.npz", "reference.npz", "compressed.npz"))}
    return {name for name in set(names) - own if verb == "train"
            or not (name.endswith(".png") and name.startswith(PICTURES))}


def broken(box, one, begun, inside, seconds):
    """Run a case with its kills until it ends; [(signal, moment)] and faults."""
    first = flags = ["--out", "../out", *one["flags"]]
    hits, faults = [], []
    for name, where, share in [*one["kills"], (None, "whole", 1.0)]:
        number = name and getattr(signal, name)
        after = begun + share * inside if where == "inside" else share * seconds
        status, said = box.run(one["verb"], flags, number, after)
        if status not in ((0, -number, 128 + number) if number else (0,)):
            return hits, [f"status {status} after {name}, {flags[0]}: {said[-400:]}"]
        if status:
            hits.append((name, moment(box.out)))
        faults += [said] * ("left" in said)
        goes_on = status and hits[-1][1] not in STARTED_OVER
        flags = ["--resume", "../out"] if goes_on else first
    return hits, faults


def killed(one, box):
    """A case as a command, unbroken and then killed: what is to be noted, faults included."""
    status, said = box.run(one["verb"], ["--out", "../out", *one["flags"]])
    if status:
        return {"diverged": True} if "stopped being finite" in said else {
            "faults": [f"status {status}, unbroken: {said[-400:]}"]}
    inside, seconds = json.loads((box.out / "history.json").read_text())["seconds"], box.seconds
    inside = inside["total"] if one["verb"] == "compress" else inside
    os.rename(box.out, box.root / "whole")
    hits, faults = broken(box, one, box.begun, inside, seconds)
    if not faults:
        whole, found = contents(box.root / "whole"), contents(box.out)
        faults += [f"{name} differs" for name in sorted({*whole, *found})
                   if whole.get(name) != found.get(name)]
        faults += [f"{name} is left behind" for name in strangers(one["verb"], found)]
    faults += box.left()
    unbroken, *others = box.peaks
    if max(others) > unbroken + ROOM:
        faults.append(f"{max(others)} KiB after a kill, {unbroken} unbroken")
    return {"faults": faults, "hits": hits, "peaks": [unbroken, max(others)],
            "unbroken": [round(seconds, 2), round(inside, 2)]}


# ---- a case in this process


def walked(one, box):
    """A case as a path in this process, every step judged: counts and faults."""
    args = cli._arguments([one["verb"], "--quiet", *one["flags"]])
    args.data_dir = args.data_dir and box.root / "data"
    with nets.threads(args.threads):
        job = experiment.prepare(args)
        job.progress.close()
        whole = box.root / "whole"
        if whole.exists():
            reference = dict(np.load(whole / "reference.npz"))
        else:
            reference, _ = job.train(job.params, {}, 1.0, 0, None)
        judge, result = path(job, reference, box.root / "path", args)
    faults = judge.faults
    if whole.exists():
        weights = dict(np.load(whole / "compressed.npz"))
        steps = json.loads((whole / "history.json").read_text())["steps"]
        if {name: w.tobytes() for name, w in weights.items()} != {
                name: w.tobytes() for name, w in result.params.items()} or without_seconds(
                    json.loads(json.dumps(result.history))) != without_seconds(steps):
            faults.append("the path in this process has other bits than the command's")
    return {"faults": faults, "checks": dict(judge.counts), "steps": len(result.history)}


def path(job, reference, folder, args):
    """The path with its checkpoints; (its Judge, its Result)."""
    data, plain = job.dataset, job.net.name != "lenet5"
    loss = partial(step_record.loss_of, job.net.activation, x=data.x_train, labels=data.y_train)
    thetas, _ = lc.direct_compression(reference, job.tasks, job.schedule.mu(0))
    judge = step_record.Judge(reference, job.tasks, job.schedule, resume._begin(
        None, reference, job.tasks, thetas, job.schedule), loss if plain else None)
    with resume.Folder(folder) as held:
        record = resume.Record(held, {"command": "compress"}, args.checkpoint_minutes)
        job.l_step.pause = record.pause
        result = resume.compress(record, reference, job.tasks, job.l_step, job.schedule,
                                 job.evaluate, judge)
        record.end("done")
    judge.end(result)
    judge.note("", "no file is left", sorted(os.listdir(folder)) == ["settings.json"])
    return judge, result


def room():
    """What this process holds: memory in KiB, descriptors, threads."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {"rss": int(fields["VmRSS"].split()[0]), "fds": len(os.listdir("/proc/self/fd")),
            "threads": int(fields["Threads"]), "python threads": threading.active_count()}


def tried(one, out):
    """Run a case; its line for cases.jsonl."""
    start, found = time.perf_counter(), {"faults": []}
    with tempfile.TemporaryDirectory(dir=out, prefix="case-") as folder:
        box = Box(Path(folder).resolve())
        for part in [killed] * bool(one["kills"]) + [walked] * (one["verb"] == "compress"):
            try:
                more = part(one, box)
            except lsteps.Diverged:     # the rate was too large, as was to be said
                more = {"diverged": True}
            except Exception as error:
                more = {"faults": [f"{part.__name__}: {type(error).__name__}: {error}"[:800]]}
            found |= more | {"faults": found["faults"] + more.get("faults", [])}
    return {**one, **found, **room(), "pid": os.getpid(),
            "seconds": round(time.perf_counter() - start, 2)}


# ---- the summary


def growth(lines):
    """How what one process holds went, from its second quarter to its last."""
    quarter = len(lines) // 4
    rows = {}
    for name in ("rss", "fds", "threads", "python threads"):
        values = [line[name] for line in lines]
        starts = {"first": 0, "second": quarter, "last": len(lines) - quarter}
        rows[name] = {f"{which} quarter": statistics.median(values[at:at + quarter] or values)
                      for which, at in starts.items()}
        rows[name]["largest"] = max(values)
    half = [line["rss"] for line in lines[len(lines) // 2:]]
    slope = statistics.linear_regression(range(len(half)), half).slope if len(half) > 1 else 0.0
    flat = len(lines) < FEW or (
        rows["rss"]["last quarter"] <= rows["rss"]["second quarter"] + GROWTH and all(
            row["last quarter"] <= row["second quarter"] for name, row in rows.items()
            if name != "rss"))
    return {"cases": len(lines), "judged": len(lines) >= FEW, "flat": flat,
            "slope of rss in the second half, KiB a case": round(slope, 2), **rows}


def processor():
    names = [line.partition(":")[2].strip() for line in Path(
        "/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return (names or [platform.machine()])[0]


def summary(lines, minutes):
    """What was seen, as a dict for JSON."""
    hits = [hit for line in lines for hit in line.get("hits", ())]
    peaks = [line["peaks"] for line in lines if "peaks" in line]
    checks = sum((collections.Counter(line.get("checks", {})) for line in lines),
                 collections.Counter())
    by_process = {line["pid"]: [each for each in lines if each["pid"] == line["pid"]]
                  for line in lines}
    return {
        "command": f"python tests/soak.py --minutes {minutes:.0f} --seed {lines[0]['seed']} "
                   "--out DIR",
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": processor(), "cores": os.cpu_count(),
                    "system": platform.system()},
        "versions": {"python": platform.python_version(), "lcref": lcref.__version__,
                     **{name: version(name) for name in ("numpy", "scipy")}},
        "seed": lines[0]["seed"], "minutes": round(minutes, 1), "cases": len(lines),
        "diverged": sum("diverged" in line for line in lines),
        "cases run as commands": len(peaks), "processes": sum(
            len(line["kills"]) + 2 for line in lines if line["kills"]),
        "kills": dict(collections.Counter(name for name, _ in hits)),
        "hit": dict(collections.Counter(where for _, where in hits)),
        "resumed": sum(where not in STARTED_OVER for _, where in hits),
        "paths walked": sum("checks" in line for line in lines), "checks": dict(checks),
        "most KiB that a resumed process needed above the unbroken": max(
            (after - before for before, after in peaks), default=None),
        "peaks in KiB, unbroken and resumed": [max(column) for column in zip(*peaks)],
        "this process": [growth(group) for group in by_process.values()],
        "faults": {line["case"]: line["faults"] for line in lines if line["faults"]}}


def soak(out, seed, minutes):
    """Run cases for so many minutes in all, those before a stop included; the exit status."""
    file = out / "cases.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if any(line["seed"] != seed for line in lines):
        raise SystemExit(f"{file} is of another seed")
    with open(file, "a") as stream:
        while (spent := sum(line["seconds"] for line in lines) / 60) < minutes:
            lines.append(tried(case(seed, lines[-1]["case"] + 1 if lines else 0), out))
            print(json.dumps(lines[-1]), file=stream, flush=True)
            if lines[-1]["faults"]:
                print(f"python tests/soak.py --seed {seed} --case {lines[-1]['case']}:",
                      *lines[-1]["faults"], sep="\n  ", file=sys.stderr, flush=True)
    found = summary(lines, spent)
    (out / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    flat = all(group["flat"] for group in found["this process"])
    print(f"{found['cases']} cases, {sum(found['kills'].values())} kills, "
          f"{sum(found['checks'].values())} checks of records: {len(found['faults'])} cases "
          f"failed; memory is {'flat' if flat else 'NOT flat'}", file=sys.stderr)
    return int(bool(found["faults"]) or not flat)


def main():
    parser = argparse.ArgumentParser(description="Soak lcref with random runs, killed at random.")
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, metavar="N", help="this one alone, again")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where cases.jsonl goes")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # so that its process ends too
    with contextlib.ExitStack() as stack:
        out = args.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob("case-*"):      # of a soak that was killed
            shutil.rmtree(old)
        subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], check=True,
                       env={**os.environ, "MPLCONFIGDIR": str(out.resolve() / "matplotlib")})
        if args.case is None:
            return soak(out, args.seed, args.minutes)
        found = tried(case(args.seed, args.case), out)
        print(json.dumps(found, indent=1))
        return int(bool(found["faults"]))


if __name__ == "__main__":
    sys.exit(main())
