"""Sweeps: every cell once, whatever stops, kills or runs them, and to the same bits."""
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import sweep_cells
from distributed import LocalCluster
from threadpoolctl import threadpool_limits

import dask
from lcref import cli, experiment
from lcref.cells import key, reference_key, run_cell
from lcref.design import Design
from lcref.executors import Processes, opened
from lcref.folder import Folder
from lcref.sweep import AHEAD, _sweep, sweep

posix = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals are those of POSIX")
SHORT = {"reference-epochs": 1, "steps": 1, "epochs": 1, "hold-out": 0.1}
GRID = {"compress": "each(quantize(k={k})) + prune(keep=0.01)", "k": [2, 3, 4], "seed": [0, 1]}
SMALL = Design(SHORT, [GRID])
WRONG = {"compress": "lowrank(rank={rank})", "rank": [5, 11]}       # fc3 has 10 rows


class Serial(Executor):
    """Runs what it is given at once, but refuses after so many."""

    def __init__(self, last=10**9):
        self.left = last

    def submit(self, fn, /, *args, **kwargs):
        if not self.left:
            raise RuntimeError("no more")
        self.left -= 1
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def with_seeds(*seeds, **settings):
    return Design(settings, [{"seed": list(seeds)}])


def fake(design, out, executor, run=sweep_cells.cell, train=sweep_cells.reference, window=2,
         retry_failed=False, progress=False):
    """A sweep of cells that are not real."""
    return _sweep(design, out, executor, None, 1, retry_failed, progress, window, run, train)


