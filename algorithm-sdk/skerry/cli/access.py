"""``skerry access``: who is shut out of a server, and let in again."""

from __future__ import annotations

from pathlib import Path

import click

from skerry.cli.connection import connect, connected
from skerry.client import UserClient
from skerry.errors import ConfigurationError

_user = click.option("--user", help="The name of a user.")
_organization = click.option("--organization", type=int, help="An organization, with --collaboration.")
_collaboration = click.option("--collaboration", type=int, help="Out of which the organization is taken.")


@click.group()
def access() -> None:
    """Shut a user, a node or an organization out, with effect on what runs; let them in again."""


@access.command()
@_user
@click.option("--node", type=int, help="A node; an invitation makes it anew.")
@_organization
@_collaboration
@connected
def revoke(  # noqa: PLR0917 - one for each option
    user: str | None,
    node: int | None,
    organization: int | None,
    collaboration: int | None,
    connection: Path | None,
    username: str | None,
) -> None:
    """Shut out a user, a node, or an organization of a collaboration. What they run or have asked for ends at once.

    Nodes that a breached server lies to are told by `skerry key revoke`.
    """
    _check_one(user, node, organization, collaboration)
    client = connect(connection, username, encryption=False)
    if user is not None:
        _disable(client, user, disabled=True)
        click.echo(f"{user} is shut out; their tasks end")
    elif node is not None:
        client.request(f"node/{node}", method="delete")
        click.echo(f"node {node} is gone; what it runs ends")
    else:
        client.request(_members(collaboration), json={"id": organization}, method="delete")
        click.echo(f"organization {organization} is out of collaboration {collaboration}; what runs there for it ends")


@access.command()
@_user
@_organization
@_collaboration
@connected
def restore(
    user: str | None,
    organization: int | None,
    collaboration: int | None,
    connection: Path | None,
    username: str | None,
) -> None:
    """Let a user, or an organization of a collaboration, in again. What was ended stays so."""
    _check_one(user, None, organization, collaboration)
    client = connect(connection, username, encryption=False)
    if user is not None:
        _disable(client, user, disabled=False)
        click.echo(f"{user} is let in again")
    else:
        client.request(_members(collaboration), json={"id": organization}, method="post")
        click.echo(f"organization {organization} is let in to collaboration {collaboration} again")


def _check_one(user: str | None, node: int | None, organization: int | None, collaboration: int | None) -> None:
    """Raises click.UsageError unless exactly one is named."""
    if [user, node, organization].count(None) != 2:  # noqa: PLR2004
        raise click.UsageError("Name one: a user, a node, or an organization with its collaboration.")
    if (organization is None) != (collaboration is None):
        raise click.UsageError("--organization and --collaboration go together.")


def _disable(client: UserClient, name: str, *, disabled: bool) -> None:
    found = [one for one in client.request("user", params={"username": name})["data"] if one["username"] == name]
    if not found:
        raise ConfigurationError(f'There is no user "{name}" whom you may see.')
    client.request(f"user/{found[0]['id']}", json={"disabled": disabled}, method="patch")


def _members(collaboration: int | None) -> str:
    return f"collaboration/{collaboration}/organization"
