"""One-dimensional K-means where each weight may be left out at a price α.

    min over at most k runs of  Σ SS(run) + α · (number of weights in no run)

By the bounds of `clusters`: with centres c a weight costs x² − M(x), where M(x) = max(x² − α, ψ(x))
is convex too. So the weights of a bucket, l to u, in which a run begins or ends cost at least as
much as their number and sum do at l and u, less D = Σ (u − x)(x − l), by which the squares of those
are larger.
"""

import math
from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from ..parts import Array, size
from ..tolerance import EPS, wide
from .clusters import (BUCKETS, Ascending, best_starts, left_of_cuts, running_sums, split,
                       sums_beside)

SMALL = 512  # weights up to which every run's distortion is in a table
DOUBT = 4 * EPS  # of P·x at an end of a run, see _closed


class _Places(NamedTuple):
    """Where a run may begin or end: before all weights, within each bucket, after all."""

    counts: Array  # N, of the weights to the left, with those of the bucket that lie at l
    sums: Array  # S, their sum
    before: Array  # their squares for a run that begins here, D more than they are
    after: Array  # and for a run that ends here, D less
    doubt: Array  # see _closed


def priced(x: Ascending, k: int, alpha: float) -> list[tuple[int, int]]:
    """The runs, ascending; every one has a weight."""
    xp, n = array_namespace(x.values), size(x.values)
    ends = xp.asarray([n], dtype=xp.int64, device=device(x.values))
    starts, many = 0 * ends, BUCKETS
    while True:
        starts, ends, _ = split(starts, ends, many)
        many *= 2
        cuttable = x.at(starts) < x.at(ends)
        single = bool(xp.all(ends - starts == 1))
        starts, ends = starts[cuttable], ends[cuttable]
        places = _places(x, starts, ends, single)
        solved = _layers(places, k, alpha, _table(x, ends) if n <= SMALL else None)
        path = _path(places, solved, alpha)
        if single:
            at = [0, *map(int, ends), n]
            return [(at[i], at[j]) for i, j in path if at[i] < at[j]]
        most = _reached(x, places, path, alpha) * (1 + 8 * n * EPS)
        least = _least(solved, _layers(_mirrored(places), k, alpha, None))
        kept = (least - 4 * places.doubt <= most)[1:-1]
        starts, ends = starts[kept], ends[kept]


def within(x: Ascending, centres: Array, distance: float) -> list[tuple[int, int]]:
    """The weights nearest to each ascending centre that are at most so far from it, as a run."""
    xp = array_namespace(centres)

    def place(y, side):  # up to the rounding of y to the dtype of the weights
        with np.errstate(over="ignore"):
            y = xp.astype((y + x.centre) * x.scale, x.values.dtype)
        return xp.searchsorted(x.values, y, side=side)
    below, above = place(centres - distance, "left"), place(centres + distance, "right")
    middles = place((centres[1:] + centres[:-1]) / 2, "left")
    lowest = xp.concat([0 * below[:1], middles])
    highest = xp.concat([middles, 0 * below[:1] + size(x.values)])
    starts = xp.minimum(xp.maximum(below, lowest), highest)
    stops = xp.maximum(xp.minimum(above, highest), starts)
    return list(zip(map(int, starts), map(int, stops)))


def _places(x, starts, ends, single):
    """The places of buckets."""
    xp, n, l, u = array_namespace(starts), size(x.values), x.at(starts), x.at(ends)
    counts, sums = left_of_cuts(x, starts, ends)
    squares_before, squares = sums_beside(x, starts, ends, 2)
    at_l = counts - wide(starts)
    begun = squares if single else squares_before + at_l * l * l
    ended = squares - (wide(ends - starts) - at_l) * u * u
    edges = xp.asarray([0, n], dtype=xp.int64, device=device(starts))
    far = xp.where(starts >= x.origin, l, u)  # the last weight of the sum from the origin

    def all_(within, at_edges):
        return xp.concat([at_edges[:1], within, at_edges[1:]])
    edge_sums, edge_squares = x.sums(edges), x.sums(edges, 2)
    sums = all_(sums, edge_sums)
    far = all_(far, x.at(xp.asarray([0, n - 1], dtype=xp.int64, device=device(starts))))
    return _Places(all_(counts, wide(edges)), sums, all_(begun, edge_squares),
                   all_(ended, edge_squares), DOUBT * xp.abs(sums * far))


def _mirrored(places):
    """The places of the weights −x in ascending order."""
    xp = array_namespace(places.counts)
    counts, sums, before, after, doubt = map(xp.flip, places)
    return _Places(counts[:1] - counts, -sums, -after, -before, doubt)


