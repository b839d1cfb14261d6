"""Targets: the loading of functions, time limits, and programs that speak JSON lines."""

import json
import math
import re
import shlex
import sys
import time
import traceback

import numpy as np
import pytest

from lcref.verify.targets import (Call, Function, Hang, Program, ProgramError, decode, encode,
                                  load, require_signature)

ANSWER = {"id": 1, "theta": {"shape": [1], "dtype": "float64", "data": [1]}}
ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"id": request["id"], "theta": request["w"]}), flush=True)
"""


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """Writes a module into the current directory, and gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    written = []

    def write(source):
        name = "target_" + re.sub(r"\W", "_", request.node.name)
        (tmp_path / f"{name}.py").write_text(source)
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture
def program(tmp_path):
    """Starts Python programs, and ends them after the test."""
    started = []

    def start(source, kind="l0_ball", names=("w",), **options):
        script = tmp_path / "program.py"
        script.write_text(source)
        command = shlex.join([sys.executable, "-S", str(script)])
        started.append(Program(command, kind, names, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


def printing(text):
    """A program that answers every request with the same text."""
    return f"import sys\nfor line in sys.stdin:\n    print({text!r}, flush=True)\n"


def answering(**answer):
    """A program that answers the first request with these entries."""
    return printing(json.dumps({"id": 1, **answer}))


def array(shape=(1,), dtype="float64", data=(1,)):
    return {"shape": list(shape), "dtype": dtype, "data": list(data)}


def fails(target, message, error=ProgramError):
    with pytest.raises(error, match=message):
        target((np.ones(1),))


# ---- loading

def test_a_function_in_the_current_directory_is_loaded(module):
    assert load(module("def fn(w): return w + 1") + ":fn")(1) == 2


def test_a_method_of_a_class_is_loaded(module):
    name = module("class A:\n    @staticmethod\n    def fn(w): return w + 1")
    assert load(name + ":A.fn")(1) == 2


@pytest.mark.parametrize("text", ["prune", "prune:", ":prune", ""])
def test_a_text_without_module_and_function_is_refused(text):
    with pytest.raises(ValueError, match="write module:function"):
        load(text)


def test_a_module_that_is_missing_is_named():
    with pytest.raises(ValueError, match="'no_such_module'; run this in the folder"):
        load("no_such_module:fn")


def test_a_module_that_a_module_needs_is_named(module):
    name = module("import no_such_module")
    with pytest.raises(ValueError, match="needs no_such_module: install that"):
        load(name + ":fn")


def test_a_file_in_place_of_a_module_is_explained():
    with pytest.raises(ValueError, match="with dots"):
        load("folder/prune.py:fn")


@pytest.mark.parametrize("line, said", [("1 / 0", "ZeroDivisionError: division by zero"),
                                        ("raise SystemExit(3)", "SystemExit: 3"),
                                        ("def", "SyntaxError")])
def test_an_error_on_import_is_reported(module, line, said):
    name = module(line)
    with pytest.raises(ValueError, match=said):
        load(name + ":fn")


def test_a_misspelt_function_gets_a_suggestion(module):
    name = module("def project(w): return w")
    with pytest.raises(ValueError, match="no 'projct'.*did you mean 'project'"):
        load(name + ":projct")


def test_an_attribute_like_no_other_gets_no_suggestion(module):
    name = module("")
    with pytest.raises(ValueError, match="check its spelling"):
        load(name + ":qqqq")


def test_what_cannot_be_called_is_refused(module):
    name = module("fn = 3")
    with pytest.raises(TypeError, match="of type int: name a function"):
        load(name + ":fn")


def test_printing_on_import_does_not_reach_stdout(module, capsys):
    load(module("print('hello')\ndef fn(w): return w") + ":fn")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


# ---- signatures

def test_the_first_number_of_arguments_that_fits_is_chosen():
    assert require_signature(lambda w, kappa=1: w, (2, 1), ("w", "kappa")) == 2
    assert require_signature(lambda w: w, (2, 1), ("w", "kappa")) == 1


def test_a_function_that_takes_any_arguments_fits():
    assert require_signature(lambda *w: w, (2,), ("w", "kappa")) == 2


def test_a_signature_that_does_not_fit_is_shown_with_the_call():
    def prune(w, *, kappa):
        return w
    with pytest.raises(TypeError, match=r"prune\(w, kappa\).*is prune\(w, \*, kappa\)"):
        require_signature(prune, (2,), ("w", "kappa"))


def test_a_builtin_without_a_signature_gets_the_first_number():
    assert require_signature(max, (2, 1), ("w", "kappa")) == 2


# ---- functions

def test_a_call_returns_the_value_and_what_was_printed(capsys):
    def fn(w):
        print("x =", w)
        return w + 1
    assert Function(fn)((1,)) == Call(2, "x = 1\n")
    assert Function(fn, math.inf)((1,)) == Call(2, "x = 1\n")
    assert capsys.readouterr().out == ""


def test_a_generator_is_listed_within_the_call():
    def fn(n):
        for i in range(n):
            print(i)
            yield i
    assert Function(fn)((2,)) == Call([0, 1], "0\n1\n")


def test_a_returned_list_is_not_copied():
    value = [1]
    assert Function(lambda: value)(()).value is value


def test_an_exception_passes_with_its_message_and_traceback():
    def faulty(w):
        raise KeyError("no such weight")
    with pytest.raises(KeyError, match="no such weight") as caught:
        Function(faulty)((1,))
    assert "faulty" in [frame.name for frame in traceback.extract_tb(caught.tb)]


def test_an_exception_in_a_generator_passes():
    with pytest.raises(ZeroDivisionError):
        Function(lambda: (1 / i for i in (1, 0)))(())


def test_an_exit_is_an_error():
    with pytest.raises(RuntimeError, match="called sys.exit"):
        Function(sys.exit)((0,))


def test_an_interrupt_passes():
    def fn():
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        Function(fn)(())


def test_a_hang_in_python_is_stopped():
    turns = []

    def fn():
        while True:
            turns.append(0)
            time.sleep(0.001)
    with pytest.raises(Hang, match=r"^did not return within 0\.1 s$"):
        Function(fn, 0.1)(())
    time.sleep(0.1)
    before = len(turns)
    time.sleep(0.05)
    assert len(turns) == before


def test_a_hang_in_a_sleep_is_noticed():
    start = time.monotonic()
    with pytest.raises(Hang):
        Function(time.sleep, 0.1)((1,))
    assert time.monotonic() - start < 0.9


def test_stdout_is_given_back_after_a_hang(capsys):
    with pytest.raises(Hang):
        Function(time.sleep, 0.01)((0.1,))
    print("here")
    assert capsys.readouterr().out == "here\n"


def test_a_hang_is_no_exception_and_says_ten_seconds():
    assert not issubclass(Hang, Exception)
    assert str(Hang()) == "did not return within 10 s"


# ---- JSON forms

@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_come_back_bit_for_bit(dtype):
    info = np.finfo(dtype)
    w = np.array([-0.0, 0.1, info.tiny, info.smallest_subnormal, info.max, -np.inf], dtype)
    back = decode(json.loads(json.dumps(encode(w))))
    assert back.dtype == w.dtype and back.tobytes() == w.tobytes()


def test_nan_comes_back():
    assert np.isnan(decode(encode(np.array([np.nan])))).all()
    assert np.isnan(decode(encode(float("nan"))))


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (0,)])
def test_shapes_come_back(shape):
    w = np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape)
    np.testing.assert_array_equal(decode(encode(w)), w, strict=True)


