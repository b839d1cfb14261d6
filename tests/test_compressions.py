"""Compositions: their text, their C steps, and sums against brute force and against one part."""

import itertools
import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcref import (Binary, Compression, DescentError, Each, LowRank, Prune, Quantize, Sum, Task,
                   Ternary, parse, parse_task, projections)
from lcref.experiment import check_budget
from lcref.parts import ByTensor, Codebook, Sparse
from lcref.parts import Sum as SumOfParts
from lcref.verify import oracles


def on_host(x):
    """A NumPy copy of an array of any namespace and device."""
    if isinstance(x, np.ndarray):
        return x
    return np.from_dlpack(x.to_device(x.__array_namespace__().Device("CPU_DEVICE"))).copy()


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


def objective(w, theta):
    """‖w − Δ1(θ1) − ... − Δm(θm)‖² of a sum's parts, exactly."""
    columns = [vector(w), *(vector(part.decompress()) for part in theta.parts)]
    rows = zip(*(map(Fraction, column.tolist()) for column in columns))
    return sum(((x - sum(deltas)) ** 2 for x, *deltas in rows), Fraction(0))


# ---- the text

PLAIN = st.one_of(
    st.builds(Quantize, k=st.integers(1, 10**6)),
    st.builds(Binary, scale=st.booleans()),
    st.builds(Ternary, scale=st.booleans()),
    st.builds(Prune, kappa=st.integers(0, 10**6)),
    st.builds(Prune, keep=st.floats(0, 1)),
    st.builds(Prune, radius=st.floats(0, 1e300)),
    st.builds(LowRank, rank=st.integers(0, 10**6), scheme=st.sampled_from([1, 2])))


def composed(inner):
    options = st.fixed_dictionaries({}, optional={
        "solver": st.sampled_from(["auto", "alternate"]), "restarts": st.booleans(),
        "cycles": st.integers(1, 1000), "tol": st.floats(0, 1)})
    terms = st.lists(inner.filter(lambda c: not isinstance(c, Sum)), min_size=2, max_size=3)
    return st.one_of(st.builds(Each, inner),
                     st.builds(lambda terms, options: Sum(*terms, **options), terms, options))


COMPRESSIONS = st.recursive(PLAIN, composed, max_leaves=6)


@given(COMPRESSIONS)
def test_the_text_of_a_compression_reads_back_to_an_equal_one(compression):
    assert parse(str(compression)) == compression


@given(st.lists(st.text("abz019._-", min_size=1), min_size=1, max_size=4, unique=True),
       COMPRESSIONS)
def test_the_text_of_a_task_reads_back_to_an_equal_one(names, compression):
    task = Task(tuple(names), compression)
    assert parse_task(str(task)) == task


@pytest.mark.parametrize("text, compression", [
    ("quantize(k=2)", Quantize(k=2)),
    ("  prune( keep = 0.03 )\t", Prune(keep=0.03)),
    ("prune(radius=1e-3)", Prune(radius=0.001)),
    ("binary()", Binary()),
    ("ternary(scale=True)", Ternary(scale=True)),
    ("lowrank(rank=3, scheme=2)", LowRank(3, scheme=2)),
    ("each(quantize(k=2)) + prune(keep=0.03)", Sum(Each(Quantize(2)), Prune(keep=0.03))),
    ("binary() + ternary() + prune(kappa=0)", Sum(Binary(), Ternary(), Prune(kappa=0))),
    ("each(binary() + prune(kappa=1))", Each(Sum(Binary(), Prune(kappa=1)))),
    ("sum(binary(), ternary(), cycles=3, restarts=True, tol=0.5)",
     Sum(Binary(), Ternary(), cycles=3, restarts=True, tol=0.5))])
def test_a_text_reads_as_the_compression_that_it_says(text, compression):
    assert parse(text) == compression


def test_a_task_reads_as_its_names_and_its_compression():
    task = parse_task("fc1.weight, fc2.weight: prune(kappa=5000)")
    assert task == Task(("fc1.weight", "fc2.weight"), Prune(kappa=5000))


def test_plus_is_a_flat_sum_in_the_order_written():
    a, b, c, d = Binary(), Ternary(), Prune(kappa=1), Quantize(3)
    assert (a + b) + (c + d) == Sum(a, b, c, d)


@pytest.mark.parametrize("compression", [
    Sum(Sum(Binary(), Ternary(), cycles=3), Prune(kappa=1)),
    Sum(Prune(kappa=1), Sum(Binary(), Ternary()))])
def test_a_sum_inside_a_sum_reads_back_to_an_equal_one(compression):
    assert parse(str(compression)) == compression


