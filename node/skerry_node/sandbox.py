"""The restricted profile: what every algorithm's container is bounded by, as data, in one place.

Everything here is Docker's own JSON (Engine API 1.41). Why each setting is as it is: docs/explanation/sandbox.md.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from skerry import contract
from skerry_node.config import Limits
from skerry_node.launchers.launcher import Image, Spec
from skerry_node.policies import Relaxation, relaxations_of

DATABASES_FOLDER = "/mnt/databases"

HOME_VARIABLES = {
    "HOME": "/tmp",  # noqa: S108 - a tmpfs of the run's own
    "TMPDIR": "/tmp",  # noqa: S108
    "USER": "skerry-run",
    "LOGNAME": "skerry-run",
    "XDG_CACHE_HOME": "/tmp/.cache",  # noqa: S108
    "XDG_CONFIG_HOME": "/tmp/.config",  # noqa: S108
    "MPLCONFIGDIR": "/tmp/.config/matplotlib",  # noqa: S108
    "NUMBA_CACHE_DIR": "/tmp/.cache/numba",  # noqa: S108
}
"""For images that expect a home. No value is base32 that an image could take for an encoded one."""

HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
"""The algorithm's /etc/hosts: the engine makes one for its own networks only."""

_HOLDER_PROCESSES = 128
"""It has two. The runtime that becomes it is counted until it has: as many threads as Go sees fit on the machine."""

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
GVISOR = "runsc"
_NEUTRAL: tuple[Any, ...] = (None, "", 0, False, [], {}, [0, 0])
_ENGINE_PATHS = {"MaskedPaths": "/proc/kcore", "ReadonlyPaths": "/proc/sys"}
"""Settings that the engine fills in; a list without the entry means that it was told not to."""
_ENGINE_CHOICES = frozenset({"CgroupParent"})
"""The machine's owner decides these for all containers."""


@cache
def seccomp(runtime: str = "runc") -> str:
    """The list of system calls that an algorithm may make, as the engine takes it: all others are refused.

    gVisor refuses every one in the same way (EPERM), and the C library then takes clone3 for a failure; so gVisor's own
    kernel is left to refuse that one. And it knows pselect6, by which the C library's select is made, as pselect.
    """
    profile = json.loads(files("skerry_node").joinpath("seccomp.json").read_text(encoding="utf-8"))
    for rule in profile["syscalls"] if runtime == GVISOR else ():
        if rule["names"] == ["clone3"]:
            rule["action"] = "SCMP_ACT_ALLOW"
            del rule["errnoRet"]
        if "pselect6" in rule["names"]:
            rule["names"].append("pselect")
    return json.dumps(profile, separators=(",", ":"))


