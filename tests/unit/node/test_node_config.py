from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from skerry.errors import ConfigurationError
from skerry_node import config

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
        {"allowed_algorithms": [{"algorithm": "mean", "functons": ["f"]}]},
        'policies.allowed_algorithms.0: there is no key "functons"; did you mean "functions"',
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
