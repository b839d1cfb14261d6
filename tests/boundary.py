"""Rows and columns of the matrix of `test_boundary`: every public name, and the hostile arrays."""

import dataclasses
import inspect
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

import lcref
from lcref import (Binary, Each, LowRank, PowersOfTwo, Prune, Quantize, Round, Schedule, Sum, Task,
                   Ternary, compressions, data, inference, lsteps, nets, parts, plots, storage,
                   tolerance, verify)
from lcref import projections as p
from lcref.verify import oracles

W = np.array([[1.1, -2.3, 0.7], [3.9, 0.21, 2.2]])
LARGE = np.random.default_rng(0).normal(size=(12, 17))
IMAGES = np.linspace(-1.0, 1.0, 32).reshape(1, 4, 4, 2)  # channels last
KERNELS = np.linspace(-1.0, 1.0, 16).reshape(2, 2, 2, 2)
LABELS, OTHER = np.array([0, 1, 0]), np.array([[1.0, 0.5], [-1.0, 0.25], [2.0, 1.0]])
WIDER = np.longdouble if np.finfo(np.longdouble).bits > 64 else np.complex64


class Row(NamedTuple):
    """One argument of a public name. `takes` says which values it may have, see ALLOWED.

    Weights are finite and real floating; a signal may have a NaN, which is seen in the answer;
    whole numbers are integers; numbers are either, finite; data are either; at the start
    of an L step what is not finite diverges. An object is no array, and a budget a
    number.
    """

    name: str
    argument: str  # the word that a refusal must say
    call: Callable  # the array in the argument's place -> the answer
    base: np.ndarray = W
    takes: str = "weights"
    refuses: tuple = ()  # of the shapes in EMPTY
    also: tuple = ()  # columns of REFUSED that are right here, by the docstring
    oracle: Callable | None = None  # the least objective, a Fraction
    penalty: Callable = lambda theta: 0


# ---- columns: what is made of an array

def put(value):
    def hostile(w):
        w = np.array(w, np.float64 if w.dtype.kind != "f" else w.dtype)
        w.flat[0] = value
        return w
    return hostile


def strided(w):
    wide = np.full([2 * n for n in w.shape], 7, w.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in w.shape)]
    view[...] = w
    return view


def backwards(w):
    return np.flip(np.flip(w).copy())


def read_only(w):
    w = w.copy()
    w.flags.writeable = False
    return w


REFUSED = {
    "nan": put(np.nan), "+inf": put(np.inf), "-inf": put(-np.inf),
    "int64": lambda w: w.astype(np.int64), "uint8": lambda w: abs(w).astype(np.uint8),
    "bool": lambda w: w > 0, "complex": lambda w: w.astype(np.complex128),
    "object": lambda w: w.astype(object), "text": lambda w: w.astype("U8"),
    "longdouble": lambda w: w.astype(WIDER), "list": lambda w: w.tolist(), "None": lambda w: None,
    "number": lambda w: 1.5, "masked": lambda w: np.ma.masked_array(w.copy(), mask=w > 1),
    "not masked": lambda w: np.ma.masked_array(w.copy()),
    "matrix": lambda w: w.reshape(len(w), -1).view(np.matrix),
}
NOT_FINITE, INTEGERS = ("nan", "+inf", "-inf"), ("int64", "uint8")
LAYOUTS = {"strided": strided, "backwards": backwards, "read-only": read_only,
           "Fortran": np.asfortranarray}
EMPTY = ((0,), (0, 3), (3, 0), ())
ALLOWED = {  # columns of REFUSED that are right all the same, and judged by `is_right`
    "weights": (), "signal": NOT_FINITE, "whole": INTEGERS, "numbers": INTEGERS,
    "data": (*NOT_FINITE, *INTEGERS), "objects": (), "budget": ("None", "number"),
    "start": NOT_FINITE}


# ---- rows: projections and C steps