def test_adding_to_a_sum_keeps_its_options():
    assert "cycles=3" in str(Sum(Binary(), Ternary(), cycles=3) + Prune(kappa=1))


@pytest.mark.parametrize("compression", [
    Prune(radius=np.float64(0.5)), Prune(keep=np.float64(0.29)), Quantize(k=np.int64(3)),
    LowRank(rank=np.int32(2)), Sum(Binary(), Ternary(), tol=np.float64(0.5))], ids=str)
def test_a_compression_of_numpy_scalars_reads_back_to_an_equal_one(compression):
    assert parse(str(compression)) == compression


# a text, the caret that is wanted under it, and words of the message
MISTAKES = [
    ("quantise(k=2)",
     "^", "did you mean 'quantize'"),
    ("binary() + lowrnk(rank=2)",
     "           ^", "did you mean 'lowrank'"),
    ("each(zip(k=2))",
     "     ^", "unknown compression 'zip'"),
    ("prune(kapa=2)",
     "      ^", "did you mean 'kappa'"),
    ("prune(kappa=2, axes=1)",
     "               ^", "no 'axes'"),
    ("quantize(k=2",
     "        ^", "not a compression"),
    ("each(quantize(k=2)",
     "    ^", "not a compression"),
    ("binary())",
     "        ^", "not a compression"),
    ("binary() +",
     "          ^", "not a compression"),
    ("quantize(k=n)",
     "           ^", "k must be"),
    ("binary() + quantize(k=1+1)",
     "                      ^", "k must be"),
    ("quantize(2)",
     "         ^", "expected a compression"),
    ("prune(kappa=1) + 3",
     "                 ^", "expected a compression"),
    ("binary",
     "^", "expected a compression"),
    ("binary(ternary())",
     "       ^", "takes keywords"),
    ("quantize(k=0)",
     "^", "at least 1"),
    ("binary() + quantize(k=0)",
     "           ^", "at least 1"),
    ("each(lowrank(rank=-1))",
     "     ^", "rank must be"),
    ("binary() + prune(keep=1.5)",
     "           ^", "at most 1"),
    ("prune()",
     "^", "exactly one"),
    ("binary() + prune(kappa=1, keep=0.5)",
     "           ^", "exactly one"),
    ("binary() + quantize()",
     "           ^", "'k'"),
    ("sum(binary())",
     "^", "at least two"),
    ("binary() + sum(binary(), ternary(), solver='magic')",
     "           ^", "solver"),
    ("quantize(k='é☃🙂', q=2)",
     "                  ^", "no 'q'"),
    ("quantize(k='🙂') + + )",
     "                    ^", "not a compression"),
    ("prune(κ=3)",
     "      ^", "no 'κ'"),
]


def shown(text, error):
    """The column of the caret, once the message is seen to show the text above it."""
    *_, line, pointer = str(error).split("\n")
    assert line == "  " + text
    assert pointer.strip() == "^"
    return pointer.index("^") - 2


@pytest.mark.parametrize("text, pointer, says", MISTAKES)
def test_a_mistake_is_shown_with_a_caret_under_it(text, pointer, says):
    for read, before in ((parse, ""), (parse, "   "), (parse_task, "größe.weight, b:  ")):
        with pytest.raises(ValueError, match=says) as caught:
            read(before + text)
        assert shown(before + text, caught.value) == len(before) + pointer.index("^")


@pytest.mark.parametrize("text", ["", " ", "   "])
def test_an_empty_text_is_an_error_that_shows_where_it_ends(text):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert shown(text, caught.value) == len(text)


def test_a_task_without_a_colon_is_an_error_that_shows_where_it_ends():
    text = "fc1.weight prune(kappa=1)"
    with pytest.raises(ValueError, match="colon") as caught:
        parse_task(text)
    assert shown(text, caught.value) == len(text)


def test_a_difference_is_an_error_with_the_caret_under_the_minus():
    text = "quantize(k=2) - prune(kappa=1)"
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert shown(text, caught.value) == text.index("-")


@pytest.mark.parametrize("text", [
    "quantize(k=2, k=3)", "quantize(k={[]})", "prune(kappa=1, **{'axis': 0})"])
def test_a_keyword_given_twice_or_by_a_trick_is_an_error_that_shows_the_text(text):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert text in str(caught.value)


def test_the_caret_is_under_the_mistake_in_a_text_of_several_lines():
    with pytest.raises(ValueError) as caught:
        parse("binary() +\n  prune(kappa=1,\n        axes=0)".replace("\n", "\n "))
    before, pointer = str(caught.value).split("\n")[-2:]
    assert before[pointer.index("^"):].startswith("axes")


