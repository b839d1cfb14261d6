"""The main job: a reference net, direct compression and LC, compared in numbers and pictures."""

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import data, lc, nets, storage
from .cli import COMPRESSION
from .compressions import Each, LowRank, Prune, Task
from .inputs import disjoint_tasks
from .lsteps import SGD
from .nets.checkpoints import read_params
from .parts import Sparse, size
from .projections.lowrank import as_matrix
from .text import parse, parse_task
from .training import about, check_writable, errors, inputs_of_training, problem


@dataclass(frozen=True, eq=False)
class Job:
    """What the flags ask for, all of it built and checked before any training."""

    args: Any
    dataset: data.Dataset
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
        """Training loss, training and test error in percent."""
        train, test = (errors(self.net, params, self.dataset, part) for part in ("train", "test"))
        return {"loss": train["loss"], "train_error": train["error"], "test_error": test["error"]}


def run(args) -> int:
    """lcref compress: run the job, print the result, then write it."""
    begin = time.perf_counter()
    with nets.threads(args.threads):
        job = _prepare(args)
        with job.progress:
            reference, trained = _reference(job)
            result = lc.compress(reference, job.tasks, job.l_step, job.schedule, job.evaluate,
                                 lambda step: _show(job, step))
        packed = storage.pack(result.params, job.tasks, result.thetas, job.about)
        summary = _summary(job, reference, result, len(packed))
    summary["seconds"] |= {"reference": trained, "total": time.perf_counter() - begin}
    for_people = sys.stderr if args.json else sys.stdout
    if not args.quiet:
        print(_table(job, summary), file=for_people)
    if args.json:
        print(json.dumps(summary, indent=1), flush=True)
    if args.out:  # last, so that a full disk does not take the numbers along
        def write(folder):
            (folder / "model.npz").write_bytes(packed)
            _write(folder, summary, reference, result, job)
        _write_all(args.out, write)
        if not args.quiet:
            print(f"written to {args.out}", file=for_people)
    return 0


def _prepare(args):
    """The Job, or an error: everything that can be wrong is looked at here."""
    if args.compress is not None and args.task:
        raise ValueError("give either --compress for all weights or --task, not both")
    if args.seed < 0 or args.reference_epochs < 0:
        raise ValueError("--seed and --reference-epochs must be at least 0")
    if args.out:
        check_writable(args.out)
    schedule = lc.Schedule(args.mu0, args.growth, args.steps, args.penalty)
    compression = parse(COMPRESSION if args.compress is None else args.compress)
    tasks = tuple(parse_task(text) for text in args.task or ())
    dataset, net = problem(args)
    params = read_params(args.reference, net) if args.reference else net.init(
        np.random.default_rng(args.seed))
    tasks = tasks or (Task(tuple(net.weights), compression),)
    if args.storage:
        tasks = tuple(Task(task.names, storage.with_storage(task.compression, args.storage))
                      for task in tasks)
    disjoint_tasks(params, tasks)
    for task in tasks:
        check_budget(task.compression, {name: params[name] for name in task.names})
    return _with_training(args, dataset, net, params, tasks, schedule)


