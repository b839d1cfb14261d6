"""The package as a whole: what it imports, how long it is, what its archives hold and install."""

import ast
import configparser
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tokenize
import zipfile
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import lcref

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lcref"
CORE = sorted([*(PACKAGE / "projections").glob("*.py"), PACKAGE / "parts.py",
               PACKAGE / "composition.py", PACKAGE / "compressions.py", PACKAGE / "lc.py"])


def in_package(file):
    return str(file.relative_to(PACKAGE))


def python(*arguments, cwd, **environment):
    """Run a fresh interpreter that sees none of this tree; return its standard output."""
    keep = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env={**keep, **environment},
                          capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


# ---- import ------------------------------------------------------------------------------------

MEASURE = """
import json, sys, time
start = time.perf_counter()
import lcref
print(json.dumps([time.perf_counter() - start, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def imports(tmp_path_factory):
    """Seconds and modules of three fresh imports of lcref."""
    cwd = tmp_path_factory.mktemp("elsewhere")
    return [json.loads(python("-c", MEASURE, cwd=cwd, PYTHONPATH=str(ROOT))) for _ in range(3)]


def test_importing_lcref_takes_under_half_a_second(imports):
    assert min(seconds for seconds, _ in imports) < 0.5


def test_importing_lcref_loads_no_scipy_and_nothing_for_drawing_testing_or_gradients(imports):
    kept_out = ("scipy.", "matplotlib", "PIL", "hypothesis", "autograd", "tqdm", "torch", "pytest")
    assert [name for name in imports[0][1] if name.startswith(kept_out)] == []


# ---- the rule of dependence --------------------------------------------------------------------


def imported(tree, module):
    """Full names of all that a module's code imports, in functions too, with their nodes."""
    package = module.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level] if node.level else []
            base = ".".join([*base, *filter(None, [node.module])])
            inside = base == "lcref"  # from . import parts
            yield from ((f"{base}.{alias.name}" if inside else base, node) for alias in node.names)


def module_imports(file):
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    return list(imported(ast.parse(file.read_text(encoding="utf-8")), name))


def within_lcref(file):
    """The modules of lcref, one level deep, that a file imports."""
    return {name.split(".")[1] for name, _ in module_imports(file) if name.startswith("lcref.")}


def test_the_reader_of_imports_sees_every_form_of_import():
    code = """
import numpy as np, scipy.linalg
from . import parts
from ..nets import models
def f():
    from .inputs import whole
    from scipy import fft
"""
    assert [name for name, _ in imported(ast.parse(code), "lcref.projections.prune")] == [
        "numpy", "scipy.linalg", "lcref.projections", "lcref.nets", "lcref.projections.inputs",
        "scipy"]
    assert [n for n, _ in imported(ast.parse("from . import parts"), "lcref.lc")] == ["lcref.parts"]


@pytest.mark.parametrize("file", CORE, ids=in_package)
def test_the_core_runs_on_numpy_scipy_and_array_api_compat_alone(file):
    allowed = {"lcref", "numpy", "scipy", "array_api_compat", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name, _ in module_imports(file)} <= allowed


@pytest.mark.parametrize("file", CORE, ids=in_package)
def test_the_arrows_of_dependence_go_one_way(file):
    # beside the core: what it accepts, the published slack, and a decomposition with two drivers
    boundary = {"inputs", "loop_inputs", "tolerance", "svd"}
    below = {"parts": set(), "projections": {"projections", "parts"}, "composition": {"parts"},
             "compressions": {"composition", "projections", "parts"},
             "lc": {"compressions", "projections", "parts"}}
    layer = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert within_lcref(file) <= below[layer] | boundary


def test_the_boundary_beside_the_core_imports_nothing_above_the_parts():
    assert within_lcref(PACKAGE / "inputs.py") == set()
    assert within_lcref(PACKAGE / "tolerance.py") == {"inputs", "parts"}