CODES = [-1.0, 0.25, 2.0]
MATRIX = ((0,), ())
PROJECTIONS = [
    Row("projections.kmeans", "w", lambda w: p.kmeans(w, 2), oracle=lambda w: oracles.kmeans(w, 2)),
    Row("projections.binary", "w", p.binary, oracle=lambda w: oracles.binary(w, False)),
    Row("projections.binary", "w", lambda w: p.binary(w, True),
        oracle=lambda w: oracles.binary(w, True)),
    Row("projections.ternary", "w", p.ternary, oracle=lambda w: oracles.ternary(w, False)),
    Row("projections.ternary", "w", lambda w: p.ternary(w, True),
        oracle=lambda w: oracles.ternary(w, True)),
    Row("projections.nearest", "w", lambda w: p.nearest(w, CODES),
        oracle=lambda w: oracles.nearest(w, CODES)),
    Row("projections.powers_of_two", "w", lambda w: p.powers_of_two(w, 2),
        oracle=lambda w: oracles.powers_of_two(w, 2)),
    Row("projections.scaled_codebook", "w", lambda w: p.scaled_codebook(w, CODES),
        oracle=lambda w: oracles.scaled_codebook(w, CODES)),
    *(Row("projections.round_to", "w", lambda w, d=d: p.round_to(w, d),
          oracle=lambda w, d=d: oracles.round_to(w, d)) for d in ("float16", "bfloat16", "int2")),
    Row("projections.l0_ball", "w", lambda w: p.l0_ball(w, 2),
        oracle=lambda w: oracles.l0_ball(w, 2)),
    Row("projections.l1_ball", "w", lambda w: p.l1_ball(w, 2.0),
        oracle=lambda w: oracles.l1_ball(w, 2.0)),
    Row("projections.l0_penalty", "w", lambda w: p.l0_penalty(w, 2.0, 1.0),
        oracle=lambda w: oracles.l0_penalty(w, 2.0, 1.0),
        penalty=lambda theta: 4 * np.count_nonzero(theta)),
    Row("projections.l1_penalty", "w", lambda w: p.l1_penalty(w, 2.0, 1.0),
        oracle=lambda w: oracles.l1_penalty(w, 2.0, 1.0),
        penalty=lambda theta: 4 * sum(abs(Fraction(x)) for x in theta.ravel().tolist())),
    Row("projections.group_l0_ball", "w", lambda w: p.group_l0_ball(w, 1, 0), refuses=((),),
        oracle=lambda w: oracles.group_l0_ball(w, 1, 0)),
    Row("projections.rank_ball", "w", lambda w: p.rank_ball(w, 1), refuses=MATRIX,
        oracle=lambda w: oracles.rank_ball(w, 1)),
    Row("projections.rank_selection", "w", lambda w: p.rank_selection(w, 1e-9, 1.0),
        refuses=MATRIX),
    Row("projections.codebook_l0", "w", lambda w: p.codebook_l0(w, CODES, 1),
        oracle=lambda w: oracles.codebook_l0(w, CODES, 1)),
    Row("projections.scaled_binary_l0", "w", lambda w: p.scaled_binary_l0(w, 1),
        oracle=lambda w: oracles.scaled_binary_l0(w, 1)),
    Row("projections.kmeans_l0", "w", lambda w: p.kmeans_l0(w, 2, 1),
        oracle=lambda w: oracles.kmeans_l0(w, 2, 1)),
]


def like(w):
    """Another array, of w's dtype where that is floating."""
    return OTHER.astype(w.dtype if getattr(w, "dtype", W.dtype) == np.float32 else W.dtype)


JOINT = [row for row in PROJECTIONS if row.name.endswith("l0") and row.oracle]
PROJECTIONS += [Row(row.name, "w", lambda w, row=row: row.call([w, like(w)])) for row in JOINT]
PROJECTIONS += [Row(row.name, "w", lambda w, row=row: row.call({"fc": w, "other": like(w)}))
                for row in JOINT]
BOOKS = [Row(f"projections.{f.__name__}", "codebook", lambda c, f=f, more=more: f(W, c, *more),
             np.array([0.5, 1.0, 2.0]), "numbers", EMPTY, ("list",))
         for f, more in ((p.nearest, []), (p.scaled_codebook, []), (p.codebook_l0, [1]))]

KINDS = [Quantize(k=2), Quantize(codebook=CODES), Quantize(codebook=CODES, scale=True), Binary(),
         Binary(scale=True), Ternary(), Ternary(scale=True), PowersOfTwo(c=2), Round("float16"),
         Round("int2"), Prune(kappa=2), Prune(keep=0.4), Prune(radius=2.0), Prune(alpha=2.0),
         Prune(alpha=2.0, norm=1), Prune(groups=1, axis=0), Prune(keep=0.5, axis=0),
         Prune(kappa=2, storage="float16"), Prune(radius=2.0, storage="float16"),
         LowRank(rank=1), LowRank(alpha=0.01), LowRank(rank=1, storage="float16"),
         Each(Quantize(k=2)), Quantize(k=2) + Prune(kappa=1),
         Each(Binary(scale=True)) + Prune(keep=0.2), LowRank(rank=1) + Prune(kappa=1),
         Sum(Quantize(k=2), Prune(kappa=1), solver="alternate"),
         Binary(scale=True) + Ternary(scale=True) + Prune(kappa=1),
         LowRank(rank=1) + Prune(alpha=1.0) + Prune(radius=1.0)]


