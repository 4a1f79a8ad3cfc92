"""What images made with vantage6's own tools can do, asked for with its published client, which is all that is here.

usage: tour.py FEDERATION.json IMAGE   (what `skerry dev up --json` printed); prints one JSON object, an entry a task.
"""

import json
import logging
import sys
from pathlib import Path

from vantage6.client import UserClient

OLD = {"function": "filter_range", "parameters": {"column": "age", "min_": 30, "include_min": True}}

CENTRAL = {"mean", "rounds", "looks_around", "greets"}
"""Waited for one at a time: each holds a place at its node while it waits for its own children."""


def tasks(organizations):
    """Name, organizations, method, keyword arguments, databases."""
    one = organizations[:1]
    table = [{"label": "default"}]
    query = "SELECT age FROM patients WHERE age > 50"
    served = "SELECT age FROM patients WHERE age > 75"
    age = {"column": "age"}
    return [
        ("central", one, "mean", age, table),
        ("partial", organizations, "sums", age, table),
        ("two databases", one, "columns", {}, [{"label": "book"}, {"label": "default"}]),
        ("two databases turned", one, "columns", {}, [{"label": "default"}, {"label": "book"}]),
        ("preprocessing", one, "sums", age, [{"label": "default", "preprocessing": [OLD]}]),
        ("central with preprocessing", one, "mean", age, [{"label": "default", "preprocessing": [OLD]}]),
        ("query", one, "sums", age, [{"label": "records", "query": query}]),
        ("central with a query", one, "mean", age, [{"label": "records", "query": query}]),
        ("registry", one, "sums", age, [{"label": "registry", "query": served}]),
        ("central with a registry", one, "mean", age, [{"label": "registry", "query": served}]),
        ("sheet", one, "sums", {"column": "weight"}, [{"label": "book", "sheet_name": "second"}]),
        ("first sheet", one, "sums", {"column": "height"}, [{"label": "book"}]),
        ("no such sheet", one, "sums", {"column": "weight"}, [{"label": "book", "sheet_name": "third"}]),
        ("folder", one, "documents", {"label": "documents"}, [{"label": "documents"}]),
        ("variables", one, "variables", {"label": "records"}, [{"label": "records"}, {"label": "default"}]),
        ("rounds", one, "rounds", {}, None),
        ("other job", one, "find", {}, None),
        ("metadata", one, "about", {}, None),
        ("defaults", one, "defaults", {}, None),
        ("exception", one, "violates", {"message": "too few rows"}, None),
        ("exit code", one, "exits", {"code": 3}, None),
        ("no such function", one, "nothing", {}, None),
        ("calls", one, "looks_around", {}, None),
    ]


def main() -> None:
    federation, image = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    client = log_in(federation)
    collaboration = federation["collaboration"]["id"]
    organizations = [organization["id"] for organization in federation["organizations"]]
    started, seen = {}, {}
    # Peers are told apart by their organizations' keys.
    peers = [("peers", organizations[:1], "greets", {}, None)] if federation["collaboration"]["encrypted"] else []
    for name, targets, method, kwargs, databases in [*tasks(organizations), *peers]:
        created = client.task.create(
            organizations=targets,
            name=name,
            image=image,
            description="",
            input_={"method": method, "kwargs": kwargs},
            collaboration=collaboration,
            databases=databases,
        )
        if method in CENTRAL:
            seen[name] = outcome(client, created["id"])
        else:
            started[name] = created["id"]
    seen |= {name: outcome(client, id_) for name, id_ in started.items()}
    # The client of some releases leaves a line of its own unfinished.
    print("\n" + json.dumps(seen))


def log_in(federation):
    host, port = federation["server"]["url"].rsplit(":", 1)
    user = federation["users"][0]
    client = UserClient(host, int(port), federation["server"]["api_path"], log_level="error")
    client.authenticate(user["username"], user["password"])
    keys = {one["id"]: one["private_key_file"] for one in federation["organizations"]}
    encrypted = federation["collaboration"]["encrypted"]
    client.setup_encryption(keys[user["organization_id"]] if encrypted else None)
    return client


def outcome(client, task):
    results = client.wait_for_results(task)["data"]
    runs = sorted(client.run.from_task(task)["data"], key=lambda run: run["id"])
    return {
        "task": task,
        "status": client.task.get(task)["status"],
        "results": [json.loads(row["result"]) for row in sorted(results, key=lambda row: row["id"]) if row["result"]],
        "logs": [run["log"] for run in runs],
        "statuses": [run["status"] for run in runs],
    }


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    main()
