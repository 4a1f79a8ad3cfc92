"""An algorithm as vantage6's users write it, on its published tools alone: each function tries one thing of theirs."""

import os
import socket
import sys
import time
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


@algorithm_client
def greets(client):
    """Central: talks to its children, where the addresses of the VPN say that they are."""
    own = client.organization.list()
    task = client.task.create(input_={"method": "is_greeted"}, organizations=[one["id"] for one in own])
    places = {}
    while len(places) < len(own):
        time.sleep(0.2)
        rows = client.vpn.get_child_addresses()
        places = {row["organization_id"]: row for row in rows if row["label"] == "http"}
    heard = [_greet(places[one["id"]]) for one in own]
    siblings = client.vpn.get_sibling_addresses()
    parts = client.wait_for_results(task_id=task["id"])
    return {"heard": heard, "told": [part["told"] for part in parts], "siblings": siblings}


def _greet(place):
    """A child has its address before it listens."""
    while True:
        try:
            with socket.create_connection((place["ip"], place["port"]), timeout=60) as connection:
                connection.sendall(b"good morning")
                return connection.recv(100).decode()
        except ConnectionRefusedError:
            time.sleep(0.2)


def is_greeted():
    with socket.create_server(("", 8888)) as listener:
        connection, _ = listener.accept()
        with connection:
            told = connection.recv(100).decode()
            connection.sendall(b"and to you")
    return {"told": told}


def _children(client, method, kwargs):
    organizations = [organization["id"] for organization in client.organization.list()]
    task = client.task.create(input_={"method": method, "kwargs": kwargs}, organizations=organizations, name=method)
    info(f"waiting for {method}")
    return client.wait_for_results(task_id=task["id"])
