"""What a stranger's code can do inside a container: Docker's default, the restricted profile, and gVisor, side by side.

Every probe of `skerry.probes` is tried for real in each. Docker's default is the image as root, as an image that says
nothing else is run. With --json the answers are printed as an object for each column, and no table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from skerry.errors import SkerryError
from skerry.probes import PROBES
from skerry_node.checks import try_sandbox
from skerry_node.config import Config
from skerry_node.preflight import GVISOR_ANSWERS

IMAGE = "skerry/probe"


def try_default() -> dict[str, str]:
    """Nothing but the engine's own settings."""
    command = ["docker", "run", "--rm", "--user", "0", IMAGE]
    answers: dict[str, str] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return answers


def try_node(runtime: str) -> dict[str, str]:
    """By the path that a node's runs take. Raises SkerryError."""
    with tempfile.TemporaryDirectory(prefix="skerry-probe-") as folder:
        path = Path(folder)
        path.chmod(0o711)
        docker = {"runtime": runtime, "probe_image": IMAGE, "host": os.environ.get("DOCKER_HOST")}
        server = {"url": "http://127.0.0.1:1"}
        names = {"name": "probe", "api_key_file": str(path / "key"), "state_folder": str(path / "state")}
        report = try_sandbox(Config.model_validate({**names, "server": server, "encryption": None, "docker": docker}))
    if not report.answers:
        raise SkerryError(str(report.problems[0]))
    return dict(report.answers)


def measure() -> dict[str, dict[str, str]]:
    """A column for each surrounding; gVisor only where the engine has it."""
    columns = {"Docker's default": try_default(), "skerry": try_node("runc")}
    try:
        columns["skerry on gVisor"] = try_node("runsc")
    except SkerryError as error:
        sys.stderr.write(f"probe: without gVisor: {error}\n")
    return columns


def print_table(columns: dict[str, dict[str, str]]) -> None:
    table = Table("group", "an algorithm tries to", "probe", *columns, box=None)
    for probe in PROBES:
        cells = [_color(answers.get(probe.name, "not tried"), str(probe.expected)) for answers in columns.values()]
        table.add_row(probe.group, probe.what, probe.name, *cells)
    Console(width=140).print(table)
    for name, answers in columns.items():
        refused = sum(answers.get(probe.name) == probe.expected for probe in PROBES)
        print(f"probe: {name}: {refused} of {len(PROBES)} as they should be")
    if "skerry on gVisor" in columns:
        for name, (_, reason) in GVISOR_ANSWERS.items():
            print(f"probe: gVisor answers {name} otherwise: {reason}")


def _color(answer: str, wanted: str) -> str:
    return f"[{'green' if answer == wanted else 'red'}]{answer}[/]"


if __name__ == "__main__":
    found = measure()
    if "--json" in sys.argv[1:]:
        print(json.dumps(found))
    else:
        print_table(found)
