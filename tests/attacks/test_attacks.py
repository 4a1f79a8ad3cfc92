"""Each attack for real: it is refused as its row says, and succeeds where just that one defence is taken away."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import api_callers
import api_tokens
import pytest
from attack import Attack, Founded, Ground, defended, founded, weakened

from skerry_server import passwords

ATTACKS = [*api_tokens.ATTACKS, *api_callers.ATTACKS]
with_id = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)


@pytest.fixture(scope="module", autouse=True)
def _quick_passwords() -> Iterator[None]:
    """The real cost is what the passwords' own test looks at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_HASHER", passwords.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        yield


@pytest.fixture(scope="module")
def ground() -> Iterator[Callable[[Mapping[str, Any]], Ground]]:
    """A running server for each configuration that the attacks ask for."""
    made: dict[str, Ground] = {}
    with ExitStack() as stack:

        def ask(settings: Mapping[str, Any]) -> Ground:
            key = repr(sorted(settings.items()))
            if key not in made:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                made[key] = stack.enter_context(defended(folder, settings))
            return made[key]

        yield ask


@with_id
def test_it_is_refused(attack: Attack, ground: Callable[[Mapping[str, Any]], Ground], record: Any) -> None:
    record("tried")
    struck = attack.strike(ground(attack.settings))
    assert not struck.succeeded, struck.answer
    assert re.search(attack.refusal, struck.answer, re.DOTALL), struck.answer
    record("refused")


@pytest.fixture(scope="module")
def start(_quick_passwords: None) -> Iterator[Founded]:
    with founded() as made:
        yield made


@with_id
def test_it_succeeds_without_the_defence(attack: Attack, start: Founded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the attack proves nothing: its own mistake would look like a refusal."""
    if attack.weaken is None:
        assert attack.excuse
        return
    attack.weaken(monkeypatch)
    with weakened(attack.settings, start) as control:
        struck = attack.strike(control)
    assert struck.succeeded, struck.answer


def test_no_two_have_the_same_id() -> None:
    ids = [attack.id for attack in ATTACKS]
    assert len(ids) == len(set(ids))
