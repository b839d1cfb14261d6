"""Every public function and class against hostile arrays: the right answer, or a named refusal.

A cell of the matrix is one argument of one public name (a row) and one array (a column). It holds
where the answer is right, or a ValueError or TypeError says the argument's name; where any other
exception, a warning (an error in these tests), a silent wrong number or a write to the input is
seen, it fails. A public name without a row fails too.
"""

import dataclasses
import re
from fractions import Fraction

import numpy as np
import pytest
from boundary import (ALLOWED, ARRAYS, COUNTED, EMPTY, INTEGERS, LARGE, LAYOUTS, MATRIX_OF_ROWS,
                      NOT_FINITE, REFUSED, W, put)

import lcref
from lcref import (choice, compressions, data, design, inference, lsteps, nets, parts, plots,
                   storage, sweep, tolerance, verify)
from lcref import projections as p


def by_name(rows):
    return pytest.mark.parametrize("row", [pytest.param(
        row, id=f"{row.name}-{row.argument}-{i}") for i, row in enumerate(rows)])


# ---- judges


def arrays(answer):
    """All numbers of an answer, as a list of arrays."""
    if isinstance(answer, (np.ndarray, np.generic, float, int)):
        return [np.asarray(answer)]
    if isinstance(answer, parts.Part):
        return arrays(answer.decompress())
    if dataclasses.is_dataclass(answer):
        answer = vars(answer)
    inside = answer.values() if isinstance(answer, dict) else answer
    return [x for inner in inside for x in arrays(inner)] if isinstance(
        inside, (list, tuple, type({}.values()))) else []


def bits(answer):
    return [(x.dtype.str, x.shape, x.tobytes()) for x in arrays(answer)]


def finite(answer):
    return all(np.isfinite(x).all() for x in arrays(answer) if x.dtype.kind == "f")


def call(row, x):
    """The answer, or None where x is refused by name; x is not written to."""
    before = x.tobytes() if isinstance(x, np.ndarray) else None
    quiet = "ignore" if row.takes in ("signal", "data") else None  # as the L steps call the layers
    try:
        with np.errstate(over=quiet, invalid=quiet):
            answer = row.call(x)
    except (TypeError, ValueError) as error:
        assert re.search(rf"(?<!\w)({row.argument})(?!\w)", str(error)), f"no name: {error!r}"
        answer = None
    except lsteps.Diverged:
        assert row.takes == "start" and not np.isfinite(x).all()
        answer = None
    assert before is None or x.tobytes() == before, "the input was written to"
    return answer


def is_right(row, column, answer):
    """Whether the answer to a hostile array that the row allows is the right one.

    A NaN is seen in it; so is an infinity, unless the answer is the limit at a large number.
    Integers are what they are as floating numbers.
    """
    if column in NOT_FINITE:
        limit = {"nan": 0.0, "+inf": 1e300, "-inf": -1e300}[column]
        return row.takes == "data" or row.also == NOT_FINITE or not finite(answer) or (
            column != "nan" and bits(answer) == bits(row.call(put(limit)(row.base))))
    if column in (*INTEGERS, "list", "bool"):
        x = REFUSED[column](row.base)
        plain = row.call(np.asarray(x, np.int64 if row.takes == "whole" else np.float64))
        return all(np.array_equal(a, b) for a, b in zip(arrays(answer), arrays(plain), strict=True))
    return True


def faults(cells):
    """The cells that do not hold, by name, with what they say."""
    found = {}
    for name, cell in cells.items():
        try:
            cell()
        except Exception as error:  # another exception, or a warning, is what is looked for
            found[name] = f"{type(error).__name__}: {error}"
    return found


# ---- the matrix


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for what writes a file


@by_name(MATRIX_OF_ROWS)
def test_what_is_no_array_of_the_kind_is_refused_by_name_or_right(row):
    def cell(column):
        answer, right = call(row, REFUSED[column](row.base)), (*ALLOWED[row.takes], *row.also)
        if answer is None:
            assert column not in right or row.takes in ("start", "budget"), "refused, but right"
        else:
            assert column in right, f"answered {answer!r:.200}"
            assert is_right(row, column, answer), f"wrong: {answer!r:.200}"
    assert faults({column: lambda column=column: cell(column) for column in REFUSED}) == {}


@by_name(ARRAYS)
def test_the_layout_in_memory_changes_no_bit(row):
    base = LARGE if row.base is W and row in COUNTED and row.refuses != EMPTY else row.base
    plain = bits(call(row, base.copy()))
    assert plain or not arrays(row.call(base))
    assert faults({layout: lambda put=put: np.testing.assert_equal(
        bits(call(row, put(base))), plain) for layout, put in LAYOUTS.items()}) == {}


@by_name(ARRAYS)
def test_an_empty_array_is_refused_by_name_or_answered(row):
    def cell(shape):
        answer = call(row, np.zeros(shape, row.base.dtype))
        assert (answer is None) == (shape in row.refuses) or shape not in EMPTY, f"{answer!r:.200}"
        assert answer is None or finite(answer)
        if isinstance(answer, parts.Part) and not isinstance(answer.decompress(), (dict, list)):
            assert answer.decompress().shape == shape
    shapes = [*EMPTY, (0, *row.base.shape[1:])]
    assert faults({shape: lambda shape=shape: cell(shape) for shape in shapes}) == {}


