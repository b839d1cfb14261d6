"""The page of a sweep needs nothing but itself, shows text as text, and works in a browser."""

import html.parser
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import sweep_results
from matplotlib.image import imread
from playwright.sync_api import expect, sync_playwright

from lcref import choice, cli

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)
# Loaded, run or shown if it were taken as HTML, TeX or a template.
EVIL = ('<img src="http://lcref.invalid/a.png" onerror="window.evil = 1"></script>'
        '<script>window.evil = 1</script><b class=evil>&amp;</b> $$\\alpha$$ {{ 7 * 7 }} @key')
expect.set_options(timeout=30_000)
LOADS = ("src", "srcset", "data", "poster", "background", "action", "formaction")


def evil(cells):
    """The cells with EVIL wherever a file of a sweep, or an error, may bring a text in."""
    for cell in cells:
        cell["settings"]["compress"] += EVIL
        cell["axes"] |= {f"axis {EVIL}": EVIL}
        if "result" in cell:
            cell["kind"] += EVIL * (cell["kind"] == "prune")
            cell["result"]["versions"]["numpy"] = EVIL
        else:
            cell["error"] += EVIL
            cell["traceback"] += EVIL
    return cells


def plot(folder, cells, *arguments):
    """The text of the page of some cells."""
    sweep_results.write(folder, cells)
    assert cli.main(["plot", str(folder), "--quiet", *arguments]) == 0
    return (folder / "report.html").read_text(encoding="utf-8")


class Page(html.parser.HTMLParser):
    """What a page holds: its tags, its texts outside of scripts, its data for bokeh."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.json, self.open = [], "", "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.open = [(tag, dict(attrs))]

    def handle_endtag(self, tag):
        self.open = []

    def handle_data(self, data):
        if not self.open:
            self.text += data
        elif self.open[0][1].get("type") == "application/json":
            self.json += data


def fields(page):
    """The columns of the page's data by name; numbers in arrays are left out."""
    source, = [model for model in walk(json.loads(html.unescape(page.json)))
               if model.get("name") == "ColumnDataSource" and "own" in str(model)]
    return dict(source["attributes"]["data"]["entries"])


def walk(tree):
    if isinstance(tree, dict):
        yield tree
    for branch in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(branch, (dict, list)):
            yield from walk(branch)