def axes(kind):
    """The shapes that a compression cannot take."""
    return MATRIX if "lowrank" in str(kind) else ((),) if "axis" in str(kind) else ()


C_STEPS = [Row(f"lcref.{type(c).__name__}", "w", call, refuses=axes(c)) for c in KINDS for call in (
    lambda w, c=c: c.project(w, 1.0), lambda w, c=c: c.project({"fc": w, "other": like(w)}, 1.0))]
C_STEPS += [Row(f"lcref.{type(c).__name__}", "start", lambda x, c=c: c.project(W, 1.0, x),
                takes="objects", also=("None",)) for c in KINDS]
C_STEPS += [Row("compressions.alternate", "w", lambda w: compressions.alternate(
    [LowRank(rank=1), Prune(kappa=1)], w, None, [0, 1], None, 5, 1e-6), refuses=MATRIX)]
C_STEPS += [Row(f"lcref.{f.__name__}", name, lambda x, f=f, name=name, others=others: f(
                **{**others, name: x}), np.array([2.0]), "budget")
            for f, names, others in [
                (Quantize, "k", {}), (Binary, "scale", {}), (Ternary, "scale", {}),
                (Quantize, "scale", {"codebook": CODES}), (PowersOfTwo, "c", {}),
                (Round, "dtype", {}), (Prune, "kappa keep radius alpha", {}),
                (Prune, "norm", {"alpha": 1.0}), (Prune, "groups", {"axis": 0}),
                (Prune, "axis", {"keep": 0.5}), (Prune, "storage", {"kappa": 1}),
                (LowRank, "rank alpha", {}), (LowRank, "cost positions", {"alpha": 1.0}),
                (LowRank, "scheme storage", {"rank": 1}),
                (Schedule, "mu0 a steps tol passes penalty", {"mu0": 1.0, "a": 1.0, "steps": 1}),
                (Task, "compression", {"names": "fc"})]
            for name in names.split()]
C_STEPS += [Row("lcref.Quantize", "codebook", lambda x: Quantize(codebook=x).project(W),
                np.array([0.5, 1.0, 2.0]), "numbers", EMPTY, ("list",)),
            Row("lcref.Prune", "mu", lambda x: Prune(alpha=1.0).project(W, x), np.array([2.0]),
                "budget"),
            Row("lcref.Task", "names", lambda x: Task(x, Quantize(k=2)), takes="objects"),
            Row("lcref.Each", "each", Each, takes="objects"),
            Row("lcref.Sum", "sum", lambda x: Sum(x, Binary()), takes="objects"),
            Row("lcref.Sum", "cycles", lambda x: Sum(Binary(), Prune(kappa=1), cycles=x),
                np.array([2.0]), "budget")]

# ---- the loop

BASES = {"fc": W, "conv": KERNELS, "bias": np.array([0.5, -1.0])}
TASKS = [Task("fc", Quantize(k=2) + Prune(kappa=1)), Task("conv", LowRank(rank=1))]
SCHEDULE = Schedule(mu0=1.0, a=1.5, steps=2)


def half_way(params, targets, mu, k, state):
    return {**params, **{name: 0.5 * params[name] + 0.5 * t for name, t in targets.items()}}, state


def compress(params, l_step=half_way, evaluate=None):
    result = lcref.compress(params, TASKS, l_step, SCHEDULE, evaluate)
    return result.params, result.direct, result.last.lam


STARTS = {"compress": compress, "direct_compression": lambda q: lcref.direct_compression(q, TASKS),
          "iterate": lambda q: [s.params for s in lcref.iterate(q, TASKS, half_way, SCHEDULE)]}
LOOP = [Row(f"lcref.{what}", "conv|w" if name == "conv" else name,
            lambda x, f=f, name=name: f({**BASES, name: x}), base,
            refuses=MATRIX * (name == "conv"))
        for what, f in STARTS.items() for name, base in BASES.items()]
