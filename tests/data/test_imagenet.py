"""Folders of images by class: pixels that can be worked out by hand, and files that are wrong."""
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from lcref import cli, nets
from lcref.data import batches, load

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def ramp(height, width):
    """Bytes (height, width, 3) that say where they are: red the row, green the column."""
    row, column = np.indices((height, width))
    return np.stack([row, column % 256, column // 256], axis=2).astype(np.uint8)


def constant(colour, height=240, width=230):
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3))


def pixels(x):
    """The bytes (n, height, width, 3) of which x is what a net is fed."""
    found = 255 * (np.moveaxis(x, 1, 3) * STD + MEAN)
    assert np.abs(found - np.round(found)).max() < 1e-3     # float32: 255 · 2.7 · 2⁻²⁴ · a few
    return np.round(found).astype(int)


def folder(root, images, val=None):
    """Write the images, by "CLASS/FILE" in train; in val one of a single colour each class."""
    classes = sorted({name.split("/")[0] for name in images})
    for part, files in (("train", images), ("val", val or {f"{name}/a.png": constant((9, 9, 9))
                                                           for name in classes})):
        for name, image in files.items():
            file = root / part / name
            file.parent.mkdir(parents=True, exist_ok=True)
            (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file)
    return root


def test_the_central_part_is_cut_and_normalised_by_channel(tmp_path):
    data = load("imagenet", folder(tmp_path, {"a/wide.png": ramp(256, 300),
                                              "a/high.png": ramp(256, 256)}))
    assert (data.image, data.classes, data.name) == ((3, 227, 227), 1, "imagenet")
    x = data.prepare(data.x_train)
    assert x.dtype == np.float32 and x.shape == (2, 3, 227, 227)
    high, wide = pixels(x)                      # in the order of the names of the files
    assert (wide == ramp(256, 300)[14:241, 36:263]).all()       # 29 // 2 and 73 // 2 are left over
    assert (high == ramp(256, 256)[14:241, 14:241]).all()


@pytest.mark.parametrize("height, width, high, wide", [(512, 600, 256, 300), (600, 513, 299, 256),
                                                       (100, 128, 256, 327)])
def test_the_shorter_side_gets_256_pixels_by_linear_interpolation(tmp_path, height, width, high,
                                                                  wide):
    column = np.arange(width)
    image = np.broadcast_to(np.round(column * 250 / width)[None, :, None], (height, width, 3))
    data = load("imagenet", folder(tmp_path, {"a/a.png": image.astype(np.uint8)}))
    found = pixels(data.prepare(data.x_train))[0]
    left = (wide - 227) // 2
    centre = (np.arange(left, left + 227) + 0.5) * width / wide - 0.5    # in the image as it was
    expected = np.interp(centre, column, column * 250 / width)  # a line stays one, but at its ends
    inner = slice(1, -1) if wide == 256 else slice(None)
    # one rounding to a byte of the line, and one of its mean
    assert np.abs(found - expected[:, None])[:, inner].max() <= 1


def test_a_random_part_is_cut_where_the_draws_say_and_mirrored_half_the_time(tmp_path):
    data = load("imagenet", folder(tmp_path, {"a/a.png": ramp(256, 300)}))
    n, seed = 120, 3
    found = pixels(data.augment(np.repeat(data.x_train, n, axis=0), np.random.default_rng(seed)))
    rng = np.random.default_rng(seed)
    places, mirrored = rng.random((n, 2)), rng.random(n) < 0.5
    begins = set()
    for part, (down, right), mirror in zip(found, places, mirrored):
        part = part[:, ::-1] if mirror else part
        top, left = part[0, 0, 0], part[0, 0, 1]
        assert (part == ramp(256, 300)[top:top + 227, left:left + 227]).all()
        assert (top, left) == (int(30 * down), int(74 * right))
        begins.add((top, left))
    tops, lefts = (set(values) for values in zip(*begins))
    assert (min(tops), max(tops)) == (0, 29) and max(lefts) > 65 and min(lefts) < 8


@pytest.mark.parametrize("mode, colour, expected", [
    ("L", 77, (77, 77, 77)), ("CMYK", (255, 0, 0, 0), (0, 255, 255)), ("1", 1, (255, 255, 255)),
    ("RGBA", (10, 20, 30, 128), (10, 20, 30)), ("P", 0, (0, 0, 0))])
def test_an_image_of_any_kind_is_read_as_red_green_and_blue(tmp_path, mode, colour, expected):
    ending = "JPEG" if mode == "CMYK" else "png"
    image = Image.new(mode, (260, 260), colour)
    data = load("imagenet", folder(tmp_path, {f"a/a.{ending}": image}))
    assert (np.abs(pixels(data.prepare(data.x_train)) - expected) <= 1).all()


