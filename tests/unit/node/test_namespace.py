"""The gate's unix socket: who can connect, and where it may lie."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from skerry_node.launchers.launcher import LauncherError
from skerry_node.namespace import listen_at

pytestmark = pytest.mark.unit


def test_only_its_user_can_connect(tmp_path) -> None:
    path = tmp_path / "gate.sock"
    user = os.geteuid() or 70000
    with listen_at(path, user) as listener, socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        listener.accept()[0].close()
        about = path.stat()
        assert (about.st_uid, stat.S_IMODE(about.st_mode)) == (user, 0o600)


def test_a_path_longer_than_a_socket_s_address(tmp_path) -> None:
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    with listen_at(folder / "gate.sock", None):
        assert stat.S_ISSOCK((folder / "gate.sock").stat().st_mode)


def test_what_is_there_is_replaced(tmp_path) -> None:
    """Also a link, which is not followed."""
    path, other = tmp_path / "gate.sock", tmp_path / "other"
    other.write_text("untouched")
    path.symlink_to(other)
    listen_at(path, None).close()
    listen_at(path, None).close()
    assert other.read_text() == "untouched"


def test_no_folder(tmp_path) -> None:
    with pytest.raises(LauncherError, match="unix socket"):
        listen_at(tmp_path / "gone" / "gate.sock", None)
