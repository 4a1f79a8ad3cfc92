"""One suite for every format of payloads that a gate can open and seal."""

from __future__ import annotations

import io
import time
import uuid

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from skerry import crypto
from skerry.errors import SignatureError
from skerry.keys import Identity, OrganizationKeys
from skerry.wire import Context, Format, detect_format, from_stored, to_stored
from skerry_proxy.envelopes import (
    Envelopes,
    NativeProtection,
    Part,
    PlainProtection,
    Protection,
    Vantage6Protection,
    make_run,
)
from skerry_proxy.ledger import Child, Ledger
from skerry_proxy.orders import Order

pytestmark = pytest.mark.contract
ASKER, CENTRAL, PARTIAL = 1, 2, 3
IMAGE = "example/mean:1"
DATABASES = ({"label": "default"},)


class KnownKeys:
    """A keyring to which all keys are known."""

    def __init__(self, identities: dict[int, Identity]) -> None:
        self._keys = {
            number: OrganizationKeys.from_wire(identity.organization_keys(number))
            for number, identity in identities.items()
        }

    def refresh(self, version: str | None, token: str) -> None:
        """Nothing changes here."""

    def find(self, organization: int, token: str) -> OrganizationKeys:
        return self._keys[organization]

    check = find


@pytest.fixture(scope="module")
def identities() -> dict[int, Identity]:
    return {
        number: Identity(generate_private_key(public_exponent=65537, key_size=2048), Ed25519PrivateKey.generate())
        for number in (ASKER, CENTRAL, PARTIAL)
    }


class Site:
    """One organization's protection in one format."""

    def __init__(self, fmt: Format, number: int, identities: dict[int, Identity], ledger: Ledger) -> None:
        keyring, identity = KnownKeys(identities), identities[number]
        made: dict[Format, Protection] = {
            Format.NATIVE: NativeProtection(identity, keyring, ledger),
            Format.VANTAGE6: Vantage6Protection(identity, keyring),
            Format.PLAIN: PlainProtection(),
        }
        self.protection = made[fmt]
        self.number = number
        self.format = fmt

    def order(self, stored: bytes, task_uuid: str, asker: int, run: int) -> Order:
        return Order(
            run=run,
            attempt=1,
            organization=self.number,
            node=self.number,
            format=self.format,
            task=run,
            uuid=task_uuid,
            collaboration=1,
            study=None,
            store=None,
            image=IMAGE,
            databases=DATABASES,
            init_organization=asker,
            init_user=4,
            input=stored,
            token="t",
            keys_version=None,
        )


@pytest.fixture(params=list(Format))
def sites(request, identities, tmp_path):
    """The central organization and the partial one."""
    ledgers = [Ledger(tmp_path / f"{number}.sqlite3") for number in (CENTRAL, PARTIAL)]
    yield [Site(request.param, n, identities, ledger) for n, ledger in zip((CENTRAL, PARTIAL), ledgers, strict=True)]
    for ledger in ledgers:
        ledger.close()


def ask(site: Site, identities: dict[int, Identity], plaintext: bytes):
    """What a user's input comes to at the central organization."""
    now, task_uuid = int(time.time()), str(uuid.uuid4())
    stored = plaintext
    if site.format is Format.NATIVE:
        context = Context("input", task_uuid, None, 1, ASKER, None, site.number, IMAGE, DATABASES, None, now, now + 60)
        recipients = [identities[site.number].public_pem]
        stored = b"".join(crypto.seal([plaintext], context, recipients=recipients, identity=identities[ASKER]))
    if site.format is Format.VANTAGE6:
        stored = crypto.vantage6_encrypt(plaintext, identities[site.number].public_pem).encode()
    file = io.BytesIO()
    opened = site.protection.open_input(site.order(stored, task_uuid, ASKER, 7), [stored], file)
    return opened, file.getvalue()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 300_000])
def test_a_child_goes_there_and_its_result_and_log_come_back(sites, identities, size) -> None:
    central, partial = sites
    opened, plaintext = ask(central, identities, b"x" * size)
    assert plaintext == b"x" * size
    assert (opened.sender.organization, opened.run.asker) == (ASKER, ASKER)
    assert opened.sender.signed is (central.format is Format.NATIVE)

    child = Child(str(uuid.uuid4()), DATABASES, frozenset({PARTIAL}))
    part = Part(child, PARTIAL, "t")
    payload = central.protection.seal_child(opened.run, part, b"y" * size)
    if size:
        assert detect_format(payload) is central.format
    stored = to_stored(payload, central.format)
    assert from_stored(stored, central.format) == payload
    file = io.BytesIO()
    order = partial.order(stored, child.uuid, CENTRAL, 8)
    child_run = partial.protection.open_input(order, [stored], file).run
    assert file.getvalue() == b"y" * size
    assert child_run.asker == CENTRAL

    result = b"".join(partial.protection.seal_result(child_run, [b"z" * size]))
    assert b"".join(central.protection.open_result(opened.run, part, [result])) == b"z" * size
    log = partial.protection.seal_log(child_run, "said é\n")
    assert central.protection.open_log(opened.run, part, log) == "said é\n"


def test_a_run_is_the_same_after_it_was_written_down(sites, identities) -> None:
    opened, _ = ask(sites[0], identities, b"{}")
    assert type(opened.run).parse(opened.run.dump()) == opened.run


@pytest.mark.parametrize("fmt", list(Format))
def test_what_is_not_admitted_is_refused(fmt) -> None:
    with pytest.raises(SignatureError, match="accept"):
        Envelopes({}).of(fmt)


def test_each_run_has_a_secret_of_its_own(sites, identities) -> None:
    order = sites[0].order(b"", "u", ASKER, 7)
    assert make_run(order, 1, b"", (), 1.0).secret != make_run(order, 1, b"", (), 1.0).secret
