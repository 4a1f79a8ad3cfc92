"""Images that hold vantage6's published tools run here as they are, driven by its published clients."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from clusters import PASSWORD
from devfederation import ALGORITHMS, DevFederation, build
from services import postgresql

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]
TOUR = Path(__file__).parent.parent / "compat" / "tour.py"
VERSIONS = ("4.15.2", "4.7.1", "4.3.4")
"""The last one decodes each variable when it is asked for it, and leaves the environment as it is."""


@dataclass(frozen=True)
class Published:
    """A Python with a release's client, and an image with its tools."""

    version: str
    python: Path
    image: str


@pytest.fixture(scope="session", params=VERSIONS)
def published(request, images, published_python, tmp_path_factory) -> Published:
    python = published_python(request.param)
    context = tmp_path_factory.mktemp("published") / "context"
    shutil.copytree(ALGORITHMS / "v6tour", context)
    [packages] = python.parent.parent.glob("lib/python*/site-packages")
    shutil.copytree(packages, context / "lib", ignore=shutil.ignore_patterns("__pycache__", "pip", "tests"))
    return Published(request.param, python, build(context, f"skerry-tests/v6tour:{request.param}"))


@pytest.fixture(scope="session")
def registry(postgresql_programs, tmp_path_factory) -> Iterator[dict]:
    """A database that is a service: settings for both nodes."""
    secret = tmp_path_factory.mktemp("registry") / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    with postgresql(postgresql_programs) as made:
        database = {"label": "registry", "uri": made.uri, "type": "sql", "password_file": str(secret)}
        yield {"databases": [database]}


@pytest.fixture(scope="session")
def databases(tmp_path_factory) -> list[str]:
    """The same at both nodes, but for the table: ages 20 to 39, and 30 to 49."""
    folder = tmp_path_factory.mktemp("databases")
    tables = [folder / "a.csv", folder / "b.csv"]
    for number, table in enumerate(tables):
        pd.DataFrame({"age": [20 + 10 * number + row for row in range(20)]}).to_csv(table, index=False)
    with pd.ExcelWriter(folder / "book.xlsx") as book:
        pd.DataFrame({"height": [150, 160]}).to_excel(book, sheet_name="first", index=False)
        pd.DataFrame({"weight": [50, 60, 70]}).to_excel(book, sheet_name="second", index=False)
    with sqlite3.connect(folder / "records.db") as records:
        records.execute("CREATE TABLE patients (age INTEGER)")
        records.executemany("INSERT INTO patients VALUES (?)", [(age,) for age in (40, 50, 60, 70)])
    records.close()
    documents = folder / "documents" / "inner"
    documents.mkdir(parents=True)
    (documents / "note.txt").write_text("a note")
    files = {
        "default": ",".join(map(str, tables)),
        "book": folder / "book.xlsx",
        "records": folder / "records.db",
        "documents": folder / "documents",
    }
    return [part for label, file in files.items() for part in ("--database", f"{label}={file}")]


PEERS = {"policies": {"vpn": "allow"}, "vpn": {"endpoint": "127.0.0.1"}}


@pytest.fixture(params=["encrypted", "plain"])
def two_nodes(request, dev, databases, registry, tmp_path) -> Iterator[DevFederation]:
    """The encrypted one has a VPN: peers are told apart by their organizations' keys."""
    kind, more = (["--accept", "both"], PEERS) if request.param == "encrypted" else (["--plain"], {})
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(registry | more))
    with dev("--nodes", "2", *databases, "--node-settings", str(settings), *kind) as federation:
        yield federation


