"""The pictures show the numbers they were given; nothing is dropped, swapped or invented."""

import numpy as np
import pytest
from matplotlib.image import imread

from lcref import plots

REFERENCE = {"train_error": 0.198, "test_error": 2.13, "loss": 0.01}
DIRECT = {"train_error": 18.6, "test_error": 19.11, "loss": 0.6}


def path(steps):
    """A path whose every column is different and known by its formula."""
    return [{"step": k + 1, "mu": 9e-5 * 1.1**k, "feasibility": 0.6 * 0.8**k,
             "loss": 0.01 + 0.001 * k, "compressed_loss": 0.5 * 0.9**k,
             "train_error": 0.02 * k, "test_error": 2 + 0.01 * k,
             "compressed_train_error": 18 * 0.7**k, "compressed_test_error": 2.1 + 17 * 0.7**k}
            for k in range(steps)]


def layer(rows=300, columns=64, kappa=192):
    """A layer, its 1-bit quantization, and the kappa largest corrections of that."""
    w = 0.05 * np.random.default_rng(0).standard_normal((rows, columns))
    bits = np.where(w < 0, -1, 1) * np.abs(w).mean()
    error = (w - bits).ravel()
    corrections = np.zeros(w.size)
    kept = np.argsort(-np.abs(error))[:kappa]
    corrections[kept] = error[kept]
    return w, bits, corrections.reshape(w.shape)


def curves(axes):
    """(who, line style) -> y of each line drawn."""
    return {(line.get_label(), line.get_linestyle()): np.asarray(line.get_ydata())
            for line in axes.get_lines()}


def written(figure, tmp_path):
    """The pixels of a figure, saved the way the module saves them."""
    file = plots.save(figure, tmp_path / "figure.png")
    assert file == tmp_path / "figure.png"
    pixels = imread(file)
    assert pixels.shape[1] == 1800
    assert 0.002 < np.mean(pixels[..., :3].min(axis=2) < 0.9) < 0.95, "blank, or all ink"
    return pixels


# ---- the path ----------------------------------------------------------------------------------


def test_the_path_shows_each_error_of_each_step_against_its_mu(tmp_path):
    history = path(12)
    left, right = plots.draw_path(history, REFERENCE, DIRECT).axes
    for who, style, key in (("compressed net Δ(θ)", "-", "compressed_test_error"),
                            ("compressed net Δ(θ)", "--", "compressed_train_error"),
                            ("weights w", "-", "test_error"), ("weights w", "--", "train_error")):
        np.testing.assert_array_equal(curves(left)[who, style], [r[key] for r in history])
    feasibility, = right.get_lines()
    np.testing.assert_array_equal(feasibility.get_ydata(), [r["feasibility"] for r in history])
    for line in [*right.get_lines(), *left.get_lines()[-2:]]:
        np.testing.assert_array_equal(line.get_xdata(), [r["mu"] for r in history])
    assert left.get_xscale() == right.get_xscale() == right.get_yscale() == "log"


def test_the_path_has_a_level_for_the_reference_and_for_direct_compression():
    left, _ = plots.draw_path(path(5), REFERENCE, DIRECT).axes
    for who, level in (("reference", REFERENCE), ("direct compression", DIRECT)):
        for style, key in (("-", "test_error"), ("--", "train_error")):
            np.testing.assert_array_equal(curves(left)[who, style], [level[key]] * 2)


def test_every_point_of_the_path_is_inside_its_axes_even_an_error_of_zero():
    history = path(12)
    assert history[0]["train_error"] == 0
    for axes in plots.draw_path(history, REFERENCE, DIRECT).axes:
        low, high = axes.get_ylim()
        for y in curves(axes).values():
            assert low < y.min() and y.max() < high


def test_the_legend_names_what_is_drawn_with_the_last_test_errors():
    figure = plots.draw_path(path(3), REFERENCE, DIRECT)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "compressed net Δ(θ), 10.43% test", "weights w, 2.02% test",
        "direct compression, 19.11% test", "reference, 2.13% test", "test", "train"]


def test_a_path_with_missing_errors_draws_the_ones_there_are(tmp_path):
    history = path(4)
    for record in history:
        record["train_error"] = None
        del record["compressed_train_error"]
    history[2]["compressed_test_error"] = None
    figure = plots.draw_path(history, {"test_error": 2.13}, {"test_error": None})
    drawn = curves(figure.axes[0])
    assert set(drawn) == {("reference", "-"), ("weights w", "-"), ("compressed net Δ(θ)", "-")}
    assert list(np.isnan(drawn["compressed net Δ(θ)", "-"])) == [False, False, True, False]
    assert [text.get_text() for text in figure.legends[0].get_texts()][-2:] == [
        "reference, 2.13% test", "test"]
    written(figure, tmp_path)


