"""The processes of one server: which of them this is, and how it wakes the others."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of one process; ``bells``: an event descriptor for each of them, made before they are forked."""

    number: int = 0
    bells: Sequence[int] = ()

    @classmethod
    def row(cls, count: int) -> list[Seat]:
        """For so many processes. Raises OSError."""
        bells = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(count)]
        return [cls(number, bells) for number in range(count)]

    @property
    def is_alone(self) -> bool:
        return len(self.bells) <= 1

    def wake_others(self) -> None:
        for number, bell in enumerate(self.bells):
            if number != self.number:
                os.eventfd_write(bell, 1)

    def wake(self) -> None:
        """This one itself, by another thread."""
        os.eventfd_write(self.bells[self.number], 1)

    def sleep(self, seconds: float) -> None:
        """Until somebody wakes this process, or has since the last time; at most so long."""
        own = self.bells[self.number]
        poll = select.poll()  # select takes no descriptor from 1024 on
        poll.register(own, select.POLLIN)
        if poll.poll(1000 * seconds):
            os.eventfd_read(own)
