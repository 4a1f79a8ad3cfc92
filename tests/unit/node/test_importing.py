from __future__ import annotations

import copy

import pytest
import yaml
from click.testing import CliRunner

from skerry.errors import ConfigurationError
from skerry_node.cli import node
from skerry_node.config import Config, load
from skerry_node.importing import convert
from skerry_node.references import matches

pytestmark = pytest.mark.unit

MINIMAL = {"api_key": "3c1a-secret-key", "server_url": "https://server.example.org", "port": 443, "api_path": "/api"}
FULL = {
    **MINIMAL,
    "port": 5000,
    "api_path": "",
    "task_dir": "/srv/tasks",
    "databases": [
        {
            "label": "default",
            "uri": "table.csv",
            "type": "csv",
            "mount_mode": "ro",
            "env": {"schema": "public", "n": 1},
        },
        {"label": "lite", "uri": "sqlite:////srv/a.sqlite", "type": "sql"},
    ],
    "encryption": {"enabled": True, "private_key": "/srv/key.pem"},
    "policies": {
        "allowed_algorithms": ["harbor.example.org/team/mean", r"^harbor\.example\.org/demo/", "team/x$", "Bad Name"],
        "allowed_users": [1, "2", "alice"],
        "allowed_organizations": "hospital",
        "allowed_algorithm_stores": ["https://store.example.org", ".*"],
        "allow_basics_algorithm": True,
        "allow_either_whitelist_or_store": True,
        "require_algorithm_pull": False,
        "allowd_users": [1],
    },
    "algorithm_env": {"SITE": "north", "PYTHONPATH": "/x", "lower": "x", "N": 3},
    "node_extra_env": {"REQUESTS_CA_BUNDLE": "/ca.pem"},
    "node_extra_mounts": ["a:b"],
    "node_extra_hosts": {"a": "1.2.3.4"},
    "docker_registries": [
        {"registry": "https://harbor.example.org", "username": "robot", "password": "registry-secret"}
    ],
    "images": {"node": "x"},
    "vpn_subnet": "10.76.0.0/16",
    "ssh-tunnels": [{"hostname": "db", "ssh": {}, "tunnel": {}}],
    "docker_services": {"omop": "container"},
    "whitelist": {"domains": [".example.com", "api.example.org"], "ips": ["192.0.2.7"], "ports": [443, 8443]},
    "share_config": False,
    "share_algorithm_logs": False,
    "run_context_file": True,
    "prometheus": {"enabled": True},
    "logging": {"level": "DEBUG"},
    "debug": {"socketio": False},
    "image": 1,
    "nonsense": 2,
}


def notes(made) -> str:
    return "\n".join(made.notes)


def test_the_smallest() -> None:
    made = convert(MINIMAL, "hospital")
    assert made.config["server"] == {"url": "https://server.example.org", "api_path": "/api"}
    assert made.config["encryption"] is None
    assert made.config["policies"] == {"allowed_algorithms": []}
    assert made.config["docker"] == {"pull": "always"}
    assert made.config["share"] == {"logs": True, "configuration": True}
    assert made.secrets == {"api-key": "3c1a-secret-key"}
    assert "policies.allowed_algorithms: without it vantage6 runs every image" in notes(made)
    assert "unsigned_tasks: allow" in notes(made)
    Config.model_validate(made.config)


def test_what_carries_over() -> None:
    config = convert(FULL, "hospital").config
    assert config["name"] == "hospital"
    assert config["server"] == {"url": "https://server.example.org:5000", "api_path": ""}
    assert config["encryption"] == {"private_key_file": "/srv/key.pem"}
    assert config["databases"] == [
        {"label": "default", "uri": "table.csv", "type": "csv", "env": {"schema": "public", "n": "1"}},
        {"label": "lite", "uri": "/srv/a.sqlite", "type": "sqlite"},
    ]
    assert config["policies"]["allowed_users"] == [1, 2]
    assert config["policies"]["allowed_organizations"] == []
    assert config["policies"]["allowed_algorithm_stores"] == ["https://store.example.org"]
    assert config["algorithm_env"] == {"SITE": "north", "N": "3"}
    assert config["docker"]["pull"] == "missing"
    assert config["docker"]["registries"] == [
        {"registry": "harbor.example.org", "username": "robot", "password_file": "registry-password-1"}
    ]
    assert config["share"] == {"logs": False, "configuration": False}
    assert config["egress"] == {
        "allowed": ["api.example.org:443", "api.example.org:8443", "192.0.2.7:443", "192.0.2.7:8443"]
    }


def test_every_key_without_a_counterpart_is_named_with_what_to_do() -> None:
    said = notes(convert(FULL, "hospital"))
    for key in (
        *("task_dir", "node_extra_env", "node_extra_mounts", "node_extra_hosts", "images", "vpn_subnet", "ssh-tunnels"),
        *("docker_services", "run_context_file", "prometheus", "logging", "debug"),
        *("policies.allow_basics_algorithm", "policies.allow_either_whitelist_or_store", "policies.allowd_users"),
        *("algorithm_env.PYTHONPATH", "algorithm_env.lower", "nonsense"),
    ):
        assert f"\n{key}: " in f"\n{said}", key
    assert "image: not a key of vantage6's nodes; was images meant?" in said
    assert '"alice" is a name' in said
    assert '"hospital" is a name' in said
    assert '".example.com" means many hosts' in said
    assert '"Bad Name" is not the name of an image' in said
    assert '".*" is a pattern' in said
    assert "skerry key new --upgrade /srv/key.pem" in said