@pytest.mark.parametrize("file", CORE, ids=in_package)
def test_scipy_is_imported_only_inside_the_functions_that_use_it(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {id(node) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef)
              for node in ast.walk(function)}
    assert [node.lineno for name, node in imported(tree, "lcref.module")
            if name.split(".")[0] == "scipy" and id(node) not in inside] == []


def test_verify_imports_nothing_of_the_nets_and_its_oracles_nothing_of_lcref():
    for file in sorted((PACKAGE / "verify").glob("*.py")):
        assert "nets" not in within_lcref(file), file.name
    oracles = module_imports(PACKAGE / "verify" / "oracles.py")
    assert [name for name, _ in oracles if name.split(".")[0] == "lcref"] == []


# ---- docstrings and size -----------------------------------------------------------------------


def public(module):
    return [getattr(module, name) for name in module.__all__
            if not inspect.ismodule(getattr(module, name))]


@pytest.mark.parametrize("thing", [*public(lcref), *public(lcref.projections)],
                         ids=lambda thing: f"{thing.__module__}.{thing.__qualname__}")
def test_every_public_name_has_a_docstring(thing):
    written = thing.__doc__ or ""
    assert written.strip() and not written.startswith(f"{thing.__name__}("), "a dataclass's own"


def docstrings(tree):
    """Line numbers of all docstrings."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            yield from range(node.body[0].lineno, node.body[0].end_lineno + 1)


def code_lines(text):
    """Line numbers that hold code: not blank, no comment alone, no docstring."""
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
             tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - set(docstrings(ast.parse(text)))


def bodies(text):
    """(name, lines of code in its body) of every function."""
    lines = code_lines(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = range(node.body[0].lineno, node.body[-1].end_lineno + 1)
            yield node.name, len(lines.intersection(body))


def test_lines_of_code_are_counted_without_docstrings_comments_and_blanks():
    text = '"""Doc."""\n\nx = """a\nb"""\n\n\ndef f(\n    x,\n):\n    """Doc\n    doc."""\n' \
           '    # why\n    y = (x +\n         1)  # that\n\n    return y\n'
    assert code_lines(text) == {3, 4, 7, 8, 9, 13, 14, 16}
    assert list(bodies(text)) == [("f", 3)]


MODULES = sorted(PACKAGE.rglob("*.py"))


def test_the_core_is_at_most_1800_lines_of_code():
    lines = {in_package(f): len(code_lines(f.read_text(encoding="utf-8"))) for f in CORE}
    assert sum(lines.values()) <= 1800, lines


@pytest.mark.parametrize("file", MODULES, ids=in_package)
def test_a_module_is_at_most_250_lines_of_code_and_a_function_at_most_25(file):
    text = file.read_text(encoding="utf-8")
    assert len(code_lines(text)) <= 250
    assert {name: lines for name, lines in bodies(text) if lines > 25} == {}


def test_nine_functions_in_ten_are_at_most_15_lines_of_code():
    lengths = [lines for f in MODULES for _, lines in bodies(f.read_text(encoding="utf-8"))]
    assert sum(length <= 15 for length in lengths) >= 0.9 * len(lengths)


# ---- the archives ------------------------------------------------------------------------------


def build(source, out):
    """An sdist, and a wheel from it, in an environment of their own or, offline, in this one."""
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        again = subprocess.run([*command, "--no-isolation"], capture_output=True, text=True)
        assert again.returncode == 0, "\n".join([done.stdout[-3000:], again.stdout[-3000:]])


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """(sdist, wheel, folder of the installed wheel, folder of the installed sdist)."""
    folder = tmp_path_factory.mktemp("archives")
    litter = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "out")
    shutil.copytree(ROOT, folder / "tree", ignore=litter)
    build(folder / "tree", folder)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    for archive in (wheel, sdist):
        python("-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check",
               "--target", str(folder / archive.suffix), str(archive), cwd=folder)
    return sdist, wheel, folder / ".whl", folder / ".gz"


def test_the_wheel_holds_the_data_and_the_licence_and_no_tests(archives):
    names = zipfile.ZipFile(archives[1]).namelist()
    for name in ("lcref/py.typed", "lcref/data/digits.npz", "licenses/LICENSE"):
        assert [n for n in names if n.endswith(name)], f"{name} is missing"
    assert {n.split("/")[0].removesuffix(".dist-info") for n in names} == {
        "lcref", f"lcref-{lcref.__version__}"}


def test_the_sdist_holds_all_that_a_user_needs_to_test_and_cite_it(archives):
    with tarfile.open(archives[0]) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {"LICENSE", "CITATION.cff", "CHANGELOG.md", "README.md", "setup.cfg",
              "pyproject.toml", "lcref/py.typed", "lcref/data/digits.npz", "tests/conftest.py"}
    for folder, kind in (("lcref", "*.py"), ("tests", "*.py"), ("examples", "*.py")):
        wanted |= {str(f.relative_to(ROOT)) for f in (ROOT / folder).rglob(kind)}
    assert wanted - names == set()


@pytest.mark.parametrize("extra, packages, modules", [
    ("dask", {"distributed"}, ["distributed"]),
    ("mpi", {"mpi4py", "mpich"}, ["mpi4py.futures", "mpi4py.MPI"]),     # MPI needs mpich's library
    ("report", {"bokeh"}, ["bokeh.plotting"])])
def test_an_extra_installs_what_is_imported_and_what_is_tested(archives, extra, packages, modules):
    (about,) = archives[2].glob("lcref-*.dist-info")
    wanted = {}
    for line in Distribution.at(about).requires:
        needed, _, marker = line.replace("'", '"').partition("; extra == ")
        wanted.setdefault(marker.strip('"'), set()).add(needed)
    assert {re.match("[a-z0-9]+", needed)[0] for needed in wanted[extra]} == packages
    assert wanted[extra] <= wanted["test"] and not wanted[extra] & wanted[""]
    for module in modules:
        import_module(module)


@pytest.mark.parametrize("which", [2, 3], ids=["wheel", "sdist"])
def test_the_installed_package_runs_from_another_folder(archives, which, tmp_path):
    installed = archives[which]
    script = "import lcref, lcref.data; lcref.data.load('digits'); print(lcref.__file__)"
    file = python("-c", script, cwd=tmp_path, PYTHONPATH=str(installed)).strip()
    assert Path(file).is_relative_to(installed)
    version = python("-m", "lcref", "--version", cwd=tmp_path, PYTHONPATH=str(installed))
    assert lcref.__version__ in version


def test_a_sweep_is_run_and_read_with_no_import_but_that_of_lcref(tmp_path):
    script = """if __name__ == "__main__":
        import lcref
        design = lcref.sweep.Design({"reference-epochs": 0, "steps": 1, "epochs": 0})
        print(lcref.sweep.sweep(design, "out", workers=1).run)
        print(len(lcref.choice.finished(lcref.choice.results("out"))[0]))"""
    (tmp_path / "script.py").write_text(script)
    assert python("script.py", cwd=tmp_path, PYTHONPATH=str(ROOT)).split() == ["1", "1"]


# ---- the repository ----------------------------------------------------------------------------


def test_the_readme_s_table_names_every_projection_and_its_texts_are_understood():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| C step")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[re.findall("`([^`]+)`", cell) for cell in line.split("|")[2:-1]] for line in table]
    assert sorted(name for row in rows for name in row[0]) == lcref.projections.__all__
    texts = [text for row in rows for text in row[1]]
    assert len(texts) > len(table)
    for text in texts:
        lcref.parse(text)
    assert {name for row in rows for name in row[-1]} <= {
        file.stem for file in (ROOT / "tests").rglob("test_*.py")}


def tracked():
    """Text files of the repository, those not yet added among them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout: nothing says which files are the repository's")
    for name in done.stdout.splitlines():
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b"\0"
        if b"\0" not in data:
            yield name, data.decode("utf-8")


