"""L steps of lcref and of PyTorch, on this machine, in one run.

Both train the same net from the same weights on the same data, each in its own order, with the
same number of threads: forward, backward, the penalty μ/2 ‖w − target‖² and Nesterov's update,
batch after batch. They take turns, and the medians of the turns are compared. Peak memory is that
of a fresh process which takes one L step and does nothing else.
"""
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from .. import nets
from ..devices import Device, device
from ..inputs import did_you_mean
from ..lsteps import SGD
from .timing import finished, in_fresh_process, medians, peak_so_far

__all__ = ["LStep", "TASKS", "l_step"]

TASKS = {"lenet300": ((784,), 256, 40), "lenet5": ((1, 28, 28), 256, 8),
         "resnet20": ((3, 32, 32), 128, 4)}     # shape of an input, batch, batches of a turn
MU, RATE, MOMENTUM = 1e-3, 1e-3, 0.9
GPU_EPOCHS = 100    # of a turn there, over the same batches: most of a short one would be its start


@dataclass(frozen=True)
class LStep:
    """Milliseconds a batch, medians of the turns, and peak memory in MB, of one net.

    `step_mb` is the part of the peak that came after the libraries were loaded. What PyTorch
    would show is None where it is not installed or does not run on the device, and memory where
    that is not the host.
    """

    net: str
    batch: int
    lcref_ms: float
    lcref_mb: float | None = None
    lcref_step_mb: float | None = None
    torch_ms: float | None = None
    torch_mb: float | None = None
    torch_step_mb: float | None = None
    ratio: float | None = None


def l_step(name: str, threads: int = 1, turns: int = 7, where: str = "cpu") -> LStep:
    """Compare the L step of one net with PyTorch's.

    Parameters
    ----------
    name : "lenet300", "lenet5" or "resnet20"
    threads : int
        Of each of the two.
    turns : int, at least 1
        How many times each has its turn, after one that is not counted.
    where : str
        The device of `lcref.devices` on which both run; PyTorch on the host or a GPU.

    Raises
    ------
    ValueError
        Unknown name, threads or turns under 1.

    Notes
    -----
    PyTorch runs eagerly in float32 with contiguous images. It is loaded only here.
    """
    known_net(name)
    if turns < 1:
        raise ValueError(f"turns must be at least 1, got {turns}")
    here, batch = device(where), TASKS[name][1]
    kinds = ["lcref", "torch"] if has_torch(here) else ["lcref"]
    with nets.threads(threads):
        steps = [STEPS[kind](name, threads, here) for kind in kinds]
        times = medians([finished(step, here) for step in steps], turns, adapt=False)
    times = [t / (TASKS[name][2] * _epochs(here)) for t in times]
    row = LStep(name, batch, 1e3 * times[0])
    if here.kind == "cpu":
        peaks = [_peak(kind, name, threads) for kind in kinds]
        row = replace(row, **{f"{kind}_{what}": value for kind, both in zip(kinds, peaks)
                              for what, value in zip(("mb", "step_mb"), both)})
    for t in times[1:]:
        row = replace(row, torch_ms=1e3 * t, ratio=times[0] / t)
    return row


def has_torch(here: Device) -> bool:
    """Whether PyTorch is installed, and computes on a device."""
    if here.kind == "strict" or find_spec("torch") is None:
        return False
    import torch

    return here.kind == "cpu" or torch.cuda.device_count() > here.number


def known_net(name: str) -> None:
    """ValueError where no net of that name is measured."""
    if name not in TASKS:
        raise ValueError(f"unknown net {name!r}{did_you_mean(name, TASKS)}")


def _epochs(here):
    return GPU_EPOCHS if here.kind == "cuda" else 1


def _problem(name):
    """(net, parameters, targets, inputs, labels), the same for both."""
    shape, batch, batches = TASKS[name]
    net, rng = nets.build(name, shape, 10), np.random.default_rng(0)
    params = net.init(rng)
    x = rng.normal(size=(batch * batches, *shape)).astype(np.float32)
    targets = {name: np.sign(params[name]) * np.float32(0.01) for name in net.weights}
    return net, params, targets, x, rng.integers(0, 10, batch * batches)


