"""What a checkpoint holds, taken apart into arrays and a text and put together again."""
import json
import math

import numpy as np
import pytest

from lcref import lc
from lcref.compressions import Task
from lcref.text import parse
from lcref.tree import put_together, take_apart

RNG = np.random.default_rng(2)
FC1, FC2 = (RNG.normal(size=shape).astype(np.float32) for shape in ((12, 8), (8, 5)))
CONV = RNG.normal(size=(6, 3, 2, 2)).astype(np.float32)


def again(tree):
    text, arrays = take_apart(tree)
    assert all(a.flags.c_contiguous and a.dtype != object for a in arrays.values())
    return put_together(json.dumps(json.loads(text)), {k: a.copy() for k, a in arrays.items()})


def identical(a, b):
    """The same types, numbers to the bit, and arrays also in their layout."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        assert a.strides == b.strides
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            identical(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for one, other in zip(a, b):
            identical(one, other)
    elif hasattr(a, "__dataclass_fields__"):
        identical(vars(a), vars(b))
    else:
        assert a == b or math.isnan(a) and math.isnan(b)


TEXTS = [
    "quantize(k=3)", "each(quantize(k=2)) + prune(keep=0.1)", "ternary(scale=True)", "binary()",
    "powersoftwo(c=2)", "quantize(codebook=[-1, 0, 2], scale=True)", "round(dtype='bfloat16')",
    "prune(kappa=0)", "each(prune(groups=2, axis=1))", "each(lowrank(rank=2))",
    "each(lowrank(rank=0))", "each(lowrank(rank=2, storage='float16'))",
    "sum(quantize(k=2), prune(kappa=4), solver='alternate')", "each(prune(radius=2.0))",
    "each(lowrank(rank=1)) + prune(kappa=3) + each(quantize(k=2))", "round(dtype='int4')"]


@pytest.mark.parametrize("text", TEXTS)
def test_every_kind_of_theta_comes_back_to_the_bit(text):
    tasks = [Task(["fc1", "fc2"], parse(text))]
    thetas = lc.c_step(tasks, {"fc1": FC1, "fc2": FC2}, 0.5)
    found = again(thetas)
    identical(found, thetas)
    identical(lc.decompress(tasks, found), lc.decompress(tasks, thetas))


@pytest.mark.parametrize("text", ["lowrank(rank=3, scheme=1)", "lowrank(rank=3, scheme=2)",
                                  "lowrank(rank=2, scheme=2) + prune(kappa=4)",
                                  "prune(groups=2, axis=0)"])
def test_theta_of_a_convolution_comes_back_with_its_layout_in_memory(text):
    tasks = [Task(["conv"], parse(text))]
    thetas = lc.c_step(tasks, {"conv": CONV}, 0.5)
    found = again(thetas)
    identical(found, thetas)
    identical(lc.decompress(tasks, found), lc.decompress(tasks, thetas))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 3, 1), (2, 0, 3, 1)])
def test_an_array_keeps_the_order_of_its_axes_in_memory(order):
    a = np.ascontiguousarray(CONV.transpose(order)).transpose(np.argsort(order))
    assert (a == CONV).all()
    identical(again({"a": a}), {"a": a})


def test_numbers_keys_and_texts_come_back_as_they_were():
    tree = {0: 1, "1": 2, "a": [1, 2.5, -0.0, math.inf, math.nan, True, None, "µ"],
            "t": (1, (2, [3])), "long": 2**127 + 1, "tiny": 5e-324, "third": 1 / 3,
            "single": np.float32(0.1), "empty": {}, "none": np.zeros((0, 3)),
            "point": np.array(2.0), "flags": np.array([True, False]), "-0": np.array([-0.0, 0.0])}
    identical(again(tree), tree)
    assert math.copysign(1, again([-0.0])[0]) == -1


def test_names_with_slashes_do_not_meet():
    tree = {"a/b": np.zeros(1), "a": {"b": np.ones(1)}}
    identical(again(tree), tree)


def test_an_array_that_is_a_view_of_others_comes_back_alone():
    found = again({"a": FC1[::2, ::-1]})["a"]
    assert (found == FC1[::2, ::-1]).all() and found.base is not FC1


@pytest.mark.parametrize("thing, says", [
    ({"a": {"b": object()}}, "cannot hold a/b, of type object"), ([1, {2}], "cannot hold 1, of"),
    ({"f": print}, "cannot hold f, of type builtin_function")])
def test_what_has_no_plain_form_is_refused_with_its_place(thing, says):
    with pytest.raises(TypeError, match=says):
        take_apart(thing)
