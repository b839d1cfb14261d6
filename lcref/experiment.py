"""The main job: a reference net, direct compression and LC, compared in numbers and pictures."""

import json
import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from . import data, lc, nets, resume, storage
from .budgets import check_budget
from .compressions import Task
from .devices import device, host
from .flags import COMPRESSION
from .folder import naming, to_disk
from .loop_inputs import disjoint_tasks
from .lsteps import SGD, Diverged
from .nets.checkpoints import read_params, write_npz
from .parts import Sparse
from .text import parse, parse_task
from .training import about, check_writable, inputs_of_training, report, run_of, training_problem


@dataclass(frozen=True, eq=False)
class Job:
    """What the flags ask for, all of it built and checked before any training."""

    args: Any
    dataset: data.Dataset
    held: data.Dataset | None  # of the training set, by --hold-out
    net: nets.Net
    params: dict[str, Any]
    tasks: tuple[Task, ...]
    schedule: lc.Schedule
    progress: tqdm
    train: SGD  # of the reference
    l_step: SGD

    @property
    def about(self):
        """What the packed file says of the net and its data."""
        net = self.net
        return {"net": {"name": net.name, "input_shape": list(net.input_shape),
                        "classes": net.classes, "activation": net.activation},
                "data": {"name": self.dataset.name, "preprocessing": self.dataset.preprocessing}}

    def evaluate(self, params):
        """Training loss, and errors in percent."""
        return report(self.net, params, self.dataset, self.held)

    def glance(self, params):
        """The same after an LC step, of the training inputs that --train-sample asks for."""
        number = self.args.train_sample
        dataset = self.dataset.sample(number) if number else self.dataset
        return report(self.net, params, dataset, self.held)


def run(args) -> int:
    """lcref compress: run the job, or go on with it, print the result, then write it."""
    args = resume.arguments(args)
    with nets.threads(args.threads):
        with resume.blaming(args):
            job = prepare(args)
        with resume.opened(args, run_of(args, job.dataset, job.net, job.params)) as record:
            summary, packed, reference, result = _outcome(job, record)
            _print(job, summary)
            if args.out:  # last, so that a full disk does not take the numbers along
                _write_all(args.out, packed, summary, reference, result, job)
                record.end("done")
    if args.out and not args.quiet:
        print(f"written to {args.out}", file=sys.stderr if args.json else sys.stdout)
    return 0


def _outcome(job, record):
    """The summary, the packed file, the reference weights and the Result of a job."""
    with job.progress, _last_good(job.args, record):
        reference, trained = _reference(job, record)
        result = resume.compress(record, reference, job.tasks, job.l_step, job.schedule,
                                 job.glance, lambda step: _show(job, record, step))
    packed = storage.pack(result.params, job.tasks, result.thetas, job.about)
    summary = _summary(job, record.now["reference_report"], result, len(packed))
    summary["seconds"] |= {"reference": trained, "total": record.seconds}
    return summary, packed, reference, result


def measure(args) -> dict[str, Any]:
    """Run the job that the flags ask for, write nothing, and return its summary."""
    with nets.threads(args.threads):
        return _outcome(prepare(args), resume.Record())[0]


def reference_weights(args) -> dict[str, Any]:
    """Train the reference net of the job that the flags ask for, and return its weights."""
    with nets.threads(args.threads):
        job = prepare(args)
        with job.progress:
            return _reference(job, resume.Record())[0]


def _print(job, summary):
    """The table for people, and the summary for programs."""
    args = job.args
    if not args.quiet:
        print(_table(job, summary), file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(summary, indent=1), flush=True)


@contextmanager
def _last_good(args, record):
    """Where an L step diverges, write the last good weights, and name the file in the error."""
    try:
        yield
    except Diverged as error:
        if args.out is None:
            raise
        file = args.out / "last-good.npz"
        with naming(file):
            write_npz(file, error.params)
            to_disk(file, args.out)
        where = f"L step {error.step}" if "reference" in record.now else "training the reference"
        record.end(f"it diverged in {where}")
        said = f"{error}; {file} holds the last good weights"
        raise Diverged(said if "reference" in record.now else f"{where}: {said}",
                       **vars(error)) from error


