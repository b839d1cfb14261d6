"""The best free scale of a codebook: a sweep over the breakpoints of buckets, then of weights."""

import math

from array_api_compat import array_namespace

from ..parts import Array, size
from ..tolerance import EPS, wide
from .clusters import BUCKETS, Ascending, split, sums_beside


def best_scale(x: Ascending, entries: Array) -> tuple[float, Array]:
    """The scale a of the best assignment to a·entries, a ≥ 0, and the entries that are used.

    An assignment with P = Σ w_i c_i > 0 and Q = Σ c_i² saves P² / Q at a = P / Q. Downwards from
    a = ∞ one weight after another crosses a midpoint, where w_i / midpoint = a. Weights that cross
    none while a is in [low, high] have one code there; of those that do, buckets are bounded as
    their weights at their first and last, since ψ is convex here too. What such weights save at no
    a of an interval as much as some assignment does save is left out of [low, high].
    """
    xp, margin = array_namespace(entries), 4 * float(array_namespace(entries).finfo(
        x.values.dtype).eps)
    low, high, many = 0.0, math.inf, BUCKETS
    while True:
        at, *gains, single = _crossings(x, entries, low, high, many)
        many *= 2
        order = xp.argsort(at, descending=True)
        at = xp.take(at, order)
        p, q = (start + xp.cumulative_sum(xp.take(gains.pop(0), order), include_initial=True)
                for start in _assigned(x, entries, high)[:2])
        some = (p > 0) & (q > 0)
        a = xp.where(some, p, xp.zeros_like(p)) / xp.where(some, q, xp.ones_like(q))
        best = float(a[int(xp.argmax(a * p))])
        reached_p, reached_q, used = _assigned(x, entries, best)  # by the weights themselves
        if single or best == 0:
            return (reached_p / reached_q if reached_p > 0 else 0.0), used
        least = max(reached_p, 0.0) ** 2 / reached_q * (1 - 8 * size(x.values) * EPS)
        ends = xp.concat([xp.full_like(at[:1], high), at, low + 0 * at[:1]])
        a = xp.minimum(xp.maximum(a, ends[1:]), ends[:-1])  # the best within each interval
        alive = a * (2 * p - a * q) >= least
        low, high = (float(xp.min(ends[1:][alive])) * (1 - margin),
                     float(xp.max(ends[:-1][alive])) * (1 + margin))


def _crossed(x, entries, a):
    """How many weights lie below each midpoint of a·entries; a may be infinite."""
    xp, midpoints = array_namespace(entries), entries[:-1] / 2 + entries[1:] / 2
    if a < math.inf:
        return x.find(a * midpoints)
    none = x.find(0 * midpoints)
    return xp.where(midpoints == 0, none,
                    xp.where(midpoints < 0, 0 * none, 0 * none + size(x.values)))


def _assigned(x, entries, a):
    """P = Σ w_i c_i and Q = Σ c_i², c_i the entry nearest to w_i / a, and the entries in use."""
    xp, at = array_namespace(entries), _crossed(x, entries, a)
    ends = xp.concat([at, xp.full_like(entries[:1], size(x.values), dtype=at.dtype)])
    sums, counts = x.sums(ends), wide(ends)
    sums = xp.concat([sums[:1], sums[1:] - sums[:-1]])
    counts = xp.concat([counts[:1], counts[1:] - counts[:-1]])
    return (float(xp.sum(sums * entries)), float(xp.sum(counts * entries * entries)),
            entries[counts > 0])


def _crossings(x, entries, low, high, many):
    """The scales in [low, high] where weights cross midpoints, and what P and Q gain there.

    Of buckets of weights, as of those at their first and last; and whether all are single weights.
    """
    xp, gaps = array_namespace(entries), entries[1:] - entries[:-1]
    one, other = _crossed(x, entries, low), _crossed(x, entries, high)
    starts, ends, c = split(xp.minimum(one, other), xp.maximum(one, other), many)
    before, after = sums_beside(x, starts, ends)
    n, l, u = wide(ends - starts), x.at(starts), x.at(ends - 1)
    at_u = xp.clip((after - before - n * l) / xp.where(u > l, u - l, xp.ones_like(l)), min=0.0)
    at_u = xp.where(u > l, xp.minimum(at_u, n), xp.zeros_like(n))
    v, count = xp.concat([l, u]), xp.concat([n - at_u, at_u])
    midpoints = xp.take(entries[:-1] / 2 + entries[1:] / 2, xp.concat([c, c]))
    gaps = count * xp.take(gaps, xp.concat([c, c]))
    return (v / midpoints, gaps * xp.abs(v), 2 * gaps * xp.abs(midpoints),
            size(starts) == int(xp.sum(ends - starts)))