LOOP += [Row(f"lcref.{what}", "params", f, takes="objects") for what, f in STARTS.items()]
LOOP += [Row("lcref.compress", name, lambda x, name=name: compress(BASES, lambda *given: (
    {**half_way(*given)[0], name: x}, None)), base, "start", EMPTY) for name, base in BASES.items()]
LOOP += [Row("lcref.compress", "L step", lambda x: compress(BASES, lambda *given: x),
             takes="objects"),
         Row("lcref.compress", "evaluate", lambda x: compress(BASES, evaluate=lambda q: x),
             takes="objects"),
         Row("lcref.compress", "evaluate",
             lambda x: compress(BASES, evaluate=lambda q: {"loss": x}), takes="objects",
             also=("number",))]

# ---- parts


def held(part):
    return part.decompress(), part.bits(), part.bits("float16")


C0, I0, V0 = np.array([[0, 1, 2], [2, 1, 0]]), np.array([0, 2, 5]), np.array(CODES)
PARTS = [
    Row("parts.Codebook", "codes", lambda x: held(parts.Codebook(x, V0)), C0, "whole"),
    Row("parts.Codebook", "entries", lambda x: held(parts.Codebook(C0, x)), V0, "signal", EMPTY),
    Row("parts.Sparse", "indices", lambda x: held(parts.Sparse(x, V0, (2, 3))), I0, "whole", EMPTY),
    Row("parts.Sparse", "values", lambda x: held(parts.Sparse(I0, x, (2, 3))), V0, "signal", EMPTY),
    Row("parts.LowRank", "left", lambda x: held(parts.LowRank(x, W, (2, 3))), np.eye(2), "signal",
        EMPTY),
    Row("parts.LowRank", "right", lambda x: held(parts.LowRank(np.eye(2), x, (2, 3))), W, "signal",
        EMPTY),
    Row("parts.Dense", "values", lambda x: held(parts.Dense(x)), W, "signal"),
    *(Row("parts.ByTensor", "parts", lambda x, f=f: held(parts.ByTensor(f(x))), takes="objects")
      for f in (lambda x: x, lambda x: {"fc": x})),
    *(Row("parts.Sum", "parts", lambda x, f=f: held(parts.Sum(f(x), "exact", 0.0)), takes="objects")
      for f in (lambda x: x, lambda x: (x,)))]

# ---- L steps, data, nets


def quadratic(params, x, labels):
    if x.shape[1:] != (2,) or labels.shape[1:] != (3,):
        raise ValueError("x or labels do not fit")
    r = x @ params["w"].T - labels
    return 0.5 * float(np.sum(r * r)) / len(x), {"w": r.T @ x / len(x)}


W2 = np.array([[0.5, -1.0], [1.0, 0.25], [0.0, 1.0]])
STEPS = {"SGD": lambda x, y: lsteps.SGD(quadratic, x, y, lr=0.1, epochs=1, batch=2),
         "LBFGS": lambda x, y: lsteps.LBFGS(quadratic, x, y),
         "LeastSquares": lambda x, y: lsteps.LeastSquares(x, y, "w")}
L_STEPS = []
for what, make in STEPS.items():
    def step(x=OTHER, y=OTHER @ W2.T, params={"w": W2}, targets={"w": W2 / 2}, make=make):
        return make(x, y)(params, targets, 1.0, 0)[0]
    exact = what == "LeastSquares"
    L_STEPS += [
        Row(f"lsteps.{what}", "x|w", lambda x, f=step: f(x=x), OTHER,
            "weights" if exact else "numbers",            EMPTY),
        Row(f"lsteps.{what}", "y|w" if exact else "labels", lambda x, f=step: f(y=x), OTHER @ W2.T,
            "weights" if exact else "numbers", EMPTY),
        Row(f"lsteps.{what}", "w", lambda x, f=step: f(params={"w": x}), W2,
            "weights" if exact else "start", EMPTY, NOT_FINITE if exact else ()),
        Row(f"lsteps.{what}", "w", lambda x, f=step: f(targets={"w": x}), W2, refuses=EMPTY),
        Row(f"lsteps.{what}", "params", lambda x, f=step: f(params=x), takes="objects"),
        Row(f"lsteps.{what}", "targets", lambda x, f=step: f(targets=x), takes="objects")]

SET = data.Dataset("toy", OTHER, LABELS, OTHER, LABELS, 2, "")
NET = nets.linear(2, 2)
FC = {"fc1.weight": np.array([[0.5, -1.0], [0.25, 2.0]]), "fc1.bias": np.array([0.0, 0.5])}