@cache
def _holder_seccomp() -> str:
    """An algorithm's, and two calls with nothing beside these flags: a user namespace first, by which a process without
    any capability may make network namespaces, and then those.
    """
    profile = json.loads(seccomp())
    for flag in (_CLONE_NEWUSER, _CLONE_NEWNET):
        only = {"index": 0, "value": flag, "op": "SCMP_CMP_EQ"}
        profile["syscalls"].append({"names": ["unshare"], "action": "SCMP_ACT_ALLOW", "args": [only]})
    return json.dumps(profile, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Settings:
    """What an owner may relax for one image, under the names of ``policies.relaxations``; each at its strict value."""

    memory: int
    processes: int
    temporary: int
    open_files: int = 4096
    shared_memory: int = 64 << 20
    writable_root: bool = False
    executable_tmp: bool = False
    engine_seccomp: bool = False

    def security(self, runtime: str) -> list[str]:
        """Without a profile of ours the engine takes its own default, never none."""
        return ["no-new-privileges", *([] if self.engine_seccomp else [f"seccomp={seccomp(runtime)}"])]


@dataclass(frozen=True, slots=True)
class Profile:
    """The bounds of the node's configuration; turns them into what the engine is told."""

    limits: Limits
    runtime: str = "runc"
    relaxations: Sequence[Relaxation] = ()

    def relaxed(self, image: Image) -> tuple[Relaxation, ...]:
        """What the owner's policy relaxes for an image, which is known by its id or by a digest."""
        return relaxations_of(self.relaxations, {image.id, *image.digests})

    def settings(self, image: Image) -> Settings:
        strict = Settings(self.limits.memory, self.limits.processes, self.limits.temporary)
        return replace(strict, **{one.setting: one.value for one in self.relaxed(image)})

    def config(
        self, spec: Spec, holder: str, environment: Mapping[str, str], labels: Mapping[str, str]
    ) -> dict[str, Any]:
        """The whole container."""
        return {
            "Image": spec.image.id,
            "User": f"{spec.user}:{spec.user}",
            "Env": [f"{name}={value}" for name, value in {**HOME_VARIABLES, **environment}.items()],
            "Labels": dict(labels),
            "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": self.host_config(spec, holder),
        }

    def host_config(self, spec: Spec, holder: str) -> dict[str, Any]:
        settings = self.settings(spec.image)
        return {
            "Runtime": self.runtime,
            "NetworkMode": f"container:{holder}",
            "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "CapDrop": ["ALL"],
            "SecurityOpt": settings.security(self.runtime),
            "ReadonlyRootfs": not settings.writable_root,
            "Privileged": False,
            "GroupAdd": [str(group) for group in spec.groups],
            "PidsLimit": settings.processes,
            "Memory": settings.memory,
            "MemorySwap": settings.memory,
            "NanoCpus": int(self.limits.cpus * 1_000_000_000),
            "Ulimits": self._ulimits(settings),
            "Tmpfs": {path: _tmpfs(spec, settings) for path in ("/tmp", *_volumes(spec))},  # noqa: S108
            "Mounts": _mounts(spec),
            "ShmSize": settings.shared_memory,
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "Init": True,
            "LogConfig": self._log(),
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": False,
            "DeviceRequests": _gpus(spec.gpus),
        }

    def _ulimits(self, settings: Settings) -> list[dict[str, Any]]:
        size = max(self.limits.output, settings.temporary)
        bounds = {"core": 0, "fsize": size, "nofile": settings.open_files, "nproc": settings.processes}
        return [{"Name": name, "Soft": bound, "Hard": bound} for name, bound in bounds.items()]

    def _log(self) -> dict[str, Any]:
        # Each line costs the json-file driver some 100 bytes beside its text.
        size = str(4 * self.limits.log)
        options = {"max-size": size, "max-file": "2", "mode": "non-blocking", "max-buffer-size": "4m"}
        return {"Type": "json-file", "Config": options}


def holder_config(image: str, user: int, labels: Mapping[str, str]) -> dict[str, Any]:
    """A namespace holder: one static process without a network, of the engine's own runtime, closed as the rest is.

    NetworkDisabled: the runtime makes the namespace, with ``lo`` alone. The engine's own way to the same takes twice as
    long: it executes itself again to enter the namespace, and once more to leave word of it.
    """
    return {
        "Image": image,
        "User": f"{user}:{user}",
        "NetworkDisabled": True,
        "Labels": dict(labels),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "Runtime": "runc",
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={_holder_seccomp()}"],
            "ReadonlyRootfs": True,
            "PidsLimit": _HOLDER_PROCESSES,
            "Memory": 16 << 20,
            "MemorySwap": 16 << 20,
            "LogConfig": {"Type": "none", "Config": {}},
            "RestartPolicy": {"Name": "no"},
        },
    }


def _tmpfs(spec: Spec, settings: Settings) -> str:
    execution = "exec" if settings.executable_tmp else "noexec"
    owner = f"uid={spec.user},gid={spec.user}"
    return f"rw,{execution},nosuid,nodev,size={settings.temporary},mode=0700,{owner}"


def _volumes(spec: Spec) -> list[str]:
    """The image's volumes, but for those at a place where something of the node's is mounted: they would hide it."""
    taken = {str(one["Target"]) for one in _mounts(spec)}
    return [path for path in spec.image.volumes if posixpath.normpath(path) not in taken]


