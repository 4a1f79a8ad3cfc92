"""What a node will say of an image or of an algorithm's folder, before it is sent there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from skerry import images, packages
from skerry.contract import GATE_PORT, PACKAGE
from skerry.errors import ConfigurationError, SkerryError

_LOOK_INSIDE = """\
import importlib, json, os, stat, sys
from skerry.functions import offered
found = {"setuid": [], "uncompiled": 0}
for folder, names, files in os.walk("/"):
    names[:] = [n for n in names if os.path.join(folder, n) not in ("/proc", "/sys", "/dev")]
    for name in files:
        try:
            mode = os.lstat(os.path.join(folder, name)).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            found["setuid"].append(os.path.join(folder, name))
module = importlib.import_module(sys.argv[1])
found["functions"] = sorted(offered(module))
for name, one in list(sys.modules.items()):
    cached = getattr(one, "__cached__", None)
    source = getattr(one, "__file__", None) or ""
    if source.endswith(".py") and cached and not os.path.exists(cached):
        found["uncompiled"] += 1
sys.stdout.write(json.dumps(found))
"""
_SANDBOX = (
    *("--rm", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"),
    *("--user", "64999:64999", "--pids-limit", "64", "--memory", "2g", "--tmpfs", "/tmp"),  # noqa: S108 - the container's
)

Verdict = Literal["ok", "note", "refused"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``refused``: a node would not run it, or it would fail."""

    verdict: Verdict
    sentence: str


def check_folder(folder: Path) -> list[Finding]:
    """Findings on an algorithm's folder; none of its code is run. Raises ConfigurationError when it is none."""
    package = packages.find(folder)
    dockerfile = folder / "Dockerfile"
    text = dockerfile.read_text() if dockerfile.exists() else ""
    findings = [Finding("ok", f"package {package.name}"), _functions(package.functions)]
    findings += _ports(packages.exposed_ports(dockerfile))
    if text and PACKAGE not in text:
        findings.append(Finding("refused", f"The Dockerfile does not set {PACKAGE}: ENV {PACKAGE}={package.name}"))
    if not text and (folder / "requirements.txt").exists():
        sentence = "requirements.txt is not read: what the base image lacks needs a Dockerfile that installs it."
        findings.append(Finding("note", sentence))
    return findings


def check_image(name: str) -> list[Finding]:
    """Findings on an image of the local engine; its package is imported in a container without network or rights."""
    try:
        config = images.inspect(name).get("Config") or {}
    except images.BuildFailed as error:
        if "no such image" not in str(error).lower():
            raise
        raise ConfigurationError(f"There is neither a folder nor an image here that is called {name}.") from error
    package = _environment(config).get(PACKAGE, "")
    findings = [*_entry(config, package), *_ports(_exposed(config)), *_user(config), *_ignored(config)]
    return findings + (_inside(name, package) if package else [])


def _functions(names: tuple[str, ...] | list[str]) -> Finding:
    if names:
        return Finding("ok", f"functions that a task may call: {', '.join(names)}")
    return Finding("refused", "No function is marked @central or @partial, so a task has nothing to call.")


def _ports(ports: list[int]) -> list[Finding]:
    if GATE_PORT in ports:
        return [Finding("refused", f"It EXPOSEs {GATE_PORT}, which is the gate's port: take another.")]
    return [Finding("ok", f"ports for its peers: {', '.join(map(str, ports))}")] if ports else []


def _entry(config: dict[str, Any], package: str) -> list[Finding]:
    command = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    if not command:
        return [Finding("refused", "It has neither ENTRYPOINT nor CMD, so nothing would run.")]
    entry = Finding("ok", f"runs: {' '.join(command)}")
    if not package and "skerry.entrypoint" in " ".join(command):
        return [entry, Finding("refused", f"{PACKAGE} is not set, so the entry point finds no functions.")]
    return [entry, Finding("ok", f"package {package}")] if package else [entry]


def _user(config: dict[str, Any]) -> list[Finding]:
    user = str(config.get("User") or "")
    if user.partition(":")[0] in {"", "0", "root"}:
        return [Finding("note", "Its user is root; a node runs it as another user, without any right.")]
    return [Finding("ok", f"user {user}; a node chooses its own for each run")]


def _ignored(config: dict[str, Any]) -> list[Finding]:
    findings = []
    if config.get("Volumes"):
        volumes = ", ".join(config["Volumes"])
        findings.append(Finding("note", f"VOLUME {volumes}: write to /tmp or TEMPORARY_FOLDER, all else is read-only."))
    if (config.get("Healthcheck") or {}).get("Test", ["NONE"]) != ["NONE"]:
        findings.append(Finding("note", "Its HEALTHCHECK is not carried out."))
    return findings


def _inside(name: str, package: str) -> list[Finding]:
    try:
        command = (*_SANDBOX, "--entrypoint", "python3", name, "-c", _LOOK_INSIDE, package)
        found = json.loads(images.docker("run", *command))
    except (SkerryError, ValueError) as error:
        reason = str(error).splitlines()[-1]
        return [Finding("refused", f'Its package "{package}" can\'t be imported in a container of a node: {reason}')]
    findings = [_functions(found["functions"])]
    if found["setuid"]:
        findings.append(Finding("note", f"setuid files, which have no effect at a node: {', '.join(found['setuid'])}"))
    if found["uncompiled"]:
        sentence = f"{found['uncompiled']} modules are compiled anew at each start: RUN python3 -m compileall -q FOLDER"
        findings.append(Finding("note", sentence))
    return findings


def _environment(config: dict[str, Any]) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in config.get("Env") or [] if "=" in entry)


def _exposed(config: dict[str, Any]) -> list[int]:
    return sorted(int(port.partition("/")[0]) for port in config.get("ExposedPorts") or {})


def check(target: str) -> list[Finding]:
    """Findings on a folder, or else on an image; raises ConfigurationError when there is neither."""
    path = Path(target)
    if path.is_dir():
        return check_folder(path)
    if path.exists():
        raise ConfigurationError(f"{target} is neither a folder nor an image.")
    return check_image(target)