def test_patterns_mean_what_they_meant() -> None:
    """vantage6 compares with the beginning of a name, skerry with all of it."""
    entries = convert(FULL, "hospital").config["policies"]["allowed_algorithms"]
    assert entries == ["harbor.example.org/team/mean", r"(?:^harbor\.example\.org/demo/).*", "team/x$"]
    assert matches(entries[1], "harbor.example.org/demo/mean:1", None)
    assert not matches(entries[1], "evil/harbor.example.org/demo/mean:1", None)
    [either] = convert({**MINIMAL, "policies": {"allowed_algorithms": "a/x|b/.*"}}, "n").config["policies"][
        "allowed_algorithms"
    ]
    assert matches(either, "a/x:1", None)
    assert matches(either, "b/y", None)


def test_gpus_for_each_algorithm_that_is_listed() -> None:
    given = {**MINIMAL, "policies": {"allowed_algorithms": "team/x"}, "algorithm_device_requests": {"gpu": True}}
    assert convert(given, "n").config["policies"]["allowed_algorithms"] == [{"algorithm": "team/x", "gpus": "all"}]


def test_a_password_in_an_address_goes_into_a_file() -> None:
    uri = "postgresql://reader:p%40ss@db.example.org:5432/registry"
    made = convert({**MINIMAL, "databases": [{"label": "sql", "uri": uri, "type": "sql"}]}, "n")
    [database] = made.config["databases"]
    assert database["uri"] == "postgresql://reader@db.example.org:5432/registry"
    assert made.secrets[database["password_file"]] == "p@ss"


WRONG = [
    ({"api_key": "x"}, "server_url: this key is missing"),
    ({**MINIMAL, "databases": {"default": "a.csv"}}, "databases: this is the form of vantage6 3"),
    ({**MINIMAL, "databases": ["a.csv"]}, "databases.0: there must be keys"),
    ({**MINIMAL, "databases": [{"label": "a", "type": "csv"}]}, "databases.0.uri: there must be a text"),
    ({**MINIMAL, "databases": [{"label": "a", "type": "sql", "uri": "postgresql://u:p@[h/d"}]}, "this is no address"),
    ({**MINIMAL, "databases": [{"label": "a", "type": "sql", "uri": "postgresql://u:p/w@h/d"}]}, "as %XX"),
    ({**MINIMAL, "policies": ["x"]}, "policies: there must be keys"),
    ({**MINIMAL, "policies": {"allowed_algorithms": [["x"]]}}, "allowed_algorithms: there must be a text"),
    ({**MINIMAL, "encryption": {"enabled": "yes"}}, "encryption.enabled|enabled: there must be true or false"),
    ({**MINIMAL, "share_config": "no"}, "share_config: there must be true or false"),
    ({"application": {}}, "vantage6 3 or older"),
    ([], "the file: there must be keys"),
]


@pytest.mark.parametrize(("given", "sentence"), WRONG)
def test_what_is_no_such_configuration(given, sentence) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        convert(given, "n")


# --- the command ------------------------------------------------------------------------------------------


def skerry(tmp_path, given, *options: str):
    source = tmp_path / "hospital.yaml"
    source.write_text(yaml.safe_dump(given))
    return CliRunner().invoke(node, ["import", str(source), *options])


def test_printed_it_is_yaml_without_secrets(tmp_path) -> None:
    result = skerry(tmp_path, FULL)
    assert result.exit_code == 0
    assert "secret" not in result.output
    assert yaml.safe_load(result.stdout)["name"] == "hospital"
    assert "Not printed: api-key, registry-password-1" in result.stderr


def test_written_it_starts_a_node(tmp_path) -> None:
    given = copy.deepcopy(FULL)
    del given["whitelist"], given["databases"][1]
    given["encryption"]["enabled"] = False
    (tmp_path / "table.csv").write_text("a\n1\n")
    target = tmp_path / "ours.yaml"
    result = skerry(tmp_path, given, "-o", str(target))
    assert result.exit_code == 0, result.output
    assert "secret" not in result.output
    for name in ("ours.yaml", "api-key", "registry-password-1"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    config = load(target)
    assert config.api_key() == "3c1a-secret-key"
    assert config.docker.registries[0].password_file.read_text() == "registry-secret\n"
    again = skerry(tmp_path, given, "-o", str(target))
    assert isinstance(again.exception, ConfigurationError)
    assert "not overwritten" in str(again.exception)


def test_a_key_can_not_break_out_of_its_comment(tmp_path) -> None:
    result = skerry(tmp_path, {**MINIMAL, "x\nname: other": 1, "\x1b[2J": 1})
    assert yaml.safe_load(result.stdout)["name"] == "hospital"
    assert "\x1b" not in result.output
