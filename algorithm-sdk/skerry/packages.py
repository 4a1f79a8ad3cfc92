"""An algorithm's folder, as its author keeps it: read without running any of its code."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skerry.errors import ConfigurationError

_MARKS = frozenset({"central", "partial", "data", "database", "metadata", "algorithm_client"})
_NOT_CODE = frozenset({"tests", "test", "docs", "build", "dist", "setup.py", "conftest.py"})


@dataclass(frozen=True, slots=True)
class Package:
    """``path``: the folder or the one file of the package. ``functions``: those that it marks."""

    name: str
    path: Path
    functions: tuple[str, ...]


def find(folder: Path) -> Package:
    """The one package of a folder. Raises ConfigurationError when there is none, or more than one."""
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder.")
    found = [path for path in sorted(folder.iterdir()) if _is_package(path)]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ConfigurationError(
            f"{folder} must hold one Python package (a folder with an __init__.py, or one .py file); found: {names}."
        )
    return Package(found[0].stem, found[0], tuple(sorted(_functions(found[0]))))


def exposed_ports(dockerfile: Path) -> list[int]:
    """The ports that a Dockerfile EXPOSEs; none where there is no such file."""
    if not dockerfile.exists():
        return []
    lines = re.findall(r"^\s*EXPOSE\s+(.+)$", dockerfile.read_text(), re.MULTILINE | re.IGNORECASE)
    return [int(number) for line in lines for number in re.findall(r"\b(\d+)(?:/\w+)?", line)]


def _is_package(path: Path) -> bool:
    if path.name.startswith((".", "_")) or path.name in _NOT_CODE:
        return False
    return (path / "__init__.py").is_file() if path.is_dir() else path.suffix == ".py" and path.stem.isidentifier()


def _functions(path: Path) -> Iterator[str]:
    """The marked functions of the package's own module, and those that it imports from its modules by name."""
    module = path / "__init__.py" if path.is_dir() else path
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        marked = set(_marked(_parse(file)))
        yield from marked if file == module else marked & _imported(_parse(module))


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(), str(file))
    except (SyntaxError, ValueError) as error:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise ConfigurationError(f"{file} is not Python {version}: {error}") from error


def _marked(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(_name(one) in _MARKS for one in node.decorator_list):
            yield node.name


def _name(decorator: ast.expr) -> str:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")


def _imported(tree: ast.Module) -> set[str]:
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}
