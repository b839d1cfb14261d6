"""Runs that are stopped, killed or out of disk, and go on to the bits of the unbroken run."""
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest
import sweep_results
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lcref import cli, lc, nets, resume, storage
from lcref.compressions import Task
from lcref.folder import Folder, sha256, write_whole
from lcref.lsteps import LBFGS, SGD, LeastSquares
from lcref.text import parse
from lcref.tree import take_apart

SHORT = ["--reference-epochs", "2", "--steps", "2", "--epochs", "2", "--batch", "200"]
OFTEN = ["--checkpoint-minutes", "0"]       # after every batch
posix = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals are those of POSIX")


@pytest.fixture
def few_images(small_cifar):
    """The flags for a CIFAR-10 of 30 images and 6 for the test."""
    return ["--data", "cifar10", "--data-dir", str(small_cifar), "--batch", "8", "--lr", "1e-3"]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Runs in this process leave out the pictures, which take longer than all else."""
    for name in ("path_figure", "parts_figure", "layer_figure"):
        monkeypatch.setattr(f"lcref.plots.{name}", lambda *_: None)


def run(verb, *flags):
    return cli.main([verb, "--quiet", *map(str, flags)])


def command(verb, *flags):
    return [sys.executable, "-m", "lcref", verb, "--quiet", *map(str, flags)]


def lcref(verb, *flags, **options):
    return subprocess.run(command(verb, *flags), capture_output=True, text=True, timeout=120,
                          **options)


def arrays(file):
    with np.load(file, allow_pickle=False) as archive:
        return {name: (archive[name].dtype, archive[name].shape, archive[name].tobytes())
                for name in archive.files}


def without_seconds(tree):
    if isinstance(tree, dict):
        return {key: without_seconds(value) for key, value in tree.items() if key != "seconds"}
    return [without_seconds(each) for each in tree] if isinstance(tree, list) else tree


def same_result(one, other):
    """The same files, weights and history but for seconds; and none is left of checkpoints."""
    assert sorted(os.listdir(one)) == sorted(os.listdir(other))
    assert not any("checkpoint" in name or name.startswith(".") for name in os.listdir(other))
    for name in os.listdir(one):
        if name.endswith(".npz"):
            assert arrays(one / name) == arrays(other / name), name
    histories = [json.loads((out / "history.json").read_text()) for out in (one, other)]
    histories[1].get("weights") and histories[1].update(weights=histories[0]["weights"])
    assert without_seconds(histories[0]) == without_seconds(histories[1])


def checkpoints(out):
    return sorted(name for name in os.listdir(out) if name.startswith("checkpoint"))


@pytest.fixture
def stop_after(monkeypatch):
    """stop_after(n, number): let a signal come in the n-th batch from now on; None for none."""
    pause = resume.Record.pause

    def set_up(n, number=signal.SIGTERM):
        def counted(self, make):
            nonlocal n
            n -= 1
            if n == 0:
                signal.raise_signal(number)
            pause(self, make)
        monkeypatch.setattr(resume.Record, "pause", counted if n else pause)
    return set_up


def in_pieces(verb, out, flags, stops, stop_after):
    """Run a command that a signal stops so many batches after each start; all statuses."""
    statuses = []
    for n in [*stops, None]:
        stop_after(n)
        statuses.append(run(verb, *(["--resume", out] if statuses else ["--out", out, *flags])))
        if statuses[-1] == 0:
            break
    return statuses


# ----- the same bits -----------------------------------------------------------------------------

COMPRESSIONS = [
    "each(quantize(k=2)) + prune(keep=0.01)", "lowrank(rank=3) + prune(keep=0.02)",
    "sum(quantize(k=3), prune(keep=0.02), solver='alternate')", "ternary(scale=True)",
    "each(prune(alpha=1e-6))", "round(dtype='int4')",
    "each(lowrank(alpha=1e-7, storage='float16'))"]


@pytest.mark.parametrize("text", COMPRESSIONS)
def test_compression_goes_on_to_the_same_bits_from_random_batches(text, tmp_path, stop_after):
    flags = [*SHORT, "--compress", text]
    assert run("compress", "--out", tmp_path / "whole", *flags) == 0
    rng = random.Random(text)
    stops = [rng.randint(1, 20) for _ in range(4)]      # 16 batches of the reference, 32 of LC
    statuses = in_pieces("compress", tmp_path / "out", flags, stops, stop_after)
    assert statuses[-1] == 0 and set(statuses[:-1]) == {143} and len(statuses) > 2
    same_result(tmp_path / "whole", tmp_path / "out")


@pytest.mark.parametrize("flags", [
    ["--penalty", "quadratic"], ["--threads", "2", "--first-epochs", "1", "--epoch-decay", "0.9"],
    ["--task", "fc1.weight: binary(scale=True)", "--task", "fc3.weight: prune(kappa=50)",
     "--weight-decay", "0.01", "--activation", "tanh"], ["--reference-epochs", "0"]])
def test_the_flags_of_compression_go_on_too(flags, tmp_path, stop_after):
    assert run("compress", "--out", tmp_path / "whole", *SHORT, *flags) == 0
    stops = [random.Random(str(flags)).randint(1, 14) for _ in range(3)]
    assert in_pieces("compress", tmp_path / "out", [*SHORT, *flags], stops, stop_after)[0] == 143
    same_result(tmp_path / "whole", tmp_path / "out")


LARGE = [pytest.param(net, marks=pytest.mark.long)     # seconds to minutes each
         for net in ("resnet32", "resnet44", "resnet56", "resnet110", "vgg16")]


@pytest.mark.parametrize("net", ["linear", "lenet300", "lenet5", "nin", "resnet20", *LARGE])
def test_every_net_goes_on_to_the_same_bits(net, tmp_path, stop_after, few_images):
    flags = ["--net", net, *few_images, "--reference-epochs", "1", "--steps", "2", "--epochs", "1",
             "--compress", "binary(scale=True)"]
    assert run("compress", "--out", tmp_path / "whole", *flags) == 0
    statuses = in_pieces("compress", tmp_path / "out", flags, [2, 4, 3], stop_after)
    assert statuses == [143, 143, 143, 0]
    same_result(tmp_path / "whole", tmp_path / "out")


@pytest.mark.parametrize("net", ["linear", "lenet300", "lenet5", "nin", "resnet20", *LARGE])
def test_training_of_every_net_goes_on_to_the_same_bits(net, tmp_path, stop_after, few_images):
    flags = ["--net", net, "--epochs", "4", "--milestones", "1,3"]
    flags += ["--batch", "300"] if net in ("linear", "lenet300") else few_images
    assert run("train", "--out", tmp_path / "whole", *flags) == 0
    statuses = in_pieces("train", tmp_path / "out", flags, [1, 5, 4], stop_after)
    assert statuses == [143, 143, 143, 0]
    same_result(tmp_path / "whole", tmp_path / "out")


def test_training_by_lbfgs_starts_its_search_anew_and_ends_at_the_same_bits(tmp_path, stop_after):
    flags = ["--net", "linear", "--optimizer", "lbfgs", "--epochs", "8"]
    assert run("train", "--out", tmp_path / "whole", *flags) == 0
    assert in_pieces("train", tmp_path / "out", flags, [3, 7], stop_after) == [143, 143, 0]
    same_result(tmp_path / "whole", tmp_path / "out")


def test_a_run_that_goes_on_does_not_repeat_what_was_done(tmp_path, stop_after, monkeypatch):
    move, moved = resume.Record.pause, []
    stop_after(30)
    assert run("compress", "--out", tmp_path / "out", *SHORT) == 143
    monkeypatch.setattr(resume.Record, "pause", lambda self, make: (moved.append(0),
                                                                    move(self, make)))
    assert run("compress", "--resume", tmp_path / "out") == 0
    assert len(moved) == 3 * 2 * 8 - 30


def test_a_run_without_a_checkpoint_starts_over(tmp_path):
    assert run("compress", "--out", tmp_path / "whole", *SHORT) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    for name in set(os.listdir(tmp_path / "out")) - {"settings.json"}:
        os.remove(tmp_path / "out" / name)
    (tmp_path / "out" / "settings.json").write_text(json.dumps(settings | {"ended": None}))
    assert run("compress", "--resume", tmp_path / "out") == 0
    same_result(tmp_path / "whole", tmp_path / "out")


def test_the_last_step_is_not_run_again_where_only_the_files_could_not_be_written(tmp_path):
    out = tmp_path / "out"
    assert run("compress", "--out", tmp_path / "whole", *SHORT) == 0
    (out / "history.json").mkdir(parents=True)      # a file cannot take its place
    assert run("compress", "--out", out, *SHORT) == 2
    assert len(checkpoints(out)) == 2
    (out / "history.json").rmdir()
    assert run("compress", "--resume", out) == 0
    same_result(tmp_path / "whole", out)


@pytest.mark.parametrize("verb, flags", [("compress", SHORT), ("train", ["--epochs", "2"])])
def test_the_result_is_on_the_disk_before_the_checkpoints_go(verb, flags, tmp_path, monkeypatch):
    out, sync, end, synced, missing = tmp_path / "out", os.fsync, resume.Record.end, set(), []

    def seen(descriptor):
        found = os.fstat(descriptor)
        synced.add((found.st_ino, 0 if stat.S_ISDIR(found.st_mode) else found.st_mtime_ns))
        sync(descriptor)

    def ends(self, how):
        files = {file: file.stat() for file in out.iterdir() if file.name != ".lock"}
        missing.extend(file.name for file, found in files.items()
                       if (found.st_ino, found.st_mtime_ns) not in synced)
        assert len(files) >= 5 and (out.stat().st_ino, 0) in synced and checkpoints(out)
        end(self, how)
    monkeypatch.setattr(os, "fsync", seen)
    monkeypatch.setattr(resume.Record, "end", ends)
    assert run(verb, "--out", out, *flags) == 0
    assert missing == []


def test_without_out_nothing_is_written_and_signals_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, seen = signal.getsignal(signal.SIGTERM), []
    monkeypatch.setattr(resume.Record, "pause",
                        lambda self, make: seen.append(signal.getsignal(signal.SIGTERM)))
    assert run("compress", *SHORT) == 0
    assert set(seen) == {before} and os.listdir(tmp_path) == []


def test_a_run_may_go_on_from_another_folder_with_paths_that_were_relative(tmp_path, monkeypatch,
                                                                           stop_after):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run("train", "--epochs", "1", "--out", "ref") == 0
    flags = [*SHORT, "--reference", "ref/weights.npz"]
    stop_after(3)
    assert run("compress", "--out", "out", *flags) == 143
    stop_after(None)
    assert run("compress", "--out", "whole", *flags) == 0
    monkeypatch.chdir(tmp_path)
    assert run("compress", "--resume", "here/out") == 0
    assert arrays("here/out/model.npz") == arrays("here/whole/model.npz")


# ----- from Python -------------------------------------------------------------------------------

RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 3))
START = {"weight": RNG.normal(size=(3, 6)), "bias": np.zeros(3)}


def squares(params, x, y):
    residual = x @ params["weight"].T + params["bias"] - y
    return 0.5 * float((residual ** 2).sum()) / len(x), {"weight": residual.T @ x / len(x),
                                                         "bias": residual.mean(axis=0)}


class Killed(BaseException):
    pass


L_STEPS = {
    "SGD": lambda pause: SGD(squares, X, Y, lr=0.05, batch=9, epochs=2, pause=pause),
    "L-BFGS": lambda pause: LBFGS(squares, X, Y, batch=20, max_iterations=3, pause=pause),
    "least squares": lambda pause: LeastSquares(X, Y)}


@pytest.mark.parametrize("text", ["quantize(k=2)", "quantize(k=2) + prune(kappa=2)"])
@pytest.mark.parametrize("kind", L_STEPS)
def test_from_every_checkpoint_each_l_step_goes_on_to_the_same_bits(kind, text, tmp_path):
    tasks, schedule = [Task(["weight"], parse(text))], lc.Schedule(0.1, 1.5, 3)
    make, kept = L_STEPS[kind], []

    def whole(record, params=START):
        return resume.compress(record, params, tasks, make(record.pause), schedule,
                               lambda p: {"loss": squares(p, X, Y)[0]})
    expected = lc.compress(START, tasks, make(None), schedule,
                           lambda p: {"loss": squares(p, X, Y)[0]})
    with resume.Folder(tmp_path / "a") as folder:
        record, write = resume.Record(folder, {"command": "x"}, 0.0), folder.write
        folder.write = lambda *a: kept.append(shutil.copy(write(*a), tmp_path / f"{len(kept)}.npz"))
        result = whole(record)
    # after each of 3 steps; with SGD also after each of 2 · 5 batches, L-BFGS after more
    assert len(kept) == {"SGD": 33, "least squares": 3}.get(kind, len(kept)) >= 3
    assert kind != "L-BFGS" or len(kept) > 3 + 3 * 2 * 2
    found = [result]
    for i, file in enumerate(kept):
        with resume.Folder(tmp_path / f"b{i}") as folder:
            folder.begin({"command": "x"})
            shutil.copy(file, folder.path / "checkpoint-000001.npz")
            found.append(whole(resume.Record(folder, {"command": "x"}, 1e9, resume=True)))
    for result in found:
        for name in START:
            assert result.params[name].tobytes() == expected.params[name].tobytes()
            assert result.last.params[name].tobytes() == expected.last.params[name].tobytes()
        assert result.last.lam["weight"].tobytes() == expected.last.lam["weight"].tobytes()
        assert without_seconds(result.history) == without_seconds(expected.history)
        assert result.direct["weight"].tobytes() == expected.direct["weight"].tobytes()


def test_alexnet_goes_on_to_the_same_bits_dropout_included(tmp_path):
    net, rng = nets.build("alexnet", (3, 67, 67), 5), np.random.default_rng(0)
    x, labels = rng.normal(size=(6, 3, 67, 67)).astype(np.float32), np.arange(6) % 5
    start = net.init(rng)
    tasks, schedule = [Task(["fc8.weight"], parse("binary(scale=True)"))], lc.Schedule(0.1, 1.5, 1)

    def whole(record, stop=None):
        def pause(make):
            if record.now.setdefault("batches", 0) == stop:
                record.write(params=make()[0], state=make()[1])
                raise Killed
            record.now["batches"] += 1
        l_step = SGD(nets.value_and_grad(net), x, labels, lr=1e-3, batch=2, epochs=2, draws=True,
                     pause=pause)
        return resume.compress(record, start, tasks, l_step, schedule)
    expected = whole(resume.Record())
    for stop, go_on in [(4, False), (None, True)]:
        with resume.Folder(tmp_path / "out") as folder:
            record = resume.Record(folder, {"command": "x"}, 1e9, resume=go_on)
            with pytest.raises(Killed) if stop else nullcontext():
                result = whole(record, stop)
    assert record.now["batches"] == 4 + 1   # the fifth batch was not counted, and the sixth was
    assert net.random and start.keys() == result.params.keys()
    for name in start:
        assert result.params[name].tobytes() == expected.params[name].tobytes(), name
        assert name == "fc8.weight" or (result.params[name] != start[name]).any()


# ----- signals -----------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    assert lcref("compress", "--out", out, *SHORT).returncode == 0
    return out


@pytest.fixture(scope="module")
def whole_training(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    assert lcref("train", "--out", out, *TRAINING).returncode == 0
    return out


TRAINING = ["--epochs", "30", "--batch", "50"]


def until_trained(process, out):
    end = time.monotonic() + 60
    while not (out.exists() and checkpoints(out)) and time.monotonic() < end:
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()


@posix
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("verb, flags", [("compress", [*SHORT, "--steps", "1000"]),
                                         ("train", ["--epochs", "100000"])])
def test_a_signal_stops_a_run_after_its_batch_with_the_command_to_go_on(verb, flags, number, status,
                                                                        tmp_path):
    out = tmp_path / "a folder"
    process = subprocess.Popen(command(verb, "--out", out, *flags), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until_trained(process, out)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == status and stdout == ""
    assert stderr == (f"lcref {verb}: stopped by {number.name}; to go on: lcref {verb} --resume "
                      f"'{out}'\n")
    assert 1 <= len(checkpoints(out)) <= 2
    assert not [name for name in os.listdir(out) if name.startswith(".")]


@posix
def test_a_second_signal_does_what_it_always_does(tmp_path, monkeypatch):
    pause, seen = resume.Record.pause, []

    def twice(self, make):
        signal.raise_signal(signal.SIGINT)
        seen.append(signal.getsignal(signal.SIGINT))
        pause(self, make)
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(resume.Record, "pause", twice)
    assert run("compress", "--out", tmp_path / "out", *SHORT) == 130
    assert seen == [before] and signal.getsignal(signal.SIGINT) is before


def killed_and_resumed(verb, flags, out, rng):
    """Kill a run at one to three random moments, then let it end; how often it was killed.

    A run that ended before it was killed even once is made anew, and killed earlier.
    """
    first = ["--out", out, "--checkpoint-minutes", "0.0005", *flags]
    flags, killed, latest = first, 0, 1.2
    while killed < 3:
        process = subprocess.Popen(command(verb, *flags), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        time.sleep(rng.uniform(0.4 * latest, latest))
        process.kill()
        said = process.communicate()[1]
        assert process.returncode in (0, -signal.SIGKILL), said
        killed += process.returncode != 0
        begun = (out / "settings.json").exists()
        if begun and json.loads((out / "settings.json").read_text())["ended"]:
            if killed:
                break
            shutil.rmtree(out)
            flags, latest = first, 0.7 * latest
        elif begun:
            flags, latest = ["--resume", out], 3
    else:
        done = lcref(verb, *flags)
        assert done.returncode == 0, done.stderr
    return killed


SAMPLE = {"compress": 3, "train": 2}        # of 50 moments each


@posix
@pytest.mark.parametrize("verb, moment", [
    pytest.param(verb, i, marks=[pytest.mark.long] if i >= sample else [])
    for verb, sample in SAMPLE.items() for i in range(50)])
def test_a_run_that_is_killed_at_random_moments_ends_at_the_same_bits(verb, moment, tmp_path,
                                                                      request):
    whole, flags = {"compress": ("whole_run", SHORT), "train": ("whole_training", TRAINING)}[verb]
    out = tmp_path / "out"
    assert killed_and_resumed(verb, flags, out, random.Random(moment)) >= 1
    for left in set(os.listdir(out)) - set(os.listdir(request.getfixturevalue(whole))):
        assert left == ".lock" or left.startswith("checkpoint")     # killed after it had ended
        os.remove(out / left)
    same_result(request.getfixturevalue(whole), out)


# ----- disks and folders -------------------------------------------------------------------------

@posix
@pytest.mark.parametrize("limit, kept", [(100_000, []), (700_000, ["checkpoint-000001.npz"])])
def test_a_checkpoint_that_cannot_be_written_stops_the_run_and_leaves_the_one_before(
        limit, kept, tmp_path, whole_run):
    def small_files():      # the net has 203 kB; the reference is one copy, an LC step four
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    out = tmp_path / "out"
    done = lcref("compress", "--out", out, *SHORT, preexec_fn=small_files)
    assert done.returncode == 2 and done.stdout == ""
    said = f"lcref compress: error: no checkpoint could be written to {out}: File too large"
    if kept:
        said += f"; {kept[0]} is kept, lcref compress --resume {out} goes on from it"
    assert done.stderr == said + "\n"
    assert sorted(os.listdir(out)) == [*kept, "settings.json"]
    assert lcref("compress", "--resume", out).returncode == 0
    same_result(whole_run, out)


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, disk(options) to mount it anew."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "lcref", folder],
                                 capture_output=True)
        return mounted.returncode == 0
    if os.name != "posix" or shutil.which("mount") is None or not mount("size=1600k"):
        pytest.skip("mounting a small file system is left to the superuser")
    yield folder, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", folder], check=True)


@posix
def test_a_full_disk_stops_the_run_and_it_goes_on_when_there_is_room(disk, tmp_path, capsys):
    folder, remount = disk
    assert run("compress", "--out", tmp_path / "whole", *SHORT) == 0
    out = folder / "out"
    assert run("compress", "--out", out, *SHORT) == 2       # room for one of an LC step, not two
    said = capsys.readouterr().err
    assert "No space left on device; checkpoint-000002.npz is kept" in said
    assert sorted(os.listdir(out)) == ["checkpoint-000001.npz", "checkpoint-000002.npz",
                                       "settings.json"]
    assert remount("size=16m")
    assert run("compress", "--resume", out) == 0
    same_result(tmp_path / "whole", out)


@posix
@pytest.mark.parametrize("verb, kib, flags, named", [
    ("train", 64, ["--epochs", "1"], "weights.npz"), ("compress", 2050, SHORT, ""),
    ("compress", 64, ["--lr", "1e6", *SHORT], "last-good.npz"),
    ("vectors", 300, [], "group_l0_ball.json"), ("plot", 60, [], "loss-ratio.png"),
    ("plot", 400, [], "report.html"), ("sweep", 8, [], "design.json"),
    ("export", 64, ["--to", "npz"], ""), ("export", 64, ["--to", "safetensors"], "")])
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_no_part_of_it(
        verb, kib, flags, named, disk, tmp_path, capsys):
    folder, remount = disk
    assert remount(f"size={kib}k")
    first = {"plot": [tmp_path / "sweep"], "export": [tmp_path / "model.npz"],
             "sweep": [tmp_path / "design.toml"]}.get(verb, [])
    sweep_results.write(tmp_path / "sweep", sweep_results.cells(3))
    params = {"w": np.ones((300, 100), "f")}
    (tmp_path / "model.npz").write_bytes(storage.pack(params, (), {}, {}))
    (tmp_path / "design.toml").write_text(f"compress = 'binary(){' ' * 9000}'\n")
    out = folder / "out"
    quiet = ["--quiet"] * (verb != "vectors")
    assert cli.main([verb, *map(str, first), "--out", str(out), *flags, *quiet]) == 2
    said = capsys.readouterr().err
    place = str(out / named) if named else str(out)
    assert f"lcref {verb}: error: {place}: No space left on device" in said, said
    assert not [file for file in folder.rglob("*") if file.name.startswith(".")]
    assert not (out / named if named else out).is_file()


@posix
def test_a_read_only_disk_is_refused_before_any_training(disk, stop_after, capsys):
    folder, remount = disk
    out, new = folder / "out", folder / "new"
    stop_after(3)
    assert run("compress", "--out", out, *SHORT) == 143
    assert remount("ro")
    capsys.readouterr()
    for flags in (["--resume", out], ["--out", new, *SHORT]):
        assert run("compress", *flags) == 2
        said = capsys.readouterr().err
        assert "Read-only file system" in said and said.count("\n") == 1
    assert remount("rw")
    assert sorted(os.listdir(out)) == ["checkpoint-000001.npz", "settings.json"]


@pytest.fixture
def frozen(tmp_path):
    """frozen(folder, whether): let nothing be written to a folder, by the superuser either."""
    def switch(folder, on):
        if os.geteuid():
            folder.chmod(0o555 if on else 0o755)
        elif subprocess.run(["chattr", "+i" if on else "-i", folder],
                            capture_output=True).returncode:
            pytest.skip("this file system cannot keep the superuser from writing")
    yield switch
    if (tmp_path / "out").exists():
        switch(tmp_path / "out", False)


@posix
def test_a_folder_that_becomes_read_only_stops_the_run(frozen, tmp_path, capsys, monkeypatch):
    out, pause, calls = tmp_path / "out", resume.Record.pause, []

    def at_20(self, make):
        calls.append(0)
        if len(calls) == 20:
            frozen(out, True)
        pause(self, make)
    monkeypatch.setattr(resume.Record, "pause", at_20)
    assert run("compress", "--out", out, *SHORT) == 2
    said = capsys.readouterr().err
    assert "no checkpoint could be written" in said and "checkpoint-000001.npz is kept" in said
    assert len(calls) == 32 and checkpoints(out) == ["checkpoint-000001.npz"]
    frozen(out, False)
    assert run("compress", "--out", tmp_path / "whole", *SHORT) == 0
    assert run("compress", "--resume", out) == 0
    same_result(tmp_path / "whole", out)


@posix
def test_a_second_process_on_one_folder_is_refused_and_harms_nothing(tmp_path):
    out = tmp_path / "out"
    first = subprocess.Popen(command("train", "--out", out, "--epochs", "100000"))
    try:
        until_trained(first, out)
        for flags in (["--out", out, "--epochs", "1"], ["--resume", out]):
            second = lcref("train", *flags)
            assert second.returncode == 2
            assert second.stderr == f"lcref train: error: another process is at work in {out}\n"
        assert first.poll() is None and json.loads(
            (out / "settings.json").read_text())["settings"]["epochs"] == 100000
    finally:
        first.kill()
        first.wait()
    assert (out / ".lock").exists()
    with resume.Folder(out) as folder:      # locked by nobody
        assert folder.goes_on(settings(out))


# ----- damage ------------------------------------------------------------------------------------

@pytest.fixture
def stopped(tmp_path, stop_after):
    """A run that was stopped in the midst of its second LC step, and the result of it unbroken."""
    assert run("compress", "--out", tmp_path / "whole", *SHORT) == 0
    stop_after(16 + 16 + 3)
    assert run("compress", "--out", tmp_path / "out", *SHORT) == 143
    stop_after(None)
    assert checkpoints(tmp_path / "out") == ["checkpoint-000002.npz", "checkpoint-000003.npz"]
    return tmp_path / "out", tmp_path / "whole"


def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(stopped, capsys):
    (out, whole), kept = stopped, resume.Folder
    newest = out / "checkpoint-000003.npz"
    content = newest.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        newest.write_bytes(content[:length])
        with kept(out) as folder:
            found = folder.goes_on(settings(out))
        assert found["last"].step == 0 and "velocity" in found["state"]
        assert f"lcref: {newest} is damaged, and passed over" in capsys.readouterr().err
    assert run("compress", "--resume", out) == 0
    same_result(whole, out)


def settings(out):
    found = json.loads((out / "settings.json").read_text())
    return {name: value for name, value in found.items() if name not in ("also", "ended")}


def test_a_checkpoint_of_which_any_byte_is_another_is_passed_over_or_holds_the_same(stopped,
                                                                                    capsys):
    out, _ = stopped
    newest, rng = out / "checkpoint-000003.npz", random.Random(3)
    content, passed = newest.read_bytes(), 0
    with resume.Folder(out) as folder:
        whole = take_apart(folder.goes_on(settings(out)))
        places = [rng.randrange(len(content)) for _ in range(40)] + [
            len(content) - 1 - rng.randrange(3000) for _ in range(40)]      # the zip's directory
        for place in places:
            newest.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)])
                               + content[place + 1:])
            found = take_apart(folder.goes_on(settings(out)))
            if "passed over" in capsys.readouterr().err:
                passed += 1
            else:
                assert found[0] == whole[0]
                assert all(found[1][name].tobytes() == whole[1][name].tobytes()
                           for name in whole[1])
    assert passed >= 40


def test_where_all_checkpoints_are_damaged_the_run_is_refused_and_they_are_left(stopped, capsys):
    out, _ = stopped
    for name in checkpoints(out):
        (out / name).write_bytes(b"PK")
    assert run("compress", "--resume", out) == 2
    assert f"all checkpoints in {out} are damaged; delete them" in capsys.readouterr().err
    assert len(checkpoints(out)) == 2


def test_what_a_killed_process_left_half_written_is_removed(stopped):
    out, whole = stopped
    (out / ".checkpoint.npz").write_bytes(b"half")
    (out / ".settings.json").write_bytes(b"half")
    for name in (".writing", ".weights.npz-abcd", ".last-good.npz-abcd", ".lcref-abcd"):
        (out / name).mkdir()
        (out / name / "part").write_bytes(b"half")
    assert run("compress", "--resume", out) == 0
    same_result(whole, out)


# ----- refusals ----------------------------------------------------------------------------------

def edit(out, change, file="settings.json"):
    """Let a JSON file in the folder say something else."""
    content = json.loads((out / file).read_text())
    change(content)
    (out / file).write_text(json.dumps(content))


REFUSED = {
    "another rate": (["--lr", "0.1"], "--lr 0.1, but the run in {out} has 0.05"),
    "another compression": (["--compress", "binary()"], "--compress binary(), but the run in"),
    "a task": (["--task", "fc1.weight: binary()"], "--task ['fc1.weight: binary()'], but the run"),
    "another net": (["--net", "linear"], "--net linear, but the run in {out} has lenet300"),
    "no augmentation": (["--no-augment"], "--augment False, but the run in {out} has True"),
    "another folder": (["--out", "elsewhere"], "--out elsewhere, but --resume {out}"),
    "a reference": (["--reference", "{whole}/reference.npz"], "reference is None there, and here"),
    "fewer than no minutes": (["--checkpoint-minutes", "-1"], "at least 0, not '-1'"),
    "another lcref": (lambda s: s["versions"].update(lcref="9"), "versions lcref is '9' there"),
    "another numpy": (lambda s: s["versions"].update(numpy="1"), "versions numpy is '1' there"),
    "other data": (lambda s: s["data"].update(sha256="0f"), "data sha256 is '0f' there"),
    "other shapes": (lambda s: s["net"]["shapes"].update({"fc1.bias": [4]}),
                     "net shapes fc1.bias is [4] there"),
    "another seed in the settings": (lambda s: s["settings"].update(seed=4),
                                     "checkpoint-000003.npz is of another run: settings seed is 0"),
    "a setting that is unknown": (lambda s: s["settings"].update(depth=4), "settings depth is"),
    "a setting that is missing": (lambda s: s["settings"].pop("mu0"), "settings mu0 is None there"),
    "a run of train": (lambda s: s.update(command="train"), "command is 'train' there"),
    "a run that has ended": (lambda s: s.update(ended="done"), "the run in {out} has ended: done"),
    "no settings": (lambda s: s.pop("settings"), "settings.json is damaged: it holds no settings"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_agree_is_refused_with_the_difference_named(what, stopped, capsys):
    (out, whole), (how, says) = stopped, REFUSED[what]
    before, flags = {name: (out / name).read_bytes() for name in checkpoints(out)}, []
    if callable(how):
        edit(out, how)
    else:
        flags = [flag.format(whole=whole) for flag in how]
    assert run("compress", "--resume", out, *flags) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("lcref compress: error: ")
    assert says.format(out=out) in said.err and said.err.count("\n") == 1
    assert {name: (out / name).read_bytes() for name in checkpoints(out)} == before


def test_what_agrees_or_may_differ_is_taken(stopped, capsys):
    out, whole = stopped
    assert run("compress", "--resume", out, "--out", out, "--lr", "0.05", "--threads", "2",
               "--json", "--checkpoint-minutes", "3", "--augment", "--steps", "2") == 0
    assert json.loads(capsys.readouterr().out)["settings"]["threads"] == 2
    edit(out, lambda history: history["settings"].update(threads=1), "history.json")
    same_result(whole, out)


@pytest.mark.parametrize("verb", ["compress", "train"])
def test_a_folder_with_nothing_to_resume_is_refused(verb, tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert run(verb, "--resume", folder) == 2
        assert f"nothing to resume in {folder}: no settings.json" in capsys.readouterr().err
    (tmp_path / "settings.json").write_text("{")
    assert run(verb, "--resume", tmp_path) == 2
    assert "settings.json is damaged" in capsys.readouterr().err


def test_other_reference_weights_are_refused_and_the_same_in_another_file_are_taken(
        tmp_path, stop_after, capsys):
    for name, seed in (("a", 0), ("b", 1)):
        assert run("train", "--epochs", "0", "--seed", seed, "--out", tmp_path / name) == 0
    flags = [*SHORT, "--reference", tmp_path / "a" / "weights.npz"]
    stop_after(5)
    assert run("compress", "--out", tmp_path / "out", *flags) == 143
    stop_after(None)
    capsys.readouterr()
    again = ["compress", "--resume", tmp_path / "out"]
    assert run(*again, "--reference", tmp_path / "b" / "weights.npz") == 2
    assert "reference sha256 is" in capsys.readouterr().err
    os.rename(tmp_path / "a", tmp_path / "moved")
    assert run(*again) == 2
    assert run(*again, "--reference", tmp_path / "moved" / "weights.npz") == 0


def test_a_new_run_does_not_take_the_place_of_one_that_has_not_ended(stopped, capsys):
    out, whole = stopped
    assert run("compress", "--out", out, *SHORT) == 2
    assert f"go on with --resume {out}, or delete" in capsys.readouterr().err
    assert run("compress", "--resume", out) == 0
    assert run("compress", "--out", out, *SHORT) == 0       # but of one that has
    same_result(whole, out)
    assert run("compress", "--resume", out) == 2
    assert f"the run in {out} has ended: done" in capsys.readouterr().err


def test_training_needs_a_folder(capsys):
    assert run("train") == 2
    assert "--out DIR says where" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_not_written_and_a_signal_stops_the_run_all_the_same(
        tmp_path):
    with resume.Folder(tmp_path) as folder:
        record = resume.Record(folder, {"command": "train"}, 0.0)
        good, bad = {"w": np.zeros(2)}, {"w": np.array([1.0, np.inf])}
        record.pause(lambda: (good, None))
        record.pause(lambda: (bad, None))
        assert checkpoints(tmp_path) == ["checkpoint-000001.npz"]
        record.signal = signal.SIGINT
        with pytest.raises(resume.Stopped) as stop:
            record.pause(lambda: (bad, None))
        assert stop.value.status == 130 and checkpoints(tmp_path) == ["checkpoint-000001.npz"]
        assert folder.latest({"command": "train"})["params"]["w"].tolist() == [0, 0]


def test_a_checkpoint_of_which_a_number_was_changed_by_a_program_is_passed_over(stopped, capsys):
    out, _ = stopped
    newest = out / "checkpoint-000003.npz"
    with np.load(newest) as archive:
        members = {name: archive[name] for name in archive.files}
    members["params/fc1.bias"][0] += 1
    np.savez(newest, **members)
    with resume.Folder(out) as folder:
        found = folder.goes_on(settings(out))["params"]["fc1.bias"]
        assert found[0] != members["params/fc1.bias"][0]
    assert "its content is not that of its hash" in capsys.readouterr().err


@pytest.mark.parametrize("members", [
    {}, {"run": "{}"}, {"tree": "{}"}, {"run": "", "tree": "[]"}, {"run": "{", "tree": "1"},
    {"run": "{}", "tree": '["dict", [["a", ["array", "b", [0]]]]]'}, {"run": "{}", "tree": "[]"},
    {"run": "{}", "tree": '["list", []]'}, {"run": "{}", "tree": '["os", [["system", "a"]]]'},
    {"run": "{}", "tree": '["Step", []]'}, {"run": "[" * 10**5, "tree": "[" * 10**5}],
    ids=lambda members: str(members)[:50])
def test_a_checkpoint_of_something_else_is_passed_over_even_with_its_hash(members, tmp_path,
                                                                          capsys):
    arrays = {name: np.frombuffer(text.encode(), np.uint8) for name, text in members.items()}
    np.savez(tmp_path / "checkpoint-000001.npz", **arrays,
             sha256=np.frombuffer(sha256(arrays).encode(), np.uint8))
    with Folder(tmp_path) as folder, pytest.raises(ValueError, match="all checkpoints in"):
        folder.latest({})
    assert "checkpoint-000001.npz is damaged, and passed over: " in capsys.readouterr().err


def test_while_a_file_is_written_and_where_that_fails_the_old_one_is_there(tmp_path):
    file = tmp_path / "checkpoint-000001.npz"
    file.write_bytes(b"old")

    def write(stream):
        stream.write(b"new")
        stream.flush()
        assert file.read_bytes() == b"old"
        raise OSError("no space")
    with pytest.raises(OSError, match="no space"):
        write_whole(file, write)
    assert file.read_bytes() == b"old" and os.listdir(tmp_path) == [file.name]
    write_whole(file, lambda stream: stream.write(b"new"))
    assert file.read_bytes() == b"new" and os.listdir(tmp_path) == [file.name]


# ----- settings that are none --------------------------------------------------------------------

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
                    | st.sampled_from([-1, 0, 0.5, 2**63, 1e308, "lenet300", "nowhere", "1"]),
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
                        st.text(max_size=3), inner, max_size=2), max_leaves=4)


@pytest.fixture(scope="module", params=["compress", "train"])
def settled(request, tmp_path_factory):
    """A command, its folder with settings.json and a damaged checkpoint, and what settings.json is.

    A run that goes on there looks at everything, and stops at the checkpoint.
    """
    out = tmp_path_factory.mktemp("settled") / "the-run"
    short = ["--steps", "1", "--reference-epochs", "0"] * (request.param == "compress")
    assert run(request.param, "--net", "linear", "--epochs", "0", *short, "--out", out) == 0
    content = json.loads((out / "settings.json").read_text()) | {"ended": None}
    (out / "checkpoint-000001.npz").touch()
    return request.param, out, content


def goes_on_or_named(verb, out, capsys):
    """Whether a run goes on up to the damaged checkpoint, once its refusal is seen to be one."""
    capsys.readouterr()
    assert run(verb, "--resume", out) == 2
    said, err = capsys.readouterr()
    *_, last = lines = err.removesuffix("\n").split("\n")
    assert said == "" and len(lines) <= 4 and "mistake of lcref" not in err
    assert f"lcref {verb}: error: " in err
    assert "the-run" in err or "error: no file " in err     # of --reference
    return "all checkpoints" in last


def test_settings_that_were_left_alone_are_believed(settled, capsys):
    verb, out, content = settled
    (out / "settings.json").write_text(json.dumps(content))
    assert goes_on_or_named(verb, out, capsys)


@given(data=st.data())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_setting_that_is_something_else_is_refused_by_the_name_of_the_folder(settled, data,
                                                                                 capsys):
    verb, out, content = settled
    content = json.loads(json.dumps(content))
    group = data.draw(st.sampled_from(["", "settings", "also"]))
    inside = content[group] if group else content
    name = data.draw(st.sampled_from([*inside, "verb", "given", "run", "resume", "out", "folder"]))
    value = data.draw(JSON | st.just("delete"))
    before = inside.pop(name, "delete")
    if value != "delete":
        inside[name] = value
    (out / "settings.json").write_text(json.dumps(content))
    if goes_on_or_named(verb, out, capsys):     # what may differ, or does not
        absent = (None, "delete")
        same = (before == value and type(before) is type(value)
                or before in absent and value in absent)
        right = group == "settings" and (before is None or type(value) in (type(before), int))
        assert same or right or group == "also" or name in ("also", "ended") or (
            group == "" and before == "delete"), (group, name, before, value)


@given(put=st.binary(max_size=30), data=st.data())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_settings_of_changed_bytes_are_refused_or_the_same(settled, put, data, capsys):
    verb, out, content = settled
    text = json.dumps(content).encode()
    at = data.draw(st.integers(0, len(text)))
    (out / "settings.json").write_bytes(text[:at] + put + text[at + data.draw(st.integers(0, 9)):])
    goes_on_or_named(verb, out, capsys)
