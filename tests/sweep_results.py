"""Results of a sweep as its files hold them, made up: random, but the same for the same seed."""

import hashlib
import json

import numpy as np

KINDS = ["quantize", "quantize + prune", "binary + prune", "lowrank + prune", "prune", "lowrank",
         "ternary + prune", "powersoftwo + prune", "round", "lowrank + quantize"]
TRACEBACK = """Traceback (most recent call last):
  File "lcref/text.py", line 35, in parse
ValueError: keep=2.0 must be a share, from 0 to 1
"""


def net(rng, error):
    """Errors around a level, and a loss; the held-out error differs from the test error."""
    errors = np.clip(error * rng.uniform(0.8, 1.25, 3), 0, 100).round(2)
    names = ("train_error", "test_error", "held_out_error")
    return {"loss": float(error * rng.uniform(0.01, 0.02)), **dict(zip(names, errors.tolist()))}


def cell(number, rng, kinds=KINDS, **settings):
    """One finished cell: the larger the ratio the larger, by and large, the error."""
    kind = kinds[number % len(kinds)]
    keep, ratio = float(rng.uniform(0.001, 0.1)), float(np.exp(rng.uniform(1, 4.5)))
    level = 1.5 + ratio / 12 + 0.4 * kinds.index(kind) + rng.exponential(0.5)
    settings = {"data": "digits", "reference-epochs": 30, "hold-out": 0.1,
                "compress": f"{kind} keep={keep}", "seed": number, **settings}
    return {"key": hashlib.sha256(repr((number, settings)).encode()).hexdigest()[:32],
            "settings": settings, "axes": {"keep": keep}, "kind": kind,
            "result": {"reference": net(rng, 1.4), "direct": net(rng, min(4 * level + 5, 80)),
                       "lc": net(rng, level),
                       "ratio": {"float16": 1.1 * ratio, "float32": ratio}, "storage": "float32",
                       "file_bytes": 12345, "feasibility": 5e-4, "seconds": {"total": 1.5},
                       "tasks": [], "settings": {"device": "cpu"},
                       "versions": {"lcref": "0.1.0", "numpy": "2.4.6"}}}


def cells(number, kinds=KINDS, seed=0, failed=0, **settings):
    """Finished cells, and after them some that failed."""
    rng = np.random.default_rng(seed)
    made = [cell(i, rng, kinds, **settings) for i in range(number + failed)]
    for one in made[number:]:
        del one["result"]
        one |= {"error": "ValueError: keep=2.0 must be a share, from 0 to 1",
                "traceback": TRACEBACK}
    return made


def write(out, made):
    """Write cells where lcref sweep writes them; return the folder."""
    for one in made:
        file = out / "cells" / one["key"][:2] / f"{one['key']}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(one), encoding="utf-8")
    return out
