"""The configuration file and the command line around it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from skerry.errors import ConfigurationError
from skerry_server.cli import server as command
from skerry_server.settings import TEMPLATE, Settings, jwt_secret, load, parse

pytestmark = pytest.mark.unit

PASSWORD = "Aa1-correct-horse\n"


def settings(tmp_path: Path, text: str) -> Settings:
    return parse(text, tmp_path / "server.yaml")


def test_the_template_is_the_default(tmp_path: Path) -> None:
    assert settings(tmp_path, TEMPLATE) == settings(tmp_path, "") == Settings(folder=tmp_path)


def test_every_key_is_in_the_template(tmp_path: Path) -> None:
    lines = TEMPLATE.splitlines()
    shown = "\n".join(line[2:] for line in lines if line.startswith("# ") and ":" in line and "What is" not in line)
    found = settings(tmp_path, shown.replace("secret: null", "secret: null"))
    assert found == Settings(folder=tmp_path)
    for name in {*Settings.model_fields} - {"folder"}:
        assert any(line.lstrip("# ").startswith(f"{name}:") for line in lines), name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot: 1", 'there is no key "prot"; did you mean "port"'),
        ("leases: {secnds: 1}", 'there is no key "leases.secnds"; did you mean "seconds"'),
        ("folder: /etc", "folder"),
        ("port: 99999", '"port"'),
        ("port: '5000'", '"port"'),
        ("api_path: api", '"api_path"'),
        ("api_path: /api/", '"api_path"'),
        ("tokens: {access_minutes: 0}", '"tokens.access_minutes"'),
        ("tokens: nonsense", '"tokens"'),
        ("- a list", "keys and values"),
        ("a: b: c", "is not YAML"),
        ("? [1, 2]\n: 3", "YAML"),
        ("1: 2", "every key must be a word"),
        ("!!python/object/apply:os.system [ls]", "is not YAML"),
        ("log_level: loud", '"log_level"'),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="skerry server new"):
        load(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load(tmp_path / "binary.yaml")


def test_the_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    found = settings(tmp_path, "")
    secret = jwt_secret(found)
    assert jwt_secret(found) == secret
    assert len(secret) >= 48
    assert stat.S_IMODE((tmp_path / "jwt-secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["jwt-secret"]


@pytest.mark.parametrize("secret", ["short", "a" * 40, "ab" * 20])
def test_a_weak_secret_is_refused(tmp_path: Path, secret: str) -> None:
    """GHSA-m3mq-f375-5vgh."""
    with pytest.raises(ConfigurationError, match="too weak"):
        jwt_secret(settings(tmp_path, f"tokens: {{secret: {secret}}}"))


def test_the_secret_is_not_shown(tmp_path: Path) -> None:
    found = settings(tmp_path, "tokens: {secret: 0123456789abcdefghijklmnopqrstuvwxyz}")
    assert "0123456789" not in repr(found)


def invoke(*arguments: str, typed: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(command, arguments, input=typed)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_from_nothing_to_a_root(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    code, said = invoke("new", str(folder))
    assert (code, "skerry server bootstrap" in said) == (0, True)
    config = str(folder / "server.yaml")
    founding = ("bootstrap", "--config", config, "--organization", "first", "--username", "root")
    assert "too weak" in invoke(*founding, typed="weak\n")[1]
    code, said = invoke(*founding, typed=PASSWORD)
    assert code == 0, said
    assert PASSWORD.strip() not in said
    code, said = invoke(*founding[:-1], "another", typed=PASSWORD)
    assert (code, "users already" in said) == (1, True)
    code, said = invoke("config", "check", "--config", config)
    assert (code, "is right" in said) == (0, True)
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    invoke("new", str(tmp_path))
    (tmp_path / "server.yaml").write_text("port: 1")
    code, said = invoke("new", str(tmp_path))
    assert (code, "there already" in said) == (1, True)
    assert (tmp_path / "server.yaml").read_text() == "port: 1"


def test_a_password_is_needed(tmp_path: Path) -> None:
    invoke("new", str(tmp_path))
    code, said = invoke("bootstrap", "--config", str(tmp_path / "server.yaml"), "--organization", "x", typed="")
    assert (code, "standard input" in said) == (1, True)


@pytest.mark.parametrize("verb", ["start", "status", "bootstrap"])
def test_a_wrong_configuration_is_one_sentence(tmp_path: Path, verb: str) -> None:
    config = tmp_path / "server.yaml"
    config.write_text("prot: 5000")
    more = ["--organization", "x"] if verb == "bootstrap" else []
    code, said = invoke(verb, "--config", str(config), *more, typed=PASSWORD)
    assert code == 1
    assert 'did you mean "port"' in said
    assert "Traceback" not in said


def test_no_server_answers(tmp_path: Path) -> None:
    config = tmp_path / "server.yaml"
    config.write_text("port: 1")
    code, said = invoke("status", "--config", str(config))
    assert (code, "No skerry server answers" in said) == (1, True)
