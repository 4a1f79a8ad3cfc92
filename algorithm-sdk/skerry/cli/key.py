"""``skerry key``: key files, certificates of users, and pinned keys of others."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from skerry.backups import lock, unlock
from skerry.cli.connection import connect, connected
from skerry.cli.passphrases import ask_passphrase, passphrase_option
from skerry.client import UserClient
from skerry.errors import ConfigurationError, KeyFileError
from skerry.keys import Certificate, Identity, OrganizationKeys, write_secret
from skerry.pins import Pins
from skerry.statements import Announced, revoked, succeed

_file = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.group()
def key() -> None:
    """Make key files, certify users' keys, confirm the keys of other organizations."""


@key.command()
@_file
@click.option("--upgrade", is_flag=True, help="FILE is of vantage6: write FILE.new with a signing key beside its key.")
def new(file: Path, upgrade: bool) -> None:
    """Make an organization's keys and write them to FILE, which only its owner can read.

    Keep a copy in a safe place: what is encrypted for these keys can't be read without them.
    """
    identity = Identity.generate() if not upgrade else _upgraded(Identity.load(file))
    target = file.with_name(f"{file.name}.new") if upgrade else file
    identity.save(target)
    click.echo(f"{target}: {_fingerprint(identity)}")


@key.command()
@_file
def show(file: Path) -> None:
    """Show whose keys FILE holds, and the fingerprint to compare by telephone."""
    identity = Identity.load(file)
    certificate = identity.certificate
    if certificate is not None:
        click.echo(f"user {certificate.user} of organization {certificate.organization}")
        return
    click.echo(f"fingerprint  {_fingerprint(identity)}")
    click.echo(f"signs        {'yes' if identity.signing else 'no (made by vantage6; see `skerry key new --upgrade`)'}")


@key.command()
@_file
def fingerprint(file: Path) -> None:
    """Print the fingerprint of an organization's FILE in groups, to read it out by telephone."""
    whole = _fingerprint(Identity.load(file))
    click.echo(" ".join(whole[start : start + 4] for start in range(0, len(whole), 4)))


@key.command()
@_file
@connected
def register(file: Path, connection: Path | None, username: str | None) -> None:
    """Register the public half of your organization's FILE at the server."""
    client = connect(connection, username)
    client.setup_encryption(file)
    click.echo(f"registered for organization {client.organization_id}: {_fingerprint(Identity.load(file))}")


@key.command()
@click.option("--organization", required=True, type=int, help="Who has lost their keys.")
@click.option("--yes", is_flag=True, help="Do not ask again.")
@connected
def clear(organization: int, *, yes: bool, connection: Path | None, username: str | None) -> None:
    """Forget the keys that an organization has registered at the server, because it has lost them for good.

    For the server's administrator. The organization registers new ones (`skerry key register`), which every partner
    has to confirm (`skerry key confirm`).
    """
    if not yes:
        click.confirm(f"Forget the keys of organization {organization}, after you have spoken with it?", abort=True)
    client = connect(connection, username, encryption=False)
    client.request(f"skerry/organization/{organization}/keys", method="delete")
    click.echo(f"cleared: organization {organization} may register new keys, which every partner has to confirm")


@key.command()
@_file
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--organization", required=True, type=int, help="The organization's id at the server.")
@click.option("--user", required=True, type=int, help="The user's id at the server.")
def certify(file: Path, target: Path, organization: int, user: int) -> None:
    """Make a key file for one user, with a signing key of their own that the organization's FILE certifies.

    TARGET also holds the organization's decryption key, so that the user can read results.
    """
    issuer = Identity.load(file)
    if issuer.certificate is not None:
        raise KeyFileError(f"{file} is a user's file; only the organization's own file can certify.")
    fresh = Identity.generate().require_signing()
    public = fresh.public_key().public_bytes_raw()
    certificate = Certificate.issue(issuer.require_signing(), organization, user, public)
    Identity(issuer.encryption, fresh, certificate, issuer.previous).save(target)
    click.echo(f"{target}: user {user} of organization {organization}, valid for a year")


@key.command()
@_file
@click.option("--compromised", is_flag=True, help="The old key fell into wrong hands: nothing that it signed counts.")
@connected
def rotate(file: Path, *, compromised: bool, connection: Path | None, username: str | None) -> None:
    """Replace the keys of your organization, in FILE and at the server, while tasks are under way.

    The old key signs that the new ones succeed it, so that nobody has to believe the server. FILE keeps the old
    decryption key; the old file stays as FILE.old. Within a day, restart your nodes with the new FILE and give your
    users new ones (`skerry key certify`).
    """
    client, old, draft = connect(connection, username, encryption=False), Identity.load(file), Path(f"{file}.new")
    organization = client.organization_id
    known = _own_entry(client, organization)
    if Announced.from_wire(known).keys != old.own_keys(organization):
        raise ConfigurationError(f"Your organization has registered other keys at the server than those in {file}.")
    fresh, statement = succeed(old, organization, compromised=compromised)
    kept = file.with_name(f"{file.name}.old")
    if kept.exists():
        raise KeyFileError(f"{kept} is there already: move it to a safe place first.")
    fresh.save(draft)
    client.request(f"skerry/organization/{organization}/successor", json=statement, method="post")
    file.rename(kept)
    draft.rename(file)
    click.echo(f"{file}: {_fingerprint(fresh)}")
    click.echo(f"The old keys are in {kept}. Restart your nodes with the new file within a day.")


