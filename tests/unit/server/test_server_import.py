"""`skerry server import`: what vantage6's own import reads, all of it or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from server_federation import PASSWORD, SECRET, Api, Clock, Federation

from skerry.keys import Identity
from skerry.wire import b64
from skerry_server import migrants
from skerry_server.app import create_app
from skerry_server.cli import server as command
from skerry_server.migrants import Problems
from skerry_server.server import Server, open_server
from skerry_server.settings import load

pytestmark = pytest.mark.unit
KEYS = ["123e4567-e89b-12d3-a456-426614174001", "123e4567-e89b-12d3-a456-426614174002"]
FILE = f"""
organizations:
  - name:       IKNL
    domain:     iknl.nl
    address1:   Godebaldkwartier 419
    address2:
    zipcode:    3511
    country:    Netherlands
    users:
      - username: admin
        firstname: admin
        lastname: robot
        password: {PASSWORD}
      - username: frank@iknl
        password: {PASSWORD}
    public_key:
  - name:       Small Organization
    domain:     small-organization.example
    users:
      - username: wrobel
        email: wrobel@small-organization.example
        password: {PASSWORD}
        roles: [Researcher]
collaborations:
  - name: ZEPPELIN
    participants:
      - name: IKNL
        api_key: {KEYS[0]}
      - name: Small Organization
        api_key: {KEYS[1].upper()}
    tasks: ["hello-world"]
    encrypted: false
  - name: PIPELINE
    participants:
      - IKNL
      - name: Small Organization
