"""The boundary: what the projections and the loop accept, and the scale they work at."""

import difflib
import math
import numbers
import operator
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np
from array_api_compat import (array_namespace, device, is_array_api_obj, is_cupy_array,
                              is_torch_array, to_device)


NUMBERS = ("real floating", "integral")  # kinds of dtypes
FIELDS: dict[str, tuple] = {  # arrays of parts: kinds of dtypes and numbers of axes
    "codes": ("integral", None), "entries": ("real floating", (1,)),
    "indices": ("integral", (1,)), "values": ("real floating", None),
    "left": ("real floating", (2,)), "right": ("real floating", (2,))}


def array_of(x, name="x", kinds="real floating", axes=None):
    """The namespace of x, an array of such a dtype and number of axes; raise naming it otherwise.

    Its values are not looked at.
    """
    if not is_array_api_obj(x):
        raise TypeError(f"{name} must be an array, not {type(x).__name__}")
    if hasattr(x, "mask"):
        raise TypeError(f"{name} is a masked array; fill it, or take what is not masked")
    xp = array_namespace(x)
    floating = "real floating" in kinds
    if not xp.isdtype(x.dtype, kinds) or (
            xp.isdtype(x.dtype, "real floating") and xp.finfo(x.dtype).bits > 64):
        kind = f"a {'real floating' if floating else 'whole number'} dtype of at most 64 bits"
        raise TypeError(f"{name} must have {kind}, not {x.dtype}")
    if axes is not None and x.ndim not in axes:
        raise ValueError(f"{name} must have {' or '.join(map(str, axes))} axes, not the shape "
                         f"{tuple(x.shape)}")
    return xp


def real_array(w, name="w"):
    """The namespace of w, a finite real floating array; raise naming the argument otherwise."""
    finite_magnitude(w, name)
    return array_namespace(w)


def finite_magnitude(w, name="w"):
    """max abs(w) of a finite real floating array; raise naming the argument otherwise."""
    array_of(w, name)
    most = largest_magnitude(w)
    if not math.isfinite(most):
        raise ValueError(f"{name} has a NaN or an infinity; every entry must be finite")
    return most


def named_arrays(tensors, name, check=real_array):
    """Raise unless `tensors` is a dict whose arrays pass the check, under their own names."""
    if not hasattr(tensors, "items"):
        raise TypeError(f"{name} must be a dict of name to array, not {type(tensors).__name__}")
    for key, tensor in tensors.items():
        check(tensor, str(key))


def weights(w, start=None):
    """Raise unless w is a finite real floating array, or a dict of name to such, at least one.

    And unless `start` is a part or None.
    """
    if start is not None:
        is_part(start, "start")
    if isinstance(w, dict):
        if not w:
            raise ValueError("w has no tensors to project")
        return named_arrays({f"w[{name!r}]": tensor for name, tensor in w.items()}, "w")
    if isinstance(w, list):
        raise TypeError("w must be an array or a dict of name to array, not a list")
    return real_array(w)


def in_range(total):
    """A sum of parts, or w less some of them, unless it overflowed."""
    tree = total.decompress() if hasattr(total, "decompress") else total
    for t in tree.values() if isinstance(tree, dict) else [tree]:
        if not bool(array_namespace(t).all(array_namespace(t).isfinite(t))):
            raise ValueError(f"w is so large that the parts of its sum overflow {t.dtype}; divide "
                             "it by a power of two")
    return total


def task_names(value):
    """The names of a task's tensors as a tuple: of texts, each once."""
    several = hasattr(value, "__iter__") and not isinstance(value, str)
    names = tuple(value) if several else (value,)
    if not names or not all(isinstance(name, str) and name for name in names) or (
            len(set(names)) < len(names)):
        raise ValueError(f"a task needs the names of its tensors, each once, not {names}")
    return names


def is_part(theta, name):
    """Raise unless theta is a part, the answer of a projection."""
    if not callable(getattr(theta, "decompress", None)) or isinstance(theta, type):
        raise TypeError(f"{name} must be a part, as a projection returns it, not "
                        f"{type(theta).__name__}")


def together(fits, **arrays):
    """Raise unless the arrays fit each other."""
    if not fits:
        raise ValueError(" and ".join(f"{name} of shape {tuple(x.shape)}"
                                      for name, x in arrays.items()) + " do not fit each other")


