"""Which functions of a package a task may call, and how one is called with what it wants to be given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from types import FunctionType, ModuleType
from typing import IO, Any, Protocol

from skerry import decorators, forms
from skerry.decorators import Declaration, Injection, declaration
from skerry.errors import AlgorithmError, InputError, MethodNotFound
from skerry.wire import Input


@dataclass(frozen=True, slots=True)
class RunMetadata:
    """What a run may know of itself."""

    task_id: int
    node_id: int
    collaboration_id: int
    organization_id: int
    temporary_directory: str
    output_file: str
    input_file: str
    token_file: str


class Surroundings(Protocol):
    """Where a function runs: a container, or a federation in memory."""

    def client(self) -> Any: ...

    def frames(self, count: int) -> Sequence[Any]: ...

    def databases(self, count: int) -> Sequence[Any]: ...

    def connections(self, count: int) -> Sequence[tuple[Any, Callable[[], Any]]]:
        """Open connections, each with what makes its metadata."""
        ...

    def metadata(self) -> RunMetadata: ...


def offered(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions that a task may call, by name.

    A package that marks functions with decorators offers those and no others. One that marks none offers its public
    functions: its own, not what it imports, and only those in ``__all__`` where there is one.
    """
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    marked = {name: value for name, value in public.items() if declaration(value) is not None}
    return marked or {name: value for name, value in public.items() if _is_own(value, name, module)}


def find(module: ModuleType, name: str) -> Callable[..., Any]:
    """Raises MethodNotFound, naming those that there are; for an own function that is not offered, the remedy."""
    functions = offered(module)
    if name in functions:
        return functions[name]
    names = ", ".join(sorted(functions)) or "none"
    if _is_defined_in(vars(module).get(name), module):
        raise MethodNotFound(
            f'The algorithm "{module.__name__}" has a function "{name}" that {_remedy(functions)}; '
            f"those that a task may call: {names}."
        )
    raise MethodNotFound(f'The algorithm "{module.__name__}" has no function "{name}"; it has: {names}.')


def call(function: Callable[..., Any], asked: Input, surroundings: Surroundings) -> Any:
    """The function's value. Raises InputError, before any data is loaded, when the arguments don't fit."""
    marks = declaration(function) or Declaration()
    _check_arguments(function, marks, asked)
    injected = [value for injection in marks.injections for value in _gather(injection, surroundings)]
    return function(*injected, *asked.args, **asked.kwargs)


def dump(value: Any, method: str) -> bytes:
    """The result as it is written. Raises as ``write`` does."""
    out = BytesIO()
    write(value, method, out)
    return out.getvalue()


def write(value: Any, method: str, file: IO[bytes]) -> None:
    """Writes the result. Raises AlgorithmError, saying where, for nothing and for what has no form; OSError."""
    if value is None:
        raise AlgorithmError(f'The function "{method}" returned nothing; it must return what can be written as JSON.')
    try:
        forms.dump(value, file, "result")
    except ValueError as error:
        reason = f'The function "{method}" returned what can\'t be written as JSON: {error}.'
        raise AlgorithmError(reason) from error


def _is_own(value: object, name: str, module: ModuleType) -> bool:
    return name in getattr(module, "__all__", [name]) and _is_defined_in(value, module)


def _is_defined_in(value: object, module: ModuleType) -> bool:
    return isinstance(value, FunctionType) and f"{value.__module__}.".startswith(f"{module.__name__}.")


def _remedy(functions: Mapping[str, Callable[..., Any]]) -> str:
    if any(declaration(function) is not None for function in functions.values()):
        return "is not marked: put @partial or @central above it"
    return "is not public: give it a name without an underscore, and name it in __all__ where there is one"


def _check_arguments(function: Callable[..., Any], marks: Declaration, asked: Input) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(*[None] * marks.count, *asked.args, **asked.kwargs)
    except TypeError as error:
        names = ", ".join(list(signature.parameters)[marks.count :]) or "none"
        given = ", ".join([*(f"{len(asked.args)} without name" for _ in asked.args[:1]), *asked.kwargs]) or "none"
        raise InputError(
            f'The function "{asked.method}" can\'t be called so: {error}. Its arguments are: {names}; given: {given}.'
        ) from error


def _gather(injection: Injection, surroundings: Surroundings) -> Sequence[Any]:
    if injection.what == decorators.CLIENT:
        return [surroundings.client()]
    if injection.what == decorators.METADATA:
        return [surroundings.metadata()]
    if injection.what == decorators.CONNECTIONS:
        return [connection for connection, _ in surroundings.connections(injection.count)]
    if injection.what == decorators.DESCRIBED_CONNECTIONS:
        return [value for pair in surroundings.connections(injection.count // 2) for value in (pair[0], pair[1]())]
    if injection.what == decorators.FRAMES:
        return surroundings.frames(injection.count)
    return surroundings.databases(injection.count)
