"""What the reader of packed files does with some of the fuzzer's inputs and with the nastiest."""

import itertools
import json
import sys

import fuzz
import hostile
import numpy as np
import pytest

from lcref.storage import Model, is_packed, load, unpack

INPUTS = 1500   # of each kind of mutation
MUTATIONS = pytest.mark.parametrize("below", [False, True], ids=["bytes", "below the CRC"])
ACCEPTED = [    # of the nastiest, those that are odd or large and yet legal
    "text: each in each", "parts: 3000 in one task", "parts: 3000 of each",
    "parts: 62 parts of 3000", "parts: 62 parts of 10000", "parts: 700 tasks",
    "parts: tasks of many levels", "parts: 62 parts of one entry", "parts: one entry for 2^28",
    "parts: slices of nothing", "parts: convolutions of nothing", "names: 9000 tensors",
    "names: nothing", "numbers: scaled 1e300", "numbers: scaled underflow",
    "numbers: the largest sum", "numbers: lists", "zip: directory field 8 is 2048",
    "zip: directory field 28 is 65535", "zip: directory field 30 is 4", "zip: zip64", "zip: before",
    "zip: a file after", "shape: [0, 0, 0, 0, 0, 0, 0, 0,", "shape: {'': 2} of prune(kappa=1)",
    "shape: {'': 2} of quantize(codebook=[0])", "shape: [] of prune(kappa=1)",
    "shape: [] of quantize(codebook=[0])", "shape: [0, 0, 0, 0, 0, 0, 0, 0, of prune(kappa=1)"]
NAMES = [f"sound: {name}" for name in hostile.KINDS] + list(hostile.nasty())


def one(name):
    return hostile.sound()[name[7:]] if name.startswith("sound: ") else hostile.nasty()[name]


# ---- the mutated


@MUTATIONS
def test_of_mutated_files_comes_a_model_that_works_or_one_line_that_says_why_not(below):
    tally = fuzz.Tally()
    for i in range(INPUTS):
        tally.check(fuzz.mutated("sample", i, below))
    assert not tally.faults, {fault: data[:3000] for fault, data in tally.smallest.items()}
    assert tally.accepted >= INPUTS // 50  # else nothing but the refusal is tested
    assert len(tally.messages) >= (100 if below else 15)


@MUTATIONS
def test_the_memory_of_reading_mutated_files_is_within_its_bound(below):
    for i in range(0, INPUTS, 10):
        data = fuzz.mutated("memory", i, below)
        assert fuzz.peak(data) <= fuzz.bound(data)


# ---- the nastiest


@pytest.mark.parametrize("name", NAMES)
def test_of_the_nastiest_files_comes_a_model_that_works_or_one_line_in_time_and_memory(name, capfd):
    tally = fuzz.Tally()
    tally.check(one(name), measured=True)
    assert not tally.faults
    assert tally.accepted == (name in ACCEPTED or name.startswith("sound: "))
    assert capfd.readouterr() == ("", "")  # not even by code in C


@pytest.mark.parametrize("name", ["parts: 3000 of each", "text: a bad call", "zip: nothing"])
def test_load_and_is_packed_agree_with_unpack_and_name_the_file(name, tmp_path):
    path, data = tmp_path / "model.npz", hostile.nasty()[name]
    path.write_bytes(data)
    answer = fuzz.unpacked(data)[0]
    if isinstance(answer, Model):
        assert is_packed(path) and list(load(path).shapes) == list(answer.shapes)
        return
    with pytest.raises(ValueError) as error:
        load(path)
    assert str(error.value) == f"{path}: {answer}"


# ---- the fuzzer


def test_every_cut_of_a_sound_file_is_refused():
    for data in (hostile.sound()["each"], hostile.sound()["no task"]):
        for end in range(len(data)):
            with pytest.raises(ValueError, match="packed file"):
                unpack(data[:end])


def test_a_sound_file_with_one_bit_flipped_is_refused_or_holds_the_same():
    data = hostile.sound()["sum of each"]
    dense = unpack(data).decompress()
    for i, bit in itertools.product(range(len(data)), range(8)):
        changed = bytearray(data)
        changed[i] ^= 1 << bit
        answer, faults, _ = fuzz.unpacked(bytes(changed))
        assert not faults
        assert isinstance(answer, str) or all(  # a date, an attribute or a version of zip
            np.array_equal(dense[name], same) for name, same in answer.decompress().items())


def test_an_input_is_the_same_whenever_it_is_made_and_inputs_differ():
    first, again = ([fuzz.mutated(3, i) for i in range(200)] for _ in range(2))
    assert first == again and len({*first, *hostile.sound().values()}) > 190


def test_half_of_the_inputs_below_the_crc_are_whole_zip_files():
    whole = [hostile.opened(fuzz.mutated(4, i, below=True)) for i in range(200)]
    assert sum(opened is not None for opened in whole) > 100


class Wrong:
    """A reader with a fault."""

    def __init__(self, answer):
        self.unpack = answer


def _raise(error):
    raise error


@pytest.mark.parametrize(("answer", "fault"), [
    (lambda data: _raise(KeyError("a")), "KeyError"),
    (lambda data: _raise(ValueError("two\nlines")), "one printable line"),
    (lambda data: _raise(ValueError("x" * 401)), "too long"),
    (lambda data: _raise(ValueError("\x1b[2J")), "one printable line"),
    (lambda data: (print("?"), _raise(ValueError("no")))[1], "prints"),
    (lambda data: (compile("'\\d'", "", "eval"), _raise(ValueError("no")))[1], "Warning"),
    (lambda data: None, "neither a Model"),
    (lambda data: _raise(ValueError(f"no: {sum(range(1_000_000))}")), "slower"),
], ids=lambda fault: fault if isinstance(fault, str) else "")
def test_the_fuzzer_sees_a_reader_that_is_wrong(answer, fault, monkeypatch):
    if fault == "slower":
        monkeypatch.setattr(fuzz, "SECONDS", 0.001)
    tally = fuzz.Tally(storage=Wrong(answer))
    tally.check(b"PK")
    assert fault in "".join(tally.faults)


def test_the_fuzzer_sees_memory_beyond_the_bound():
    assert fuzz.peak(b"", Wrong(lambda data: bytes(fuzz.BASE + 1) and None)) > fuzz.bound(b"")


def test_the_script_says_what_it_did_and_keeps_what_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hostile, "nasty", dict)
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--runs", "40", "--out", str(tmp_path / "out")])
    assert fuzz.main() == 0 and not list((tmp_path / "out").iterdir())
    printed = capsys.readouterr().out
    summary = json.loads(printed[printed.index("\n{"):])
    assert summary["runs"] == 40 == summary["accepted"] + summary["refused"]
    assert summary["faults"] == {} and summary["engine"] == "random"
    assert {"slowest ms", "command", "versions", "kinds of messages"} <= set(summary)
    monkeypatch.setattr(fuzz, "LONGEST", 40)
    assert fuzz.main() == 1
    kept = {path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert kept and all(fuzz.unpacked(data)[1] == ["a message that is too long"] for data in kept)
