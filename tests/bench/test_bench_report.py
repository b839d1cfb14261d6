"""Tables have a cell for every number, and the picture a line for every projection, where it is."""

import numpy as np
import pytest
from matplotlib.image import imread

from lcref.bench import report
from lcref.bench.cases import CASES
from lcref.bench.lsteps import LStep
from lcref.bench.projections import PeerTiming, Timing
from lcref.bench.targets import Target

PEERS = (PeerTiming("fast", "a", "", 0.005, 0.5, 1.0, True),
         PeerTiming("local", "b", "a local search", 0.12, 12.0, 2.0, False),
         PeerTiming("loose", "c", "", 0.02, 2.0, 0.5, None),
         PeerTiming("gone", "d", "", left_out="not installed"))
T = Timing("kmeans k=2", "kmeans", 10**6, "float64", 0.01, 0.02, 0.001, 0.5, 10.0, 3.21, None, 1.5,
           PEERS)
LEFT_OUT = Timing("kmeans k=2", "kmeans", 10**7, "float64", left_out="would take over 120 s")


def power_laws(cases=CASES, sizes=(10**3, 10**4, 10**5)):
    """Case i takes (i + 1)·n^(1 + i/100) ns."""
    return [Timing(case.name, case.function, n, "float64", (i + 1) * 1e-9 * n ** (1 + i / 100),
                   1e-8 * n, 1e-9 * n, 1.0, 1.0, 2.0)
            for i, case in enumerate(cases) for n in sizes]


@pytest.mark.parametrize("value, text", [
    (None, "–"), (0.00123, "0.00123"), (1.0, "1"), (12.345, "12.3"), (999.4, "999"),
    (1234.5, "1234"), (1e7, "10000000")])
def test_numbers_have_three_digits_and_no_exponent(value, text):
    assert report.number(value) == text


@pytest.mark.parametrize("n, text", [(10**4, "1e4"), (266_000, "266,000"), (10**7, "1e7"),
                                     (9801, "9,801")])
def test_a_power_of_ten_is_written_as_one(n, text):
    assert report.power_of_ten(n) == text


def test_a_row_has_every_number_and_every_peer_with_what_is_to_be_said_of_it():
    head, row, last = report.projection_rows([T, LEFT_OUT])
    assert row == ["kmeans k=2", "1e6", "10", "0.5", "10", "3.21",
                   "fast 0.5 (lcref's objective is higher); local 12 (a local search); "
                   "loose 2 (its answer is not feasible); gone not installed"]
    assert last == ["kmeans k=2", "1e7", "–", "–", "–", "–", "would take over 120 s"]
    assert len(head) == len(row)


def test_of_two_peaks_the_larger_is_shown():
    assert report.projection_rows([Timing(**{**vars(T), "process_memory": 5.4})])[1][5] == "5.4"
    assert report.projection_rows([Timing(**{**vars(T), "process_memory": 1.4})])[1][5] == "3.21"


def test_targets_are_met_missed_or_not_measured():
    rows = [Target("a", "b", "at least", 8, 9.0, True),
            Target("c", "d", "at most", 1.5, 2.0, False),
            Target("e", "f", "at least", 50, None, None, "sklearn not installed")]
    assert report.target_rows(rows)[1:] == [
        ["a", "b", "at least 8", "9", "met", ""], ["c", "d", "at most 1.5", "2", "MISSED", ""],
        ["e", "f", "at least 50", "–", "not measured", "sklearn not installed"]]


def test_the_table_of_l_steps_has_a_dash_where_pytorch_is_missing():
    rows = report.l_step_rows([LStep("lenet300", 256, 4.44, 137.2, 12.1)])
    assert rows[1] == ["lenet300, batch 256", "4.4", "–", "–", "137", "–", "12", "–"]


def test_columns_of_numbers_stand_to_the_right_and_of_texts_to_the_left():
    text = report.text_table([["what", "n", "how"], ["a", "1e4", "x"], ["bcdef", "–", "long text"]])
    assert text == "what     n  how\na      1e4  x\nbcdef    –  long text"


