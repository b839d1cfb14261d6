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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .compressions import Task
from .inputs import nonnegative, one_of, whole
from .loop_inputs import disjoint_tasks, evaluation, finite, l_step_answer
from .parts import FLOAT_BITS, FULL_BITS, Array, Part, size, storage_bits
from .tolerance import norm

Params = dict[str, Array]
Thetas = dict[int, Part]
LStep = Callable[[Params, Params, float, int, Any], tuple[Params, Any]]
Evaluate = Callable[[Params], dict[str, float]]


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
        for name in ("mu0", "a", "tol"):  # a NumPy scalar would turn float32 weights to float64
            object.__setattr__(self, name, nonnegative(getattr(self, name), name))
        if self.mu0 < 1e-300:
            raise ValueError(f"mu0 must be positive, at least 1e-300, not {self.mu0!r}")
        if self.a < 1:
            raise ValueError(f"the growth a of mu must be at least 1, not {self.a!r}")
        one_of(self.penalty, "penalty", ("augmented", "quadratic"))
        whole(self.steps, "steps", least=1)
        whole(self.passes, "passes", least=1)
        if math.log(self.mu0) + math.log(self.a) * (self.steps // self.passes) > math.log(1e300):
            raise ValueError(f"mu0·a^k overflows within {self.steps} steps; take a smaller a")

    def mu(self, k: int) -> float:
        """μ of step k."""
        return self.mu0 * self.a ** (k // self.passes)


@dataclass(frozen=True, eq=False)
class Step:
    """What one step of the algorithm left: together with the L step's state, a checkpoint.

    The arrays are the loop's own, to be read and not written to. `w` is `params` of the tasks
    alone, and `compressed` is `params` with `delta` in its place.

    Attributes
    ----------
    step : int
    mu : float
    params : dict of name to array
        Every tensor as the L step left it.
    theta : dict of index to Part
        Of each task.
    delta, lam : dict of name to array
        The decompressed weights Δ(θ), and the multipliers λ.
    feasibility : float
        ‖w − Δ(θ)‖ / ‖w‖.
    report, compressed_report : dict of numbers
        What `evaluate` says of `params` and of `compressed`; {} without it.
    seconds : dict
        "l_step", "c_step" and "evaluate".
    state
        The L step's own.
    """

    step: int
    mu: float
    params: Params
    theta: Thetas
    delta: Params
    lam: Params
    feasibility: float
    report: dict[str, float] = field(default_factory=dict)
    compressed_report: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    state: Any = None

    @property
    def w(self) -> Params:
        """The uncompressed weights of the tasks."""
        return {name: self.params[name] for name in self.delta}

    @property
    def compressed(self) -> Params:
        """The compressed net: w replaced by Δ(θ), everything else as the L step left it."""
        return {**self.params, **self.delta}

    @property
    def loss(self) -> float | None:
        return self.report.get("loss")

    @property
    def compressed_loss(self) -> float | None:
        return self.compressed_report.get("loss")

    def summary(self) -> dict[str, Any]:
        """The scalars of the step, for a history or a JSON file."""
        return {**self.report,
                **{f"compressed_{key}": value for key, value in self.compressed_report.items()},
                "step": self.step, "mu": self.mu, "feasibility": self.feasibility,
                "status": {i: part.status for i, part in self.theta.items()},
                "seconds": self.seconds}


def c_step(tasks: Sequence[Task], weights: Params, mu: float | None,
           thetas: Thetas | None = None) -> Thetas:
    """The C step: the projection of the shifted weights onto each task's feasible set.

        θ ← argmin over θ of ‖w − λ/μ − Δ(θ)‖²

    for every task on its own, which together solve it since tasks share no tensor. As good as the
    projections are, see their statuses; a sum that alternates starts from `thetas`.

    Parameters
    ----------
    tasks : sequence of Task
    weights : dict of name to array
        w − λ/μ, or w for direct compression.
    mu : float or None
        Of the penalty forms, whose price is 2α/μ.
    thetas : dict of index to Part, optional
        Those of the last C step.

    Returns
    -------
    dict of index to Part

    Notes
    -----
    The cost of the projections. Carreira-Perpiñán and Idelbayev, arXiv 2107.04380.
    """
    return {i: task.compression.project({name: weights[name] for name in task.names}, mu,
                                        thetas[i] if thetas else None)
            for i, task in enumerate(tasks)}


def decompress(tasks: Sequence[Task], thetas: Thetas) -> Params:
    """Δ(θ) of all tasks, a dict of name to array.

    Parameters
    ----------
    tasks : sequence of Task
    thetas : dict of index to Part

    Returns
    -------
    dict of name to array

    Notes
    -----
    O(n), and for low rank the product of the factors.
    """
    delta: Params = {}
    for i, task in enumerate(tasks):
        dense = thetas[i].decompress()
        delta.update(dense if isinstance(dense, dict) else {task.names[0]: dense})
    return delta


def multipliers(lam: Params, w: Params, delta: Params, mu: float) -> Params:
    """The multipliers after a step.

        λ ← λ − μ (w − Δ(θ))

    The augmented Lagrangian is L(w) − λᵀ(w − Δ(θ)) + μ/2 ‖w − Δ(θ)‖². Where the L step has made
    its gradient zero, ∇L(w) = λ − μ (w − Δ(θ)), so that the new λ is what ∇L(w) = λ asks for at a
    constrained optimum. A constraint that is violated pulls harder with every step, and μ need not
    grow to infinity. The quadratic penalty leaves λ at 0.

    Parameters
    ----------
    lam, w, delta : dict of name to array
        The multipliers before the step, and the weights and Δ(θ) that it left.
    mu : float

    Returns
    -------
    dict of name to array

    Notes
    -----
    O(n). Nocedal and Wright, Numerical Optimization, 2006, section 17.3; Carreira-Perpiñán and
    Idelbayev, arXiv 2107.04380.
    """
    return {name: lam[name] - mu * (w[name] - delta[name]) for name in delta}


def iterate(params: Params, tasks: Sequence[Task], l_step: LStep, schedule: Schedule,
            evaluate: Evaluate | None = None, resume: Step | None = None) -> Iterator[Step]:
    """The LC algorithm, a generator that yields a frozen Step for every μ.

        min over w, θ of  L(w)   subject to   w = Δ(θ)

    For μ = μ0·a^k an L step, a C step and the multipliers. As μ grows, w and Δ(θ) meet, at a local
    optimum where each L step finds one of its problem; from direct compression on, which is where
    the path starts. The loss and the compressions never see each other.

    Parameters
    ----------
    params : dict of name to array
        The reference net, in any array namespace. Not written to.
    tasks : sequence of Task
        Tensors of no task are trained by the L step alone.
    l_step : callable
        (params, targets, mu, step, state) -> (params, state), the argmin over w of
        L(w) + μ/2 Σ ‖w − target‖² over the names in targets. It returns new arrays and writes to
        none that it is given. step counts from 0; state is None at first, then whatever the last
        call returned.
    schedule : Schedule
    evaluate : callable, optional
        params -> dict of numbers, "loss" among them.
    resume : Step, optional
        Go on after this step, of a path with the same tasks.

    Yields
    ------
    Step

    Raises
    ------
    ValueError
        No tasks, overlapping tasks, unknown tensors, or weights that are not finite: at the call,
        not at the first step. An L step that loses a tensor: at that step.
    Diverged
        An L step returned a NaN or an infinity, or Δ(θ), λ or λ/μ overflowed their dtype. It
        carries params and state as they were before that step, and the step's number.

    Notes
    -----
    A step costs what the L step and the projections do, and O(n) beside them. Carreira-Perpiñán,
    arXiv 1707.01209; sums: Carreira-Perpiñán and Idelbayev, arXiv 2107.04380.
    """
    tasks = tuple(tasks)
    disjoint_tasks(params, tasks)
    if resume and set(resume.delta) != {name for task in tasks for name in task.names}:
        raise ValueError(f"the step to resume has tasks of {', '.join(resume.delta)}, not these")
    return _iterate(params, tasks, l_step, schedule, evaluate, resume)


def _iterate(params, tasks, l_step, schedule, evaluate, resume, direct=None):
    last = resume or start(params, tasks, direct or c_step(tasks, params, schedule.mu(0)), schedule)
    params, thetas, delta, lam, state = last.params, last.theta, last.delta, last.lam, last.state
    for k in range(last.step + 1, schedule.steps):
        if last.feasibility <= schedule.tol:
            return
        mu, clock = schedule.mu(k), [time.perf_counter()]
        good = {"params": params, "state": state, "step": k}  # where to go back to at an overflow
        # L step: w ← argmin L(w) + μ/2 ‖w − Δ(θ) − λ/μ‖²
        targets = finite({name: delta[name] + lam[name] / mu for name in delta}, "Δ(θ) + λ/μ", good)
        params, state = l_step_answer(l_step(params, targets, mu, k, state), good)
        clock.append(time.perf_counter())
        # C step: θ ← argmin ‖w − λ/μ − Δ(θ)‖²
        shifted = finite({name: params[name] - lam[name] / mu for name in delta}, "w − λ/μ", good)
        thetas = c_step(tasks, shifted, mu, thetas)
        delta = finite(decompress(tasks, thetas), "Δ(θ)", good)
        # λ ← λ − μ (w − Δ(θ))
        if schedule.penalty == "augmented":
            lam = finite(multipliers(lam, params, delta, mu), "λ", good)
        clock.append(time.perf_counter())
        last = _record(k, mu, params, thetas, delta, lam, evaluate, state, clock)
        yield last


def start(params: Params, tasks: Sequence[Task], thetas: Thetas, schedule: Schedule) -> Step:
    """Where the path starts, as step −1: the reference weights, θ = Π(w), λ = 0.

    Parameters
    ----------
    params : dict of name to array
    tasks : sequence of Task
    thetas : dict of index to Part
        Π(w), of each task.
    schedule : Schedule

    Returns
    -------
    Step
    """
    delta = finite(decompress(tasks, thetas), "Δ(θ)", {"params": params, "state": None, "step": -1})
    return Step(-1, schedule.mu(0), {name: 1 * p for name, p in params.items()}, thetas, delta,
                {name: 0 * delta[name] for name in delta}, math.inf)


def _record(k, mu, params, thetas, delta, lam, evaluate, state, clock):
    """The frozen Step, with both nets evaluated."""
    report = evaluation(evaluate(params)) if evaluate else {}
    compressed = evaluation(evaluate({**params, **delta})) if evaluate else {}
    clock.append(time.perf_counter())
    seconds = dict(zip(("l_step", "c_step", "evaluate"),
                       (after - before for before, after in zip(clock, clock[1:]))))
    return Step(k, mu, params, thetas, delta, lam, feasibility(params, delta), report, compressed,
                seconds, state)


def feasibility(params: Params, delta: Params) -> float:
    """‖w − Δ(θ)‖ / ‖w‖ over all tensors of the tasks; 0 where both are 0.

    Parameters
    ----------
    params, delta : dict of name to array

    Returns
    -------
    float
        Infinite where w = 0 and Δ(θ) is not.
    """
    distance = math.hypot(*(norm(params[name] - delta[name]) for name in delta))
    length = math.hypot(*(norm(params[name]) for name in delta))
    return distance / length if length else (math.inf if distance else 0.0)


@dataclass(frozen=True, eq=False)
class Result:
    """What `compress` returns.

    Attributes
    ----------
    params : dict of name to array
        The compressed net.
    thetas : dict of index to Part
        Of each task.
    direct : dict of name to array
        The net after direct compression.
    history : list of dict
        The summaries of the steps.
    last : Step
    """

    params: Params
    thetas: Thetas
    direct: Params
    history: list[dict]
    last: Step

    @property
    def feasibility(self) -> float:
        return self.last.feasibility

    @property
    def ratio(self) -> dict[str, float]:
        """ρ by convention: storage of the reference net over storage of the compressed one."""
        full = FULL_BITS * sum(map(size, self.params.values()))
        return {convention: full / storage_bits(self.params, self.last.delta, self.thetas.values(),
                                                convention) for convention in FLOAT_BITS}


def direct_compression(params: Params, tasks: Sequence[Task],
                       mu: float | None = None) -> tuple[Thetas, Params]:
    """θ = Π(w) of the reference weights: the start of the path, and the baseline to beat.

    The best point of the feasible set in distance, as far as the projections are optimal, and not
    in loss, which it does not look at.

    Parameters
    ----------
    params : dict of name to array
    tasks : sequence of Task
    mu : float, optional
        Of the penalty forms.

    Returns
    -------
    thetas : dict of index to Part
    params : dict of name to array
        The compressed net.

    Raises
    ------
    ValueError
        As of `iterate`.
    Diverged
        Δ(θ) overflows, as a matrix of lower rank may that has larger entries than w.

    Notes
    -----
    The cost of the projections. Carreira-Perpiñán, arXiv 1707.01209.
    """
    tasks = tuple(tasks)
    disjoint_tasks(params, tasks)
    thetas = c_step(tasks, params, mu)
    delta = finite(decompress(tasks, thetas), "Δ(θ)", {"params": params, "state": None, "step": -1})
    return thetas, {**params, **delta}


def compress(params: Params, tasks: Sequence[Task], l_step: LStep, schedule: Schedule,
             evaluate: Evaluate | None = None,
             on_step: Callable[[Step], None] | None = None) -> Result:
    """Run the whole algorithm: `iterate` to its end.

    Parameters
    ----------
    params, tasks, l_step, schedule, evaluate
        As of `iterate`.
    on_step : callable, optional
        Is called with every Step.

    Returns
    -------
    Result

    Notes
    -----
    Guarantee, cost and source are those of `iterate`.
    """
    tasks = tuple(tasks)
    thetas, direct = direct_compression(params, tasks, schedule.mu(0))
    history = []
    for last in _iterate(params, tasks, l_step, schedule, evaluate, None, thetas):
        history.append(last.summary())
        if on_step:
            on_step(last)
    return Result(last.compressed, last.theta, direct, history, last)