@key.command()
@_file
def forget(file: Path) -> None:
    """Remove the previous keys from FILE, once no task from before a rotation is under way any more."""
    identity = Identity.load(file)
    if not identity.previous:
        raise KeyFileError(f"{file} holds no previous keys.")
    draft = file.with_name(f"{file.name}.new")
    replace(identity, previous=()).save(draft)
    draft.rename(file)
    click.echo(f"{file}: {len(identity.previous)} previous keys removed; what was encrypted for them can't be read.")


@key.command()
@_file
@click.option("--user", required=True, type=int, help="The user's id at the server.")
@connected
def revoke(file: Path, user: int, connection: Path | None, username: str | None) -> None:
    """Take back all certificates of a user of your organization that were made until now, with the keys in FILE.

    Nodes refuse what the user signs from their next task on. A certificate that you make later is good again.
    """
    client, issuer = connect(connection, username, encryption=False), Identity.load(file)
    organization = client.organization_id
    known = Announced.from_wire(_own_entry(client, organization)).revocation
    if known is not None:
        known.verify(issuer.own_keys(organization))
    entries = dict(known.revoked) if known is not None else {}
    statement = revoked(issuer, organization, entries | {user: int(time.time())})
    client.request(f"skerry/organization/{organization}/revocation", json=statement, method="put")
    click.echo(f"revoked: the certificates of user {user} of organization {organization}")


@key.command()
@_file
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@passphrase_option
def backup(file: Path, target: Path, passphrase_file: Path | None) -> None:
    """Write a copy of FILE to TARGET that only a passphrase opens."""
    content = Identity.load(file).dump()
    write_secret(target, lock(content, ask_passphrase(passphrase_file, confirm=True)))
    click.echo(f"{target}: a copy of {file}; without the passphrase it is worthless")


@key.command()
@click.argument("backup", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_file
@passphrase_option
def restore(backup: Path, file: Path, passphrase_file: Path | None) -> None:
    """Write the keys in BACKUP to FILE, which must not exist."""
    identity = Identity.parse(unlock(backup.read_bytes(), ask_passphrase(passphrase_file)))
    identity.save(file)
    click.echo(f"{file} is restored")


@key.command()
@click.argument("pins", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def pins(pins: Path) -> None:
    """List the pinned keys in a file: a client's KEYFILE.pins.json, or the one in a node's state folder."""
    for pin in Pins(pins).all():
        state = "confirmed" if pin.confirmed else "seen"
        click.echo(f"organization {pin.keys.organization_id}  {pin.keys.fingerprint}  {state}")


@key.command()
@click.argument("pins", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--organization", required=True, type=int, help="Whose keys.")
@click.option("--fingerprint", required=True, help="As that organization told you, by telephone or in person.")
@click.option("--collaboration", type=int, help="Where to ask for keys that are not pinned yet, or have changed.")
@connected
def confirm(  # noqa: PLR0917 - one for each option
    pins: Path,
    organization: int,
    fingerprint: str,
    collaboration: int | None,
    connection: Path | None,
    username: str | None,
) -> None:
    """Confirm the keys of an organization in a file of pinned keys (see `skerry key pins`).

    Keys that are not in the file, because they are new or have changed, are asked of the server.
    """
    known = Pins(pins)
    candidates = [pin.keys for pin in known.all()]
    found = _find(candidates, organization, fingerprint)
    if found is None and collaboration is not None:
        client = connect(connection, username)
        answer = client.request("skerry/keys", params={"collaboration_id": collaboration})
        shown = [OrganizationKeys.from_wire(one) for one in answer["data"] if one["public_key"]]
        found = _find(shown, organization, fingerprint)
    if found is None:
        where = "in the file or at the server" if collaboration is not None else "in the file (see --collaboration)"
        raise ConfigurationError(f"There are no keys of organization {organization} with this fingerprint {where}.")
    known.confirm(found)
    click.echo(f"confirmed: organization {organization}  {found.fingerprint}")


def _own_entry(client: UserClient, organization: int) -> dict[str, Any]:
    """What the server shows of the organization's own keys."""
    answer: dict[str, Any] = client.request(f"skerry/organization/{organization}/keys")
    if not answer.get("public_key"):
        raise ConfigurationError("Your organization has registered no keys yet: `skerry key register`.")
    return answer


def _find(candidates: list[OrganizationKeys], organization: int, fingerprint: str) -> OrganizationKeys | None:
    """The keys of that organization with that whole fingerprint; spaces and case don't matter."""
    wanted = "".join(fingerprint.split()).lower()
    matching = [keys for keys in candidates if keys.organization_id == organization and keys.fingerprint == wanted]
    return matching[0] if matching else None


def _upgraded(identity: Identity) -> Identity:
    if identity.signing is not None:
        raise KeyFileError("The key file has a signing key already.")
    return Identity(identity.encryption, Identity.generate().signing)


def _fingerprint(identity: Identity) -> str:
    return OrganizationKeys.from_wire(identity.organization_keys(0)).fingerprint