def test_labels_are_positions_of_the_sorted_classes_in_either_layout(tmp_path):
    colours = {"zebra/1.png": (1, 1, 1), "ape/2.JPG": (2, 2, 2), "ape/1.JPEG": (3, 3, 3),
               "né/x.jpeg": (4, 4, 4)}
    images = {name: constant(colour) for name, colour in colours.items()}
    folder(tmp_path / "one" / "imagenet", images)
    folder(tmp_path / "two", images)
    (tmp_path / "two" / "train" / "ape" / "readme.txt").write_text("no image")
    for root in (tmp_path / "one", tmp_path / "two"):
        data = load("imagenet", root)
        assert (data.y_train.tolist(), data.y_test.tolist()) == ([0, 0, 1, 2], [0, 1, 2])
        values = pixels(data.prepare(data.x_train))[:, 100, 100, 0]
        assert values.tolist() == [3, 2, 4, 1]
        assert pixels(data.prepare(data.x_test))[:, 5, 5, 1].tolist() == [9, 9, 9]


def test_images_that_were_held_out_or_flattened_are_those_of_their_files(tmp_path):
    data = load("imagenet", folder(tmp_path, {
        f"a/{i}.png": constant((i, i, i)) for i in range(8)}))
    rest, held = data.split(0.25)
    seen = [pixels(data.prepare(x))[:, 0, 0, 0].tolist() for x in (rest.x_train, held.x_test)]
    assert sorted(sum(seen, [])) == list(range(8)) and len(seen[1]) == 2
    flat = data.shaped((3 * 227 * 227,))
    for make in (lambda d: d.prepare(d.x_train[:2]),
                 lambda d: d.augment(d.x_train[:2], np.random.default_rng(0))):
        assert make(flat).shape == (2, 3 * 227 * 227)
        assert (make(flat) == make(data).reshape(2, -1)).all()
    with pytest.raises(ValueError, match=r"imagenet have the shape \(3, 227, 227\)"):
        data.shaped((3, 32, 32))


