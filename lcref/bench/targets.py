"""The targets that the C step and the L step are held to, each with what was measured here."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from .. import nets
from ..compressions import Task
from ..lc import direct_compression
from ..text import parse
from .cases import CASES
from .lsteps import l_step
from .projections import Timing, exponent, time_projection
from .timing import limited, seconds

__all__ = ["TARGETS", "Target", "measure_targets"]

KMEANS1D, SKLEARN, SVD = "kmeans1d.cluster", "sklearn KMeans(n_init=10)", "scipy.linalg.svd"
SIZES = (10**4, 10**5, 10**6, 10**7)
MOST_EXPONENT, MOST_MEMORY = 1.15, 4.0
RESNET20 = ((3, 32, 32), 10)
COMPRESSION = "each(quantize(k=2)) + prune(keep=0.03)"
EPOCHS, BATCHES = 15, 391   # of an L step on 50,000 images in batches of 128


@dataclass(frozen=True)
class Target:
    """One row: `what` against what, at least or at most so much; None where nothing was measured.

    `met` asks for more than the number where a peer is the measure: an objective that is not above
    the peer's.
    """

    what: str
    against: str
    bound: str  # "at least" or "at most"
    target: float
    measured: float | None = None
    met: bool | None = None
    note: str = ""


def judged(what: str, against: str, bound: str, target: float, measured: float | None,
           note: str = "", also: bool = True) -> Target:
    """The row of a number, missed where it is beyond the target or `also` does not hold."""
    if measured is None:
        return Target(what, against, bound, target, None, None, note)
    within = measured >= target if bound == "at least" else measured <= target
    return Target(what, against, bound, target, measured, bool(within and also), note)


def measure_targets(names: list[str] | None = None, threads: int = 1,
                    turns: int = 7) -> Iterator[list[Target]]:
    """Measure the targets, one item of TARGETS after the other; all of them by default.

    The data are float64, the nets float32. An item gives a row or two: one for each peer, and of
    `growth of P` the exponent of time against n and the peak memory of a projection P.
    """
    for name in TARGETS if names is None else names:
        yield TARGETS[name](name, threads, turns)


def against_peers(case: str, n: int, least: dict[str, float], name, threads, turns) -> list[Target]:
    """A row for each peer: how many times faster a projection is."""
    timing = time_projection(case, n, threads=threads, turns=turns)
    peers = {peer.name: peer for peer in timing.peers}
    rows = []
    for against, target in least.items():
        if timing.left_out or peers[against].left_out:
            note = timing.left_out or f"{against} {peers[against].left_out}"
            rows.append(Target(name, against, "at least", target, note=note))
            continue
        peer = peers[against]
        note = f"{_ms(timing.seconds)} and {_ms(peer.seconds)}; {_objectives(timing, peer)}"
        rows.append(judged(name, against, "at least", target, peer.faster, note,
                           peer.higher is False))
    return rows


def _objectives(timing, peer):
    return (f"objectives {timing.objective:.12g} and {peer.objective:.12g}"
            + (", lcref's is higher" if peer.higher else ""))


def against_sorts(case: str, most: float, name, threads, turns) -> list[Target]:
    """The time in units of one sort of abs(w), n = 10⁷."""
    timing = time_projection(case, SIZES[-1], threads=threads, turns=turns, peers=False)
    note = timing.left_out or f"{_ms(timing.seconds)} and {_ms(timing.sort_seconds)}"
    return [judged(name, "numpy.sort of abs(w)", "at most", most, timing.sorts, note)]


def growth(case: str, name, threads, turns) -> list[Target]:
    """The exponent of time against n, and the memory of the largest."""
    timings = [time_projection(case, n, threads=threads, turns=turns, peers=False) for n in SIZES]
    return grown(case, timings)


def grown(case: str, timings: list[Timing]) -> list[Target]:
    """The two rows of one projection's timings at several n.

    At small n what grows hides behind what any call costs, so the note has the exponent of the last
    two n alone.
    """
    points = [(t.n, t.seconds) for t in timings if t.seconds is not None]
    ends = [f"{end(points)[0]:.0e}" for end in (min, max)] if points else []
    missing = [f"at {t.n:.0e} it {t.left_out}" for t in timings if t.left_out]
    slope, last, decade = exponent(points), timings[-1], exponent(points[-2:])
    late = [] if decade is None else [f"{decade:.2f} from the last but one to the last"]
    peaks = [peak for peak in (last.memory, last.process_memory) if peak is not None]
    return [judged(f"exponent of {case}", "n", "at most", MOST_EXPONENT, slope,
                   "; ".join([" to ".join(ends), *late, *missing])),
            judged(f"peak memory of {case}", "bytes of w", "at most", MOST_MEMORY,
                   max(peaks, default=None), last.left_out)]


def against_torch(net: str, most: float, name, threads, turns) -> list[Target]:
    """The time of an L step in units of PyTorch's."""
    row = l_step(net, threads, turns)
    note = ("torch: not installed" if row.torch_ms is None else
            f"{row.lcref_ms:.3g} and {row.torch_ms:.3g} ms a batch")
    return [judged(name, "PyTorch, eager float32", "at most", most, row.ratio, note)]


def share_of_a_c_step(name, threads, turns) -> list[Target]:
    """The C step of a whole ResNet20, in percent of an L step of 15 epochs."""
    net = nets.build("resnet20", *RESNET20)
    params = net.init(np.random.default_rng(0))
    tasks = [Task(tuple(net.weights), parse(COMPRESSION))]
    with limited(threads):
        times = [seconds(lambda: direct_compression(params, tasks, 1e-3)) for _ in range(4)]
    c_step, batch = statistics.median(times[1:]), l_step("resnet20", threads, turns).lcref_ms / 1e3
    whole = batch * BATCHES * EPOCHS
    note = f"{_ms(c_step)} and {whole:.4g} s, {_ms(batch)} for each of {BATCHES} batches an epoch"
    return [judged(name, f"L step of {EPOCHS} epochs, %", "at most", 1.0, 100 * c_step / whole,
                   note)]


def _ms(seconds):
    return f"{1e3 * seconds:.4g} ms"


TARGETS: dict[str, Callable[..., list[Target]]] = {
    "kmeans k=2, n=1e6": partial(against_peers, "kmeans k=2", 10**6, {KMEANS1D: 8, SKLEARN: 50}),
    "kmeans k=16, n=266k": partial(against_peers, "kmeans k=16", 266_000,
                                   {KMEANS1D: 1.2, SKLEARN: 12}),
    "l0_ball 1%, n=1e7": partial(against_sorts, "l0_ball 1%", 1.5),
    "l1_ball, n=1e7": partial(against_sorts, "l1_ball", 1.5),
    "ternary scale, n=1e7": partial(against_sorts, "ternary scale", 1.5),
    "rank_ball r=8, 512 x 4608": partial(against_peers, "rank_ball r=8", 512 * 4608, {SVD: 3}),
    "scaled_binary_l0 3%, n=1e7": partial(against_sorts, "scaled_binary_l0 3%", 2.0),
    "L step LeNet300, batch 256": partial(against_torch, "lenet300", 1.0),
    "L step ResNet20, batch 128": partial(against_torch, "resnet20", 2.0),
    f"C step ResNet20, {COMPRESSION}": share_of_a_c_step,
    **{f"growth of {case.name}": partial(growth, case.name) for case in CASES},
}
