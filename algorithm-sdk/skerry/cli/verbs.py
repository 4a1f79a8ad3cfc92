"""The verbs of ``skerry``: each part registers its own as an entry point; one is imported when it is called."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import click
from click.shell_completion import get_completion_class

from skerry.errors import MissingExtra, SkerryError, WaitInterrupted

_GROUP = "skerry.commands"
_OWN = ("skerry", "skerry_node", "skerry_proxy", "skerry_server")
_EXTRAS = {"skerry_server": "server", "skerry_node": "node"}
_INTERRUPTED = 130


class Verbs(click.Group):
    """Loads a verb when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_registered()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _registered():
            return own
        try:
            return load(_registered()[cmd_name])
        except MissingExtra as error:
            return _unavailable(cmd_name, error)


def load(entry: EntryPoint) -> click.Command:
    """Raises MissingExtra, naming the extra, when a package that the verb needs is not installed."""
    command: click.Command = load_entry(entry)
    return command


def load_entry(entry: EntryPoint) -> Any:
    """What another part of skerry registered. Raises MissingExtra as ``load`` does."""
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OWN:
            raise
        extra = _EXTRAS.get(entry.module.partition(".")[0], "client")
        raise MissingExtra(extra, f"skerry {entry.name}") from error


def run(arguments: Sequence[str]) -> int:
    """Runs a command; every error is a sentence on standard error."""
    try:
        result = skerry.main(list(arguments), prog_name="skerry", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as error:
        return _say(str(error.__cause__) if isinstance(error.__cause__, WaitInterrupted) else "stopped.", _INTERRUPTED)
    except BrokenPipeError:
        return 1
    except Exception as error:  # noqa: BLE001 - the top of the command line
        return _fail(error, debug="--debug" in arguments)
    return result if type(result) is int else 0


def _fail(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, SkerryError):
        return _say(str(error), 1)
    if isinstance(error, OSError) and error.strerror:
        return _say(f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}.", 1)
    text = " ".join(str(error).split())
    return _say(f"this should not have happened: {type(error).__name__}: {text} (`skerry --debug …` tells where)", 1)


def _say(sentence: str, code: int) -> int:
    click.echo(f"skerry: {sentence}", err=True)
    return code


def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=_GROUP)}


def _unavailable(name: str, error: MissingExtra) -> click.Command:
    """Stands in for a verb that can't be loaded: the list of verbs says why, and so does calling it."""

    def refuse(**_: Any) -> None:
        raise error

    anything = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
    settings = {"ignore_unknown_options": True}
    needs = f"Not installed: needs skerry[{error.extra}]."
    return click.Command(name, params=[anything], callback=refuse, help=needs, context_settings=settings)


@click.group(cls=Verbs)
@click.version_option(version("skerry"), prog_name="skerry", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show where in the code an error came from.")
def skerry() -> None:
    """Runs algorithms where the data is.

    \b
    To try it, from nothing to a result:
      skerry dev up --database default=ages.csv --json >federation.json
      export SKERRY_CONNECTION=federation.json
      skerry algorithm new mean && skerry algorithm build mean
      skerry task create --image mean --method average --arg column=age --database default --wait
      skerry task show 1
      skerry dev down

    Every command explains itself: skerry task create --help. The tab key knows them after skerry completion --help.
    """


@skerry.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Once, for every shell that you open from then on:
      bash   echo 'eval "$(skerry completion bash)"' >>~/.bashrc
      zsh    echo 'eval "$(skerry completion zsh)"' >>~/.zshrc     (after compinit)
      fish   skerry completion fish >~/.config/fish/completions/skerry.fish
    """
    completer = get_completion_class(shell)
    if completer is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    click.echo(completer(skerry, {}, "skerry", "_SKERRY_COMPLETE").source())