@pytest.mark.parametrize("text", [": binary()", "a,, b: binary()", "a, a: binary()"])
def test_a_task_with_no_name_or_one_name_twice_is_an_error(text):
    with pytest.raises(ValueError, match="name"):
        parse_task(text)


@pytest.mark.parametrize("text", [
    "{touch}", "quantize(k={touch} or 2)", "prune(kappa={touch} or 2)", "each({touch} or binary())",
    "binary() + {touch}", "sum(binary(), ternary(), cycles={touch} or 2)"])
def test_nothing_in_a_text_is_evaluated(text, tmp_path):
    file = tmp_path / "touched"
    with pytest.raises(ValueError):
        parse(text.replace("{touch}", f"__import__('pathlib').Path({str(file)!r}).touch()"))
    assert not file.exists()


# ---- one compression and several tensors

@given(st.integers(1, 9), st.data(), st.integers(0, 10**4))
def test_keep_is_the_share_in_exact_decimal_arithmetic(digits, data, n):
    numerator = data.draw(st.integers(0, 10**digits))
    keep = float(f"{numerator}e-{digits}")  # the float whose shortest text is that decimal
    assert Prune(keep=keep).budget(n) == numerator * n // 10**digits


@pytest.mark.parametrize("keep, n, kappa", [(0.29, 100, 29), (0.57, 100, 57), (0.07, 300, 21),
                                            (1e-05, 300_000, 3), (0.3, 10, 3), (1, 7, 7)])
def test_keep_does_not_lose_one_to_binary_rounding(keep, n, kappa):
    w = np.arange(1.0, n + 1)
    assert np.count_nonzero(Prune(keep=keep).project(w).decompress()) == kappa


def test_keep_is_of_all_the_weights_of_a_task():
    w = {"a": np.arange(1.0, 7).reshape(2, 3), "b": np.array([-9.0, 8, 0, 0])}
    theta = Prune(keep=0.3).project(w)  # ⌊0.3 · 10⌋ = 3, wherever they are
    same_bits(theta.decompress(), {"a": np.array([[0.0, 0, 0], [0, 0, 6]]),
                                   "b": np.array([-9.0, 8, 0, 0])})


PAIR = {"a": np.array([[0.0, 1], [1, 0]]), "b": np.array([10.0, 11, 11, 10])}


def test_a_codebook_is_one_for_all_tensors_of_a_task():
    same_bits(Quantize(k=2).project(PAIR).decompress(),
              {"a": np.full((2, 2), 0.5), "b": np.full(4, 10.5)})


def test_each_gives_every_tensor_its_own_codebook():
    theta = Each(Quantize(k=2)).project(PAIR)
    same_bits(theta.decompress(), PAIR)
    assert theta.bits() == 2 * (4 + 2 * 32)


def test_each_of_a_share_is_the_share_of_every_tensor():
    theta = Each(Prune(keep=0.5)).project(PAIR)
    same_bits(theta.decompress(), {"a": np.array([[0.0, 1], [1, 0]]),
                                   "b": np.array([0.0, 11, 11, 0])})


@pytest.mark.parametrize("inner", [Quantize(2), Prune(kappa=3), LowRank(1),
                                   Binary(scale=True) + Prune(kappa=1)], ids=str)
def test_each_of_a_single_tensor_is_the_compression_itself(inner):
    w = np.random.default_rng(0).normal(size=(4, 3))
    for task in (w, {"w": w}):
        same_bits(Each(inner).project(task).decompress(), inner.project(w).decompress())


def test_low_rank_takes_every_tensor_as_a_matrix_of_its_own():
    # integers: the outer products are exact, and so is their rank
    w = {"a": np.outer([1.0, 2], [3, 1, 2]), "b": np.outer([1.0, -1, 1, 2], [1, 4])}
    delta = LowRank(1).project(w).decompress()
    assert list(delta) == ["a", "b"]
    for name in w:  # one decomposition in float64: a few ulps of the largest singular value, 12
        np.testing.assert_allclose(delta[name], w[name], rtol=0, atol=1e-13)


def test_a_single_tensor_gives_an_array_and_several_a_dict():
    kinds = [Quantize(2), Prune(kappa=1), LowRank(1), Each(Binary()), Binary() + Prune(kappa=1)]
    square = {"a": PAIR["a"], "b": PAIR["b"].reshape(2, 2)}
    for compression in kinds:
        assert compression.project(PAIR["a"]).decompress().shape == (2, 2)
        assert compression.project({"a": PAIR["a"]}).decompress().shape == (2, 2)
        assert {name: t.shape for name, t in compression.project(square).decompress().items()} == {
            "a": (2, 2), "b": (2, 2)}


