"""All calls of the table by vantage6's published client. Runs where nothing but that client is installed.

usage: client_tour.py FACTS.json   (see test_client_tour.py); prints one JSON object: how many calls, which failed,
and which public members of the client nobody called, or are missing though the table does not say so.
"""

import contextlib
import json
import logging
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pyotp
from client_calls import CALLS, LACKING
from steps import PATIENCE, World, public_members, tour
from vantage6.client import UserClient
from vantage6.common import Singleton


class Tour(World):
    """What the table's calls know of the federation, and the clients that they use."""

    def __init__(self, facts):
        federation = facts["federation"]
        self.release = version("vantage6-client")
        self.newest = self.release not in LACKING
        self.encrypted = federation["collaboration"]["encrypted"]
        self.tag = f"{self.release}-{'sealed' if self.encrypted else 'plain'}"
        self.url = federation["server"]["url"]
        self.collaboration = federation["collaboration"]["id"]
        self.organizations = sorted(one["id"] for one in federation["organizations"])
        self.one, self.two = self.organizations
        self.nodes = [node["id"] for node in federation["nodes"]]
        self.average, self.probe = facts["images"]["average"], facts["images"]["probe"]
        # The older client appends the path of the store's interface by itself.
        self.store_url = facts["store"] + ("/api" if self.newest else "")
        self.guarded = facts["guarded"]["login"]
        self.folder = facts["folder"]
        self._facts, self._federation, self._clients = facts, federation, {}

    def login(self, user):
        return {name: self._federation["users"][user][name] for name in ("username", "password")}

    def key_of(self, organization):
        keys = {one["id"]: one["private_key_file"] for one in self._federation["organizations"]}
        return keys[organization] if self.encrypted else None

    def if_newest(self, **arguments):
        """Arguments that the older client does not have."""
        return arguments if self.newest else {}

    @property
    def run(self):
        return self.runs["data"][0]["id"]

    @property
    def researcher(self):
        return self.mean["init_user"]["id"]

    def client(self, who):
        """A client for each name; those that the table does not log in itself are logged in.

        The published client keeps one key a process, whoever logs in: here that would be the first one's.
        """
        Singleton._instances.clear()
        if who not in self._clients:
            url = self._facts["guarded"]["url"] if who.startswith("guarded") else self.url
            host, port = url.rsplit(":", 1)
            self._clients[who] = UserClient(host, int(port), "/api", log_level="critical")
            self._prepare(who, self._clients[who])
        return self._clients[who]

    def _prepare(self, who, client):
        users = {"researcher of two": 2, "settled": 0, "settled here": 0}
        if who in users:
            client.authenticate(**self.login(users[who]))
        if who == "settled here":
            client.setup_encryption(self.key_of(self.one))
            client.setup_collaboration(self.collaboration)

    def letter(self, address):
        """The token in the newest letter to this address, once it is there."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            letters = sorted(Path(self._facts["letters"]).glob("*.letter"), key=lambda path: path.stat().st_mtime)
            for text in (path.read_text() for path in reversed(letters)):
                if f"To: {address}" in text:
                    plain = text.replace("=\n", "").replace("=\r\n", "").replace("=3D", "=")
                    return re.search(r"^(ey[\w.-]+)\s*$", plain, re.MULTILINE)[1]
            time.sleep(0.1)
        raise AssertionError(f"no letter came for {address}")

    def keep_secret(self):
        """Of the second factor, as the client shows it."""
        self.secret = re.search(r"authenticator app: (\w+)", self.printed)[1]
        return True

    def code(self):
        return pyotp.TOTP(self.secret).now()


def main():
    world = Tour(json.loads(Path(sys.argv[1]).read_text()))
    with contextlib.redirect_stdout(sys.stderr):
        members = public_members(world.client("nobody"))
        lacking = LACKING.get(world.release, set())
        calls = [call for call in CALLS if call.method not in lacking]
        outcome = tour(calls, world, world.client)
    named = {call.method for call in CALLS}
    seen = {
        "calls": outcome.calls,
        "failed": outcome.failed,
        "uncalled": sorted(members - named),
        "missing": sorted(named - members - lacking),
        "not lacking": sorted(lacking & members),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    main()
