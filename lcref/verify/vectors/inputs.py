"""The inputs of the vectors: chosen by hand at the edges, drawn from seeds in between.

Everything is computed with sums, products and divisions of doubles alone, so that every machine
draws the same numbers.
"""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Input = tuple[np.ndarray, tuple]

F32 = np.float32
LEAST = 2.0**-1074


# ---- weights


def bell(rng, n):
    return [rng.random() + rng.random() + rng.random() - 1.5 for _ in range(n)]


def heavy(rng, n):
    draws = [2 * rng.random() - 1 for _ in range(n)]
    return [u / (1.02 - abs(u)) for u in draws]


def whole(rng, n):
    return [float(rng.randint(-3, 3)) for _ in range(n)]


def quarters(rng, n):
    return [rng.randint(-9, 9) / 4 for _ in range(n)]


def grouped(rng, n):
    return [rng.choice([-4.0, 0.5, 1.0, 9.0]) + (rng.random() - 0.5) / 4 for _ in range(n)]


DRAWS = [bell, heavy, whole, quarters, grouped]


def edges(rng: random.Random) -> list[np.ndarray]:
    """Vectors at the edges: each kind projects all of them."""
    offset = [1e8 + x for x in bell(rng, 7)]
    return [np.array(w) for w in (
        [0.0, 0.0, 0.0, 0.0], [0.0, -0.0, 0.0], [-0.0, 0.0, 1.0, -0.0, -2.0], [0.75], [-3.0],
        [0.0], [1.0, -1.0, 1.0, -1.0], [2.0, 2.0, 2.0], [3.0, -3.0, 1.0, 1.0, -1.0, 0.5], offset,
        [-x for x in offset[:5]], [1e8, 1e8 + 1, 1e8 + 2, 1e8 + 10, 1e8 + 11, 1e8 + 11],
        [LEAST, -3e-310, 2e-320, 0.0, 3e-308], [1.0, 1e-310, -0.5, LEAST],
        [x * 2.0**500 for x in bell(rng, 5)], [x * 2.0**-480 for x in bell(rng, 5)],
        [0.5, 0.25, -0.75, 1.5, -0.5],
    )] + [np.array(w, dtype=F32) for w in (
        bell(rng, 6), heavy(rng, 5), [1e8, 1e8 + 8, 1e8 + 24, 1e8 + 80, 1e8 + 88],
        [x * 1e30 for x in bell(rng, 4)], [x * 1e-30 for x in bell(rng, 4)],
        [1e-45, -3e-41, 2e-38, 0.0], [0.0, -0.0, 1.0, 1.0], [-1.5],
    )] + [np.zeros(0), np.zeros((0, 3)), np.array(0.3), np.array(bell(rng, 6)).reshape(2, 3),
          np.array(whole(rng, 8)).reshape(2, 2, 2), np.array(heavy(rng, 6), F32).reshape(3, 1, 2)]


def vectors(rng: random.Random, count: int, most: int) -> Iterator[np.ndarray]:
    """Small vectors of all draws, one in five of them float32."""
    for i in range(count):
        n = rng.randint(2, most)
        w = np.array(DRAWS[i % len(DRAWS)](rng, n))
        yield w.astype(F32) if i % 7 == 3 else w


def large(rng: random.Random, sizes: tuple[int, ...]) -> Iterator[np.ndarray]:
    """A few vectors that no search can solve; one at a large offset."""
    for i, n in enumerate(sizes):
        w = np.array([heavy, bell, quarters][i % 3](rng, n))
        yield (w + 1e8) if i == 1 else w


def matrices(rng: random.Random, count: int) -> Iterator[np.ndarray]:
    """Small matrices, some with equal rows or of a low rank."""
    for i in range(count):
        m, n = rng.randint(1, 4), rng.randint(1, 4)
        w = np.array(DRAWS[i % len(DRAWS)](rng, m * n)).reshape(m, n)
        if i % 6 == 5:
            w[-1] = w[0]
        if i % 6 == 4:
            w = np.outer(whole(rng, m), whole(rng, n))
        yield w.astype(F32) if i % 7 == 3 else w


