"""The pages that pdoc makes of the docstrings, and the examples in those."""

import doctest
import html
import importlib
import inspect
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import textwrap
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

import lcref
from lcref import projections
from lcref.explain import explanations

ROOT = Path(__file__).parent.parent
STABLE = ("lcref", "lcref.projections", "lcref.lsteps", "lcref.nets", "lcref.data",
          "lcref.storage", "lcref.inference", "lcref.verify")     # as the README says
PUBLIC = (*STABLE, "lcref.compressions", "lcref.choice")
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


def command():
    """The words of the README's command that makes the pages."""
    (line,) = re.findall(r"^\.venv/bin/python (.*-m pdoc .*)$", (ROOT / "README.md").read_text(),
                         re.M)
    return shlex.split(line)


# ---- the docstrings


def offered():
    """Every public function and class of the stable modules, with its full name, once."""
    found = {}
    for module in STABLE:
        names = importlib.import_module(module).__all__
        for name in names:
            thing = getattr(importlib.import_module(module), name)
            if callable(thing) and thing not in found.values():
                found[f"{module}.{name}"] = thing
    return found


OFFERED = offered()


def described(text, *sections):
    """The names in sections of a docstring, "x, y : arrays" as x and y; None without such."""
    parts = re.split(r"^(\w+)\n-+$", text, flags=re.M)
    bodies = [body for title, body in zip(parts[1::2], parts[2::2]) if title in sections]
    return {name.strip() for body in bodies for line in re.findall(r"^\S.*", body, re.M)
            for name in line.split(" : ")[0].split(",")} if bodies else None


@pytest.mark.parametrize("name", OFFERED)
def test_every_parameter_and_what_is_returned_is_described(name):
    thing, text = OFFERED[name], inspect.getdoc(OFFERED[name])
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return assert_says_when(text)
    raw = getattr(thing, "fun", thing)      # of a primitive of autograd
    takes = inspect.signature(raw).parameters
    given = described(text, "Parameters", "Attributes") or set()
    assert takes.keys() <= given if inspect.isclass(thing) else takes.keys() == given
    if not inspect.isclass(thing) and inspect.signature(raw).return_annotation is not None:
        assert described(text, "Returns", "Yields")


def assert_says_when(text):
    assert len(text) > 40 and text[0].isupper()


# ---- the pages


class Page(HTMLParser):
    """The anchors of a page, where it links to, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loads = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.anchors |= {named["id"]} if "id" in named else set()
        self.links += [named["href"]] if tag == "a" and "href" in named else []
        self.loads += [named[LOADED[tag]]] if named.get(LOADED.get(tag)) else []


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages by name of their module."""
    out = tmp_path_factory.mktemp("pages")
    words = command()
    words[words.index("-o") + 1] = str(out)
    # NumPy 2.0 asks lscpu for the processor when it is imported, which pdoc would not let it
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PDOC_ALLOW_EXEC": "1"}
    done = subprocess.run([sys.executable, "-W", "error", *words], capture_output=True, text=True,
                          cwd=ROOT, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return {".".join(file.relative_to(out).with_suffix("").parts): (file, Page(file.read_text()))
            for file in out.rglob("*.html")}


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_its_place_in_the_pages(pages, module):
    found = importlib.import_module(module)
    names = {name for name in found.__all__ if not inspect.ismodule(getattr(found, name))}
    assert names <= pages[module][1].anchors


def test_the_pages_need_no_network_and_no_link_leads_nowhere(pages):
    anchors = {file.resolve(): page.anchors for file, page in pages.values()}
    for file, page in pages.values():
        assert all(urlparse(place).scheme in ("", "data") for place in page.loads), file
        styles = re.findall(r"""(?:url\(|@import )\s*["']?([^"')]+)""", file.read_text())
        assert all(place.startswith("data:") for place in styles), file
        for link in page.links:
            there = urlparse(link)
            if not there.scheme:
                target = (file.parent / unquote(there.path)).resolve() if there.path else (
                    file.resolve())
                assert target.exists(), (file, link)
                assert there.fragment in anchors.get(target, ()) or not there.fragment, (file, link)


def description(thing):
    """The docstring before its first section."""
    return re.split(r"^\w+\n-+$", inspect.getdoc(thing), flags=re.M)[0]


@pytest.mark.parametrize("name", explanations())
def test_every_formula_on_lines_of_its_own_is_a_block_of_its_own_in_the_pages(pages, name):
    module, short = name.split(".")
    thing = getattr(importlib.import_module(f"lcref.{module}"), short)
    (file, page), (lcref_file, _) = pages[f"lcref.{module}"], pages["lcref"]
    text = html.unescape((file if short in page.anchors else lcref_file).read_text())
    assert f'<section id="{short}">' in text
    blocks = re.findall(r"(?:^    .*\n?)+", description(thing), re.M)
    assert blocks or not name.startswith("projections.")
    for block in blocks:    # so that a formula does not run into the text around it
        assert f"<pre><code>{textwrap.dedent(block).rstrip()}\n</code></pre>" in text


def test_what_a_parameter_is_stands_beside_its_name_in_the_pages(pages):
    for file, _ in pages.values():
        items = re.findall(r"<li>(?:<p>)?<strong>(.*?)</strong>", file.read_text(), re.S)
        assert [item for item in items if " : " in item or item.startswith("*")] == [], file


def test_every_example_in_a_docstring_gives_what_it_says_and_every_projection_has_one():
    tried = set()
    for module in pkgutil.walk_packages(lcref.__path__, "lcref."):
        if module.name == "lcref.__main__" or ".peers" in module.name:
            continue
        found = doctest.DocTestFinder(exclude_empty=True).find(
            importlib.import_module(module.name))
        for test in found:
            if test.examples:
                result = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(test)
                assert result.failed == 0, test.name
                tried.add(test.name.split(".")[-1])
    assert {name for name in projections.__all__
            if inspect.isfunction(getattr(projections, name))} <= tried
