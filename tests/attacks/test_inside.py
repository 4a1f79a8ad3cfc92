"""Attacks from inside a container: on the sandbox (runc and gVisor), the gate, ways out, and by what is left."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gate_attacks
import gates
import pytest
import relay_attacks
import sandbox_attacks
from attack import Attack, Weaken
from cells import IMAGE, RELAY_IMAGE, Federated, Loose, build_attacker, build_trick, federated, loose
from sandbox_attacks import Inside

pytestmark = pytest.mark.integration
SANDBOX, GATE, RELAYS = sandbox_attacks.ATTACKS, gate_attacks.ATTACKS, relay_attacks.ATTACKS
ON_GVISOR = {
    "fork-bomb": "exit code 2|temporarily",
    "memory-bomb": "more memory|exit code|ended with",
    "core-pattern": "No such file",
}
"""What is seen where gVisor's own kernel answers otherwise: a bomb ends the whole sandbox, and files are not there."""
ON_RUNC_ALONE = frozenset({"inode-bomb"})
"""The bound is of the same mount under both; by way of gVisor, filling it takes minutes."""


def _for_gvisor() -> list[Attack]:
    return [attack for attack in SANDBOX if attack.id not in ON_RUNC_ALONE]


def by_id(attack: Attack) -> str:
    return attack.id


def names_of(attacks: list[Attack]) -> list[str]:
    return [attack.strike.name for attack in attacks if isinstance(attack.strike, Inside)]


@pytest.fixture(scope="module")
def attacker(images: None) -> None:
    build_attacker()


@pytest.fixture(scope="module")
def on_runc(attacker: None) -> Iterator[Federated]:
    build_trick("relays", "LABEL relays=1")
    together = {IMAGE: [*names_of(SANDBOX), *names_of(GATE)], RELAY_IMAGE: [attack.strike.name for attack in RELAYS]}
    with federated("runc", together) as cell:
        yield cell


@pytest.fixture(scope="module")
def on_gvisor(attacker: None, gvisor: None) -> Iterator[Federated]:
    with federated("runsc", {IMAGE: names_of(_for_gvisor())}) as cell:
        yield cell


@pytest.fixture(scope="module")
def weakened(attacker: None) -> Iterator[Callable[[Weaken], Loose]]:
    """A launcher for each defence that is missing; what is tried in the plain image is tried at once."""
    made: dict[int, Loose] = {}
    with ExitStack() as stack:

        def ask(weaken: Weaken) -> Loose:
            if id(weaken) not in made:
                together = [attack for attack in SANDBOX if attack.weaken is weaken]
                made[id(weaken)] = stack.enter_context(loose(names_of(together)))
            return made[id(weaken)]

        yield ask


def refused(attack: Attack, cell: Any, record: Any, refusal: str) -> None:
    record("tried")
    struck = attack.strike(cell)
    assert not struck.succeeded, struck.answer
    assert re.search(refusal, struck.answer, re.DOTALL | re.MULTILINE), struck.answer
    record("refused")


@pytest.mark.parametrize("attack", [*SANDBOX, *GATE, *RELAYS], ids=by_id)
def test_it_is_refused(attack: Attack, on_runc: Federated, record: Any) -> None:
    refused(attack, on_runc, record, attack.refusal)


@pytest.mark.parametrize("attack", _for_gvisor(), ids=by_id)
def test_it_is_refused_on_gvisor(attack: Attack, on_gvisor: Federated, record: Any) -> None:
    refused(attack, on_gvisor, record, ON_GVISOR.get(attack.id, attack.refusal))


@pytest.mark.parametrize("attack", SANDBOX, ids=by_id)
def test_it_succeeds_in_a_weaker_sandbox(attack: Attack, weakened: Callable[[Weaken], Loose], monkeypatch: Any) -> None:
    """Else the attack proves nothing: its own mistake would look like a refusal."""
    if attack.weaken is None:
        assert attack.excuse
        return
    attack.weaken(monkeypatch)
    struck = attack.strike(weakened(attack.weaken))
    assert struck.succeeded, struck.answer


@pytest.mark.parametrize("attack", GATE, ids=by_id)
def test_it_succeeds_at_a_weaker_gate(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    if attack.weaken is None:
        assert attack.excuse
        return
    attack.weaken(monkeypatch)
    with gates.open_gate() as control:
        struck = attack.strike(control)
    assert struck.succeeded, struck.answer


@pytest.mark.parametrize("attack", RELAYS, ids=by_id)
def test_it_succeeds_at_a_weaker_relay(attack: Attack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if attack.weaken is None:
        assert attack.excuse
        return
    attack.weaken(monkeypatch)
    with gates.open_relays(tmp_path) as control:
        struck = attack.strike(control)
    assert struck.succeeded, struck.answer


def test_there_are_enough_and_no_two_have_the_same_id() -> None:
    ids = [attack.id for attack in (*SANDBOX, *GATE, *RELAYS)]
    assert len(ids) == len(set(ids))
    assert len(ids) >= 60
