"""Giving up root: for good, before anything is read that someone else wrote.

The process starts as root where the node is root, and not by ``Popen(user=...)``, so that skerry may be installed where
the other user can't read it (below ``/root``, say). So whatever Python loads late must be loaded here.
"""

from __future__ import annotations

import ctypes
import encodings.idna  # noqa: F401 - loaded by the first look-up of a host's name
import os

_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS, linux/prctl.h


def drop_privileges(user: int | None, group: int | None) -> None:
    """Becomes that user and group, with no other group; None, None changes neither. Raises OSError."""
    if user is not None and group is not None:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS) failed")
