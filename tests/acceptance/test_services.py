"""Services that a node's owner lets algorithms reach, tried from inside containers."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from clusters import PASSWORD, free_port
from devfederation import PATIENCE, DevFederation
from services import Endpoint, Registry, echo, postgresql, sparql

from skerry.errors import SkerryError

pytestmark = pytest.mark.acceptance
QUERY = "SELECT age FROM patients WHERE age > 75 ORDER BY age"


@pytest.fixture(scope="module")
def registry(postgresql_programs) -> Iterator[Registry]:
    with postgresql(postgresql_programs) as made:
        yield made


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with sparql() as made:
        yield made


@pytest.fixture(scope="module")
def service() -> Iterator:
    with echo() as made:
        yield made


@pytest.fixture(scope="module")
def settings(tmp_path_factory, registry, endpoint, service) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    secret = folder / "password"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o600)
    wrong = folder / "wrong"
    wrong.write_text("another\n")
    wrong.chmod(0o600)
    web = f"http://reader@127.0.0.1:{endpoint.port}/repositories/registry"
    value = {
        "databases": [
            {"label": "registry", "uri": registry.uri, "type": "sql", "password_file": str(secret)},
            {"label": "misconfigured", "uri": registry.uri, "type": "sql", "password_file": str(wrong)},
            {"label": "away", "uri": f"postgresql://reader@127.0.0.1:{free_port()}/registry", "type": "sql"},
            {"label": "triples", "uri": web, "type": "sparql", "password_file": str(secret)},
        ],
        "gates": [
            {"name": "service", "destination": f"127.0.0.1:{service.port}", "algorithms": ["skerry-tests/probe"]},
            {"name": "other", "destination": f"127.0.0.1:{service.port}", "algorithms": ["skerry-tests/another"]},
        ],
        "egress": {
            "allowed": [f"127.0.0.1:{service.port}", f"localhost:{service.port}"],
            "algorithms": ["skerry-tests/probe"],
        },
    }
    path = folder / "settings.json"
    path.write_text(json.dumps(value))
    return path


@pytest.fixture(scope="module")
def served(dev, settings) -> Iterator[DevFederation]:
    with dev("--nodes", "1", "--node-settings", str(settings)) as federation:
        yield federation


def run(federation, image, method, databases=None, /, **kwargs):
    task = federation.client().task.create(
        organizations=federation.organization_ids,
        name=method,
        image=image,
        collaboration=federation.collaboration_id,
        databases=databases,
        input_={"method": method, "kwargs": kwargs},
    )
    return task.wait(timeout=PATIENCE).results()[0]


def test_a_query_of_a_real_database(served, probe_image) -> None:
    asked = [{"label": "registry", "query": QUERY}]
    assert run(served, probe_image, "rows", asked) == [[76], [77], [78], [79]]
    served.wait_for_line("database registry: 1 connections")


def test_a_run_gets_what_it_names_and_nothing_else(served, probe_image) -> None:
    seen = run(served, probe_image, "look_around", targets=[], names=[])
    assert not [name for name in seen["environment"] if "DATABASE_URI" in name]
    # The gate, the service that this image may use, the egress listener.
    assert len(seen["listeners"]) == 3
    asked = [{"label": "registry", "query": QUERY}]
    told = run(served, probe_image, "variables", asked, part="DATABASE_URI")
    assert list(told) == ["REGISTRY_DATABASE_URI"]
    assert told["REGISTRY_DATABASE_URI"].startswith(f"postgresql://reader:{quote(PASSWORD, safe='')}@127.0.0.1:")


@pytest.mark.parametrize(
    ("label", "query", "words"),
    [
        ("registry", "SELECT nothing FROM patients", 'column "nothing" does not exist'),
        ("registry", "DELETE FROM patients", "permission denied"),
        ("misconfigured", QUERY, '"misconfigured" does not answer'),
        ("away", QUERY, '"away" does not answer'),
    ],
)
def test_what_goes_wrong_is_said_without_the_password(served, probe_image, label, query, words) -> None:
    with pytest.raises(SkerryError) as caught:
        run(served, probe_image, "rows", [{"label": label, "query": query}])
    assert words in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in served.node_logs()


def test_a_query_of_a_web_service(served, probe_image, endpoint) -> None:
    """By its address in the run's namespace, which is the Host that the service sees."""
    assert run(served, probe_image, "rows", [{"label": "triples", "query": "SELECT ?age {}"}]) == [[40], [50], [60]]
    assert endpoint.queries == ["SELECT ?age {}"]
    assert endpoint.hosts[0].startswith("127.0.0.1:")
    assert endpoint.authorizations == ["Basic " + base64.b64encode(f"reader:{PASSWORD}".encode()).decode()]


def test_a_service_is_for_the_algorithms_that_the_owner_named(served, probe_image) -> None:
    assert list(run(served, probe_image, "variables", part="GATE_ADDRESS")) == ["SERVICE_GATE_ADDRESS"]


def test_a_way_out_survives_the_node(served, probe_image, service) -> None:
    """The node and its proxy are killed in the middle of a connection; the next node opens the same way again."""
    client = served.client()
    task = client.task.create(
        organizations=served.organization_ids,
        name="talk",
        image=probe_image,
        collaboration=served.collaboration_id,
        input_={"method": "talk", "kwargs": {"name": "SERVICE"}},
    )
    for _ in ("answered", "heard"):
        assert service.connected.acquire(timeout=PATIENCE)
    os.kill(served.node_pids[0], signal.SIGKILL)
    served.restart()
    assert task.wait(timeout=PATIENCE).results() == [["first", "second"]]


def test_the_egress_listener(served, probe_image, service) -> None:
    """A name that leads to an address of the owner's own is refused, though listed; that address itself is not."""
    named, by_name = f"127.0.0.1:{service.port}", f"localhost:{service.port}"
    others = [f"127.0.0.1:{served.port}", "127.0.0.1:22", f"[::1]:{service.port}", "example.org:443"]
    seen = run(served, probe_image, "connect_by_proxy", targets=[named, by_name, *others])
    assert seen == {"echo": "hello", named: 200, by_name: 403, **dict.fromkeys(others, 403)}
    told = run(served, probe_image, "variables", part="_PROXY")
    assert told["HTTP_PROXY"] == told["HTTPS_PROXY"] == f"http://127.0.0.1:{told['HTTP_PROXY'].rpartition(':')[2]}"
    assert told["NO_PROXY"] == "localhost, 127.0.0.1"
    served.wait_for_line("egress: ")
