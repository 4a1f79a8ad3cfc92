"""The folders that the runs of one job and image share on this node: the contract's /mnt/tmp."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from skerry_node import areas
from skerry_node.launchers.launcher import Image
from skerry_node.users import Users


class JobFolders:
    """One sized area for each (job, image), until the server says that the job is over. Safe for threads."""

    def __init__(self, folder: Path, size: int, users: Users | None) -> None:
        self._folder = folder
        self._size = size
        self._users = users
        self._lock = threading.Lock()
        folder.mkdir(mode=0o711, exist_ok=True)

    def make(self, job: int, image: Image) -> Path:
        """The area of a job and image, which may be there already."""
        path = self._folder / str(job) / hashlib.sha256(image.id.encode()).hexdigest()[:16]
        with self._lock:
            path.parent.mkdir(mode=0o711, exist_ok=True)
            # Setgid: whatever a run makes in here belongs to the job's group.
            areas.make(path, self._size, mode=0o2770 if self._users else 0o700, user=None, group=self.group(job))
        return path

    def group(self, job: int) -> int | None:
        return self._users.group_of(job) if self._users else None

    def held(self) -> list[int]:
        """The jobs that have a folder here."""
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())

    def remove(self, job: int) -> None:
        with self._lock:
            folder = self._folder / str(job)
            for path in folder.iterdir() if folder.is_dir() else ():
                areas.remove(path)
            areas.remove(folder)
