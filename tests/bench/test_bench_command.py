"""lcref bench, run as a user runs it: what is measured, printed and written."""

import json
import sys

import pytest

from lcref import cli
from lcref.bench import command
from lcref.bench.cases import BY_NAME
from lcref.bench.targets import Target

QUICK = ["--turns", "1", "--sizes", "1e3,2000"]
TIMING = {"name", "function", "n", "dtype", "seconds", "sort_seconds", "copy_seconds", "sorts",
          "copies", "memory", "process_memory", "objective", "peers", "left_out"}
PEER = {"name", "package", "promise", "seconds", "faster", "objective", "higher", "left_out"}
TARGET = {"what", "against", "bound", "target", "measured", "met", "note"}


def bench(capsys, *arguments):
    """(exit status, standard output, standard error)."""
    return (cli.main(["bench", *map(str, arguments)]), *capsys.readouterr())


def jobs(*arguments):
    """(kind, name) of what a command would measure."""
    args = cli._arguments(["bench", *arguments])
    names = [*command.BY_NAME, *command.TASKS, *command.TARGETS]
    return [(kind, [a for a in job.args if a in names][-1])
            for kind, job in command._jobs(args)]


def test_json_has_the_keys_that_the_readme_names_and_a_row_for_each_size(capsys):
    status, out, err = bench(capsys, "projections", "--only", "l0_ball 1%", *QUICK, "--json",
                             "--quiet", "--dtype", "float32")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert found.keys() == {"projections", "l_step", "targets", "exponents", "threads", "turns",
                            "dtype", "device", "versions", "machine", "date"}
    assert [row["n"] for row in found["projections"]] == [1000, 2000]
    for row in found["projections"]:
        assert row.keys() == TIMING and row["name"] == "l0_ball 1%" and row["dtype"] == "float32"
        assert row["seconds"] > 0 and all(peer.keys() == PEER for peer in row["peers"])
    assert (found["l_step"], found["targets"], found["threads"], found["turns"]) == ([], [], 1, 1)
    assert found["exponents"].keys() == {"l0_ball 1%"}


def test_the_table_is_printed_and_with_json_on_standard_error(capsys):
    arguments = ["projections", "--only", "l1_ball", *QUICK]
    _, out, _ = bench(capsys, *arguments)
    assert "projection" in out and out.count("l1_ball") == 3    # two sizes and the exponent
    assert "1 thread; on cpu; lcref 0.1.0, numpy" in out
    _, out, err = bench(capsys, *arguments, "--json")
    assert json.loads(out) and err.count("l1_ball") >= 3
    assert bench(capsys, *arguments, "--quiet")[1] == ""


def test_out_holds_the_json_the_tables_and_the_picture(capsys, tmp_path):
    out = tmp_path / "new" / "speed"
    status, printed, _ = bench(capsys, "projections", "--only", "binary", *QUICK, "--json",
                               "--quiet", "--out", out)
    assert status == 0 and {file.name for file in out.iterdir()} == {
        "bench.json", "bench.md", "times.png"}
    assert json.loads((out / "bench.json").read_text()) == json.loads(printed)
    tables = (out / "bench.md").read_text()
    assert "## Projections" in tables and "## Growth with n" in tables
    assert tables.count("| binary scale |") == 3
    found = json.loads(printed)
    for fact in (found["date"], found["machine"], f"numpy {found['versions']['numpy']}"):
        assert fact in tables.splitlines()[-1]
    assert (out / "times.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_by_default_all_projections_at_three_sizes_and_the_l_steps_are_measured():
    assert jobs() == [("projections", name) for name in BY_NAME for _ in range(3)] + [
        ("l_step", name) for name in ("lenet300", "lenet5", "resnet20")]


@pytest.mark.parametrize("arguments, expected", [
    (["--net", "lenet5"], [("l_step", "lenet5")]),
    (["lsteps", "--only", "lenet"], [("l_step", "lenet300"), ("l_step", "lenet5")]),
    (["projections", "lsteps", "--only", "RANK_B", "--only", "resnet", "--sizes", "2e3"],
     [("projections", "rank_ball r=8"), ("l_step", "resnet20")]),
    (["targets", "--only", "l1_ball, n"], [("targets", "l1_ball, n=1e7")])])
def test_groups_nets_and_texts_choose_the_rows(arguments, expected):
    assert jobs(*arguments) == expected


def test_sizes_are_in_order_and_once():
    assert cli._arguments(["bench", "--sizes", "1e5,100,1E2,7"]).sizes == (7, 100, 100_000)
    assert cli._arguments(["bench"]).sizes == (10**4, 10**5, 10**6)


def test_a_missed_target_is_shown_and_the_status_is_0(capsys, monkeypatch):
    def measure(name, threads, turns):
        return [Target(name, "one sort", "at most", 1.5, 2.5, False, "how"),
                Target(name, "a library", "at least", 8, None, None, "not installed")]
    monkeypatch.setitem(command.TARGETS, "l1_ball, n=1e7", measure)
    arguments = ["targets", "--only", "l1_ball, n"]
    status, out, _ = bench(capsys, *arguments)
    rows = [line.split("  ") for line in out.splitlines() if line.startswith("l1_ball")]
    assert status == 0 and "MISSED" in rows[0] and "not measured" in rows[1]
    found = json.loads(bench(capsys, *arguments, "--json", "--quiet")[1])["targets"]
    assert all(row.keys() == TARGET for row in found)
    assert [(row["measured"], row["met"]) for row in found] == [(2.5, False), (None, None)]


def test_peers_that_are_missing_are_named_with_the_remedy(capsys, monkeypatch):
    for module in ("kmeans1d", "ckwrap", "sklearn"):
        monkeypatch.setitem(sys.modules, module, None)
    _, out, _ = bench(capsys, "projections", "--only", "kmeans k=2", *QUICK)
    assert "not installed: ckwrap, kmeans1d, scikit-learn; pip install 'lcref[peers]'" in out
    assert out.count("kmeans1d.cluster not installed") == 2


def test_help_names_the_groups_the_sizes_and_the_files(capsys):
    status, out, _ = bench(capsys, "--help")
    said = " ".join(out.split())
    assert status == 0
    for text in ("projections, lsteps or targets", "1e4,1e5,1e6", "bench.json", "times.png",
                 "lcref bench projections --only kmeans"):
        assert text in said
