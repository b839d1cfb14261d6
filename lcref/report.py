"""The page of a sweep: its two pictures with the settings of each point, and a table to sort.

One HTML file that holds all it needs, BokehJS too, and tells the browser to load nothing. All text
from the results is escaped; what the page shows of it is text, never HTML.
"""

import json
import re
import shlex
from collections import Counter
from html import escape
from math import nan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from bokeh.embed import file_html
from bokeh.models import (CDSView, ColumnDataSource, FixedTicker, HoverTool, IndexFilter, LogAxis,
                          PrintfTickFormatter, Range1d)
from bokeh.models.widgets.tables import (DataTable, NumberFormatter, ScientificFormatter,
                                         StringFormatter, TableColumn)
from bokeh.plotting import figure
from bokeh.resources import INLINE

from .choice import command, describe, error_of, no_cell, settings_of
from .folder import write_whole
from .sweep_plots import DIRECT, FAINT, FRONTS, QUANTITIES, looks, points, ratio_title

NUMBERS = {"ratio": "ratio", "test": "test, %", "held_out": "held-out, %", "train": "train, %",
           "loss": "loss", "direct": "direct, %", "reference": "reference, %"}
HELD_OUT = ", held-out @held_out{0.00} %"
HOVER = f"""<div style="max-width: 32em; white-space: pre-line; overflow-wrap: anywhere"
><b>@kind</b>
ratio @ratio{{0.00}}, test error @test{{0.00}} %{HELD_OUT}
reference @reference{{0.00}} %, direct compression @direct{{0.00}} %, loss @loss{{%.3g}}
@settings
@key</div>"""
PAGE = """
{% block preamble %}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:;
 script-src 'unsafe-inline'; style-src 'unsafe-inline'; font-src data:">
{% endblock %}
{% block postamble %}
<style>
body { font: 14px/1.45 sans-serif; margin: 0 auto; max-width: 1200px; padding: 0 1em 3em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 1.6em; }
pre { background: #f4f4f4; overflow-x: auto; padding: .6em; white-space: pre-wrap; }
td, th { border-bottom: 1px solid #ddd; padding: .2em .8em .2em 0; text-align: left;
         vertical-align: top; overflow-wrap: anywhere; }
th { white-space: nowrap; }
</style>
{% endblock %}
{% block contents %}
{% from macros import embed %}
<h1>{{ heading }}</h1>
<p>{{ summary }}</p>
{{ chosen }}
<h2>Test error against ratio</h2>
<p>{{ error_note }}</p>
{{ embed(roots.test_error) }}
<h2>Training loss against ratio</h2>
{{ embed(roots.loss) }}
<h2>All cells</h2>
<p>{{ table_note }}</p>
{{ embed(roots.cells) }}
{{ rest }}
{% endblock %}
"""
CHOSEN = "#D4006A"
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def write_page(cells, failed, args, chosen, satisfied, file) -> Path:
    """Write report.html; `args` are the flags of lcref plot, `chosen` a cell or None."""
    html = page(cells, failed, args, chosen, satisfied)
    write_whole(file, lambda stream: stream.write(html.encode("utf-8", errors="replace")))
    return file


def page(cells, failed, args, chosen=None, satisfied=True) -> str:
    """The page; the same for the same results, but for bokeh's count of its own objects."""
    source = ColumnDataSource(_columns(cells, args.storage))
    ringed = chosen if satisfied else None
    roots = [_plot(cells, quantity, source, args.storage, ringed) for quantity in QUANTITIES]
    html = file_html([*roots, _table(source, cells)], INLINE, f"Sweep {args.dir}", template=PAGE,
                     template_variables=_texts(cells, failed, args, chosen, satisfied))
    return _settled(html, set(UUID.findall(json.dumps([cells, failed]))))


def _settled(html, own):
    """The page with bokeh's random identifiers numbered; `own` are not bokeh's."""
    found = [uuid for uuid in dict.fromkeys(UUID.findall(html)) if uuid not in own]
    numbers = {uuid: f"{i:08x}-0000-4000-8000-000000000000" for i, uuid in enumerate(found)}
    return UUID.sub(lambda match: numbers.get(match.group(), match.group()), html)


# ---- the data of pictures and table ------------------------------------------------------------


