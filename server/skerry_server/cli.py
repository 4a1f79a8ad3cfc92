"""``skerry server``: make a configuration, found the first organization, start, look."""

from __future__ import annotations

import json
import logging
import os
import ssl
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

import click

from skerry import logs
from skerry.audit import lines_of
from skerry.calls import KEY, Call
from skerry.cli.connection import client_at, connect, connected
from skerry.errors import SkerryError
from skerry.invitations import Invitation
from skerry.keys import write_secret
from skerry_server import bootstrap as bootstrap_secret
from skerry_server import migrants
from skerry_server import settings as configuration
from skerry_server.database import Database
from skerry_server.events import Hub
from skerry_server.models import utcnow
from skerry_server.policy import ROOT
from skerry_server.seats import Seat
from skerry_server.server import open_server, reading_database
from skerry_server.services.audit import read_heads, read_trail
from skerry_server.services.migrating import take_over
from skerry_server.services.users import found_root
from skerry_server.settings import Settings
from skerry_server.trail import Trail, kept_writer

_CONFIG = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The server's configuration file.",
)
_FILE = "server.yaml"
_CA_FILE = "Certificates of the private authority that the server's own is of."
_TAKEN = ("organizations", "users", "collaborations", "nodes")


@click.group()
def server() -> None:
    """The central server: keeps tasks, hands them to nodes, never sees what is in them."""
    os.umask(0o077)  # the database and its companions are nobody else's to read


