"""Projections beside one sort, one copy of the data, and the other libraries that do the same."""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from threadpoolctl import threadpool_limits

from ..devices import Device, device, host
from ..inputs import did_you_mean, one_of
from ..parts import Array
from ..tolerance import objective_slack, squared_norm, wide
from .cases import BY_NAME
from .peers import PEERS, Peer
from .timing import (PAUSE, beyond, finished, free_memory, in_fresh_process, limited, medians,
                     peak_so_far, seconds, traced_peak)

__all__ = ["PeerTiming", "Timing", "exponent", "time_projection"]

PATIENCE, OWN_PATIENCE = 20.0, 120.0    # seconds that one call may take, of a peer and of ours
LARGE = 10**6       # entries from which the memory of a whole process says something


@dataclass(frozen=True)
class PeerTiming:
    """The median seconds of a peer, and how many times faster lcref is.

    `higher` is whether lcref's objective is above the peer's by more than rounding, None where the
    peer's answer is not feasible or there is none. `left_out` says why there are no numbers.
    """

    name: str
    package: str
    promise: str
    seconds: float | None = None
    faster: float | None = None
    objective: float | None = None
    higher: bool | None = None
    left_out: str = ""


@dataclass(frozen=True)
class Timing:
    """A projection of about n weights: median seconds, its peak memory, and those beside it.

    `sorts` and `copies` are its time in units of one `numpy.sort` of abs(w), which is at hand, and
    of one copy of w. `memory` is its peak in units of the bytes of w, w included, see
    `time_projection`. `left_out` says why there are no numbers.
    """

    name: str
    function: str
    n: int
    dtype: str
    seconds: float | None = None
    sort_seconds: float | None = None
    copy_seconds: float | None = None
    sorts: float | None = None
    copies: float | None = None
    memory: float | None = None
    process_memory: float | None = None
    objective: float | None = None
    peers: tuple[PeerTiming, ...] = ()
    left_out: str = ""


def time_projection(name: str, n: int, dtype: str = "float64", threads: int = 1, turns: int = 7,
                    peers: bool = True, where: str = "cpu") -> Timing:
    """Time one projection beside one sort, one copy and its peers, all in turns.

    Parameters
    ----------
    name : a case of `lcref.bench.cases`
    n : int, at least 1
        Weights; of a matrix about so many.
    dtype : "float32" or "float64"
    threads : int
        Of each.
    turns : int, at least 1
        Of calls of up to a second; slower ones have three, and one over 5 seconds has one.
    peers : bool
        Whether the other libraries are called.
    where : str
        The device of `lcref.devices` on which w is, the sort and the copy are made, and no peer is
        called.

    Returns
    -------
    Timing
        `memory` counts w and the arrays that one call holds at its peak, its result included, as
        NumPy reports them to `tracemalloc`: (peak + bytes of w) / bytes of w. LAPACK's workspace
        is not among them; `process_memory`, of matrices of 10⁶ entries or more, is the same ratio
        by the peak of a fresh process in which nothing else happens, and counts all. Both are
        None of a device, whose memory neither sees.

    Raises
    ------
    ValueError
        Unknown name or dtype, n or turns under 1.
    """
    if name not in BY_NAME:
        raise ValueError(f"unknown projection {name!r}{did_you_mean(name, BY_NAME)}")
    one_of(dtype, "dtype", ("float32", "float64"))
    if min(n, turns) < 1:
        raise ValueError(f"n and turns must be at least 1, got {n} and {turns}")
    case, here = BY_NAME[name], device(where)
    with limited(threads):
        reason = _too_much(case, n, dtype, here)
        if reason:
            return Timing(name, case.function, n, dtype, left_out=reason)
        others = PEERS.get(case.function, ()) if peers else ()
        timing = _measured(case, case.data(n, dtype), others, turns, PAUSE * (threads > 1),
                           here)
    if here.kind != "cpu" or not case.matrix or n < LARGE:
        return timing
    peak = in_fresh_process(process_peak, name, n, dtype, threads)
    return Timing(**{**vars(timing), "process_memory": peak})


def exponent(points: Iterable[tuple[float, float]]) -> float | None:
    """The p of seconds ≈ c·nᵖ, by least squares of log seconds on log n; None of fewer than two."""
    x, y = np.log(np.array(list(points), dtype=float).reshape(-1, 2)).T
    return float(np.polyfit(x, y, 1)[0]) if np.unique(x).size > 1 else None


# ---- what would take too long