def _with_training(args, dataset, net, params, tasks, schedule):
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
    progress.total = epochs * -(-len(dataset.x_train) // args.batch)
    return Job(args, dataset, net, params, tasks, schedule, progress, train, l_step)


def check_budget(compression, tensors):
    """Raise ValueError where a budget exceeds what the tensors hold: likely a slip of the pen."""
    for term in getattr(compression, "terms", ()):
        check_budget(term, tensors)
    if isinstance(compression, Each):
        for name, tensor in tensors.items():
            check_budget(compression.inner, {name: tensor})
    if isinstance(compression, Prune):
        _check_prune(compression, tensors)
    if isinstance(compression, LowRank):
        for name, tensor in tensors.items():
            _check_rank(compression, name, tensor)


def _check_prune(prune, tensors):
    """The same for kappa, or groups along an axis."""
    n = sum(map(size, tensors.values()))
    if (prune.kappa or 0) > n:
        raise ValueError(f"kappa={prune.kappa} is more than the {n} weights of the task")
    if prune.axis is None:
        return
    for name, tensor in tensors.items():
        if not -tensor.ndim <= prune.axis < tensor.ndim:
            raise ValueError(f"axis={prune.axis}, but {name} has {tensor.ndim} axes")
    slices = sum(tensor.shape[prune.axis] for tensor in tensors.values())
    if (prune.groups or 0) > slices:
        raise ValueError(f"groups={prune.groups} is more than the {slices} slices of the task")


def _check_rank(lowrank, name, tensor):
    """The same for rank."""
    if tensor.ndim not in (2, 4):
        raise ValueError(f"low rank needs 2 axes or 4; {name} has {tensor.ndim}")
    sides = as_matrix(tensor, lowrank.scheme).shape
    if (lowrank.rank or 0) > min(sides):
        raise ValueError(f"rank={lowrank.rank} is more than the smaller side of {name}, "
                         f"{' × '.join(map(str, sides))}")


def _reference(job):
    """The reference weights, trained unless they were given, and the seconds that took."""
    begin, params = time.perf_counter(), job.params
    if not job.args.reference:
        job.progress.set_description("reference")
        params, _ = job.train(params, {}, 1.0, 0, None)
    job.progress.set_description("LC")
    return params, time.perf_counter() - begin


def _show(job, step):
    """Let the progress bar say where the path is."""
    job.progress.set_description(f"LC step {step.step + 1} of {job.args.steps}")
    job.progress.set_postfix_str(f"test error {step.compressed_report['test_error']:.2f}%, "
                                 f"feasibility {step.feasibility:.1e}")


def _summary(job, reference, result, file_bytes):
    """What --json prints and history.json starts with."""
    totals = {phase: sum(step["seconds"][phase] for step in result.history)
              for phase in ("l_step", "c_step", "evaluate")}
    return {
        "reference": job.evaluate(reference), "direct": job.evaluate(result.direct),
        "lc": {key: result.last.compressed_report[key]
               for key in ("train_error", "test_error", "loss")},
        "ratio": result.ratio, "storage": storage.convention(job.tasks), "file_bytes": file_bytes,
        "feasibility": result.feasibility, "seconds": totals,
        "tasks": [str(task) for task in job.tasks], **about(job.args),
    }


def _table(job, summary):
    """The result for people."""
    net, ratio, seconds = job.net, summary["ratio"], summary["seconds"]
    activation = f" ({net.activation})" if net.activation else ""
    rows = [f"{net.name}{activation} on {job.dataset.name}; {'; '.join(summary['tasks'])}", "",
            f"{'':20}{'train error':>13}{'test error':>13}{'training loss':>16}"]
    for label, key in (("reference", "reference"), ("direct compression", "direct"), ("LC", "lc")):
        row = summary[key]
        rows.append(f"{label:20}{row['train_error']:>11.2f} %{row['test_error']:>11.2f} %"
                    f"{row['loss']:>16.2e}")
    chosen = summary["storage"]
    other = "float16" if chosen == "float32" else "float32"
    rows += ["", f"ratio {ratio[chosen]:.2f} with {chosen} corrections and factors, as trained; "
             f"{ratio[other]:.2f} counted in {other}",
             f"the packed file has {summary['file_bytes']:,} bytes",
             f"feasibility ‖w − Δ(θ)‖ / ‖w‖ = {summary['feasibility']:.1e}",
             f"{seconds['l_step']:.1f} s in L steps, {seconds['c_step']:.1f} s in C steps, "
             f"{seconds['total']:.1f} s in all"]
    return "\n".join(rows)


def _write_all(out, write):
    """Let `write` fill a folder beside `out`, then put its files in the place of an older run's."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        write(Path(scratch))
        out.mkdir(exist_ok=True)
        for old in [*out.glob("parts*.png"), *out.glob("layer*.png")]:
            old.unlink()
        for file in Path(scratch).iterdir():
            os.replace(file, out / file.name)


def _write(folder, summary, reference, result, job):
    """history.json, the weights, and the pictures."""
    from . import plots
    history = {**summary, "steps": result.history}
    (folder / "history.json").write_text(json.dumps(history, indent=1) + "\n")
    np.savez(folder / "reference.npz", **reference)
    np.savez(folder / "compressed.npz", **result.params)
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
        dense = part.decompress()
        dense = dense if isinstance(dense, dict) else {task.names[0]: dense}
        inner = next(iter(part.parts.values())) if hasattr(part, "parts") and isinstance(
            part.parts, dict) else part
        vector = np.concatenate([np.ravel(dense[name]) for name in task.names])
        rows.append((str(term), isinstance(inner, Sparse), dense, vector))
    return rows