def leave(out, cells, text='"result": {}'):
    """Let each cell have a file with its key and this."""
    for name in map(key, cells):
        file = Path(out, "cells", name[:2], f"{name}.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'{{"key": "{name}", {text}}}')


def results(out):
    """All results of a sweep, by key; each is in the file of its key, and there is no other."""
    files = sorted(Path(out, "cells").rglob("*"))
    found = {file.stem: json.loads(file.read_text()) for file in files if file.is_file()}
    assert all(file.name == f"{found[file.stem]['key']}.json" and file.parent.name
               == file.stem[:2] for file in files if file.is_file())
    return found


def without_seconds(tree):
    if isinstance(tree, dict):
        return {name: without_seconds(value) for name, value in tree.items() if name != "seconds"}
    return [without_seconds(each) for each in tree] if isinstance(tree, list) else tree


def written(design, tmp_path):
    """The file of a design."""
    file = tmp_path / "design.json"
    file.write_text(json.dumps(design.as_json()))
    return file


def command(file, out, *flags):
    return [sys.executable, "-m", "lcref", "sweep", str(file), "--out", str(out), *flags]


def lcref(*arguments):
    return subprocess.run([sys.executable, "-m", "lcref", *map(str, arguments)],
                          capture_output=True, text=True, timeout=120)


def finished(out):
    return [*Path(out, "cells").glob("*/*.json")]


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The results of the small design, run one after the other in this process, but for seconds."""
    out = tmp_path_factory.mktemp("serial")
    counts = sweep(SMALL, out, Serial(), progress=False)
    assert (counts.cells, counts.run, counts.before, counts.failed) == (6, 6, 0, 0)
    return without_seconds(results(out))


# ---- results


def test_the_results_have_the_keys_settings_and_axes_of_the_cells(serial):
    assert serial.keys() == {key(cell) for cell in SMALL} and len(serial) == 6
    for i, cell in enumerate(SMALL):
        found = serial[key(cell)]
        assert (found["settings"], found["axes"]) == (cell, SMALL.axes(i))
        assert found["kind"] == "quantize + prune"
        assert found["result"]["lc"].keys() == {"train_error", "test_error", "loss",
                                                "held_out_error"}


@pytest.mark.parametrize("number", [0, 5])
def test_a_result_is_that_of_lcref_compress_alone_bit_for_bit(serial, number):
    cell = SMALL[number]
    done = lcref("compress", "--quiet", "--json", *(f"--{n}={v}" for n, v in cell.items()))
    assert done.returncode == 0, done.stderr
    assert serial[key(cell)]["result"] == without_seconds(json.loads(done.stdout))


def test_processes_give_the_serial_results_and_a_second_run_runs_nothing(serial, tmp_path, capsys):
    file, out = written(SMALL, tmp_path), tmp_path / "out"
    done = lcref("sweep", file, "--out", out, "--workers", 2, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["cells"], found["run"], found["before"], found["failed"]) == (6, 6, 0, 0)
    assert without_seconds(results(out)) == serial
    before = {each: each.stat().st_mtime_ns for each in out.rglob("*/*") if each.is_file()}
    assert sweep(SMALL, out, Serial(last=0), progress=False).before == 6
    assert cli.main(["sweep", str(file), "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("6 cells: 0 run")
    assert {each: each.stat().st_mtime_ns for each in before} == before


def test_two_threads_of_one_process_run_one_cell_after_the_other(serial, tmp_path, monkeypatch):
    measure, at_a_time, now = experiment.measure, [], []

    def watched(args):
        now.append(args)
        at_a_time.append(len(now))
        try:
            return measure(args)
        finally:
            now.remove(args)
    monkeypatch.setattr(experiment, "measure", watched)
    with ThreadPoolExecutor(2) as threads:
        sweep(SMALL, tmp_path, threads, progress=False)
    assert without_seconds(results(tmp_path)) == serial
    assert at_a_time == [1] * 6


def test_a_cell_with_tasks_and_without_augmentation_runs(tmp_path):
    tasks = ["fc1.weight: prune(keep=0.1)", "fc3.weight: binary()"]
    assert not sweep(Design({**SHORT, "task": tasks, "augment": False, "lr": 0.01}), tmp_path,
                     Serial(), progress=False).failed
    (found,) = results(tmp_path).values()
    assert found["kind"] == "prune, binary" and found["axes"] == {}
    assert found["result"]["settings"]["task"] == tasks
    assert found["result"]["settings"]["augment"] is False


def test_the_folder_holds_the_design_and_the_versions(serial, tmp_path):
    fake(SMALL, tmp_path, Serial())
    found = json.loads((tmp_path / "design.json").read_text())
    assert Design(found["design"].pop("x", SHORT), found["design"]["grid"]) == SMALL
    assert {"lcref", "numpy"} <= found["versions"].keys()


# ---- threads of BLAS


def test_blas_has_one_thread_in_each_process_and_the_environment_is_as_before(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with Processes(2) as processes:
        found = [processes.submit(sweep_cells.blas_threads) for _ in range(2)]
        assert [{*each.result()} for each in found] == [{1}, {1}]
    assert os.environ["OPENBLAS_NUM_THREADS"] == "2" and "OMP_NUM_THREADS" not in os.environ


def test_blas_has_one_thread_while_any_executor_trains_a_reference_and_runs_a_cell(
        tmp_path, monkeypatch):
    prepare, found = experiment.prepare, []

    def watched(args):
        found.append(sweep_cells.blas_threads())
        return prepare(args)
    monkeypatch.setattr(experiment, "prepare", watched)
    sweep_cells.blas_threads()      # SciPy's is there too
    with threadpool_limits(2, user_api="blas"):
        if 2 not in sweep_cells.blas_threads():
            pytest.skip("this BLAS cannot be given two threads")
        assert not sweep(Design(SHORT), tmp_path, Serial(), progress=False).failed
        assert 2 in sweep_cells.blas_threads()
    assert [{*each} for each in found] == [{1}, {1}]


# ---- progress


class Terminal(io.StringIO):
    """Remembers what it was shown."""

    def isatty(self):
        return True


def test_a_terminal_shows_the_progress_and_the_time_left_of_the_cells_that_are_run(
        tmp_path, monkeypatch):
    design = with_seeds(*range(1020))
    leave(tmp_path, (design[i] for i in range(1000)))
    monkeypatch.setattr(sys, "stderr", Terminal())
    fake(design, tmp_path, Serial(), run=sweep_cells.slow, window=1, progress=True)
    shown = re.findall(r"(\d+)/1020 \[\d\d:\d\d<(\S+), +(\S+?)(cell/s|s/cell)",
                       sys.stderr.getvalue())
    assert len(shown) >= 15 and shown[-1][0] == "1020"      # one for each cell, by and large
    seconds = {int(n): 1 / float(rate) if unit == "cell/s" else float(rate)
               for n, _, rate, unit in shown if rate != "?"}
    assert min(seconds.values()) >= 0.099       # three digits of what each takes at least
    left = {int(n): int(time[-2:]) for n, time, *_ in shown if "?" not in time}
    assert max(left.values()) >= 1 and all(left[n] >= int(0.099 * (1020 - n)) for n in left)


def test_where_there_is_no_terminal_a_line_now_and_then_says_the_same(
        tmp_path, monkeypatch, capsys):
    fake(with_seeds(*range(5)), tmp_path / "one", Serial(), progress=True)
    assert capsys.readouterr() == ("", "")      # it took less than a minute
    monkeypatch.setattr("lcref.sweep.EVERY", 0.25)
    seconds = fake(with_seeds(*range(10)), tmp_path / "two", Serial(), run=sweep_cells.slow,
                   progress=True).seconds
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and 2 <= len(lines) <= seconds / 0.25, err     # it took a second at least
    assert all(re.fullmatch(r"lcref sweep: \d+ of 10 cells, 00:\d\d gone, 00:\d\d left", line)
               for line in lines), err


# ---- cells that fail


def test_a_cell_that_fails_is_recorded_and_the_others_finish(tmp_path):
    out = tmp_path / "out"
    file = written(Design(SHORT, [WRONG]), tmp_path)
    done = lcref("sweep", file, "--out", out, "--workers", 1)
    assert done.returncode == 1
    assert done.stdout.startswith("2 cells: 2 run") and "1 failed" in done.stdout
    assert re.search("1 of 2 cells failed.*rank=11 is more than the smaller side", done.stderr)
    by_rank = {found["axes"]["rank"]: found for found in results(out).values()}
    assert "error" not in by_rank[5] and "result" not in by_rank[11]
    assert by_rank[11]["error"].startswith("ValueError: rank=11 is more than")
    assert by_rank[11]["traceback"].startswith("Traceback (most recent call last)")
    assert by_rank[11]["kind"] == "lowrank"
    again = lcref("sweep", file, "--out", out)
    assert (again.returncode, again.stdout.split(";")[0].split(" in ")[0]) == (1, "2 cells: 0 run")


def test_failed_cells_are_run_again_once_where_that_is_asked_for(tmp_path):
    design = with_seeds(0, 1, 0, 1)
    fake(design, tmp_path, Serial(), train=sweep_cells.failing_reference)
    assert fake(design, tmp_path, Serial()).run == 0
    counts = fake(design, tmp_path, Serial(), train=sweep_cells.failing_reference,
                  retry_failed=True)
    assert (counts.run, counts.before) == (2, 2)
    counts = fake(design, tmp_path, Serial(), retry_failed=True)
    assert (counts.run, counts.failed) == (2, 0)
    assert fake(design, tmp_path, Serial(), retry_failed=True).run == 0
    assert sweep_cells.calls(tmp_path) == ["reference 0", "reference 1"] * 3 + ["cell 0", "cell 1"]


DAMAGES = {"cut off": lambda text: text[:40], "deep": lambda _: "[" * 10**5,
           "a list": lambda _: "[{}]",
           "no result": lambda text: text.replace('"result"', '"other"'),
           "another's": lambda text: text.replace('"key": "', '"key": "0')}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_result_that_is_damaged_is_made_again(how, tmp_path, capsys):
    fake(with_seeds(0, 1), tmp_path, Serial())
    file = finished(tmp_path)[0]
    whole = file.read_text()
    file.write_text(DAMAGES[how](whole))
    assert cli.main(["sweep", str(written(with_seeds(0, 1), tmp_path)), "--out", str(tmp_path),
                     "--list"]) == 0
    assert capsys.readouterr().out.startswith("2 cells, 1 finished, 0 failed, 1 left\n")
    assert fake(with_seeds(0, 1), tmp_path, Serial()).run == 1
    assert file.read_text() == whole


@pytest.mark.parametrize("text", ["[" * 10**5, '{"versions": [1]}', '{"versions": 3}', "[]", ""])
def test_a_note_of_the_design_that_is_damaged_is_written_anew(text, tmp_path):
    (tmp_path / "design.json").write_text(text)
    fake(with_seeds(0), tmp_path, Serial())
    assert json.loads((tmp_path / "design.json").read_text())["design"]["grid"] == [{"seed": [0]}]


@pytest.mark.parametrize("change, error", [
    ({"design": {}}, "design must be a Design"), ({"design": None}, "design must be a Design"),
    ({"out": None}, "out must be a path"), ({"out": 3}, "out must be a path"),
    ({"threads": 0}, "threads must be an integer, at least 1"),
    ({"workers": -1}, "workers must be an integer, at least 1"),
    ({"workers": 1.5}, "workers must be an integer"), ({"workers": 0}, "workers must be an int"),
    ({"executor": 3}, "executor must be one of concurrent.futures' kind")])
def test_a_wrong_argument_of_a_sweep_is_named_before_anything_is_run(change, error, tmp_path):
    given = {"design": with_seeds(0), "out": tmp_path / "out", "progress": False} | change
    with pytest.raises((TypeError, ValueError), match=f"^{error}"):
        sweep(given.pop("design"), given.pop("out"), **given)
    assert not (tmp_path / "out").exists()


def test_a_cell_that_comes_twice_is_run_once(tmp_path):
    counts = fake(with_seeds(0, 1, 1, 0, 0), tmp_path, Serial(), window=3)
    assert (counts.cells, counts.run, counts.before) == (5, 2, 3)
    assert sorted(call for call in sweep_cells.calls(tmp_path) if call.startswith("cell")) == [
        "cell 0", "cell 1"]


def test_the_first_cell_is_looked_at_before_any_is_run(tmp_path, capsys):
    file, out = written(Design({"net": "lenet"}), tmp_path), tmp_path / "out"
    assert cli.main(["sweep", str(file), "--out", str(out)]) == 2
    assert "design.json: the first cell: unknown net 'lenet'" in capsys.readouterr().err
    assert [*out.iterdir()] == []


# ---- reference nets


def test_a_reference_is_trained_once_before_its_cells(tmp_path):
    design = Design({}, [{"steps": [1, 2, 3], "seed": [0, 1]}])
    fake(design, tmp_path, Serial(), window=4)
    calls = sweep_cells.calls(tmp_path)
    assert sorted(calls) == ["cell 0"] * 3 + ["cell 1"] * 3 + ["reference 0", "reference 1"]
    assert calls.index("reference 0") < calls.index("cell 0")
    assert calls.index("reference 1") < calls.index("cell 1")
    assert {file.stem for file in tmp_path.glob("references/*")} == {
        reference_key(cell) for cell in design}
    fake(Design({}, [{"steps": [4], "seed": [0, 1]}]), tmp_path, Serial())
    assert sweep_cells.calls(tmp_path)[8:] == ["cell 0", "cell 1"]


def test_references_are_trained_at_the_same_time(tmp_path):
    with Processes(2) as processes:
        assert fake(Design({}, [{"seed": [0, 1], "steps": [1, 2, 3]}]), tmp_path, processes,
                    train=sweep_cells.meeting_reference).run == 6


def test_cells_run_while_the_reference_of_others_is_in_training(tmp_path):
    with Processes(2) as processes:
        assert fake(Design({}, [{"steps": [1, 2], "seed": [1, 0]}]), tmp_path, processes,
                    train=sweep_cells.long_reference).run == 4
    assert sweep_cells.calls(tmp_path)[:2] == ["reference 0", "cell 0"]


def test_cells_whose_reference_fails_fail_by_its_error_and_it_is_tried_once(tmp_path):
    design = Design({}, [{"steps": [1, 2], "seed": [0, 1]}])
    counts = fake(design, tmp_path, Serial(), train=sweep_cells.failing_reference, window=1)
    assert (counts.run, counts.failed, counts.error) == (4, 4, "ValueError: no such net")
    assert sweep_cells.calls(tmp_path) == ["reference 0", "reference 1"]
    assert {found["traceback"] for found in results(tmp_path).values()} == {"the traceback"}


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    found = run_cell({}, tmp_path / "references")
    assert "all workers see" in found["error"] and "Traceback" in found["traceback"]


# ---- workers and drivers that are lost


@posix
def test_a_cell_whose_worker_was_lost_is_run_again_and_no_other(tmp_path):
    with Processes(2) as processes:
        counts = fake(with_seeds(0, 1, 2, 3, 4), tmp_path, processes, run=sweep_cells.dies_once)
    assert (counts.run, counts.failed, len(results(tmp_path))) == (5, 0, 5)
    cells = [call for call in sweep_cells.calls(tmp_path) if call.startswith("cell")]
    assert sorted(cells) == ["cell 0", "cell 1", "cell 1", "cell 2", "cell 3", "cell 3", "cell 4"]


@posix
def test_a_cell_that_always_loses_its_worker_fails_and_no_other(tmp_path):
    with Processes(2) as processes:
        counts = fake(with_seeds(*range(6)), tmp_path, processes, run=sweep_cells.seed_3_kills)
    assert (counts.run, counts.failed) == (6, 1)
    failed = {found["settings"]["seed"]: found["error"] for found in results(tmp_path).values()
              if "error" in found}
    assert failed.keys() == {3} and failed[3].startswith("its worker was lost 4 times: Broken")
    calls = sweep_cells.calls(tmp_path)
    assert [calls.count(f"cell {seed}") for seed in range(6)] == [1, 1, 1, 4, 1, 1]
    assert calls[-3:] == ["cell 3"] * 3     # at the end, alone


@posix
def test_the_training_of_a_reference_whose_worker_was_lost_is_run_again(tmp_path):
    with Processes(2) as processes:
        counts = fake(with_seeds(0, 1), tmp_path, processes, train=sweep_cells.dying_reference)
    assert (counts.run, counts.failed) == (2, 0)


@posix
def test_an_executor_that_breaks_ends_the_sweep_and_results_are_kept(tmp_path):
    design = with_seeds(*range(6))
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        with pytest.raises(OSError, match="takes no more: BrokenProcessPool.*run it again"):
            fake(design, tmp_path, pool, run=sweep_cells.seed_3_kills)
    kept = len(results(tmp_path))
    assert kept >= 1
    assert fake(design, tmp_path, Serial()).run == 6 - kept


def test_an_executor_that_refuses_ends_the_sweep_and_results_are_kept(tmp_path):
    with pytest.raises(OSError, match="RuntimeError: no more; the 2 results of this sweep"):
        fake(with_seeds(0, 1, 2), tmp_path, Serial(last=5), window=1)
    assert fake(with_seeds(0, 1, 2), tmp_path, Serial()).before == 2


def start(file, out, *flags):
    """A sweep in a process of its own that has written a result; with the ids of its workers."""
    process = subprocess.Popen(command(file, out, *flags), stderr=subprocess.PIPE, text=True)
    sweep_cells.until(lambda: finished(out) or process.poll() is not None)
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    pairs = [map(int, line.split()) for line in table.stdout.splitlines()]
    return process, [pid for pid, parent in pairs if parent == process.pid]


def is_there(pid):
    """Whether there is a process of this id that has not ended."""
    state = subprocess.run(["ps", "-p", str(pid), "-o", "stat="], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


@posix
def test_a_sweep_that_is_killed_goes_on_and_leaves_no_process(serial, tmp_path):
    file, out = written(SMALL, tmp_path), tmp_path / "out"
    process, workers = start(file, out, "--workers", "2")
    process.kill()
    process.communicate(timeout=30)     # its workers have its standard error too
    before = {each: each.stat().st_mtime_ns for each in finished(out)}
    assert 0 < len(before) < 6 and len(workers) >= 2
    sweep_cells.until(lambda: not any(map(is_there, workers)))
    done = lcref("sweep", file, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["before"] == len(before)
    assert without_seconds(results(out)) == serial
    assert {each: each.stat().st_mtime_ns for each in before} == before


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_sweep_and_the_command_it_prints_goes_on(serial, tmp_path, number):
    file, out = written(SMALL, tmp_path), tmp_path / "out"
    process, workers = start(file, out, "--workers", "2", "--threads", "1")
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number, said
    assert len(workers) >= 2 and len(finished(out)) < 6
    sweep_cells.until(lambda: not any(map(is_there, workers)))
    line = said.splitlines()[-1]
    assert line.startswith(f"lcref sweep: stopped by {number.name}; to go on: lcref sweep "), said
    done = lcref(*shlex.split(line.partition("to go on: lcref ")[2]))
    assert done.returncode == 0, done.stderr
    assert without_seconds(results(out)) == serial


def test_two_sweeps_do_not_share_a_folder(tmp_path, capsys):
    with Folder(tmp_path / "out"):
        assert cli.main(["sweep", str(written(with_seeds(0), tmp_path)), "--out",
                         str(tmp_path / "out")]) == 2
    assert "another process is at work" in capsys.readouterr().err


def test_a_folder_of_another_version_is_refused(tmp_path):
    fake(with_seeds(0), tmp_path, Serial())
    note = json.loads((tmp_path / "design.json").read_text())
    note["versions"]["lcref"] = "0.0.1"
    (tmp_path / "design.json").write_text(json.dumps(note))
    with pytest.raises(ValueError, match="results of lcref 0.0.1"):
        fake(with_seeds(0), tmp_path, Serial())


# ---- large designs


class Counted(Design):
    """A design that counts how many of its cells were looked at."""

    def __iter__(self):
        for number, cell in enumerate(super().__iter__()):
            object.__setattr__(self, "looked", number + 1)
            yield cell


def test_few_cells_are_taken_ahead_where_all_wait_for_one_reference(tmp_path):
    design = Counted({"seed": 0}, [{"steps": [*range(1, 1001)], "epochs": [*range(1000)]}])
    with pytest.raises(OSError):
        fake(design, tmp_path, Serial(last=5), window=3)
    assert AHEAD <= design.looked <= AHEAD + 10


class Watched(ThreadPoolExecutor):
    """Knows the most that was submitted and not done at any time."""

    def __init__(self):
        super().__init__(1)
        self.given, self.most = [], 0

    def submit(self, fn, /, *args, **kwargs):
        self.given.append(super().submit(fn, *args, **kwargs))
        self.most = max(self.most, sum(not future.done() for future in self.given))
        return self.given[-1]


def test_few_cells_are_submitted_at_a_time(tmp_path):
    with Watched() as executor:
        fake(with_seeds(*range(30)), tmp_path, executor, window=3)
    assert len(executor.given) == 60 and executor.most <= 3


@pytest.mark.parametrize("side", [10**3, 10**6], ids=["a million", "a million millions"])
def test_a_large_design_goes_on_in_seconds_and_in_constant_memory(tmp_path, side):
    design = Design({}, (), [{"samples": side**2, "seed": {"from": 0, "to": 10**15}}])
    leave(tmp_path, (design[i] for i in range(3000) if i not in (100, 200)))

    def peak(last):
        tracemalloc.start()
        with pytest.raises(OSError):
            fake(design, tmp_path, Serial(last), window=1)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found
    begin = time.perf_counter()
    few, many = peak(1), peak(5)        # looks at 100 cells, at 3,000
    assert many < few + 1e5             # 3,000 keys alone would be 240 KB
    assert time.perf_counter() - begin < 10
    assert {100, 200} <= {i for i in range(201) if (
        tmp_path / "cells" / key(design[i])[:2] / f"{key(design[i])}.json").exists()}


class Together(Executor):
    """Ends what it is given when there are eight, at once."""

    def __init__(self):
        self.given = []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.given.append((future, fn, args))
        if len(self.given) == 8:
            for each, work, arguments in self.given:
                each.set_result(work(*arguments))
            self.given = []
        return future


def test_results_that_come_at_once_are_taken_in_the_order_of_the_design(tmp_path):
    fake(with_seeds(*range(8)), tmp_path, Together(), window=8)
    assert sweep_cells.calls(tmp_path) == [f"{what} {seed}" for what in ("reference", "cell")
                                           for seed in range(8)]


def test_a_list_counts_what_is_finished_failed_and_left(tmp_path, capsys):
    out, file = tmp_path / "out", written(with_seeds(0, 1, 2, 2, 3), tmp_path)
    fake(with_seeds(0, 7), out, Serial())       # 7 is of another design
    fake(with_seeds(1), out, Serial(), train=sweep_cells.failing_reference)
    assert cli.main(["sweep", str(file), "--out", str(out), "--list"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "5 cells, 1 finished, 1 failed, 2 left"
    assert said[1] == f"{key({'seed': 0})[:8]}  --seed=0" and len(said) == 6


def test_a_list_of_a_large_design_counts_the_results_that_are_there(tmp_path, capsys):
    design = Design({}, (), [{"samples": 10**6, "seed": {"from": 0, "to": 10**15}}])
    out, file = tmp_path / "out", written(design, tmp_path)
    leave(out, (design[i] for i in range(0, 100, 2)))
    leave(out, (design[i] for i in range(1, 20, 2)), '"error": "E: no", "traceback": ""')
    one = finished(out)[0]
    shutil.copy(one, one.with_name(f".{one.name}"))     # of a sweep that was killed as it wrote
    assert cli.main(["sweep", str(file), "--out", str(out), "--list", "--quiet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [found[name] for name in ("cells", "finished", "failed", "left")] == [
        10**6, 50, 10, 10**6 - 60]


# ---- other executors


@pytest.mark.parametrize("flags, message", [
    (["--executor", "threads"], "takes processes, dask://HOST:PORT or mpi"),
    (["--executor", "mpi"], "two processes at least: mpiexec -n 3"),
    (["--executor", "mpi", "--workers", "2"], "--workers 2: the workers of mpi"),
    (["--workers", "0"], "from 1 to 1024")])
def test_a_wrong_executor_is_refused(tmp_path, capsys, flags, message):
    file = written(with_seeds(0), tmp_path)
    assert cli.main(["sweep", str(file), "--out", str(tmp_path / "out"), *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("where, extra", [("dask://127.0.0.1:1", "dask"), ("mpi", "mpi")])
def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, where, extra):
    blocked = tmp_path / "blocked"
    for name in ("distributed", "mpi4py"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(blocked), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command(written(with_seeds(0), tmp_path), tmp_path / "out", "--executor",
                                  where), capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 2 and f"pip install 'lcref[{extra}]'" in done.stderr


@pytest.fixture
def cluster():
    """A dask cluster of two workers, each a process of one thread, which dies with its task."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        with LocalCluster(n_workers=2, threads_per_worker=1, processes=True,
                          dashboard_address=":0") as cluster:
            yield cluster


