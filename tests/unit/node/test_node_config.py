from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from skerry.errors import ConfigurationError
from skerry_node import config
from skerry_proxy.destinations import Destination

pytestmark = pytest.mark.unit


@pytest.fixture
def settings(tmp_path: Path) -> dict:
    for name in ("api-key", "key.pem"):
        (tmp_path / name).write_text("secret\n")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "table.csv").write_text("a\n1\n")
    return {
        "name": "node 1",
        "server": {"url": "http://127.0.0.1:5000"},
        "api_key_file": "api-key",
        "state_folder": "state",
        "encryption": {"private_key_file": "key.pem"},
        "databases": [{"label": "default", "uri": "table.csv", "type": "csv"}],
        "policies": {"allowed_algorithms": [".*"]},
    }


def load(tmp_path: Path, settings: dict) -> config.Config:
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
    return config.load(tmp_path / "node.yaml")


def test_paths_are_relative_to_the_file(tmp_path, settings) -> None:
    loaded = load(tmp_path, settings)
    assert loaded.api_key_file == tmp_path / "api-key"
    assert loaded.databases[0].uri == tmp_path / "table.csv"
    assert loaded.api_key() == "secret"


def test_sizes(tmp_path, settings) -> None:
    settings["limits"] = {"memory": "512m", "output": 8192}
    limits = load(tmp_path, settings).limits
    assert (limits.memory, limits.output) == (512 << 20, 8192)


WRONG = [
    (("polices",), {}, 'there is no key "polices"; did you mean "policies"\\?$'),
    (("limits",), {"memori": 1}, 'limits: there is no key "memori"; did you mean "memory"'),
    (("limits",), {"memory": "much"}, "limits.memory: write a number of bytes"),
    (("limits",), {"parallel_runs": 0}, "limits.parallel_runs"),
    (("limits",), {"processes": 31}, "limits.processes"),
    (("limits",), {"parallel_runs": "4"}, "limits.parallel_runs"),
    (("api_key_file",), "none", "api_key_file:.*none can't be read"),
    (("encryption",), {"private_key_file": "nokey"}, "encryption.private_key_file:.*nokey"),
    (("databases",), [{"label": "a b", "uri": "table.csv", "type": "csv"}], "databases.0.label"),
    (
        ("databases",),
        [{"label": "x", "uri": "gone.csv", "type": "csv"}],
        "databases.0.uri: there is no file .*gone.csv",
    ),
    (("databases",), [{"label": "x", "uri": "table.csv", "type": "folder"}], "there is no folder"),
    (("databases",), [{"label": "x", "uri": "table.csv", "type": "csv", "env": {"A=B": "c"}}], "databases.0.env"),
    (
        ("databases",),
        [{"label": "x", "uri": "table.csv", "type": "csv", "env": {"PORT": 5432}}],
        "databases.0.env.PORT",
    ),
    (
        ("databases",),
        [{"label": "x", "uri": "table.csv", "typ": "csv"}],
        'databases.0: there is no key "typ"; did you mean "type"',
    ),
    (("server",), {"url": "http://example.org"}, "server.url: use https"),
    (("server",), {"url": "ftp://example.org"}, "server.url"),
    (("launcher",), "process", "launcher: process is for development only"),
    (("policies",), {}, "policies.allowed_algorithms: say which images"),
    (
        ("policies",),
        {"allowed_algorithms": ["("]},
        "policies.allowed_algorithms.0.algorithm: .*not a regular expression",
    ),
    (("policies",), {"allowed_algorithms": ["Mean"]}, '"Mean" is not the name of an image'),
    (
        ("policies",),
        {"allowed_algorithms": [{"algorithm": "mean", "function": ["f"]}]},
        'policies.allowed_algorithms.0: there is no key "function"; did you mean "functions"',
    ),
    (("policies",), {"allowed_algorithms": [{"functions": ["f"]}]}, "allowed_algorithms.0.algorithm: this key is miss"),
    (("policies",), {"allowed_algorithms": [{"algorithm": "mean", "gpus": -1}]}, "gpus"),
    (("policies",), {"allowed_algorithms": [7]}, "policies.allowed_algorithms.0"),
    (
        ("databases",),
        [{"label": "x", "uri": "table.csv", "type": "csv", "only_for": {"function": ["f"]}}],
        'databases.0.only_for: there is no key "function"; did you mean "functions"',
    ),
    (("databases",), [{"label": "python", "uri": "table.csv", "type": "csv"}], "databases.0.label: its variables"),
    (("databases",), [{"label": "LD", "uri": "table.csv", "type": "csv"}], "such as LD_DATABASE_URI"),
    (("databases",), [{"label": "lc", "uri": "table.csv", "type": "csv"}], "such as LC_DATABASE_URI"),
    (
        ("databases",),
        [{"label": "x", "uri": "table.csv", "type": "csv", "env": {"a": "1", "A": "2"}}],
        "its variable X_DB_PARAM_A is there twice",
    ),
    (
        ("docker",),
        {"registries": [{"registry": "r.example", "username": "u", "password_file": "table.csv"}]},
        "docker.registries.0.password_file: .* is open to other users",
    ),
    (
        ("docker",),
        {"registries": [{"registry": "index.docker.io", "username": "u", "password_file": "api-key"}]},
        "docker.registries.0.registry: Docker Hub is written docker.io here",
    ),
    (
        ("docker",),
        {"registries": [{"registry": "r.example", "username": "u", "password_file": "api-key"}] * 2},
        "docker.registries.1.registry: r.example is there twice",
    ),
    (
        ("docker",),
        {"registries": [{"registry": "https://r.example", "username": "u", "password": "x"}]},
        'there is no key "password"; did you mean "password_file"',
    ),
    (("docker",), {"keep_images": {"day": 1}}, 'docker.keep_images: there is no key "day"; did you mean "days"'),
    (("share",), {"log": False}, 'share: there is no key "log"; did you mean "logs"'),
    (("algorithm_env",), {"PKG_NAME": "os"}, "algorithm_env.PKG_NAME: this name belongs to the image"),
    (("algorithm_env",), {"LD_PRELOAD": "x"}, "algorithm_env.LD_PRELOAD: such a name decides which code is run"),
    (("algorithm_env",), {"PYTHONPATH": "x"}, "decides which code is run"),
    (("algorithm_env",), {"TOKEN_FILE": "x"}, "the container contract gives"),
    (("algorithm_env",), {"DEFAULT_DATABASE_URI": "x"}, "the container contract gives"),
    (("algorithm_env",), {"lower": "x"}, "capital letters"),
    (("algorithm_env",), {"A=B": "x"}, "capital letters"),
    (("algorithm_env",), {"A": "x\0"}, "zero byte"),
    (("algorithm_env",), {"A": 1}, "algorithm_env.A"),
    (("uid_base",), 0, "uid_base"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), WRONG)