def matrix_edges(rng: random.Random) -> list[np.ndarray]:
    """Matrices at the edges."""
    def shaped(draw, m, n):
        return np.array(draw(rng, m * n)).reshape(m, n)

    return [
        np.zeros((2, 3)), np.array([[0.0, -0.0], [-1.0, 0.0]]), np.array([[0.75]]),
        np.array([[-2.0]], F32), np.eye(3), 2 * np.eye(2, 4), np.diag([3.0, 1.0, 1.0, 2.0]),
        np.ones((3, 2)), np.array([[1.0, 1.0], [1.0, -1.0]]), 1e8 + shaped(bell, 3, 3),
        np.array([[1e8, 1e8 + 8], [1e8 + 16, 1e8 + 24]], F32), shaped(bell, 3, 2) * 2.0**500,
        shaped(bell, 2, 3) * 2.0**-480, np.array([[LEAST, 2e-310], [0.0, -3e-309]]),
        (shaped(bell, 2, 2) * 1e30).astype(F32), (shaped(bell, 2, 3) * 1e-30).astype(F32),
        np.array([[1e-45, 0.0], [3e-41, 2e-40]], F32), np.zeros((0, 3)), np.zeros((2, 0)),
        shaped(bell, 1, 5), shaped(heavy, 5, 1), shaped(heavy, 4, 2), shaped(quarters, 2, 4),
        shaped(whole, 4, 4), shaped(bell, 4, 4).astype(F32),
    ]


# ---- parameters


def unit_of(w: np.ndarray) -> float:
    """The power of two at or under the largest magnitude; 1 for zeros."""
    largest = float(np.max(np.abs(w), initial=0))
    return 2.0 ** (int(np.frexp(largest)[1]) - 1) if largest else 1.0


def counts(rng, w):
    """κ: most often inside, sometimes 0, n or n + 1."""
    return (rng.choice([0, w.size, w.size + 1, *range(1, max(w.size, 2)), *range(1, w.size + 1)]),)


def codebook(rng, w, unit):
    """A few distinct entries in w's dtype; half the time whole numbers, so that ties are common."""
    k = rng.randint(1, 4)
    draws = [rng.randint(-4, 4) / 4 if rng.random() < 0.5 else 2 * rng.random() - 1
             for _ in range(k)]
    return np.unique(np.array([x * unit for x in draws]).astype(w.dtype) + w.dtype.type(0))


def radii(rng, w):
    """r from 0 to beyond ‖w‖₁, often on a vertex or on the surface."""
    norm = math.fsum(map(abs, w.ravel().tolist()))
    top = float(np.max(np.abs(w), initial=0))
    return (rng.choice([0.0, norm, norm * 0.75, norm * 0.3, top, top / 2, norm * 2,
                        math.nextafter(norm, 0), top * 0.01, norm * 0.9]),)


def prices(power):
    """(α, μ) with a price from 0 to more than dropping every weight saves; often a tie."""
    def of(rng, w):
        mu = rng.choice([1.0, 0.25, 4.0, 0.1, 3.0])
        share = rng.choice([0.0, 0.125, 0.5, 1.0, 2.0, 0.05, 0.3 * rng.random(), 0.01, 20.0])
        return share * mu / 2 * min(unit_of(w), 2.0**500) ** power, mu
    return of


