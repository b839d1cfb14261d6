"""`lcref train` and `lcref eval`: a reference net, and the error of one."""

import json
import math
import os
import platform
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import __version__, data, nets, resume, storage
from .devices import device
from .folder import naming, sha256, to_disk, write_whole
from .inference import from_parts
from .lsteps import LBFGS, SGD, Diverged
from .nets.checkpoints import read_params, write_npz
from .nets.models import CHOOSE

__all__ = ["about", "check_writable", "errors", "inputs_of_training", "problem", "report",
           "run_eval", "run_of", "run_train", "training_problem"]


def problem(args) -> tuple[data.Dataset, nets.Net]:
    """The data set and the net that the flags name, and the inputs in the net's shape.

    Its arrays are where --device says, bytes as bytes.
    """
    put, (dataset, net) = device(args.device).put, _loaded(args)
    return _placed(dataset, put, "x_train", "y_train", "x_test", "y_test"), net


def training_problem(args) -> tuple[data.Dataset, data.Dataset | None, nets.Net]:
    """The same, with what --hold-out leaves of the training set, and what it holds out, if any."""
    put, (dataset, net) = device(args.device).put, _loaded(args)
    rest, held = dataset.split(args.hold_out) if args.hold_out else (dataset, None)
    rest = _placed(rest, put, "x_train", "y_train", "x_test", "y_test")
    if held:    # its training set, which is the whole, is not looked at: it is not put there twice
        held = _placed(replace(held, x_train=rest.x_train, y_train=rest.y_train), put, "x_test",
                       "y_test")
    return rest, held, net


def _loaded(args):
    """The data set, on the host, and the net."""
    dataset = data.load(args.data, args.data_dir)
    usual = "relu" if args.net in CHOOSE else None
    activation = usual if args.activation is None else args.activation
    net = nets.build(args.net, dataset.image or dataset.x_train.shape[1], dataset.classes,
                     activation)
    return dataset.shaped(net.input_shape), net


def _placed(dataset, put, *names):
    """The arrays named where `put` puts them; names of files stay, and what is read is put."""
    if dataset.read_later:
        dataset = dataset.then(put)
        names = tuple(name for name in names if name.startswith("y"))
    return replace(dataset, **{name: put(getattr(dataset, name)) for name in names})


def inputs_of_training(args, dataset: data.Dataset, net: nets.Net) -> dict[str, Any]:
    """What SGD is told of the batches: how they are prepared, and of what is random."""
    augment = dataset.augment if args.augment else None
    return {"momentum": args.momentum, "weight_decay": args.weight_decay, "batch": args.batch,
            "seed": args.seed, "draws": net.random, "prepare": augment or dataset.prepare,
            "epoch_decay": args.epoch_decay,
            "capture": None if net.random else device(args.device).capture}


