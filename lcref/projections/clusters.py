"""Sorted weights cut into clusters: bounds that leave few places for a cut, then every place.

A set of centres c saves Σ ψ(x) of Σ x², with ψ(x) = max over c of 2cx − c², convex in x. A cluster
of N weights with sum S saves the most by its mean, S²/N. Take a bucket of weights, from its first,
l, to before the first of the next bucket, u. There ψ lies below its chord, so the weights save at
most as much as if they lay at l and u alone, as many as keep their number and sum; and exactly as
much where no cut falls between l and u, since there ψ is linear. So the best clusters of such
weights bound from above what any clusters save that have a cut within a given bucket. Buckets whose
bound is below what some clusters do save hold no optimal cut; the others are split, until each
holds one weight. Then the bound is exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from ..inputs import array_of, finite_magnitude, least_reaching, scale_at, scaled
from ..parts import Array, block_ends, size
from ..tolerance import EPS, wide

BUCKETS, ENOUGH = 2048, 4  # at a time, at least; up to so many times as many are single weights
FEW = 256  # ends in a block, between which sums lose little


@dataclass(frozen=True, eq=False)
class Ascending:
    """Sorted weights of any dtype, read as x = values / scale − centre in float64, in blocks.

    Sums run outwards from the origin, a position, so that what lies beyond them is in none of them.
    """

    values: Array
    scale: float = 1.0
    centre: float = 0.0
    origin: int = 0
    _known: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, x):
        """The weights w of a vector, at a scale at which their squares are in range."""
        array_of(x, "w")
        ordered = ascending(x)  # NumPy puts a NaN last
        if not is_numpy_array(x):
            finite_magnitude(x)
        ends = (ordered[-1:], ordered[:1]) if size(x) else ()
        return cls(ordered, scale_at(max(map(finite_magnitude, ends), default=0.0)))

    def about(self, i, origin=0):
        """The same about its i-th weight, so that sums of squares keep their digits there."""
        return Ascending(self.values, self.scale, float(wide(self.values[i])) / self.scale, origin)

    def read(self, values):
        """x of some of the values."""
        x = scaled(values, self.scale)
        return x - self.centre if self.centre else x

    def at(self, i):
        """x_i for an array of positions; the last one for those beyond."""
        xp = array_namespace(i)
        return self.read(xp.take(self.values, xp.clip(i, max=size(self.values) - 1)))

    def find(self, x):
        """How many weights are below each x."""
        xp = array_namespace(x)
        return xp.searchsorted(self.values, least_reaching(
            x + self.centre, self.scale, self.values, xp.zeros_like(x, dtype=xp.bool)))

    def _blocks(self, power):
        """[(start, stop, Σ xᵖ from the origin to the nearer end of the block)], ascending."""
        if power not in self._known:
            xp, at, found = array_namespace(self.values), self.origin, []
            left = [(at - j, at - i, -1.0) for i, j in block_ends(self.values[:at])]
            right = [(at + i, at + j, 1.0) for i, j in block_ends(self.values[at:])]
            for blocks in (left, right):
                base = 0.0
                for start, stop, sign in blocks:
                    found.append((start, stop, base))
                    base += sign * float(xp.sum(self._powers(start, stop, power)))
            self._known[power] = sorted(found)
        return self._known[power]

    def _powers(self, start, stop, power):
        x = self.read(self.values[start:stop])
        return x if power == 1 else x * x

    def sums(self, ends, power=1):
        """Σ xᵖ from the origin up to each of ascending positions; reads only the blocks of them."""
        xp, blocks = array_namespace(ends), self._blocks(power)
        starts = xp.asarray([start for start, *_ in blocks], dtype=ends.dtype, device=device(ends))
        marks, found = [*map(int, xp.searchsorted(ends, starts)), size(ends)], [wide(ends[:0])]
        for (start, stop, base), i, j in zip(blocks, marks, marks[1:]):
            if i < j:
                x, at = self._powers(start, stop, power), ends[i:j]
                found.append(base + _first_sums(x, at - start) if start >= self.origin else
                             base - xp.flip(_first_sums(xp.flip(x), xp.flip(stop - at))))
        return xp.concat(found)

    def mean_and_spread(self, i, j):
        """The mean of x_i..x_{j−1}, in their range, and Σ (x − mean)², j > i.

        From those of blocks, by SS = Σ SS_b + N_b (mean_b − mean)²: no digits cancel.
        """
        parts = [self._moments(max(a, i), min(b, j)) for a, b in block_ends(self.values)
                 if a < j and i < b]
        first = parts[0][1]
        mean = first + sum(n * (m - first) for n, m, _ in parts) / (j - i)
        lowest, highest = (float(self.read(self.values[e])) for e in (i, j - 1))
        mean = min(max(mean, lowest), highest)
        return mean, sum(ss + n * (m - mean) ** 2 for n, m, ss in parts)

    def _moments(self, i, j):
        """Number, mean and spread of the weights from i to j, within a block."""
        if (i, j) not in self._known:
            xp, x = array_namespace(self.values), self.read(self.values[i:j])
            mean = float(x[0]) + float(xp.mean(x - x[0]))
            self._known[i, j] = j - i, mean, float(xp.sum((x - mean) ** 2))
        return self._known[i, j]


def _first_sums(x, ends):
    """Σ of the first e entries of x, for ascending e."""
    xp = array_namespace(x)
    if size(ends) > FEW or not is_numpy_array(x):
        return xp.take(running_sums(x), ends)
    starts = np.concatenate([[0], ends])
    between = np.add.reduceat(np.append(x, 0.0), starts)[:-1]
    return np.cumsum(between * (starts[1:] > starts[:-1]))  # of no entry reduceat gives the next


def running_sums(x: Array) -> Array:
    """Sums of the first 0, 1, .. n entries along the last axis, each off by about one rounding.

    A running sum loses a little at every step; what each step lost is exact (a difference of two
    floating numbers is a floating number plus an error that is one too) and summed beside it.
    """
    xp = array_namespace(x)
    total = xp.cumulative_sum(x, axis=-1, include_initial=True)
    before, after = total[..., :-1], total[..., 1:]
    step = after - before
    virtual = after - step
    error = after - (step + virtual)
    virtual -= before
    error += virtual
    step -= x
    step += error  # less what was lost
    total -= xp.cumulative_sum(step, axis=-1, include_initial=True)
    return total


def ascending(x: Array, reuse: bool = False) -> Array:
    """The sorted vector; with reuse, of a NumPy array in its own memory."""
    if reuse and is_numpy_array(x):
        x.sort()
        return x
    return array_namespace(x).sort(x, stable=False)


def run_means(values: Array, runs: Sequence[tuple[int, int]], scale: float = 1.0) -> Array:
    """Mean of values[i:j] / scale in its range, for runs of ascending values; exact of alike ones.

    A run may be in any order between its first and its last.
    """
    xp, means = array_namespace(values), []
    for i, j in runs:
        lowest, highest = (float(wide(values[e])) / scale for e in (i, j - 1))
        total = sum(float(xp.sum(scaled(values[i + a:i + b], scale) - lowest))
                    for a, b in block_ends(values[i:j]))
        means.append(min(max(lowest + total / (j - i), lowest), highest))
    return xp.asarray(means, dtype=xp.float64, device=device(values))


def split(starts: Array, ends: Array, count: int) -> tuple[Array, Array, Array]:
    """Buckets cut into about count of one length; (starts, ends, which one each comes from).

    Into single weights, where they are few enough: a pass over buckets more costs as much.
    """
    xp, lengths = array_namespace(starts), ends - starts
    total = int(xp.sum(lengths))
    step = 1 if total <= ENOUGH * count else -(-total // count)
    pieces = (lengths + step - 1) // step
    whole = xp.repeat(xp.arange(size(starts), dtype=xp.int64, device=device(starts)), pieces)
    nth = xp.arange(size(whole), dtype=xp.int64, device=device(starts)) - xp.repeat(
        xp.cumulative_sum(pieces) - pieces, pieces)
    first = xp.take(starts, whole) + nth * step
    return first, xp.minimum(first + step, xp.take(ends, whole)), whole


def left_of_cuts(x: Ascending, starts: Array, ends: Array) -> tuple[Array, Array]:
    """Number and sum of the weights on the left of a cut within each bucket, for the bound.

    Those before the bucket, and those of its own that lie at l when all of them lie at l or u.
    """
    xp, l, u = array_namespace(starts), x.at(starts), x.at(ends)
    before, after = sums_beside(x, starts, ends)
    n = wide(ends - starts)
    at_l = xp.clip((n * u - (after - before)) / xp.where(u > l, u - l, xp.ones_like(l)), min=1.0)
    at_l = xp.minimum(at_l, n)
    return wide(starts) + at_l, xp.where(n == 1, after, before + at_l * l)


def sums_beside(x: Ascending, starts: Array, ends: Array, power: int = 1) -> tuple[Array, Array]:
    """Σ xᵖ of the weights before each bucket, and before its end."""
    xp = array_namespace(starts)
    edges = xp.unique_values(xp.concat([starts, ends]))
    sums = x.sums(edges, power)
    before, after = (xp.take(sums, xp.searchsorted(edges, e)) for e in (starts, ends))
    return before, after


def best_clusters(x: Ascending, k: int) -> list[tuple[int, int]]:
    """The best k clusters as runs; each distinct value one where there are no more than k."""
    starts = _distinct(x.values, k)
    if starts is None:
        starts = [0, *(map(int, _best_cuts(x.about(size(x.values) // 2), k)) if k > 1 else ())]
    return list(zip(starts, [*starts[1:], size(x.values)]))


def _distinct(ordered, k):
    """Where each distinct value of a sorted vector starts; None where there are more than k."""
    xp, starts = array_namespace(ordered), [0] if size(ordered) else []
    for i, j in block_ends(ordered[1:]) if starts else ():
        changes = xp.nonzero(ordered[i + 1:j + 1] != ordered[i:j])[0]
        if len(starts) + size(changes) > k:
            return None
        starts += [int(change) + i + 1 for change in changes]
    return starts


def _best_cuts(x, k):
    """Where the best k clusters but the first start, in more than k ≥ 2 distinct weights.

    For each cut the buckets that may hold it are kept: those whose bound, F for the clusters to
    its left plus G for those to its right, is not below what some clusters do save.
    """
    xp, n = array_namespace(x.values), size(x.values)
    ends = xp.asarray([n], dtype=xp.int64, device=device(x.values))
    starts, total, many = 0 * ends, float(x.sums(ends)[0]), max(BUCKETS, int(32 * k**1.5))
    rows = [starts] * (k - 1)
    while True:
        starts, ends, whole = split(starts, ends, many)
        many *= 2
        cuttable = x.at(starts) < x.at(ends)
        single = int(size(starts) == int(xp.sum(ends - starts)))
        rows = _in_order([xp.nonzero(_among(whole, row) & cuttable)[0] for row in rows], single)
        counts, sums = left_of_cuts(x, starts, ends)
        below, choices = _bounds(counts, sums, rows, single)
        path = _path(rows, choices, below[-1] + _saved(
            n - xp.take(counts, rows[-1]), total - xp.take(sums, rows[-1])))
        if single:
            return xp.take(ends, path)
        m = size(starts) - 1
        above = _bounds(n - xp.flip(counts), total - xp.flip(sums),
                        [m - xp.flip(row) for row in reversed(rows)], 0)[0]
        least = _reached(x, counts, sums, path, n, total) * (1 - 8 * n * EPS)
        rows = [row[f + xp.flip(g) >= least] for row, f, g in zip(rows, below, reversed(above))]
        kept = xp.unique_values(xp.concat(rows))
        starts, ends = xp.take(starts, kept), xp.take(ends, kept)
        rows = [xp.searchsorted(kept, row) for row in rows]


def _saved(counts, sums):
    """What clusters save by their means, S² / N; nothing where they are empty."""
    return sums * sums / array_namespace(sums).clip(counts, min=1.0)


def _among(x, known):
    """Whether each x is one of the known, ascending and at least one."""
    xp = array_namespace(x)
    at = xp.clip(xp.searchsorted(known, x), max=size(known) - 1)
    return xp.take(known, at) == x


def _in_order(rows, apart):
    """The rows without buckets that have none of the row before on their left, or after on theirs.
    """
    for c in range(1, len(rows)):
        rows[c] = rows[c][rows[c] >= rows[c - 1][0] + apart]
    for c in range(len(rows) - 1, 0, -1):
        rows[c - 1] = rows[c - 1][rows[c - 1] <= rows[c][-1] - apart]
    return rows


def _bounds(counts, sums, rows, apart):
    """The most that the clusters left of each cut save, for every bucket of its row.

    F_c(j) = max over i ≤ j of F_{c−1}(i) + (S_j − S_i)² / (N_j − N_i), with one cluster F_1(j) =
    S_j² / N_j; and which of the row before is the best i. With apart, i < j.
    """
    xp = array_namespace(counts)
    gains, choices = [_saved(xp.take(counts, rows[0]), xp.take(sums, rows[0]))], []
    for last, row in zip(rows, rows[1:]):
        n_i, s_i, f_i = xp.take(counts, last), xp.take(sums, last), gains[-1]
        n_j, s_j = xp.take(counts, row), xp.take(sums, row)

        def saving(i, at, n_i=n_i, s_i=s_i, f_i=f_i, n_j=n_j, s_j=s_j):
            return xp.take(f_i, i) + _saved(at(n_j) - xp.take(n_i, i), at(s_j) - xp.take(s_i, i))
        gain, choice = best_starts(saving, xp.searchsorted(last, row - apart, side="right") - 1)
        gains.append(gain)
        choices.append(choice)
    return gains, choices


def _path(rows, choices, gains):
    """The bucket of every cut, where the last one has the largest gain."""
    xp, at = array_namespace(gains), int(array_namespace(gains).argmax(gains))
    path = [int(rows[-1][at])]
    for row, choice in zip(rows[-2::-1], choices[::-1]):
        at = int(choice[at])
        path.append(int(row[at]))
    return xp.asarray(path[::-1], dtype=xp.int64, device=device(gains))


def _reached(x, counts, sums, path, n, total):
    """What the weights nearest to the centres of the path save as clusters."""
    xp = array_namespace(counts)

    def between(left, whole):  # of each cluster, from what is left of each cut
        first = xp.zeros_like(left[:1])
        return xp.concat([left, first + whole]) - xp.concat([first, left])
    centres = between(xp.take(sums, path), total) / xp.clip(
        between(xp.take(counts, path), n), min=1.0)
    cuts = xp.sort(x.find((centres[1:] + centres[:-1]) / 2))
    return float(xp.sum(_saved(between(wide(cuts), n), between(x.sums(cuts), total))))


def best_starts(value: Callable, limits: Array) -> tuple[Array, Array]:
    """max over i ≤ limits_j of value(i, j), and the best i, for every j; by divide and conquer.

    For values whose best i grows with j, and limits that do. The middle j of a gap between two
    solved ones searches only between their best i: all gaps of a level at once, about log2 m
    levels. `value(i, at)` is given the i of many pairs, and `at(x)`, x_j for their j.
    """
    xp, m, here = array_namespace(limits), size(limits), device(limits)
    best = xp.zeros(m, dtype=xp.float64, device=here)
    step = 1 << m.bit_length()
    choice = xp.full(step, int(limits[-1]), dtype=xp.int64, device=here)  # none solved is above
    while step := step // 2:
        j = xp.arange(step - 1, m, 2 * step, dtype=xp.int64, device=here)
        above = choice[2 * step - 1::2 * step]
        first = xp.concat([xp.zeros_like(j[:1]), above])[:size(j)]
        lengths = xp.minimum(above[:size(j)], limits[step - 1::2 * step]) - first + 1
        starts = xp.cumulative_sum(lengths) - lengths
        i = xp.arange(int(xp.sum(lengths)), dtype=xp.int64, device=here) - xp.repeat(
            starts - first, lengths)
        values = value(i, lambda x: xp.repeat(xp.take(x, j), lengths))
        found = _segment_argmax(values, starts, lengths)
        best[step - 1:m:2 * step] = xp.take(values, found)
        choice[step - 1:m:2 * step] = xp.take(i, found)
    return best, choice[:m]


def _segment_argmax(values, starts, lengths):
    """First position of the maximum of each segment values[starts_j : starts_j + lengths_j]."""
    xp = array_namespace(values)
    if is_numpy_array(values):
        tops = xp.maximum.reduceat(values, starts)
        hits = xp.flatnonzero(values == xp.repeat(tops, lengths))
        return hits[xp.searchsorted(hits, starts)]
    return _segment_argmax_by_doubling(values, starts, lengths)


def _segment_argmax_by_doubling(values, starts, lengths):
    """The same within the standard: best[p] covers a window from p that doubles in each pass."""
    xp, total = array_namespace(values), size(values)
    position = xp.arange(total, dtype=xp.int64, device=device(values))
    end = xp.repeat(starts + lengths, lengths)
    best, reach = position, 1
    while reach < int(xp.max(lengths)):
        other = xp.take(best, xp.clip(position + reach, max=total - 1))
        better = (position + reach < end) & (xp.take(values, other) > xp.take(values, best))
        best, reach = xp.where(better, other, best), 2 * reach
    return xp.take(best, starts)
