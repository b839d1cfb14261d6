"""What must hold of every step's record, judged without the code that made it.

    judge = Judge(reference, tasks, schedule, direct, loss)
    lcref.compress(reference, tasks, l_step, schedule, evaluate, on_step=judge)
    judge.faults, judge.counts

The parts are decompressed and their bits counted by a second implementation, NumPy alone;
feasibility is judged by `lcref.verify`, which shares no code with the projections. Rounding is
bounded, to first order with the factor MORE for the higher ones.
"""
import collections
import dataclasses
import functools
import hashlib
import math
import time

import numpy as np

from lcref import parts
from lcref.tolerance import sum_slack
from lcref.verify import certify

U = 2.0 ** -24      # of float32: half the distance from 1 to the next number
TINY = 2.0 ** -149  # the smallest float32
MORE = 1.01         # n·u < 0.001 for all the sums here, so what (1 + u)^n adds is far less

# ---- θ, a second time


def dense(theta):
    """Δ(θ), an array or a dict of arrays."""
    if isinstance(theta, parts.ByTensor):
        return {name: dense(part) for name, part in theta.parts.items()}
    if isinstance(theta, parts.Sum):
        live = [part for part in theta.parts if not _empty(part)] or theta.parts[:1]
        return functools.reduce(_added, map(dense, live))
    if isinstance(theta, parts.Codebook):
        found = theta.entries[theta.codes]
    elif isinstance(theta, parts.Sparse):
        found = np.zeros(math.prod(theta.shape) if theta.axis is None else theta.shape,
                         theta.values.dtype)
        np.moveaxis(found, theta.axis or 0, 0)[theta.indices] = np.moveaxis(
            theta.values, theta.axis or 0, 0)
        found = found.reshape(theta.shape)
    elif isinstance(theta, parts.LowRank):
        found = theta.left @ theta.right
        if theta.scheme == 1:
            return found.reshape(theta.shape)
        out, inputs, high, wide = theta.shape
        return found.reshape(out, high, inputs, wide).swapaxes(1, 2)
    else:
        found = theta.values
    if theta.layout is None:
        return found
    ends = np.cumsum([math.prod(shape) for shape in theta.layout.shapes])[:-1]
    return {name: piece.reshape(shape) for name, shape, piece
            in zip(theta.layout.names, theta.layout.shapes, np.split(found.ravel(), ends))}


def _empty(theta):
    """Whether a part has no values: what a sum leaves out, to the sign of zero."""
    if isinstance(theta, (parts.ByTensor, parts.Sum)):
        return all(map(_empty, parts.leaves(theta.parts) if isinstance(theta, parts.ByTensor)
                       else theta.parts))
    return not getattr(theta, {"Sparse": "values", "LowRank": "left"}.get(
        type(theta).__name__, "none"), np.ones(1)).size


def _added(one, other):
    return {name: one[name] + other[name] for name in one} if isinstance(one, dict) else one + other