@posix
def test_dask_with_a_worker_killed_half_way_gives_the_serial_results(serial, tmp_path, cluster):
    out, address = tmp_path / "out", cluster.scheduler_address.removeprefix("tcp://")
    process, _ = start(written(SMALL, tmp_path), out, "--executor", f"dask://{address}")
    assert 0 < len(finished(out)) < 6
    os.kill(cluster.workers[0].pid, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert without_seconds(results(out)) == serial


@posix
def test_dask_fails_the_cell_that_always_kills_its_worker_and_no_other(tmp_path, cluster):
    with opened(cluster.scheduler_address.replace("tcp", "dask")) as (executor, workers):
        counts = fake(with_seeds(*range(6)), tmp_path, executor, run=sweep_cells.seed_3_kills,
                      window=4)
    assert workers == 2
    assert (counts.run, counts.failed) == (6, 1)
    failed = {found["settings"]["seed"]: found["error"] for found in results(tmp_path).values()
              if "error" in found}
    assert failed.keys() == {3} and "its worker was lost 4 times: KilledWorker" in failed[3]
    assert sweep_cells.calls(tmp_path).count("cell 3") == 4 * 2     # dask tries it twice each time


MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent),
                                                        os.environ["PATH"]]))


def under_mpi(ranks, file, out, how=("-m",)):
    return [MPIEXEC, "-n", str(ranks), sys.executable, *how, *command(file, out, "--executor",
                                                                      "mpi")[2:]]