def dataset(name):
    return lambda x: dataclasses.replace(SET, **{name: x}).shaped((1, 2)).__dict__


def written(params):
    nets.write_npz("w.npz", params)
    return nets.read_npz("w.npz")


def batches(x, labels):
    return list(data.batches(x, labels, 2, np.random.default_rng(0)))


NETS = [Row("data.Dataset", name, dataset(name), getattr(SET, name), takes, EMPTY)
        for name, takes in (("x_train", "data"), ("x_test", "data"), ("y_train", "whole"),
                            ("y_test", "whole"))]
NETS += [Row("data.batches", "x", lambda x: batches(x, LABELS), OTHER, "data", ((0,), (0, 3), ())),
         Row("data.batches", "labels", lambda y: batches(OTHER, y), LABELS, "numbers",
             ((0,), (0, 3), ()), NOT_FINITE),
         Row("nets.Net", "fc1.weight", lambda x: NET.check({**FC, "fc1.weight": x}),
             FC["fc1.weight"], refuses=EMPTY),
         Row("nets.write_npz", "fc", lambda x: written({"fc": x}), W, "data", (), ("bool",)),
         Row("nets.write_npz", "params", written, takes="objects")]
for what, f in (("Net", lambda q, x, y: NET.apply(q, x)),
                ("loss", lambda q, x, y: nets.loss(NET, q, x, y)),
                ("evaluate", lambda q, x, y: nets.evaluate(NET, q, x, y)),
                ("value_and_grad", lambda q, x, y: nets.value_and_grad(NET)(q, x, y))):
    takes = "weights" if what == "evaluate" else "signal"
    NETS += [Row(f"nets.{what}", "x", lambda x, f=f: f(FC, x, LABELS), OTHER, takes, EMPTY),
             Row(f"nets.{what}", "params", lambda x, f=f: f(x, OTHER, LABELS), takes="objects")]
    NETS += [Row(f"nets.{what}", name, lambda x, f=f, name=name: f({**FC, name: x}, OTHER, LABELS),
                 base, takes, EMPTY) for name, base in FC.items()]
    NETS += [Row(f"nets.{what}", "labels", lambda y, f=f: f(FC, OTHER, y), LABELS, "whole",
                 EMPTY)] * (what != "Net")


def layer(name, argument, given):
    """The row of one argument of a layer; `given` are good ones for all."""
    f = getattr(nets, name)
    i = list(inspect.signature(getattr(f, "fun", f)).parameters).index(argument)
    return Row(f"nets.{name}", argument, lambda x: f(*given[:i], x, *given[i + 1:]), given[i],
               "whole" if argument == "labels" else "signal",
               () if name in ("relu", "tanh", "dropout") else EMPTY,
               ("None",) if (name, argument) == ("conv2d", "b") else ())


B2 = np.array([1.0, 2.0])
NETS += [layer(name, argument, given) for name, arguments, *given in [
    ("affine", "x w b", OTHER, FC["fc1.weight"], B2), ("relu", "x", W), ("tanh", "x", W),
    ("add", "x y", W, W), ("dropout", "x", W, 0.0, np.random.default_rng(0)),
    ("channels_last", "x", IMAGES), ("flatten", "x", IMAGES), ("subsample", "x", IMAGES, 2, 4),
    ("softmax_cross_entropy", "logits labels", OTHER, LABELS), ("max_pool", "x", IMAGES, 2),
    ("conv2d", "x w b", IMAGES, KERNELS, B2), ("average_pool", "x", IMAGES, 2),
    ("global_average_pool", "x", IMAGES), ("local_response_norm", "x", IMAGES),
    ("batch_statistics", "x", IMAGES),
    ("batch_norm", "x gamma beta mean var", IMAGES, B2, B2, B2, B2),
    ("batch_norm_train", "x gamma beta mean var", IMAGES, B2, B2, B2, B2),
] for argument in arguments.split()]

# ---- storage, inference, tolerance, plots, verify

P32 = {name: base.astype(np.float32) for name, base in BASES.items()}
THETAS = lcref.direct_compression(P32, TASKS)[0]
WEIGHT = inference.Weight(parts.Dense(FC["fc1.weight"]))
FILTERS = inference.Weight(parts.Dense(KERNELS))


def packed(params=P32, thetas=THETAS):
    return storage.unpack(storage.pack(params, TASKS, thetas)).decompress()


