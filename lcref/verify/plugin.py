"""The pytest plugin: one test a property, for each adapter or fixture marked with `conforms`.

    @lcref.verify.conforms("l0_ball")
    def mine(w, kappa):
        return my_library.prune(w, kappa)

is collected as `test_mine.py::mine[feasible]`, `test_mine.py::mine[optimal]` and so on. pytest
loads this module at its start, hence what judges is imported only when such a test is collected.
"""

import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

Marked = TypeVar("Marked", bound=Callable[..., Any])

MARK = "__lcref_conforms__"  # the attribute that holds (kind, options of check)
PROPERTY = "lcref_property"  # the argument that a test is parametrized by


def conforms(kind: str, *, compression: Any = None, max_examples: int = 100,
             claims: str | Iterable[str] = (), expected_failures: Mapping[str, str] | None = None,
             time_limit: float = 10.0) -> Callable[[Marked], Marked]:
    """Have pytest judge what is decorated, one test a property of the kind.

    Put it on a function of a test module that takes the kind's arguments and returns the answer, or
    on a fixture, above or below `@pytest.fixture`, that returns such a function; each parameter of
    the fixture is then judged by itself. What is decorated stays what it was. The tests run when
    the plugin `lcref.verify.plugin` is loaded, which pytest does where lcref is installed.

    Parameters
    ----------
    kind : str
        What is computed: "l0_ball", "kmeans", ...
    compression, max_examples, claims, time_limit
        As for `lcref.verify.check`.
    expected_failures : mapping, optional
        Property -> reason. Such a test is reported as xfailed; one that passes fails.

    Returns
    -------
    decorator
        What is decorated comes back as it is, marked.

    Raises
    ------
    TypeError
        What is decorated can carry no mark, or carries one already.
    """
    claims = claims if isinstance(claims, str) else tuple(claims)
    options = dict(compression=compression, max_examples=max_examples, claims=claims,
                   expected_failures=dict(expected_failures or {}), time_limit=time_limit)

    def mark(marked: Marked) -> Marked:
        if _mark_of(marked):
            raise TypeError(f"{marked!r} is marked with conforms twice; "
                            "write a second adapter for the second kind")
        if not callable(marked) or isinstance(marked, type) or not hasattr(marked, "__dict__"):
            raise TypeError(f"conforms cannot mark {marked!r}; wrap it in a function")
        setattr(marked, MARK, (kind, options))
        return marked

    return mark


# ---- what pytest calls -------------------------------------------------------------------------


def pytest_pycollect_makeitem(collector, name, obj):
    """Collect one test a property, and a parameter of the fixture, in place of what is marked."""
    if not _mark_of(obj):
        return None
    test = _stand_in(collector, name, obj)
    return collector.ihook.pytest_pycollect_makeitem(collector=collector, name=name, obj=test)


def pytest_pyfunc_call(pyfuncitem):
    """Judge one property; pytest knows the test by the stand-in's arguments, not the adapter's."""
    if not _mark_of(pyfuncitem.obj):
        return None
    kind, options = _mark_of(pyfuncitem.obj)
    fixture = _fixture_name(pyfuncitem.obj)
    under_test = pyfuncitem.funcargs[fixture] if fixture else pyfuncitem.obj
    _judge(under_test, kind, options, pyfuncitem.funcargs[PROPERTY])
    return True


def _mark_of(obj):
    """What conforms has left on an object: (kind, options), or None."""
    try:
        return vars(obj).get(MARK)
    except Exception:  # a test module may hold any object, proxies that raise among them
        return None


def _fixture_name(obj):
    """The name under which tests ask for this fixture; None if it is not a fixture."""
    import pytest

    fixture = type(pytest.fixture(lambda: None))
    if fixture is types.FunctionType:
        raise pytest.UsageError("lcref.verify.conforms needs pytest 8.4 or newer")
    return obj.name if isinstance(obj, fixture) else None


def _stand_in(collector, name, obj):
    """A test function with the marks that make pytest multiply it by properties and parameters."""
    import pytest

    def one_property(lcref_property):
        """Never called: `pytest_pyfunc_call` above judges in its place."""

    if isinstance(collector, pytest.Class):
        raise collector.CollectError(f"{collector.name}.{name}: conforms goes on a function or "
                                     "a fixture of the module, not of a class")
    test: Any = one_property
    test.__test__ = True  # collected whatever its name
    test.pytestmark = list(getattr(obj, "pytestmark", []))
    names = _properties(collector, name, *_mark_of(obj))
    test = pytest.mark.parametrize(PROPERTY, names, ids=names)(test)
    fixture = _fixture_name(obj)
    return pytest.mark.usefixtures(fixture)(test) if fixture else test


def _properties(collector, name, kind, options):
    """Names of the properties to judge; an option that names none is an error of collection."""
    from . import property_names

    try:
        names = property_names(kind, options["claims"], options["compression"])
    except (TypeError, ValueError) as error:
        raise collector.CollectError(f"{name}: {error}") from None
    unknown = [each for each in options["expected_failures"] if each not in names]
    if unknown:
        raise collector.CollectError(
            f"{name}: expected_failures names {', '.join(unknown)}, which is not run for {kind}; "
            f"what is run: {', '.join(names)}")
    return names


# ---- one test ----------------------------------------------------------------------------------


def _judge(under_test, kind, options, name):
    """Judge one property and say to pytest how it went."""
    import pytest

    from . import check

    expected = {key: why for key, why in options["expected_failures"].items() if key == name}
    report = check(under_test, kind, **{**options, "expected_failures": expected},
                   properties=(name,))
    result = next(each for each in report.results if each.name == name)
    if result.status == "not claimed":
        pytest.skip(f"{name} of {kind}: {result.message}")
    if result.status == "expected failure":
        pytest.xfail(expected[name])  # returns under --runxfail, which asks for the failure
    if result.status != "passed":
        words = [f"{name} of {kind}: {result.message}", result.counterexample]
        pytest.fail("\n\n".join(filter(None, words)), pytrace=False)