def fields_of(part):
    """Raise unless what a part holds is of its kind: parts, or arrays that fit each other."""
    if hasattr(part, "parts"):
        return several_parts(part.parts)
    arrays = {name: getattr(part, name) for name in FIELDS if hasattr(part, name)}
    for name, x in arrays.items():
        array_of(x, name, *FIELDS[name])
    shapes = [tuple(x.shape) for x in arrays.values()]
    if "codes" in arrays:
        together(shapes[1][0] or 0 in shapes[0], **arrays)
    if "indices" in arrays:
        axes = 1 if part.axis is None else len(part.shape)
        together(len(shapes[1]) == axes and shapes[1][part.axis or 0] == shapes[0][0], **arrays)
    if "left" in arrays:
        (m, r), (q, n) = shapes
        together(r == q and m * n == math.prod(part.shape), **arrays)


def named_parts(thetas):
    """Raise unless thetas is a dict of parts."""
    if not hasattr(thetas, "items"):
        raise TypeError(f"thetas must be a dict of index to part, not {type(thetas).__name__}")
    for i, theta in thetas.items():
        is_part(theta, f"thetas[{i}]")


def several_parts(inner):
    """Raise unless these are the parts of a sum or of several tensors, at least one."""
    each = list(inner.values()) if isinstance(inner, dict) else inner
    if not isinstance(each, (list, tuple)) or not each:
        raise TypeError(f"parts must be a dict, list or tuple of parts, not {inner!r:.50}")
    for part in each:
        is_part(part, "each of parts")