def _layers(places, k, alpha, table):
    """F_0..F_k, and for c = 1..k C_c and the best beginning, each for all places.

    F_0(j) = α N_j is the least cost of the weights before j without a run. With C_c(j) = min over
    i ≤ j of F_{c−1}(i) + SS(i, j), where the c-th run ends at j, F_c(j) = min over t ≤ j of
    C_c(t) + α (N_j − N_t).
    """
    price = alpha * places.counts
    best, closed, begins = [price], [], []
    for _ in range(k):
        cost, begin = _closed(places, best[-1], table)
        closed.append(cost)
        begins.append(begin)
        best.append(price + _running_minimum(cost - price))
    return best, closed, begins


def _closed(places, best, table):
    """(min over i ≤ j of F(i) + SS(i, j), the best i), each for every place j.

    From a table for few weights, else by divide and conquer, since the best i grows with j:
    SS(a, c) + SS(b, d) ≤ SS(a, d) + SS(b, c) for a ≤ b ≤ c ≤ d. Where P = Σ x from the origin to
    an end of a run is large, at outliers, a few ε of P·x there are in doubt; the run is charged.
    """
    xp, n, s = array_namespace(best), places.counts, places.sums
    if table is not None:
        costs = best[:, None] + table
        return xp.min(costs, axis=0), xp.argmin(costs, axis=0)
    reward = places.before - best - places.doubt

    def value(i, at):  # −F(i) − SS(i, j), but for the squares up to j
        found = at(s) - xp.take(s, i)
        found *= found
        found /= xp.clip(at(n) - xp.take(n, i), min=1.0)
        found += xp.take(reward, i)
        return found
    found, begins = best_starts(value, xp.arange(size(n), dtype=xp.int64, device=device(n)))
    return places.after - found + places.doubt, begins


def _path(places, solved, alpha):
    """The runs (begin, end) that cost the least, as places."""
    _, closed, begins = solved
    xp, price, j = array_namespace(closed[0]), alpha * places.counts, size(closed[0]) - 1
    runs: list[tuple[int, int]] = []
    for cost, begin in zip(closed[::-1], begins[::-1]):
        end = int(xp.argmin((cost - price)[:j + 1]))
        j = int(begin[end])
        runs = [(j, end), *runs] if j < end else runs
    return runs


def _least(solved, mirrored):
    """The least cost with a run that begins or ends at a place, for every place."""
    xp, k = array_namespace(solved[0][0]), len(solved[1])
    (best, closed, _), (after, reopened, _) = solved, mirrored
    found = [best[c] + xp.flip(reopened[k - c - 1]) for c in range(k)] + [
        closed[c] + xp.flip(after[k - c - 1]) for c in range(k)]
    return xp.min(xp.stack(found), axis=0)


def _reached(x, places, path, alpha):
    """The cost of the weights within √α of the centres of a path."""
    xp, kept, cost = array_namespace(places.counts), 0, 0.0
    if path:
        i, j = (xp.asarray(at, dtype=xp.int64, device=device(places.counts)) for at in zip(*path))
        sums, counts = (xp.take(v, j) - xp.take(v, i) for v in (places.sums, places.counts))
        for a, b in within(x, xp.unique_values(sums / counts), math.sqrt(alpha)):
            if a < b:
                kept, cost = kept + b - a, cost + x.mean_and_spread(a, b)[1]
    return cost + alpha * (size(x.values) - kept)


def _table(x, ends):
    """SS between any two places of few weights."""
    xp = array_namespace(ends)
    edges = xp.asarray([0, size(x.values)], dtype=ends.dtype, device=device(ends))
    at = xp.concat([edges[:1], ends, edges[1:]])
    return xp.take(xp.take(all_spreads(x.read(x.values)), at, axis=0), at, axis=1)


def all_spreads(x: Array) -> Array:
    """SS(i, j) for all i ≤ j, infinite below, (n + 1, n + 1); centred at the first entry, x_i."""
    xp, n = array_namespace(x), size(x)
    d = xp.triu(x[None, :] - x[:, None])
    index = xp.arange(n + 1, dtype=x.dtype, device=device(x))
    length = index[None, :] - index[:-1, None]  # (n, n + 1)
    sums, squares = running_sums(d), running_sums(d * d)
    spreads = squares - sums * sums / xp.clip(length, min=1.0)
    spreads = xp.where(length < 0, xp.full_like(length, xp.inf), spreads)
    last = xp.where(index < n, xp.full_like(index, xp.inf), xp.zeros_like(index))
    return xp.concat([spreads, last[None, :]])


def _running_minimum(x):
    """min over t ≤ j of x_t for every j; by doubling where the standard has nothing faster."""
    xp, reach = array_namespace(x), 1
    if is_numpy_array(x):
        return xp.minimum.accumulate(x)
    while reach < size(x):
        x = xp.concat([x[:reach], xp.minimum(x[reach:], x[:-reach])])
        reach *= 2
    return x
