"""Which ways out a run gets, and what it is told of them."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from skerry.contract import GATE_PORT, RELAY_PORT, decode
from skerry_node import environment, relays
from skerry_node.config import Config, Database, Egress, Gate
from skerry_node.databases import Service
from skerry_node.journal import Entry, Stage
from skerry_node.launchers.launcher import Image, Layout
from skerry_node.pipeline import Pipeline
from skerry_node.services import Address

pytestmark = pytest.mark.unit
IMAGE = Image("example/mean:1", "sha256:1")
REGISTRY = Database(label="registry", uri="postgresql://reader@db/registry", type="sql")
GATES = (Gate(name="open", destination="a:1"), Gate(name="closed", destination="b:2", algorithms=("example/other",)))


@pytest.fixture
def served(config) -> Config:
    egress = Egress(allowed=("api.example.org:443",), algorithms=("example/mean",))
    return config.model_copy(update={"databases": (*config.databases, REGISTRY), "gates": GATES, "egress": egress})


def names(leads) -> list[str]:
    return [lead.name for lead in leads]


def test_what_a_run_gets(served) -> None:
    assert names(relays.choose(served, ["default", "registry"], IMAGE)) == ["database registry", "gate open", "egress"]
    assert names(relays.choose(served, ["default"], IMAGE)) == ["gate open", "egress"]
    other = replace(IMAGE, reference="example/other")
    assert names(relays.choose(served, [], other)) == ["gate open", "gate closed"]


def test_what_the_owner_took_out_leads_nowhere(served) -> None:
    had = ["database registry", "gate open", "gate gone", "egress"]
    without = served.model_copy(update={"egress": None})
    assert names(relays.again(without, had)) == ["database registry", "gate open"]


def test_ports_that_the_image_wants_are_left_to_it() -> None:
    wanting = replace(IMAGE, ports=(RELAY_PORT + 1,))
    assert relays.ports(3, wanting) == [RELAY_PORT, RELAY_PORT + 2, RELAY_PORT + 3]


def test_what_a_run_is_told() -> None:
    reached = relays.Reached.of({"database registry": 1, "gate open": 2, "egress": 3})
    layout = Layout("/mnt/data/task-000000007", "/mnt/tmp", {}, GATE_PORT)
    given = Service("registry", Address.parse("postgresql://reader@db/registry?sslmode=require"), "sql", "secret")
    built = environment.build(
        layout, [given], ["registry"], [{"label": "registry", "query": "SELECT 1"}], reached=reached
    )
    told = {name: decode(value) for name, value in built.items()}
    assert told["REGISTRY_DATABASE_URI"] == "postgresql://reader:secret@127.0.0.1:1/registry?sslmode=require"
    assert told["OPEN_GATE_ADDRESS"] == "127.0.0.1:2"
    proxies = {told[name] for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")}
    assert proxies == {"http://127.0.0.1:3"}
    assert {told["NO_PROXY"], told["no_proxy"]} == {"localhost, 127.0.0.1"}


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Service("registry", Address.parse("postgresql://db/x"), "sql", "secret"))


def test_a_run_s_relays_are_served_and_counted(parts, served, make_order, caplog) -> None:
    changed = replace(parts, config=served)
    with caplog.at_level("INFO"):
        Pipeline(changed, Entry(make_order(databases=["registry"]))).carry_out()
    assert list(parts.proxy.relays) == ["database registry", "gate open"]
    assert "gate open: 1 connections, 0 refused, 2 bytes sent, 3 bytes received" in caplog.text
    assert [status for status, _, _ in parts.proxy.delivered] == ["completed"]


def test_a_password_file_that_is_gone(parts, served, make_order, tmp_path) -> None:
    gone = REGISTRY.model_copy(update={"password_file": tmp_path / "gone"})
    changed = replace(parts, config=served.model_copy(update={"databases": (gone,)}))
    Pipeline(changed, Entry(make_order(databases=["registry"]))).carry_out()
    [(status, log, _)] = parts.proxy.delivered
    assert (status, log) == ("failed", 'error > The database "registry" of this node can\'t be used at present.\n')


def meanwhile(action, other):
    """The action, before which another thread does the other."""

    def do(*arguments):
        other()
        return action(*arguments)

    return do


def test_relays_come_back_on_their_ports(parts, served, make_order, launcher, monkeypatch) -> None:
    """After a restart of the node. What serves all runs again meanwhile waits until all of a run's are there."""
    changed = replace(parts, config=served)
    first = Pipeline(changed, Entry(make_order("wait")))
    thread = threading.Thread(target=first.carry_out, daemon=True)
    thread.start()
    while not parts.server.reports:
        parts.closing.wait(0.01)
    [entry] = parts.journal.read().entries
    assert entry.stage is Stage.STARTING
    assert list(entry.ports) == ["gate open"]
    for _, listener in first._ways._relays:
        listener.close()
    again = Pipeline(changed, entry)
    before = parts.proxy.served
    monkeypatch.setattr(launcher, "listen", meanwhile(launcher.listen, again.serve_again))
    again._attach()
    assert parts.proxy.served == before + 1
    [(lead, listener)] = again._ways._relays
    assert (lead.name, listener.getsockname()[1]) == ("gate open", entry.ports["gate open"])
    for one in (listener, *again._ways._gates):
        one.close()
    first.stop("over")
    thread.join(60)
    assert not thread.is_alive()