def test_the_page_loads_nothing_and_forbids_it(tmp_path):
    page = Page(plot(tmp_path, evil(sweep_results.cells(20, failed=2)), "--min-ratio", "4"))
    assert [(tag, attrs) for tag, attrs in page.tags
            if tag in ("link", "iframe", "object", "embed", "base", "img")
            or any(attrs.get(name) is not None for name in LOADS)] == []
    policy, = [attrs["content"] for _, attrs in page.tags
               if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http" not in policy and "eval" not in policy


def test_texts_of_results_are_texts_on_the_page(tmp_path):
    page = Page(plot(tmp_path, evil(sweep_results.cells(20, failed=2)), "--min-ratio", "4"))
    assert [attrs for _, attrs in page.tags if attrs.get("class") == "evil"] == []
    assert page.text.count(EVIL) >= 6    # kind, chosen cell, error, settings, traceback, versions
    assert EVIL in fields(page)["settings"][0]


def test_every_cell_with_a_result_is_in_the_data_of_the_page(tmp_path):
    cells = sweep_results.cells(30, failed=4)
    columns = fields(Page(plot(tmp_path, cells)))
    keys = sorted(cell["key"] for cell in cells[:30])
    assert columns["key"] == keys
    kinds = {cell["key"]: cell["kind"] for cell in cells}
    assert columns["kind"] == [kinds[key] for key in keys]


def test_settings_that_all_cells_share_are_told_once(tmp_path):
    page = Page(plot(tmp_path, sweep_results.cells(5)))
    assert "All cells have: --data digits --reference-epochs 30 --hold-out 0.1." in page.text
    for text in fields(page)["own"]:
        assert re.match(r"--compress '[a-z +]* keep=[\d.]*' --seed \d$", text)


def test_failed_cells_are_counted_by_their_error_with_an_example_and_its_traceback(tmp_path):
    cells = sweep_results.cells(3, failed=5)
    cells[-1] |= {"error": "MemoryError: 3 GB\n  here\n    ^", "traceback": "Traceback\n  of it\n"}
    page = Page(plot(tmp_path, cells))
    assert "Cells with a result: 3, failed: 5" in page.text and "Failed cells: 5" in page.text
    text = " ".join(page.text.split())
    first = min(cells[3:7], key=lambda cell: cell["key"])
    assert f"4ValueError: keep=2.0 must be a share, from 0 to 1{choice.settings_of(first)}" in text
    last = f"{choice.settings_of(cells[-1])} ({cells[-1]['key']})"
    assert f"1MemoryError: 3 GB{last}tracebackTraceback of it" in text


def test_the_page_tells_the_chosen_cell_the_versions_the_commands_and_the_design(tmp_path):
    cells = sweep_results.cells(20)
    (tmp_path / "design.json").write_text('{"grid": ["<b>"]}', encoding="utf-8")
    text = Page(plot(tmp_path, cells, "--max-error", "4", "--storage", "float16")).text
    chosen, _ = choice.best(cells, max_error=4, storage="float16")
    assert "The chosen cell" in text and choice.command(chosen) in text
    assert "lcref 0.1.0, numpy 2.4.6" in text and '{"grid": ["<b>"]}' in text
    assert f"lcref plot {tmp_path} --max-error 4.0 --storage float16" in text
    assert "The chosen cell" not in Page(plot(tmp_path, cells)).text


def test_the_page_of_a_thousand_cells_is_under_five_megabytes(tmp_path):
    assert len(plot(tmp_path, sweep_results.cells(1000)).encode()) < 5e6


def test_results_with_a_zero_with_a_nan_and_of_one_cell_make_a_page(tmp_path):
    cells = sweep_results.cells(6)
    cells[0]["result"]["lc"] |= {"test_error": 0.0, "loss": 0.0}
    cells[1]["result"]["lc"]["loss"] = cells[2]["result"]["reference"]["loss"] = float("nan")
    for cell in cells:
        del cell["result"]["lc"]["held_out_error"]
    assert "held-out @held_out" not in plot(tmp_path / "six", cells)
    assert "Cells with a result: 1, failed: 0" in plot(tmp_path / "one", sweep_results.cells(1))


# ---- lcref plot --------------------------------------------------------------------------------


def lcref(*arguments, blocked=()):
    """A run in a process of its own, without some packages."""
    code = ("import sys; sys.modules.update(dict.fromkeys(%r)); from lcref import cli; "
            "sys.exit(cli.main())" % (list(blocked),))
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], text=True,
                          capture_output=True, timeout=300)


