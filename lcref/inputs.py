"""The boundary: what the projections and the loop accept, and the scale they work at."""

import difflib
import math
import operator

from array_api_compat import array_namespace, device, is_array_api_obj


def real_array(w, name="w"):
    """The namespace of w, a finite real floating array; raise naming the argument otherwise."""
    if not is_array_api_obj(w):
        raise TypeError(f"{name} must be an array, not {type(w).__name__}")
    if hasattr(w, "mask"):
        raise TypeError(f"{name} is a masked array; fill it, or project what is not masked")
    xp = array_namespace(w)
    if not xp.isdtype(w.dtype, "real floating") or xp.finfo(w.dtype).bits > 64:
        raise TypeError(f"{name} must have a real floating dtype of at most 64 bits, not {w.dtype}")
    if not bool(xp.all(xp.isfinite(w))):
        raise ValueError(f"{name} has a NaN or an infinity; every entry must be finite")
    return xp


def whole(value, name, least=0):
    """`value` as an int, at least `least`."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(f"{name} must be an integer, at least {least}, not {value!r}")
    return number


def nonnegative(value, name):
    """`value` as a finite float that is not negative."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be a finite number, at least 0, not {value!r}")
    return number


def positive(value, name):
    """`value` as a positive finite float."""
    number = nonnegative(value, name)
    if number == 0:
        raise ValueError(f"{name} must be positive, not {value!r}")
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
    try:
        entries = xp.asarray(codebook, dtype=xp.float64, device=device(w))
    except (TypeError, ValueError):
        raise ValueError(f"codebook must be a list of numbers, not {codebook!r}") from None
    largest = float(xp.finfo(w.dtype).max)
    if entries.ndim != 1 or not entries.shape[0] or not bool(xp.all(xp.abs(entries) <= largest)):
        raise ValueError(f"codebook must be a list of at least one number, each finite in {w.dtype}"
                         f", not {codebook!r}")
    entries = xp.astype(xp.astype(entries, w.dtype), xp.float64)
    if not bool(xp.all(entries[1:] > entries[:-1])):
        raise ValueError(f"codebook must be strictly ascending in {w.dtype}, not {codebook!r}")
    return entries


def flag(value, name):
    """`value` as a bool; a text such as "no" is not one."""
    if value not in (True, False):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def moderate(w):
    """(x, s) with w = x·s, x float64 and s a power of two: squares neither overflow nor vanish.

    s is 1 unless the largest magnitude lies outside [1e-100, 1e100], so the usual w is not copied
    twice. Sums over x are accumulated in float64.
    """
    xp = array_namespace(w)
    x = xp.astype(w, xp.float64)
    largest = float(xp.max(xp.abs(x))) if math.prod(w.shape) else 0.0
    if largest == 0 or 1e-100 <= largest <= 1e100:
        return x, 1.0
    scale = 2.0 ** (math.frexp(largest)[1] - 1)
    return x / scale, scale


def one_of(value, name, known):
    """`value`, one of the known texts (or numbers)."""
    if value not in list(known):
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    return value


def did_you_mean(name, known):
    """The end of an error message on an unknown name: what is known, and the nearest of it."""
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    return (f"; known: {', '.join(known)}" if len(known) <= 12 or not near else "") + (
        f"; did you mean {near[0]!r}?" if near else "")