PARAMETERS: dict[str, Callable[[random.Random, np.ndarray], tuple]] = {
    "nearest": lambda rng, w: (codebook(rng, w, unit_of(w)),),
    "binary": lambda rng, w: (rng.random() < 0.7,),
    "ternary": lambda rng, w: (rng.random() < 0.7,),
    "powers_of_two": lambda rng, w: (rng.choice([0, 1, 2, 3, 4, 7, 10]),),
    "scaled_codebook": lambda rng, w: (codebook(rng, w, 1.0),),
    "kmeans": lambda rng, w: (rng.choice([1, 2, 2, 3, 3, 4, max(w.size, 1), w.size + 1]),),
    "l0_ball": counts,
    "l1_ball": radii,
    "l0_penalty": prices(2),
    "l1_penalty": prices(1),
    "group_l0_ball": lambda rng, w: (rng.randint(0, max(w.shape) + 1),
                                     rng.randint(-w.ndim, w.ndim - 1)),
    "rank_ball": lambda rng, w: (rng.randint(0, min(w.shape) + 1),),
    "rank_selection": lambda rng, w: (*prices(2)(rng, w), "storage"),
    "round_to": lambda rng, w: (rng.choice(["float16", "bfloat16", "int2", "int3", "int4"]),),
    "codebook_l0": lambda rng, w: (codebook(rng, w, unit_of(w)), *counts(rng, w)),
    "scaled_binary_l0": counts,
    "kmeans_l0": lambda rng, w: (rng.choice([1, 1, 2, 2, 3]), *counts(rng, w)),
}
MATRIX_KINDS = ("group_l0_ball", "rank_ball", "rank_selection")
SIZES = {"kmeans": (30, 30, 50, 36, 30), "kmeans_l0": (30, 30, 36, 32),
         "scaled_codebook": (30, 30, 60), "round_to": (30, 30, 40)}
SMALL = {"kmeans_l0": 7, "round_to": 5, "scaled_codebook": 6}

# ---- cases chosen by hand, beside the edges

BY_HAND: dict[str, list[tuple[Any, ...]]] = {
    "nearest": [([0.5, -0.5, 1.5, 0.0], np.array([-1.0, 0.0, 1.0, 2.0])),
                ([90.0, -70.0, 0.1], np.array([-1e-3, 1e-3]))],
    "binary": [([0.0, 0.0, 1.0], True), ([1.0, 2.0, 60.0], True), ([1.0, 2.0, 60.0], False)],
    "ternary": [([0.5, -0.5, 0.25], False), ([1.0, 7.0, -5.0], True), ([1.0, 7.0, -5.0], False)],
    "powers_of_two": [([0.75, -0.375, 3.0, 0.05], 1), ([0.75, -0.375, 3.0, 0.05], 4)],
    "scaled_codebook": [([-1.0, -2.0], np.array([1.0, 3.0])),
                        ([2.0, 1.0, -5.0], np.array([-1.0, 0.5])),
                        ([0.0, 1.0, -1.0], np.array([-1.0, 1.0]))],
    "kmeans": [([0.0, 1.0, 2.0], 2), ([0.0, 1.0, 2.0, 3.0, 4.0], 2),
               ([0.0, 0.1, 0.2, 5.0, 5.1, 5.2, 9.0], 3), ([0.0, 1.0, 10.0, 11.0, 50.0, 51.0], 3),
               ([-9.0, -8.9, -8.8, -8.7, -8.6, 0.0, 4.0, 9.0], 3),
               ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 5.0, 9.0, 9.5], 3)],
    "l0_ball": [([3.0, -1.0, 2.0], 0), ([3.0, -1.0, 2.0], 3), ([3.0, -1.0, 2.0], 9)],
    "l1_ball": [([3.0, -1.0, 0.5], 2.0), ([3.0, 1.0, 1.0], 2.0), ([0.5, -0.25], 0.75),
                ([4.0, -3.0, 1.0], 4.0), ([1e6, 1e-6, -1e-6], 10.0), ([1.0, 0.999999], 1e-3)],
    "l0_penalty": [([1.0, -2.0, 3.0], 2.0, 1.0), ([1.0, -2.0, 3.0], 2.0, 4.0)],
    "l1_penalty": [([1.0, -2.0, 3.0], 2.0, 1.0), ([1.0, -2.0, 3.0], 2.0, 4.0)],
    "group_l0_ball": [([[1.0, 5.0], [4.0, 4.0]], 1, 0), ([[1.0, 5.0], [4.0, 4.0]], 1, -1),
                      ([[1.0, 5.0], [4.0, 4.0]], 1, 1), ([3.0, 1.0, -2.0], 2, 0)],
    "rank_ball": [*(([[0.0, 3.0, 0.0], [-5.0, 0.0, 0.0], [0.0, 0.0, 4.0]], r) for r in range(5)),
                  ([[1.0, 1.0], [1.0, -1.0]], 1), ([[2.0, 0.0, 0.0], [0.0, 0.0, 2.0]], 1),
                  (np.diag([3.0, 1.0, 1.0]), 2), (np.diag([3.0, 3.0, 1.0]), 1)],
    "rank_selection": [([[1.0, 1.0], [1.0, -1.0]], 0.25, 1.0, "storage"),
                       (np.diag([3.0, 1.0, 1.0]), 1 / 12, 1.0, "storage"),
                       ([[5.0, 0.0], [0.0, 1.0]], 0.125, 1.0, "storage"),
                       ([[5.0, 0.0], [0.0, 1.0]], 0.125, 8.0, "storage"),
                       ([[5.0, 0.0], [0.0, 1.0]], 9.0, 1.0, "storage")],
    "round_to": [([2049.0, 70000.0, 2.0**-26, -65520.0], "float16"),
                 ([257.0, -(2.0**-134), 1e39, 3.4e38], "bfloat16"), ([2.0, 1.0], "int2"),
                 ([-2.0, 1.0, 1.0], "int2"), ([0.3, -0.7, 1.1, 0.2], "int8"),
                 ([0.3, -0.7, 1.1, 0.2], "int5"), ([5.0, 5.1, 4.9, 0.1], "int2"),
                 ([1.0, 0.4, -0.3, 0.2, 3.0], "int3"), ([1.0, -0.9, 0.31], "int6"),
                 ([1.0, -0.9, 0.31], "int7")],
    "codebook_l0": [([0.0, 3.0, -1.0, 9.0], np.array([0.0, 4.0]), 1),
                    ([0.5, -0.5, 9.0], np.array([-1.0, 0.0, 1.0]), 1)],
    "scaled_binary_l0": [([1.0, -1.0, 2.0, 40.0], 1), ([0.0, 10.0, -10.1, 10.2], 1),
                         ([1.0, 2.0, 3.0, 4.0], 2), ([1.0, 1.0, 1.0, 2.0], 1)],
    "kmeans_l0": [([1.0, 2.0, 3.0], 1, 1), ([0.0, 1.0, 50.0, 5.0, 7.0], 2, 1),
                  ([2.0, 0.0, 2.0, 2.0], 1, 1), ([0.0, 0.0, 5.0, 5.0, 9.0, 9.0], 2, 1),
                  ([0.0, 9.0, 5.0, 8.0], 1, 2)],
}
OFFSET: dict[str, list[tuple]] = {  # of twelve weights close together at 1e8
    "kmeans": [(2,), (2,), (3,)], "kmeans_l0": [(1, 3), (2, 2)],
    "scaled_binary_l0": [(3,), (2,), (1,)], "l0_ball": [(5,)], "l1_ball": [(1e8,)],
    "binary": [(True,)], "ternary": [(True,)],
}


