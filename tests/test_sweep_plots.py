"""The pictures of a sweep show each cell once, where it is, and the front that they name."""

import math
import re

import numpy as np
import pytest
import sweep_results
from matplotlib.image import imread
from sweep_results import KINDS

from lcref import sweep_plots

DRAW = {"test_error": sweep_plots.draw_error_ratio, "loss": sweep_plots.draw_loss_ratio}


def positions(cells, quantity, net="lc", storage="float32"):
    return sorted((cell["result"]["ratio"][storage], cell["result"][net][quantity])
                  for cell in cells)


def drawn(axes, without=("direct compression", "reference nets")):
    """Label -> offsets of each set of points."""
    return {points.get_label(): [tuple(p) for p in points.get_offsets().tolist()]
            for points in axes.collections if points.get_label() not in without}


def front(axes):
    line, = [line for line in axes.get_lines() if line.get_label().startswith("Pareto")]
    assert line.get_drawstyle() == "steps-pre"
    return list(zip(line.get_xdata(), line.get_ydata()))


def written(figure, tmp_path):
    file = sweep_plots.save(figure, tmp_path / "figure.png")
    pixels = imread(file)
    assert pixels.shape[1] == 1800
    assert 0.002 < np.mean(pixels[..., :3].min(axis=2) < 0.9) < 0.95, "blank, or all ink"


@pytest.mark.parametrize("quantity", DRAW)
@pytest.mark.parametrize("number, kinds", [(1, 1), (5, 10), (60, 4), (2000, 10)])
def test_every_cell_is_a_point_at_its_ratio_and_value(tmp_path, quantity, number, kinds):
    cells = sweep_results.cells(number, KINDS[:kinds])
    figure = DRAW[quantity](cells)
    axes, = figure.axes
    shown = drawn(axes, without=())
    assert sorted(shown.pop("direct compression")) == positions(cells, quantity, "direct")
    assert sorted(sum(shown.values(), [])) == positions(cells, quantity)
    for (x, y) in sum(shown.values(), []):
        assert axes.get_xlim()[0] < x < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < y < axes.get_ylim()[1]
    written(figure, tmp_path)


def test_the_points_of_a_kind_have_its_name_its_number_a_colour_and_a_shape_of_their_own():
    cells = sweep_results.cells(45, KINDS[:8])
    axes, = sweep_plots.draw_error_ratio(cells).axes
    shown = drawn(axes)
    for kind in KINDS[:8]:
        own = [cell for cell in cells if cell["kind"] == kind]
        assert sorted(shown.pop(f"{kind}, {len(own)}")) == positions(own, "test_error")
    assert shown == {}
    looks = [(tuple(points.get_facecolor()[0]), points.get_paths()[0].vertices.tobytes())
             for points in axes.collections if points.get_label() != "direct compression"]
    for column in zip(*looks):
        assert len(set(column)) == 8


def test_of_ten_kinds_the_eight_most_frequent_are_named_and_the_rest_are_grey():
    cells = sweep_results.cells(60)
    cells = [cell for cell in cells if cell["kind"] not in KINDS[2:4]] + cells[2:4]
    axes, = sweep_plots.draw_error_ratio(cells).axes
    shown = drawn(axes)
    assert set(shown) == {f"{kind}, 6" for kind in KINDS[:2] + KINDS[4:]} | {"other kinds, 2"}
    assert sorted(shown["other kinds, 2"]) == positions(cells[-2:], "test_error")
    other, = [points for points in axes.collections if points.get_label() == "other kinds, 2"]
    red, green, blue, _ = other.get_facecolor()[0]
    assert red == green == blue


@pytest.mark.parametrize("quantity", DRAW)
def test_the_front_goes_through_the_cells_that_no_other_beats_in_what_is_drawn(quantity):
    cells = sweep_results.cells(40, KINDS[:3])
    points = positions(cells, quantity)
    best = [(x, y) for x, y in points if not any(
        r >= x and e <= y and (r, e) != (x, y) for r, e in points)]
    axes, = DRAW[quantity](cells).axes
    assert front(axes) == best and len(best) > 2
    held_out = [(c["result"]["ratio"]["float32"], c["result"]["lc"]["held_out_error"])
                for c in cells]
    assert not set(best) & set(held_out)