def _called(call, case, m, dtype, here=Device("cpu")):
    """The call on data of size m, without the making of these."""
    w = case.data(m, dtype)
    there, arguments = here.put(w), map(here.put, case.arguments(w))
    return finished(partial(call, there, *arguments), here)


def _too_much(case, n, dtype, here):
    """Why lcref's own call is not made, from calls on less data; "" where it is."""
    def called(m):
        return _called(case.call, case, m, dtype, here)
    if here.kind == "cpu" and beyond(lambda m: traced_peak(called(m)), n, free_memory()):
        return "would need more memory than is free"
    if beyond(lambda m: seconds(called(m)), n, OWN_PATIENCE):
        return f"would take over {OWN_PATIENCE:.0f} s"
    return ""


def _why_not(peer, case, n, dtype, here):
    """Why a peer is not called, "" where it is."""
    if here.kind != "cpu":
        return f"takes no arrays on {here.name}"
    if not peer.installed:
        return "not installed"
    try:
        if beyond(lambda m: seconds(_called(peer.call, case, m, dtype)), n, PATIENCE):
            return f"would take over {PATIENCE:.0f} s"
    except Exception as error:
        return _raised(error)
    return ""


def _raised(error):
    return f"raised {type(error).__name__}: {str(error):.80}"


# ---- measuring


@dataclass
class _Run:
    """A peer at work: its first answer, or why there is none."""

    peer: Peer
    w: Array
    arguments: tuple
    left_out: str = ""
    answer: Any = None

    def __call__(self):
        if self.left_out:
            return
        try:
            answer = self.peer.call(self.w, *self.arguments)
        except Exception as error:
            self.left_out = _raised(error)
        else:
            self.answer = answer if self.answer is None else self.answer


def _measured(case, w, peers, turns, pause, here):
    arguments, parts = case.arguments(w), []
    there, given = here.put(w), list(map(here.put, arguments))
    peak = traced_peak(lambda: parts.append(case.call(there, *given)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # of the peers
        runs = [_Run(peer, w, arguments, _why_not(peer, case, w.size, str(w.dtype), here))
                for peer in peers]
        calls = [finished(call, here) for call in (partial(case.call, there, *given),
                                                   *_units(there))]
        own, sort, copy, *others = medians([*calls, *runs], turns, pause=pause)
    theta = host(parts[0].decompress())
    objective = _objective(case, w, theta, arguments)
    slack = objective_slack(w, theta)
    memory = 1 + peak / w.nbytes if here.kind == "cpu" else None
    return Timing(case.name, case.function, w.size, str(w.dtype), own, sort, copy, own / sort,
                  own / copy, memory, None, objective,
                  tuple(_judged(run, case, t, own, objective, slack)
                        for run, t in zip(runs, others)))


def _units(w):
    """One sort of abs(w) and one copy of w, where w is."""
    if is_numpy_array(w):
        magnitudes = np.abs(w).ravel()
        return lambda: np.sort(magnitudes), w.copy
    xp = array_namespace(w)
    magnitudes = xp.reshape(xp.abs(w), (-1,))
    return lambda: xp.sort(magnitudes, stable=False), lambda: xp.asarray(w, copy=True)


def _objective(case, w, theta, arguments):
    return squared_norm(wide(w) - wide(theta)) + case.penalty(theta, *arguments)


def _judged(run, case, t, own, objective, slack):
    """The row of a peer, beside our seconds and objective."""
    peer, w, arguments = run.peer, run.w, run.arguments
    if run.left_out:
        return PeerTiming(peer.name, peer.package, peer.promise, left_out=run.left_out)
    theta = peer.array(w, run.answer, *arguments)
    theirs = _objective(case, w, theta, arguments)
    feasible = math.isfinite(theirs) and case.excess(theta, *arguments) <= 0
    return PeerTiming(peer.name, peer.package, peer.promise, t, t / own, theirs,
                      objective > theirs + slack if feasible else None)


def process_peak(name: str, n: int, dtype: str, threads: int) -> float:
    """The peak of this fresh process in one call, w included, in units of the bytes of w."""
    case = BY_NAME[name]
    with threadpool_limits(threads):
        _called(case.call, case, 9 * 64, dtype)()     # loads what is loaded at the first call
        w = case.data(n, dtype)
        arguments, before = case.arguments(w), peak_so_far()
        case.call(w, *arguments)
        return 1 + (peak_so_far() - before) * 2**20 / w.nbytes
