"""The main job as a vantage6 user's script does it. Runs in an environment that holds only the published client.

usage: main_job.py FEDERATION.json IMAGE   (what `skerry dev up --json` printed); prints one JSON object.
"""

import json
import logging
import sys
from pathlib import Path

from vantage6.client import UserClient


def main() -> None:
    federation, image = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    host, port = federation["server"]["url"].rsplit(":", 1)
    user, organizations = federation["users"][0], federation["organizations"]
    collaboration = federation["collaboration"]
    client = UserClient(host, int(port), federation["server"]["api_path"], log_level="error")
    client.authenticate(user["username"], user["password"])
    key = next(o["private_key_file"] for o in organizations if o["id"] == user["organization_id"])
    client.setup_encryption(key if collaboration["encrypted"] else None)
    task = client.task.create(
        organizations=[organizations[0]["id"]],
        name="main job",
        image=image,
        description="",
        input_={"method": "mean", "kwargs": {"column": "age"}},
        collaboration=collaboration["id"],
        databases=[{"label": "default"}],
    )
    results = client.wait_for_results(task["id"])
    seen = {
        "results": [json.loads(row["result"]) for row in results["data"]],
        "status": client.task.get(task["id"])["status"],
        "children": len(client.task.list(parent=task["id"])["data"]),
        "run": client.run.from_task(task["id"])["data"][0]["status"],
        "input": client.run.get(client.run.from_task(task["id"])["data"][0]["id"])["input"],
        "organizations": sorted(o["id"] for o in client.organization.list(collaboration=collaboration["id"])["data"]),
        "nodes": len(client.node.list(collaboration=collaboration["id"])["data"]),
        "collaboration": client.collaboration.get(collaboration["id"])["name"],
        "version": "version" in client.util.get_server_version(),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    main()
