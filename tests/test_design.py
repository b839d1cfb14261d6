"""Designs: which cells they have, and what a file may say."""
import itertools
import json
import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcref import cli
from lcref.cells import key, kind, reference_key
from lcref.design import Design

TOML = """
data = "digits"
reference-epochs = 1
lr = 0.1
[[grid]]
compress = "each(quantize(k={k})) + prune(keep={keep})"
k = [2, 4]
keep = [0.01, 0.03]
seed = [0, 1]
[[grid]]
task = ["fc1.weight: {what}", "fc2.weight: prune(keep={keep})"]
what = ["binary()", "ternary()"]
keep = 0.5
[[random]]
samples = 20
draws = 1
compress = "lowrank(rank={rank}) + prune(keep={keep})"
rank = {from = 1, to = 3}
keep = {from = 0.001, to = 0.1, log = true}
seed = [0, 1, 2]
"""
JSON = {
    "data": "digits", "reference-epochs": 1, "lr": 0.1,
    "grid": [{"compress": "each(quantize(k={k})) + prune(keep={keep})", "k": [2, 4],
              "keep": [0.01, 0.03], "seed": [0, 1]},
             {"task": ["fc1.weight: {what}", "fc2.weight: prune(keep={keep})"],
              "what": ["binary()", "ternary()"], "keep": 0.5}],
    "random": [{"samples": 20, "draws": 1, "rank": {"from": 1, "to": 3}, "seed": [0, 1, 2],
                "compress": "lowrank(rank={rank}) + prune(keep={keep})",
                "keep": {"from": 0.001, "to": 0.1, "log": True}}]}


@pytest.fixture
def read(tmp_path):
    """Read a design from the text of a file."""
    def from_text(text, name="d.toml"):
        (tmp_path / name).write_text(text)
        return Design.read(tmp_path / name)
    return from_text


# ---- the cells

AXES = st.dictionaries(st.sampled_from(["a", "b", "seed", "steps", "epochs"]),
                       st.lists(st.integers(1, 99), min_size=1, max_size=4), max_size=4)


@given(st.lists(AXES, max_size=3))
def test_grids_are_the_products_of_their_lists_one_after_the_other(grids):
    text = {name: "quantize(k={" + name + "})" for name in "ab"}
    blocks, expected = [], []
    for axes in grids:
        texts = [text[name] for name in "ab" if name in axes]
        fixed = {"compress": " + ".join(texts)} if texts else {}
        blocks.append({**fixed, **axes})
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values))
            cell = {"lr": 0.5, **{name: t.format(**chosen) for name, t in fixed.items()}}
            expected.append(cell | {n: v for n, v in chosen.items() if n not in "ab"})
    design = Design({"lr": 0.5}, blocks)
    assert list(design) == (expected if grids else [{"lr": 0.5}])
    assert [design[i] for i in range(len(design))] == list(design)
    assert [design[i - len(design)] for i in range(len(design))] == list(design)


def test_the_grids_come_first_then_the_random_samples_and_no_number_is_beyond_the_last(read):
    design = read(TOML)
    assert len(design) == 2 * 2 * 2 + 2 + 20 == len(list(design))
    assert design[8] == {"data": "digits", "reference-epochs": 1, "lr": 0.1,
                         "task": ["fc1.weight: binary()", "fc2.weight: prune(keep=0.5)"]}
    assert all(cell["compress"].startswith("lowrank") for cell in list(design)[10:])
    with pytest.raises(IndexError):
        design[30]


def test_the_axes_are_the_values_that_differ_within_a_block(read):
    design = read(TOML)
    assert design.axes(1) == {"k": 2, "keep": 0.01, "seed": 1}
    assert design.axes(9) == {"what": "ternary()"}
    assert design.axes(29).keys() == {"rank", "keep", "seed"}


def test_the_same_design_in_toml_and_json_has_the_same_cells(read):
    assert list(read(TOML)) == list(read(json.dumps(JSON), "d.json"))


def test_a_design_in_python_is_that_of_its_file(read):
    design = Design({"data": "digits", "reference-epochs": 1, "lr": 0.1}, JSON["grid"],
                    JSON["random"])
    assert list(design) == list(read(TOML))
    assert design.as_json() == JSON


