"""A large input and its result, as a vantage6 user's script has them. Runs where only the published client is.

usage: large_payloads.py FEDERATION.json IMAGE   (what `skerry dev up --json` printed); prints one JSON object.
"""

import json
import logging
import sys
from pathlib import Path

from vantage6.client import UserClient

SIZE = 3_000_000


def main() -> None:
    federation, image = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    host, port = federation["server"]["url"].rsplit(":", 1)
    user, organizations = federation["users"][0], federation["organizations"]
    client = UserClient(host, int(port), federation["server"]["api_path"], log_level="error")
    client.authenticate(user["username"], user["password"])
    key = next(o["private_key_file"] for o in organizations if o["id"] == user["organization_id"])
    client.setup_encryption(key if federation["collaboration"]["encrypted"] else None)
    value = "0123456789" * (SIZE // 10)
    ids = [organization["id"] for organization in organizations]
    task = client.task.create(
        organizations=ids,
        name="large",
        image=image,
        description="",
        input_={"method": "echo", "kwargs": {"value": value}},
        collaboration=federation["collaboration"]["id"],
    )
    results = client.wait_for_results(task["id"])["data"]
    runs = client.run.from_task(task["id"])["data"]
    # Those of other organizations are for them to read.
    inputs = [run["input"] for run in runs if run["organization"]["id"] == user["organization_id"]]
    inputs = [json.loads(one) if isinstance(one, str) else one for one in inputs]
    seen = {
        "came_back": [json.loads(row["result"]) == value for row in results],
        "as_blobs": [row.get("blob_storage_used", False) for row in results],
        "inputs": [one["kwargs"]["value"] == value for one in inputs],
    }
    print("\n" + json.dumps(seen))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    main()
