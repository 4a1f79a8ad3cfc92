"""The command line: every error a sentence on standard error, and what the verbs do."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest

from skerry import images, inspection, packages, scaffold
from skerry.cli import verbs
from skerry.cli.main import main
from skerry.errors import ConfigurationError, MissingExtra
from skerry.images import BuildFailed
from skerry.keys import Identity
from skerry.pins import Pins
from skerry.statements import Announced

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """Nothing of the person who runs the tests is read or written."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("SKERRY_CONNECTION", raising=False)


@pytest.fixture
def skerry(capsys):
    """Runs a command; its exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


@pytest.fixture
def short_keys(monkeypatch, identities):
    """Making a key of the real length takes seconds."""
    given = iter([identities[1], identities[2], identities[3]])
    monkeypatch.setattr("skerry.cli.key.Identity.generate", lambda: next(given))


# --- the command itself ----------------------------------------------------------------------------------


def test_help_names_all_verbs(skerry) -> None:
    code, out, _ = skerry("--help")
    assert code == 0
    for verb in ("algorithm", "completion", "dev", "key", "node", "server", "task"):
        assert f"\n  {verb} " in out


@pytest.mark.parametrize("verb", ["algorithm", "dev", "key", "node", "server", "task"])
def test_every_subcommand_has_its_help(verb) -> None:
    group = verbs.load(verbs._registered()[verb])
    assert isinstance(group, click.Group)
    assert group.help
    for command in group.commands.values():
        assert command.help, command.name


def test_version(skerry) -> None:
    code, out, _ = skerry("--version")
    assert code == 0
    assert out.startswith("skerry 0.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "No such command 'nope'"),
        (["task", "wait", "x"], "not a valid integer"),
        (["--nope"], "No such option"),
    ],
)
def test_wrong_usage(skerry, arguments, words) -> None:
    code, out, err = skerry(*arguments)
    assert (code, out) == (2, "")
    assert words in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(skerry, shell) -> None:
    code, out, _ = skerry("completion", shell)
    assert code == 0
    assert f"_SKERRY_COMPLETE={shell}_complete" in out


def test_completion_completes() -> None:
    command = "import sys; from skerry.cli.main import main; sys.exit(main([]))"
    variables = {**os.environ, "_SKERRY_COMPLETE": "bash_complete", "COMP_WORDS": "skerry al", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", command], env=variables, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["plain,algorithm"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConfigurationError("The port is taken."), "skerry: The port is taken.\n"),
        (FileNotFoundError(2, "No such file or directory", "x.yaml"), "skerry: x.yaml: No such file or directory.\n"),
        (ZeroDivisionError("division by zero"), "skerry: this should not have happened: ZeroDivisionError"),
        (KeyboardInterrupt(), "skerry: stopped."),
    ],
)
def test_errors_are_sentences(skerry, monkeypatch, error, words) -> None:
    @click.command()
    def broken() -> None:
        raise error

    monkeypatch.setitem(verbs.skerry.commands, "broken", broken)
    code, _, err = skerry("broken")
    assert code in {1, 130}
    assert words in err


def test_debug_shows_where(monkeypatch, capsys) -> None:
    @click.command()
    def broken() -> None:
        raise ConfigurationError("wrong")

    monkeypatch.setitem(verbs.skerry.commands, "broken", broken)
    assert main(["--debug", "broken"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_verb_whose_extra_is_missing(skerry, monkeypatch) -> None:
    entry = EntryPoint("server", "skerry_server.nothing_here:server", "skerry.commands")
    monkeypatch.setattr(EntryPoint, "load", lambda _: (_ for _ in ()).throw(ModuleNotFoundError("x", name="flask")))
    monkeypatch.setattr(verbs, "_registered", lambda: {"server": entry})
    code, _, err = skerry("server", "start", "--config", "x")
    assert code == 1
    assert err == 'skerry: skerry server needs skerry\'s "server" extra: pip install "skerry[server]"\n'
    assert "Not installed: needs skerry[server]" in skerry("--help")[1]


def test_an_error_in_our_own_modules_is_not_a_missing_extra(monkeypatch) -> None:
    entry = EntryPoint("x", "skerry.nothing_here:x", "skerry.commands")
    with pytest.raises(ModuleNotFoundError):
        verbs.load(entry)
    with pytest.raises(MissingExtra):
        verbs.load(EntryPoint("x", "not_installed_at_all:x", "skerry.commands"))


# --- keys ------------------------------------------------------------------------------------------------


def test_a_new_key(skerry, tmp_path, short_keys) -> None:
    file = tmp_path / "key.pem"
    code, out, _ = skerry("key", "new", file)
    assert code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    fingerprint = out.split()[-1]
    assert fingerprint in skerry("key", "show", file)[1]
    code, _, err = skerry("key", "new", file)
    assert code == 1
    assert "exists already" in err


def test_a_users_key(skerry, tmp_path, short_keys) -> None:
    file, mine = tmp_path / "key.pem", tmp_path / "mine.pem"
    skerry("key", "new", file)
    assert skerry("key", "certify", file, mine, "--organization", 1, "--user", 9)[0] == 0
    identity = Identity.load(mine)
    assert identity.certificate.user == 9
    issuer = Identity.load(file).signing.public_key().public_bytes_raw()
    certified = identity.certificate.verify(issuer, at=identity.certificate.created)
    assert certified == identity.signing.public_key().public_bytes_raw()
    assert skerry("key", "show", mine)[1] == "user 9 of organization 1\n"
    assert skerry("key", "certify", mine, tmp_path / "x.pem", "--organization", 1, "--user", 9)[0] == 1


def test_a_key_of_vantage6_gets_a_signing_key(skerry, tmp_path, identities, short_keys) -> None:
    file = tmp_path / "old.pem"
    Identity(identities[2].encryption).save(file)
    assert "made by vantage6" in skerry("key", "show", file)[1]
    assert skerry("key", "new", "--upgrade", file)[0] == 0
    assert Identity.load(tmp_path / "old.pem.new").signing is not None
    assert skerry("key", "new", "--upgrade", tmp_path / "old.pem.new")[0] == 1


def test_a_key_file_that_others_can_read(skerry, tmp_path, short_keys) -> None:
    file = tmp_path / "key.pem"
    skerry("key", "new", file)
    file.chmod(0o644)
    code, _, err = skerry("key", "show", file)
    assert code == 1
    assert f"chmod 600 {file}" in err


def pin(identity, organization: int):
    from skerry.keys import OrganizationKeys  # noqa: PLC0415

    return OrganizationKeys.from_wire(identity.organization_keys(organization))


def test_pinned_keys_are_confirmed(skerry, tmp_path, identities) -> None:
    file = tmp_path / "pins.json"
    Pins(file).trust(Announced(pin(identities[2], 2)))
    fingerprint = pin(identities[2], 2).fingerprint
    assert skerry("key", "pins", file)[1] == f"organization 2  {fingerprint}  seen\n"
    code, _, err = skerry("key", "confirm", file, "--organization", 2, "--fingerprint", "0" * 64)
    assert code == 1
    assert "no keys of organization 2 with this fingerprint" in err
    spaced = " ".join(fingerprint[i : i + 4] for i in range(0, 64, 4)).upper()
    assert skerry("key", "confirm", file, "--organization", 2, "--fingerprint", spaced)[0] == 0
    assert skerry("key", "pins", file)[1].endswith("confirmed\n")


# --- tasks -----------------------------------------------------------------------------------------------


@pytest.fixture
def script(server, make_token):
    tokens = {"access_token": make_token(9), "refresh_token": make_token(9, 99999.0)}
    server.on("POST", "token/user", tokens)
    server.on("POST", "token/refresh", tokens)
    server.on("GET", "user/9", {"id": 9, "organization": {"id": 1}})
    server.on("GET", "collaboration/1", {"id": 1, "encrypted": False, "accept": "native"})
    task = {"id": 5, "uuid": "u", "name": "mean", "image": "i", "status": "completed", "collaboration": {"id": 1}}
    server.on("POST", "task", task)
    server.on("GET", "task/5", task)
    server.on("GET", "task", {"data": [task], "links": {}})
    run = {"id": 11, "organization_id": 1, "node_id": 1, "status": "completed", "node_online": True}
    server.on("GET", "skerry/task/5/wait", {"status": "completed", "finished": True, "seen": "s", "runs": [run]})
    server.on("GET", "skerry/run/11/result", (200, b'{"mean": 3}'))
    server.on("GET", "run", {"data": [{**run, "log": "one\ntwo", "organization": {"id": 1}}], "links": {}})
    server.on("POST", "kill/task", {"msg": "ok"})
    return server


@pytest.fixture
def connection(script, tmp_path) -> Path:
    """As `skerry dev up --json` prints it."""
    facts = {
        "server": {"url": f"http://127.0.0.1:{script.port}", "api_path": "/api"},
        "collaboration": {"id": 1, "encrypted": False, "accept": "native"},
        "organizations": [{"id": 1, "name": "one", "private_key_file": None}],
        "users": [
            {"username": name, "password": f"secret of {name}", "organization_id": 1} for name in ("root", "anna")
        ],
    }
    path = tmp_path / "federation.json"
    path.write_text(json.dumps(facts))
    return path


def test_a_task_by_a_connection_file(skerry, script, connection) -> None:
    asked = ("--image", "i", "--method", "mean", "--arg", "column=age", "--arg", "digits=2", "--database", "default")
    code, out, _ = skerry("task", "create", *asked, "--connection", connection, "--wait")
    assert (code, json.loads(out)) == (0, [{"mean": 3}])
    body = script.calls("POST", "task")[0].json
    assert body["organizations"][0]["id"] == 1
    assert (body["collaboration_id"], body["databases"]) == (1, [{"label": "default"}])
    assert script.calls("POST", "token/user")[0].json["username"] == "root"


def test_the_input_from_standard_input(skerry, script, connection, monkeypatch, tmp_path) -> None:
    (tmp_path / "input.json").write_text('{"column": "secret column"}')
    arguments = ("--image", "i", "--method", "mean", "--input", tmp_path / "input.json", "--connection", connection)
    assert skerry("task", "create", *arguments)[1] == "5\n"
    (tmp_path / "input.json").write_text("[]")
    assert "must be a JSON object" in skerry("task", "create", *arguments)[2]
    (tmp_path / "input.json").write_text("{")
    assert "not JSON" in skerry("task", "create", *arguments)[2]


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["wait", 5], "completed\n"),
        (["results", 5], '[{"mean": 3}]\n'),
        (["list"], "     5  completed      mean                                     i\n"),
        (["show", 5], "task 5: mean, i, completed\nrun 11 at organization 1: completed\n    one\n    two\n"),
        (["kill", 5], ""),
    ],
)
def test_what_one_does_with_tasks(skerry, connection, arguments, out) -> None:
    assert skerry("task", *arguments, "--connection", connection)[:2] == (0, out)


def test_another_user_of_the_connection_file(skerry, script, connection, monkeypatch) -> None:
    monkeypatch.setenv("SKERRY_CONNECTION", str(connection))
    assert skerry("task", "list", "--as", "anna", "--json")[0] == 0
    assert script.calls("POST", "token/user")[0].json == {"username": "anna", "password": "secret of anna"}
    code, _, err = skerry("task", "list", "--as", "eve")
    assert code == 1
    assert 'has no user "eve"' in err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is not what `skerry dev up --json` prints"),
        ("{}", "is not what"),
        (None, "can't be read"),
    ],
)
def test_a_connection_file_that_is_none(skerry, tmp_path, content, words) -> None:
    file = tmp_path / "c.json"
    if content is not None:
        file.write_text(content)
    code, _, err = skerry("task", "list", "--connection", file)
    assert code == 1
    assert words in err


def test_a_log_in_is_kept_without_the_password(skerry, script, tmp_path, monkeypatch) -> None:
    class Piped:
        def isatty(self) -> bool:
            return False

        def readline(self) -> str:
            return "very secret\n"

    monkeypatch.setattr("sys.stdin", Piped())
    url = f"http://127.0.0.1:{script.port}"
    code, _, err = skerry("task", "login", "--server", url, "--username", "root", "--collaboration", 1)
    assert (code, err) == (0, "logged in as root of organization 1\n")
    [file] = (tmp_path / "state").rglob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "very secret" not in file.read_text()
    assert script.calls("POST", "token/user")[0].json["password"] == "very secret"
    assert skerry("task", "list")[0] == 0
    assert skerry("task", "create", "--image", "i", "--method", "m")[1] == "5\n"
    script.on("POST", "token/refresh", (401, {"msg": "Token has expired"}))
    assert "`skerry task login` again" in skerry("task", "list")[2]
    assert skerry("task", "logout")[0] == 0
    assert "You are not logged in" in skerry("task", "list")[2]


@pytest.mark.parametrize("pair", ["column", "=age", "a b=c"])
def test_an_argument_that_is_none(skerry, connection, pair) -> None:
    arguments = ("--image", "i", "--method", "m", "--arg", pair, "--connection", connection)
    code, _, err = skerry("task", "create", *arguments)
    assert code == 1
    assert "write NAME=VALUE" in err


# --- algorithms ------------------------------------------------------------------------------------------


def test_a_new_algorithm_works(skerry, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "my-first"
    code, out, _ = skerry("algorithm", "new", folder)
    assert code == 0
    assert len(out.splitlines()) == 4
    monkeypatch.syspath_prepend(folder)
    runpy.run_path(str(folder / "tests" / "test_my_first.py"))["test_average"]()
    code, out, _ = skerry("algorithm", "check", folder)
    assert code == 0
    assert "functions that a task may call: average, sums" in out
    assert skerry("algorithm", "new", folder)[0] == 1


@pytest.mark.parametrize("name", ["1st", "what is this", "class-é!"])
def test_a_name_that_no_package_can_have(tmp_path, name) -> None:
    with pytest.raises(ConfigurationError, match="can't be a Python package's name"):
        scaffold.write(tmp_path / name)


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "algo"
    (folder / "algo").mkdir(parents=True)
    (folder / "algo" / "__init__.py").write_text(
        "from algo.parts import sums, hidden\nimport skerry\n\n@skerry.central\ndef mean(client): ...\n"
    )
    (folder / "algo" / "parts.py").write_text(
        "from skerry import data, partial\n\n@partial\n@data(1)\ndef sums(frame): ...\n\n"
        "def hidden(): ...\n\n@partial\ndef not_imported(): ...\n"
    )
    (folder / "tests").mkdir()
    (folder / "setup.py").write_text("raise SystemExit('never run')")
    return folder


def test_the_package_of_a_folder(folder) -> None:
    package = packages.find(folder)
    assert (package.name, package.functions) == ("algo", ("mean", "sums"))


def test_a_package_of_one_file(tmp_path) -> None:
    (tmp_path / "algo.py").write_text("from skerry import partial\n@partial\ndef f(): ...\n")
    assert packages.find(tmp_path).functions == ("f",)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "second.py").write_text(""), "found: algo, second.py"),
        (lambda folder: (folder / "algo" / "__init__.py").unlink(), "found: none"),
        (lambda folder: (folder / "algo" / "__init__.py").write_text("def"), r"__init__\.py is not Python"),
    ],
)
def test_a_folder_without_a_package(folder, spoil, words) -> None:
    spoil(folder)
    with pytest.raises(ConfigurationError, match=words):
        packages.find(folder)


def test_a_folder_that_is_none(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match="is not a folder"):
        packages.find(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "ports"),
    [("FROM x\n", []), ("EXPOSE 80\nexpose 443/tcp 53/udp\n# EXPOSE 1\n", [80, 443, 53]), ("ENV A=EXPOSE 3\n", [])],
)
def test_exposed_ports(tmp_path, text, ports) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    assert packages.exposed_ports(tmp_path / "Dockerfile") == ports


def verdicts(findings) -> list[tuple[str, str]]:
    return [(finding.verdict, finding.sentence) for finding in findings]


def test_what_a_node_would_refuse_of_a_folder(folder) -> None:
    (folder / "Dockerfile").write_text("FROM x\nEXPOSE 8642\n")
    (folder / "algo" / "__init__.py").write_text("")
    refused = [sentence for verdict, sentence in verdicts(inspection.check_folder(folder)) if verdict == "refused"]
    assert len(refused) == 3
    assert "No function is marked" in refused[0]
    assert "8642" in refused[1]
    assert "PKG_NAME=algo" in refused[2]


def test_a_folder_for_the_process_launcher(skerry, folder, tmp_path) -> None:
    (folder / "Dockerfile").write_text("FROM x\nEXPOSE 8888\n")
    code, out, _ = skerry("algorithm", "build", folder, "--tag", "example/algo:1", "--launcher", "process")
    home = tmp_path / "data" / "skerry" / "process-images" / "example%2Falgo%3A1"
    entry = json.loads((home / "image.json").read_text())
    assert (code, out) == (0, f"example/algo:1 {entry['digest']}\n")
    assert {**entry, "digest": "", "folder": ""} == {
        "name": "example/algo:1",
        "digest": "",
        "package": "algo",
        "python": sys.executable,
        "folder": "",
        "ports": [8888],
    }
    copied = sorted(path.relative_to(entry["folder"]).as_posix() for path in Path(entry["folder"]).rglob("*.py"))
    assert copied == ["algo/__init__.py", "algo/parts.py"]
    again = images.register(folder, "example/algo:1", tmp_path / "data" / "skerry" / "process-images")
    assert again.id == entry["digest"]
    (folder / "algo" / "parts.py").write_text("")
    changed = images.register(folder, "example/algo:1", tmp_path / "data" / "skerry" / "process-images")
    assert changed.id != entry["digest"]
    assert [path.name for path in home.iterdir() if path.is_dir()] == [changed.id.removeprefix("sha256:")]


def test_the_gates_port_can_not_be_taken(folder, tmp_path) -> None:
    (folder / "Dockerfile").write_text("EXPOSE 8642\n")
    with pytest.raises(ConfigurationError, match="gate's port"):
        images.register(folder, "a", tmp_path)


class FakeDocker:
    """Stands in for the docker command."""

    def __init__(self, monkeypatch, **answers: tuple[int, str, str]) -> None:
        self.answers, self.calls, self.feeds = answers, [], []
        monkeypatch.setattr(images.subprocess, "run", self.run)

    def run(self, command, *, input=None, **_):  # noqa: A002
        self.calls.append(command)
        self.feeds.append(input)
        if "--iidfile" in command:
            Path(command[command.index("--iidfile") + 1]).write_text("sha256:abc")
        code, out, err = self.answers.get(command[1], (0, "", ""))
        return subprocess.CompletedProcess(command, code, out, err)


def test_an_image_without_a_dockerfile(skerry, folder, monkeypatch) -> None:
    docker = FakeDocker(monkeypatch)
    assert skerry("algorithm", "build", folder)[:2] == (0, "algo sha256:abc\n")
    assert "COPY algo /app/algo" in docker.feeds[0]
    assert "PKG_NAME=algo" in docker.feeds[0]
    assert docker.calls[0][-1] == str(folder)


def test_an_image_with_its_own_dockerfile_is_pushed(skerry, folder, monkeypatch) -> None:
    (folder / "Dockerfile").write_text("FROM x\n")
    inspected = json.dumps([{"RepoDigests": ["r.test/algo@sha256:def"]}])
    docker = FakeDocker(monkeypatch, image=(0, inspected, ""))
    out = skerry("algorithm", "build", folder, "--tag", "r.test/algo:1", "--base", "b", "--push")[1]
    assert out == "r.test/algo:1@sha256:def\n"
    assert docker.feeds[0] is None
    assert "BASE=b" in docker.calls[0]
    assert docker.calls[1] == ["docker", "push", "r.test/algo:1"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("Step 1\nCOPY failed: no such file", "COPY failed: no such file"),
        ("ERROR: Cannot connect to the Docker daemon at unix:///x. Is it running?", "No Docker engine answers"),
    ],
)
def test_a_build_that_fails(skerry, folder, monkeypatch, output, words) -> None:
    FakeDocker(monkeypatch, build=(1, "", output))
    code, _, err = skerry("algorithm", "build", folder)
    assert code == 1
    assert words in err


def test_no_docker_command(folder, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match="no docker command here"):
        images.build(folder, "a")


def image(**config) -> tuple[int, str, str]:
    return 0, json.dumps([{"Config": config}]), ""


INSIDE = {"functions": ["mean"], "setuid": [], "uncompiled": 0}
GOOD = {"Entrypoint": ["python3", "-m", "skerry.entrypoint"], "Env": ["PKG_NAME=algo"], "User": "64100:64100"}


@pytest.mark.parametrize(
    ("change", "inside", "expected"),
    [
        ({}, {}, ("ok", "functions that a task may call: mean")),
        ({"Entrypoint": None}, {}, ("refused", "It has neither ENTRYPOINT nor CMD")),
        ({"Env": None}, {}, ("refused", "PKG_NAME is not set")),
        ({"ExposedPorts": {"8642/tcp": {}}}, {}, ("refused", "It EXPOSEs 8642")),
        ({"ExposedPorts": {"8888/tcp": {}, "80/tcp": {}}}, {}, ("ok", "ports for its peers: 80, 8888")),
        ({"User": ""}, {}, ("note", "Its user is root")),
        ({"User": "0:0"}, {}, ("note", "Its user is root")),
        ({"Volumes": {"/data": {}}}, {}, ("note", "VOLUME /data")),
        ({"Healthcheck": {"Test": ["CMD", "true"]}}, {}, ("note", "Its HEALTHCHECK is not carried out")),
        ({}, {"functions": []}, ("refused", "No function is marked")),
        ({}, {"setuid": ["/bin/su"]}, ("note", "setuid files, which have no effect at a node: /bin/su")),
        ({}, {"uncompiled": 3}, ("note", "3 modules are compiled anew at each start")),
    ],
)
def test_what_a_node_says_of_an_image(monkeypatch, change, inside, expected) -> None:
    docker = FakeDocker(monkeypatch, image=image(**{**GOOD, **change}), run=(0, json.dumps({**INSIDE, **inside}), ""))
    findings = verdicts(inspection.check("some/image"))
    assert any(verdict == expected[0] and sentence.startswith(expected[1]) for verdict, sentence in findings)
    for call in docker.calls:
        if call[1] == "run":
            assert call[call.index("--network") + 1] == "none"
            assert call[call.index("--cap-drop") + 1] == "ALL"


def test_an_image_whose_package_can_not_be_imported(skerry, monkeypatch) -> None:
    FakeDocker(monkeypatch, image=image(**GOOD), run=(1, "", "Traceback\nModuleNotFoundError: No module named 'algo'"))
    code, out, _ = skerry("algorithm", "check", "some/image")
    assert code == 1
    assert "ModuleNotFoundError: No module named 'algo'" in out


def test_neither_image_nor_folder(skerry, monkeypatch, tmp_path) -> None:
    FakeDocker(monkeypatch, image=(1, "[]", "Error: No such image: some/image"))
    assert "neither a folder nor an image" in skerry("algorithm", "check", "some/image")[2]
    (tmp_path / "file").write_text("")
    assert "neither a folder nor an image" in skerry("algorithm", "check", tmp_path / "file")[2]


def test_another_trouble_of_the_engine_is_told(monkeypatch) -> None:
    FakeDocker(monkeypatch, image=(1, "", "permission denied"))
    with pytest.raises(BuildFailed, match="permission denied"):
        inspection.check_image("some/image")