"""
GOOD = FILE.replace("frank@iknl", "frank")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "server.yaml"
    path.write_text(f'tokens: {{secret: "{SECRET}"}}\n')
    return path


def run_import(config: Path, content: Any, *options: str) -> Result:
    file = config.parent / "import.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return CliRunner().invoke(command, ["import", "--config", str(config), str(file), *options])


def opened(config: Path) -> tuple[Server, Federation]:
    server = open_server(load(config))
    return server, Federation(server, create_app(server).test_client(), Clock())


def problems(config: Path, content: Any, *options: str) -> list[str]:
    """The lines after the first; nothing was written."""
    answer = run_import(config, content, *options)
    assert answer.exit_code == 1, answer.output
    first, *rest = answer.output.strip().splitlines()
    assert first == "Error: Nothing was imported:"
    return [line.strip() for line in rest]


def test_users_log_in_and_nodes_go_on(config: Path) -> None:
    answer = run_import(config, GOOD)
    assert answer.exit_code == 0, answer.output
    lines = answer.output.splitlines()
    assert lines[0] == "Imported: 2 organizations, 3 users, 2 collaborations, 4 nodes."
    assert [line for line in lines if "hello-world" in line or "counterpart" in line]
    assert KEYS[0] not in answer.output
    server, federation = opened(config)
    admin = federation.log_in("admin")
    assert {one["name"] for one in admin.get("collaboration")["data"]} == {"ZEPPELIN", "PIPELINE"}
    found = {one["name"]: one for one in admin.get("collaboration")["data"]}
    assert [found[name]["encrypted"] for name in ("ZEPPELIN", "PIPELINE")] == [False, True]
    assert found["PIPELINE"]["accept"] == "both"
    [organization] = admin.get("organization", name="IKNL")["data"]
    assert (organization["zipcode"], organization["address2"]) == ("3511", None)
    nodes = [federation.anybody.post("token/node", {"api_key": key}) for key in KEYS]
    assert all(Api(federation.client, node["access_token"]).get("skerry/node/self") for node in nodes)
    new = [line.rsplit(" ", 1)[1] for line in lines if line.startswith("API key of")]
    assert len(new) == 2
    for key in new:
        federation.anybody.post("token/node", {"api_key": key})
    server.database.close()


def test_users_have_all_rules_unless_told_otherwise(config: Path) -> None:
    run_import(config, GOOD)
    server, federation = opened(config)
    roles = {name: federation.log_in(name) for name in ("admin", "frank", "wrobel")}
    roles["admin"].post("organization", {"name": "made by an imported user"})
    roles["frank"].post("organization", {"name": "made by another"})
    roles["wrobel"].refused(401, "POST", "organization", {"name": "not made"})
    server.database.close()


def test_another_role_for_those_without(config: Path) -> None:
    run_import(config, GOOD, "--role", "Viewer")
    server, federation = opened(config)
    federation.log_in("admin").refused(401, "POST", "organization", {"name": "not made"})
    server.database.close()
    assert problems(config, {"organizations": [{"name": "x y"}]}, "--role", "Rot")[0].startswith("There is no default")


def test_a_dry_run_changes_nothing(config: Path) -> None:
    answer = run_import(config, GOOD, "--dry-run")
    assert answer.exit_code == 0, answer.output
    assert answer.output.startswith("Would be imported: 2 organizations")
    assert "API key" not in answer.output
    assert run_import(config, GOOD).output.startswith("Imported: 2")


def test_importing_again_is_refused_with_every_name(config: Path) -> None:
    run_import(config, GOOD)
    said = problems(config, GOOD)
    assert 'organizations[0].name: the organization "IKNL" is there already.' in said
    assert 'organizations[1].users[0].username: the username "wrobel" is there already.' in said
    assert "collaborations[0].participants[1].api_key: the API key is there already." in said
    assert len(said) == 2 + 3 + 3 + 2 + 2
    assert not any(key in line for key in KEYS for line in said)


def test_a_collaboration_of_organizations_that_are_there(config: Path) -> None:
    run_import(config, GOOD)
    more = {"collaborations": [{"name": "third", "participants": ["IKNL"], "encrypted": True}]}
    assert run_import(config, more).output.startswith("Imported: 0 organizations, 0 users, 1 collaborations, 1 nodes.")


def test_weak_passwords_are_named_and_taken_only_on_demand(config: Path) -> None:
    weak = GOOD.replace(PASSWORD, "password")
    said = problems(config, weak)
    assert len(said) == 3
    assert said[0].startswith("organizations[0].users[0].password: The password is too weak")
    assert run_import(config, weak, "--accept-weak-passwords").exit_code == 0
    server, federation = opened(config)
    federation.log_in("admin", "password")
    server.database.close()


def test_public_keys_are_kept(config: Path) -> None:
    key = b64(Identity.generate().public_pem)
    run_import(
        config,
        {
            "organizations": [
                {"name": "with key", "public_key": key, "users": [{"username": "admin", "password": PASSWORD}]}
            ]
        },
    )
    server, federation = opened(config)
    assert federation.log_in("admin").get("organization/1")["public_key"] == key
    server.database.close()
    said = problems(config, {"organizations": [{"name": "with garbage", "public_key": "LS0tLS1CRUdJTi"}]})
    assert said[0].startswith("organizations[0].public_key:")


def user(**more: Any) -> dict[str, Any]:
    return {"username": "some", "password": PASSWORD, **more}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("", "The file must hold"),
        ("[]", "The file must hold"),
        ("a: [", "The file is not YAML"),
        ("a: &x [1]\nb: *x", "The file is not YAML that can be read: aliases"),
        ("!!python/object/apply:os.system ['true']", "The file is not YAML"),
        ("organizations: " + "[" * 5000, "The file is not YAML"),
        ({"organisations": []}, "organisations: there is no such key"),
        ({"organizations": {}}, "organizations:"),
        ({"organizations": [{"domain": "x"}]}, "organizations[0].name: is missing"),
        ({"organizations": [{"name": "5"}]}, "organizations[0].name: A name must not be"),
        ({"organizations": [{"name": 5}]}, "organizations[0].name: A name must not be"),
        ({"organizations": [{"name": "x", "users": [{"username": "some"}]}]}, "organizations[0].users[0].password: is"),
        ({"organizations": [{"name": "x", "users": [user(username="1")]}]}, "organizations[0].users[0].username:"),
        ({"organizations": [{"name": "x", "users": [user(email="nobody")]}]}, "organizations[0].users[0].email:"),
        ({"organizations": [{"name": "x", "users": [user(roles=["Rot"])]}]}, "organizations[0].users[0].roles:"),
        ({"organizations": [{"name": "x", "users": [user(is_admin=True)]}]}, "organizations[0].users[0].is_admin:"),
        ({"organizations": [{"name": "x"}, {"name": "x"}]}, "organizations[0].name: the organization"),
        ({"collaborations": [{"name": "c", "encrypted": "no"}]}, "collaborations[0].encrypted:"),
        (
            {"collaborations": [{"name": "c", "participants": ["x"]}]},
            "collaborations[0].participants[0].name: there is",
        ),
        (
            {"organizations": [{"name": "x"}], "collaborations": [{"name": "c", "participants": ["x", "x"]}]},
            'collaborations[0].participants: "x" appears twice',
        ),
        (
            {"collaborations": [{"name": "c", "participants": [{"name": "x", "api_key": "secret"}]}]},
            "collaborations[0].participants[0].api_key: an API key is a UUID",
        ),
    ],
)
def test_every_problem_has_its_place(config: Path, content: Any, place: str) -> None:
    said = problems(config, content)
    assert any(line.startswith(place) for line in said), said
    assert "secret" not in "".join(said)


def test_all_problems_are_listed_at_once(config: Path) -> None:
    said = problems(config, FILE.replace("encrypted: false", "encrypted: maybe").replace("name: PIPELINE", "title: x"))
    assert len(said) == 4, said


def test_a_file_that_is_not_there(config: Path) -> None:
    answer = CliRunner().invoke(command, ["import", "--config", str(config), "nowhere.yaml"])
    assert answer.exit_code == 1
    assert "nowhere.yaml" in answer.output


def test_a_file_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrants, "_LARGEST_FILE", 10)
    (tmp_path / "long").write_text("x" * 11)
    with pytest.raises(Problems, match="larger"):
        migrants.read(tmp_path / "long")
