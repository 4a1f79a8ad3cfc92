"""What an algorithm's image runs: one function of its package, as its input asks, once.

Ends with 0 when the result is written, 1 when the function raised or its result is no result, 2 when it could not
be called: no such function, other arguments, an input, package or environment that is not as the contract says. The
log's last line then is one sentence that says why.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from skerry import contract, databases, functions
from skerry.errors import AlgorithmError, ConfigurationError, DataError, InputError, MethodNotFound, SkerryError
from skerry.output import error, info
from skerry.wire import Input

if TYPE_CHECKING:
    from skerry.algorithm_client import AlgorithmClient
    from skerry.databases import Database

DONE = 0
FAILED = 1
NOT_CALLED = 2


def main() -> None:
    """Decodes the environment for the algorithm too, so that it reads its variables as plain text."""
    environment = contract.decode_environment(os.environ)
    os.environ.update(environment)
    # After all that the algorithm and its libraries register, and after its threads.
    atexit.register(_let_go, environment.get(contract.PACKAGE, ""))
    sys.exit(run(environment))


def run(environment: Mapping[str, str]) -> int:
    """The exit code; everything that there is to say of it has been printed."""
    try:
        container = Container(environment)
        asked, module = container.input(), container.module()
        _keep_what_was_loaded()
        result = functions.call(functions.find(module, asked.method), asked, container)
        container.write(result, asked.method)
    except Exception as problem:  # noqa: BLE001 - whatever an algorithm raises, its user gets a sentence
        if not isinstance(problem, SkerryError):
            _print_frames(problem, environment.get(contract.PACKAGE, ""))
        error(sentence(problem))
        return NOT_CALLED if isinstance(problem, InputError | MethodNotFound | ConfigurationError) else FAILED
    return DONE


class Container:
    """What the node put into this container, by the variables of the contract."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def input(self) -> Input:
        """Raises InputError when the input is none."""
        try:
            return Input.parse(Path(self._variable(contract.INPUT_FILE)).read_bytes())
        except OSError as problem:
            raise InputError(f"The input can't be read: {problem.strerror}.") from problem
        except ValueError as problem:
            raise InputError(str(problem)) from problem

    def module(self) -> ModuleType:
        """The algorithm's package; raises ConfigurationError when it can't be imported."""
        name = self._variable(contract.PACKAGE)
        try:
            return import_module(name)
        except ImportError as problem:
            _print_frames(problem, name)
            raise ConfigurationError(f"The image's package \"{name}\" can't be imported: {problem}.") from problem

    def write(self, result: Any, method: str) -> None:
        """Writes all of the result, unless the function has put it there itself.

        Raises AlgorithmError when there is no room for it, or it has no form.
        """
        output = Path(self._variable(contract.OUTPUT_FILE))
        if isinstance(result, Path) and result.exists() and result.samefile(output):
            return
        try:
            with output.open("wb") as file:
                functions.write(result, method, file)
        except OSError as problem:
            raise AlgorithmError(f"The result can't be written: {problem.strerror or problem}.") from problem

    def client(self) -> AlgorithmClient:
        from skerry.algorithm_client import AlgorithmClient  # noqa: PLC0415 - most functions need none

        port = self._variable(contract.PORT)
        path = self._environment.get(contract.API_PATH, "")
        socket = self._environment.get(contract.GATE_SOCKET)
        return AlgorithmClient(self._token, self._variable(contract.HOST), int(port), path, socket=socket or None)

    def databases(self, count: int) -> Sequence[Database]:
        """The first ``count`` of the task's databases; raises DataError when it names fewer."""
        return take(databases.requested(self._environment), count)

    def frames(self, count: int) -> Sequence[Any]:
        loaded = [databases.load(database) for database in self.databases(count)]
        _keep_what_was_loaded()
        return loaded

    def connections(self, count: int) -> Sequence[tuple[Any, Callable[[], Any]]]:
        from skerry import omop  # noqa: PLC0415 - most functions need none

        return [
            (omop.connect(database, self._environment), partial(omop.metadata, database, self._environment))
            for database in self.databases(count)
        ]

    def metadata(self) -> functions.RunMetadata:
        from skerry.algorithm_client import Claims  # noqa: PLC0415 - most functions need none

        claims = Claims.of(self._token)
        return functions.RunMetadata(
            claims.task_id,
            claims.node_id,
            claims.collaboration_id,
            claims.organization_id,
            *map(self._variable, (contract.TEMPORARY, contract.OUTPUT_FILE, contract.INPUT_FILE, contract.TOKEN_FILE)),
        )

    @cached_property
    def _token(self) -> str:
        return Path(self._variable(contract.TOKEN_FILE)).read_text().strip()

    def _variable(self, name: str) -> str:
        value = self._environment.get(name, "")
        if not value:
            raise ConfigurationError(f"The variable {name} is not set; a node or the image has to set it.")
        return value


def _keep_what_was_loaded() -> None:
    """Libraries and data stay to the end, and the interpreter need not look through them for what nobody uses any more.

    At its end it does that several times, which takes longer than most functions.
    """
    gc.freeze()


def _let_go(package: str) -> None:
    """What the algorithm's own modules hold, files that it left open among it: the interpreter no longer does."""
    for name, module in list(sys.modules.items()):
        if name == package or name.startswith(f"{package}."):
            vars(module).clear()


def take(given: Sequence[Any], count: int) -> Sequence[Any]:
    """The first ``count``; raises DataError when there are fewer."""
    if len(given) < count:
        raise DataError(
            f"The function needs {count} database(s) and the task names {len(given)}: say which, by their labels."
        )
    return given[:count]


def sentence(problem: BaseException) -> str:
    """One line: skerry's own errors in their own words, all others with what they are."""
    text = " ".join(str(problem).split())
    if isinstance(problem, SkerryError) and text:
        return text
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__


def _print_frames(problem: BaseException, package: str) -> None:
    """Where in the algorithm's own code it happened; what lies below is of no help to its author."""
    module = sys.modules.get(package)
    folder = str(Path(module.__file__).parent) if module is not None and module.__file__ else f"/{package}/"
    for frame in traceback.extract_tb(problem.__traceback__):
        if folder in frame.filename and "importlib" not in frame.filename:
            info(f"{frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line or ''}")


if __name__ == "__main__":
    main()