def test_the_readme_s_order_of_reading_has_the_lines_of_code_that_are_there():
    section = (ROOT / "README.md").read_text().partition("## Read it")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\[`lcref/.*?) \| ([\d, ]+) \|", section, re.M)
    files = [name for cell, _ in rows for name in re.findall(r"\[`(.*?)`\]", cell)]
    lines = [int(n) for _, cell in rows for n in cell.split(", ")]
    assert lines == [len(code_lines((ROOT / file).read_text())) for file in files]
    unread = {in_package(f) for f in CORE} - {file.removeprefix("lcref/") for file in files}
    assert unread == {"projections/__init__.py"}


@pytest.mark.parametrize("kept, status", [("[:kappa]", 0), ("[:kappa + 1]", 1)])
def test_the_function_to_paste_from_the_readme_is_verified(tmp_path, kept, status):
    readme = (ROOT / "README.md").read_text()
    (script,) = re.findall(r"```text\n(cat > mine.py.*?)```", readme, re.S)
    assert "[:kappa]" in script
    script = script.replace("[:kappa]", kept).replace(
        ".venv/bin/lcref", f"'{sys.executable}' -m lcref")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == status, done.stdout + done.stderr


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    home = "|".join(["work", "tmp/w", "root", "home", "Users"])
    found = [(name, match.group()) for name, text in tracked()
             for match in re.finditer(rf"(?<![\w.~}}])/({home})/\S*", text)]
    assert found == []


def requirements():
    """What lcref needs, under "", and what each of its extras adds."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {extra: [Requirement(line) for line in text.split("\n") if line]
            for extra, text in lines.items()}


@pytest.mark.parametrize("extra", requirements())
def test_every_requirement_has_a_lower_bound(extra):
    bounds = {str(needed): [bound.operator for bound in needed.specifier]
              for needed in requirements()[extra]}
    assert bounds and {text for text, operators in bounds.items() if operators != [">="]} == set()


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@pytest.mark.parametrize("extra", requirements())
def test_what_is_installed_satisfies_the_requirements(extra):
    versions = {needed: installed(needed.name) for needed in requirements()[extra]}
    if extra in ("", "test"):       # the tests need both: no other extra has to be installed
        assert None not in versions.values(), versions
    assert {str(needed): found for needed, found in versions.items()
            if found and not needed.specifier.contains(found, prereleases=True)} == {}


def test_the_configuration_names_no_package_index():
    for name in ("setup.cfg", "pyproject.toml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert re.findall(r"pypi\S*|\S*index[-_]url\S*|\S*find[-_]links\S*", text) == []


def test_the_readme_has_two_set_up_lines_and_ci_runs_the_second():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [(section.partition("\n")[0], block.strip())
              for section in re.split(r"^## ", readme, flags=re.MULTILINE)
              for block in re.findall(r"^```sh\n([^`]*)```$", section, re.MULTILINE)]
    assert [heading for heading, _ in blocks] == ["Run it", "Test it"]
    (_, run_line), (_, test_line) = blocks
    assert "\n" not in run_line and "lcref compress" in run_line
    assert "\n" not in test_line and "pytest" in test_line

    if not (ROOT / ".ci" / "run").exists():
        pytest.skip("no .ci/run here: an sdist leaves it out")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    extract = re.search(r"^test_line=\$\((.*)\)$", script, re.MULTILINE).group(1)
    found = subprocess.run(["bash", "-c", extract], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip() == test_line
    assert re.search(r'^eval "\$test_line"', script, re.MULTILINE)
    assert "pytest" not in re.sub(r"^\s*#.*$", "", script, flags=re.MULTILINE), "a second run"