@pytest.mark.parametrize("compression, says", [
    (Prune(kappa=9), "kappa=9.* 8 "), (LowRank(3), "rank=3.*a"), (Each(Prune(kappa=5)), "kappa=5"),
    (Binary() + Prune(kappa=9), "kappa=9"), (Each(Binary() + LowRank(3)), "rank=3")], ids=str)
def test_a_budget_above_what_the_tensors_hold_is_found_by_check(compression, says):
    square = {"a": PAIR["a"], "b": PAIR["b"].reshape(2, 2)}
    with pytest.raises(ValueError, match=says):
        check_budget(compression, square)


@pytest.mark.parametrize("make", [
    lambda: Quantize(0), lambda: Quantize(2.5), lambda: Prune(), lambda: Prune(kappa=-1),
    lambda: Prune(keep=1.5), lambda: Prune(keep=math.nan), lambda: Prune(radius=-1.0),
    lambda: Prune(kappa=1, radius=1.0), lambda: LowRank(-1), lambda: LowRank(1, scheme=3),
    lambda: Each(2), lambda: Sum(Binary()), lambda: Sum(Binary(), 2),
    lambda: Sum(Binary(), Ternary(), solver="magic"), lambda: Sum(Binary(), Ternary(), cycles=0),
    lambda: Sum(Binary(), Ternary(), tol=math.nan), lambda: Task((), Binary()),
    lambda: Task(("a", "a"), Binary()), lambda: Task("a", 2)])
def test_a_setting_out_of_its_range_is_an_error_when_it_is_made(make):
    with pytest.raises(ValueError):
        make()


# ---- sums by alternation

@dataclass(frozen=True)
class Spy(Compression):
    """The compression inside, noting every problem that it is given and its answer."""

    inner: Compression
    log: list = field(compare=False)

    def _one(self, w, mu, start):
        theta = self.inner.project(w, mu, start)
        self.log.append((vector(w), vector(theta.decompress())))
        return theta


def spied(*terms, **options):
    log = []
    return Sum(*(Spy(term, log) for term in terms), **options), log


def slack(w, deltas, objective):
    """The published constant for a sum: 8·n·ε·D + 2·u·F + n·(u·M)².

    D and F are of all the parts together, since the residual that a part projects is itself
    rounded to w's dtype: it is off by u·(abs(w) + Σ abs(Δ_j)), and θ moves by at most twice the
    root of the objective.
    """
    trees = [w, *deltas]
    n, u = w.size, float(np.finfo(w.dtype).eps)
    norms = [math.sqrt(math.fsum(x * x for x in t.ravel().tolist())) for t in trees]
    largest = max(float(np.max(np.abs(t), initial=0)) for t in trees)
    return (8 * n * 2.0**-52 * sum(v * v for v in norms)
            + 2 * u * 2 * sum(norms) * math.sqrt(objective) + n * (u * largest) ** 2)


# Zero is feasible in all of these, so that no part can make the start, all parts at zero, worse.
WITH_ZERO = {"quantize": Quantize(2), "binary": Binary(scale=True), "ternary": Ternary(scale=True),
             "kappa": Prune(kappa=3), "radius": Prune(radius=2.0), "lowrank": LowRank(1)}
SUMS = [*itertools.permutations(WITH_ZERO, 2), *itertools.combinations(WITH_ZERO, 3)]


def heavy_tailed(seed, shape=(4, 5), dtype=np.float64, offset=0.0):
    return (np.random.default_rng(seed).standard_t(2, size=shape) + offset).astype(dtype)


@pytest.mark.parametrize("dtype, offset", [(np.float64, 0), (np.float32, 0), (np.float64, 1e8)])
def test_no_half_step_of_an_alternation_raises_the_objective(dtype, offset):
    for seed, names in enumerate(SUMS):
        w = heavy_tailed(seed, dtype=dtype, offset=offset)
        compression, log = spied(*(WITH_ZERO[name] for name in names), restarts=False)
        theta = compression.project(w)
        deltas = [part.decompress() for part in theta.parts]
        wide = [(residual.astype(np.longdouble), delta) for residual, delta in log]
        reached = [float(((residual - delta) ** 2).sum()) for residual, delta in wide]
        assert len(log) >= 2 * len(names)  # a second cycle, to see that nothing is left to gain
        for before, after in zip(reached, reached[1:]):
            assert after <= before + slack(w, deltas, before), names


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_trace_is_the_objective_after_every_half_step(dtype):
    for seed, names in enumerate(SUMS):
        w = heavy_tailed(seed, dtype=dtype)
        compression, log = spied(*(WITH_ZERO[name] for name in names), restarts=False)
        theta = compression.project(w)
        assert len(theta.trace) == len(log)
        assert sorted(theta.trace, reverse=True) == list(theta.trace)
        # a sum of 20 squares in float64: 20 roundings of 2⁻⁵², doubled for the differences
        assert theta.trace[-1] == pytest.approx(float(objective(w, theta)), rel=1e-14, abs=1e-30)


