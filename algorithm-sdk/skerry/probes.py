"""What can be done from inside a container, tried for real: a table of probes, and the command that tries them all.

The image ``skerry/probe`` is nothing but ``python -m skerry.probes``. A node runs it before it takes runs (preflight),
and compares the answers with the table. Every probe is harmless even where it succeeds: files are opened and not
written, and calls are made with arguments that change nothing whoever makes them. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from skerry.contract import DATA_FOLDER, GATE_PORT, OUTPUT_FILE, decode

TIMEOUT = 10
_TMP = "/tmp"  # noqa: S108 - the container's own
_BUFFER = 4096

_REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})
"""All other errors of a system call mean that the kernel looked at its arguments."""

_NUMBERS: Mapping[str, Mapping[str, int]] = {
    "x86_64": {
        "modify_ldt": 154, "iopl": 172, "init_module": 175, "io_setup": 206, "remap_file_pages": 216, "mq_open": 240,
        "kexec_load": 246, "add_key": 248, "keyctl": 250, "migrate_pages": 256, "clock_settime": 227, "swapon": 167,
        "reboot": 169, "acct": 163, "mount": 165, "umount2": 166, "pivot_root": 155, "unshare": 272, "setns": 308,
        "syslog": 103, "ptrace": 101, "personality": 135, "msgget": 68, "perf_event_open": 298, "fanotify_init": 300,
        "name_to_handle_at": 303, "open_by_handle_at": 304, "process_vm_readv": 310, "process_vm_writev": 311,
        "kcmp": 312, "finit_module": 313, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425, "open_tree": 428,
        "fsopen": 430, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "memfd_secret": 447,
        "clone": 56, "clone3": 435,
    },
    "aarch64": {
        "init_module": 105, "io_setup": 0, "remap_file_pages": 234, "mq_open": 180, "kexec_load": 104, "add_key": 217,
        "keyctl": 219, "migrate_pages": 238, "clock_settime": 112, "swapon": 224, "reboot": 142, "acct": 89,
        "mount": 40, "umount2": 39, "pivot_root": 41, "unshare": 97, "setns": 268, "syslog": 116, "ptrace": 117,
        "personality": 92, "msgget": 186, "perf_event_open": 241, "fanotify_init": 262, "name_to_handle_at": 264,
        "open_by_handle_at": 265, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273,
        "bpf": 280, "userfaultfd": 282, "io_uring_setup": 425, "open_tree": 428, "fsopen": 430, "pidfd_getfd": 438,
        "process_madvise": 440, "mount_setattr": 442, "memfd_secret": 447, "clone": 220, "clone3": 435,
    },
}  # fmt: skip
"""The kernel's tables (asm/unistd_64.h, asm-generic/unistd.h). A call that a processor lacks is refused there."""

_CLONE_NEWUSER, _CLONE_NEWNS, _SIGCHLD = 0x10000000, 0x00020000, 17
_PER_LINUX32 = 8
_PTRACE_TRACEME = 0
_PR_GET_NO_NEW_PRIVS = 39
_UNBOUNDED = 1 << 60


class Answer(StrEnum):
    """``BROKEN``: the probe itself failed or hung, which says nothing of the sandbox."""

    POSSIBLE = "possible"
    REFUSED = "refused"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Probe:
    """``tries`` gives something true, or None, where the thing can be done; it gives false or raises OSError where not.

    ``expected`` is the answer in the restricted profile.
    """

    name: str
    group: str
    what: str
    tries: Callable[[], object]
    expected: Answer = Answer.REFUSED


# --- how it is tried --------------------------------------------------------------------------------------------


def _call(name: str, *arguments: int | bytes | None) -> bool:
    """Whether the kernel considers the system call at all."""
    number = _NUMBERS.get(platform.machine(), {}).get(name)
    if number is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return libc.syscall(ctypes.c_long(number), *words) >= 0 or ctypes.get_errno() not in _REFUSALS


def _clone_user_namespace() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    number = _NUMBERS[platform.machine()]["clone"]
    child = libc.syscall(number, _CLONE_NEWUSER | _SIGCHLD, None, None, None, None)
    if child == 0:
        os._exit(0)
    return bool(child > 0)


def _clone3() -> bool:
    """Its structure (clone3(2)) asks for a user namespace."""
    asked = (ctypes.c_uint64 * 8)(_CLONE_NEWUSER, 0, 0, 0, _SIGCHLD, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    child = libc.syscall(_NUMBERS[platform.machine()]["clone3"], ctypes.byref(asked), ctypes.sizeof(asked))
    if child == 0:
        os._exit(0)
    return bool(child > 0)


def _open(path: str, flags: int = os.O_RDONLY) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))


