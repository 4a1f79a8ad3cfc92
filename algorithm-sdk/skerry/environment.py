"""What an image or a node's owner sets for an algorithm: variables, read as what they should be."""

from __future__ import annotations

import os
from typing import Literal, overload

from skerry.exceptions import EnvironmentVariableError, EnvironmentVariableNotFoundError

_WORDS = {"true": True, "1": True, "yes": True, "t": True, "false": False, "0": False, "no": False, "f": False}


@overload
def get_env_var(var_name: str, default: str, as_type: Literal["str"] = "str") -> str: ...


@overload
def get_env_var(var_name: str, default: None = None, as_type: Literal["str"] = "str") -> str | None: ...


@overload
def get_env_var(var_name: str, default: str | int | None = None, *, as_type: Literal["int"]) -> int: ...


@overload
def get_env_var(var_name: str, default: str | bool | None = None, *, as_type: Literal["bool"]) -> bool: ...


def get_env_var(var_name: str, default: object = None, as_type: str = "str") -> str | int | bool | None:
    """The variable's value, or the default where it is not set, as ``str``, ``int`` or ``bool``.

    A bool is true, 1, yes or t, or false, 0, no or f. Raises EnvironmentVariableError for a value that is none of
    the type, EnvironmentVariableNotFoundError where a number or a bool is wanted and there is no default either.
    """
    value = os.environ.get(var_name, default)
    if as_type == "str":
        return None if value is None else str(value)
    if as_type not in {"int", "bool"}:
        raise EnvironmentVariableError(
            f'The variable {var_name} can be read as "str", "int" or "bool", not {as_type!r}.'
        )
    if value is None:
        raise EnvironmentVariableNotFoundError(
            f"The variable {var_name} is not set: set it in the image, or have the node's owner set it."
        )
    return _as_int(var_name, value) if as_type == "int" else _as_bool(var_name, value)


def check_envvar_value_positive(envvar_name: str, envvar_value: float) -> None:
    """Raises EnvironmentVariableError for a number below 0."""
    if envvar_value < 0:
        raise EnvironmentVariableError(f"The variable {envvar_name} is {envvar_value}; it must not be below 0.")


def _as_int(name: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise EnvironmentVariableError(f'The variable {name} is "{value}"; it must be a whole number.') from error


def _as_bool(name: str, value: object) -> bool:
    word = str(value).strip().lower()
    if word not in _WORDS:
        raise EnvironmentVariableError(f'The variable {name} is "{value}"; it must be true or false.')
    return _WORDS[word]
