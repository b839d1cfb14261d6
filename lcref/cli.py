"""The command line. One verb a task; results on standard output, everything else on standard error.

Exit status: 0 done, 1 the answer is no, 2 wrong usage or input, 130 interrupted.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from . import __version__, lc
from .compressions import Task
from .text import parse, parse_task

COMPRESSION = "each(quantize(k=2)) + prune(keep=0.01)"
INPUT_ERRORS = (ValueError, TypeError, OSError, FloatingPointError)


def main(argv=None):
    """Run a command; return its exit status."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print(f"lcref {args.verb}: interrupted, nothing written", file=sys.stderr)
        return 130
    except INPUT_ERRORS as error:
        if args.debug:
            raise
        print(f"lcref {args.verb}: error: {error}", file=sys.stderr)
        return 2


def _parser():
    parser = argparse.ArgumentParser(
        prog="lcref", description="The reference implementation of the learning-compression (LC) "
        "algorithm for additive combinations of compressions.")
    parser.add_argument("--version", action="version", version=f"lcref {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_compress(verbs)
    return parser


def _add_compress(verbs):
    verb = verbs.add_parser(
        "compress", help="compress a net: reference, direct compression, LC",
        description="Train a reference net (or read one), compress it directly, then run the LC "
        "algorithm, and compare the three. Without flags: LeNet300 on the bundled digits, one bit "
        "a weight in each layer plus 1% corrections over the net.")
    verb.set_defaults(run=compress)
    _add_net_flags(verb.add_argument_group("the net and its data"))
    _add_compression_flags(verb.add_argument_group("the compression"))
    _add_training_flags(verb.add_argument_group("the LC algorithm"))
    _add_output_flags(verb.add_argument_group("output"))


def _flag(group, name, text, default=None, **options):
    """Add a flag whose help ends with its default, where there is one."""
    text = text.replace("%", "%%") + ("" if default is None else f" (default: {default})")
    group.add_argument(name, help=text, default=default, **options)


def _add_net_flags(group):
    _flag(group, "--net", "linear or lenet300", "lenet300")
    _flag(group, "--activation", "of lenet300: relu or tanh (default: relu)", metavar="NAME")
    _flag(group, "--data", "digits (bundled) or mnist", "digits")
    _flag(group, "--data-dir", "folder with MNIST, in torchvision's layout or as plain IDX files, "
          "gzipped or not (default: the environment variable LCREF_DATA)", metavar="DIR")
    _flag(group, "--reference", "start from these weights (.npz under PyTorch's names) instead of "
          "training a reference", metavar="FILE")
    _flag(group, "--reference-epochs", "epochs of training of the reference", 60, type=int,
          metavar="N")


def _add_compression_flags(group):
    _flag(group, "--compress", "compression of all weight matrices together (default: "
          f"{COMPRESSION!r})", metavar="TEXT")
    _flag(group, "--task", "compression of the tensors named, such as "
          "'fc1.weight, fc2.weight: prune(kappa=5000)'; repeat it for more tasks", metavar="TEXT",
          action="append")
    _flag(group, "--storage", "bits of corrections and factors in the ratio quoted first; this is "
          "accounting only, and both ratios are always reported", "float32",
          choices=("float16", "float32"))


def _add_training_flags(group):
    _flag(group, "--steps", "LC steps", 30, type=int, metavar="N")
    _flag(group, "--mu0", "first penalty μ0", 1e-3, type=float, metavar="MU")
    _flag(group, "--growth", "μ = μ0·A^k in step k", 1.2, type=float, metavar="A")
    _flag(group, "--penalty", "with multipliers, or without", "augmented",
          choices=("augmented", "quadratic"))
    _flag(group, "--epochs", "epochs an L step", 10, type=int, metavar="N")
    _flag(group, "--first-epochs", "epochs of the first L step (default: as many as the others)",
          type=int, metavar="N")
    _flag(group, "--lr", "learning rate", 0.05, type=float, metavar="RATE")
    _flag(group, "--lr-decay", "the rate is RATE·D^k in step k", 0.98, type=float, metavar="D")
    _flag(group, "--momentum", "Nesterov's momentum", 0.9, type=float, metavar="M")
    _flag(group, "--batch", "inputs in a batch", 64, type=int, metavar="N")
    _flag(group, "--seed", "of the initial weights and of the order of the batches", 0, type=int,
          metavar="N")
    _flag(group, "--threads", "BLAS threads; with one a run repeats bit for bit", 1, type=int,
          metavar="N")


def _add_output_flags(group):
    _flag(group, "--out", "write history.json, reference.npz, compressed.npz and pictures there",
          type=Path, metavar="DIR")
    for name, text in (("--json", "one JSON object on standard output, table on standard error"),
                       ("--quiet", "no progress bar and no table"),
                       ("--debug", "show the traceback of an error")):
        group.add_argument(name, action="store_true", help=text)


def compress(args):
    """lcref compress: the reference net, direct compression and LC, compared."""
    from threadpoolctl import threadpool_limits
    begin = time.perf_counter()
    with threadpool_limits(args.threads):
        job = _prepare(args)
        with _progress(args, job) as progress:
            reference, trained = _reference(args, job, progress)
            result = lc.compress(reference, job["tasks"], _sgd(args, job, progress),
                                 job["schedule"], job["evaluate"], _show_step(args, progress))
        summary = _summary(args, job, reference, result)
    summary["seconds"] |= {"reference": trained, "total": time.perf_counter() - begin}
    if args.out:
        _write_all(args.out, lambda folder: _write(folder, summary, reference, result, job))
    if not args.quiet:
        print(_table(args, job, summary), file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(summary, indent=1))
    return 0


def _prepare(args):
    """Everything that can be wrong is looked at before any training: a dict of what was built."""
    from . import data, nets
    if args.compress is not None and args.task:
        raise ValueError("give either --compress for all weights or --task, not both")
    if args.threads < 1 or args.seed < 0 or args.reference_epochs < 0:
        raise ValueError("--threads must be at least 1, --seed and --reference-epochs at least 0")
    if args.out and not (args.out.is_dir() or not args.out.exists()):
        raise ValueError(f"--out {args.out} is a file, not a folder")
    schedule = lc.Schedule(args.mu0, args.growth, args.steps, args.penalty)
    compression = parse(COMPRESSION if args.compress is None else args.compress)
    tasks = [parse_task(text) for text in args.task or ()]
    dataset = data.load(args.data, args.data_dir)
    activation = args.activation or ("relu" if args.net == "lenet300" else None)
    net = nets.build(args.net, dataset.x_train.shape[1], dataset.classes, activation)
    params = _weights(args.reference, net) if args.reference else net.init(
        np.random.default_rng(args.seed))
    tasks = tasks or [Task(tuple(net.weights), compression)]
    lc.check(params, tasks)
    for task in tasks:
        task.compression.check({name: params[name] for name in task.names})

    def evaluate(params):
        train = nets.evaluate(net, params, dataset.x_train, dataset.y_train)
        test = nets.evaluate(net, params, dataset.x_test, dataset.y_test)
        return {"loss": train["loss"], "train_error": train["error"], "test_error": test["error"]}

    return {"dataset": dataset, "net": net, "params": params, "tasks": tasks,
            "schedule": schedule, "evaluate": evaluate}


def _weights(file, net):
    """The reference weights in a file, as float32, checked against the net."""
    from .nets.checkpoints import read_npz
    params = read_npz(file)
    try:
        net.check(params)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return {name: params[name].astype(np.float32) for name in net.shapes}


def _sgd(args, job, progress, **settings):
    """The L step; with settings, the training of a reference."""
    from .lsteps import SGD
    from .nets import value_and_grad
    options = {"decay": args.lr_decay, "epochs": args.epochs, "first_epochs": args.first_epochs}
    dataset = job["dataset"]
    return SGD(value_and_grad(job["net"]), dataset.x_train, dataset.y_train, lr=args.lr,
               momentum=args.momentum, batch=args.batch, seed=args.seed,
               on_batch=lambda *_: progress.update(), **(options | settings))


def _reference(args, job, progress):
    """The reference weights, trained unless they were given, and the seconds that took."""
    begin, params = time.perf_counter(), job["params"]
    train = _sgd(args, job, progress, decay=1.0, epochs=args.reference_epochs, first_epochs=None)
    if not args.reference:
        progress.set_description("reference")
        params, _ = train(params, {}, 1.0, 0, None)
    progress.set_description("LC")
    return params, time.perf_counter() - begin


def _progress(args, job):
    from tqdm import tqdm
    first = args.epochs if args.first_epochs is None else args.first_epochs
    epochs = first + (args.steps - 1) * args.epochs
    epochs += 0 if args.reference else args.reference_epochs
    batches = -(-len(job["dataset"].x_train) // max(args.batch, 1))
    return tqdm(total=epochs * batches, unit="batch", disable=args.quiet or None, file=sys.stderr,
                leave=False, dynamic_ncols=True)


def _show_step(args, progress):
    def show(step):
        progress.set_description(f"LC step {step.step + 1} of {args.steps}")
        progress.set_postfix_str(f"test error {step.compressed_report['test_error']:.2f}%, "
                                 f"feasibility {step.feasibility:.1e}")
    return show


def _summary(args, job, reference, result):
    """What --json prints and history.json starts with."""
    totals = {phase: sum(step["seconds"][phase] for step in result.history)
              for phase in ("l_step", "c_step", "evaluate")}
    settings = {name: value for name, value in vars(args).items()
                if name not in ("run", "verb", "out", "json", "quiet", "debug")}
    return {
        "reference": job["evaluate"](reference), "direct": job["evaluate"](result.direct),
        "lc": {key: result.last.compressed_report[key]
               for key in ("train_error", "test_error", "loss")},
        "ratio": result.ratio, "feasibility": result.feasibility, "seconds": totals,
        "tasks": [str(task) for task in job["tasks"]],
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()},
        "versions": {"lcref": __version__, "numpy": np.__version__,
                     "python": platform.python_version()},
    }


def _table(args, job, summary):
    """The result for people."""
    net, ratio, seconds = job["net"], summary["ratio"], summary["seconds"]
    title = " ".join(filter(None, [net.name, net.activation and f"({net.activation})", "on",
                                   job["dataset"].name]))
    rows = [f"{title}; {'; '.join(summary['tasks'])}", "",
            f"{'':20}{'train error':>13}{'test error':>13}{'training loss':>16}"]
    for label, key in (("reference", "reference"), ("direct compression", "direct"), ("LC", "lc")):
        row = summary[key]
        rows.append(f"{label:20}{row['train_error']:>11.2f} %{row['test_error']:>11.2f} %"
                    f"{row['loss']:>16.2e}")
    other = "float16" if args.storage == "float32" else "float32"
    rows += ["", f"ratio {ratio[args.storage]:.2f} with {args.storage} corrections and factors, "
             f"{ratio[other]:.2f} with {other}",
             f"feasibility ‖w − Δ(θ)‖ / ‖w‖ = {summary['feasibility']:.1e}",
             f"{seconds['l_step']:.1f} s in L steps, {seconds['c_step']:.1f} s in C steps, "
             f"{seconds['total']:.1f} s in all"]
    if args.out:
        rows.append(f"written to {args.out}")
    return "\n".join(rows)


def _write_all(out, write):
    """Let `write` fill a folder beside `out`, then move its files in: all of them or none."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        write(Path(scratch))
        out.mkdir(exist_ok=True)
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
    for i, task in enumerate(job["tasks"]):
        suffix = f"-{i + 1}" if len(job["tasks"]) > 1 else ""
        parts = _parts_by_tensor(task, result.thetas[i])
        vectors = [(label, np.concatenate([np.ravel(dense[name]) for name in task.names]))
                   for label, dense in parts]
        plots.parts_figure([(label, v, v != 0 if label.startswith("prune") else None)
                            for label, v in vectors],
                           np.concatenate([np.ravel(reference[name]) for name in task.names]),
                           folder / f"parts{suffix}.png")
        name = task.names[0]
        plots.layer_figure(name, reference[name], [(label, dense[name]) for label, dense in parts],
                           folder / f"layer{suffix}.png")


def _parts_by_tensor(task, theta):
    """(text, dict of name to array) of every part of a task."""
    terms = getattr(task.compression, "terms", (task.compression,))
    thetas = theta.parts if len(terms) > 1 else (theta,)
    dense = [t.decompress() for t in thetas]
    return [(str(term), d if isinstance(d, dict) else {task.names[0]: d})
            for term, d in zip(terms, dense)]