@pytest.mark.parametrize("names", SUMS, ids="+".join)
def test_a_sum_is_no_worse_than_its_first_part_alone(names):
    terms = [WITH_ZERO[name] for name in names]
    for seed in range(3):
        w = heavy_tailed(seed)
        alone = SumOfParts((terms[0].project(w),), "exact", 0.0)
        theta = Sum(*terms, restarts=False).project(w)
        deltas = [part.decompress() for part in theta.parts]
        assert objective(w, theta) <= objective(w, alone) + slack(
            w, deltas, float(objective(w, alone)))


@dataclass(frozen=True)
class Swollen(Compression):
    """A wrong projection: w itself, which it makes too large by `excess` more at every call."""

    excess: float
    calls: list = field(compare=False, default_factory=list)

    def _one(self, w, mu, start):
        theta = projections.l0_ball(w * (1 + self.excess * len(self.calls)), w.size)
        self.calls.append(w)
        return theta


@dataclass(frozen=True)
class Smallest(Compression):
    """A wrong projection: keeps the entries of smallest magnitude, unless they are zero."""

    kappa: int

    def _one(self, w, mu, start):
        order = np.argsort(np.abs(w) + 1e9 * (w == 0))
        kept = np.sort(order[:self.kappa])
        return Sparse(kept, w[kept], w.shape)


@pytest.mark.parametrize("wrong, part", [((Binary(), Swollen(1e-5)), 2),
                                         ((Swollen(1e-5), Binary()), 1),
                                         ((Quantize(2), Smallest(2)), 2)])
def test_a_projection_that_raises_the_objective_is_an_error_that_names_the_part(wrong, part):
    w = np.array([0.3, -1.7, 2.5, -0.9, 4.0, 0.1])
    with pytest.raises(DescentError, match=f"part {part} "):
        Sum(*wrong, restarts=False).project(w)


def test_a_rise_within_rounding_is_no_error_and_changes_nothing():
    w = np.array([0.3, -1.7, 2.5, -0.9])
    theta = Sum(Binary(), Swollen(2.0**-52), restarts=False).project(w)
    # at the first cycle w − sgn w is corrected in full, exactly but for its own rounding
    assert objective(w, theta) <= 4 * (2.0**-52 * 3.5) ** 2


BRUTE_FORCE = {
    "binary() + prune(kappa=1)": lambda w: oracles.codebook_l0(w, [-1, 1], 1),
    "prune(kappa=2) + binary()": lambda w: oracles.codebook_l0(w, [-1, 1], 2),
    "ternary() + prune(kappa=1)": lambda w: oracles.codebook_l0(w, [-1, 0, 1], 1),
    "binary(scale=True) + prune(kappa=1)": lambda w: oracles.scaled_binary_l0(w, 1),
    "prune(kappa=2) + binary(scale=True)": lambda w: oracles.scaled_binary_l0(w, 2),
    "quantize(k=1) + prune(kappa=2)": lambda w: oracles.kmeans_l0(w, 1, 2),
    "quantize(k=2) + prune(kappa=1)": lambda w: oracles.kmeans_l0(w, 2, 1),
    "prune(kappa=2) + quantize(k=2)": lambda w: oracles.kmeans_l0(w, 2, 2),
}
SMALL = st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats(-8, 8, width=32)), min_size=1,
                 max_size=6).map(np.array)


@pytest.mark.parametrize("text", BRUTE_FORCE)
@given(SMALL)
def test_no_sum_is_below_the_optimum_of_brute_force(text, w):
    # exact on both sides, with the parts as they are: no tolerance
    assert objective(w, parse(text).project(w)) >= BRUTE_FORCE[text](w)


SINGLE = {  # the least of one part's problem, by brute force
    "quantize(k=2)": lambda r: oracles.kmeans(r, 2), "binary()": lambda r: oracles.binary(r, False),
    "binary(scale=True)": lambda r: oracles.binary(r, True),
    "ternary(scale=True)": lambda r: oracles.ternary(r, True),
    "prune(kappa=2)": lambda r: oracles.l0_ball(r, 2),
    "prune(radius=1.5)": lambda r: oracles.l1_ball(r, 1.5)}