@server.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def new(folder: Path) -> None:
    """Writes a configuration with comments into FOLDER."""
    path = folder / _FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.ClickException(f"{path} is there already; it was left as it is.") from None
    except OSError as error:
        raise click.ClickException(f"{path} can't be written: {error.strerror}.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(configuration.TEMPLATE)
    click.echo(f"{path} is written. Next: skerry server bootstrap --config {path} --organization NAME --username root")


@server.command()
@click.option("--config", "path", type=click.Path(path_type=Path, dir_okay=False), help="The server's configuration.")
@click.option("--server", "url", help="A server on another machine instead, such as https://server.example.org/api.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="With --server: the secret that its first start wrote into its state folder (bootstrap-secret).",
)
@click.option("--ca-file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help=_CA_FILE)
@click.option("--organization", required=True, help="The name of the first organization.")
@click.option("--username", default="root", show_default=True, help="The name of its user with the role Root.")
def bootstrap(  # noqa: PLR0917 - one for each option
    path: Path | None, url: str | None, secret_file: Path | None, ca_file: Path | None, organization: str, username: str
) -> None:
    """Makes the first organization and its Root user; the password comes from a prompt or from standard input.

    On the server's own machine with its --config; from another one with the one-time secret that the server's first
    start leaves in its state folder.
    """
    if (path is None) == (url is None) or (url is None) != (secret_file is None):
        raise click.UsageError("Give --config, or --server and --secret-file.")
    password = _read_password()
    if path is not None:
        _found_here(path, organization, username, password)
        return
    client = client_at(str(url), ca_file)
    body = {"organization": organization, "username": username, "password": password}
    secret = {"secret": Path(str(secret_file)).read_text(encoding="utf-8").strip()}
    key = {KEY: str(uuid.uuid4())}
    founding = Call("POST", "skerry/bootstrap", json={**body, **secret}, headers=key, repeatable=True)
    made = client.without_token(founding)
    click.echo(f'User "{username}" of organization "{organization}" (id {made["organization_id"]}) may log in.')


def _found_here(path: Path, organization: str, username: str, password: str) -> None:
    try:
        opened = open_server(configuration.load(path))
        with opened.database.writing() as session:
            user = found_root(session, username, password, organization)
            click.echo(
                f'User "{user.username}" of organization "{organization}" (id {user.organization_id}) may log in.'
            )
        opened.database.close()
        bootstrap_secret.withdraw(opened.settings.state)
    except SkerryError as error:
        raise click.ClickException(str(error)) from None


@server.command()
@_CONFIG
@click.option("--host", help="Listen on this address instead of the configured one.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Listen on this port instead of the configured one.")
def start(path: Path, host: str | None, port: int | None) -> None:
    """Serves until it is told to stop (SIGTERM, Ctrl-C)."""
    from skerry_server.serve import serve  # noqa: PLC0415 - the other commands need no web server
    from skerry_server.workers import Workers  # noqa: PLC0415

    def ready(address: str) -> None:
        click.echo(f"skerry server is ready at {address}{found.api_path}")

    try:
        found = configuration.load(path)
        changes = {"host": host or found.host, "port": found.port if port is None else port}
        found = found.model_copy(update=changes)
        _log(found)
        if found.processes > 1:
            sys.exit(Workers(found, _serve_as).run(ready))
        serve(open_server(found), ready)
    except SkerryError as error:
        raise click.ClickException(str(error)) from None


def _serve_as(settings: Settings, seat: Seat, ready: Callable[[str], None]) -> None:
    """One of several processes."""
    from skerry_server.serve import serve  # noqa: PLC0415 - as above

    try:
        serve(open_server(settings, seat=seat), ready, shared=True)
    except SkerryError as error:
        click.ClickException(str(error)).show()
        sys.exit(1)


@server.command("import")
@_CONFIG
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Look for problems and say what would be done; change nothing.")
@click.option("--role", default=ROOT, show_default=True, help="The default role of users whose entries name no roles.")
@click.option("--accept-weak-passwords", is_flag=True, help="Take passwords that nobody could choose here.")
def import_(path: Path, file: Path, role: str, *, dry_run: bool, accept_weak_passwords: bool) -> None:
    """Takes over FILE, the YAML that vantage6 4.x's `server import` reads.

    Organizations with their users, collaborations with their nodes: all of it in one transaction, or nothing, with
    every problem listed. Names that are there already are refused. Nodes keep the API keys of the file; a node
    without one gets a new one, which is shown once. As with vantage6, users get all rules (the role Root): name
    another --role, or give a user a list `roles` in the file. Encrypted collaborations accept skerry's format and
    vantage6's. Tasks are left out. Delete FILE afterwards: there are passwords in it.
    """
    try:
        migration = migrants.read(file)
        opened = open_server(configuration.load(path))
        with opened.database.writing() as session:
            taken = take_over(session, migration, role, weak_passwords=accept_weak_passwords)
            if dry_run:
                session.rollback()
        opened.database.close()
    except SkerryError as error:
        raise click.ClickException(str(error)) from None
    counts = ", ".join(f"{getattr(taken, name)} {name}" for name in _TAKEN)
    click.echo(f"{'Would be imported' if dry_run else 'Imported'}: {counts}.")
    for note in taken.notes:
        click.echo(note)
    for node, key in taken.new_keys.items() if not dry_run else ():
        click.echo(f'API key of "{node}": {key}')


@server.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--collaboration", required=True, type=int, help="The collaboration's id.")
@click.option("--organization", required=True, type=int, help="The id of the organization whose node may join.")
@click.option("--hours", default=24, show_default=True, type=click.IntRange(1, 7 * 24), help="How long it is good.")
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help=_CA_FILE,
)
@connected
def invite(  # noqa: PLR0917 - one for each option
    file: Path,
    collaboration: int,
    organization: int,
    hours: int,
    ca_file: Path | None,
    connection: Path | None,
    username: str | None,
) -> None:
    """Writes an invitation for an organization's node into FILE; who holds it can join once, in its place.

    Send it by a way that you trust, and compare the fingerprint that `skerry node join` shows. A node that has
    joined before loses its key when the invitation is used.
    """
    client = connect(connection, username, encryption=False)
    body = {"collaboration_id": collaboration, "organization_id": organization, "hours": hours}
    made = client.request("skerry/invitation", json=body, method="post")
    address = urlsplit(client.base_path)
    invitation = Invitation(
        url=f"{address.scheme}://{address.netloc}",
        api_path=address.path,
        server_id=made["server_id"],
        secret=made["secret"],
        expires=made["expires"],
        ca=ca_file.read_text() if ca_file is not None else "",
    )
    write_secret(file, invitation.dump().encode())
    click.echo(f"{file}: for node {made['node_id']} of organization {organization}, good until {made['expires']}")


@server.group()
def audit() -> None:
    """The audit trail."""


@audit.command()
@_CONFIG
def export(path: Path) -> None:
    """Writes the whole trail to standard output: JSON lines, the heads of the chains last."""
    for line in export_trail(path):
        sys.stdout.buffer.write(line)


def export_trail(path: Path) -> Iterator[bytes]:
    """The lines of an export of the server with this configuration, which may run meanwhile."""
    found = configuration.load(path)
    with reading_database(found) as session:
        yield from lines_of(read_trail(session), read_heads(session))


@server.group()
def config() -> None:
    """The configuration file."""


@config.command()
@_CONFIG
def check(path: Path) -> None:
    """Says whether the configuration is right, and what it comes to."""
    found = _load(path)
    try:
        configuration.check_exposure(found)
    except SkerryError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{path} is right. Listens on {found.host}:{found.port}{found.api_path}; state in {found.state}.")


@server.command()
@_CONFIG
@click.option(
    "--to", "revision", default="head", show_default=True, help="A revision, such as 0010; head: this version's."
)
def migrate(path: Path, revision: str) -> None:
    """Brings the database's tables to a revision, forwards or backwards. Each start brings them to this version's.

    Before an older version of skerry is started, let this one go back to that one's revision, with the server stopped.
    """
    try:
        with closing(_database(path)) as database:
            click.echo(f"The tables are those of revision {database.migrate(revision)}.")
    except SkerryError as error:
        raise click.ClickException(str(error)) from None


@server.command()
@_CONFIG
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup(path: Path, file: Path) -> None:
    """Copies the SQLite database into FILE, which must not be there yet, while the server serves.

    The state folder's payloads, jwt-secret and audit-writer, and the configuration, belong to a whole back-up: copy
    them afterwards. For PostgreSQL use pg_dump.
    """
    try:
        with closing(_database(path)) as database:
            database.back_up(file)
    except SkerryError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{file} is written.")


def _database(path: Path) -> Database:
    found = configuration.load(path)
    found.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Database(found.database_url, Hub(), Trail(kept_writer(found.state), utcnow), utcnow)


@server.command()
@_CONFIG
@click.option("--port", type=click.IntRange(1, 65_535), help="Where it was started with another port.")
def status(path: Path, port: int | None) -> None:
    """Says whether the server of this configuration answers."""
    found = _load(path)
    scheme = "http" if found.tls is None else "https"
    url = f"{scheme}://{found.host}:{port or found.port}{found.api_path}/skerry/info"
    try:
        # Nothing from the environment: a web proxy has no business between this machine and itself.
        with build_opener(ProxyHandler({}), _own_certificate(found)).open(url, timeout=5) as answer:
            info = json.load(answer)
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise click.ClickException(f"No skerry server answers at {url}: {reason}.") from None
    click.echo(f"skerry {info['version']} answers at {url} (server {info['server_id']}).")


def _own_certificate(found: Settings) -> HTTPSHandler:
    """Takes this server's certificate and no other; its name is not compared, for the address is this machine's."""
    context = ssl.create_default_context()
    if found.tls is not None:
        context = ssl.create_default_context(cafile=str(found.folder / found.tls.certificate))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
    return HTTPSHandler(context=context)


def _load(path: Path) -> Settings:
    try:
        return configuration.load(path)
    except SkerryError as error:
        raise click.ClickException(str(error)) from None


def _read_password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise click.ClickException("The password is read from standard input, and there was none.")
    return password


def _log(found: Settings) -> None:
    logs.set_up(found.log_level, found.log_format)
    logging.getLogger("alembic").setLevel(logging.WARNING)