@pytest.mark.parametrize("ending", ["png", "JPEG"])
@pytest.mark.parametrize("content", [b"", b"no image at all", "half of one"])
def test_a_file_that_is_no_image_is_named_where_its_batch_is_asked_for(tmp_path, content, ending):
    folder(tmp_path, {"a/good.png": constant((5, 5, 5)), f"a/poor.{ending}": ramp(300, 300)})
    poor = tmp_path / "train" / "a" / f"poor.{ending}"
    written = poor.read_bytes()
    poor.write_bytes(written[:len(written) // 2] if content == "half of one" else content)
    data = load("imagenet", tmp_path)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=f"poor.{ending} is damaged or no image"):
        for _ in batches(data.x_train, data.y_train, 1, rng, data.prepare):
            pass
    with nets.threads(2), pytest.raises(ValueError, match=f"poor.{ending} is damaged"):
        data.augment(np.repeat(data.x_train, 4, axis=0), rng)


def test_the_images_of_a_batch_are_read_in_the_threads_of_the_nets(tmp_path, monkeypatch):
    data = load("imagenet", folder(tmp_path, {f"a/{i}.png": constant((i, i, i))
                                              for i in range(8)}))
    both, met, read = threading.Barrier(2), set(), Image.open

    def opened(file):       # the first image of a thread waits for that of another
        if threading.get_ident() not in met:
            met.add(threading.get_ident())
            both.wait(timeout=20)
        return read(file)

    monkeypatch.setattr(Image, "open", opened)
    with nets.threads(2):
        found = pixels(data.prepare(data.x_train))
    assert len(met) == 2 and found[:, 0, 0, 0].tolist() == list(range(8))


@pytest.mark.parametrize("make, says", [
    (lambda root: None, "no folders train and val.*--data-dir.*LCREF_DATA"),
    (lambda root: [(root / part).mkdir() for part in ("train", "val")], "train holds no folder"),
    (lambda root: (folder(root, {"a/a.png": ramp(9, 9)}), (root / "val" / "b").mkdir()),
     "train has no folder b"),
    (lambda root: (folder(root, {"a/a.png": ramp(9, 9)}), (root / "train" / "c").mkdir()),
     "val has no folder c"),
    (lambda root: (folder(root, {"a/a.png": ramp(9, 9)}),
                   [(root / part / "c").mkdir() for part in ("train", "val")]),
     "train.c holds no image: no file ends in .jpeg, .jpg, .png")])
def test_a_folder_that_is_not_laid_out_so_is_refused_by_name(tmp_path, make, says, capsys):
    make(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        load("imagenet", tmp_path)
    status = cli.main(["train", "--net", "linear", "--data", "imagenet", "--data-dir",
                       str(tmp_path), "--out", str(tmp_path / "out")])
    lines = capsys.readouterr().err.splitlines()
    assert status == 2 and len(lines) == 1 and str(tmp_path) in lines[0]


# ----- the commands --------------------------------------------------------------------------

@pytest.fixture(scope="module")
def three_classes(tmp_path_factory):
    rng = np.random.default_rng(0)

    def noise(level):
        return np.clip(rng.normal(level, 30, (230, 228, 3)), 0, 255).astype(np.uint8)

    names = ("dark", "grey", "light")
    return folder(tmp_path_factory.mktemp("imagenet"),
                  {f"{name}/{i}.png": noise(60 + 60 * c) for c, name in enumerate(names)
                   for i in range(4)}, {f"{name}/a.png": noise(60 + 60 * c)
                                        for c, name in enumerate(names)})


FLAGS = ["compress", "--net", "linear", "--data", "imagenet", "--reference-epochs", "1",
         "--epochs", "2", "--steps", "3", "--batch", "4", "--lr", "1e-6", "--quiet"]


SHORT = ["--steps", "1", "--epochs", "1"]


def compressed(three_classes, out, *flags):
    assert cli.main([*FLAGS, "--data-dir", str(three_classes), "--out", str(out), *flags]) == 0
    with np.load(out / "compressed.npz") as archive:
        return dict(archive), json.loads((out / "history.json").read_text())


def test_a_run_that_is_killed_goes_on_to_the_same_bits(three_classes, tmp_path):
    whole, _ = compressed(three_classes, tmp_path / "whole")
    out = tmp_path / "killed"
    killed = subprocess.Popen([sys.executable, "-m", "lcref", *FLAGS, "--data-dir", three_classes,
                               "--out", out], env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    while not any(out.glob("checkpoint-*")) and killed.poll() is None:
        pass
    killed.kill()
    killed.wait()
    assert any(out.glob("checkpoint-*"))
    assert cli.main(["compress", "--resume", str(out), "--quiet"]) == 0
    with np.load(out / "compressed.npz") as archive:
        assert all((archive[name] == whole[name]).all() for name in whole)


def test_threads_change_no_bit_and_the_stand_in_gets_what_is_read(three_classes, tmp_path):
    one, history = compressed(three_classes, tmp_path / "one", *SHORT)
    two, _ = compressed(three_classes, tmp_path / "two", *SHORT, "--threads", "2")
    assert all((one[name] == two[name]).all() for name in one)
    there, found = compressed(three_classes, tmp_path / "there", *SHORT, "--device", "strict")
    assert found["lc"]["test_error"] == history["lc"]["test_error"]
    for name, w in one.items():     # as all runs there: float32's rounding over some batches
        np.testing.assert_allclose(there[name], w, rtol=0, atol=1e-5 * np.abs(w).max())


def test_a_net_is_trained_on_what_is_not_held_out_and_evaluated_and_swept(three_classes, tmp_path,
                                                                          capsys):
    flags = ["--net", "linear", "--data", "imagenet", "--data-dir", str(three_classes)]
    assert cli.main(["train", *flags, "--epochs", "1", "--lr", "1e-6", "--hold-out", "0.25",
                     "--out", str(tmp_path / "ref"), "--json", "--quiet"]) == 0
    trained = json.loads(capsys.readouterr().out)
    weights = tmp_path / "ref" / "weights.npz"
    assert cli.main(["eval", str(weights), *flags, "--train", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test_error"] == trained["test_error"]
    # of 12 images 9 are trained on and 3 are held out; the errors of the two make that of all
    assert 12 * found["train_error"] == pytest.approx(
        9 * trained["train_error"] + 3 * trained["held_out_error"])
    design = tmp_path / "design.json"
    design.write_text(json.dumps({"net": "linear", "data": "imagenet", "steps": 1, "epochs": 1,
                                  "lr": 1e-6, "reference-epochs": 1,
                                  "grid": [{"compress": ["prune(keep=0.1)", "quantize(k=2)"]}]}))
    assert cli.main(["sweep", str(design), "--out", str(tmp_path / "cells"), "--workers", "1",
                     "--data-dir", str(three_classes), "--json", "--quiet"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["cells"], counts["run"], counts["failed"]) == (2, 2, 0)


def test_a_checkpoint_is_refused_where_a_file_has_come_or_gone(three_classes, tmp_path, capsys):
    data = folder(tmp_path / "data", {"a/1.png": constant((5, 5, 5)),
                                      "b/1.png": constant((6, 6, 6))})
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-m", "lcref", *FLAGS, "--data-dir", data, "--out",
                                out, "--steps", "300"])
    while not any(out.glob("checkpoint-*")) and process.poll() is None:
        pass
    process.kill()
    process.wait()
    Image.fromarray(constant((7, 7, 7))).save(data / "train" / "a" / "2.png")
    assert cli.main(["compress", "--resume", str(out), "--quiet"]) == 2
    assert "data" in capsys.readouterr().err
