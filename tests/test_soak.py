"""The soak's own checks: a few of its cases hold, and each check finds what it is there for."""
import dataclasses
import os
from functools import partial

import numpy as np
import pytest
import soak
import step_record
from soak_cases import case

from lcref import data, lc, nets, parts, resume
from lcref.compressions import Task
from lcref.lsteps import SGD
from lcref.text import KINDS, parse

posix = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="/proc is Linux's")

# ---- the cases


@posix
@pytest.mark.parametrize("number", [1, 2, 3])
def test_of_a_random_path_every_step_holds(number, tmp_path):
    found = soak.tried(case(1, number), tmp_path)
    assert found["faults"] == [] and set(step_record.CHECKS) < set(found["checks"])


@posix
def test_a_random_run_that_is_killed_ends_at_the_same_bytes_and_leaves_nothing(tmp_path):
    found = soak.tried(case(1, 0), tmp_path)
    assert found["faults"] == [] and found["hits"] and found["verb"] == "compress"
    assert soak.strangers("compress", os.listdir(tmp_path)) == {"matplotlib"}


def test_a_case_is_made_of_its_seed_and_number_alone_and_no_other_is_the_same():
    made = [case(1, number) for number in range(300)]
    assert made == [case(1, number) for number in range(300)]
    assert len({str(one["flags"]) for one in made}) == 300
    others = "--task float16 solver= restarts= lenet5 quadratic train SIGINT SIGTERM SIGKILL"
    assert all(name in str(made) for name in (*(f"{kind}(" for kind in KINDS), *others.split()))


# ---- the record

DIGITS = data.load("digits", None)
X, Y = DIGITS.x_train[:60], DIGITS.y_train[:60]
NET = nets.build("linear", 64, 10, None)
TASKS = (Task("fc1.weight", parse("quantize(k=2) + prune(kappa=3)")),)


@pytest.fixture
def steps():
    """(a Judge, the three steps of a path, its result)."""
    reference, schedule = NET.init(np.random.default_rng(0)), lc.Schedule(0.01, 1.5, 3)
    thetas, _ = lc.direct_compression(reference, TASKS, 0.01)
    judge = step_record.Judge(reference, TASKS, schedule, resume._begin(
        None, reference, TASKS, thetas, schedule), partial(
            step_record.loss_of, None, x=X, labels=Y))
    found = []
    sgd = SGD(nets.value_and_grad(NET), X, Y, lr=0.1, batch=20, epochs=2)
    result = lc.compress(reference, TASKS, sgd, schedule,
                         lambda params: nets.evaluate(NET, params, X, Y), found.append)
    judge.clock -= 60
    return judge, found, result


def named(judge):
    return {fault.partition(": ")[2].partition(":")[0] for fault in judge.faults}


def test_of_a_sound_path_every_check_holds(steps):
    judge, found, result = steps
    for step in found:
        judge.clock -= 60
        judge(step)
    judge.end(result)
    assert judge.faults == [] and judge.counts["lam is lam - mu (w - delta)"] == 3


def changed(tree, by):
    """A dict of arrays with one entry of the first changed."""
    name, array = next(iter(tree.items()))
    array = array.copy()
    array.flat[7] = by(array.flat[7])
    return {**tree, name: array}


def one_more(step):
    """Four corrections where three are allowed."""
    total = step.theta[0]
    sparse = total.parts[1]
    free = np.setdiff1d(np.arange(640), sparse.indices)[:1]
    order = np.argsort(np.append(sparse.indices, free))
    more = dataclasses.replace(
        sparse, indices=np.append(sparse.indices, free)[order],
        values=np.append(sparse.values, np.float32(1))[order])
    return with_theta(step, dataclasses.replace(total, parts=(total.parts[0], more)))


def shifted(step, by=1.0):
    """The codebook beside its optimum."""
    total = step.theta[0]
    book = dataclasses.replace(total.parts[0], entries=total.parts[0].entries + np.float32(by))
    return with_theta(step, dataclasses.replace(total, parts=(book, *total.parts[1:])))


def with_theta(step, theta):
    return dataclasses.replace(step, theta={0: theta}, delta={"fc1.weight": theta.decompress()})


def with_report(step, by):
    return dataclasses.replace(step, report={"loss": step.loss + by})


