"""Attacks by a breached server, on a real node with its real proxy and on who reads what it hands on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import trust_attacks
from attack import Attack, Weaken
from lying_world import World, open_world

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("lying-server")]
ATTACKS = trust_attacks.ATTACKS
with_id = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)


def by_defence() -> list[Attack]:
    """Those that miss the same defence stand together."""
    order = list(dict.fromkeys(attack.weaken for attack in ATTACKS))
    return sorted(ATTACKS, key=lambda attack: order.index(attack.weaken))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with open_world(trust_attacks.MORE_IMAGES, accept="both") as made:
        yield made


@pytest.fixture(scope="module")
def weaker() -> Iterator[Callable[[Weaken], World]]:
    """A node for each defence that is missing; the last one is kept, since attacks with the same stand together."""
    kept: list[tuple[Weaken, World]] = []
    with ExitStack() as stack:

        def ask(weaken: Weaken) -> World:
            if not kept or kept[-1][0] is not weaken:
                stack.close()
                kept.append((weaken, stack.enter_context(open_world(trust_attacks.MORE_IMAGES, accept="both"))))
            return kept[-1][1]

        yield ask


@with_id
def test_it_is_refused(attack: Attack, world: Any, record: Any) -> None:
    record("tried")
    struck = attack.strike(world)
    assert not struck.succeeded, struck.answer
    assert re.search(attack.refusal, struck.answer, re.DOTALL), struck.answer
    record("refused")


@pytest.mark.parametrize("attack", by_defence(), ids=lambda attack: attack.id)
def test_it_succeeds_without_the_defence(attack: Attack, weaker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if attack.weaken is None:
        assert attack.excuse
        return
    attack.weaken(monkeypatch)
    struck = attack.strike(weaker(attack.weaken))
    assert struck.succeeded, struck.answer


def test_the_genuine_order_runs(world: World) -> None:
    context = world.context()
    assert world.runs(world.order(context, world.seal(context)))["status"] == "completed"


def test_no_two_have_the_same_id() -> None:
    ids = [attack.id for attack in ATTACKS]
    assert len(ids) == len(set(ids))
