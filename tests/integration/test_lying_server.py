"""A breached server against a real node with its real proxy: what it can't make the node do, and can't change unseen.

Each attack differs in one point from the honest order, which runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from lying_world import DATABASES, IMAGE, OTHER_IMAGE, REFUSED, TEXT, World, certified, make_identity, open_world

from skerry import crypto, keys
from skerry.errors import CryptoError
from skerry.keys import Certificate, Identity
from skerry.payloads import Collaboration, TaskFacts
from skerry.statements import revoked, succeed
from skerry.wire import Format, b64, to_stored, unb64

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with open_world() as made:
        yield made


@pytest.fixture(autouse=True)
def _genuine_keys(world: World) -> None:
    world.show_keys()


def test_the_honest_order_runs_and_its_result_can_be_read(world: World) -> None:
    context = world.context()
    ended = world.runs(world.order(context, world.seal(context)))
    facts = TaskFacts(context.task, Collaboration(1, encrypted=True, accept="native"), IMAGE, DATABASES)
    stored = to_stored(ended["result"], Format.NATIVE)
    assert world.client().open(stored, "result", facts, 2) == b"42"


# --- policy ----------------------------------------------------------------------------------------------


def test_another_image_than_the_signed_one(world: World) -> None:
    context = world.context()
    world.refuses(world.order(context, world.seal(context), image=OTHER_IMAGE))


def test_an_image_that_the_policy_lacks_though_it_is_signed(world: World) -> None:
    context = world.context(image=OTHER_IMAGE)
    world.refuses(world.order(context, world.seal(context)))


def test_a_user_that_the_policy_lacks(world: World) -> None:
    context = world.context(user=8)
    order = world.order(context, world.seal(context, author=certified(world.people[1], 1, 8)))
    assert "user 8" in world.refuses(order)


def test_a_user_whom_only_the_server_names(world: World) -> None:
    """The organization signed for nobody in particular; the server says that it was user 7."""
    context = world.context(user=None)
    world.refuses(world.order(context, world.seal(context, author=world.people[1])))


def test_a_function_that_the_policy_lacks(world: World) -> None:
    context = world.context()
    order = world.order(context, world.seal(context, b'{"method": "noop", "args": [], "kwargs": {}}'))
    assert "noop" in world.refuses(order)


@pytest.mark.parametrize("databases", [[{"label": "secret"}], [{"label": "default"}, {"label": "secret"}], []])
def test_other_databases_than_the_signed_ones(world: World, databases: list[dict[str, str]]) -> None:
    context = world.context()
    world.refuses(world.order(context, world.seal(context), databases=databases))


def test_a_database_that_the_policy_lacks_though_it_is_signed(world: World) -> None:
    context = world.context(databases=({"label": "secret"},))
    assert "secret" in world.refuses(world.order(context, world.seal(context)))


def test_an_organization_that_the_policy_lacks(world: World) -> None:
    context = world.context(sender=3)
    order = world.order(context, world.seal(context, author=certified(world.people[3], 3, 7)), init_org_id=1)
    assert "organization 3" in world.refuses(order)


def test_a_child_task_of_an_organization_that_the_policy_lacks(world: World) -> None:
    """An allowed organization's central function is no way around the policy."""
    parent, author = world.context(sender=3, recipient=1), certified(world.people[3], 3, 7)
    stored = b"".join(crypto.seal([TEXT], parent, recipients=[world.people[1].public_pem], identity=author))
    opened = crypto.unseal([stored], world.people[1])
    list(opened.chunks)
    child = world.context(user=None, parent=parent.task)
    order = world.order(child, world.seal(child, author=world.people[1], chain=(opened.proof,)))
    assert "organization 3" in world.refuses(order)


@pytest.mark.parametrize("fmt", ["plain", "vantage6"])
def test_a_task_that_nobody_signed(world: World, fmt: str) -> None:
    context = world.context()
    stored = TEXT if fmt == "plain" else crypto.vantage6_encrypt(TEXT, world.people[2].public_pem).encode()
    world.refuses(world.order(context, stored) | {"format": fmt})


@pytest.mark.parametrize("change", [{"organization_id": 1}, {"node_id": 6}])
def test_another_nodes_run(world: World, change: dict[str, int]) -> None:
    context = world.context()
    world.refuses(world.order(context, world.seal(context)) | change)


# --- replay and time -------------------------------------------------------------------------------------


def test_a_task_is_not_replayed_not_even_after_a_restart(world: World) -> None:
    context = world.context()
    stored = world.seal(context)
    first = world.order(context, stored)
    world.runs(first)
    assert "used before" in world.refuses(world.order(context, stored))
    again = world.seal(context)
    assert "used before" in world.refuses(world.order(context, again))
    world.stop()
    world.start()
    assert "used before" in world.refuses(world.order(context, stored))