def test_an_array_that_is_not_contiguous_is_sent_row_by_row():
    w = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(decode(encode(w)), w)


@pytest.mark.parametrize("value", [True, 3, "storage"])
def test_booleans_integers_and_texts_stay_as_they_are(value):
    assert encode(value) is value and decode(value) is value


@pytest.mark.parametrize("value, form", [
    (0.75, "0x1.8000000000000p-1"), (np.float32(0.5), "0x1.0000000000000p-1"),
    (np.int64(3), 3), (np.bool_(True), True)])
def test_scalars_have_plain_forms(value, form):
    assert encode(value) == form and type(encode(value)) is type(form)
    assert decode(form) == value


def test_an_array_of_integers_is_sent_as_integers():
    assert encode(np.array([1, 2])) == array((2,), "int64", (1, 2))


def test_a_value_without_a_form_is_refused():
    with pytest.raises(TypeError, match="type set has no JSON form"):
        encode({1})


def test_numbers_are_accepted_for_floats():
    np.testing.assert_array_equal(decode(array((3,), "float32", (0.1, -0.0, 2))),
                                  np.array([0.1, -0.0, 2], np.float32), strict=True)


@pytest.mark.parametrize("form, message", [
    (array((2,)), "has 2 entries, but its data has 1"),
    (array((-1,)), "whole numbers"), (array((True,)), "whole numbers"),
    (array(dtype="int8"), "float16, float32, float64"),
    ({"shape": [1]}, "an array is an object"), ({"shape": 1}, "an array is an object"),
    (array(data=("1.5",)), "an entry is a number"), (array(data=(None,)), "not 'null'"),
    (array(data=(True,)), "not 'true'"), (array(data=([1],)), "an entry is a number"),
    (array(data=("0x1p5000",)), "too large"), (array(data=(10**400,)), "too large")])