@pytest.mark.parametrize("terms", [
    *(" + ".join(pair) for pair in itertools.combinations(SINGLE, 2)),
    "prune(radius=1.5) + binary(scale=True) + prune(kappa=2)",
    "prune(kappa=2) + ternary(scale=True) + quantize(k=2)"])
def test_at_a_stationary_sum_no_part_alone_can_gain_more_than_the_tolerance(terms):
    for seed in (0, 1, 2, 7):  # others lead to 0, which is approached for as long as cycles last
        w = np.random.default_rng(seed).integers(-40, 40, size=6) / 8
        theta = parse(terms).project(w)
        assert theta.status == "stationary"
        reached = float(objective(w, theta))
        deltas = [part.decompress() for part in theta.parts]
        for i, term in enumerate(terms.split(" + ")):
            residual = w - sum(deltas[:i] + deltas[i + 1:])
            least = float(SINGLE[term](residual))
            # 1e-6 is the sum's tol; the last cycle may stop up to that above it
            assert reached <= least + 1e-6 * reached + slack(w, deltas, reached)


OUTLIER = np.array([0.0, 0, 1, 1, 10])  # {0, 1} and one correction; K-means first is caught by 10


def two_values_and_the_outlier():
    return SumOfParts((Codebook(np.array([0, 0, 1, 1, 0], dtype=np.uint8), np.array([0.0, 1])),
                       Sparse(np.array([4]), np.array([10.0]), (5,))), "exact", 0.0)


def test_each_part_takes_the_first_turn_where_there_is_no_start():
    terms = Quantize(2), Prune(kappa=1)
    assert objective(OUTLIER, Sum(*terms, restarts=False).project(OUTLIER)) > 0
    assert objective(OUTLIER, Sum(*terms).project(OUTLIER)) == 0
    assert objective(OUTLIER, Sum(*terms, restarts=True).project(OUTLIER)) == 0


@pytest.mark.parametrize("text", BRUTE_FORCE)
@given(SMALL)
def test_restarts_are_never_worse_than_none(text, w):
    terms = parse(text).terms
    with_restarts, without = (Sum(*terms, restarts=r).project(w) for r in (True, False))
    reached = objective(w, without)
    # the best is chosen by objectives of residuals that are rounded
    deltas = [part.decompress() for part in without.parts]
    assert objective(w, with_restarts) <= reached + 2 * slack(w, deltas, float(reached))


def test_an_alternation_that_starts_at_the_optimum_stays():
    start = two_values_and_the_outlier()
    for restarts in (None, False, True):
        theta = Sum(Quantize(2), Prune(kappa=1), restarts=restarts).project(OUTLIER, start=start)
        assert objective(OUTLIER, theta) == 0
    same_bits(theta.decompress(), OUTLIER)


def test_with_a_start_the_other_first_turns_are_tried_only_with_restarts():
    terms = Quantize(2), Prune(kappa=1)
    stuck = Sum(*terms, restarts=False).project(OUTLIER)
    for restarts in (None, False):  # 10 keeps a value: at best 0, 1, 1 and one 0 corrected, 2/3
        gone_on = Sum(*terms, restarts=restarts).project(OUTLIER, start=stuck)
        assert objective(OUTLIER, gone_on) > 0.6
    assert objective(OUTLIER, Sum(*terms, restarts=True).project(OUTLIER, start=stuck)) == 0


def test_a_sum_whose_cycles_run_out_is_unconverged():
    w = heavy_tailed(0, (6, 6))
    theta = Sum(LowRank(1), Prune(kappa=4), cycles=2, restarts=False).project(w)
    assert (theta.status, len(theta.trace)) == ("unconverged", 2 * 2)


def test_a_sum_that_stops_by_itself_is_stationary_and_claims_no_bound():
    w = heavy_tailed(0, (6, 6))
    theta = Sum(LowRank(1), Prune(kappa=4), cycles=10_000, restarts=False).project(w)
    assert (theta.status, theta.gap) == ("stationary", math.inf)


@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_a_sum_stops_after_the_first_cycle_that_gains_at_most_tol(tol):
    w = heavy_tailed(0, (6, 6))
    longest = Sum(LowRank(1), Prune(kappa=4), cycles=10_000, restarts=False, tol=0.0).project(w)
    ends = longest.trace[1::2]  # after each cycle of two half-steps
    gains = [before - after <= tol * after for before, after in zip(ends, ends[1:])]
    theta = Sum(LowRank(1), Prune(kappa=4), cycles=10_000, restarts=False, tol=tol).project(w)
    assert len(theta.trace) == 2 * (gains.index(True) + 2)