def test_a_list_of_lists_of_tasks_is_an_axis():
    one, two = ["fc1.weight: binary()"], ["fc1.weight: binary()", "fc2.weight: ternary()"]
    assert [cell["task"] for cell in Design({}, [{"task": [one, two]}])] == [one, two]
    assert [cell["task"] for cell in Design({"task": two})] == [two]


# ---- random samples


def random_axis(axis, samples, draws=0):
    design = Design({}, (), [{"samples": samples, "draws": draws, "x": axis,
                              "compress": "prune(alpha={x})"}])
    return [design.axes(i)["x"] for i in range(samples)]


def near(count, n, p):
    """Whether a count of n draws is within five standard deviations of its mean."""
    return abs(count - n * p) <= 5 * math.sqrt(n * p * (1 - p))


def test_whole_ends_give_whole_numbers_all_alike_likely_both_ends_included():
    found = random_axis({"from": 0, "to": 1}, 4000)
    assert {*found} == {0, 1} and {type(x) for x in found} == {int}
    assert near(sum(found), 4000, 0.5)


def test_a_range_of_numbers_is_uniform_and_with_log_in_the_logarithm():
    plain = random_axis({"from": 0.0, "to": 1.0}, 4000)
    logs = random_axis({"from": 0.0001, "to": 1.0, "log": True}, 4000)
    assert all(0 <= x <= 1 for x in plain) and all(0.0001 <= x <= 1 for x in logs)
    assert near(sum(x < 0.1 for x in plain), 4000, 0.1)
    assert near(sum(x < 0.001 for x in logs), 4000, 0.25)
    assert near(sum(x < 0.01 for x in logs), 4000, 0.5)


def test_whole_numbers_with_log_have_both_ends_and_smaller_ones_are_likelier():
    found = random_axis({"from": 1, "to": 7, "log": True}, 4000)
    assert {*found} == set(range(1, 8)) and {type(x) for x in found} == {int}
    assert near(found.count(1), 4000, math.log(2) / math.log(8))


def test_a_sample_depends_on_its_number_and_the_draws_and_not_on_how_many_there_are():
    axis = {"from": 0.1, "to": 0.9}
    assert random_axis(axis, 5) == random_axis(axis, 50)[:5] != random_axis(axis, 5, draws=1)
    assert len({*random_axis(axis, 50)}) == 50


def test_two_random_blocks_draw_different_samples():
    block = {"samples": 5, "compress": "prune(keep={x})", "x": {"from": 0.1, "to": 0.9}}
    cells = list(Design({}, (), [block, block]))
    assert len({cell["compress"] for cell in cells}) == 10


# ---- keys


def test_a_key_is_that_of_the_settings_however_they_are_written():
    cell = {"data": "digits", "lr": 0.1, "seed": 1}
    usual = {"compress": "each(quantize(k=2)) + prune(keep=0.01)", "net": "lenet300", "steps": 30}
    assert key(cell) == key({"seed": 1, "lr": 0.1}) == key(cell | usual)
    assert key({"mu0": 1}) == key({"mu0": 1.0})
    assert key({"task": "fc1.weight: binary()"}) == key({"task": ["fc1.weight: binary()"]})
    assert len(key(cell)) == 32 and set(key(cell)) <= set("0123456789abcdef")


CHANGES = {
    "net": "linear", "activation": "tanh", "data": "mnist", "hold-out": 0.1, "lr": 0.1, "seed": 1,
    "reference-epochs": 1, "epoch-decay": 0.9, "momentum": 0.5, "weight-decay": 0.1, "batch": 10,
    "augment": False}
OTHERS = {
    "compress": "binary()", "task": ["fc1.weight: binary()"], "storage": "float16", "steps": 3,
    "mu0": 0.1, "growth": 2, "penalty": "quadratic", "epochs": 3, "first-epochs": 1,
    "lr-decay": 0.5, "train-sample": 10}


