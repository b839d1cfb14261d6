"""The learning-compression algorithm for additive combinations, as a generator of steps.

    min over w, θ of  L(w)   subject to   w = Δ(θ) = Δ1(θ1) + ... + Δm(θm)  for every task

    w ← reference weights;  θ ← Π(w)  (direct compression);  λ ← 0
    for μ = μ0, μ0·a, μ0·a², ...:
        L step:  w ← argmin L(w) + μ/2 ‖w − Δ(θ) − λ/μ‖²
        C step:  θ ← argmin ‖w − λ/μ − Δ(θ)‖²
        λ ← λ − μ (w − Δ(θ))                 (quadratic penalty: λ stays 0)
        stop when ‖w − Δ(θ)‖ ≤ tol·‖w‖
    return Δ(θ)

Carreira-Perpiñán and Idelbayev, arXiv 2107.04380.
"""

import math
import time
from dataclasses import dataclass, field

from .compressions import Task
from .parts import FLOAT_BITS, FULL_BITS, Part, size, storage_bits
from .projections.inputs import did_you_mean, real_array, whole
from .projections.tolerance import squared_norm


@dataclass(frozen=True)
class Schedule:
    """The penalties μ_k = μ0·a^k of the steps k = 0, 1, ..., and when to stop.

    Parameters
    ----------
    mu0 : float, positive
    a : float, at least 1
        Growth of μ from step to step; 1 keeps it fixed, which with multipliers is ADMM.
    steps : int
        How many steps at most.
    penalty : "augmented" or "quadratic"
        With multipliers λ, or with λ = 0 throughout.
    tol : float
        Stop when ‖w − Δ(θ)‖ ≤ tol·‖w‖.
    passes : int
        L and C steps at each μ; steps counts them all, μ_k = μ0·a^⌊k/passes⌋.
    """

    mu0: float
    a: float
    steps: int
    penalty: str = "augmented"
    tol: float = 0.0
    passes: int = 1

    def __post_init__(self):
        if not 0 < self.mu0 < math.inf:
            raise ValueError(f"mu0 must be positive and finite, not {self.mu0!r}")
        if not 1 <= self.a < math.inf:
            raise ValueError(f"a must be at least 1 and finite, not {self.a!r}")
        if self.penalty not in ("augmented", "quadratic"):
            raise ValueError(f"penalty must be 'augmented' or 'quadratic', not {self.penalty!r}")
        if not self.tol >= 0:
            raise ValueError(f"tol must be at least 0, not {self.tol!r}")
        whole(self.steps, "steps", least=1)
        whole(self.passes, "passes", least=1)

    def mu(self, k):
        """μ of step k."""
        return self.mu0 * self.a ** (k // self.passes)


@dataclass(frozen=True, eq=False)
class Step:
    """What one step of the algorithm left: together with the L step's state, a checkpoint.

    `params` holds every tensor as the L step left it, `w` those of the tasks; `thetas` the part of
    each task by its index; `delta` their decompressed weights and `lam` the multipliers by name.
    `loss` and `compressed_loss`, and all else that `evaluate` reports, are of `params` and of
    `compressed`; None and {} without it. `seconds` has "l_step", "c_step" and "evaluate".
    """

    step: int
    mu: float
    params: dict
    thetas: dict[int, Part]
    delta: dict
    lam: dict
    feasibility: float
    report: dict = field(default_factory=dict)
    compressed_report: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)
    state: object = None

    @property
    def w(self):
        """The uncompressed weights of the tasks."""
        return {name: self.params[name] for name in self.delta}

    @property
    def compressed(self):
        """The compressed net: w replaced by Δ(θ), everything else as the L step left it."""
        return {**self.params, **self.delta}

    @property
    def loss(self):
        return self.report.get("loss")

    @property
    def compressed_loss(self):
        return self.compressed_report.get("loss")

    def summary(self):
        """The scalars of the step, for a history or a JSON file."""
        return {"step": self.step, "mu": self.mu, "feasibility": self.feasibility, **self.report,
                **{f"compressed_{key}": value for key, value in self.compressed_report.items()},
                "status": {i: theta.status for i, theta in self.thetas.items()},
                "seconds": self.seconds}


def c_step(tasks, weights, mu, thetas=None):
    """θ ← argmin ‖weights − Δ(θ)‖² for every task, warm-started from `thetas`; a dict by index."""
    return {i: task.compression.project({name: weights[name] for name in task.names}, mu,
                                        thetas and thetas[i]) for i, task in enumerate(tasks)}


def decompress(tasks, thetas):
    """Δ(θ) of all tasks, a dict of name to array."""
    delta = {}
    for i, task in enumerate(tasks):
        dense = thetas[i].decompress()
        delta.update(dense if isinstance(dense, dict) else {task.names[0]: dense})
    return delta


