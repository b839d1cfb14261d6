"""The text of compressions and tasks: what it says, and where a mistake is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcref import (Binary, Each, LowRank, PowersOfTwo, Prune, Quantize, Round, Sum, Task, Ternary,
                   parse, parse_task)


# ---- the text

DTYPES = ["float16", "bfloat16", *(f"int{bits}" for bits in range(2, 9))]
SCHEMES, AXES, PRICES = st.sampled_from([1, 2]), st.integers(-4, 3), st.floats(0, 1e300)
CODEBOOKS = st.sets(st.floats(-1e300, 1e300), min_size=1, max_size=4).map(sorted)
PLAIN = st.one_of(
    st.builds(Quantize, k=st.integers(1, 10**6)),
    st.builds(Quantize, codebook=CODEBOOKS, scale=st.booleans()),
    st.builds(PowersOfTwo, c=st.integers(0, 100)),
    st.builds(Round, dtype=st.sampled_from(DTYPES)),
    st.builds(Prune, alpha=PRICES, norm=st.sampled_from([0, 1])),
    st.builds(Prune, groups=st.integers(0, 10**6), axis=AXES),
    st.builds(Prune, keep=st.floats(0, 1), axis=AXES),
    st.builds(LowRank, alpha=PRICES, cost=st.sampled_from(["storage", "flops"]),
              positions=st.integers(1, 10**6), scheme=SCHEMES),
    st.builds(Binary, scale=st.booleans()),
    st.builds(Ternary, scale=st.booleans()),
    st.builds(Prune, kappa=st.integers(0, 10**6)),
    st.builds(Prune, keep=st.floats(0, 1)),
    st.builds(Prune, radius=st.floats(0, 1e300)),
    st.builds(LowRank, rank=st.integers(0, 10**6), scheme=SCHEMES))


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
    ("quantize(codebook=[-1, 0, 0.5])", Quantize(codebook=(-1.0, 0.0, 0.5))),
    ("quantize(scale=True, codebook=(-1, 2))", Quantize(codebook=(-1.0, 2.0), scale=True)),
    ("powersoftwo(c=3)", PowersOfTwo(3)),
    ("round(dtype='bfloat16')", Round("bfloat16")),
    ("prune(alpha=1e-3)", Prune(alpha=0.001)),
    ("prune(alpha=2, norm=1)", Prune(alpha=2.0, norm=1)),
    ("prune(groups=4, axis=-1)", Prune(groups=4, axis=-1)),
    ("prune(keep=0.25, axis=0)", Prune(keep=0.25, axis=0)),
    ("lowrank(alpha=0.1, cost='flops', positions=64, scheme=2)",
     LowRank(alpha=0.1, cost="flops", positions=64, scheme=2)),
    ("sum(prune(kappa=1), quantize(k=2), solver='exact')",
     Sum(Prune(kappa=1), Quantize(2), solver="exact")),
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
    Sum(Sum(Quantize(2), Prune(keep=0.1), solver="exact"), LowRank(1)),
    Sum(Prune(kappa=1), Sum(Binary(), Ternary()))], ids=str)
def test_a_sum_inside_a_sum_reads_back_to_an_equal_one(compression):
    assert parse(str(compression)) == compression


def test_adding_to_a_sum_keeps_its_options():
    assert "cycles=3" in str(Sum(Binary(), Ternary(), cycles=3) + Prune(kappa=1))


@pytest.mark.parametrize("compression", [
    Prune(radius=np.float64(0.5)), Prune(keep=np.float64(0.29)), Quantize(k=np.int64(3)),
    LowRank(rank=np.int32(2)), Sum(Binary(), Ternary(), tol=np.float64(0.5)),
    Quantize(codebook=np.array([-1, 0.5])), PowersOfTwo(np.int64(3)), Prune(alpha=np.float32(0.1)),
    Quantize(codebook=np.array([-1, 0.1], dtype=np.float32), scale=np.bool_(True)),
    Prune(groups=np.int8(1), axis=np.int64(-1)), Prune(keep=np.float32(0.29), axis=np.int64(0)),
    LowRank(alpha=np.float64(0.1), positions=np.int32(4))], ids=str)
def test_a_compression_of_numpy_numbers_reads_back_to_an_equal_one(compression):
    assert parse(str(compression)) == compression


# a text, ▸ before the place of the caret that is wanted under it, and words of the message
MISTAKES = [
    ("▸", "not a compression"),
    ("quantize(k=2) ▸- prune(kappa=1)", "only [+] combines"),
    ("▸quantize(k=2)(k=2)", "expected a compression"),
    ("▸quantise(k=2)", "did you mean 'quantize'"),
    ("binary() + ▸lowrnk(rank=2)", "did you mean 'lowrank'"),
    ("each(▸zip(k=2))", "unknown compression 'zip'"),
    ("prune(▸kapa=2)", "did you mean 'kappa'"),
    ("prune(kappa=2, ▸axes=1)", "no 'axes'"),
    ("quantize▸(k=2", "not a compression"),
    ("each▸(quantize(k=2)", "not a compression"),
    ("binary()▸)", "not a compression"),
    ("binary() +▸", "not a compression"),
    ("quantize(k=▸n)", "k must be"),
    ("binary() + quantize(k=▸1+1)", "k must be"),
    ("quantize(▸2)", "takes keywords, such as quantize\\(k="),
    ("prune(kappa=1) + ▸3", "expected a compression"),
    ("▸binary", "expected a compression"),
    ("binary(▸ternary())", "takes keywords"),
    ("▸quantize(k=0)", "at least 1"),
    ("binary() + ▸quantize(k=0)", "at least 1"),
    ("each(▸lowrank(rank=-1))", "rank must be"),
    ("binary() + ▸prune(keep=1.5)", "at most 1"),
    ("▸prune()", "exactly one"),
    ("binary() + ▸prune(kappa=1, keep=0.5)", "exactly one"),
    ("binary() + ▸quantize()", "exactly one of k, codebook"),
    ("binary() + ▸quantize(k=2, scale=True)", "scale goes with a codebook"),
    ("▸quantize(codebook=[1, 0])", "strictly ascending"),
    ("▸quantize(codebook=[0, 0])", "strictly ascending"),
    ("▸quantize(codebook=[])", "at least one number"),
    ("▸quantize(codebook=[1e999])", "finite"),
    ("binary() + quantize(codebook=▸[x])", "codebook must be"),
    ("binary() + ▸powersoftwo(c=-1)", "c must be an integer, at least 0"),
    ("▸powersoftwo()", "'c'"),
    ("▸round(dtype='int9')", "'int8', not 'int9'"),
    ("round(dtype=▸float16)", "dtype must be"),
    ("▸round()", "'dtype'"),
    ("binary() + ▸prune(groups=2)", "groups needs an axis"),
    ("▸prune(kappa=2, axis=0)", "an axis goes with groups or keep, not with kappa"),
    ("▸prune(alpha=1, kappa=2)", "exactly one of .*given: kappa, alpha"),
    ("▸prune(alpha=-1)", "alpha must be"),
    ("▸prune(norm=2, alpha=1)", "norm must be 0 or 1, not 2"),
    ("▸prune(kappa=1, norm=1)", "norm=1 goes with alpha, not with kappa"),
    ("binary() + ▸lowrank()", "exactly one of rank, alpha; given: none"),
    ("▸lowrank(rank=1, alpha=1)", "exactly one of rank, alpha; given: rank, alpha"),
    ("▸lowrank(alpha=-1)", "alpha must be"),
    ("▸lowrank(alpha=1, cost='time')", "cost must be 'storage' or 'flops', not 'time'"),
    ("▸lowrank(alpha=1, positions=0)", "positions must be"),
    ("each(▸sum(lowrank(rank=1), prune(kappa=1), solver='exact'))",
     "solver='exact' takes a quantization"),
    ("▸sum(binary())", "at least two"),
    ("binary() + ▸sum(binary(), ternary(), solver='magic')", "solver"),
    ("quantize(k='é☃🙂', ▸q=2)", "no 'q'"),
    ("quantize(k='🙂') + + ▸)", "not a compression"),
    ("prune(▸κ=3)", "no 'κ'"),
]


def shown(text, error):
    """The column of the caret, once the message is seen to show the text above it."""
    *_, line, pointer = str(error).split("\n")
    assert line == "  " + text
    assert pointer.strip() == "^"
    return pointer.index("^") - 2


@pytest.mark.parametrize("marked, says", MISTAKES)
def test_a_mistake_is_shown_with_a_caret_under_it(marked, says):
    text, column = marked.replace("▸", ""), marked.index("▸")
    for read, before in ((parse, ""), (parse, "   "), (parse_task, "größe.weight, b:  ")):
        with pytest.raises(ValueError, match=says) as caught:
            read(before + text)
        assert shown(before + text, caught.value) == len(before) + column


def test_a_task_without_a_colon_is_an_error_that_shows_where_it_ends():
    text = "fc1.weight prune(kappa=1)"
    with pytest.raises(ValueError, match="colon") as caught:
        parse_task(text)
    assert shown(text, caught.value) == len(text)


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


@pytest.mark.parametrize("compression", [
    LowRank(1, scheme=np.int64(2)), Prune(alpha=1, norm=np.int64(1)), Round(np.str_("float16")),
    LowRank(alpha=1, cost=np.str_("flops")), Sum(Binary(), Ternary(), solver=np.str_("alternate"))],
    ids=str)
def test_a_choice_that_is_a_numpy_scalar_reads_back_to_an_equal_one(compression):
    assert parse(str(compression)) == compression


@pytest.mark.parametrize("codebook", ["'12'", "{1: 2}", "3"])
def test_a_text_a_dict_or_a_number_is_no_codebook(codebook):
    with pytest.raises(ValueError, match="codebook must be a list"):
        parse(f"quantize(codebook={codebook})")


# ---- any text

def read_back_or_shown(text):
    """A text is read as what reads back to an equal one, or its mistake has its place shown."""
    try:
        compression = parse(text)
    except ValueError as error:
        message, line, pointer = str(error).split("\n")
        assert message and pointer.strip() == "^" and len(line) <= 202
        assert pointer.index("^") <= len(line)
        return False
    assert parse(str(compression)) == compression
    return True


@given(st.text(max_size=30) | st.text("eachsum(binary)[]{}=,.+-*'\"0129_#\\\0\n κ🙂１", max_size=60))
def test_any_text_is_read_or_its_mistake_shown(text):
    read_back_or_shown(text)


PIECES = ["True", "None", "...", "1e400", "1" + "0" * 400, "0x" + "f" * 5000, "-0x" + "f" * 5000,
          "9" * 5000, "inf", "-1", "1j", "b'2'", "'a'", "{1}", "{1: 2}", "()", "[[1]]", "1_0",
          "0.1", "lambda: 0", "*a", "**b", "k=", "quantize(", "(", "each(", "sum(", "binary()",
          " + ", "--", "f'{1}'", "#", "\0", "\n", "κ", "１", "\u200b", ",", ")", "]", "x" * 300]


@given(COMPRESSIONS.map(str), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 6),
                                                 st.sampled_from(PIECES)), min_size=1, max_size=4))
def test_a_text_that_was_changed_anywhere_is_read_or_its_mistake_shown(text, changes):
    for start, length, piece in changes:
        start %= len(text) + 1
        text = text[:start] + piece + text[start + length:]
    read_back_or_shown(text)


@pytest.mark.parametrize("text", [
    "(" * 10_000, "[" * 10_000, "each(" * 3000, "each(" * 3000 + "binary()" + ")" * 3000,
    "-" * 10_000 + "1", "+".join(["binary()"] * 5000), "quantize(k=" + "-" * 5000 + "1)",
    "quantize(codebook=" + "[" * 150 + "]" * 150 + ")", "binary() + " * 50 + "bin", "a" * 10_000,
    "prune(radius=" + "9" * 400 + ")", "quantize(k=0x" + "f" * 5000 + ")"])
def test_a_text_beyond_all_measure_is_refused_with_the_place_in_200_characters_of_it(text):
    assert not read_back_or_shown(text)


def test_the_caret_is_under_the_mistake_in_the_200_characters_of_a_long_text():
    with pytest.raises(ValueError) as caught:
        parse("binary() + " * 50 + "bin + " + "binary() + " * 50 + "binary()")
    line, pointer = str(caught.value).split("\n")[1:]
    assert len(line) == 202 and line[pointer.index("^"):].startswith("bin + binary()")