def test_the_status_of_a_task_a_tensor_is_its_weakest():
    easy, hard = np.array([[1.0, 1], [1, 1], [1, 1]]), heavy_tailed(0, (6, 6))
    sums = Each(Sum(LowRank(1), Prune(kappa=4), cycles=3, restarts=False))
    assert sums.project({"easy": easy, "easy too": easy}).status == "stationary"
    for task in ({"easy": easy, "hard": hard}, {"hard": hard, "easy": easy}):
        theta = sums.project(task)
        assert isinstance(theta, ByTensor)
        assert theta.status == "unconverged"


def test_each_goes_on_from_the_part_of_each_tensor():
    start = ByTensor({"a": two_values_and_the_outlier(), "b": two_values_and_the_outlier()})
    sums = Each(Sum(Quantize(2), Prune(kappa=1), restarts=False))
    same_bits(sums.project({"a": OUTLIER, "b": OUTLIER}, start=start).decompress(),
              {"a": OUTLIER, "b": OUTLIER})


# ---- a sum of which one part is not forced to zero

ZEROS = [Prune(kappa=0), Prune(keep=0.0), Prune(radius=0.0), LowRank(0), Each(Prune(kappa=0)),
         Each(LowRank(0)), Prune(kappa=0) + LowRank(0)]
SINGLES = [Quantize(1), Quantize(3), Binary(), Binary(scale=True), Ternary(), Ternary(scale=True),
           Prune(kappa=3), Prune(kappa=10), Prune(keep=0.5), Prune(radius=1.5), Prune(radius=100.0),
           LowRank(1), Each(Quantize(2)), Each(Prune(kappa=4)), Each(Prune(keep=0.3)),
           Each(LowRank(1)), Each(Binary(scale=True) + Prune(kappa=1)), Prune(kappa=0), LowRank(0)]
# ties, zeros of both signs, a value of every size
MATRICES = {"a": np.array([[-0.0, 2, 2], [-2, 1e-3, 0.0]]),
            "b": np.array([[-0.0, -0.7], [3, 0.7]])}


def around(single, zeros):
    """The sums of the single compression and the zeros, the single one in every position."""
    for i in range(len(zeros) + 1):
        yield Sum(*zeros[:i], single, *zeros[i:])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("single", SINGLES, ids=str)
def test_a_sum_whose_other_parts_are_forced_to_zero_is_the_single_projection(single, dtype):
    w = {name: t.astype(dtype) for name, t in MATRICES.items()}
    for task in (w, w["b"]):
        alone = single.project(task)
        for others in (*((zero,) for zero in ZEROS), *itertools.combinations(ZEROS, 2)):
            for both in around(single, others):
                theta = both.project(task)
                same_bits(theta.decompress(), alone.decompress())
                assert (theta.status, theta.gap) == (alone.status, alone.gap)


def test_a_sum_reduced_to_one_part_goes_on_from_where_that_part_was():
    single = Each(Sum(Quantize(2), Prune(kappa=1), restarts=False))
    start = ByTensor({"a": two_values_and_the_outlier(), "b": two_values_and_the_outlier()})
    nothing = Prune(kappa=0).project({"a": OUTLIER, "b": OUTLIER})
    theta = (single + Prune(kappa=0)).project({"a": OUTLIER, "b": OUTLIER},
                                              start=SumOfParts((start, nothing), "exact", 0.0))
    same_bits(theta.decompress(), {"a": OUTLIER, "b": OUTLIER})


def test_a_share_of_every_tensor_that_is_none_of_any_is_forced_to_zero():
    # 0.1 of each tensor's 5 weights is none, although 0.1 of all 10 would be one
    w = {"a": np.arange(5.0), "b": np.arange(5.0) - 2}
    assert (Binary() + Each(Prune(keep=0.1))).project(w).status == "exact"


# ---- other dtypes, devices, sizes

EVERYWHERE = ["quantize(k=2) + prune(kappa=3)", "each(quantize(k=3)) + prune(kappa=2)",
              "binary(scale=True) + prune(keep=0.2)", "ternary(scale=True) + prune(radius=2.0)",
              "each(ternary(scale=True)) + binary(scale=True)", "binary() + lowrank(rank=1)",
              "sum(prune(kappa=2), lowrank(rank=1), quantize(k=2), cycles=5)",
              "quantize(k=2) + prune(kappa=0)"]


def leaves(theta):
    inner = getattr(theta, "parts", None)
    if inner is None:
        return [theta]
    return sum((leaves(p) for p in (inner.values() if isinstance(inner, dict) else inner)), [])


def task(dtype):
    return {"a": heavy_tailed(1, (3, 4), dtype), "b": heavy_tailed(2, (4, 4), dtype)}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("text", EVERYWHERE)
