"""What a run holds, as a dict of plain arrays and a JSON text, to the bit and without pickle."""
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj, is_cupy_array

from . import lc, parts
from .inputs import on_the_host

__all__ = ["placed", "put_together", "take_apart"]

RECORDS: dict[str, type] = {kind.__name__: kind for kind in (
    lc.Step, parts.Layout, parts.Codebook, parts.Sparse, parts.LowRank, parts.Dense,
    parts.ByTensor, parts.Sum)}


def take_apart(tree: Any) -> tuple[str, dict[str, np.ndarray]]:
    """Return a JSON text, and the arrays of a tree under the paths that the text names.

    Parameters
    ----------
    tree : nested dicts, lists, tuples, steps and parts of arrays, numbers and texts
        A key of a dict is a text or an integer. Arrays may be on any device.

    Returns
    -------
    (text, dict of path to array)

    Raises
    ------
    TypeError
        The tree holds something else.

    Notes
    -----
    The arrays are C-contiguous, with the axes in the order in which they lie in memory. The text
    has that order, since sums and products depend on it in their last bit.
    """
    arrays: dict[str, np.ndarray] = {}
    return json.dumps(_node(tree, "", arrays), separators=(",", ":")), arrays


def put_together(text: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return the tree that `take_apart` took apart, its arrays as NumPy's.

    Raises
    ------
    ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError
        The text and the arrays are not what it returned.
    """
    return _built(json.loads(text), arrays, lambda a: a)


def placed(tree: Any, put: Callable[[np.ndarray], Any]) -> Any:
    """Return a tree, as of `take_apart`, with put(a) in the place of each of its arrays a."""
    text, arrays = take_apart(tree)
    return _built(json.loads(text), arrays, put)


def _node(tree, path, arrays):
    """[kind, what it is made of]; a number, a text or None stands for itself."""
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    if isinstance(tree, np.generic) or is_array_api_obj(tree):
        return _leaf(tree, path, arrays)
    if isinstance(tree, (list, tuple)):
        return [type(tree).__name__, [_node(inner, f"{path}/{i}".lstrip("/"), arrays)
                                      for i, inner in enumerate(tree)]]
    fields, kind = tree, "dict"
    if type(tree) in RECORDS.values():
        kind = type(tree).__name__
        fields = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree) if f.init}
    if not isinstance(fields, dict):
        raise TypeError(f"a checkpoint cannot hold {path}, of type {type(tree).__name__}")
    return [kind, [[key, _node(inner, f"{path}/{key}".lstrip("/"), arrays)]
                   for key, inner in fields.items()]]


def _leaf(array, path, arrays):
    """[kind, path, order of the axes in memory] of an array or a NumPy scalar."""
    while path in arrays:   # a name may have a slash
        path += "_"
    kind = "scalar" if isinstance(array, np.generic) else "array"
    if not is_cupy_array(array):    # whose order in memory does not outlast the way to the host
        array = on_the_host(array)
    order = list(range(array.ndim))
    if not array.flags.c_contiguous:
        order.sort(key=lambda axis: -array.strides[axis])
    arrays[path] = np.asarray(on_the_host(array.transpose(order)), order="C")
    return [kind, path, order]


def _built(node, arrays, put):
    """The tree of a node."""
    if not isinstance(node, list):
        return node
    kind, inside, *order = node
    if kind == "scalar":
        return arrays[inside][()]
    if kind == "array":
        return put(arrays[inside].transpose(np.argsort(order[0])))
    if kind in ("list", "tuple"):
        found = [_built(inner, arrays, put) for inner in inside]
        return found if kind == "list" else tuple(found)
    fields = {key: _built(inner, arrays, put) for key, inner in inside}
    return fields if kind == "dict" else RECORDS[kind](**fields)