def _reads(path: str) -> bool:
    """Whether anything stands in it: the engine puts an empty file over what it masks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return bool(os.read(descriptor, 16))
    finally:
        os.close(descriptor)


def _lists(path: str) -> bool:
    return any(Path(path).iterdir())


def _makes(path: str) -> None:
    """A new file, which is removed."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    Path(path).unlink()


def _root_is_writable() -> bool:
    """By the options of the last mount there (proc_pid_mounts: device, point, kind, options)."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return "ro" not in [mount[3] for mount in mounts if mount[1] == "/"][-1].split(",")


def _makes_folder(path: str) -> None:
    Path(path).mkdir()
    Path(path).rmdir()


def _executes_from(folder: str) -> bool:
    """Whether a program that was copied there starts."""
    program = Path(folder) / "probe-program"
    try:
        shutil.copy("/bin/true", program)
        return subprocess.run([str(program)], check=False).returncode == 0
    finally:
        program.unlink(missing_ok=True)


def _data_folder() -> str:
    return str(Path(decode(os.environ[OUTPUT_FILE])).parent) if OUTPUT_FILE in os.environ else DATA_FOLDER


def _makes_device() -> None:
    path = f"{_TMP}/probe-device"
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 1))
    Path(path).unlink()


def _gives_away() -> None:
    path = f"{_TMP}/probe-owned"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        os.chown(path, 4242, 4242)
    finally:
        Path(path).unlink()


def _block_devices() -> bool:
    return any(path.is_block_device() for path in Path("/dev").iterdir())


def _status(field: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((line.split()[1] for line in lines if line.startswith(f"{field}:")), "0")


def _gains_privileges() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0)


def _foreign_processes() -> bool:
    """Beside this one, its parent and the container's init."""
    return len([path for path in Path("/proc").iterdir() if path.name.isdigit()]) > 4  # noqa: PLR2004