def test_what_is_wrong_is_named(tmp_path, settings, path, value, sentence) -> None:
    changed = copy.deepcopy(settings)
    changed[path[0]] = value
    with pytest.raises(ConfigurationError, match=sentence):
        load(tmp_path, changed)


def test_all_problems_at_once(tmp_path, settings) -> None:
    settings["api_key_file"], settings["databases"][0]["uri"] = "none", "gone.csv"
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, settings)
    assert len(str(caught.value).splitlines()) == 2


def test_the_same_label_twice(tmp_path, settings) -> None:
    settings["databases"].append({"label": "DEFAULT", "uri": "table.csv", "type": "csv"})
    with pytest.raises(ConfigurationError, match="twice"):
        load(tmp_path, settings)


def test_a_secret_that_is_open_to_others(tmp_path, settings) -> None:
    (tmp_path / "key.pem").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load(tmp_path, settings)


def test_not_yaml(tmp_path) -> None:
    (tmp_path / "node.yaml").write_text("a: [1")
    with pytest.raises(ConfigurationError, match="not YAML"):
        config.load(tmp_path / "node.yaml")
    (tmp_path / "node.yaml").write_text("- 1")
    with pytest.raises(ConfigurationError, match="keys and values"):
        config.load(tmp_path / "node.yaml")
    with pytest.raises(ConfigurationError, match="No such file"):
        config.load(tmp_path / "nothing.yaml")


def test_a_path_too_long_for_a_socket(tmp_path, settings) -> None:
    settings["state_folder"] = "x" * 120
    with pytest.raises(ConfigurationError, match="shorter"):
        load(tmp_path, settings)


SERVICE = {"label": "registry", "uri": "postgresql://reader@db.example.org/registry", "type": "sql"}


def test_services_and_ways_out(tmp_path, settings) -> None:
    settings["databases"].append({**SERVICE, "password_file": "key.pem"})
    settings["gates"] = [{"name": "terms", "destination": "[FD00::0:1]:8080", "algorithms": ["image"]}]
    settings["egress"] = {"allowed": ["API.example.org:443"]}
    loaded = load(tmp_path, settings)
    [_, registry] = loaded.databases
    assert registry.uri.destination == Destination("db.example.org", 5432)
    assert registry.password_file == tmp_path / "key.pem"
    assert registry.uri.at(40000, "p@ss/word") == "postgresql://reader:p%40ss%2Fword@127.0.0.1:40000/registry"
    assert str(loaded.gates[0].destination) == "[fd00::1]:8080"
    assert loaded.egress.allowed == (Destination("api.example.org", 443),)


