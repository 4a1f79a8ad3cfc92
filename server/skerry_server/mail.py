"""Letters: handed to a mail server by one thread in the background, so that no request waits for them."""

from __future__ import annotations

import logging
import smtplib
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import EmailMessage

from skerry_server.settings import Mail

_LOG = logging.getLogger(__name__)
_SECONDS = 30
_WAITING = 1000


@dataclass(frozen=True, slots=True)
class Letter:
    to: str
    subject: str
    text: str


class Mailer:
    """Does jobs one after the other, each of which may end in a letter. Nothing of them shows in a request's time."""

    def __init__(self, settings: Mail | None) -> None:
        self._settings = settings
        self._pool = ThreadPoolExecutor(1, "mail")
        self._room = threading.BoundedSemaphore(_WAITING)

    @property
    def configured(self) -> bool:
        return self._settings is not None

    def later(self, write: Callable[[], Letter | None]) -> None:
        """Calls ``write`` in the background and sends what it gives. With too many waiting, it is dropped."""
        if not self._room.acquire(blocking=False):
            _LOG.error("too many letters are waiting: one was dropped")
            return
        self._pool.submit(self._work, write)

    def settle(self) -> None:
        """Returns once all that was asked for so far is done."""
        self._pool.submit(int).result()

    def close(self) -> None:
        self._pool.shutdown()

    def _work(self, write: Callable[[], Letter | None]) -> None:
        try:
            letter = write()
            if letter is not None and self._settings is not None:
                _send(letter, self._settings)
        except Exception:  # noqa: BLE001 - a loop top
            _LOG.exception("a letter could not be sent")
        finally:
            self._room.release()


def _send(letter: Letter, settings: Mail) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.sender, letter.to, letter.subject
    message.set_content(letter.text)
    with _connect(settings) as connection:
        if settings.username is not None:
            connection.login(settings.username, settings.password or "")
        connection.send_message(message)


def _connect(settings: Mail) -> smtplib.SMTP:
    if settings.security == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(settings.host, settings.port, timeout=_SECONDS, context=context)
    connection = smtplib.SMTP(settings.host, settings.port, timeout=_SECONDS)
    if settings.security == "starttls":
        connection.starttls(context=ssl.create_default_context())
    return connection