def test_a_path_without_any_error_draws_the_losses(tmp_path):
    history = [{k: v for k, v in r.items() if "error" not in k} for r in path(4)]
    figure = plots.draw_path(history, REFERENCE, DIRECT)
    drawn = curves(figure.axes[0])
    assert figure.axes[0].get_ylabel() == "loss"
    np.testing.assert_array_equal(drawn["weights w", "-"], [r["loss"] for r in history])
    np.testing.assert_array_equal(drawn["compressed net Δ(θ)", "-"],
                                  [r["compressed_loss"] for r in history])
    np.testing.assert_array_equal(drawn["direct compression", "-"], [0.6, 0.6])
    written(figure, tmp_path)


def test_a_path_of_one_step_is_drawn(tmp_path):
    figure = plots.draw_path(path(1), REFERENCE, DIRECT)
    low, high = figure.axes[1].get_xlim()
    assert low < 9e-5 < high
    written(figure, tmp_path)


def test_a_path_of_constant_mu_runs_over_the_lc_steps(tmp_path):
    history = [{**r, "mu": 1.0} for r in path(6)]
    figure = plots.draw_path(history, REFERENCE, DIRECT)
    assert figure.axes[1].get_xlabel() == "LC step"
    np.testing.assert_array_equal(figure.axes[1].get_lines()[0].get_xdata(), range(1, 7))
    written(figure, tmp_path)


def test_a_path_that_becomes_feasible_is_drawn_down_to_zero(tmp_path):
    history = path(6)
    history[-1]["feasibility"] = 0.0
    figure = plots.draw_path(history, REFERENCE, DIRECT)
    assert figure.axes[1].get_ylim()[0] < 0
    written(figure, tmp_path)
    written(plots.draw_path([{**r, "feasibility": 0.0} for r in history], {}, {}), tmp_path)


def test_a_path_with_an_infinite_feasibility_is_drawn_over_the_finite_ones(tmp_path):
    history = path(6)
    history[0]["feasibility"] = np.inf
    figure = plots.draw_path(history, REFERENCE, DIRECT)
    low, high = figure.axes[1].get_ylim()
    assert low < history[5]["feasibility"] < history[1]["feasibility"] < high < np.inf
    written(figure, tmp_path)


def test_an_empty_path_is_an_error():
    with pytest.raises(ValueError, match="at least one LC step"):
        plots.draw_path([], REFERENCE, DIRECT)


# ---- the distribution of the parts -------------------------------------------------------------


def heights(axes):
    return np.array([bar.get_height() for bar in axes.patches])


def test_the_parts_show_every_weight_once_in_w_and_in_the_sum():
    w, bits, corrections = (a.ravel() for a in layer())
    figure = plots.draw_parts([("1 bit", bits, None), ("corrections", corrections,
                                                       corrections != 0)], w)
    weights, _, sparse, total = figure.axes
    assert heights(weights).sum() == heights(total).sum() == w.size
    assert heights(sparse).sum() == 192
    assert "192 nonzeros of 19,200 (1%)" in sparse.get_title("left")
    counts, _ = np.histogram(bits + corrections, [*(bar.get_x() for bar in total.patches), np.inf])
    np.testing.assert_array_equal(heights(total), counts)


def test_a_codebook_is_a_bar_a_value_as_high_as_its_share(tmp_path):
    values = np.repeat([-0.5, 0.1, 0.4], [20, 120, 60])
    figure = plots.draw_parts([("k = 3", values, None)], values)
    bars, = figure.axes[1].collections
    np.testing.assert_allclose([segment[1] for segment in bars.get_segments()],
                               [[-0.5, 10], [0.1, 60], [0.4, 30]])
    assert figure.axes[1].get_title("left") == "k = 3, 3 distinct values: −0.5, 0.1, 0.4"
    written(figure, tmp_path)


def test_a_codebook_of_sixteen_is_bars_and_of_seventeen_a_histogram():
    for k, bars in ((16, 1), (17, 0)):
        values = np.arange(170) % k / k
        assert len(plots.draw_parts([("k", values, None)], values).axes[1].collections) == bars


def test_one_part_has_no_panel_for_the_sum(tmp_path):
    w, bits, _ = (a.ravel() for a in layer())
    figure = plots.draw_parts([("1 bit", bits, None)], w)
    assert len(figure.axes) == 2
    written(figure, tmp_path)


def test_a_part_without_corrections_says_so(tmp_path):
    w, bits, zero = (a.ravel() for a in layer(kappa=0))
    figure = plots.draw_parts([("1 bit", bits, None), ("corrections", zero, zero != 0)], w)
    assert "0 nonzeros of 19,200 (0%)" in figure.axes[2].get_title("left")
    assert figure.axes[2].texts[0].get_text() == "no nonzeros"
    written(figure, tmp_path)


