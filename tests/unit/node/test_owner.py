from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from skerry.audit import Record
from skerry_node.approvals import Approvals, Decision, Verdict
from skerry_node.owner import Owner
from skerry_node.trail import FOLDER, Trail, now, read_lines

pytestmark = pytest.mark.unit
IMAGE = f"sha256:{'ab' * 32}"


class Proxy:
    """Knows one organization's keys."""

    confirmed = False

    def pins(self) -> list[dict[str, Any]]:
        return [{"organization_id": 3, "fingerprint": "abc", "confirmed": self.confirmed}]


class Site:
    """A node's state folder, and what its daemon's owner tells in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.api_key = "first"
        self.proxy = Proxy()
        self.approvals = Approvals(folder)
        self.trail = Trail(folder / FOLDER, now)
        self.owner = self.start()

    def start(self) -> Owner:
        return Owner(self.folder, self.approvals, lambda: self.api_key, self.trail)

    def tell(self) -> None:
        self.owner.tell(self.proxy)  # type: ignore[arg-type] - it has all that is asked of it

    def told(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in read_lines(self.folder / FOLDER)]
        return [Record.parse(line).as_dict() for line in lines if "head" not in line]

    def actions(self) -> list[str]:
        return [record["action"] for record in self.told()]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def decide(site: Site, verdict: Verdict, function: str) -> None:
    site.approvals.decide([Decision(image=IMAGE, function=function, verdict=verdict, at=7.5, by=1000)])


def test_who_decided_what_and_when_is_told_once(site: Site) -> None:
    decide(site, Verdict.APPROVED, "mean")
    for _ in range(2):
        site.tell()
    site.owner = site.start()
    site.tell()
    [record] = [one for one in site.told() if one["action"] == "approval.decide"]
    assert record["actor"] == {"kind": "owner", "id": 1000, "organization": None}
    assert record["details"] == {"image_id": IMAGE, "function": "mean", "verdict": "approved", "at": 7}
    decide(site, Verdict.REFUSED, "mean")
    site.tell()
    assert site.actions().count("approval.decide") == 2


def test_what_was_decided_while_the_node_was_down_is_told_when_it_starts(site: Site) -> None:
    site.tell()
    decide(site, Verdict.APPROVED, "mean")
    site.owner = site.start()
    site.tell()
    assert site.actions().count("approval.decide") == 1


def test_another_api_key_is_told_and_never_shown(site: Site) -> None:
    site.tell()
    assert "node.change_key" not in site.actions()
    site.api_key = "second-key-of-the-node"
    for _ in range(2):
        site.tell()
    assert site.actions().count("node.change_key") == 1
    everything = "".join(path.read_text() for path in site.folder.rglob("*") if path.is_file())
    assert site.api_key not in everything
    assert (site.folder / "told.json").stat().st_mode & 0o777 == 0o600


def test_confirmed_keys_are_told_without_a_run(site: Site) -> None:
    site.tell()
    site.proxy.confirmed = True
    site.tell()
    assert [one["details"]["confirmed"] for one in site.told() if one["action"] == "key.pin"] == [False, True]


def test_what_can_not_be_recorded_is_told_later(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    decide(site, Verdict.APPROVED, "mean")
    with monkeypatch.context() as patch:
        patch.setattr("skerry_node.trail._write_all", _full)
        site.tell()
    site.tell()
    assert site.actions().count("approval.decide") == 1


def _full(_file: int, _line: bytes) -> None:
    raise OSError(28, "No space left on device")


def test_a_damaged_file_of_decisions_is_no_end(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    decide(site, Verdict.APPROVED, "mean")
    (site.folder / "approvals" / "decided.json").write_text("[")
    site.tell()
    assert "not on record yet" in caplog.text
