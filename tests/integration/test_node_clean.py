"""``skerry node clean`` on a real engine: what it lists, what it removes, and what it never touches."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from skerry_node.cli import node
from skerry_node.state import State

pytestmark = pytest.mark.integration
INSTALLATION = "0123456789ab"


@pytest.fixture
def config(images: object, tmp_path: Path) -> Path:
    (tmp_path / "api-key").touch(mode=0o600)
    state = tmp_path / "state"
    state.mkdir()
    (state / "installation").write_text(f"{INSTALLATION}\n")
    settings = {
        "name": "node 1",
        "server": {"url": "http://127.0.0.1:1"},
        "api_key_file": "api-key",
        "state_folder": "state",
        "encryption": None,
        "policies": {"allowed_algorithms": []},
    }
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "node.yaml"


@pytest.fixture
def container():
    """Makes containers as a node labels them, and removes them."""
    made = []

    def make(kind: str, network: str = "none", installation: str = INSTALLATION, run: int | None = None) -> str:
        labels = {"skerry.installation": installation, "skerry.kind": kind}
        labels |= {"skerry.run": str(run), "skerry.attempt": "1"} if run else {}
        words = [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
        create = ["docker", "create", "--network", network, *words, "skerry/holder"]
        made.append(subprocess.run(create, check=True, capture_output=True, text=True).stdout.strip())
        return made[-1]

    yield make
    subprocess.run(["docker", "rm", "-f", *made], check=False, capture_output=True)


def there(container: str) -> bool:
    return subprocess.run(["docker", "inspect", container], check=False, capture_output=True).returncode == 0


def clean(config: Path, *options: str) -> str:
    done = CliRunner().invoke(node, ["clean", "--config", str(config), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_what_no_run_needs_is_listed_and_then_removed(config, container) -> None:
    holder, other_holder = container("holder"), container("holder")
    kept = container("algorithm", f"container:{holder}", run=7)
    orphan = container("algorithm", f"container:{other_holder}", run=8)
    foreign = container("algorithm", installation="ba9876543210", run=8)
    runs = config.parent / "state" / "runs"
    for name in ("7-1", "8-1"):
        (runs / name).mkdir(parents=True)
    (runs / "7-1" / "entry.json").write_text(json.dumps({}))
    listed = clean(config)
    assert listed.count("would remove container") == 2
    assert f"would remove folder {runs / '8-1'}" in listed
    assert there(orphan)
    assert clean(config, "--yes").count("removed ") == 3
    assert [there(one) for one in (holder, kept, other_holder, orphan, foreign)] == [True, True, False, False, True]
    assert [path.name for path in runs.iterdir()] == ["7-1"]
    assert "nothing to remove" in clean(config)


def test_a_node_that_runs_is_left_alone(config, container) -> None:
    holder = container("holder")
    state = State(config.parent / "state")
    try:
        assert "The node runs" in clean(config, "--yes")
    finally:
        state.close()
    assert there(holder)