def vector(f):
    return lambda x: f(x.ravel() if isinstance(x, np.ndarray) and x.ndim > 1 else x)


REST = [
    Row("storage.pack", "fc|net", lambda x: packed({**P32, "fc": x}), P32["fc"], refuses=EMPTY,
        also=NOT_FINITE),   # only the shape is read
    Row("storage.pack", "bias", lambda x: packed({**P32, "bias": x}), P32["bias"]),
    Row("storage.pack", "params", lambda x: packed(x), takes="objects"),
    Row("storage.pack", "thetas", lambda x: packed(thetas=x), takes="objects"),
    Row("storage.pack", "thetas", lambda x: packed(thetas={0: x, 1: x}), takes="objects"),
    Row("storage.unpack", "data", storage.unpack, takes="objects"),
    Row("inference.Weight", "part", inference.Weight, takes="objects"),
    Row("inference.Weight", "x", WEIGHT.affine, OTHER, "signal", EMPTY),
    Row("inference.Weight", "b", lambda b: WEIGHT.affine(OTHER, b), B2, "signal", EMPTY, ("None",)),
    Row("inference.Weight", "x", FILTERS.conv2d, IMAGES, "signal", EMPTY),
    Row("inference.Weight", "b", lambda b: FILTERS.conv2d(IMAGES, b), B2, "signal", EMPTY,
        ("None",)),
    Row("inference.by_tensor", "theta", lambda x: inference.by_tensor(x, ["fc"]), takes="objects"),
    Row("inference.operations", "part", lambda x: inference.operations(x, (2, 2)), takes="objects"),
    Row("inference.from_parts", "params", lambda x: inference.from_parts(x, TASKS, THETAS),
        takes="objects"),
    *(Row("inference.from_parts", "thetas", lambda x, f=f: inference.from_parts(P32, TASKS, f(x)),
          takes="objects") for f in (lambda x: x, lambda x: {0: x, 1: x})),
    Row("tolerance.wide", "x", tolerance.wide, W, "data", (), ("bool",)),
    Row("tolerance.squared_norm", "x", tolerance.squared_norm, W, "data", (), ("bool",)),
    Row("tolerance.norm", "x", tolerance.norm, W, "signal"),
    Row("tolerance.objective_slack", "w", lambda x: tolerance.objective_slack(x, W), W,
        "signal", EMPTY),
    Row("tolerance.objective_slack", "theta", lambda x: tolerance.objective_slack(W, x), W,
        "signal", EMPTY),
    Row("tolerance.sum_slack", "w|deltas", lambda x: tolerance.sum_slack(x, [x], 1.0, 1.0), W,
        "signal"),
    Row("plots.draw_parts", "w", vector(lambda x: plots.draw_parts([("a", V0, None)], x)), V0,
        "numbers", EMPTY[:3]),
    Row("plots.draw_parts", "parts", vector(lambda x: plots.draw_parts([("a", x, None)], V0)), V0,
        "numbers", EMPTY[:3]),
    Row("plots.draw_layer", "reference", lambda x: plots.draw_layer("a", x, [("a", W)]), W,
        "numbers", EMPTY[:3]),
    Row("plots.draw_layer", "parts", lambda x: plots.draw_layer("a", W, [("a", x)]), W, "numbers",
        EMPTY[:3]),
    Row("plots.draw_path", "history", lambda x: plots.draw_path(x, {}, {}), takes="objects"),
    *(Row("verify.certify", "w|theta_or_array", call, W, refuses=EMPTY) for call in (
        lambda x: verify.certify(x, W, "prune(kappa=2)"),
        lambda x: verify.certify({"fc": x}, W, "prune(kappa=2)"),
        lambda x: verify.certify(W, x, "prune(kappa=2)"),
        lambda x: verify.certify({"fc": W}, {"fc": x}, "prune(kappa=2)"))),
    Row("verify.check", "fn", lambda x: verify.check(x, "l0_ball"), takes="objects"),
    Row("verify.on_device", "fn", lambda x: verify.on_device(x, "strict"), takes="objects")]

MATRIX_OF_ROWS = [*PROJECTIONS, *BOOKS, *C_STEPS, *LOOP, *PARTS, *L_STEPS, *NETS, *REST]
ARRAYS = [row for row in MATRIX_OF_ROWS if row.takes not in ("objects", "budget")]
COUNTED = [row for row in [*PROJECTIONS, *C_STEPS, *LOOP] if row.takes == "weights"]