def weights_and_parameters(kind: str) -> Iterator[Input]:
    """(w, parameters) of all cases of one kind, the same on every machine."""
    rng, matrix = random.Random(f"lcref vectors {kind}"), kind in MATRIX_KINDS
    for w, *parameters in BY_HAND[kind]:
        yield np.array(w), tuple(parameters)
    for given in OFFSET.get(kind, []):  # squares of 1e16 have a spacing of 2
        yield np.array([1e8 + x / 8 for x in bell(rng, 12)]), given
    some = [*(matrix_edges if matrix else edges)(rng)]
    if kind == "group_l0_ball":
        some += [w for w in edges(rng) if w.ndim > 0]
    small = matrices(rng, 80) if matrix else vectors(rng, 75, SMALL.get(kind, 8))
    drawn = [*some, *small, *(large_matrices(rng) if matrix else
                              large(rng, SIZES.get(kind, (30, 40, 60, 120))))]
    for i, w in enumerate(drawn):
        yield w, PARAMETERS[kind](rng, w)
        if i % 9 == 2:  # the same weights once more: the parameters must matter
            yield w, PARAMETERS[kind](rng, w)


def large_matrices(rng: random.Random) -> Iterator[np.ndarray]:
    """Matrices of more entries than a search can take."""
    for m, n in ((6, 6), (8, 5), (4, 10)):
        yield np.array(heavy(rng, m * n)).reshape(m, n)
