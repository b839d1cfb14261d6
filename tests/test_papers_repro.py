"""The scripts of papers_repro run from end to end in their quick versions, and write what they say.

What is expected comes from enumeration, counting or another command, not from the scripts.
"""

import csv
import importlib
import json
import math
import os
import runpy
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from lcref import parse

ROOT = Path(__file__).parent.parent
REPRO = ROOT / "papers_repro"
ENV = {**os.environ, "OPENBLAS_NUM_THREADS": "1",
       "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def quick(script, out):
    """Run a script with --quick; return the rows that it wrote, by name."""
    done = subprocess.run([sys.executable, REPRO / script, "--quick", "--out", out],
                          capture_output=True, text=True, env=ENV)
    assert done.returncode == 0, done.stderr
    file = out / "results.json"
    return {row["name"]: row for row in json.loads(file.read_text())} if file.exists() else {}


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(REPRO)
    return importlib.import_module("common")


@pytest.fixture
def fronts(monkeypatch):
    monkeypatch.syspath_prepend(REPRO)
    return importlib.import_module("fronts")


@pytest.fixture(scope="module")
def lenet300(tmp_path_factory):
    out = tmp_path_factory.mktemp("lenet300")
    return quick("part5/lenet300/run.py", out), out


def test_lenet300_leaves_a_row_for_each_command_with_its_pictures_and_tables(lenet300):
    rows, out = lenet300
    assert [row["kind"] for row in rows.values()] == [
        "quantize", "prune", "lowrank", "quantize + prune", "lowrank + prune"]
    with open(out / "results.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [line["name"] for line in table] == list(rows)
    for line, row in zip(table, rows.values()):
        assert float(line["lc test"]) == row["lc"]["test_error"]
        assert len(row["wrong"]) == pytest.approx(3.6 * row["lc"]["test_error"])  # of 360 images
        assert float(line["low"]) < row["lc"]["test_error"] < float(line["high"])
    for picture in ("error-ratio.png", "loss-ratio.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    assert (out / "tables.md").read_text().count("| each(quantize(k=2))") >= 1


def test_a_short_row_has_the_bits_of_its_command(lenet300, tmp_path):
    row = lenet300[0]["short-each-quantize-k-2-prune-keep-0.01"]
    text = row["tasks"][0].split(": ", 1)[1]
    flags = "--reference-epochs 5 --steps 2 --epochs 1".split()
    assert row["command"] == f"lcref compress {' '.join(flags)} --compress '{text}'"
    done = subprocess.run([sys.executable, "-m", "lcref", "compress", *flags, "--compress", text,
                           "--json", "--quiet"], capture_output=True, text=True, env=ENV)
    command = json.loads(done.stdout)
    for key in ("reference", "direct", "lc", "ratio", "file_bytes", "feasibility"):
        assert row[key] == command[key], key


def test_a_row_that_has_a_result_is_not_run_again(lenet300):
    rows, out = lenet300
    file = out / "results.json"
    marked = [{**row, "date": "1998-01-01"} for row in rows.values()]
    file.write_text(json.dumps(marked[1:]))
    again = quick("part5/lenet300/run.py", out)
    assert [row["date"] for row in again.values()][1:] == ["1998-01-01"] * (len(rows) - 1)
    assert again[marked[0]["name"]]["lc"] == marked[0]["lc"]
    file.write_text(json.dumps(list(rows.values())))


def test_a_long_row_that_was_stopped_goes_on_and_one_of_other_settings_is_refused(common, tmp_path):
    flags = "--reference-epochs 1 --steps 3 --epochs 1 --compress 'prune(keep=0.1)'"
    args = type("Args", (), {"work": tmp_path, "reference": None, "data_dir": None})
    whole = common.compress("whole", flags, args)
    folder = tmp_path / "stopped"
    stopped = subprocess.Popen([sys.executable, "-m", "lcref", "compress", *flags.split()[:6],
                                "--compress", "prune(keep=0.1)", "--quiet", "--out", folder],
                               env=ENV)
    while not any(folder.glob("checkpoint-*.npz")) and stopped.poll() is None:
        time.sleep(0.01)
    stopped.kill()
    stopped.wait()
    row = common.compress("stopped", flags, args)
    assert (row["lc"], row["wrong"]) == (whole["lc"], whole["wrong"])
    assert len(row["path"]["mu"]) == 3
    with pytest.raises(ValueError, match="another steps"):
        common.compress("whole", flags.replace("--steps 3", "--steps 2"), args)


def test_the_corrections_of_a_sum_are_counted_whatever_they_correct(common):
    w = {name: np.random.default_rng(0).normal(size=60) for name in ("a", "b")}
    for text, count in (("each(quantize(k=2)) + prune(kappa=7)", 7), ("prune(kappa=7)", 7),
                        ("each(prune(kappa=7) + quantize(k=2))", 14), ("quantize(k=2)", 0)):
        assert common.nonzeros({0: parse(text).project(w)}) == count


def test_a_long_row_finds_what_it_gets_wrong_on_its_device(common, tmp_path):
    args = type("Args", (), {"work": tmp_path, "reference": None, "data_dir": None})
    row = common.compress("there", "--reference-epochs 1 --steps 1 --epochs 1 --device strict "
                          "--compress 'prune(keep=0.1)'", args)
    assert len(row["wrong"]) == pytest.approx(3.6 * row["lc"]["test_error"])    # of 360 images


def test_the_front_is_what_no_other_row_beats(fronts):
    rng = np.random.default_rng(0)
    rows = [{"name": str(i), "kind": "prune", "ratio": {"float32": float(ratio)},
             "lc": {"test_error": float(error)}} for i, (ratio, error) in
            enumerate(rng.integers(1, 9, size=(40, 2)))]

    def beats(a, b):
        pair = [(-row["ratio"]["float32"], row["lc"]["test_error"]) for row in (a, b)]
        return pair[0] != pair[1] and all(x <= y for x, y in zip(*pair))
    expected = {row["name"] for row in rows if not any(beats(other, row) for other in rows)}
    assert {row["name"] for row in fronts.front(rows)} == expected


def test_the_single_beside_a_sum_is_the_best_of_those_at_least_as_small(fronts):
    def row(name, kind, ratio, error):
        return {"name": name, "kind": kind, "ratio": {"float32": ratio},
                "lc": {"test_error": error}}
    rows = [row("large", "prune", 10, 1.0), row("same", "prune", 20, 3.0),
            row("small", "quantize", 30, 2.5), row("other sum", "prune + lowrank", 40, 0.5)]
    assert fronts.versus_single(row("sum", "quantize + prune", 20, 2), rows)["name"] == "small"
    assert fronts.versus_single(row("sum", "quantize + prune", 31, 2), rows) is None


@pytest.mark.parametrize("count, n", [(0, 50), (3, 50), (213, 10_000), (50, 50)])
def test_the_ends_of_the_interval_are_where_the_score_test_just_rejects(fronts, count, n):
    for end in fronts.wilson(count, n):
        p = end / 100
        assert (count / n - p) ** 2 == pytest.approx(fronts.Z**2 * p * (1 - p) / n, abs=1e-12)


def test_the_paired_test_is_that_of_a_fair_coin(fronts):
    one, other = {"wrong": [1, 2, 3, 4, 5, 6]}, {"wrong": [6, 7]}
    tosses = [sum(toss) for toss in product((0, 1), repeat=6)]      # 5 and 1 images differ
    p = sum(heads in (0, 1, 5, 6) for heads in tosses) / 2**6
    assert fronts.paired(one, other) == (5, 1, pytest.approx(p))


@pytest.mark.parametrize("script, rows", [
    ("part2/run.py", 3), ("cvpr2018/run.py", 4), ("part5/lenet5/run.py", 3),
    ("part5/vgg16/run.py", 4)])
def test_a_paper_in_its_quick_version_writes_its_rows_and_its_table(tmp_path, script, rows):
    known = quick(script, tmp_path)
    assert len(known) == rows
    assert all(math.isfinite(row["lc"]["loss"]) and row["command"].startswith("lcref compress")
               for row in known.values())
    assert list(tmp_path.glob("*.png")) and list(tmp_path.glob("table*.md"))
    for row in known.values():
        if row["kind"] == "prune" and "keep" in row["command"]:
            keep = float(row["command"].split("keep=")[1].split(")")[0])
            size = 430_500 if "lenet5" in row["command"] else 64 * 300 + 300 * 100 + 100 * 10
            assert row["nonzeros"] == math.floor(keep * size)


def test_resnet20s_packed_files_are_loaded_and_their_operations_counted_part_by_part(tmp_path):
    rows = quick("part5/resnet20/run.py", tmp_path)
    bit, corrected = rows["1bit"], rows["1bit-5percent"]
    text = (tmp_path / "packed.md").read_text()
    assert f"The file has {corrected['file_bytes']:,} bytes" in text
    assert (tmp_path / "1bit-5percent" / "model.npz").stat().st_size == corrected["file_bytes"]
    assert text.count(f" {corrected['lc']['test_error']:.2f}%") == 3    # loaded, and from the parts
    weights, outputs = 64 * 300 + 300 * 100 + 100 * 10, 300 + 100 + 10
    for start in (f"dense | {weights:,} | 100.0% | {weights - outputs:,} |",
                  f"quantized part | {2 * outputs:,} |",
                  f"corrections | {weights // 20:,} | 5.0% |"):
        assert f"| {start}" in text     # an output adds up the inputs of each of its two values
    assert corrected["lc"]["test_error"] < bit["lc"]["test_error"]
    only, others = (len(set(a["wrong"]) - set(b["wrong"])) for a, b in
                    ((bit, corrected), (corrected, bit)))
    assert f"| {only} | {others} |" in (tmp_path / "tables.md").read_text()


def test_without_statistics_the_ratio_of_resnet20_counts_what_is_trained(common):
    run = runpy.run_path(str(REPRO / "part5" / "resnet20" / "run.py"))
    weights, trained, statistics = 268_336, 269_722, 2 * (16 * 7 + 32 * 6 + 64 * 6)
    bits = weights + 20 * 64 + 32 * (trained - weights)     # one bit, two values a layer, the rest
    row = {"ratio": {"float32": 32 * (trained + statistics) / (bits + 32 * statistics)}}
    assert run["without_statistics"](row, "float32") == pytest.approx(32 * trained / bits)


@pytest.mark.long      # half a minute: 58 million weights in each of some ten passes over them
def test_alexnet_goes_through_its_steps_on_a_folder_of_drawn_images(tmp_path):
    (row,) = quick("part5/alexnet/run.py", tmp_path).values()
    assert "--net alexnet --data imagenet" in row["command"]
    assert sorted(file.name for file in (tmp_path / "imagenet" / "train").iterdir()) == [
        f"n0000000{label}" for label in range(3)]
    assert all(row["lc"][key] * 18 / 100 == pytest.approx(round(row["lc"][key] * 18 / 100))
               for key in ("train_error", "test_error"))        # of 18 and of 6 images
    assert len(row["wrong"]) * 100 / 6 == pytest.approx(row["lc"]["test_error"])
    # 1 bit a weight, 1% corrections of 16 bits and their positions, the biases in full; at
    # random positions a delta code takes about 8.1 bits
    weights, biases = 62_367_776 - 4096 * 997, 10_568 - 997     # of three classes
    bits = weights * (1 + 0.01 * (16 + 8.1)) + 32 * biases
    assert row["ratio"]["float16"] == pytest.approx(32 * (weights + biases) / bits, rel=0.02)


@pytest.mark.long      # 40 s and 6 GB: pictures and files of 58 million weights
def test_a_long_row_of_alexnet_leaves_a_packed_file_of_its_errors(common, tmp_path):
    run = runpy.run_path(str(REPRO / "part5" / "alexnet" / "run.py"))
    args = type("Args", (), {"work": tmp_path, "reference": None,
                             "data_dir": run["draw"](tmp_path)})
    (flags,) = run["QUICK"].values()
    row = common.compress("long", flags, args)
    file = tmp_path / "long" / "model.npz"
    assert file.stat().st_size == row["file_bytes"] < 62_367_776 * 32 / 8 / 24
    done = subprocess.run([sys.executable, "-m", "lcref", "eval", file, "--data-dir", tmp_path,
                           "--json", "--quiet"], capture_output=True, text=True, env=ENV)
    assert json.loads(done.stdout)["test_error"] == row["lc"]["test_error"]


def test_more_weight_on_the_cost_selects_lower_ranks(tmp_path):
    low, high = quick("cvpr2020/run.py", tmp_path).values()
    assert list(low["ranks"]) == list(high["ranks"]) == ["fc1.weight", "fc2.weight", "fc3.weight"]
    assert sum(low["ranks"].values()) > sum(high["ranks"].values())


def test_the_path_of_least_squares_leads_from_direct_compression_to_the_optimum(tmp_path):
    quick("part1/run.py", tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    convex, quantized = result["problems"].values()
    assert convex["first distance to direct"] < 1e-3
    assert convex["distance of multipliers"] < 1e-6
    assert convex["optimum"] <= convex["path"][-1]["loss"] < convex["optimum"] * 1.01
    for step in quantized["path"]:      # the oracle's value bounds LC's from below, at every μ
        assert step["penalised, global"] <= step["penalised"] * (1 + 1e-9)
    assert quantized["optimum"] <= min(step["loss"] for step in quantized["path"]) * (1 + 1e-9)
    assert all(min(row["direct"], row["quadratic"], row["augmented"]) > -1e-9
               for row in result["many"])


def test_the_alternation_descends_along_its_cycles_and_stays_above_the_optimum(tmp_path):
    quick("part5/csteps/run.py", tmp_path)
    cases = json.loads((tmp_path / "result.json").read_text())["cases"]
    along = [case for case in cases.values() if "orders" in case]
    assert len(along) == 4 and len(cases) == 4 + 6
    for case in along:
        assert len(case["orders"]) == 2
        for run in case["orders"]:
            assert all(b <= a for a, b in zip(run["excess"], run["excess"][1:]))
            assert run["excess"][-1] > -1e-9
    assert (tmp_path / "cycles.png").stat().st_size > 0


# ----- on a device ---------------------------------------------------------------------------

def on_stand_in(out, *stages):
    return subprocess.run([sys.executable, REPRO / "gpu" / "run.py", *stages, "--device", "strict",
                           "--quick", "--out", out], capture_output=True, text=True, env=ENV)


def test_every_stage_for_a_gpu_runs_on_the_stand_in_and_only_once(tmp_path):
    done = on_stand_in(tmp_path)
    assert done.returncode == 0, done.stderr
    stages = ["tests", "agreement", "lsteps", "resnet20"]
    found = {stage: json.loads((tmp_path / f"{stage}.json").read_text()) for stage in stages}
    assert all(file["device"]["name"] == "strict" for file in found.values())
    counts = found["tests"]["tests"]
    assert counts["tests"] > 0 == counts["failures"] == counts["errors"] == counts["skipped"]
    rows = found["agreement"]["agreement"]
    assert len(rows) == 44 and all(row["excess"] <= 1 for row in rows)
    assert all(row["infeasible"] == 0 for row in rows)
    assert found["lsteps"]["l_step"][0]["net"] == "lenet300"
    assert found["resnet20"]["run"]["settings"]["device"] == "strict"
    lines = (tmp_path / "table.md").read_text().splitlines()[2:]
    proven = [line for line in lines if line.startswith(("| tests", "| every projection"))]
    assert len(lines) == 10 and len(proven) == 2
    assert all("has not run on a GPU" in line for line in lines)
    before = {stage: (tmp_path / f"{stage}.json").stat().st_mtime_ns for stage in stages}
    assert on_stand_in(tmp_path).returncode == 0
    assert before == {stage: (tmp_path / f"{stage}.json").stat().st_mtime_ns for stage in stages}


def test_what_a_gpu_measured_stands_in_the_table_with_its_name(tmp_path):
    device = {"name": "cuda:0", "gpu": "a card"}
    step = {"net": "resnet20", "tf32": False, "lcref_ms": 2.0, "torch_ms": 8.0, "ratio": 0.25}
    run = {"settings": {"net": "resnet20", "data": "cifar10"}, "seconds": {"c_step": 1.0,
           "l_step": 400.0}, "reference": {"test_error": 8.27}, "lc": {"test_error": 8.5},
           "ratio": {"float32": 10.0, "float16": 14.0}}
    for stage, more in (("lsteps", {"l_step": [step]}), ("resnet20", {"run": run})):
        (tmp_path / f"{stage}.json").write_text(json.dumps({"device": device, **more}))
    table = runpy.run_path(str(REPRO / "gpu" / "run.py"))["table"]
    lines = table(tmp_path).splitlines()
    assert ("| L step of resnet20, TF32 off | faster than PyTorch eager | 2 ms a batch; PyTorch 8,"
            " ratio 0.25 | a card |") in lines
    assert "| C steps of ResNet20 over its L steps | under 1% | 0.25% | a card |" in lines
    assert sum("has not run on a GPU" in line for line in lines) == 7


def test_an_unknown_stage_is_refused_by_name():
    done = on_stand_in("never", "tsets")
    assert done.returncode == 2 and "unknown stage 'tsets'" in done.stderr