def iterate(params, tasks, l_step, schedule, evaluate=None, resume=None):
    """The LC algorithm, a generator that yields a frozen Step for every μ.

    Parameters
    ----------
    params : dict of name to array
        The reference net, in any array namespace. Not written to.
    tasks : sequence of Task
        Tensors of no task are trained by the L step alone.
    l_step : callable
        (params, targets, mu, step, state) -> (params, state), the argmin over w of
        L(w) + μ/2 Σ ‖w − target‖² over the names in targets. step counts from 0; state is None at
        first, then whatever the last call returned.
    schedule : Schedule
    evaluate : callable, optional
        params -> dict of numbers, "loss" among them.
    resume : Step, optional
        Go on after this step.

    Yields
    ------
    Step

    Raises
    ------
    ValueError
        No tasks, overlapping tasks, unknown tensors, or weights that are not finite; at the call,
        not at the first step.
    """
    check(params, tasks)
    return _iterate(params, tasks, l_step, schedule, evaluate, resume)


def _iterate(params, tasks, l_step, schedule, evaluate, resume):
    if resume is None:
        thetas, state, first = c_step(tasks, params, schedule.mu(0)), None, 0  # θ ← Π(w)
        delta = decompress(tasks, thetas)
        lam = {name: 0 * delta[name] for name in delta}  # λ ← 0
    else:
        params, thetas, delta, lam = resume.params, resume.thetas, resume.delta, resume.lam
        state, first = resume.state, resume.step + 1
    for k in range(first, schedule.steps):
        mu, clock = schedule.mu(k), [time.perf_counter()]
        # L step: w ← argmin L(w) + μ/2 ‖w − Δ(θ) − λ/μ‖²
        targets = {name: delta[name] + lam[name] / mu for name in delta}
        params, state = l_step(params, targets, mu, k, state)
        clock.append(time.perf_counter())
        # C step: θ ← argmin ‖w − λ/μ − Δ(θ)‖²
        thetas = c_step(tasks, {name: params[name] - lam[name] / mu for name in delta}, mu, thetas)
        delta = decompress(tasks, thetas)
        # λ ← λ − μ (w − Δ(θ))
        if schedule.penalty == "augmented":
            lam = {name: lam[name] - mu * (params[name] - delta[name]) for name in delta}
        clock.append(time.perf_counter())
        record = _record(k, mu, params, thetas, delta, lam, evaluate, state, clock)
        yield record
        if record.feasibility <= schedule.tol:
            return


def _record(k, mu, params, thetas, delta, lam, evaluate, state, clock):
    """The frozen Step, with both nets evaluated."""
    report = evaluate(params) if evaluate else {}
    compressed = evaluate({**params, **delta}) if evaluate else {}
    clock.append(time.perf_counter())
    seconds = dict(zip(("l_step", "c_step", "evaluate"),
                       (after - before for before, after in zip(clock, clock[1:]))))
    return Step(k, mu, params, thetas, delta, lam, feasibility(params, delta), report, compressed,
                seconds, state)


def feasibility(params, delta):
    """‖w − Δ(θ)‖ / ‖w‖ over all tensors of the tasks; 0 where both are 0."""
    distance = sum(squared_norm(params[name] - delta[name]) for name in delta)
    norm = sum(squared_norm(params[name]) for name in delta)
    return math.sqrt(distance / norm) if norm else (math.inf if distance else 0.0)


def check(params, tasks):
    """Raise ValueError unless the tasks are of tensors of params, each in one task, all finite."""
    if not tasks:
        raise ValueError("no tasks: name at least one tensor to compress")
    taken: dict[str, int] = {}
    for i, task in enumerate(tasks):
        if not isinstance(task, Task):
            raise ValueError(f"task {i} must be a Task, not {task!r}")
        for name in task.names:
            if name not in params:
                raise ValueError(f"task {i}: no tensor {name!r}{did_you_mean(name, params)}")
            if name in taken:
                raise ValueError(f"tasks {taken[name]} and {i} both hold {name!r}; two tasks may "
                                 "not share a tensor")
            taken[name] = i
    for name, tensor in params.items():
        real_array(tensor, name)


@dataclass(frozen=True, eq=False)
class Result:
    """What `compress` returns.

    `params` is the compressed net, `thetas` the part of each task by its index, `direct` the net
    after direct compression, `history` the summaries of the steps, `last` the last Step.
    """

    params: dict
    thetas: dict[int, Part]
    direct: dict
    history: list[dict]
    last: Step

    @property
    def feasibility(self):
        return self.last.feasibility

    @property
    def ratio(self):
        """ρ by convention: storage of the reference net over storage of the compressed one."""
        full = FULL_BITS * sum(map(size, self.params.values()))
        return {convention: full / storage_bits(self.params, self.last.delta, self.thetas.values(),
                                                convention) for convention in FLOAT_BITS}


def direct_compression(params, tasks, mu=None):
    """θ = Π(w) of the reference weights: the start of the path, and the baseline to beat.

    Returns (thetas, compressed params).
    """
    check(params, tasks)
    thetas = c_step(tasks, params, mu)
    return thetas, {**params, **decompress(tasks, thetas)}


def compress(params, tasks, l_step, schedule, evaluate=None, on_step=None):
    """Run the whole algorithm: `iterate` to its end.

    Parameters are those of `iterate`; `on_step` is called with every Step.

    Returns
    -------
    Result
    """
    _, direct = direct_compression(params, tasks, schedule.mu(0))
    history = []
    for last in iterate(params, tasks, l_step, schedule, evaluate):
        history.append(last.summary())
        if on_step:
            on_step(last)
    return Result(last.compressed, last.thetas, direct, history, last)
