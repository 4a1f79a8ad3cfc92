"""Point 4: from inside a running container nothing but its own gate can be reached."""

from __future__ import annotations

import json
import socket
import subprocess
import threading

import pytest

pytestmark = pytest.mark.acceptance
DOCUMENTATION_ADDRESS = "192.0.2.1"  # RFC 5737: stands for any public address, belongs to nobody


def host_addresses() -> list[str]:
    shown = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout
    return [*shown.split(), "127.0.0.1", "::1"]


def run(federation, image, method, organizations=None, /, **kwargs):
    task = federation.client().task.create(
        organizations=organizations or federation.organization_ids[:1],
        name=method,
        image=image,
        collaboration=federation.collaboration_id,
        input_={"method": method, "kwargs": kwargs},
    )
    return task.wait(timeout=120).results()


def test_only_its_own_gate(federation, probe_image) -> None:
    targets = [[address, federation.port] for address in host_addresses()]
    targets += [["172.17.0.1", federation.port], [DOCUMENTATION_ADDRESS, 80], ["169.254.169.254", 80]]
    [seen] = run(federation, probe_image, "look_around", targets=targets, names=["localhost.test", "example.org"])
    assert seen["interfaces"] == ["lo"]
    assert seen["routes"] == 0
    assert seen["listeners"] == [8642]
    assert seen["reached"] == []
    assert seen["resolved"] == []


def test_the_targets_can_be_reached_from_outside(federation) -> None:
    """The control: the same server answers here, so 'not reached' above means something."""
    socket.create_connection(("127.0.0.1", federation.port), timeout=2).close()


def test_no_rights(federation, probe_image) -> None:
    [seen] = run(federation, probe_image, "look_around", targets=[], names=[])
    assert seen["uid"] != 0
    assert int(seen["capabilities"], 16) == 0
    assert seen["no_new_privileges"] == "1"
    assert not seen["can_write_root"]
    assert seen["can_write_tmp"]
    assert not any("DOCKER" in name for name in seen["environment"])


def test_two_runs_do_not_see_each_other(federation, probe_image) -> None:
    """Both run at the same time on one node; each finds only one listener, its own gate."""
    seen, around = [], {"targets": [], "names": [], "seconds": 10}

    def look() -> None:
        seen.extend(run(federation, probe_image, "look_around", **around))

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one["listeners"] for one in seen] == [[8642]] * 3
    assert len({one["uid"] for one in seen}) == 3


@pytest.mark.parametrize(
    "call",
    [
        ["POST", "/token/user"],
        ["GET", "/user"],
        ["POST", "/user"],
        ["PATCH", "/organization/1"],
        ["DELETE", "/task/1"],
        ["POST", "/kill/task"],
        ["GET", "/skerry/node/self"],
        ["POST", "/skerry/node/work"],
        ["GET", "/organization/../user"],
        ["GET", "/organization/%2e%2e/user"],
        ["GET", "//evil.test/organization"],
    ],
    ids=lambda call: f"{call[0]} {call[1]}",
)
def test_calls_that_the_gate_refuses(federation, probe_image, call) -> None:
    [[status, allowed]] = run(federation, probe_image, "call_gate", calls=[call, ["GET", "/organization"]])
    assert status in {400, 403, 404}
    assert allowed == 200


def test_the_gate_on_a_unix_socket(dev, probe_image, tmp_path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"docker": {"gate": "unix"}}))
    with dev("--nodes", "1", "--node-settings", str(settings)) as federation:
        [seen] = run(federation, probe_image, "call_unix_gate")
    assert seen == {
        "path": "/mnt/data/gate.sock",
        "own": True,
        "mode": "srw-------",
        "statuses": [401, 200],
        "replaced": False,
    }
