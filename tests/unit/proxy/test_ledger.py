from __future__ import annotations

import stat

import pytest

from skerry.errors import ContextError
from skerry_proxy.ledger import Child, Ledger

pytestmark = pytest.mark.unit
NOW = 1_800_000_000.0
CHILD = Child("uuid-1", ({"label": "default"},), frozenset({3, 4}))


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "ledger.sqlite3")
    yield made
    made.close()


def test_an_envelope_is_used_by_one_run_and_attempt(ledger) -> None:
    for _ in range(2):
        ledger.use(1, "t", (7, 1), NOW + 10, NOW)
    for run in ((7, 2), (8, 1)):
        with pytest.raises(ContextError, match="not run twice"):
            ledger.use(1, "t", run, NOW + 10, NOW)


def test_another_organization_cannot_use_up_an_envelope(ledger) -> None:
    ledger.use(3, "t", (8, 1), NOW + 10, NOW)
    ledger.use(1, "t", (7, 1), NOW + 10, NOW)


def test_what_has_expired_is_forgotten(ledger) -> None:
    ledger.use(1, "t", (7, 1), NOW + 10, NOW)
    ledger.plan_child((7, 1), CHILD, "wish", int(NOW) + 10, NOW)
    ledger.name_child("uuid-1", 5, NOW)
    ledger.use(1, "u", (7, 1), NOW + 30, NOW + 11)
    assert ledger.find_child((7, 1), 5) is None
    ledger.use(1, "t", (9, 1), NOW + 30, NOW + 11)


def test_a_child_is_found_by_the_run_that_made_it(ledger) -> None:
    ledger.plan_child((7, 1), CHILD, "wish", int(NOW) + 10, NOW)
    assert ledger.find_child((7, 1), 5) is None
    ledger.name_child("uuid-1", 5, NOW)
    assert ledger.find_child((7, 1), 5) == CHILD
    assert ledger.find_child((7, 2), 5) is None
    assert ledger.find_child((8, 1), 5) is None


def test_a_server_cannot_give_one_number_to_two_children(ledger) -> None:
    for uuid in ("uuid-1", "uuid-2"):
        ledger.plan_child((7, 1), Child(uuid, (), frozenset({3})), "wish", int(NOW) + 10, NOW)
    ledger.name_child("uuid-1", 5, NOW)
    with pytest.raises(ContextError, match="two tasks"):
        ledger.name_child("uuid-2", 5, NOW)


def test_it_outlives_its_process(tmp_path) -> None:
    first = Ledger(tmp_path / "ledger.sqlite3")
    first.use(1, "t", (7, 1), NOW + 10, NOW)
    first.close()
    second = Ledger(tmp_path / "ledger.sqlite3")
    with pytest.raises(ContextError):
        second.use(1, "t", (8, 1), NOW + 10, NOW)
    second.close()


def test_the_file_is_the_owners_alone(tmp_path) -> None:
    Ledger(tmp_path / "ledger.sqlite3").close()
    assert stat.S_IMODE((tmp_path / "ledger.sqlite3").stat().st_mode) & 0o077 == 0