def test_tour(two_nodes, vpn_machine, published, tmp_path) -> None:
    seen = take_tour(published, two_nodes.facts, tmp_path)
    if two_nodes.facts["collaboration"]["encrypted"]:
        met = {"heard": ["and to you"] * 2, "told": ["good morning"] * 2, "siblings": []}
        assert seen["peers"]["results"] == [met], seen["peers"]["logs"]
    for name, results in expected(published.version).items():
        assert (name, seen[name]["results"]) == (name, results), seen[name]["logs"]
        assert (name, seen[name]["status"]) == (name, "completed")
    check_metadata(seen["metadata"], two_nodes.facts)
    check_ends(seen)
    [calls] = seen["calls"]["results"]
    organization = two_nodes.facts["organizations"][0]["name"]
    assert calls["organization"] == organization
    assert (calls["task"], calls["runs"], calls["run"]) == ("completed", ["completed"], "completed")


def take_tour(published: Published, facts: dict, tmp_path: Path) -> dict:
    federation = tmp_path / "federation.json"
    federation.write_text(json.dumps(facts))
    command = [str(published.python), "-W", "ignore", str(TOUR), str(federation), published.image]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    seen: dict = json.loads(ran.stdout.splitlines()[-1])
    return seen


RESULTS = {
    "central": [{"mean": 34.5, "parts": 2}],
    "partial": [{"sum": 590.0, "n": 20}, {"sum": 790.0, "n": 20}],
    "two databases": [{"first": ["height"], "last": ["age"]}],
    "two databases turned": [{"first": ["age"], "last": ["height"]}],
    "preprocessing": [{"sum": 345.0, "n": 10}],
    "central with preprocessing": [{"mean": 1135 / 30, "parts": 2}],
    "query": [{"sum": 130.0, "n": 2}],
    "central with a query": [{"mean": 65.0, "parts": 2}],
    "registry": [{"sum": 310.0, "n": 4}],
    "central with a registry": [{"mean": 77.5, "parts": 2}],
    "sheet": [{"sum": 180.0, "n": 3}],
    "first sheet": [{"sum": 310.0, "n": 2}],
    "folder": [{"inner/note.txt": "a note"}],
    "variables": [
        {
            "RECORDS_DATABASE_URI": "/mnt/databases/records/records.db.sqlite",
            "RECORDS_DATABASE_TYPE": "sql",
            "DB_LABELS": "default,book,records,documents,registry",
            "USER_REQUESTED_DATABASE_LABELS": "records,default",
        }
    ],
    "defaults": [{"unset": "fallback", "home": "/tmp"}],
}


def expected(version: str) -> dict[str, list]:
    """By the tools of 4.3 no query works: they hand its words over in the wrong order."""
    if version != "4.3.4":
        return RESULTS
    [variables] = RESULTS["variables"]
    encoded = {name: base64.b32encode(value.encode()).decode().replace("=", "!") for name, value in variables.items()}
    done = {name: results for name, results in RESULTS.items() if "query" not in name and "registry" not in name}
    return {**done, "variables": [encoded]}


def check_metadata(seen: dict, facts: dict) -> None:
    [about] = seen["results"]
    assert about["task_id"] == seen["task"]
    assert about["organization_id"] == facts["organizations"][0]["id"]
    assert about["node_id"] == facts["nodes"][0]["id"]
    assert about["collaboration_id"] == facts["collaboration"]["id"]
    assert about["temporary_directory"] == "/mnt/tmp"
    assert about["output_file"].startswith("/mnt/data/task-0000")


def check_ends(seen: dict) -> None:
    """How runs end, and what their logs say."""
    for name, words in {
        "exception": ["info > about to fail", "too few rows"],
        "exit code": ["info > about to leave"],
        "no such function": ["nothing"],
        "no such sheet": ["third"],
        "other job": ["left.txt"],
    }.items():
        assert (name, seen[name]["statuses"]) == (name, ["crashed"])
        assert seen[name]["results"] == []
        assert all(word in seen[name]["logs"][0] for word in words), seen[name]["logs"]
    [rounds] = seen["rounds"]["results"]
    assert rounds["found"] == rounds["left"]
    assert len(rounds["left"]) == 2
    assert "waiting for sums" in seen["central"]["logs"][0]