def test_the_axes_and_the_legend_say_what_is_drawn():
    for draw, label, named in ((sweep_plots.draw_error_ratio, "test error, %", "of test errors"),
                               (sweep_plots.draw_loss_ratio, "training loss", "of losses")):
        figure = draw(sweep_results.cells(9, KINDS[:1]))
        axes, = figure.axes
        assert axes.get_ylabel() == label and axes.get_xlabel() == "compression ratio"
        assert axes.get_xscale() == axes.get_yscale() == "log"
        assert axes.get_title("left") == "9 cells"
        assert {text.get_text() for text in figure.legends[0].get_texts()} == {
            "reference nets", "direct compression", f"Pareto front {named}", "quantize, 9"}


def test_the_ratios_are_counted_in_the_convention_that_is_asked_for():
    cells = sweep_results.cells(9, KINDS[:1])
    axes, = sweep_plots.draw_error_ratio(cells, "float16").axes
    assert sorted(drawn(axes)["quantize, 9"]) == positions(cells, "test_error", storage="float16")
    assert axes.get_xlabel() == "compression ratio, counted in float16"


def levels(axes):
    return sorted(line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() == "--")


def test_one_reference_is_a_line_and_several_are_a_band_from_the_lowest_to_the_highest():
    cells = sweep_results.cells(9)
    errors = [cell["result"]["reference"]["test_error"] for cell in cells]
    axes, = sweep_plots.draw_error_ratio(cells).axes
    assert levels(axes) == [min(errors), max(errors)] and len(axes.patches) == 1
    for cell in cells:
        cell["result"]["reference"]["test_error"] = 1.39
    axes, = sweep_plots.draw_error_ratio(cells).axes
    assert levels(axes) == [1.39] and len(axes.patches) == 0


def test_an_error_of_zero_and_cells_in_one_place_are_inside_the_picture(tmp_path):
    cells = sweep_results.cells(12, KINDS[:3])
    for cell in cells[:6]:
        cell["result"]["lc"]["test_error"] = 0.0
        cell["result"]["ratio"]["float32"] = 10.0
    figure = sweep_plots.draw_error_ratio(cells)
    axes, = figure.axes
    assert axes.get_ylim()[0] < 0
    assert (10.0, 0.0) in front(axes)
    assert sum(points.count((10.0, 0.0)) for points in drawn(axes).values()) == 6
    written(figure, tmp_path)


@pytest.mark.parametrize("ratios", [[19.1], [19.1, 19.2, 19.21], [0.9, 3.1], [2.0, 5000.0]])
def test_the_axis_of_ratios_has_at_least_two_plain_ticks_on_any_range(tmp_path, ratios):
    cells = sweep_results.cells(len(ratios))
    for cell, ratio in zip(cells, ratios, strict=True):
        cell["result"]["ratio"]["float32"] = ratio
    figure = sweep_plots.draw_error_ratio(cells)
    axes, = figure.axes
    low, high = axes.get_xlim()
    written(figure, tmp_path)
    shown = [label.get_text() for tick, label in zip(axes.get_xticks(), axes.get_xticklabels())
             if low <= tick <= high]
    assert len(shown) >= 2 and all(re.fullmatch(r"\d+(\.\d+)?", text) for text in shown)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_cell_without_a_finite_value_is_left_out_and_counted(tmp_path, value):
    cells = sweep_results.cells(12, KINDS[:1])
    cells[0]["result"]["lc"]["loss"] = value
    cells[1]["result"]["direct"]["loss"] = value
    cells[2]["result"]["reference"]["loss"] = value
    figure = sweep_plots.draw_loss_ratio(cells)
    axes, = figure.axes
    assert axes.get_title("left") == "12 cells, 1 of them not finite"
    finite = [p for p in drawn(axes)["quantize, 12"] if None not in p]   # of a masked array
    assert sorted(finite) == positions(cells[1:], "loss")
    written(figure, tmp_path)
    for cell in cells:
        cell["result"]["lc"]["loss"] = value
    with pytest.raises(ValueError, match="of 12 cells .* none has a finite ratio and training l"):
        sweep_plots.draw_loss_ratio(cells)


def test_each_picture_is_written_as_a_png_the_same_for_the_same_cells(tmp_path):
    cells = sweep_results.cells(7)
    for write in (sweep_plots.error_ratio_figure, sweep_plots.loss_ratio_figure):
        files = [write(cells, tmp_path / f"{i}.png") for i in range(2)]
        assert files == [tmp_path / "0.png", tmp_path / "1.png"]
        one, two = (file.read_bytes() for file in files)
        assert one.startswith(b"\x89PNG") and one == two
