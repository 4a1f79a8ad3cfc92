from __future__ import annotations

import re

import pytest
import yaml
from click.testing import CliRunner

from skerry.errors import ConfigurationError
from skerry_node.cli import node
from skerry_node.config import Config

pytestmark = pytest.mark.unit


def run(*arguments: str):
    return CliRunner().invoke(node, arguments)


def test_new_writes_a_configuration_once(tmp_path) -> None:
    first = run("new", str(tmp_path / "n"))
    assert first.exit_code == 0
    path = tmp_path / "n" / "node.yaml"
    assert str(path) in first.output
    assert path.stat().st_mode & 0o777 == 0o600
    second = run("new", str(tmp_path / "n"))
    assert isinstance(second.exception, ConfigurationError)


def test_the_template_is_a_configuration(tmp_path) -> None:
    run("new", str(tmp_path))
    Config.model_validate(yaml.safe_load((tmp_path / "node.yaml").read_text()))


def test_the_examples_in_its_comments_are_true(tmp_path) -> None:
    run("new", str(tmp_path))
    example = re.compile(r"^( *)#( *)((- )?[a-z_]+: .*)$", re.MULTILINE)
    text, count = example.subn(
        lambda m: f"{m[1]}{m[2][1:] if m[1] or m[2] == ' ' else m[2]}{m[3]}", (tmp_path / "node.yaml").read_text()
    )
    assert count == 41
    for key in ("databases", "algorithms", "gates"):
        text = text.replace(f"{key}: []", f"{key}:")
    config = Config.model_validate(yaml.safe_load(text))
    [rule] = config.policies.allowed_algorithms
    assert (rule.approve_first, rule.gpus) == (True, "all")
    assert config.databases[0].only_for.functions == ("mean",)


@pytest.mark.parametrize("verb", ["start", "check", "status"])
def test_a_configuration_that_is_not_there(tmp_path, verb) -> None:
    result = run(verb, "--config", str(tmp_path / "none.yaml"))
    assert isinstance(result.exception, ConfigurationError)
    assert "none.yaml" in str(result.exception)


def test_files_that_the_template_names_are_missing(tmp_path) -> None:
    run("new", str(tmp_path))
    result = run("check", "--config", str(tmp_path / "node.yaml"))
    assert "api_key_file" in str(result.exception)
    assert "encryption.private_key_file" in str(result.exception)


def test_check_says_what_is_missing_with_a_remedy(development) -> None:
    result = run("check", "--config", str(development))
    assert result.exit_code == 0
    words = " ".join(result.output.split())
    assert "development only" in words
    assert "data_group" in words
    assert "allowed_algorithms" in words


def test_status_of_a_node_that_does_not_run(development) -> None:
    result = run("status", "--config", str(development))
    assert result.exit_code == 1
    assert "node node 1: not running" in result.output
    assert "runs here: none" in result.output


def test_help_reads_well() -> None:
    for arguments in ([], ["new"], ["start"], ["check"], ["status"]):
        assert run(*arguments, "--help").exit_code == 0