WRONG_SERVICES = [
    ({"uri": "postgresql://reader:s3cret@db/registry"}, "databases.0.uri: write no password here"),
    ({"uri": "postgresql://reader:s3cret/s3cret@db/registry"}, "databases.0.uri: write it as scheme://"),
    ({"uri": "ftp://db/registry"}, "databases.0.uri: begin it with one of postgresql"),
    ({"uri": "postgresql:///registry"}, "databases.0.uri: the host must be"),
    ({"uri": "postgresql://db:99999/registry"}, "databases.0.uri: write it as scheme://"),
    ({"uri": "postgresql://127.1/registry"}, "databases.0.uri: .*octets"),
    ({"uri": "postgresql://db/registry?host=elsewhere"}, 'databases.0.uri: the parameter "host" would lead elsewhere'),
    ({"uri": "postgresql://db/registry?sslmode=require&hostaddr=10.0.0.1"}, '"hostaddr" would lead elsewhere'),
    ({"uri": "postgresql://db/a b"}, "databases.0.uri: write special characters"),
    ({"type": "csv"}, "databases.0.type: a service is of type omop, sparql, sql"),
    ({"type": "sparql"}, "databases.0.uri: a database of type sparql has an address that begins with http://"),
    ({"uri": "https://db/sparql", "type": "sparql"}, "databases.0.uri: begin it with one of"),
    ({"uri": "http://db/sparql"}, "databases.0.uri: a database of type sql has an address"),
    ({"uri": "table.csv", "type": "sparql"}, "databases.0.uri: a sparql database is a service"),
    ({"uri": "table.csv", "password_file": "key.pem"}, "databases.0.password_file: a file needs no password"),
    ({"password_file": "none"}, "databases.0.password_file:.*can't be read"),
    ({"password_file": "open"}, "databases.0.password_file:.*chmod 600"),
    ({"uri": "postgresql://db/registry", "password_file": "key.pem"}, "databases.0.uri: say whose password it is"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG_SERVICES)
def test_a_wrong_service_is_named(tmp_path, settings, change, sentence) -> None:
    (tmp_path / "open").write_text("secret\n")
    settings["databases"] = [{**SERVICE, **change}]
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        load(tmp_path, settings)
    assert "s3cret" not in str(caught.value)


WRONG_WAYS = [
    ("gates", [{"name": "x", "destination": "db"}], "gates.0.destination: write it as host:port"),
    ("gates", [{"name": "x y", "destination": "db:1"}], "gates.0.name"),
    ("gates", [{"name": "x", "destination": "db:1", "algorithm": ["y"]}], 'gates.0: .*did you mean "algorithms"'),
    (
        "gates",
        [{"name": "x", "destination": "db:1", "algorithms": ["("]}],
        "gates.0.algorithms.0: .*regular expression",
    ),
    (
        "gates",
        [{"name": "x", "destination": "db:1"}, {"name": "X", "destination": "db:2"}],
        "gates.1: .*X_GATE_ADDRESS",
    ),
    ("gates", [{"name": f"x{n}", "destination": "db:1"} for n in range(33)], "gates: .*at most 32"),
    ("egress", {"allowed": []}, "egress.allowed"),
    ("egress", {"allowed": ["*.example.org:443"]}, "egress.allowed.0: the host must be a name"),
    ("egress", {"allowed": ["example.org"]}, "egress.allowed.0: write it as host:port"),
    ("egress", {"allowed": ["user@example.org:443"]}, "egress.allowed.0: the host must be a name"),
]


@pytest.mark.parametrize(("key", "value", "sentence"), WRONG_WAYS)
def test_a_wrong_way_out_is_named(tmp_path, settings, key, value, sentence) -> None:
    settings[key] = value
    with pytest.raises(ConfigurationError, match=sentence):
        load(tmp_path, settings)


COLLIDING = [
    ([("a", {"x": "1"}), ("a_db_param", {"x": "1"})], None),
    ([("a", {"query": "1"}), ("a_db_param", {})], "databases.1: its variable A_DB_PARAM_QUERY is there twice"),
    ([("a", {"x": "1", "X": "2"})], "databases.0: its variable A_DB_PARAM_X is there twice"),
    ([("python", {})], "databases.0.label: its variables, such as PYTHON_DATABASE_URI, would be taken"),
    ([("ld", {})], "databases.0.label: its variables, such as LD_DATABASE_URI, would be taken"),
]


@pytest.mark.parametrize(("databases", "sentence"), COLLIDING)
def test_each_variable_has_one_meaning(tmp_path, settings, databases, sentence) -> None:
    common = {"uri": "table.csv", "type": "csv"}
    settings["databases"] = [{"label": label, "env": env, **common} for label, env in databases]
    if sentence is None:
        load(tmp_path, settings)
        return
    with pytest.raises(ConfigurationError, match=sentence):
        load(tmp_path, settings)
