"""What the tests of compressions compare: trees of arrays, parts, and every kind there is."""

import dataclasses
from fractions import Fraction

import numpy as np
from places import on_host, projections


def tensors(tree):
    """The arrays of an array or of a dict, on the host."""
    return [on_host(t) for t in (tree.values() if isinstance(tree, dict) else [tree])]


def vector(tree):
    return np.concatenate([t.ravel() for t in tensors(tree)])


def same_bits(one, other):
    """Equal to the last bit, the sign of zero too, with the same names, shapes and dtypes."""
    if isinstance(one, dict) or isinstance(other, dict):
        assert list(one) == list(other)
    for a, b in zip(tensors(one), tensors(other), strict=True):
        assert (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


def same_part(one, other):
    """The same θ to the last bit: of one kind, with the same codes, positions, values, shapes."""
    assert type(one) is type(other)
    for name in (f.name for f in dataclasses.fields(one)):
        value, theirs = getattr(one, name), getattr(other, name)
        if isinstance(value, np.ndarray):
            same_bits(value, theirs)
        elif name == "parts":
            assert len(value) == len(theirs)
            for key in value if isinstance(value, dict) else range(len(value)):
                same_part(value[key], theirs[key])
        else:
            assert value == theirs


def distance(w, deltas):
    """‖w − Δ1 − ... − Δm‖², exactly."""
    rows = zip(*(map(Fraction, vector(tree).tolist()) for tree in (w, *deltas)))
    return sum(((x - sum(entries)) ** 2 for x, *entries in rows), Fraction(0))


def objective(w, theta):
    """‖w − Δ1(θ1) − ... − Δm(θm)‖² of a sum's parts, exactly."""
    return distance(w, [part.decompress() for part in theta.parts])


MU = 2.5  # of the penalty forms, where any value does


LEVELS = [-1.0, 0.25, 2.0]


# the text of a kind, and the projection of one array that it stands for
OF_WEIGHTS = {
    "quantize(k=2)": lambda w: projections.kmeans(w, 2),
    "quantize(codebook=[-1, 0.25, 2])": lambda w: projections.nearest(w, LEVELS),
    "quantize(codebook=[-1, 0.25, 2], scale=True)":
        lambda w: projections.scaled_codebook(w, LEVELS),
    "binary()": lambda w: projections.binary(w),
    "binary(scale=True)": lambda w: projections.binary(w, scale=True),
    "ternary()": lambda w: projections.ternary(w),
    "ternary(scale=True)": lambda w: projections.ternary(w, scale=True),
    "powersoftwo(c=2)": lambda w: projections.powers_of_two(w, 2),
    "round(dtype='float16')": lambda w: projections.round_to(w, "float16"),
    "round(dtype='bfloat16')": lambda w: projections.round_to(w, "bfloat16"),
    "round(dtype='int3')": lambda w: projections.round_to(w, "int3"),
    "prune(kappa=3)": lambda w: projections.l0_ball(w, 3),
    "prune(keep=0.5)": lambda w: projections.l0_ball(w, w.size // 2),
    "prune(radius=1.5)": lambda w: projections.l1_ball(w, 1.5),
    "prune(alpha=0.6)": lambda w: projections.l0_penalty(w, 0.6, MU),
    "prune(alpha=0.6, norm=1)": lambda w: projections.l1_penalty(w, 0.6, MU),
}


OF_ARRAYS = {
    "lowrank(rank=1)": lambda w: projections.rank_ball(w, 1),
    "lowrank(rank=1, scheme=2)": lambda w: projections.rank_ball(w, 1),  # a matrix has no schemes
    "lowrank(alpha=0.3)": lambda w: projections.rank_selection(w, 0.3, MU),
    "lowrank(alpha=0.2, cost='flops', positions=3)":
        lambda w: projections.rank_selection(w, 0.2, MU, lambda r: 3 * r * sum(w.shape)),
}


OF_SLICES = {
    "prune(groups=1, axis=-1)": lambda w: projections.group_l0_ball(w, 1, -1),
    "prune(keep=0.5, axis=0)": lambda w: projections.group_l0_ball(w, w.shape[0] // 2, 0),
}


KINDS = {**OF_WEIGHTS, **OF_ARRAYS, **OF_SLICES}


# ties, zeros of both signs, a value of every size
MATRICES = {"a": np.array([[-0.0, 2, 2], [-2, 1e-3, 0.0]]),
            "b": np.array([[-0.0, -0.7], [3, 0.7]])}


def heavy_tailed(seed, shape=(4, 5), dtype=np.float64, offset=0.0):
    return (np.random.default_rng(seed).standard_t(2, size=shape) + offset).astype(dtype)
