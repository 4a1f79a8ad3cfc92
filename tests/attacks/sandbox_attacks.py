"""What a hostile image does inside its container, leaves behind, and says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cells
import pytest
from attack import Attack, Struck, Weaken
from cells import Cell

from skerry_node import areas, sandbox
from skerry_node import output as outputs
from skerry_node.sandbox import Profile


@dataclass(frozen=True, slots=True)
class Inside:
    """One trick of the attacker's image, tried in a container."""

    name: str

    def __call__(self, cell: Cell) -> Struck:
        return Struck(*cell.strike(self.name))


@dataclass(frozen=True, slots=True)
class InImage:
    """The same in an image that has some lines more."""

    name: str
    lines: tuple[str, ...]
    trick: str

    def __call__(self, cell: Cell) -> Struck:
        return Struck(*cell.strike(self.trick, cells.build_trick(self.name, *self.lines)))


@dataclass(frozen=True, slots=True)
class Plant:
    """Something that isn't a result, in its place: succeeds when the node hands it on as one, or what it leads to."""

    what: str
    wanted: str | None = None

    def __call__(self, cell: Cell) -> Struck:
        outcome = cell.run(cells.IMAGE, "plant", what=self.what, target=cell.facts["canary_file"])
        got = outcome.value is not None if self.wanted is None else outcome.value == self.wanted
        return Struck(got, f"{outcome.said} {outcome.value!r:.80}")


# --- what is taken away -----------------------------------------------------------------------------------


def host_settings(*, checked: bool = True, **changes: Any) -> Weaken:
    """The profile with other settings of the engine. ``checked``: whether the launcher compares what came of them."""
    genuine = Profile.host_config

    def weaken(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Profile, "host_config", lambda *given: {**genuine(*given), **changes})
        if not checked:
            patch.setattr(sandbox, "differences", lambda *_: [])

    return weaken


def as_root(**changes: Any) -> Weaken:
    """Root with the engine's own capabilities: without them a root can't even read its input."""
    settings, genuine = host_settings(CapDrop=[], checked=False, **changes), Profile.config

    def weaken(patch: pytest.MonkeyPatch) -> None:
        settings(patch)
        patch.setattr(Profile, "config", lambda *given: {**genuine(*given), "User": "0:0"})

    return weaken


def larger(**limits: str) -> Weaken:
    def weaken(patch: pytest.MonkeyPatch) -> None:
        for name, value in limits.items():
            patch.setitem(cells.LIMITS, name, value)

    return weaken


def more_inodes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(areas, "_INODES", 1 << 20)
    larger(output="256m", memory="1g")(patch)


def one_area_for_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cells, "ONE_AREA", True)


def any_output(patch: pytest.MonkeyPatch) -> None:
    """Opened as anybody would, and read whatever it is."""
    patch.setattr(outputs, "_FLAGS", outputs.os.O_RDONLY | outputs.os.O_NONBLOCK)
    patch.setattr(outputs, "_check", lambda status, *_: status.st_size)


def area_for_all(patch: pytest.MonkeyPatch) -> None:
    """The run may replace its own folder, and who reads follows."""
    patch.setattr(cells, "AREA_MODE", 0o777)
    patch.setattr(outputs, "_FOLDER_FLAGS", outputs.os.O_RDONLY | outputs.os.O_DIRECTORY)
    any_output(patch)


def any_device(patch: pytest.MonkeyPatch) -> None:
    """Root makes one, where devices work, and it is read like a file."""
    AS_ADMINISTRATOR(patch)
    patch.setattr(areas, "_MS_NODEV", 0)
    any_output(patch)


def any_output_of_any_size(patch: pytest.MonkeyPatch) -> None:
    host_settings(Ulimits=[])(patch)
    any_output(patch)


def images_check_their_health(patch: pytest.MonkeyPatch) -> None:
    genuine = Profile.config

    def config(*given: Any) -> dict[str, Any]:
        return {name: value for name, value in genuine(*given).items() if name != "Healthcheck"}

    patch.setattr(Profile, "config", config)
    patch.setattr(sandbox, "differences", lambda *_: [])


