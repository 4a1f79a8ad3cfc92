"""skerry: runs an algorithm where the data is. What algorithm authors and user scripts import."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skerry.algorithm_client import AlgorithmClient
    from skerry.client import Client, UserClient
    from skerry.decorators import central, data, database, database_connection, metadata, partial
    from skerry.environment import check_envvar_value_positive, get_env_var
    from skerry.functions import RunMetadata
    from skerry.output import error, info, warn
    from skerry.tasks import TaskHandle

__all__ = [
    "AlgorithmClient",
    "Client",
    "RunMetadata",
    "TaskHandle",
    "UserClient",
    "central",
    "check_envvar_value_positive",
    "data",
    "database",
    "database_connection",
    "error",
    "get_env_var",
    "info",
    "metadata",
    "partial",
    "warn",
]

_HOMES = {
    "AlgorithmClient": "algorithm_client",
    "Client": "client",
    "UserClient": "client",
    "TaskHandle": "tasks",
    "RunMetadata": "functions",
    "central": "decorators",
    "data": "decorators",
    "check_envvar_value_positive": "environment",
    "database": "decorators",
    "database_connection": "decorators",
    "get_env_var": "environment",
    "metadata": "decorators",
    "partial": "decorators",
    "error": "output",
    "info": "output",
    "warn": "output",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for: a container pays only for what its algorithm uses."""
    if name not in _HOMES:
        raise AttributeError(f"module 'skerry' has no attribute '{name}'")
    return getattr(import_module(f"skerry.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