def whole(value, name, least=0):
    """`value` as an int, at least `least`."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        limit = f", at least {least}" if math.isfinite(least) else ""
        raise ValueError(f"{name} must be an integer{limit}, not {value!r}")
    return number


def nonnegative(value, name):
    """`value` as a finite float that is not negative."""
    try:
        plain = not isinstance(value, (str, bytes, bool)) and getattr(value, "ndim", 0) == 0
        number = float(value) if plain else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be a finite number, at least 0, not {value!r}")
    return number


def positive(value, name):
    """`value` as a positive finite float."""
    try:
        number = nonnegative(value, name)
    except ValueError:
        number = 0.0
    if number == 0:
        raise ValueError(f"{name} must be positive and finite, not {value!r}")
    return number


def root_of_price(alpha, mu):
    """√(2α/μ), the magnitude above which a weight is worth its price, at any magnitude of both."""
    alpha, mu = nonnegative(alpha, "alpha"), positive(mu, "mu")
    price = 2 * alpha / mu
    if price == 0 or not 1e-300 < price < 1e300:
        return math.sqrt(2) * math.sqrt(alpha) / math.sqrt(mu)
    return math.sqrt(price)


def strictly_ascending(codebook, w):
    """The codebook in w's dtype, then float64, on w's device: not empty, finite, ascending."""
    xp = array_namespace(w)
    if is_array_api_obj(codebook):
        array_of(codebook, "codebook", NUMBERS)
    else:
        codebook = ascending(codebook, "codebook")
    entries = xp.asarray(codebook, dtype=xp.float64, device=device(w))
    largest = float(xp.finfo(w.dtype).max)
    if entries.ndim != 1 or not entries.shape[0] or not bool(xp.all(xp.abs(entries) <= largest)):
        raise ValueError(f"codebook must be a list of at least one number, each finite in {w.dtype}"
                         f", not {codebook!r}")
    entries = xp.astype(xp.astype(entries, w.dtype), xp.float64)
    if not bool(xp.all(entries[1:] > entries[:-1])):
        raise ValueError(f"codebook must be strictly ascending in {w.dtype}, not {codebook!r}")
    return entries


def ascending(value, name):
    """A codebook as a tuple of finite floats, strictly ascending."""
    try:
        if is_array_api_obj(value):
            array_of(value, name, NUMBERS, axes=(1,))
        entries = () if isinstance(value, (str, bytes, dict)) or any(
            isinstance(entry, (str, bytes, bool)) or getattr(entry, "ndim", 0)
            for entry in value) else tuple(map(float, value))
    except (TypeError, ValueError):
        entries = ()
    if not entries or not all(map(math.isfinite, entries)) or list(entries) != sorted(set(entries)):
        raise ValueError(f"{name} must be a list of at least one number, finite and strictly "
                         f"ascending, not {value!r}")
    return entries


def share(value, name):
    """The decimal that is written as a share of the weights: float32(0.29) is 0.29."""
    if isinstance(value, bool) or not 0 <= nonnegative(value, name) <= 1:
        raise ValueError(f"{name} is a share of the weights, at most 1, not {value!r}")
    return float(Fraction(str(value)))


def axis_number(value, name):
    """`value` as an int, which may count from the end."""
    return whole(value, name, least=-math.inf)


def axis_of(w, axis):
    """The axis of w, counted from the start."""
    number = axis_number(axis, f"axis (w has {w.ndim} axes)")
    if not -w.ndim <= number < w.ndim:
        raise ValueError(f"axis must be one of the {w.ndim} axes of w, not {axis!r}")
    return number % w.ndim


def flag(value, name):
    """`value` as a bool; a text such as "no" is not one."""
    if getattr(value, "ndim", 0) or value not in (True, False):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def largest_magnitude(w):
    """max abs(w), a float; 0 of nothing, and NaN where there is one."""
    xp = array_namespace(w)
    return max(float(xp.max(w)), -float(xp.min(w))) if math.prod(w.shape) else 0.0


def scale_of(*arrays):
    """A power of two s for which the squares of all w / s neither overflow nor vanish.

    It is 1 unless the largest magnitude lies outside [1e-100, 1e100].
    """
    return scale_at(max(map(largest_magnitude, arrays), default=0.0))


def scale_at(most):
    """The same where the largest magnitude is known."""
    return 1.0 if most == 0 or 1e-100 <= most <= 1e100 else 2.0 ** (math.frexp(most)[1] - 1)


def moderate(w):
    """(x, s) with w = x·s, x float64 and s as of `scale_of`; x may be w itself."""
    s = scale_of(w)
    return scaled(w, s), s


def scaled(w, s):
    """w / s in float64; w itself where it is that already."""
    x = array_namespace(w).astype(w, array_namespace(w).float64, copy=False)
    return x if s == 1 else x / s


def least_reaching(x, scale, w, beyond):
    """The least number of w's dtype that is at least x · scale, or more than that where `beyond`.

    Compared with x, where the midpoints of subnormal numbers are exact too. Infinite where x is
    beyond the dtype.
    """
    xp = array_namespace(w)
    with np.errstate(over="ignore"):
        near = xp.astype(x * scale, w.dtype)
        found = xp.astype(near, xp.float64) / scale
        enough = (found > x) | ((found == x) & ~beyond)
        return xp.where(enough, near, xp.nextafter(near, xp.full_like(near, xp.inf)))


def on_the_host(array):
    """A NumPy array, from wherever it lives."""
    if is_cupy_array(array) or is_torch_array(array):
        array = to_device(array, "cpu")
    return np.asarray(array) if isinstance(array, (np.ndarray, np.generic)) else np.from_dlpack(
        array)


def one_of(value, name, known):
    """`value`, one of the known texts (or numbers)."""
    for one in known:
        if isinstance(value, (str, numbers.Number)) and one == value:
            return one  # a plain one, where the value is a NumPy scalar
    raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")


def did_you_mean(name, known):
    """The end of an error message on an unknown name: what is known, and the nearest of it."""
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    return (f"; known: {', '.join(known)}" if len(known) <= 12 or not near else "") + (
        f"; did you mean {near[0]!r}?" if near else "")


DTYPES = ("float16", "bfloat16", *(f"int{bits}" for bits in range(2, 9)))  # of round_to
CHECKS: dict[str, Callable] = {  # of the fields of compressions: (value, name) -> plain value
    "k": partial(whole, least=1), "codebook": ascending, "scale": flag, "c": whole,
    "dtype": partial(one_of, known=DTYPES),
    "kappa": whole, "keep": share, "radius": nonnegative, "alpha": nonnegative,
    "norm": partial(one_of, known=(0, 1)), "groups": whole, "axis": axis_number,
    "rank": whole, "scheme": partial(one_of, known=(1, 2)), "positions": partial(whole, least=1),
    "cost": partial(one_of, known=("storage", "flops")),
    "storage": partial(one_of, known=("float16", "float32")),
    "solver": partial(one_of, known=("auto", "exact", "alternate")), "restarts": flag,
    "cycles": partial(whole, least=1), "tol": nonnegative,
}


def checked(**fields):
    """The fields of a compression that are not None, checked and as plain values."""
    return {name: CHECKS[name](value, name) for name, value in fields.items()
            if value is not None and name in CHECKS}


def exactly_one(kind, **fields):
    """The name of the only field that is not None."""
    given = [name for name, value in fields.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"{kind} needs exactly one of {', '.join(fields)}; given: "
                         f"{', '.join(given) or 'none'}")
    return given[0]