def images_have_volumes(patch: pytest.MonkeyPatch) -> None:
    genuine = Profile.host_config

    def host_config(*given: Any) -> dict[str, Any]:
        made = genuine(*given)
        return {**made, "Tmpfs": {"/tmp": made["Tmpfs"]["/tmp"]}}

    patch.setattr(Profile, "host_config", host_config)
    patch.setattr(sandbox, "differences", lambda *_: [])


def variables_of_the_node(patch: pytest.MonkeyPatch) -> None:
    """As where a container is given all that the node's own process has."""
    genuine = Profile.config

    def config(*given: Any) -> dict[str, Any]:
        made = genuine(*given)
        return {**made, "Env": [*made["Env"], "DOCKER_HOST=unix:///run/engine.sock"]}

    patch.setattr(Profile, "config", config)
    patch.setattr(sandbox, "differences", lambda *_: [])


def images_choose_variables(patch: pytest.MonkeyPatch) -> None:
    """The image's own value stands where the node would set its."""
    genuine = Profile.config

    def config(*given: Any) -> dict[str, Any]:
        made = genuine(*given)
        return {**made, "Env": [entry for entry in made["Env"] if not entry.startswith("HOST=")]}

    patch.setattr(Profile, "config", config)
    patch.setattr(sandbox, "differences", lambda *_: [])


def mounts_writable(patch: pytest.MonkeyPatch) -> None:
    """Mounted to be written to, for root: as the run's own number it is nobody's who may."""
    genuine = sandbox._bind
    patch.setattr(sandbox, "_bind", lambda source, target, **_: genuine(source, target))
    AS_ROOT(patch)


def logs_without_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(cells.LIMITS, "log", "64m")


HOST_NETWORK = host_settings(NetworkMode="host", Sysctls={})
HOST_PROCESSES = host_settings(PidMode="host", checked=False)
NO_SYSCALL_LIST = host_settings(SecurityOpt=["no-new-privileges", "seccomp=unconfined"])
NEW_PRIVILEGES = host_settings(SecurityOpt=[f"seccomp={sandbox.seccomp()}"])
AS_ROOT = as_root()
AS_ROOT_WRITING = as_root(ReadonlyRootfs=False)
AS_ADMINISTRATOR = as_root(CapAdd=["SYS_ADMIN"], SecurityOpt=["no-new-privileges", "seccomp=unconfined"])
HOST_MOUNTED = host_settings(Binds=["/:/host:ro"], checked=False)
KERNEL_FILES = as_root(MaskedPaths=[], ReadonlyPaths=[])
NO_PROCESS_LIMIT = host_settings(PidsLimit=None, Ulimits=[])
MORE_MEMORY = larger(memory="2g")
LARGER_OUTPUT = larger(output="256m")
LARGER_TEMPORARY = larger(temporary="128m")
LARGER_SHM = host_settings(ShmSize=256 << 20)

# --- the catalogue ----------------------------------------------------------------------------------------

_UNREACHABLE = r"Network is unreachable|Connection refused|Cannot assign|ENETUNREACH"
_NOT_PERMITTED = r"refused: \[Errno (1|13|22|30|38|95|97)\]|^refused$"
_PRIVILEGED_ONLY = "engines mount them writable in privileged containers only, which not every machine can start"
_NO_SPACE = r"No space left|Disk quota|Cannot allocate"


def _look(name: str, tries: str, refusal: str, weaken: Weaken | None, excuse: str = "") -> Attack:
    return Attack(name, tries, refusal, Inside(name), weaken, excuse)


def _looks(refusal: str, weaken: Weaken, **tries: str) -> list[Attack]:
    return [_look(name.replace("__", "-"), what, refusal, weaken) for name, what in tries.items()]


