"""Where arrays live in the tests: NumPy, the array standard and its second device, PyTorch, a GPU.

A test that is marked `everywhere` hands over NumPy arrays and judges NumPy arrays, and runs once a
place: what it calls through `there`, as the `projections` of this module are, and the methods
named in SEAMS, get their arrays at that place and bring their answers back. On NumPy they are the
functions themselves.
"""

import dataclasses
import functools
import importlib
from types import SimpleNamespace

import array_api_strict
import numpy as np

from lcref import lc
from lcref import projections as of_lcref
from lcref.composition import Compression
from lcref.parts import Part
from lcref.projections.clusters import Ascending

SECOND = array_api_strict.Device("device1")  # no NumPy call can read an array on this device
CASCADE = (Part, Ascending, lc.Step, lc.Result)  # what is moved field by field


def _of_torch(w):
    return importlib.import_module("torch").tensor(w)


def _of_cupy(w):
    return importlib.import_module("cupy").asarray(w)


PLACES = {  # name -> what puts a NumPy array there
    "numpy": np.asarray,
    "array_api_strict": array_api_strict.asarray,
    "array_api_strict-device1": lambda w: array_api_strict.asarray(w, device=SECOND),
    "torch": _of_torch,
    "cuda": _of_cupy,
}
STRICT = "array_api_strict", "array_api_strict-device1"  # which have no float16
SEAMS = [(Compression, "project")]
HERE = "numpy"  # where the running test computes


@functools.cache
def missing(place):
    """Why no array can be put there, or None."""
    try:
        if place == "torch":
            importlib.import_module("torch")
        elif place == "cuda" and importlib.import_module("cupy").cuda.runtime.getDeviceCount() < 1:
            return "CuPy finds no GPU"
    except Exception as why:  # CuPy has errors of its own
        return f"{type(why).__name__}: {why}"
    return None


def on_host(x):
    """A NumPy array of the same values, from wherever x lives."""
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "get"):  # CuPy
        return x.get()
    if hasattr(x, "cpu"):  # PyTorch
        return x.cpu().numpy()
    return np.from_dlpack(x.to_device(x.__array_namespace__().Device("CPU_DEVICE"))).copy()


def is_array(x):
    return hasattr(x, "dtype") and hasattr(x, "shape") and not isinstance(x, np.generic)


def moved(tree, move):
    """The same with every array moved, in lists, tuples, dicts, parts and steps of the loop."""
    if is_array(tree):
        return move(tree)
    if type(tree) in (list, tuple):
        return type(tree)(moved(one, move) for one in tree)
    if type(tree) is dict:
        return {name: moved(one, move) for name, one in tree.items()}
    if not isinstance(tree, CASCADE):
        return tree
    fields = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree) if f.init}
    return dataclasses.replace(tree, **{k: moved(one, move) for k, one in fields.items()})


def home(tree):
    """The same on the host; a part is decompressed and counted where it was made."""
    if HERE == "numpy":
        return tree
    if isinstance(tree, (list, tuple)) and any(isinstance(one, Part) for one in tree):
        return type(tree)(map(home, tree))
    found = moved(tree, on_host)
    if isinstance(found, Part):
        _compute_there(found, tree)
    return found


def _compute_there(found, part):
    """Let a part that was brought home decompress and count its bits where it came from."""
    object.__setattr__(found, "decompress", lambda: moved(part.decompress(), on_host))
    object.__setattr__(found, "bits", lambda *convention: part.bits(*convention))
    for mine, theirs in zip(_inner(found), _inner(part)):
        _compute_there(mine, theirs)


def _inner(part):
    inner = getattr(part, "parts", ())
    return inner.values() if isinstance(inner, dict) else inner


def put(tree, place=None):
    """The same with every NumPy array at a place, or where the running test computes."""
    place = place or PLACES[HERE]
    return moved(tree, lambda x: place(x) if isinstance(x, np.ndarray) else x)


def there(function):
    """The function, computed where the running test computes, of NumPy arrays and to NumPy arrays.

    Called with arrays of that place it is the function itself.
    """
    @functools.wraps(function)
    def called(*args, **options):
        if HERE == "numpy" or not any(map(of_numpy, (*args, *options.values()))):
            return function(*args, **options)
        args, options = put((args, options))
        return home(function(*args, **options))

    return called


def of_numpy(tree):
    """Whether there is a NumPy array in a tree."""
    if isinstance(tree, CASCADE):
        tree = vars(tree)
    if isinstance(tree, (dict, list, tuple)):
        return any(map(of_numpy, tree.values() if isinstance(tree, dict) else tree))
    return isinstance(tree, np.ndarray)


def of_host(function):
    """The function of NumPy arrays as one of the arrays of the place: an L step for the loop."""
    return function and HERE != "numpy" and (lambda *args: put(function(*home(args)))) or function


def iterate(params, tasks, l_step, schedule, evaluate=None, resume=None):
    """`lcref.iterate` there; the L step and the evaluation remain on the host."""
    path = lc.iterate(put(params), tasks, of_host(l_step), schedule, of_host(evaluate), put(resume))
    return path if HERE == "numpy" else map(home, path)


def compress(params, tasks, l_step, schedule, evaluate=None, on_step=None):
    """`lcref.compress` there, in the same way."""
    def shown(step):
        on_step(home(step))
    return home(lc.compress(put(params), tasks, of_host(l_step), schedule, of_host(evaluate),
                            on_step and shown if HERE != "numpy" else on_step))


projections = SimpleNamespace(**{name: there(getattr(of_lcref, name))
                                 for name in of_lcref.__all__})


def __getattr__(name):
    """`from places import kmeans`."""
    return getattr(projections, name)