def _gpus(number: int) -> list[dict[str, Any]]:
    """What the engine asks its own GPU hook for; nothing of a device is mapped by us."""
    request = {"Driver": "", "Count": number, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    return [request] if number else []


def _mounts(spec: Spec) -> list[dict[str, Any]]:
    databases = [
        _bind(str(source.path), database_path(source.label, source.path.name, source.type), read_only=True)
        for source in spec.sources
    ]
    return [
        _bind(str(spec.data), contract.DATA_FOLDER),
        _bind(str(spec.temporary), contract.TEMPORARY_FOLDER),
        _bind(str(hosts_file(spec)), "/etc/hosts", read_only=True),
        *databases,
    ]


def hosts_file(spec: Spec) -> Path:
    """Beside the run's data, where the run sees nothing else."""
    return spec.data.with_name("hosts")


def database_path(label: str, name: str, kind: str) -> str:
    """Where a container finds a database: a folder under its label, a file under its own name in there.

    The name of an SQL file ends in .sqlite, since that is how vantage6's tools tell it from an address.
    """
    folder = f"{DATABASES_FOLDER}/{label}"
    if kind == "folder":
        return folder
    unmarked = kind in {"sql", "sqlite"} and not name.endswith(".sqlite")
    return f"{folder}/{name}.sqlite" if unmarked else f"{folder}/{name}"


def _bind(source: str, target: str, *, read_only: bool = False) -> dict[str, Any]:
    # NonRecursive: what is mounted below the source would come along, and writable at that.
    options = {"Propagation": "rprivate", "NonRecursive": True}
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only, "BindOptions": options}


def differences(intended: dict[str, Any], seen: dict[str, Any], image: Image) -> list[str]:
    """The names of the settings of a container that are not as intended, also of those that nobody asked for.

    ``seen`` is the engine's own description of it.
    """
    wrong = _host_differences(intended["HostConfig"], seen["HostConfig"])
    wrong += ["User"] if seen["Config"].get("User") != intended["User"] else []
    # The engine keeps the intervals of an image's own check, beside the test that is none.
    check = seen["Config"].get("Healthcheck") or {}
    wrong += ["Healthcheck"] if check.get("Test") != intended["Healthcheck"]["Test"] else []
    wrong += ["Image"] if seen["Image"] != intended["Image"] else []
    wrong += ["Env"] if not _same_environment(intended["Env"], seen["Config"].get("Env") or [], image) else []
    wrong += ["Mounts"] if _mounted(seen["Mounts"]) != _asked(intended["HostConfig"]["Mounts"]) else []
    return sorted(set(wrong))


def _host_differences(intended: dict[str, Any], seen: dict[str, Any]) -> list[str]:
    wrong = [name for name, value in intended.items() if not _same(value, seen.get(name))]
    for name, value in seen.items():
        if name in intended or name in _ENGINE_CHOICES:
            continue
        if name in _ENGINE_PATHS:
            wrong += [name] if _ENGINE_PATHS[name] not in (value or []) else []
        elif value not in _NEUTRAL:
            wrong.append(name)
    return wrong


def _same_environment(intended: list[str], seen: list[str], image: Image) -> bool:
    """All that was asked for, and beside it only variables of the image's own."""
    ours = {entry.partition("=")[0] for entry in intended}
    others = {entry.partition("=")[0] for entry in seen} - ours
    return set(intended) <= set(seen) and others <= {*image.variables, "PATH"}


def _mounted(mounts: list[dict[str, Any]]) -> set[tuple[str, str, str, bool]]:
    return {(one["Type"], one.get("Source", ""), one["Destination"], bool(one["RW"])) for one in mounts}


def _asked(mounts: list[dict[str, Any]]) -> set[tuple[str, str, str, bool]]:
    return {(one["Type"], one["Source"], one["Target"], not one["ReadOnly"]) for one in mounts}


def _same(intended: Any, seen: Any) -> bool:
    """Equal, where the engine may leave out what is false or empty, and may sort lists of objects."""
    if isinstance(intended, dict) and isinstance(seen, dict):
        return all(_same(intended.get(key), seen.get(key)) for key in intended.keys() | seen.keys())
    if isinstance(intended, list) and isinstance(seen, list) and len(intended) == len(seen):
        return all(any(_same(one, other) for other in seen) for one in intended)
    return intended == seen or (intended in _NEUTRAL and seen in _NEUTRAL)
