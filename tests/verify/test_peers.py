"""Functions of other libraries, where they are installed: no property fails without a reason.

`papers_repro/conformance/run.py` judges them on more inputs.
"""

import pytest

from lcref.verify import check
from lcref.verify.kinds import KINDS
from lcref.verify.peers import PEERS
from lcref.verify.properties import properties_of

REASONS = ("contract:", "rounding:", "defect:")


def ids(peer):
    return peer.name


@pytest.mark.filterwarnings("ignore")  # of the libraries
@pytest.mark.parametrize("peer", PEERS, ids=ids)
def test_a_peer_fails_only_the_properties_that_it_is_known_to_fail(peer):
    if peer.version is None:
        pytest.skip(f"{peer.package} is not installed: pip install lcref[peers]")
    report = check(peer.fn, peer.kind, max_examples=10, time_limit=60, name=peer.name)
    failed = {r.name: r.message for r in report.failures if r.name not in peer.expected_failures}
    assert failed == {}


@pytest.mark.parametrize("peer", PEERS, ids=ids)
def test_what_a_peer_is_known_to_fail_is_a_property_with_a_reason(peer):
    known = {p.name for p in properties_of(KINDS[peer.kind])}
    assert set(peer.expected_failures) <= known
    assert all(reason.startswith(REASONS) for reason in peer.expected_failures.values())


def test_a_third_of_the_peers_or_more_pass_everything():
    right = [peer for peer in PEERS if not peer.expected_failures]
    assert len(right) >= len(PEERS) / 3