def test_an_attempt_that_is_over_is_not_started_again_not_even_after_a_restart(world: World) -> None:
    """As by a server that was restored from a back-up, with all else the same."""
    context = world.context()
    order = world.order(context, world.seal(context))
    world.runs(order)
    for restart in (False, True):
        if restart:
            world.stop()
            world.start()
        world.liar.forget(order["run"])
        ended = world.liar.offer(order)
        assert (ended["status"], ended["result"]) == ("unknown error", None)
        assert "not started a second time" in ended["log"]
        assert not world.liar.ran(order["run"])


def test_an_expiry_is_not_stretched(world: World) -> None:
    now = int(time.time())
    for times in ({"created": now - 7200, "expires": now - 3600}, {"expires": now + 40 * 86400}):
        context = world.context(**times)
        assert "expired" in world.refuses(world.order(context, world.seal(context)))


def test_a_stretched_expiry_breaks_the_signature(world: World) -> None:
    context = world.context(expires=int(time.time()) + 1000)
    stored = world.seal(context)
    forged = stored.replace(str(context.expires).encode(), str(context.expires + 86400).encode())
    assert forged != stored
    world.refuses(world.order(context, forged), status="failed")


# --- keys ------------------------------------------------------------------------------------------------


def test_a_swapped_key_is_not_believed(world: World) -> None:
    mallory = make_identity()
    world.show_keys(organization_1=mallory.organization_keys(1))
    context = world.context()
    order = world.order(context, world.seal(context, author=certified(mallory, 1, 7)))
    assert "key confirm" in world.refuses(order)
    later = world.context()
    world.runs(world.order(later, world.seal(later)))


def test_a_successor_that_the_server_made_up_is_not_believed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "RSA_BITS", 2048)
    mallory = make_identity()
    fresh, statement = succeed(mallory, 1, compromised=False)
    statement["previous"] = world.people[1].own_keys(1).fingerprint
    entry = {**fresh.organization_keys(1), "successions": [statement]}
    world.show_keys(organization_1=entry)
    context = world.context()
    assert "key confirm" in world.refuses(world.order(context, world.seal(context, author=certified(fresh, 1, 7))))


def test_the_organizations_own_keys_are_those_of_its_file(world: World) -> None:
    mallory = make_identity()
    world.show_keys(organization_2=mallory.organization_keys(2))
    context = world.context(sender=2)
    world.refuses(world.order(context, world.seal(context, author=certified(mallory, 2, 7))))


# --- payloads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [200, -200, -70, -1])
def test_an_altered_input_is_not_run(world: World, position: int) -> None:
    context = world.context()
    bent = bytearray(world.seal(context))
    bent[position] ^= 1
    ended = world.liar.offer(order := world.order(context, bytes(bent)))
    assert ended["status"] in {REFUSED, "failed"}
    assert not world.liar.ran(order["run"])


def test_a_result_is_not_altered_swapped_or_attributed_unseen(world: World) -> None:
    client, collaboration = world.client(), Collaboration(1, encrypted=True, accept="native")
    first, second = (world.context() for _ in range(2))
    results = [
        to_stored(world.runs(world.order(context, world.seal(context)))["result"], Format.NATIVE)
        for context in (first, second)
    ]
    facts = [TaskFacts(context.task, collaboration, IMAGE, DATABASES) for context in (first, second)]
    assert client.open(results[0], "result", facts[0], 2) == b"42"
    bent = bytearray(results[0])
    bent[-100] ^= 1
    attempts = [(bytes(bent), 2), (results[1], 2), (results[0], 1), (results[0], 3), (b"42", 2)]
    for stored, sender in attempts:
        with pytest.raises(CryptoError):
            client.open(stored, "result", facts[0], sender)
    with pytest.raises(CryptoError):
        client.open(unb64(b64(results[0])), "log", facts[0], 2)


# --- what organizations themselves say, which the server only hands on; these change the node's pins: last ------


def test_a_revoked_user_is_refused_from_the_next_task_on(world: World) -> None:
    person = certified(world.people[1], 1, 7)
    context = world.context()
    world.runs(world.order(context, world.seal(context, author=person)))
    statement = revoked(world.people[1], 1, {7: int(time.time())})
    world.show_keys(organization_1={**world.people[1].organization_keys(1), "revocation": statement})
    context = world.context()
    assert "revoked" in world.refuses(world.order(context, world.seal(context, author=person)))
    world.show_keys()
    context = world.context()
    assert "revoked" in world.refuses(world.order(context, world.seal(context, author=person)))


def test_an_organizations_own_successor_is_followed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "RSA_BITS", 2048)
    old = world.people[1]
    fresh, statement = succeed(old, 1, compromised=False)
    world.show_keys(organization_1={**fresh.organization_keys(1), "successions": [statement]})
    person = certified(fresh, 1, 7)
    future = replace(person.certificate, created=person.certificate.created + 60) if person.certificate else None
    assert future is not None
    person = replace(person, certificate=resigned(future, fresh))
    context = world.context(created=int(time.time()) + 60)
    world.runs(world.order(context, world.seal(context, author=person)))


def resigned(certificate: Certificate, issuer: Identity) -> Certificate:
    return replace(certificate, signature=b64(issuer.require_signing().sign(certificate.signed_message())))
