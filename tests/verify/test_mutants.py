"""Every known mistake is found, and the report says in words what is wrong.

The mutants are the test of the tests: right implementations but for one mistake each. One that
conformed would show a property that is missing.
"""

from collections import Counter

import pytest

from lcref.verify.checking import check
from lcref.verify.kinds import KINDS
from lcref.verify.mutants import MISTAKES, MUTANTS, by_kind


def first_failure(mutant):
    """The report up to the first failure, of few inputs where they show it, else of the usual."""
    for max_examples in (10, 100):
        report = check(mutant.fn, mutant.kind, compression=mutant.compression,
                       claims=mutant.claims, max_examples=max_examples, stop_at_first=True)
        if not report.ok:
            break
    return report


def squeezed(text):
    """Without blanks, as the report breaks lines at blanks and hyphens."""
    return "".join(text.split())


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_mutant_is_found_and_what_is_wrong_is_said(mutant):
    report = first_failure(mutant)
    assert not report.ok
    failed = [result for result in report.results if result.status == "failed"]
    assert len(failed) == 1  # it is the first one, the others are not run
    assert failed[0].says and len(failed[0].message.split()) >= 4
    shown = squeezed(str(report))
    assert squeezed(f"{failed[0].name}: {failed[0].message}") in shown
    if report.diagnosis:
        assert squeezed(f"Probable mistake: {report.diagnosis}") in shown


def test_there_are_at_least_forty_mutants_under_names_of_their_own():
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_every_kind_has_mutants():
    assert {mutant.kind for mutant in MUTANTS} == {*KINDS, "sum", "lc"}
    assert len(KINDS) == 17


def test_every_class_of_mistakes_has_a_mutant():
    assert Counter(mutant.mistake for mutant in MUTANTS).keys() == MISTAKES.keys()


def test_every_mutant_says_in_words_what_is_wrong():
    for mutant in MUTANTS:
        assert len(mutant.words.split()) >= 5, mutant.name


def test_a_compression_text_goes_with_the_mutants_of_sums_alone():
    assert all(mutant.compression for mutant in by_kind("sum"))
    assert not any(mutant.compression for mutant in MUTANTS if mutant.kind != "sum")
