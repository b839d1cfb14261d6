"""Hypothesis strategies of the inputs on which an implementation is tried.

Small integers make ties and duplicates common; six decimals make them rare; powers of ten spread
the magnitudes.
"""

import math
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

VALUES = st.one_of(
    st.integers(-3, 3).map(float),
    st.integers(-10**6, 10**6).map(lambda i: i / 10**6),
    st.integers(-12, 0).map(lambda e: 10.0**e),
)
OFFSETS = st.sampled_from([0.0, 0.0, 0.0, 1.0, -1e3, 1e8])
EXPONENTS = {np.float64: (-160, 150), np.float32: (-20, 18)}


@st.composite
def vectors(draw, max_size=8, shape=None, at_all_scales=True, dtypes=(np.float64, np.float32),
            min_size=0):
    """Draw one vector (or an array of the given shape), at any scale."""
    dtype = draw(st.sampled_from(dtypes))
    size = (min_size, max_size) if shape is None else (math.prod(shape),) * 2
    w = np.array(draw(st.lists(VALUES, min_size=size[0], max_size=size[1])))
    if at_all_scales:
        exponent = draw(st.one_of(st.just(0), st.integers(*EXPONENTS[dtype])))
        w = (w + draw(OFFSETS)) * 10.0**exponent
    return w.astype(dtype).reshape(w.shape if shape is None else shape)


@st.composite
def matrices(draw, max_size=8, at_all_scales=True, dtypes=(np.float64, np.float32), least=0):
    """Draw one matrix of at most about max_size entries; often of low rank, seldom empty."""
    side = 2 + math.isqrt(max_size) // 2
    m = draw(st.sampled_from([least, *range(1, side + 1)] + 2 * [*range(1, side + 1)]))
    n = draw(st.integers(1, side))
    w = draw(vectors(shape=(m, n), at_all_scales=at_all_scales, dtypes=dtypes))
    if m > 1 and draw(st.booleans()):
        w[-1] = w[0]
    return w


FAMILIES = {
    "integers": lambda rng, n: np.rint(3 * rng.standard_t(2, size=n)),
    "heavy": lambda rng, n: rng.standard_t(1.5, size=n),
    "normal": lambda rng, n: rng.normal(size=n),
    "clusters": lambda rng, n: rng.normal(size=n) / 30 + rng.integers(-4, 5, size=n),
    "uneven": lambda rng, n: rng.normal(size=n) * np.sort(rng.lognormal(size=n)),
}


@st.composite
def larger(draw, matrix=False):
    """Draw some hundred weights, by family and seed, because lists of that length are slow."""
    family = draw(st.sampled_from([*FAMILIES]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    if not matrix:
        return FAMILIES[family](rng, draw(st.one_of(st.integers(50, 200), st.integers(2, 50))))
    m, n = draw(st.integers(1, 12)), draw(st.integers(1, 16))
    return FAMILIES[family](rng, m * n).reshape(m, n)


def unit_of(w):
    """The power of two under the largest magnitude; 1 for zeros."""
    largest = float(np.max(np.abs(w), initial=0))
    return 2.0 ** (math.frexp(largest)[1] - 1) if largest else 1.0


def codebooks(w, unit=None, most=4):
    """Codebooks strictly ascending in w's dtype, in units of the largest magnitude.

    Half of the numbers are whole, so that weights at midpoints and on entries are common.
    """
    numbers = st.one_of(st.integers(-4, 4).map(float), VALUES.map(lambda v: min(max(v, -4), 4)))
    unit = unit_of(w) if unit is None else unit

    def ascending(entries):
        wide = np.asarray(entries) * (unit / 4)
        return np.unique(wide.astype(w.dtype)).tolist()

    return st.lists(numbers, min_size=1, max_size=most).map(ascending)


def prices(power):
    """Pairs (α, μ) with 2α/μ from 0 to beyond all that dropping every weight could save.

    The price of a weight is in units of the largest magnitude to the given power; a third of them
    are that of a small whole number, so that ties are common.
    """

    def of(w):
        unit = Fraction(unit_of(w)) ** power

        def pair(fraction, mu):
            alpha = Fraction(fraction) * Fraction(mu) / 2 * unit
            return float(min(alpha, Fraction(2) ** 1000)), mu

        fractions = st.one_of(st.sampled_from([0, 0.25, 1, 2, 2.25, 4, 100]), st.floats(1e-3, 9))
        return st.builds(pair, fractions, st.sampled_from([1.0, 0.25, 0.1, 3.0, 1e-3, 1e6]))

    return of


def radii(w):
    """Radii from 0 to beyond ‖w‖₁, in units of the largest magnitude so that none overflows."""
    largest = float(np.max(np.abs(w), initial=0))
    inside = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0])
    return st.one_of(inside, st.floats(0.01, 4.0)).map(lambda f: f * largest)