def test_a_wrong_array_is_refused(form, message):
    with pytest.raises(ProgramError, match=message):
        decode(form)


# ---- programs

def test_floats_pass_through_a_program_unchanged(program):
    w = np.array([[-0.0, 5e-324, 0.1], [np.inf, np.nan, -1e308]])
    call = program(ECHO)((w,))
    np.testing.assert_array_equal(call.value, w, strict=True)
    assert call.printed == "" and np.signbit(call.value[0, 0])


def test_a_program_answers_many_calls_in_one_run(program):
    target = program("import os\n" + ECHO.replace('request["w"]', '{"shape": [], '
                     '"dtype": "float64", "data": [os.getpid()]}'))
    assert len({float(target((np.ones(1),)).value) for _ in range(5)}) == 1


def test_a_request_names_its_arguments(program):
    target = program(ECHO.replace('"theta": request["w"]', '"error": line'), "sum",
                     ("w", "kappa"), compression="prune(kappa=1) + prune(kappa=2)")
    with pytest.raises(ProgramError) as caught:
        target((np.array([0.5]), 2))
    assert json.loads(str(caught.value)) == {
        "id": 1, "kind": "sum", "w": array(data=("0x1.0000000000000p-1",)), "kappa": 2,
        "compression": "prune(kappa=1) + prune(kappa=2)"}


def test_parts_are_a_tuple_of_arrays(program):
    value = program(answering(parts=[array(), array((0, 3), data=())]))((np.ones(1),)).value
    assert type(value) is tuple and [part.shape for part in value] == [(1,), (0, 3)]


def test_steps_are_a_list_of_dictionaries(program):
    step = {"w": array(), "theta": array(), "lambda": array((1,), "float32", ("0x1p-1",))}
    value = program(answering(steps=[step, step]), "lc")((np.ones(1),)).value
    assert len(value) == 2 and set(value[0]) == {"w", "theta", "lambda"}
    assert value[1]["lambda"].dtype == np.float32 and value[1]["lambda"] == [0.5]


@pytest.mark.parametrize("kind, answer, message", [
    ("lc", {"theta": array()}, 'no list "steps"'), ("lc", {"steps": [3]}, "a step has"),
    ("lc", {"steps": [{"w": array()}]}, "a step has"),
    ("sum", {}, 'no list "parts" and no "theta"'),
    ("sum", {"parts": 3}, "no list"), ("sum", {"parts": [3]}, "an array is"),
    ("l0_ball", {"theta": array((2,))}, "has 2 entries"),
    ("l0_ball", {"error": "kappa is negative"}, "^kappa is negative$")])
