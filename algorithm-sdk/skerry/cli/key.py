"""``skerry key``: key files, certificates of users, and pinned keys of others."""

from __future__ import annotations

from pathlib import Path

import click

from skerry.cli.connection import connect, connected
from skerry.errors import ConfigurationError, KeyFileError
from skerry.keys import Certificate, Identity, OrganizationKeys
from skerry.pins import Pins

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
@connected
def register(file: Path, connection: Path | None, username: str | None) -> None:
    """Register the public half of your organization's FILE at the server."""
    client = connect(connection, username)
    client.setup_encryption(file)
    click.echo(f"registered for organization {client.organization_id}: {_fingerprint(Identity.load(file))}")


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
    Identity(issuer.encryption, fresh, certificate).save(target)
    click.echo(f"{target}: user {user} of organization {organization}, valid for a year")


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