def _socket(family: int, kind: int, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def _any_other_family() -> bool:
    """Unix, IP and routing netlink are what programs need (socket(2) has numbers up to 45)."""
    for family in {*range(1, 46)} - {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            with contextlib.suppress(OSError):
                _socket(family, kind)
                return True
    return False


def _connects(address: str, port: int) -> bool:
    """Refused by a peer is reached as well."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except ConnectionRefusedError:
        return not address.startswith("127.")
    return True


def _sends(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"probe", (address, 53))


def _listeners() -> set[int]:
    """Ports that somebody listens on in this network namespace (proc_net_tcp: state 0A)."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}


def _writes(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def _cgroup() -> str:
    """The folder of a controller; version 2 has but one."""
    return "/sys/fs/cgroup/memory" if Path("/sys/fs/cgroup/memory").is_dir() else "/sys/fs/cgroup"


def _talks_to_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def _waits_for_several() -> None:
    """By select and poll, which libraries of all ages use, with a time as the system calls take it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        select.select([ours], [], [], 0.001)
        select.poll().poll(1)


def _makes_pipe() -> None:
    path = f"{_TMP}/probe-pipe"
    os.mkfifo(path)
    Path(path).unlink()


def _starts_threads() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def _unbounded(limit: int) -> bool:
    return resource.getrlimit(limit)[1] == resource.RLIM_INFINITY


def _bounded_to_none(limit: int) -> bool:
    return resource.getrlimit(limit)[1] != 0


def _memory_unbounded() -> bool:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(FileNotFoundError):
            text = Path(path).read_text().strip()
            return text == "max" or int(text) > _UNBOUNDED
    return True


def _opens_files(count: int) -> bool:
    opened = []
    try:
        opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return True


def _resolves(name: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(socket.getaddrinfo(name, 80))
    return False


def _traces() -> bool:
    return _call("ptrace", _PTRACE_TRACEME, 0, 0, 0)


def _maps_program() -> None:
    """Compilers at run time (numba, R's and Java's) need memory of this kind, as a matter of course."""
    mmap.mmap(-1, _BUFFER, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def _runs_program() -> bool:
    return subprocess.run([sys.executable, "-S", "-c", ""], check=False).returncode == 0


# --- what is tried ----------------------------------------------------------------------------------------------


def _calls() -> tuple[Probe, ...]:
    """System calls; the arguments of each change nothing where it is let through."""
    tried: tuple[tuple[str, str, tuple[int | bytes | None, ...]], ...] = (
        ("io_uring_setup", "asynchronous I/O by io_uring", (1, None)),
        ("io_setup", "asynchronous I/O by the older interface", (0, None)),
        ("userfaultfd", "handle page faults in user space", (1 << 20,)),
        ("keyctl", "use the kernel's keyrings", (0, -3, 0)),
        ("add_key", "put a key into the kernel's keyrings", (None, None, None, 0, 0)),
        ("bpf", "load a program into the kernel", (0, None, 0)),
        ("perf_event_open", "count the processor's events", (None, 0, -1, -1, 0)),
        ("ptrace", "trace a process", (_PTRACE_TRACEME, 0, 0, 0)),
        ("process_vm_readv", "read the memory of a process", (0, None, 0, None, 0, 0)),
        ("process_vm_writev", "write the memory of a process", (0, None, 0, None, 0, 0)),
        ("process_madvise", "advise on the memory of another process", (-1, None, 0, 0, 0)),
        ("pidfd_getfd", "take a file from another process", (-1, -1, 0)),
        ("kcmp", "compare what two processes share", (1, 1, 99, 0, 0)),
        ("mount", "mount a file system", (b"none", b"/", b"no-such-kind", 0, None)),
        ("umount2", "unmount one", (b"/nowhere", 0)),
        ("pivot_root", "change the root", (b"/nowhere", b"/nowhere")),
        ("open_tree", "copy a mount", (-1, b"", 0)),
        ("fsopen", "open a file system to mount it", (b"tmpfs", 0)),
        ("mount_setattr", "change a mount", (-1, b"", 0, None, 0)),
        ("unshare", "make a user namespace", (_CLONE_NEWUSER,)),
        ("setns", "enter a namespace", (-1, _CLONE_NEWNS)),
        ("kexec_load", "load another kernel", (0, 1 << 20, None, 0)),
        ("init_module", "load a module", (None, 0, None)),
        ("finit_module", "load a module from a file", (-1, None, 0)),
        ("reboot", "restart the machine", (0, 0, 0, None)),
        ("swapon", "add swap", (b"/nowhere", 0)),
        ("acct", "write accounts of processes", (b"/nowhere",)),
        ("clock_settime", "set a clock", (99, None)),
        ("syslog", "read the kernel's log", (3, None, 0)),
        ("iopl", "use the machine's ports", (3,)),
        ("modify_ldt", "change the processor's segments", (0, None, 0)),
        ("personality", "behave as another kind of system", (_PER_LINUX32,)),
        ("name_to_handle_at", "name a file beyond all folders", (-1, b"x", None, None, 0)),
        ("open_by_handle_at", "open a file beyond all folders", (-1, None, 0)),
        ("fanotify_init", "watch whole file systems", (0, 0)),
        ("msgget", "make a message queue, a favourite of those who groom the kernel's memory", (4242, 0)),
        ("mq_open", "make a message queue by name", (b"no-such-queue", os.O_RDWR, 0, None)),
        ("remap_file_pages", "map pages of a file out of order", (0, 0, 0, 0, 0)),
        ("migrate_pages", "move another process's memory", (0, 0, None, None)),
        ("memfd_secret", "hide memory from the kernel", (0,)),
    )
    return tuple(Probe(name, "system call", what, partial(_call, name, *arguments)) for name, what, arguments in tried)


_POSSIBLE = Answer.POSSIBLE
_IP, _STREAM, _DATAGRAM, _RAW = socket.AF_INET, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW

PROBES: tuple[Probe, ...] = (
    Probe("user-root", "user", "be root", lambda: os.geteuid() == 0),
    Probe("group-root", "user", "be of root's group", lambda: 0 in {os.getegid(), *os.getgroups()}),
    Probe("become-root", "user", "become root", lambda: os.setuid(0)),
    Probe("join-groups", "user", "join other groups", lambda: os.setgroups([4242])),
    Probe("new-privileges", "user", "gain rights by a setuid program", _gains_privileges),
    Probe("capabilities", "capability", "have a capability", lambda: int(_status("CapEff"), 16)),
    Probe("capability-bounds", "capability", "get a capability back", lambda: int(_status("CapBnd"), 16)),
    Probe("chown", "capability", "give a file away", _gives_away),
    Probe("chroot", "capability", "change its root folder", lambda: os.chroot("/")),
    Probe("make-device", "capability", "make a device file", _makes_device),
    Probe("raw-socket", "capability", "send raw packets", lambda: _socket(_IP, _RAW, socket.IPPROTO_ICMP)),
    Probe("packet-socket", "capability", "listen to the wire", lambda: _socket(socket.AF_PACKET, _RAW)),
    Probe("priority", "capability", "go before others", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)),
    Probe(
        "oom-protection",
        "capability",
        "be spared when memory ends",
        lambda: _writes("/proc/self/oom_score_adj", b"-999"),
    ),
    Probe("dev-mem", "device", "open the machine's memory", lambda: _open("/dev/mem")),
    Probe("dev-kmsg", "device", "open the kernel's log", lambda: _open("/dev/kmsg")),
    Probe("dev-kvm", "device", "open KVM", lambda: _open("/dev/kvm", os.O_RDWR)),
    Probe("dev-fuse", "device", "open FUSE", lambda: _open("/dev/fuse", os.O_RDWR)),
    Probe("dev-tun", "device", "open a tunnel", lambda: _open("/dev/net/tun", os.O_RDWR)),
    Probe("dev-disk", "device", "see a disk", _block_devices),
    Probe("kcore", "kernel file", "read the kernel's memory", lambda: _reads("/proc/kcore")),
    Probe("keys", "kernel file", "read the list of keys", lambda: _reads("/proc/keys")),
    Probe("timers", "kernel file", "read the machine's timers", lambda: _reads("/proc/timer_list")),
    Probe("firmware", "kernel file", "look at the firmware", lambda: _lists("/sys/firmware")),
    Probe("debugfs", "kernel file", "look at the kernel's debug files", lambda: _lists("/sys/kernel/debug")),
    Probe("sysrq", "kernel file", "press the magic key", lambda: _open("/proc/sysrq-trigger", os.O_WRONLY)),
    Probe(
        "core-pattern",
        "kernel file",
        "choose who is given core dumps",
        lambda: _open("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    ),
    Probe(
        "modprobe", "kernel file", "choose who loads modules", lambda: _open("/proc/sys/kernel/modprobe", os.O_WRONLY)
    ),
    Probe(
        "sys-net",
        "kernel file",
        "change the network's settings",
        lambda: _open("/proc/sys/net/ipv4/ip_forward", os.O_WRONLY),
    ),
    Probe(
        "uevent", "kernel file", "choose who hears of devices", lambda: _open("/sys/kernel/uevent_helper", os.O_WRONLY)
    ),
    Probe("cgroup", "kernel file", "make a control group", lambda: _makes_folder(f"{_cgroup()}/probe")),
    Probe("processes", "kernel file", "see processes of others", _foreign_processes),
    *_calls(),
    Probe("clone-user", "system call", "make a user namespace with clone", _clone_user_namespace),
    Probe("clone3-user", "system call", "make a user namespace with clone3", _clone3),
    Probe("vsock", "socket", "talk to a hypervisor (AF_VSOCK)", lambda: _socket(socket.AF_VSOCK, _STREAM)),
    Probe(
        "alg", "socket", "use the kernel's cryptography (AF_ALG)", lambda: _socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
    ),
    Probe(
        "netlink-uevent", "socket", "hear of the machine's devices", lambda: _socket(socket.AF_NETLINK, _DATAGRAM, 15)
    ),
    Probe("netlink-netfilter", "socket", "talk to the firewall", lambda: _socket(socket.AF_NETLINK, _DATAGRAM, 12)),
    Probe("netlink-audit", "socket", "talk to the kernel's audit", lambda: _socket(socket.AF_NETLINK, _DATAGRAM, 9)),
    Probe("other-families", "socket", "open a socket of any other family", _any_other_family),
    Probe("mptcp", "socket", "use multipath TCP", lambda: _socket(_IP, _STREAM, 262)),
    Probe("sctp", "socket", "use SCTP", lambda: _socket(_IP, _STREAM, 132)),
    Probe("ping", "socket", "send pings", lambda: _socket(_IP, _DATAGRAM, socket.IPPROTO_ICMP)),
    Probe(
        "interfaces",
        "network",
        "have an interface beside lo",
        lambda: {name for _, name in socket.if_nameindex()} - {"lo"},
    ),
    Probe("routes", "network", "have a route", lambda: len(Path("/proc/net/route").read_text().splitlines()) > 1),
    Probe("names", "network", "resolve a name", lambda: _resolves("example.org")),
    Probe("metadata", "network", "reach a cloud's metadata", lambda: _connects("169.254.169.254", 80)),
    Probe("bridge", "network", "reach the engine's bridge", lambda: _connects("172.17.0.1", 80)),
    Probe("internet", "network", "send to the internet", lambda: _sends("192.0.2.1")),
    Probe("internet6", "network", "send to the internet (IPv6)", lambda: _sends("2001:db8::1")),
    Probe("broadcast", "network", "send to the neighbours", lambda: _sends("224.0.0.1")),
    Probe("others-ports", "network", "find a port that isn't its gate's", lambda: _listeners() - {GATE_PORT}),
    Probe("engine-socket", "mount", "find the engine's socket", lambda: Path("/var/run/docker.sock").exists()),
    Probe("writable-root", "mount", "have a root that can be written at all", _root_is_writable),
    Probe("write-root", "mount", "write to the root folder", lambda: _makes("/probe")),
    Probe("write-usr", "mount", "write to programs", lambda: _makes("/usr/probe")),
    Probe("write-etc", "mount", "write to settings", lambda: _makes("/etc/probe")),
    Probe("write-hosts", "mount", "write to the table of hosts", lambda: _open("/etc/hosts", os.O_WRONLY)),
    Probe("write-resolver", "mount", "choose a name server", lambda: _open("/etc/resolv.conf", os.O_WRONLY)),
    Probe("execute-tmp", "mount", "start a program from /tmp", lambda: _executes_from(_TMP)),
    Probe("execute-data", "mount", "start a program from its own folder", lambda: _executes_from(_data_folder())),
    Probe("execute-shm", "mount", "start a program from shared memory", lambda: _executes_from("/dev/shm")),  # noqa: S108
    Probe("tmp-unbounded", "limit", "fill the engine's disk by /tmp", lambda: not os.path.ismount(_TMP)),
    Probe(
        "others-folders", "mount", "see the folders of other runs", lambda: len(list(Path(DATA_FOLDER).iterdir())) > 1
    ),
    Probe("limit-processes", "limit", "make processes without bound", lambda: _unbounded(resource.RLIMIT_NPROC)),
    Probe("limit-file", "limit", "write a file without bound", lambda: _unbounded(resource.RLIMIT_FSIZE)),
    Probe("limit-core", "limit", "leave a core dump", lambda: _bounded_to_none(resource.RLIMIT_CORE)),
    Probe("limit-files", "limit", "open 5000 files at once", lambda: _opens_files(5000)),
    Probe("limit-memory", "limit", "use memory without bound", _memory_unbounded),
    Probe("use-tmp", "needed", "write to /tmp", lambda: _makes(f"{_TMP}/probe"), _POSSIBLE),
    Probe("use-pipes", "needed", "make a named pipe", _makes_pipe, _POSSIBLE),
    Probe("use-own-folder", "needed", "write to its own folder", lambda: _makes(f"{_data_folder()}/probe"), _POSSIBLE),
    Probe("use-threads", "needed", "start a thread", _starts_threads, _POSSIBLE),
    Probe("use-programs", "needed", "start a program", _runs_program, _POSSIBLE),
    Probe("use-compilers", "needed", "map memory as a program", _maps_program, _POSSIBLE),
    Probe("use-random", "needed", "get random numbers", lambda: os.urandom(8), _POSSIBLE),
    Probe("use-loopback", "needed", "talk to itself", _talks_to_itself, _POSSIBLE),
    Probe("use-select", "needed", "wait for several files at once", _waits_for_several, _POSSIBLE),
    Probe("use-gate", "needed", "reach its gate", lambda: _connects("127.0.0.1", GATE_PORT), _POSSIBLE),
)


# --- running them -----------------------------------------------------------------------------------------------


def try_all(probes: tuple[Probe, ...] = PROBES) -> dict[str, str]:
    """The answer of each probe by its name."""
    return {probe.name: str(_try(probe)) for probe in probes}


def _try(probe: Probe) -> Answer:
    """In a process of its own, since some change what they run in; ended by a filter or by force is refused too."""
    child = os.fork()
    if child == 0:
        os._exit(_answer(probe))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status in {-signal.SIGSYS, -signal.SIGSEGV}:
        return Answer.REFUSED
    return list(Answer)[status] if 0 <= status < len(Answer) else Answer.BROKEN


def _answer(probe: Probe) -> int:
    """The place of the answer in ``Answer``, as the exit code of the probe's process."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(TIMEOUT)
    try:
        answer = probe.tries()
        possible = answer is None or bool(answer)
    except OSError:
        possible = False
    except Exception:  # noqa: BLE001 - whatever it is, it is no answer
        return list(Answer).index(Answer.BROKEN)
    return list(Answer).index(Answer.POSSIBLE if possible else Answer.REFUSED)


def main() -> int:
    """Writes the answers as JSON where the contract says, or prints them. Refuses to run outside a container."""
    if not Path("/.dockerenv").exists():
        sys.stderr.write("The probes are for the inside of a container: skerry node check runs them.\n")
        return 2
    text = json.dumps(try_all())
    if OUTPUT_FILE in os.environ:
        Path(decode(os.environ[OUTPUT_FILE])).write_text(text)
    else:
        sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