def test_plot_writes_three_files_and_prints_their_paths(tmp_path, capsys):
    sweep_results.write(tmp_path / "sweep", sweep_results.cells(9, failed=1))
    out = tmp_path / "a" / "pictures"
    names = [str(out / name) for name in ("error-ratio.png", "loss-ratio.png", "report.html")]
    assert cli.main(["plot", str(tmp_path / "sweep"), "--out", str(out)]) == 0
    assert capsys.readouterr() == ("\n".join(names) + "\n", "")
    assert sorted(str(file) for file in out.iterdir()) == names
    for name in names[:2]:
        assert imread(name).shape[1] == 1800
    assert cli.main(["plot", str(tmp_path / "sweep"), "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"files": names, "cells": 9, "failed": 1}
    assert printed.err.splitlines() == names


def test_the_same_results_make_the_same_page_in_every_process(tmp_path):
    cells = sweep_results.cells(9, compress="prune(keep=0.1) 01234567-89ab-4def-8123-456789abcdef")
    sweep_results.write(tmp_path, cells)
    pages = []
    for _ in range(2):
        assert lcref("plot", tmp_path).returncode == 0
        pages.append((tmp_path / "report.html").read_bytes())
    assert pages[0] == pages[1]
    assert b"01234567-89ab-4def-8123-456789abcdef" in pages[0]


def test_without_bokeh_plot_says_what_to_install_and_best_works(tmp_path):
    sweep_results.write(tmp_path, sweep_results.cells(9))
    done = lcref("plot", tmp_path, blocked=["bokeh"])
    assert done.returncode == 2 and "pip install 'lcref[report]'" in done.stderr
    assert done.stderr.count("\n") == 1 and os.listdir(tmp_path) == ["cells"]
    assert lcref("best", tmp_path, "--min-ratio", 1, blocked=["bokeh"]).returncode == 0


def test_plot_with_a_limit_that_no_cell_meets_draws_and_ends_with_status_1(tmp_path, capsys):
    sweep_results.write(tmp_path, sweep_results.cells(9))
    assert cli.main(["plot", str(tmp_path), "--max-error", "0.1"]) == 1
    assert "no cell has a held-out error of at most 0.1%" in capsys.readouterr().err
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "No cell is within the limit" in text and "the nearest has" in text


def test_plot_of_failed_cells_alone_is_an_error_that_quotes_one(tmp_path, capsys):
    sweep_results.write(tmp_path, sweep_results.cells(0, failed=3))
    assert cli.main(["plot", str(tmp_path)]) == 2
    assert "all 3 cells in" in (err := capsys.readouterr().err) and "keep=2.0 must be" in err


# ---- in a browser ------------------------------------------------------------------------------

# The places of a cell's point in a picture, in pixels of the window.
PLACE = """([picture, column, key]) => {
    const page = Bokeh.documents[0]
    const model = page.get_model_by_name(picture), source = page.get_model_by_name("cells").source
    const view = [...Bokeh.index.roots].find((view) => view.model === model)
    const i = source.get_column("key").indexOf(key)
    const box = view.canvas_view.el.getBoundingClientRect()
    return [box.left + view.frame.x_scale.compute(source.get_column("ratio")[i]),
            box.top + view.frame.y_scale.compute(source.get_column(column)[i])]
}"""
RENDERED = "window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle"


@pytest.fixture(scope="module")
def browser():
    """A headless browser, where there is one."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH to show the page in")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def shown(browser, tmp_path):
    """Open the page of some cells without a network; any request or complaint is a failure."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(60_000)
    file, wrong = tmp_path / "report.html", []

    def request(route):
        if route.request.url == file.as_uri():
            return route.continue_()
        wrong.append(route.request.url)
        route.abort()

    def show(cells, *arguments):
        plot(tmp_path, cells, *arguments)
        tab.goto(file.as_uri())
        tab.wait_for_function(RENDERED)
        return tab

    context.route("**/*", request)
    context.set_offline(True)
    tab = context.new_page()
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda message: message.type in ("error", "warning")
           and wrong.append(message.text))
    yield show
    tab.wait_for_timeout(200)   # for what an event has started
    context.close()
    assert wrong == []


def column(tab, name):
    """The texts that the table shows under a title, from the top."""
    heads = tab.locator(".slick-header-column").all_inner_texts()
    rows = tab.locator(".slick-row").all()
    texts = {row.evaluate("row => row.getBoundingClientRect().top"):
             row.locator(".slick-cell").nth(heads.index(name)).inner_text() for row in rows}
    return [texts[top] for top in sorted(texts)]


def test_the_page_is_drawn_and_shows_every_text_as_it_is(shown, tmp_path):
    tab = shown(evil(sweep_results.cells(20, failed=2)), "--min-ratio", "4")
    assert tab.locator("canvas").count() >= 2
    assert tab.evaluate("window.evil") is None
    assert tab.locator(".evil").count() == 0
    axis, = [text for text in tab.locator(".slick-header-column").all_inner_texts()
             if text.startswith("axis")]
    assert axis == f"axis {EVIL}"
    assert set(column(tab, axis)) == {EVIL}
    tab.screenshot(path=tmp_path / "page.png", full_page=True)
    pixels = imread(tmp_path / "page.png")
    assert pixels.shape[0] > 1500 and 0.01 < (pixels[..., :3].min(axis=2) < 0.9).mean() < 0.5


def hover(tab, picture, value, cell):
    """Move the mouse to a cell's point."""
    _, y = tab.evaluate(PLACE, [picture, value, cell["key"]])
    tab.evaluate("(y) => window.scrollBy(0, y)", y - 600)
    x, y = tab.evaluate(PLACE, [picture, value, cell["key"]])
    tab.mouse.move(x - 60, y - 60)
    tab.mouse.move(x, y)


def tooltip(tab, cell):
    """The innermost box that shows a cell's key in a tooltip; the table's are no such boxes."""
    return tab.locator("div[style*=pre-line]").filter(has_text=cell["key"])


@pytest.mark.parametrize("picture, value", [("test_error", "test"), ("loss", "loss")])
def test_a_point_under_the_mouse_shows_its_settings_errors_ratio_and_key(shown, picture, value):
    cells = evil(sweep_results.cells(12))
    tab = shown(cells)
    cell = max(cells, key=lambda cell: cell["result"]["ratio"]["float32"])
    hover(tab, picture, value, cell)
    expect(tooltip(tab, cell)).to_be_visible()
    text, result = tooltip(tab, cell).inner_text(), cell["result"]
    for part in (cell["kind"], choice.settings_of(cell), cell["key"],
                 f"ratio {result['ratio']['float32']:.2f}",
                 f"test error {result['lc']['test_error']:.2f} %",
                 f"held-out {result['lc']['held_out_error']:.2f} %",
                 f"reference {result['reference']['test_error']:.2f} %",
                 f"direct compression {result['direct']['test_error']:.2f} %"):
        assert part in text
    loss = float(re.search(r"loss (\S*)$", text, re.MULTILINE).group(1))
    assert loss == pytest.approx(result["lc"]["loss"], rel=5e-3)    # three digits
    assert tab.evaluate("window.evil") is None


def test_a_click_on_the_head_of_a_column_sorts_the_cells_by_it(shown):
    cells = sweep_results.cells(12)
    tab = shown(cells)
    ratios = sorted(cell["result"]["ratio"]["float32"] for cell in cells)
    head = tab.locator(".slick-header-column").filter(has_text=re.compile("^ratio$"))
    for ordered in (ratios, ratios[::-1]):
        head.click()
        wanted = [f"{ratio:.2f}" for ratio in ordered]
        expect(tab.locator(".slick-row")).to_have_count(12)
        assert column(tab, "ratio") == wanted
    tab.locator(".slick-header-column").filter(has_text=re.compile("^keep$")).click()
    keeps = [float(text) for text in column(tab, "keep")]
    assert keeps == sorted(keeps)


def test_a_row_that_is_clicked_is_selected_in_the_pictures_and_a_point_in_the_table(shown):
    cells = sorted(sweep_results.cells(12), key=lambda cell: cell["key"])
    tab = shown(cells)
    selected = "Bokeh.documents[0].get_model_by_name('cells').source.selected.indices"
    tab.locator(".slick-cell", has_text=cells[3]["kind"]).first.click()
    first = next(i for i, cell in enumerate(cells) if cells[3]["kind"] in cell["kind"])
    assert tab.evaluate(selected) == [first]
    cell = max(cells, key=lambda cell: cell["result"]["ratio"]["float32"])
    hover(tab, "test_error", "test", cell)
    tab.mouse.down()
    tab.mouse.up()
    tab.wait_for_function(f"{selected}[0] === {cells.index(cell)}")
    expect(tab.locator(".slick-row .selected").first).to_be_attached()
    assert [row.locator(".slick-cell").first.inner_text() for row in tab.locator(
        ".slick-row").filter(has=tab.locator(".selected")).all()] == [cell["kind"]]


def test_a_click_on_an_entry_of_the_legend_hides_its_kind_and_another_shows_it(shown):
    cells = sweep_results.cells(12)
    tab = shown(cells)
    cell = max(cells, key=lambda cell: cell["result"]["ratio"]["float32"])
    entry = tab.get_by_text(re.compile(rf"^({re.escape(cell['kind'])}|other kinds), \d+$")).first
    for visible in (True, False, True):
        hover(tab, "test_error", "test", cell)
        expect(tooltip(tab, cell)).to_have_count(int(visible))
        entry.click()