# ---- tuples of w and the parameters of a kind


def with_budget(weights):
    """Tuples of w and the kind's parameters for it."""
    return lambda kind: weights(kind).flatmap(
        lambda w: st.tuples(st.just(w), kind.budgets(w)).map(lambda case: (case[0], *case[1])))


def usual(max_size=None, **how):
    """Weights as small as the search takes, or up to max_size, none of them extreme."""
    return with_budget(lambda kind: kind.weights(
        max_size=kind.small if max_size is None else max_size, at_all_scales=False, **how))


def at_size(kind):
    """Up to some hundred weights."""
    return with_budget(lambda kind: larger(matrix=kind.matrix))(kind)


def special(weights):
    """Inputs w made of an array of small numbers."""
    return with_budget(lambda kind: kind.weights(
        max_size=kind.small, at_all_scales=False).map(lambda w: weights(w)))


# on and beside the points halfway between two numbers of bfloat16 or float16
HALFWAY = st.builds(lambda j, bits, off, sign: sign * (1 + j * 2.0**-bits + off),
                    st.integers(0, 5), st.sampled_from([8, 11]),
                    st.sampled_from([0.0, 2.0**-30, -(2.0**-30)]), st.sampled_from([1, -1]))


def ties(kind):
    """Weights that are small whole numbers; for rounding, also numbers that are halfway."""
    whole = special(lambda w: np.clip(np.rint(w), -2, 2))(kind)
    if kind.name != "round_to":
        return whole
    halfway = with_budget(lambda kind: st.lists(HALFWAY, min_size=1, max_size=6).map(np.array))
    return st.one_of(whole, halfway(kind))


def fixed_budget(which):
    """Weights with the parameters that the kind calls zero or full."""
    def cases(kind):
        return kind.weights(max_size=kind.small, at_all_scales=False).map(
            lambda w: (w, *getattr(kind, which)(w)))
    return cases


def feasible_points(kind):
    """Points of the feasible set, as weights."""
    return usual()(kind).map(lambda case: (kind.projected(*case).decompress(), *case[1:]))


def with_nan(kind):
    """Weights of which one is a NaN or an infinity."""
    def spoil(case, at, value):
        w = case[0].copy()
        w.flat[at % w.size] = value
        return (w, *case[1:])

    return st.builds(spoil, usual()(kind), st.integers(0, 99),
                     st.sampled_from([np.nan, np.inf, -np.inf]))


def wrong_arguments(kind):
    """Right weights with parameters that must be refused."""
    return st.sampled_from([(np.array([[3.0, -1.0], [0.5, 2.0]]) if kind.matrix else
                             np.array([3.0, -1.0, 0.5, 2.0]), *bad) for bad in kind.wrong])


def empty(kind):
    """No weights."""
    shape = (0, 3) if kind.matrix else (0,)
    return with_budget(lambda kind: st.just(np.zeros(shape)))(kind)


def scaled_by(*units):
    """Inputs whose magnitudes are small whole numbers of a unit."""
    def cases(kind):
        return with_budget(lambda kind: st.builds(
            lambda w, unit: np.rint(w) * unit,
            kind.weights(max_size=kind.small, at_all_scales=False), st.sampled_from(units)))(kind)
    return cases


def n_dimensional(kind):
    """Weights with other numbers of axes than usual."""
    shapes = [(2, 2, 2)] if kind.matrix else [(2, 2), (2, 1, 2), ()]
    return with_budget(lambda kind: st.sampled_from(shapes).flatmap(
        lambda shape: vectors(shape=shape, at_all_scales=False, dtypes=(np.float64,))))(kind)