def prepare(args):
    """The Job, or an error: everything that can be wrong is looked at here."""
    if args.compress is not None and args.task:
        raise ValueError("give either --compress for all weights or --task, not both")
    if args.out:
        check_writable(args.out)
    schedule = _schedule(args)
    compression = parse(COMPRESSION if args.compress is None else args.compress)
    tasks = tuple(parse_task(text) for text in args.task or ())
    dataset, held, net = training_problem(args)
    params = read_params(args.reference, net) if args.reference else net.init(
        np.random.default_rng(args.seed))
    tasks = tasks or (Task(tuple(net.weights), compression),)
    if args.storage:
        tasks = tuple(Task(task.names, storage.with_storage(task.compression, args.storage))
                      for task in tasks)
    disjoint_tasks(params, tasks)
    for task in tasks:
        check_budget(task.compression, {name: params[name] for name in task.names})
    params = device(args.device).put(params)
    return _with_training(args, dataset, held, net, params, tasks, schedule)


def _schedule(args):
    """The penalties; an error names the flags, which have other names than the arguments."""
    try:
        return lc.Schedule(args.mu0, args.growth, args.steps, args.penalty)
    except ValueError as error:
        raise ValueError(f"--mu0, --growth and --steps: {error}") from None


def _with_training(args, dataset, held, net, params, tasks, schedule):
    """The Job with its two trainings, and one progress bar over both."""
    progress = tqdm(unit="batch", disable=args.quiet or None, file=sys.stderr, leave=False,
                    dynamic_ncols=True)
    common = {"lr": args.lr, "on_batch": lambda *_: progress.update(),
              **inputs_of_training(args, dataset, net)}
    task = nets.value_and_grad(net), dataset.x_train, dataset.y_train
    train = SGD(*task, decay=1.0, epochs=args.reference_epochs, **common)
    l_step = SGD(*task, decay=args.lr_decay, epochs=args.epochs, first_epochs=args.first_epochs,
                 **common)
    epochs = l_step.first_epochs + (args.steps - 1) * args.epochs
    epochs += 0 if args.reference else args.reference_epochs
    progress.total = epochs * -(-dataset.x_train.shape[0] // args.batch)
    return Job(args, dataset, held, net, params, tasks, schedule, progress, train, l_step)


def _reference(job, record):
    """The reference weights, trained unless they were given, and the seconds that took."""
    now = record.now
    job.train.pause = job.l_step.pause = record.pause
    job.progress.update(now.get("batches", 0))
    if "reference" not in now:
        job.progress.set_description("reference")
        params, state = now.pop("params", job.params), now.pop("state", None)
        if not job.args.reference:
            params, _ = job.train(params, {}, 1.0, 0, state)
        now |= {"trained": record.seconds, "batches": job.progress.n,
                "reference_report": _first_report(job, params), "reference": params}
        record.write()
    job.progress.set_description("LC")
    return now["reference"], now["trained"]


def _first_report(job, params):
    """The errors of the reference; where it has no finite loss, Diverged if it was trained here."""
    try:
        return job.evaluate(params)
    except FloatingPointError as error:
        if job.args.reference:
            raise ValueError(f"{job.args.reference}: {error}") from None
        raise Diverged(f"{error}; try a smaller lr", params=job.params, state=None,
                       step=0) from error


def _show(job, record, step):
    """Let the progress bar say where the path is."""
    record.now["batches"] = job.progress.n
    job.progress.set_description(f"LC step {step.step + 1} of {job.args.steps}")
    job.progress.set_postfix_str(f"test error {step.compressed_report['test_error']:.2f}%, "
                                 f"feasibility {step.feasibility:.1e}")


def _summary(job, report, result, file_bytes):
    """What --json prints and history.json starts with."""
    totals = {phase: sum(step["seconds"][phase] for step in result.history)
              for phase in ("l_step", "c_step", "evaluate")}
    found = (job.evaluate(result.params) if job.args.train_sample else
             result.last.compressed_report)
    return {
        "reference": report, "direct": job.evaluate(result.direct),
        "lc": {key: found[key] for key in ("train_error", "test_error", "loss", "held_out_error")
               if key in found},
        "ratio": result.ratio, "storage": storage.convention(job.tasks), "file_bytes": file_bytes,
        "feasibility": result.feasibility, "seconds": totals,
        "tasks": [str(task) for task in job.tasks], **about(job.args),
    }


def _table(job, summary):
    """The result for people."""
    net, ratio, seconds = job.net, summary["ratio"], summary["seconds"]
    activation = f" ({net.activation})" if net.activation else ""
    rows = [f"{net.name}{activation} on {job.dataset.name}; {'; '.join(summary['tasks'])}", "",
            f"{'':20}{'train error':>13}{'test error':>13}{'training loss':>16}"
            + f"{'held-out error':>17}" * bool(job.held)]
    for label, key in (("reference", "reference"), ("direct compression", "direct"), ("LC", "lc")):
        row = summary[key]
        rows.append(f"{label:20}{row['train_error']:>11.2f} %{row['test_error']:>11.2f} %"
                    f"{row['loss']:>16.2e}"
                    + (f"{row['held_out_error']:>15.2f} %" if job.held else ""))
    chosen = summary["storage"]
    other = "float16" if chosen == "float32" else "float32"
    rows += ["", f"ratio {ratio[chosen]:.2f} with {chosen} corrections and factors, as trained; "
             f"{ratio[other]:.2f} counted in {other}",
             f"the packed file has {summary['file_bytes']:,} bytes",
             f"feasibility ‖w − Δ(θ)‖ / ‖w‖ = {summary['feasibility']:.1e}",
             f"{seconds['l_step']:.1f} s in L steps, {seconds['c_step']:.1f} s in C steps, "
             f"{seconds['total']:.1f} s in all"]
    return "\n".join(rows)


def _write_all(out, packed, *result):
    """Fill a folder inside `out`, then put its files in the place of an older run's."""
    scratch = out / ".writing"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        with naming(out):
            (scratch / "model.npz").write_bytes(packed)
            _write(scratch, *result)
            to_disk(*scratch.iterdir())
        for old in [*out.glob("parts*.png"), *out.glob("layer*.png")]:
            old.unlink()
        for file in scratch.iterdir():
            os.replace(file, out / file.name)
        to_disk(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(folder, summary, reference, result, job):
    """history.json, the weights, and the pictures."""
    from . import plots
    history, reference = {**summary, "steps": result.history}, host(reference)
    (folder / "history.json").write_text(json.dumps(history, indent=1) + "\n")
    np.savez(folder / "reference.npz", **reference)
    np.savez(folder / "compressed.npz", **host(result.params))
    plots.path_figure(result.history, summary["reference"], summary["direct"],
                      folder / "path.png")
    for i, task in enumerate(job.tasks):
        suffix = f"-{i + 1}" if len(job.tasks) > 1 else ""
        parts = _parts_by_tensor(task, result.thetas[i])
        plots.parts_figure([(label, vector, vector != 0 if sparse else None) for
                            label, sparse, _, vector in parts],
                           np.concatenate([np.ravel(reference[name]) for name in task.names]),
                           folder / f"parts{suffix}.png")
        name = max(task.names, key=lambda name: sum(  # the layer with the most corrections
            np.count_nonzero(dense[name]) for _, sparse, dense, _ in parts if sparse))
        plots.layer_figure(name, reference[name], [(label, dense[name]) for label, _, dense, _
                                                   in parts], folder / f"layer{suffix}.png")


def _parts_by_tensor(task, theta):
    """(text, whether sparse, dict of name to array, all of it as a vector) of every part."""
    terms = getattr(task.compression, "terms", (task.compression,))
    rows = []
    for term, part in zip(terms, theta.parts if len(terms) > 1 else (theta,)):
        dense = host(part.decompress())
        dense = dense if isinstance(dense, dict) else {task.names[0]: dense}
        inner = next(iter(part.parts.values())) if hasattr(part, "parts") and isinstance(
            part.parts, dict) else part
        vector = np.concatenate([np.ravel(dense[name]) for name in task.names])
        rows.append((str(term), isinstance(inner, Sparse), dense, vector))
    return rows