def _lcref_step(name, threads, here=Device("cpu")):
    net, *arrays = _problem(name)
    params, targets, x, labels = map(here.put, arrays)
    sgd = SGD(nets.value_and_grad(net), x, labels, lr=RATE, momentum=MOMENTUM,
              batch=TASKS[name][1], epochs=_epochs(here), decay=1.0, capture=here.capture)
    state = None

    def step():
        nonlocal params, state
        params, state = sgd(params, targets, MU, 1, state)
    return step


# ---- PyTorch


def _torch_step(name, threads, here=Device("cpu")):
    import torch

    torch.set_num_threads(threads)
    net, params, targets, x, labels = _problem(name)
    x, labels = (torch.from_numpy(a).to(here.name) for a in (x, labels))
    p: dict[str, Any] = {key: torch.from_numpy(value.copy()).to(here.name)
                         for key, value in params.items()}
    target = {key: torch.from_numpy(value).to(here.name) for key, value in targets.items()}
    trained = [p[key].requires_grad_() for key in p if key not in net.statistics]
    update = torch.optim.SGD(trained, lr=RATE, momentum=MOMENTUM, nesterov=True)
    tf32 = os.environ.get("CUPY_TF32") == "1"       # off, unless lcref has it too
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32

    def rows_of_batches():
        for _ in range(_epochs(here)):
            yield from torch.randperm(len(x), device=here.name).split(TASKS[name][1])

    def step():
        for rows in rows_of_batches():
            update.zero_grad()
            logits = TORCH_NETS[name](torch.nn.functional, p, x[rows])
            torch.nn.functional.cross_entropy(logits, labels[rows]).backward()
            with torch.no_grad():
                for key, t in target.items():
                    p[key].grad.add_(p[key] - t, alpha=MU)
            update.step()
    return step


def _torch_lenet300(F, p, x):
    for layer in ("fc1", "fc2"):
        x = F.linear(x, p[f"{layer}.weight"], p[f"{layer}.bias"]).tanh()
    return F.linear(x, p["fc3.weight"], p["fc3.bias"])


def _torch_lenet5(F, p, x):
    for layer in ("conv1", "conv2"):
        x = F.max_pool2d(F.relu(F.conv2d(x, p[f"{layer}.weight"], p[f"{layer}.bias"])), 2)
    x = F.relu(F.linear(x.flatten(1), p["fc1.weight"], p["fc1.bias"]))
    return F.linear(x, p["fc2.weight"], p["fc2.bias"])


def _torch_norm(F, p, layer, x):
    return F.batch_norm(x, p[f"{layer}.running_mean"], p[f"{layer}.running_var"],
                        p[f"{layer}.weight"], p[f"{layer}.bias"], training=True)


def _torch_resnet20(F, p, x):
    x = F.relu(_torch_norm(F, p, "bn1", F.conv2d(x, p["conv1.weight"], padding=1)))
    for block in (f"layer{group}.{i}" for group in (1, 2, 3) for i in range(3)):
        w, v = p[f"{block}.conv1.weight"], p[f"{block}.conv2.weight"]
        stride, extra = (2, len(w) // 4) if len(w) > x.shape[1] else (1, 0)
        h = F.relu(_torch_norm(F, p, f"{block}.bn1", F.conv2d(x, w, stride=stride, padding=1)))
        h = _torch_norm(F, p, f"{block}.bn2", F.conv2d(h, v, padding=1))
        if extra:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))
        x = F.relu(h + x)
    return F.linear(x.mean((2, 3)), p["linear.weight"], p["linear.bias"])


TORCH_NETS: dict[str, Callable[..., Any]] = {
    "lenet300": _torch_lenet300, "lenet5": _torch_lenet5, "resnet20": _torch_resnet20}


STEPS: dict[str, Callable[..., Callable[[], None]]] = {
    "lcref": _lcref_step, "torch": _torch_step}


# ---- memory


def _peak(kind, name, threads):
    """Peak memory in MB of a fresh process that takes one L step, and how much the step added."""
    return in_fresh_process(_measure_peak, kind, name, threads)


def _measure_peak(kind, name, threads):
    if kind == "torch":
        import torch

        torch.ones(1)
    before = peak_so_far()
    with nets.threads(threads):
        STEPS[kind](name, threads)()
    peak = peak_so_far()
    return peak, peak - before