BROKEN = {
    "steps are consecutive": lambda s: dataclasses.replace(s, step=2),
    "mu is mu0·a^k": lambda s: dataclasses.replace(s, mu=s.mu * (1 + 1e-15)),
    "arrays are like the reference's, and finite": lambda s: dataclasses.replace(
        s, params={name: p.astype(np.float64) for name, p in s.params.items()}),
    "delta is theta decompressed": lambda s: dataclasses.replace(
        s, delta=changed(s.delta, lambda x: np.nextafter(x, np.float32(9)))),
    "theta is feasible, and as good as it claims": one_more,
    "the C step is no worse than the theta before": shifted,
    "lam is lam - mu (w - delta)": lambda s: dataclasses.replace(
        s, lam=changed(s.lam, lambda x: x * np.float32(1 + 2e-6) + np.float32(1e-8))),
    "feasibility is that of w and delta": lambda s: dataclasses.replace(
        s, feasibility=s.feasibility * (1 + 1e-6)),
    "the losses are those of both nets": lambda s: with_report(s, 1e-3),
    "seconds are at most the wall's": lambda s: dataclasses.replace(
        s, seconds={**s.seconds, "c_step": -1e-9}),
}
SECOND = {  # other ways to break the same
    "arrays are like the reference's, and finite": lambda s: dataclasses.replace(
        s, params=changed(s.params, lambda _: np.inf)),
    "theta is feasible, and as good as it claims": partial(shifted, by=1e-4),
    "lam is lam - mu (w - delta)": lambda s: dataclasses.replace(
        s, lam={name: 0 * lam for name, lam in s.lam.items()}),
    "the losses are those of both nets": lambda s: dataclasses.replace(
        s, compressed_report=s.report),
    "seconds are at most the wall's": lambda s: dataclasses.replace(
        s, seconds={**s.seconds, "c_step": 200.0}),
}


@pytest.mark.parametrize("name, breaks", [*BROKEN.items(), *SECOND.items()])
def test_each_check_finds_a_record_that_is_wrong(name, breaks, steps):
    judge, found, _ = steps
    judge(found[0])
    judge.clock -= 60
    judge(breaks(found[1]))
    assert name in named(judge)


def test_every_check_has_been_broken():
    assert set(BROKEN) | {"the record is frozen", "compressed is params with delta"} == set(
        step_record.CHECKS)


def test_multipliers_under_the_quadratic_penalty_are_found(steps):
    judge, found, _ = steps
    judge.made = (*judge.made[:2], lc.Schedule(0.01, 1.5, 3, "quadratic"), judge.made[3])
    judge(found[0])
    assert named(judge) == {"lam is lam - mu (w - delta)"}


@pytest.mark.parametrize("name, attribute, value", [
    ("compressed is params with delta", "compressed", property(lambda step: step.params)),
    ("the record is frozen", "__setattr__", lambda *_: None)])
def test_a_step_whose_class_is_wrong_is_found(name, attribute, value, steps, monkeypatch):
    judge, found, _ = steps
    monkeypatch.setattr(lc.Step, attribute, value)
    judge(found[0])
    assert named(judge) == {name}


def test_a_record_that_is_written_to_later_is_found(steps):
    judge, found, _ = steps
    judge(found[0])
    found[0].lam["fc1.weight"][0, 0] += 1
    judge.clock -= 60
    judge(found[1])
    assert "the record before is as it was" in named(judge)


def test_a_ratio_and_a_result_of_other_bits_are_found(steps, monkeypatch):
    judge, found, result = steps
    judge.before = found[-1]
    judge.end(dataclasses.replace(result, params=found[0].compressed))
    monkeypatch.setattr(parts.Codebook, "_bits", lambda self, width: 1)
    judge.end(result)
    assert [fault.partition(":")[0] for fault in judge.faults] == [
        "the result is the last step's", "the ratio is that of the bits"]


# ---- what is left behind, and what grows


@posix
def test_files_and_processes_that_are_left_are_found(tmp_path):
    (tmp_path / "box").mkdir()
    box = soak.Box(tmp_path / "box")
    for file in ("tmp/a", "home/b", "here/c"):
        (box.root / file).write_bytes(b"")
    assert sorted(box.left()) == [f"{file} is left behind" for file in ("here/c", "home/b",
                                                                        "tmp/a")]
    assert soak.strangers("compress", [".lock", "model.npz", "path.png", ".writing"]) == {
        ".lock", ".writing"}
    assert soak.strangers("train", ["weights.npz", "checkpoint-000001.npz"]) == {
        "checkpoint-000001.npz"}


@pytest.mark.parametrize("rss, fds, flat", [
    (lambda i: 90_000 + 500 * (i % 7), lambda i: 7, True), (lambda i: 90_000 + 100 * i,
                                                            lambda i: 7, False),
    (lambda i: 90_000 + 2 * i, lambda i: 7 + i // 90, False),
    (lambda i: 60_000 + 30_000 * (i > 20), lambda i: 7, True)])
def test_memory_and_descriptors_that_grow_are_found(rss, fds, flat):
    lines = [{"rss": rss(i), "fds": fds(i), "threads": 2, "python threads": 2} for i in range(200)]
    assert soak.growth(lines)["flat"] == flat and soak.growth(lines)["judged"]