def test_every_setting_changes_the_key():
    verb = cli._parser()[1]["compress"]
    flags = {action.option_strings[0][2:] for action in verb._actions}
    assert flags - {"-h", "out", "resume", "json", "quiet", "debug", "threads", "data-dir", "h",
                    "reference", "checkpoint-minutes", "device", ""} == {*CHANGES, *OTHERS}
    assert len({key({name: value}) for name, value in {**CHANGES, **OTHERS}.items()}
               | {key({})}) == len({**CHANGES, **OTHERS}) + 1


def test_cells_share_a_reference_exactly_where_what_trains_it_is_the_same():
    assert {reference_key({name: value}) for name, value in OTHERS.items()} == {reference_key({})}
    assert len({reference_key({name: value}) for name, value in CHANGES.items()}
               | {reference_key({})}) == len(CHANGES) + 1


def test_the_kind_names_the_compressions_of_a_cell():
    assert kind({}) == "quantize + prune"
    assert kind({"compress": "each(lowrank(rank=3)) + binary() + prune(keep=0.1)"}) == (
        "lowrank + binary + prune")
    assert kind({"task": ["fc1.weight: binary()", "fc2.weight: prune(keep=0.1)",
                          "fc3.weight: binary()"]}) == "binary, prune"
    assert kind({"compress": "quantize(k=0)"}) == ""


# ---- errors

ERRORS = {      # what the file says: what the message has besides the file's name
    "sed = 1": ["sed", "no flag of lcref compress", "did you mean 'seed'"],
    "[[grid]]\nkep = [1]": ["[[grid]] 1", "kep", "no text has {kep}"],
    "[[grid]]\n[[grid]]\ncompress = 'quantize(k={k})'": ["[[grid]] 2", "{k} in a text"],
    "[[grid]]\nseed = []": ["[[grid]] 1", "seed", "empty list"],
    "[[random]]\nsamples = 2\nseed = []": ["[[random]] 1", "seed", "empty list"],
    "[[grid]]\nseed = [0, -1]": ["[[grid]] 1", "seed", "at least 0", "'-1'"],
    "[[grid]]\nseed = [true]": ["[[grid]] 1", "seed", "takes a whole number"],
    "seed = 1.5": ["seed", "takes a whole number", "'1.5'"],
    "seed = [1]": ["seed", "belongs into [[grid]]"],
    "data = 3": ["data", "takes a text, not 3"],
    "storage = 'float8'": ["storage", "one of float16, float32"],
    "augment = 1": ["augment", "true or false, not 1"],
    "task = []": ["task", "takes texts"],
    "task = [3]": ["task", "takes texts"],
    "compress = 'quantise(k=2)'": ["compress", "unknown compression 'quantise'", "^"],
    "task = 'binary()'": ["task", "the colon is missing"],
    "[[grid]]\ncompress = ['binary()', 'quantize(k={k})']\nk = [0]": None,   # not the first cell
    "[[grid]]\ncompress = 'quantize(k={k})'\nk = [0, 1]": ["[[grid]] 1", "compress", "k must"],
    "[[grid]]\nk = [nan]\ncompress = 'quantize(k={k})'": ["[[grid]] 1", "k", "nan"],
    "[[grid]]\nk = [1979-05-27]\ncompress = 'quantize(k={k})'": ["[[grid]] 1", "k", "datetime"],
    "[[grid]]\nseed = {from = 1, to = 2}": ["[[grid]] 1", "seed", "[[random]]"],
    "[[random]]\nseed = [1]": ["[[random]] 1", "samples", "at least 1, not None"],
    "[[random]]\nsamples = 0": ["[[random]] 1", "samples", "not 0"],
    "[[random]]\nsamples = 1\ndraws = -1": ["[[random]] 1", "draws", "at least 0, not -1"],
    "[[random]]\nsamples = 1\nseed = {from = 2, to = 1}": ["[[random]] 1", "seed", "from <= to"],
    "[[random]]\nsamples = 1\nseed = {from = 2}": ["[[random]] 1", "seed", "2 and None"],
    "[[random]]\nsamples = 1\nseed = {from = -1, to = 1}": ["[[random]] 1", "seed: from", "'-1'"],
    "[[random]]\nsamples = 1\nlr = {from = 0.0, to = 1.0, log = true}": ["lr", "from > 0"],
    "[[random]]\nsamples = 1\nlr = {from = 1, to = 2, step = 1}": ["lr", "'step'", "from, to"],
    "[grid]\nseed = [1]": ["grid", "[[grid]]"],
    "random = 3": ["random", "[[random]]"],
    "seed = ": ["Invalid value"],
    "[[random]]\nsamples = 9223372036854775807\n[[random]]\nsamples = 1": ["more than", "cells"],
    **{f"{name} = 1": [name, "not a setting of a cell"] for name in (
        "out", "resume", "json", "quiet", "debug", "threads", "checkpoint-minutes", "reference",
        "data-dir")},
}