def _flood(cell: Cell) -> Struck:
    outcome = cell.run(cells.IMAGE, "flood", megabytes=8)
    size = len(outcome.log)
    return Struck(size > 4 << 20, f"a log of {size} bytes, of which 8 MiB were written ({outcome.said[:40]})")


def _no_command(cell: Cell) -> Struck:
    image = cells.build_trick("no-command", "ENTRYPOINT []", "CMD []")
    outcome = cell.run(image, "show_token")
    return Struck(outcome.value is not None, outcome.said)


def _image(name: str, tries: str, lines: tuple[str, ...], trick: str, refusal: str, *, weaken: Weaken) -> Attack:
    return Attack(f"image-{name}", tries, refusal, InImage(name, lines, trick), weaken)


def _working_folder(number: int) -> Attack:
    strike = InImage(f"folder-{number}", (f"WORKDIR /proc/self/fd/{number}",), "working-folder")
    tries = f"start in a folder of the engine's that descriptor {number} may lead to (CVE-2024-21626)"
    return Attack(
        f"image-working-folder-{number}",
        tries,
        r"can't be started|No such file|not started|crashed|start failed",
        strike,
        excuse="it is the engine's own runtime that closes it; an older one can't be had",
    )


def _plant(
    what: str, tries: str, refusal: str, weaken: Weaken | None, excuse: str = "", *, wanted: str | None = None
) -> Attack:
    return Attack(f"planted-{what}", tries, refusal, Plant(what, wanted), weaken, excuse)


_NOT_A_FILE = "something else than"

