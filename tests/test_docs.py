"""The pages that pdoc makes of the docstrings, and the examples in those."""

import doctest
import importlib
import inspect
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

import lcref
from lcref import projections

ROOT = Path(__file__).parent.parent
PUBLIC = ("lcref", "lcref.projections", "lcref.lsteps", "lcref.nets", "lcref.data",
          "lcref.storage", "lcref.inference", "lcref.verify", "lcref.compressions", "lcref.choice")
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


def command():
    """The words of the README's command that makes the pages."""
    (line,) = re.findall(r"^\.venv/bin/python (.*-m pdoc .*)$", (ROOT / "README.md").read_text(),
                         re.M)
    return shlex.split(line)


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
    done = subprocess.run([sys.executable, "-W", "error", *words], capture_output=True, text=True,
                          cwd=ROOT, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
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
        for link in page.links:
            there = urlparse(link)
            if not there.scheme:
                target = (file.parent / unquote(there.path)).resolve() if there.path else (
                    file.resolve())
                assert target.exists(), (file, link)
                assert there.fragment in anchors.get(target, ()) or not there.fragment, (file, link)


@pytest.mark.parametrize("name", [name for name in projections.__all__
                                  if inspect.isfunction(getattr(projections, name))])
def test_the_problem_of_a_projection_is_a_block_of_its_own(pages, name):
    file, _ = pages["lcref.projections"]
    problem = re.search(r"\n\n    (min over .*)\n\n", inspect.getdoc(getattr(projections, name)))
    section = file.read_text().split(f'<section id="{name}">')[1].split("</section>")[0]
    # one entry a line, so that a formula does not run into the text around it
    assert f"<pre><code>{problem[1]}\n</code></pre>" in section.replace("&lt;", "<")


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