def test_the_distribution_of_a_single_weight_or_of_zeros_is_drawn(tmp_path):
    for w in (np.array([0.3]), np.zeros(7)):
        figure = plots.draw_parts([("1 bit", w, None), ("corrections", 0 * w, w != w)], w)
        written(figure, tmp_path)


# ---- one layer as the sum of its parts ---------------------------------------------------------


def images(figure):
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def images_limits(figure):
    return {axes.images[0].get_clim() for axes in figure.axes if axes.images}


def signs(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_layer_is_the_reference_its_sum_and_its_parts_on_one_colour_scale(tmp_path):
    w, bits, corrections = layer(50, 30, kappa=200)
    figure = plots.draw_layer("fc1.weight", w, [("1 bit", bits), ("corrections", corrections)])
    for shown, values in zip(images(figure), (w, bits + corrections, bits, corrections),
                             strict=True):
        np.testing.assert_array_equal(shown, values)
    assert signs(figure) == ["≈", "=", "+"]
    (low, high), = images_limits(figure)
    assert low == -high < 0
    written(figure, tmp_path)


def test_few_corrections_are_dots_at_their_positions():
    w, bits, corrections = layer(60, 50, kappa=30)
    figure = plots.draw_layer("fc1.weight", w, [("1 bit", bits), ("corrections", corrections)])
    dots, = figure.axes[3].collections
    rows, columns = np.nonzero(corrections)
    np.testing.assert_array_equal(dots.get_offsets(), np.stack([columns, rows], axis=1))
    np.testing.assert_array_equal(dots.get_array(), corrections[rows, columns])
    assert dots.get_clim() == figure.axes[0].images[0].get_clim()


def test_a_large_layer_is_cropped_and_its_title_says_where():
    w, bits, corrections = layer(300, 64)
    figure = plots.draw_layer("fc1.weight", w, [("1 bit", bits), ("corrections", corrections)])
    assert figure.get_suptitle() == "fc1.weight, 300 × 64: rows 1–100, columns 1–64"
    np.testing.assert_array_equal(images(figure)[0], w[:100])
    whole, _, _ = layer(120, 64)
    assert plots.draw_layer("fc2", whole, [("1 bit", whole)]).get_suptitle() == "fc2, 120 × 64"


def test_a_convolution_is_drawn_as_filters_by_the_rest():
    w = np.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
    figure = plots.draw_layer("conv1", w, [("w", w)])
    np.testing.assert_array_equal(images(figure)[0], np.arange(24.0).reshape(2, 12))


def test_a_sum_of_one_part_is_the_reference_beside_the_part(tmp_path):
    w, bits, _ = layer(10, 30)
    figure = plots.draw_layer("fc3.weight", w, [("1 bit", bits)])
    assert signs(figure) == ["≈"]
    np.testing.assert_array_equal(images(figure)[1], bits)
    written(figure, tmp_path)


def test_the_colours_of_a_layer_of_few_nonzeros_reach_its_largest_weight():
    w = np.zeros((10, 30))
    w[3, 4], w[5, 6] = 0.2, -0.4
    assert images_limits(plots.draw_layer("fc", w, [("w", w)])) == {(-0.4, 0.4)}
    assert images_limits(plots.draw_layer("fc", 0 * w, [("w", w)])) == {(-1.0, 1.0)}


def test_a_layer_of_one_weight_and_a_layer_of_zeros_are_drawn(tmp_path):
    for w in (np.full((1, 1), 0.3), np.zeros((50, 50)), np.array([0.1, -0.2])):
        figure = plots.draw_layer("fc", w, [("1 bit", w), ("corrections", 0 * w)])
        written(figure, tmp_path)


# ---- files -------------------------------------------------------------------------------------


def test_each_picture_is_written_as_a_png_and_its_path_returned(tmp_path):
    w, bits, corrections = layer()
    flat = [("1 bit", bits.ravel(), None), ("corrections", corrections.ravel(),
                                            corrections.ravel() != 0)]
    files = [
        plots.path_figure(path(8), REFERENCE, DIRECT, str(tmp_path / "path.png")),
        plots.parts_figure(flat, w.ravel(), tmp_path / "parts.png"),
        plots.layer_figure("fc1", w, [("1 bit", bits), ("corrections", corrections)],
                           tmp_path / "layer.png")]
    assert files == [tmp_path / name for name in ("path.png", "parts.png", "layer.png")]
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG")
        assert imread(file).shape[1] == 1800


def test_the_same_numbers_make_the_same_bytes(tmp_path):
    one, two = (plots.path_figure(path(3), REFERENCE, DIRECT, tmp_path / f"{i}.png").read_bytes()
                for i in range(2))
    assert one == two
