"""The random runs of the soak: case n of a seed is made of both alone."""
import random

import numpy as np

KILLED = 4              # one case in so many is run as a command, and killed
SIGNALS = ("SIGKILL",) * 4 + ("SIGINT", "SIGTERM")
STORED = ("", "", ", storage='float16'")
QUANTIZERS = (
    lambda r: f"quantize(k={r.randint(1, 5)})", lambda r: f"binary(scale={r.random() < .8})",
    lambda r: f"quantize(codebook=[-0.1, 0, 0.05], scale={r.random() < .5})",
    lambda r: f"ternary(scale={r.random() < .8})", lambda r: f"powersoftwo(c={r.randint(1, 7)})",
    lambda r: f"round(dtype='{r.choice(('float16', 'bfloat16', 'int2', 'int4', 'int8'))}')")
PRUNINGS = (
    lambda r: f"prune(kappa={r.randint(0, 300)}{r.choice(STORED)})",
    lambda r: f"prune(keep={r.choice((0.01, 0.05, 0.3))}{r.choice(STORED)})",
    lambda r: f"prune(radius={r.choice((0, 1, 10, 100))}{r.choice(STORED)})",
    lambda r: f"prune(alpha={10 ** r.uniform(-8, -5):.2g}, norm={r.randint(0, 1)})",
    lambda r: f"prune(groups={r.randint(1, 9)}, axis=0{r.choice(STORED)})",
    lambda r: f"prune(keep={r.choice((0.2, 0.5))}, axis=0{r.choice(STORED)})")
LOW_RANKS = (
    lambda r: f"lowrank(rank={r.randint(0, 5)}, scheme={r.randint(1, 2)}{r.choice(STORED)})",
    lambda r: f"lowrank(alpha={10 ** r.uniform(-8, -5):.2g}{r.choice(STORED)})",
    lambda r: f"lowrank(alpha={10 ** r.uniform(-9, -6):.2g}, cost='flops', positions=4)")
SOLVED = "quantize(k=3)", "binary(scale=True)", "ternary()", "powersoftwo(c=3)"
MATRICES = {"linear": ("fc1",), "lenet300": ("fc1", "fc2", "fc3"),
            "lenet5": ("conv1", "conv2", "fc1", "fc2")}


def single(rng, *families):
    text = rng.choice(rng.choice(families))(rng)
    return f"each({text})" if rng.random() < 0.4 else text


def compression(rng):
    """The text of a compression: of any kind, or a sum of two or three kinds."""
    every, form = (QUANTIZERS, PRUNINGS, LOW_RANKS), rng.random()
    if form < 0.4:
        return single(rng, *every)
    if form < 0.6:
        return f"{single(rng, QUANTIZERS, LOW_RANKS)} + {single(rng, PRUNINGS)}"
    terms = [single(rng, family) for family in rng.sample(every, rng.randint(2, 3))]
    if form < 0.8:
        return f"sum({', '.join(terms)}, solver='alternate', cycles={rng.choice((2, 30))})"
    if form < 0.9:
        return f"sum({', '.join(terms)}, restarts={rng.random() < .5}, cycles=10)"
    return f"sum({rng.choice(SOLVED)}, prune(kappa={rng.randint(1, 99)}), solver='exact')"


def tasks(rng, net):
    """--compress of all tensors, or one to all of them dealt out to tasks."""
    names = [f"{layer}.weight" for layer in MATRICES[net]]
    if rng.random() < 0.6:
        return ["--compress", compression(rng)]
    chosen, flags = rng.sample(names, rng.randint(1, len(names))), []
    while chosen:
        count = rng.randint(1, len(chosen))
        flags += ["--task", f"{', '.join(chosen[:count])}: {compression(rng)}"]
        del chosen[:count]
    return flags


def case(seed, number):
    """What a case is: a dict for JSON."""
    rng = random.Random(f"{seed} {number}")
    killed, net = number % KILLED == 0, rng.choice(("linear", "linear", *("lenet300",) * 3,
                                                    "lenet5"))
    verb = "train" if killed and rng.random() < 0.2 else "compress"
    flags = {"net": net, "batch": rng.choice((50, 200, 300)), "threads": rng.randint(1, 2),
             "lr": round(10 ** rng.uniform(-2.5, -1), 4), "momentum": rng.choice((0, 0.9)),
             "weight-decay": rng.choice((0, 1e-4)), "seed": rng.randint(0, 9),
             "epoch-decay": rng.choice((1, 0.9)),
             "checkpoint-minutes": rng.choice((0, 0, 0.0005, 0.005, 10))}
    if net != "linear":
        flags["activation"] = rng.choice(("relu", "tanh"))
    if net == "lenet5":
        flags |= {"data": "mnist", "data-dir": "../data", "batch": 16}
    if verb == "train":
        flags |= {"epochs": rng.randint(2, 20), "optimizer": rng.choice(("sgd", "sgd", "lbfgs"))}
    else:
        flags |= {"epochs": rng.randint(1, 4), "steps": rng.randint(1, 4),
                  "reference-epochs": rng.randint(0, 4), "first-epochs": rng.randint(1, 2),
                  "mu0": float(f"{10 ** rng.uniform(-4, -0.5):.2g}"),
                  "growth": rng.choice((1, 1.1, 1.5, 3)),
                  "penalty": rng.choice(("augmented", "augmented", "quadratic"))}
    flags = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    flags += tasks(rng, net) if verb == "compress" else []
    flags += rng.choice(([],) * 4 + (["--storage", "float16"],)) if verb == "compress" else []
    kills = [(rng.choice(SIGNALS), rng.choice(("inside", "inside", "whole")), rng.random())
             for _ in range(rng.randint(1, 4))]
    return {"seed": seed, "case": number, "verb": verb, "flags": flags,
            "kills": kills if killed else []}


def digits(folder):
    """A small MNIST in the folder: 64 images of 16 × 16 pixels, and 16 for the test."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for stem, n in (("train", 64), ("t10k", 16)):
        for kind, shape, most in (("images-idx3", (n, 16, 16), 256), ("labels-idx1", (n,), 10)):
            head = np.array([2048 + len(shape), *shape], ">u4").tobytes()
            content = rng.integers(most, size=shape, dtype=np.uint8).tobytes()
            (folder / f"{stem}-{kind}-ubyte").write_bytes(head + content)