def exact(w):
    return [Fraction(float(x)) for x in w.ravel()]


@by_name(COUNTED)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_answer_is_right_at_every_magnitude(row, dtype):
    def cell(w):
        answer = call(row, w)
        if answer is None:  # parts of a sum that exceed w may overflow, which is said
            assert row.name == "lcref.Sum" and np.max(abs(w)) > info.max / 8
            return
        assert finite(answer)
        delta = answer.decompress() if isinstance(answer, parts.Part) else None
        if isinstance(delta, np.ndarray):
            assert (delta.dtype, delta.shape) == (w.dtype, w.shape)
        if row.oracle:
            x, y = exact(w), exact(delta)
            over = sum((a - b) ** 2 for a, b in zip(x, y)) + row.penalty(delta) - row.oracle(w)
            # a rounding of each entry to the dtype, to first order and to second
            unit, least = Fraction(float(info.eps)), Fraction(float(info.smallest_subnormal))
            off = [unit * max(abs(a), abs(b)) + least for a, b in zip(x, y)]
            assert over <= sum(e * (2 * abs(a - b) + e) for e, a, b in zip(off, x, y)) + (
                Fraction(64, 2**52) * (sum(a * a + b * b for a, b in zip(x, y))))
    info, w = np.finfo(dtype), row.base.astype(dtype)
    columns = {"plain": w, "largest": w * dtype(info.max / 4),
               "huge": w * dtype(info.max / 40), "-0": np.where(w > 0, w, dtype(-0.0)),
               "subnormal": w * dtype(info.smallest_subnormal * 2**12),
               "mixed": np.where(w > 0, w, w * dtype(info.smallest_subnormal * 2**12))}
    if row.oracle and () not in row.refuses:
        columns["0-d"] = w[0, 0]
        columns["0-d"] = np.asarray(columns["0-d"])
    assert faults({name: lambda x=x: cell(x) for name, x in columns.items()}) == {}


@pytest.mark.parametrize("column", [*REFUSED, *LAYOUTS])
def test_check_judges_a_function_whose_answers_are_hostile(column):
    """Another layout conforms, and what is no finite array of w's dtype does not."""
    change = {**REFUSED, **LAYOUTS}[column]

    def answer(w, kappa):
        theta = p.l0_ball(w, kappa).decompress()
        return change(theta) if theta.ndim and theta.size else theta
    report = verify.check(answer, "l0_ball", max_examples=10, properties=["feasible", "optimal"])
    assert report.ok == (column in LAYOUTS)


# ---- completeness

MODULES = {"lcref": lcref, "projections": p, "compressions": compressions, "parts": parts,
           "lsteps": lsteps, "data": data, "nets": nets, "storage": storage, "inference": inference,
           "tolerance": tolerance, "plots": plots, "verify": verify, "sweep": sweep,
           "choice": choice, "design": design}
WITHOUT_ARRAYS = {
    "abstract, an exception, or a record that is only returned": """lcref.Compression
        lcref.DescentError lcref.Result lcref.Step lsteps.Diverged nets.Training parts.Part
        parts.Layout storage.Model verify.Certificate verify.Report verify.Result""",
    "takes texts, numbers, names, shapes, nets, tasks or files": """lcref.parse lcref.parse_task
        data.load nets.alexnet nets.build nets.lenet300 nets.lenet5 nets.linear nets.nin nets.resnet
        nets.vgg16 nets.threads nets.read_npz nets.read_params nets.read_tensors storage.convention
        storage.is_packed storage.load storage.with_storage inference.dense_operations
        inference.positions tolerance.slack verify.of_program verify.property_names""",
    "takes designs, cells, results or paths; its own tests try wrong ones": """choice.best
        choice.command choice.error_of choice.finished choice.front choice.ratio choice.results
        choice.settings_of design.Design sweep.Counts sweep.Design sweep.key sweep.read_result
        sweep.run_cell sweep.sweep""",
    "writes what the draw_ function of its name draws": """plots.layer_figure plots.parts_figure
        plots.path_figure""",
    "makes tests of `check`": "verify.conforms",
    "works inside, on arrays that were looked at": """parts.add parts.block_ends parts.combine
        parts.in_blocks parts.leaves parts.position_code parts.size parts.storage_bits
        plots.log_axis plots.save""",
}


def public(module):
    """The public functions and classes of a module: its __all__, or what it defines."""
    names = getattr(module, "__all__", None) or [name for name, value in vars(module).items() if (
        getattr(value, "__module__", None) == module.__name__ and not name.startswith("_"))]
    return {name for name in names if callable(getattr(module, name))}


def test_every_public_name_has_a_row_or_a_reason_to_have_none():
    names = {f"{prefix}.{name}" for prefix, module in MODULES.items() for name in public(module)
             if module is lcref or not (module is compressions and name in lcref.__all__)}
    rows = {row.name for row in MATRIX_OF_ROWS}
    excused = {name for names in WITHOUT_ARRAYS.values() for name in names.split()}
    assert names - rows - excused == set(), "public, without a row"
    assert (rows | excused) - names == set() and not rows & excused, "no longer public, or both"