ATTACKS: list[Attack] = [
    *_looks(
        _UNREACHABLE,
        HOST_NETWORK,
        host__loopback="reach a service on the host's loopback",
        host__address="reach a service at the host's address",
        host__bridge="send to the engine's bridge",
        host__abstract__socket="reach an abstract socket of the host",
        name__server="ask a name server",
        metadata__service="send to a cloud's metadata service",
        link__local="send to a link-local address",
        private__network="send to a private network",
        internet="send to the internet",
        broadcast="send to the neighbours",
    ),
    *_looks(
        "^refused",
        HOST_NETWORK,
        interfaces="find an interface beside lo",
        routes="find a route",
        others__ports="find the gate of another run, or any port beside its own gate",
    ),
    _look("processes", "see and signal processes of others", "^refused", HOST_PROCESSES),
    _look("foreign-result", "read another run's folder", "nothing but its own", one_area_for_all),
    *_looks(
        _NOT_PERMITTED,
        AS_ROOT,
        become__root="become root",
        join__groups="join the host's groups",
        capabilities="have a capability",
        capability__bounds="get a capability back",
        chown="give a file away",
    ),
    *_looks(
        _NOT_PERMITTED,
        AS_ROOT_WRITING,
        write__root="write to the root folder",
        write__usr="write to programs",
        write__etc="write to settings",
        write__resolver="choose a name server",
    ),
    *_looks(
        _NOT_PERMITTED,
        NO_SYSCALL_LIST,
        io_uring_setup="use io_uring",
        keyctl="use the kernel's keyrings",
        bpf="load a program into the kernel",
        perf_event_open="count the processor's events",
        ptrace="trace a process",
        process_vm_readv="read the memory of a process",
        pidfd_getfd="take a file from another process",
        unshare="make a user namespace",
        clone__user="make a user namespace by clone",
        setns="enter a namespace",
        name_to_handle_at="name a file beyond all folders",
        personality="behave as another kind of system",
        mq_open="make a message queue by name",
        vsock="talk to a hypervisor",
        netlink__uevent="hear of the machine's devices",
        netlink__netfilter="talk to the firewall",
    ),
    *_looks(
        _NOT_PERMITTED,
        AS_ADMINISTRATOR,
        raw__socket="send raw packets",
        packet__socket="listen to the wire",
        make__device="make a device file",
        mount="mount a file system",
    ),
    _look("core-pattern", "choose who is given core dumps", _NOT_PERMITTED, KERNEL_FILES),
    _look("cgroup", "make a control group", _NOT_PERMITTED, None, _PRIVILEGED_ONLY),
    _look("fork-bomb", "make processes without end", "temporarily unavailable", NO_PROCESS_LIMIT),
    _look("memory-bomb", "use memory without end", "ended with -9|Cannot allocate|MemoryError", MORE_MEMORY),
    _look("disk-bomb-tmp", "fill a disk by /tmp", _NO_SPACE, LARGER_TEMPORARY),
    _look("disk-bomb-shared", "fill a disk by the job's folder", _NO_SPACE, LARGER_TEMPORARY),
    _look("disk-bomb-own", "fill a disk by its own folder", _NO_SPACE, LARGER_OUTPUT),
    _look("disk-bomb-shm", "fill memory by /dev/shm", _NO_SPACE, LARGER_SHM),
    _look("inode-bomb", "use up a file system's files", _NO_SPACE, more_inodes),
    _look("limit-files", "open 5000 files at once", "Too many open files", host_settings(Ulimits=[])),
    Attack("log-bomb", "write a log without end", "a log of [0-9]{1,6} bytes", _flood, logs_without_bound),
    _look(
        "host-file",
        "find a file of the host by way of /proc",
        "no such file|Errno 13",
        HOST_MOUNTED,
    ),
    _look("write-hosts", "write to the table of hosts", _NOT_PERMITTED, mounts_writable),
    _look("change-database", "change the owner's data", "Errno (13|30)", mounts_writable),
    _look("variables", "find a variable of the node's own", "no such name", variables_of_the_node),
    _image("root", "run as root because its image says so", ("USER root",), "user-root", "^refused", weaken=AS_ROOT),
    _image(
        "setuid",
        "become root by a program of its image",
        ("USER root", "RUN cp /bin/cat /setuid-cat && chmod 4755 /setuid-cat"),
        "setuid-program",
        r"Uid:\s+[1-9]\d*\s+[1-9]",
        weaken=NEW_PRIVILEGES,
    ),
    _image(
        "volume",
        "fill the engine's disk by a volume of its image",
        ("USER root", "RUN mkdir -m 777 /data", "VOLUME /data"),
        "disk-bomb-volume",
        _NO_SPACE,
        weaken=images_have_volumes,
    ),
    _image(
        "health-check",
        "have the engine run a second command",
        ('HEALTHCHECK --interval=1s CMD ["touch", "/mnt/tmp/checked"]',),
        "health-check",
        "nothing came",
        weaken=images_check_their_health,
    ),
    _image(
        "variable",
        "set a variable of the contract",
        ("ENV HOST=http://evil.test",),
        "image-variable",
        "HOST is http://127",
        weaken=images_choose_variables,
    ),
    *(_working_folder(number) for number in (7, 8, 9)),
    Attack(
        "image-no-command",
        "run without a command",
        "can't be started|No command",
        _no_command,
        excuse="there is nothing that could run",
    ),
    _plant("link", "hand on a file of the host by a link", _NOT_A_FILE, any_output),
    _plant("link-to-device", "have the node read without end", _NOT_A_FILE, any_output),
    _plant("link-to-process", "hand on the node's own environment", _NOT_A_FILE, any_output),
    _plant("pipe", "have the node wait for ever", _NOT_A_FILE, any_output),
    _plant("hard-link", "hand on a file that has another name", _NOT_A_FILE, any_output),
    _plant(
        "sparse", "fill the node's memory by a sparse file", "File too large|bytes; this node", any_output_of_any_size
    ),
    _plant("device", "hand on a device", r"Operation not permitted", any_device),
    _plant(
        "swapped",
        "swap file and link while the node looks",
        "something else than|completed",
        any_output,
        wanted="canary",
    ),
    _plant(
        "own-folder", "put a link in the place of its own folder", "File exists|Errno 13", area_for_all, wanted="canary"
    ),
    _plant("folder", "hand on a folder", _NOT_A_FILE, None, "a folder can't be read as a file by anybody"),
]
