"""An algorithm as vantage6's users write it, on its published tools alone: each function tries one thing of theirs."""

import os
import sys
from pathlib import Path

from vantage6.algorithm.tools import exceptions
from vantage6.algorithm.tools.decorators import algorithm_client, data, metadata
from vantage6.algorithm.tools.util import get_env_var, info


@algorithm_client
def mean(client, column):
    """Central: the mean over all organizations of the collaboration."""
    parts = _children(client, "sums", {"column": column})
    return {"mean": sum(part["sum"] for part in parts) / sum(part["n"] for part in parts), "parts": len(parts)}


@data(1)
def sums(df, column):
    return {"sum": float(df[column].sum()), "n": int(df[column].count())}


@data(2)
def columns(last, first):
    """vantage6's tools put each frame before the one that came earlier."""
    return {"first": list(first.columns), "last": list(last.columns)}


@algorithm_client
def rounds(client):
    """Central: two tasks, one after the other, of which the second finds what the first left."""
    left = _children(client, "leave", {})
    found = _children(client, "find", {})
    return {"left": sorted(left), "found": sorted(found)}


@metadata
def leave(meta):
    text = f"of organization {meta.organization_id}"
    (Path(get_env_var("TEMPORARY_FOLDER")) / "left.txt").write_text(text)
    return text


def find():
    return (Path(get_env_var("TEMPORARY_FOLDER")) / "left.txt").read_text()


@metadata
def about(meta):
    names = ("task_id", "node_id", "collaboration_id", "organization_id")
    paths = ("temporary_directory", "output_file", "input_file", "token_file")
    return {name: getattr(meta, name) for name in names} | {name: str(getattr(meta, name)) for name in paths}


def variables(label):
    """What the node told of the databases, as it stands in the environment: the newer tools have decoded it by then."""
    names = (f"{label.upper()}_DATABASE_URI", f"{label.upper()}_DATABASE_TYPE", "DB_LABELS")
    return {name: os.environ[name] for name in (*names, "USER_REQUESTED_DATABASE_LABELS")}


def documents(label):
    folder = Path(get_env_var(f"{label.upper()}_DATABASE_URI"))
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.txt"))}


def defaults():
    return {"unset": get_env_var("NOT_SET", default="fallback"), "home": os.environ["HOME"]}


def violates(message):
    info("about to fail")
    # The tools have had it since 4.4.
    raise getattr(exceptions, "PrivacyThresholdViolation", Exception)(message)


def exits(code):
    info("about to leave")
    sys.exit(code)


@algorithm_client
def looks_around(client):
    """Central: the calls that published clients make beside those for child tasks."""
    own = client.organization.list()
    task = client.task.create(input_={"method": "find_nothing", "kwargs": {}}, organizations=[own[0]["id"]])
    client.wait_for_results(task_id=task["id"])
    runs = client.run.from_task(task["id"])
    return {
        "organization": client.organization.get(own[0]["id"])["name"],
        "collaboration": client.collaboration.get()["name"],
        "task": client.task.get(task["id"])["status"],
        "runs": [run["status"] for run in runs],
        "run": client.run.get(runs[0]["id"])["status"],
        "addresses": client.vpn.get_addresses(),
    }


def find_nothing():
    return {"found": None}


def _children(client, method, kwargs):
    organizations = [organization["id"] for organization in client.organization.list()]
    task = client.task.create(input_={"method": method, "kwargs": kwargs}, organizations=organizations, name=method)
    info(f"waiting for {method}")
    return client.wait_for_results(task_id=task["id"])