def bits(theta, width):
    """Bits of θ with corrections and factors of the given width, codebooks of 32."""
    if isinstance(theta, parts.ByTensor):
        return sum(bits(part, width) for part in theta.parts.values())
    if isinstance(theta, parts.Sum):
        return sum(bits(part, width) for part in theta.parts)
    if isinstance(theta, parts.Codebook):
        used = len(np.unique(theta.codes))
        numbers = {"free": used, "scaled": min(used, 1), "fixed": 0}[theta.stored]
        return theta.codes.size * math.ceil(math.log2(max(used, 1))) + 32 * numbers
    if isinstance(theta, parts.Sparse):
        gaps = np.diff(theta.indices, prepend=-1) - 1
        codes = [b * int(np.sum(1 + gaps // (2 ** b - 1))) for b in range(1, 32)]
        return theta.values.size * width + min(codes)
    if isinstance(theta, parts.LowRank):
        return (theta.left.size + theta.right.size) * width
    return theta.values.size * theta.width


# ---- the loss of a fully connected net, a second time


def loss_of(activation, params, x, labels):
    """The mean cross-entropy in float64, and by how much that in float32 may differ.

    A product of n terms is off by at most (n + 2)·u·(abs(W) abs(h) + abs(b)), besides what h is
    off by, times abs(W); relu and tanh bring two numbers no further apart, tanh is off by 4u. The
    cross-entropy is off by at most twice the largest error of a logit, and by its own rounding:
    sums of 10 and of 250 terms, in whatever order.
    """
    h, off = x.astype(np.float64), np.zeros(x.shape)
    layers = [name[:-7] for name in params if name.endswith(".weight")]
    for layer in layers:
        w, b = (params[f"{layer}.{what}"].astype(np.float64) for what in ("weight", "bias"))
        off = off @ abs(w.T) + (w.shape[1] + 2) * U * ((abs(h) + off) @ abs(w.T) + abs(b))
        h = h @ w.T + b
        if layer != layers[-1]:
            h = np.tanh(h) if activation == "tanh" else np.maximum(h, 0)
            off += 4 * U
    z = h - h.max(axis=1, keepdims=True)
    loss = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]
    rounding = (250 + 10 + 8) * U * (loss + abs(z).max(axis=1) + 1)
    return loss.mean(), MORE * (2 * off.max(axis=1) + rounding).mean()


# ---- one step


@dataclasses.dataclass
class Seen:
    """A step, what was before it, and how the path is made."""
    step: object
    before: object          # the Step before, or the start of the path
    reference: dict
    tasks: tuple
    schedule: object
    loss: object
    wall: float             # seconds since the step before

    def target(self):
        """What the C step compressed: w − λ/μ."""
        return {name: w - self.before.lam[name] / self.step.mu for name, w in self.step.w.items()}


def _same(one, other):
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes() for name in one)


def _decompressed(tasks, thetas):
    found = {}
    for i, task in enumerate(tasks):
        delta = dense(thetas[i])
        found |= delta if isinstance(delta, dict) else {task.names[0]: delta}
    return found


def _alike(seen):
    """Every array has the shape and dtype of the reference's, and is finite."""
    step, like = seen.step, seen.reference
    return list(step.params) == list(like) and all(
        array.shape == like[name].shape and array.dtype == like[name].dtype
        and np.isfinite(array).all()
        for tree in (step.params, step.delta, step.lam) for name, array in tree.items())


def _multipliers(seen):
    """λ ← λ − μ (w − Δ(θ)): three operations, each rounded once, and μ to float32."""
    step, mu = seen.step, seen.step.mu
    if seen.schedule.penalty == "quadratic":
        return not any(np.any(lam) for lam in step.lam.values())
    for name, w in step.w.items():
        moved = mu * (w.astype(np.float64) - step.delta[name])
        lam = seen.before.lam[name] - moved
        room = MORE * U * (3 * abs(moved) + abs(lam)) + 2 * (1 + mu) * TINY
        if not np.all(abs(step.lam[name] - lam) <= room):
            return False
    return True


def _feasibility(seen):
    """‖w − Δ(θ)‖ / ‖w‖: each difference is rounded once, the sums are of float64."""
    w, delta = (np.concatenate([tree[name].ravel() for name in seen.step.delta]).astype(np.float64)
                for tree in (seen.step.w, seen.step.delta))
    ratio = np.linalg.norm(w - delta) / np.linalg.norm(w)
    return bool(abs(seen.step.feasibility - ratio) <= MORE * 2 * U * ratio)


def _by_task(seen):
    """(task, its target, θ, θ of the step before)."""
    target = seen.target()
    for i, task in enumerate(seen.tasks):
        yield (task, {name: target[name] for name in task.names}, seen.step.theta[i],
               seen.before.theta[i])


def _feasible(seen):
    """θ is in its set, and no nearer than its C step says that any point can be."""
    found = []
    for task, target, theta, _ in _by_task(seen):
        judged = certify(target, theta, task.compression, seen.step.mu)
        found += [f"{task}: {judged.reason}"] * (not judged.feasible)
        if not judged.excess <= theta.gap + judged.tolerance:
            found += [f"{task}: {judged.excess} above the optimum, its gap is {theta.gap}"]
    return found


def _claimed(theta):
    """What θ may lie above another: gaps that are known, those of tensors added."""
    if isinstance(theta, parts.ByTensor):
        return sum(map(_claimed, theta.parts.values()))
    return theta.gap if math.isfinite(theta.gap) else 0.0


def _no_worse(seen):
    """The C step leaves ‖w − λ/μ − Δ(θ)‖², penalty included, no higher than the θ before."""
    found = []
    for task, target, theta, old in _by_task(seen):
        costs = [sum(float(np.sum((target[name].astype(np.float64) - delta) ** 2))
                     for name, delta in _decompressed([task], [part]).items())
                 + task.compression.penalty(part, seen.step.mu) for part in (theta, old)]
        pieces = [_decompressed([task], [part]) for part in getattr(theta, "parts", (theta,))
                  ] if isinstance(theta, parts.Sum) else [_decompressed([task], [theta])]
        if not costs[0] <= costs[1] + _claimed(theta) + sum_slack(target, pieces, costs[1], 1.0):
            found.append(f"{task}: {costs[0]!r}, before {costs[1]!r}")
    return found


def _losses(seen):
    """The losses are those of params and of params with Δ(θ) in their place."""
    step, found = seen.step, []
    for params, loss in ((step.params, step.loss),
                         ({**step.params, **step.delta}, step.compressed_loss)):
        right, room = seen.loss(params)
        found += [f"{loss!r}, not {right!r} ± {room:.1e}"] * (not abs(loss - right) <= room)
    return found


def _frozen(seen):
    for field in dataclasses.fields(seen.step):
        try:
            setattr(seen.step, field.name, None)
        except dataclasses.FrozenInstanceError:
            continue
        return False
    return True


CHECKS = {      # each gives True, or whatever is wrong; None where it does not apply
    "steps are consecutive": lambda s: s.step.step == s.before.step + 1,
    "mu is mu0·a^k": lambda s: s.step.mu == s.schedule.mu0 * s.schedule.a ** s.step.step,
    "arrays are like the reference's, and finite": _alike,
    "delta is theta decompressed": lambda s: _same(
        s.step.delta, _decompressed(s.tasks, s.step.theta)),
    "compressed is params with delta": lambda s: _same(
        s.step.compressed, {**s.step.params, **s.step.delta}),
    "theta is feasible, and as good as it claims": lambda s: _feasible(s) or True,
    "the C step is no worse than the theta before": lambda s: _no_worse(s) or True,
    "lam is lam - mu (w - delta)": _multipliers,
    "feasibility is that of w and delta": _feasibility,
    "the losses are those of both nets": lambda s: s.loss and (_losses(s) or True),
    "seconds are at most the wall's": lambda s: (
        set(s.step.seconds) == {"l_step", "c_step", "evaluate"}
        and min(s.step.seconds.values()) >= 0 and sum(s.step.seconds.values()) <= s.wall),
    "the record is frozen": _frozen,
}


def _hash(step):
    digest = hashlib.sha256()
    for tree in (step.params, step.delta, step.lam, *map(dense, step.theta.values())):
        for array in parts.leaves(tree):
            digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


class Judge:
    """Called with every step of a path, in order.

    Parameters
    ----------
    reference, tasks, schedule
        Those of the path.
    start : Step
        One before the first: θ of direct compression, λ = 0, step −1.
    loss : callable, optional
        params -> (loss, by how much the loss found may differ).
    """

    def __init__(self, reference, tasks, schedule, start, loss=None):
        self.made = reference, tuple(tasks), schedule, loss
        self.before, self.hash, self.clock = start, _hash(start), time.perf_counter()
        self.faults, self.counts = [], collections.Counter()

    def __call__(self, step):
        seen = Seen(step, self.before, *self.made, time.perf_counter() - self.clock)
        for name, check in CHECKS.items():
            try:
                found = check(seen)
            except Exception as error:      # of a record so wrong that it cannot be judged
                found = f"{type(error).__name__}: {error}"
            self.note(f"step {step.step}: ", name, found)
        self.note(f"step {step.step}: ", "the record before is as it was",
                  _hash(self.before) == self.hash)
        self.before, self.hash = step, _hash(step)
        self.clock = time.perf_counter()

    def note(self, where, name, found):
        """Count a check, and keep what it found unless that is True."""
        if found is None:
            return
        self.counts[name] += 1
        if found is not True:
            self.faults.append(f"{where}{name}: {found}"[:500])

    def end(self, result):
        """Judge the result of the path, after its last step."""
        step, full = self.before, sum(p.size for p in result.params.values())
        rest = full - sum(delta.size for delta in step.delta.values())
        ratio = {f"float{width}": 32 * full / (32 * rest + sum(
            bits(theta, width) for theta in step.theta.values())) for width in (16, 32)}
        self.note("", "the ratio is that of the bits", result.ratio == ratio
                  and min(ratio.values()) > 0 or [result.ratio, ratio])
        self.note("", "the result is the last step's", _same(result.params, step.compressed))
