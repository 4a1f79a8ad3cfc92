"""A first algorithm to start from: one central and one partial function, with their test."""

from __future__ import annotations

from pathlib import Path

from skerry.errors import ConfigurationError
from skerry.images import dockerfile

_MODULE = '''\
"""The average of a column over all organizations."""

from __future__ import annotations

from typing import Any

from skerry import AlgorithmClient, central, data, partial


@central
def average(client: AlgorithmClient, column: str) -> dict[str, Any]:
    """Runs once, at one organization: asks all of them, and puts their answers together."""
    task = client.task.create(input_={"method": "sums", "kwargs": {"column": column}})
    parts = client.wait_for_results(task["id"])
    return {"average": sum(part["sum"] for part in parts) / sum(part["n"] for part in parts)}


@partial
@data(1)
def sums(frame: Any, column: str) -> dict[str, Any]:
    """Runs at each organization, on its data frame. What it returns leaves the organization."""
    values = frame[column].dropna()
    return {"sum": float(values.sum()), "n": len(values)}
'''
_TEST = """\
import pandas as pd
from skerry.testing import Federation

import {{package}}


def test_average() -> None:
    federation = Federation({{package}}, [pd.DataFrame({"age": [30, 40]}), pd.DataFrame({"age": [80]})])
    assert federation.run("average", column="age") == {"average": 50.0}
"""
_README = """\
# {{package}}

    python -m pytest                                  # on data frames, in this process
    skerry algorithm build . --tag example/{{package}}       # an image
    skerry algorithm check example/{{package}}               # what a node will say of it
"""


def write(folder: Path) -> list[Path]:
    """The files of a new algorithm, named like the folder. Raises ConfigurationError when the folder has content."""
    name = folder.absolute().name.replace("-", "_")
    if not name.isidentifier():
        raise ConfigurationError(f"\"{folder.name}\" can't be a Python package's name: take letters, digits and -.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} exists and is not empty.")
    files = {
        f"{name}/__init__.py": _MODULE,
        f"tests/test_{name}.py": _TEST,
        "Dockerfile": dockerfile(name, name),
        "README.md": _README,
    }
    return [_write(folder / path, text.replace("{{package}}", name)) for path, text in files.items()]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