def errors(net: nets.Net, params, dataset: data.Dataset, part: str) -> dict[str, float]:
    """Loss and error in percent over the part "train" or "test" of a data set, as stored.

    Raises
    ------
    FloatingPointError
        The loss is not finite: the weights are too large.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found = nets.evaluate(net, params, getattr(dataset, f"x_{part}"),
                              getattr(dataset, f"y_{part}"), batch=250, prepare=dataset.prepare)
    if not math.isfinite(found["loss"]):
        raise FloatingPointError(f"the loss of {net.name} over the {part} set is {found['loss']}: "
                                 "its weights are too large")
    return found


def report(net: nets.Net, params, dataset: data.Dataset,
           held: data.Dataset | None = None) -> dict[str, float]:
    """Training loss, training and test error in percent, and that of what was held out, if any."""
    train, test = (errors(net, params, dataset, part) for part in ("train", "test"))
    found = {"loss": train["loss"], "train_error": train["error"], "test_error": test["error"]}
    return found | ({"held_out_error": errors(net, params, held, "test")["error"]} if held else {})


def check_writable(out: Path) -> None:
    """Raise OSError or ValueError unless a folder `out` can be made, or written to."""
    folder = out
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise ValueError(f"--out {out}: {folder} is not a folder")
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".lcref-"):
            pass
    except OSError as error:
        raise OSError(f"--out {out}: {folder} cannot be written to: {error.strerror}") from None


# ---- lcref eval


def run_eval(args) -> int:
    """lcref eval: print the error of the weights in a file."""
    model = storage.load(args.file) if storage.is_packed(args.file) else None
    prepared = _use_own(args, model)
    dataset, net = problem(args)
    if prepared not in (None, dataset.preprocessing):
        raise ValueError(f"{args.file} is for {dataset.name} as {prepared}, not as "
                         f"{dataset.preprocessing}")
    params = device(args.device).put(read_params(args.file, net))
    if args.from_parts:
        if model is None:
            raise ValueError(f"{args.file} is not a packed file: it has no parts")
        if args.device != "cpu":
            raise ValueError(f"--from-parts computes on the host: leave out --device {args.device}")
        params = from_parts(params, model.tasks, model.thetas)
    found = _evaluated(args, net, params, dataset)
    summary = {f"{part}_{what}": result[what] for part, result in found.items()
               for what in ("error", "loss")}
    text = "; ".join(f"{part} error {result['error']:.2f} %, loss {result['loss']:.4g}"
                     for part, result in found.items())
    if not args.quiet:
        print(f"{_called(net)} on {dataset.name}: {text}",
              file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps({**summary, "weights": str(args.file), "net": net.name,
                          "activation": net.activation, "data": dataset.name}, indent=1))
    return 0


def _evaluated(args, net, params, dataset):
    """Loss and error by part of the data set; an error names the file."""
    try:
        with nets.threads(args.threads):
            return {part: errors(net, params, dataset, part)
                    for part in ("test", "train")[:1 + args.train]}
    except FloatingPointError as error:
        raise ValueError(f"{args.file}: {error}") from None


def _use_own(args, model):
    """Set --net, --activation and --data to what a packed file is for; return its preprocessing.

    A flag that says something else is an error.
    """
    net, data = ({}, {}) if model is None else (model.says(key) for key in ("net", "data"))
    for flag, own, usual in (("net", net.get("name"), "lenet300"), ("data", data.get("name"),
                             "digits"), ("activation", net.get("activation"), None)):
        given = getattr(args, flag)
        if own is not None and given not in (None, own):
            raise ValueError(f"--{flag} {given}, but {args.file} is for {own}")
        setattr(args, flag, given if given is not None else own or usual)
    return data.get("preprocessing")


def _called(net):
    return f"{net.name} ({net.activation})" if net.activation else net.name


# ---- lcref train


def run_train(args) -> int:
    """lcref train: train a net, or go on, and write it after every epoch."""
    args = resume.arguments(args)
    with resume.blaming(args):
        _check(args)
        dataset, held, net = training_problem(args)
        params = device(args.device).put(read_params(args.reference, net) if args.reference else
                                         net.init(np.random.default_rng(args.seed)))
        train = {"sgd": _sgd, "lbfgs": _lbfgs}[args.optimizer](args, dataset, net)
    run = run_of(args, dataset, net, params)
    with nets.threads(args.threads), resume.opened(args, run) as record:
        params, history = train(record, params)
        found = report(net, params, dataset, held)
        summary = {**{key: found[key] for key in found if key != "loss"}, **about(args),
                   "weights": str(args.out / "weights.npz"), "seconds": record.seconds}
        _write(args.out, params, {**summary, "epochs": history})
        record.end("done")
    if args.json:
        print(json.dumps(summary, indent=1))
    if not args.quiet:
        text = ", ".join(f"{part.replace('_', '-')} error {summary[f'{part}_error']:.2f} %"
                         for part in ("test", "train", "held_out")[:3 if held else 2])
        print(f"{_called(net)} on {dataset.name}: {text}; {summary['weights']}",
              file=sys.stderr if args.json else sys.stdout)
    return 0


def _check(args):
    """Raise ValueError or OSError for what the flags alone show to be wrong."""
    if args.out is None:
        raise ValueError("--out DIR says where the weights go; or give --resume DIR")
    check_writable(args.out)


def run_of(args, dataset: data.Dataset, net: nets.Net, params) -> dict[str, Any]:
    """What a run is, in JSON: a checkpoint of it is of no use to a run of which this differs."""
    arrays = dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test
    return json.loads(json.dumps({
        "command": args.verb, "settings": resume.settings_of(args)[0], "versions": resume.VERSIONS,
        "net": {"name": net.name, "activation": net.activation, "shapes": net.shapes},
        "device": device(args.device).facts,
        "data": {"name": dataset.name, "sha256": sha256(*arrays)},
        "reference": {"sha256": sha256(params)} if args.reference else None}))


def about(args) -> dict[str, Any]:
    """The settings, the GPU if any, and the versions that made a result."""
    left_out = (*resume.NEITHER, "json", "quiet", "debug", "checkpoint_minutes")
    settings = {name: str(value) if isinstance(value, Path) else value
                for name, value in vars(args).items() if name not in left_out}
    return {"settings": settings, "device": device(args.device).facts, "versions": {
        "lcref": __version__, "numpy": np.__version__, "python": platform.python_version()}}


def _write(out, params, history):
    file, text = out / "weights.npz", json.dumps(history, indent=1) + "\n"
    with naming(file):
        write_npz(file, params)
        to_disk(file)
    write_whole(out / "history.json", lambda stream: stream.write(text.encode()))


def _sgd(args, dataset, net):
    """A function of (record, params) that trains for the epochs, each an L step of its own."""
    drops = args.milestones or ()

    def rate(epoch, _):
        return args.lr * 0.1 ** sum(epoch >= drop for drop in drops) * args.epoch_decay ** epoch

    settings = inputs_of_training(args, dataset, net)
    task = nets.value_and_grad(net), dataset.x_train, dataset.y_train
    SGD(*task, lr=args.lr, **settings)      # refuses settings that are out of their range
    bar = tqdm(unit="batch", disable=args.quiet or None, file=sys.stderr, leave=False,
               total=args.epochs * -(-dataset.x_train.shape[0] // args.batch), dynamic_ncols=True)
    sgd = SGD(*task, lr=rate, epochs=1, **settings | {"epoch_decay": 1.0},
              on_batch=lambda *_: bar.update())

    def train(record, params):
        with bar:
            return _epochs(args, dataset, net, sgd, bar, record, params)
    return train


def _epochs(args, dataset, net, sgd, bar, record, params):
    """Train for the epochs that are left, with all written after each; (params, history)."""
    now, sgd.pause = record.now, record.pause
    params, state = now.pop("params", params), now.pop("state", None)
    history = now.setdefault("history", [])
    bar.update(len(history) * -(-dataset.x_train.shape[0] // args.batch))
    for epoch in range(len(history), args.epochs):
        params, state, found = _one_epoch(args, sgd, params, state, epoch, record,
                                          lambda params: errors(net, params, dataset, "test"))
        history.append({"epoch": epoch, "lr": sgd.lr(epoch, 0), "test_loss": found["loss"],
                        "test_error": found["error"]})
        bar.set_postfix_str(f"test error {found['error']:.2f}%")
        _write(args.out, params, {**about(args), "epochs": history})
        record.write(params=params, state=state)
    return params, history


def _one_epoch(args, sgd, params, state, epoch, record, test):
    """One epoch and its errors; where it diverges, the weights before it are kept, as is said."""
    try:
        found = sgd(params, {}, 1.0, epoch, state)
        return *found, test(found[0])
    except FloatingPointError as error:     # Diverged; or the last batch left weights too large
        good = {"params": params, "state": state, "step": epoch, "epoch": epoch, "batch": None,
                "rate": sgd.lr(epoch, 0)} | vars(error)
        file = args.out / "weights.npz"
        _write(args.out, good["params"], {**about(args), "epochs": record.now["history"]})
        record.end(f"it diverged in epoch {epoch}")
        where = "" if good["batch"] is None else f", batch {good['batch']}"
        raise Diverged(f"the loss or a weight stopped being finite in epoch {epoch}{where}, at "
                       f"learning rate {good['rate']:g}; {file} holds the weights before that "
                       "epoch; try a smaller --lr", **good) from error


def _lbfgs(args, dataset, net):
    if args.device != "cpu":
        raise ValueError(f"--optimizer lbfgs computes on the host: leave out --device "
                         f"{args.device}, or take SGD")
    if args.epochs < 1:
        raise ValueError("--epochs must be at least 1 for lbfgs")
    if net.random:
        raise ValueError(f"--optimizer lbfgs cannot train {net.name}: dropout is random; take SGD")
    lbfgs = LBFGS(nets.value_and_grad(net), dataset.x_train, dataset.y_train,
                  max_iterations=args.epochs, prepare=dataset.prepare, draws=net.random)

    def train(record, params):
        lbfgs.pause = record.pause
        params, state = lbfgs(params, {}, 1.0, 0, None)
        return params, [{key: state[key] for key in ("iterations", "message", "value")}]
    return train