@pytest.mark.parametrize("text", ERRORS)
def test_an_error_names_the_file_the_block_and_the_key(read, tmp_path, text):
    if ERRORS[text] is None:
        assert len(read(text)) == 2
        return
    with pytest.raises(ValueError) as error:
        read(text)
    assert str(error.value).startswith(f"{tmp_path / 'd.toml'}: ")
    assert [part for part in ERRORS[text] if part not in str(error.value)] == []


@pytest.mark.parametrize("text", ["[1]", "{", "NaN", "[" * 10**5, '{"seed": NaN}'],
                         ids=["list", "cut off", "number", "deep", "nan"])
def test_a_json_file_that_is_no_design_is_refused_by_its_name(read, text):
    with pytest.raises(ValueError, match="d.json: "):
        read(text, "d.json")


@pytest.mark.parametrize("arguments, says", [
    ([None], "^settings must be a dict, not None"), ([[1]], "^settings must be a dict"),
    (["seed"], "^settings must be a dict"), ([{}, [3]], "^grids must be dicts"),
    ([{}, {"seed": [1]}], "^grids must be dicts"), ([{}, (), "ab"], "^randoms must be dicts"),
    ([{"seed": np.int64(3)}], "seed: takes numbers of Python, not .*3"),   # JSON has no other
    ([{}, [{"seed": [np.int64(3)]}]], "seed: takes numbers of Python"),
    ([{}, [{"seed": np.arange(3)}]], "seed: takes numbers of Python"),
    ([{"lr": np.float32(0.5)}], "lr: takes numbers of Python")])
def test_a_design_in_python_that_is_none_is_refused_by_the_name_of_its_argument(arguments, says):
    with pytest.raises((TypeError, ValueError), match=says):
        Design(*arguments)


# ---- size


@pytest.mark.parametrize("size", [10**6, 10**12])
def test_a_large_design_takes_no_more_time_or_memory_than_a_small_one(size):
    side = round(size ** (1 / 3))
    begin = time.perf_counter()
    tracemalloc.start()
    grid = Design({}, [{"compress": "quantize(k={k})", "k": list(range(1, side + 1)),
                        "seed": list(range(side)), "steps": list(range(1, side + 1))}])
    drawn = Design({}, (), [{"samples": size, "seed": {"from": 0, "to": 10**9}}])
    for design in (grid, drawn):
        assert len(design) == size
        assert list(itertools.islice(design, 100)) == [design[i] for i in range(100)]
        assert design[size - 1] == design[-1] != design[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert grid[-1] == {"compress": f"quantize(k={side})", "seed": side - 1, "steps": side}
    assert peak < 10e6      # the lists of 10,000 values are 1 MB
    assert time.perf_counter() - begin < 5


def test_a_large_design_is_listed_at_once(tmp_path, capsys):
    file = tmp_path / "d.json"
    file.write_text(json.dumps({"random": [{"samples": 10**12, "seed": {"from": 0, "to": 9}}]}))
    begin = time.perf_counter()
    assert cli.main(["sweep", str(file), "--out", str(tmp_path / "out"), "--list", "--json"]) == 0
    assert time.perf_counter() - begin < 5
    found = json.loads(capsys.readouterr().out)
    assert (found["cells"], found["left"], len(found["first"])) == (10**12, 10**12, 5)
    assert not (tmp_path / "out").exists()