def test_a_wrong_value_is_refused(program, kind, answer, message):
    fails(program(answering(**answer), kind), message)


def test_an_error_leaves_the_program_running(program):
    target = program("import os\n" + ECHO.replace('"theta": request["w"]',
                                                  '"error": str(os.getpid())'))
    said = []
    for _ in range(2):
        with pytest.raises(ProgramError) as caught:
            target((np.ones(1),))
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("line", ["ready", "[1]", "{", "", "3"])
def test_a_line_that_is_not_an_answer_is_shown(program, line):
    fails(program(printing(line)), re.escape(f"printed a line that is not an answer: '{line}'"))


def test_a_long_line_is_shortened(program):
    target = program(printing("x" * 5000))
    with pytest.raises(ProgramError) as caught:
        target((np.ones(1),))
    assert len(str(caught.value)) < 220


def test_an_answer_to_another_request_is_refused(program):
    fails(program(answering(id=7, theta=array())), '"id": 7.*, where a JSON .* "id": 1 was due')


def test_a_program_that_hangs_is_killed_and_started_again(program, tmp_path):
    flag = tmp_path / "hung"
    target = program(f"""
import os, time
if not os.path.exists({str(flag)!r}):
    open({str(flag)!r}, "w").close()
    time.sleep(60)
""" + ECHO, seconds=1)
    fails(target, "did not return within 1 s", Hang)
    assert target((np.ones(1),)).value == [1]


def test_a_program_that_does_not_read_a_long_request_is_a_hang(program):
    target = program("import time; time.sleep(60)", seconds=0.2)
    with pytest.raises(Hang):
        target((np.ones(30000),))


def test_a_program_that_dies_tells_its_status_and_last_lines_and_starts_again(program):
    target = program("import sys\nsys.stdin.readline()\n"
                     "for i in range(30): print('line', i, file=sys.stderr)\nsys.exit(3)")
    for _ in range(2):
        with pytest.raises(ProgramError, match="^ended with status 3\n") as caught:
            target((np.ones(1),))
        lines = str(caught.value).splitlines()[1:]
        assert lines == [f"line {i}" for i in range(10, 30)]


def test_a_program_that_closes_its_output_is_ended(program):
    fails(program("import os, time; os.close(1); time.sleep(60)"), "closed its standard output")


def test_a_program_that_writes_much_to_stderr_is_not_held_up(program):
    target = program("import sys; sys.stderr.write('x\\n' * 200000)\n" + ECHO)
    assert target((np.ones(1),)).value == [1]


@pytest.mark.parametrize("command", ["no_such_program --fast", "", "'open", "."])
def test_a_command_that_cannot_be_started_is_named(command):
    with pytest.raises(ValueError, match="^the command .* cannot be started") as caught:
        Program(command, "l0_ball", ("w",))((np.ones(1),))
    assert repr(command) in str(caught.value)


def test_a_file_that_may_not_be_run_is_named(tmp_path):
    (tmp_path / "solve").write_text("")
    with pytest.raises(ValueError, match="Permission denied"):
        Program(str(tmp_path / "solve"), "l0_ball", ("w",))((np.ones(1),))


def test_a_program_is_ended_on_leaving_the_context(program):
    with program(ECHO) as target:
        target((np.ones(1),))
        process = target._process.popen
    assert process.returncode == 0 and process.stdout.closed


def test_a_program_that_does_not_end_with_its_input_is_killed(program):
    target = program(ECHO + "\nimport time; time.sleep(60)")
    target((np.ones(1),))
    process = target._process.popen
    target.close()
    assert process.returncode not in (None, 0)


def test_a_program_that_was_not_called_can_be_closed(program):
    program(ECHO).close()


def test_the_number_of_arguments_must_match_the_names(program):
    with pytest.raises(ValueError, match="zip"):
        program(ECHO)((np.ones(1), 2))