def test_codes_and_positions_of_a_sum_are_the_same_on_every_device(text, dtype, place):
    w = task(dtype)
    host = leaves(parse(text).project(w))
    there = leaves(parse(text).project({name: place(t) for name, t in w.items()}))
    for a, b in zip(host, there, strict=True):
        for name in ("codes", "indices"):
            same_bits(getattr(a, name, w), on_host(getattr(b, name)) if hasattr(b, name) else w)


@pytest.mark.parametrize("text", EVERYWHERE)
def test_a_sum_decompresses_to_the_same_weights_on_every_device(text, place):
    w = task(np.float64)
    placed = {name: place(t) for name, t in w.items()}
    delta = parse(text).project(placed).decompress()
    for name, t in parse(text).project(w).decompress().items():
        assert getattr(delta[name], "device", None) == getattr(placed[name], "device", None)
        # sums in another order, in a contraction of a few dozen cycles: far under 1e-12 of w
        np.testing.assert_allclose(on_host(delta[name]), t, rtol=0, atol=1e-12 * np.abs(t).max())


@pytest.mark.parametrize("text", EVERYWHERE)
def test_a_sum_keeps_shapes_and_dtype(text):
    w = task(np.float32)
    delta = parse(text).project(w).decompress()
    assert [(name, t.shape, t.dtype) for name, t in delta.items()] == [
        (name, t.shape, t.dtype) for name, t in w.items()]


@pytest.mark.parametrize("text", EVERYWHERE)
def test_a_sum_writes_to_nothing_it_is_given(text):
    w = task(np.float64)
    copies = {name: t.copy() for name, t in w.items()}
    for t in w.values():
        t.setflags(write=False)
    parse(text).project(w, start=parse(text).project(w))
    same_bits(w, copies)


@pytest.mark.parametrize("text", ["binary(scale=True) + prune(kappa=1)",
                                  "quantize(k=2) + prune(radius=1.0)"])
def test_a_sum_of_no_weights_has_none(text):
    assert parse(text).project(np.zeros((0, 3))).decompress().shape == (0, 3)


@pytest.mark.parametrize("exponent", [-560, 560])
@pytest.mark.parametrize("text", ["binary(scale=True) + prune(kappa=1)",
                                  "quantize(k=2) + prune(kappa=2)"])
def test_the_sum_of_a_scaled_vector_is_the_scaled_sum_at_extreme_magnitudes(text, exponent):
    w = np.array([1.0, 2, 4, -9, 3, -5])
    scaled = parse(text).project(np.ldexp(w, exponent)).decompress()  # rounds nothing
    same_bits(np.ldexp(scaled, -exponent), parse(text).project(w).decompress())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_sum_of_a_vector_that_is_not_finite_is_an_error(bad):
    with pytest.raises(ValueError, match="NaN or an infinity"):
        (Binary() + Prune(kappa=1)).project(np.array([1.0, bad]))


# ---- convolutions, flags

CONVOLUTION = np.random.default_rng(0).normal(size=(4, 3, 2, 2))  # out, in, height, width


@pytest.mark.parametrize("scheme, matrix", [
    (1, lambda t: np.array([t[o].ravel() for o in range(4)])),
    (2, lambda t: np.array([t[o, :, y, :].ravel() for o in range(4) for y in range(2)]))])
def test_a_convolution_has_low_rank_as_the_matrix_of_its_scheme(scheme, matrix):
    dense = LowRank(2, scheme=scheme).project(CONVOLUTION).decompress()
    assert dense.shape == CONVOLUTION.shape
    # Eckart and Young: the residual is the tail of the spectrum of that matrix
    tail = np.linalg.svd(matrix(CONVOLUTION), compute_uv=False)[2:]
    assert np.linalg.matrix_rank(matrix(dense)) == 2
    assert np.sum((CONVOLUTION - dense) ** 2) == pytest.approx(np.sum(tail**2), rel=1e-12)


def test_low_rank_takes_two_axes_or_four():
    with pytest.raises(ValueError, match="2 axes or 4"):
        LowRank(1).project(np.ones((2, 2, 2)))


@pytest.mark.parametrize("make", [Binary, Ternary])
def test_a_flag_is_true_or_false_and_not_a_text(make):
    with pytest.raises(ValueError, match="scale must be True or False, not 'no'"):
        make(scale="no")


def test_an_infinite_radius_is_an_error():
    with pytest.raises(ValueError, match="finite"):
        Prune(radius=np.inf)


def test_alternation_stops_where_only_rounding_is_left():
    w = np.array([18, 35, 30, 0, 35, 38]) / 8
    theta = (Prune(radius=1.5) + Binary(scale=True) + Prune(kappa=2)).project(w)
    assert theta.status == "stationary"