@pytest.mark.parametrize("ranks, how", [
    (2, ["-m"]), (3, ["-m"]), (3, ["-m", "mpi4py.futures", "-m"])],
    ids=["2 ranks", "3 ranks", "mpi4py.futures"])
def test_ranks_of_mpi_give_the_serial_results(serial, tmp_path, ranks, how):
    file, out = written(SMALL, tmp_path), tmp_path / "out"
    done = subprocess.run(under_mpi(ranks, file, out, how), capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 cells: 6 run")
    assert without_seconds(results(out)) == serial


@posix
def test_a_signal_stops_a_sweep_under_mpi_at_once_and_says_how_to_go_on(serial, tmp_path):
    file, out = written(SMALL, tmp_path), tmp_path / "out"
    process = subprocess.Popen(under_mpi(2, file, out), stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    sweep_cells.until(lambda: finished(out) or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM and len(finished(out)) < 6, said
    assert "lcref sweep: stopped by SIGTERM; to go on: mpiexec -n N lcref sweep " in said
    done = subprocess.run(under_mpi(2, file, out), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert without_seconds(results(out)) == serial


@posix
def test_a_rank_of_mpi_that_is_killed_ends_the_sweep_and_the_same_command_goes_on(serial, tmp_path):
    file, out = written(SMALL, tmp_path), tmp_path / "out"
    process = subprocess.Popen(under_mpi(3, file, out), stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    sweep_cells.until(lambda: finished(out) or process.poll() is not None)
    table = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True)
    ranks = [int(line.split()[0]) for line in table.stdout.splitlines()
             if line.split()[1:3] == [sys.executable, "-m"] and str(out) in line]
    assert len(ranks) == 3
    os.kill(ranks[-1], signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0, said
    before = len(finished(out))
    assert 0 < before < 6
    done = subprocess.run(under_mpi(3, file, out), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"6 cells: {6 - before} run")
    assert without_seconds(results(out)) == serial