def test_markdown_has_a_line_a_row_and_bars_inside_cells_do_not_break_it():
    assert report.markdown_table([["a", "b"], ["1", "|w|"]]) == (
        "| a | b |\n| --- | --- |\n| 1 | \\|w\\| |")


def test_only_what_was_measured_has_a_table():
    titles = [title for title, _ in report.tables({"projections": [T], "l_step": [],
                                                   "targets": []})]
    assert titles == ["Projections"]    # of one size there is no growth
    titles = [title for title, _ in report.tables({"projections": power_laws(), "l_step": [],
                                                   "targets": [Target("a", "b", "at most", 1)]})]
    assert titles == ["Projections", "Growth with n", "Targets"]


def test_the_exponents_of_the_table_and_of_json_are_those_of_the_power_laws():
    found = {"projections": power_laws(CASES[:12]), "l_step": [], "targets": []}
    assert report.exponent_rows(found["projections"])[1:] == [
        [case.name, f"{1 + i / 100:.2f}", "1e3", "1e5"] for i, case in enumerate(CASES[:12])]
    tree = report.as_json(found, threads=3)
    assert tree["exponents"] == pytest.approx(
        {case.name: 1 + i / 100 for i, case in enumerate(CASES[:12])})
    assert tree["threads"] == 3 and len(tree["projections"]) == 36


# ---- the picture

def test_every_projection_is_a_line_through_its_times_with_its_exponent(tmp_path):
    timings = power_laws()
    figure = report.draw_times(timings)
    drawn = {}
    for axes in figure.axes:
        assert axes.get_xscale() == axes.get_yscale() == "log"
        legend = {text.get_text() for text in axes.get_legend().get_texts()}
        lines = {line.get_label(): [*zip(*map(np.ndarray.tolist, map(np.asarray, line.get_data())))]
                 for line in axes.get_lines()}
        assert legend == set(lines)
        assert lines.pop("one sort, n^1.00") == [(n, pytest.approx(1e-8 * n))
                                                 for n in (10**3, 10**4, 10**5)]
        assert lines.pop("one copy, n^1.00") == [(n, pytest.approx(1e-9 * n))
                                                 for n in (10**3, 10**4, 10**5)]
        drawn |= lines
    expected = {f"{case.name}, n^{1 + i / 100:.2f}": [(t.n, t.seconds) for t in timings
                                                      if t.name == case.name]
                for i, case in enumerate(CASES)}
    assert drawn == expected
    pixels = imread(report.times_figure(timings, tmp_path / "times.png"))
    assert pixels.shape[1] == 1800
    assert 0.002 < np.mean(pixels[..., :3].min(axis=2) < 0.9) < 0.5, "blank, or all ink"


@pytest.mark.parametrize("families, shape", [(1, (1, 1)), (2, (1, 2)), (3, (2, 2)), (4, (2, 2))])
def test_every_family_has_a_panel_and_an_odd_place_stays_empty(families, shape):
    named = ("binary", "l1_ball", "rank_selection", "scaled_binary_l0 3%")[:families]
    figure = report.draw_times(power_laws([case for case in CASES if case.name in named]))
    assert [len(axes.get_lines()) for axes in figure.axes if axes.get_visible()] == [3] * families
    assert figure.axes[0].get_gridspec().get_geometry() == shape


def test_lines_of_a_panel_differ_in_colour_or_marker():
    for axes in report.draw_times(power_laws()).axes:
        looks = [(line.get_color(), line.get_marker(), line.get_linestyle())
                 for line in axes.get_lines()]
        assert len(set(looks)) == len(looks)


def test_only_families_that_were_measured_have_a_panel_and_one_size_has_no_exponent():
    figure = report.draw_times([T, LEFT_OUT])
    axes, = figure.axes
    assert axes.get_title("left") == "quantization"
    assert [line.get_label() for line in axes.get_lines()] == ["kmeans k=2", "one sort", "one copy"]


def test_where_nothing_was_measured_there_is_nothing_to_draw():
    with pytest.raises(ValueError, match="nothing to draw"):
        report.draw_times([LEFT_OUT])