def _columns(cells, storage):
    """The columns of the table, which the pictures share."""
    error, loss = (points(cells, quantity, storage) for quantity in QUANTITIES)
    nets = {"test": ("lc", "test_error"), "held_out": ("lc", "held_out_error"),
            "train": ("lc", "train_error"), "loss": ("lc", "loss"),
            "direct": ("direct", "test_error"), "reference": ("reference", "test_error")}
    columns: dict[str, Any] = {
        name: np.array([_number(cell["result"][net].get(key)) for cell in cells])
        for name, (net, key) in nets.items()}
    on_front, shared = set(error.front), _shared(cells)
    columns |= {"ratio": error.x, "direct_loss": loss.direct,
                "front": ["front" if i in on_front else "" for i in range(len(cells))],
                "kind": [cell["kind"] for cell in cells], "key": [cell["key"] for cell in cells],
                "settings": [settings_of(cell) for cell in cells],
                "own": [settings_of(cell, without=shared) for cell in cells]}
    for i, axis in enumerate(_axes(cells)):
        columns[f"axis{i}"] = [_shown(cell["axes"].get(axis, "")) for cell in cells]
    return columns


def _number(value):
    return nan if value is None else float(value)


def _shown(value):
    """A value of an axis: a number, so that it is sorted as one, to four digits; others as text."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return value if isinstance(value, int) else str(value)


def _shared(cells):
    """The settings that all cells have, by name."""
    first, *rest = (cell["settings"] for cell in cells)
    return {name: value for name, value in first.items()
            if all(name in other and other[name] == value for other in rest)}


def _axes(cells):
    """The names of all axes, in the order in which they are first met."""
    return list(dict.fromkeys(name for cell in cells for name in cell["axes"]))


# ---- pictures ----------------------------------------------------------------------------------


def _plot(cells, quantity, source, storage, chosen):
    """One picture: the reference nets, direct compression, each kind of sum, and the front."""
    shown = points(cells, quantity, storage)
    plot = _frame(shown, quantity, storage)
    if not np.isnan(shown.reference).any():
        plot.hspan(list(shown.reference), line_color="black", line_dash="dashed",
                   legend_label="reference")
    y, direct = ("test", "direct") if quantity == "test_error" else ("loss", "direct_loss")
    plot.scatter("ratio", direct, source=source, size=4, color=FAINT, legend_label=DIRECT,
                 nonselection_alpha=0.3)
    hover = HOVER.replace(HELD_OUT, "") if np.isnan(source.data["held_out"]).all() else HOVER
    plot.add_tools(HoverTool(renderers=_kinds(plot, shown, source, y), tooltips=hover, limit=5,
                             formatters={"@loss": "printf"}))
    plot.step(shown.x[shown.front], shown.y[shown.front], mode="before", color="black",
              line_width=1.3, legend_label=FRONTS[quantity])
    if chosen is not None:
        at = cells.index(chosen)
        plot.scatter(shown.x[[at]], shown.y[[at]], size=20, fill_color=None, line_color=CHOSEN,
                     line_width=3, legend_label="chosen")
    return _with_legend(plot)


def _frame(shown, quantity, storage):
    """A picture without contents: its axes and tools."""
    values = np.concatenate([shown.y, shown.direct, shown.reference])
    values = values[np.isfinite(values)]
    scale: Literal["log", "linear"] = "log" if values.min() > 0 else "linear"  # log has no 0
    plot = figure(name=quantity, height=480, sizing_mode="stretch_width", x_axis_type="log",
                  y_axis_type=scale, x_range=_range(shown.x[np.isfinite(shown.y)], "log"),
                  y_range=_range(values, scale), x_axis_label=ratio_title(storage),
                  y_axis_label=QUANTITIES[quantity], toolbar_location="above",
                  tools="pan,wheel_zoom,box_zoom,box_select,tap,reset,save",
                  active_drag="box_zoom")
    plot.toolbar.logo = None
    _plain_ticks(plot)
    return plot


def _kinds(plot, shown, source, y):
    """Draw the points of each kind, and return what was drawn."""
    kinds, counted = np.array(shown.kinds), Counter(shown.kinds)
    size = 9 if len(kinds) <= 300 else 6
    return [plot.scatter("ratio", y, source=source, marker=marker, size=size, fill_color=color,
                         line_color="#333333", line_width=0.5, fill_alpha=0.85,
                         nonselection_alpha=0.15, legend_label=f"{kind}, {counted[kind]:,}",
                         view=CDSView(filter=IndexFilter(
                             indices=np.flatnonzero(kinds == kind).tolist())))
            for kind, (color, _, marker) in looks(shown.kinds).items()]


def _with_legend(plot):
    """Move the legend out of the picture; a click on an entry hides what it names."""
    legend = plot.legend[0]
    legend.click_policy, legend.border_line_color = "hide", None
    legend.label_text_font_size = "9pt"
    plot.add_layout(legend, "right")
    return plot


def _plain_ticks(plot):
    """Ticks written 0.1, 1, 2, 5, 10 on the logarithmic axes, but for short ones."""
    for axis, shown in zip(plot.axis, (plot.x_range, plot.y_range)):
        span = shown.end / shown.start
        if isinstance(axis, LogAxis) and span > 4:
            steps = (1, 2, 3, 5, 7) if span < 100 else (1, 2, 5) if span < 1000 else (1,)
            axis.update(formatter=PrintfTickFormatter(format="%g"), ticker=FixedTicker(
                ticks=[step * 10.0**decade for decade in range(-12, 10) for step in steps]))


def _range(values, scale):
    """The range of the values and a margin."""
    low, high = float(values.min()), float(values.max())
    if scale == "log":
        margin = max((high / low) ** 0.05, 1.005)
        return Range1d(start=low / margin, end=high * margin)
    margin = max(0.05 * (high - low), 0.01)
    return Range1d(start=low - margin, end=high + margin)


# ---- table and text ----------------------------------------------------------------------------


def _table(source, cells):
    """All cells: their numbers, their axes and settings."""
    known = [name for name in NUMBERS if not np.isnan(np.asarray(source.data[name])).all()]
    text = StringFormatter()
    columns = [TableColumn(field="kind", title="kind", width=130, formatter=text)]
    percent, loss = NumberFormatter(format="0.00", nan_format="-"), ScientificFormatter(precision=3)
    columns += [TableColumn(field=name, title=NUMBERS[name], width=85,
                            formatter=loss if name == "loss" else percent) for name in known]
    columns += [TableColumn(field=f"axis{i}", title=escape(name), width=80, formatter=text)
                for i, name in enumerate(_axes(cells))]
    columns += [TableColumn(field=name, title=title, width=width, formatter=text)
                for name, title, width in (("front", "front", 50), ("own", "settings", 420),
                                           ("key", "key", 260))]
    return DataTable(source=source, columns=columns, name="cells", index_position=None,
                     height=min(460, 60 + 25 * len(cells)), reorderable=False,
                     sizing_mode="stretch_width", autosize_mode="none")


def _texts(cells, failed, args, chosen, satisfied):
    """The texts of the page, escaped."""
    kinds = Counter(cell["kind"] for cell in cells)
    summary = (f"Cells with a result: {len(cells):,}, failed: {len(failed):,}. Kinds of sum: " +
               ", ".join(f"{kind} ({count:,})" for kind, count in sorted(kinds.items())) + ".")
    note = ("The front is that of the test errors, to look at; lcref best chooses by the held-out "
            "errors. Hover over a point for its settings; a click on an entry of the legend "
            "hides what it names. Direct compression is drawn at the ratio of the cell.")
    table = ("A click on the head of a column sorts; selected rows are selected in the pictures as "
             f"well. All cells have: {settings_of({'settings': _shared(cells)}) or 'nothing'}.")
    return {"heading": escape(f"Sweep {args.dir}"), "summary": escape(summary),
            "table_note": escape(table),
            "error_note": escape(note), "rest": _failed(failed) + _made(cells, args),
            "chosen": _chosen(cells, failed, args, chosen, satisfied)}


def _chosen(cells, failed, args, chosen, satisfied):
    """The section on the chosen cell, if one was asked for."""
    if chosen is None:
        return ""
    if satisfied:
        title, text = "The chosen cell", describe(chosen, args, len(cells), len(failed))
    else:
        title = "No cell is within the limit"
        text = f"{no_cell(chosen, args)}\n\n{command(chosen)}"
    return f"<h2>{title}</h2>\n<pre>{escape(text)}</pre>"


def _failed(failed):
    """The section on failed cells: each error once, with an example."""
    if not failed:
        return ""
    counted = Counter(error_of(cell) for cell in failed)
    examples = {error_of(cell): cell for cell in reversed(failed)}
    rows = "\n".join(
        f"<tr><td>{count:,}</td><td>{escape(line)}</td>"
        f"<td>{escape(settings_of(examples[line]))} ({escape(examples[line]['key'])})<details>"
        f"<summary>traceback</summary><pre>{escape(examples[line]['traceback'])}</pre></details>"
        "</td></tr>" for line, count in counted.most_common())
    return (f"<h2>Failed cells: {len(failed):,}</h2>\n<table><tr><th>cells</th><th>error</th>"
            f"<th>the first of them</th></tr>\n{rows}</table>")


def _made(cells, args):
    """The section on what made the results and the page: commands, versions, the design."""
    versions = {", ".join(f"{name} {version}" for name, version in sorted(
        cell["result"]["versions"].items())) for cell in cells}
    words = ["lcref", "plot", str(args.dir)]
    for name in ("max_error", "min_ratio", "storage", "out"):
        if getattr(args, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    design = args.dir / "design.json"
    text = design.read_text(encoding="utf-8", errors="replace") if design.is_file() else ""
    return (f"<h2>How it was made</h2>\n<p>Results: {escape('; '.join(sorted(versions)))}.</p>"
            f"<p>This page:</p><pre>{escape(shlex.join(words))}</pre>"
            + (f"<p>The design:</p><pre>{escape(text)}</pre>" if text else ""))
