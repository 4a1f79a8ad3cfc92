"""The restricted profile: what every algorithm's container is bounded by, as data, in one place.

Everything here is Docker's own JSON (Engine API 1.41). Why each setting is as it is: docs/explanation/threat-model.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skerry import contract
from skerry_node.config import Limits
from skerry_node.launchers.launcher import Spec

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

_SHM_BYTES = 64 << 20
_OPEN_FILES = 4096
_NEUTRAL: tuple[Any, ...] = (None, "", 0, False, [], {}, [0, 0])
_ENGINE_PATHS = {"MaskedPaths": "/proc/kcore", "ReadonlyPaths": "/proc/sys"}
"""Settings that the engine fills in; a list without the entry means that it was told not to."""
_ENGINE_CHOICES = frozenset({"Runtime", "CgroupParent"})
"""The machine's owner decides these for all containers."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The bounds of the node's configuration; turns them into what the engine is told."""

    limits: Limits

    def host_config(self, spec: Spec, holder: str) -> dict[str, Any]:
        return {
            "NetworkMode": f"container:{holder}",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "Privileged": False,
            "GroupAdd": [str(group) for group in spec.groups],
            "PidsLimit": self.limits.processes,
            "Memory": self.limits.memory,
            "MemorySwap": self.limits.memory,
            "NanoCpus": int(self.limits.cpus * 1_000_000_000),
            "Ulimits": self._ulimits(),
            "Tmpfs": {path: self._tmpfs(spec) for path in ("/tmp", *spec.image.volumes)},  # noqa: S108
            "Mounts": _mounts(spec),
            "ShmSize": _SHM_BYTES,
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "Init": True,
            "LogConfig": self._log(),
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": False,
            "DeviceRequests": _gpus(spec.gpus),
        }

    def _ulimits(self) -> list[dict[str, Any]]:
        size = max(self.limits.output, self.limits.temporary)
        bounds = {"core": 0, "fsize": size, "nofile": _OPEN_FILES}
        return [{"Name": name, "Soft": bound, "Hard": bound} for name, bound in bounds.items()]

    def _tmpfs(self, spec: Spec) -> str:
        owner = f"uid={spec.user},gid={spec.user}"
        return f"rw,noexec,nosuid,nodev,size={self.limits.temporary},mode=0700,{owner}"

    def _log(self) -> dict[str, Any]:
        # Each line costs the json-file driver some 100 bytes beside its text.
        size = str(4 * self.limits.log)
        options = {"max-size": size, "max-file": "2", "mode": "non-blocking", "max-buffer-size": "4m"}
        return {"Type": "json-file", "Config": options}


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
        *databases,
    ]


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


def differences(intended: dict[str, Any], seen: dict[str, Any]) -> list[str]:
    """The names of the settings that are not as intended, also of those that nobody asked for."""
    wrong = [name for name, value in intended.items() if not _same(value, seen.get(name))]
    for name, value in seen.items():
        if name in intended or name in _ENGINE_CHOICES:
            continue
        if name in _ENGINE_PATHS:
            wrong += [name] if _ENGINE_PATHS[name] not in (value or []) else []
        elif value not in _NEUTRAL:
            wrong.append(name)
    return sorted(wrong)


def _same(intended: Any, seen: Any) -> bool:
    """Equal, where the engine may leave out what is false or empty, and may sort lists of objects."""
    if isinstance(intended, dict) and isinstance(seen, dict):
        return all(_same(intended.get(key), seen.get(key)) for key in intended.keys() | seen.keys())
    if isinstance(intended, list) and isinstance(seen, list) and len(intended) == len(seen):
        return all(any(_same(one, other) for other in seen) for one in intended)
    return intended == seen or (intended in _NEUTRAL and seen in _NEUTRAL)
