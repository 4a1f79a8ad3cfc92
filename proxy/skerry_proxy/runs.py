"""A run as its gate knows it: frozen when its input was opened, and handed to the node to keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skerry.crypto import Proof
from skerry.wire import Format, b64, unb64
from skerry_proxy.fields import Fields


@dataclass(frozen=True, slots=True)
class Run:
    """``asker`` is the organization that gets the result, ``asker_key`` its encryption key (empty under ``plain``).

    ``lineage`` are the proofs of the inputs that led here, this run's own last: the chain of its children.
    ``secret`` signs the gate token, and ``opened`` (Unix seconds) stands in it: so it is the same after a restart.
    """

    id: int
    attempt: int
    organization: int
    node: int
    task: int
    uuid: str
    collaboration: int
    study: int | None
    store: int | None
    image: str
    databases: tuple[dict[str, Any], ...]
    format: Format
    asker: int
    asker_key: bytes
    lineage: tuple[Proof, ...]
    secret: bytes
    opened: int

    @property
    def key(self) -> tuple[int, int]:
        return self.id, self.attempt

    def dump(self) -> dict[str, Any]:
        """The ``resume`` of the control protocol."""
        return {
            "v": 1,
            "run": self.id,
            "attempt": self.attempt,
            "organization": self.organization,
            "node": self.node,
            "task": self.task,
            "uuid": self.uuid,
            "collaboration": self.collaboration,
            "study": self.study,
            "store": self.store,
            "image": self.image,
            "databases": list(self.databases),
            "format": self.format.value,
            "asker": self.asker,
            "asker_key": b64(self.asker_key),
            "lineage": [proof.as_dict() for proof in self.lineage],
            "secret": b64(self.secret),
            "opened": self.opened,
        }

    @classmethod
    def parse(cls, value: Any) -> Run:
        """The inverse of ``dump``; raises ValueError."""
        fields = Fields(value, "The resume")
        if fields.any("v") != 1:
            raise ValueError("The resume was made by a version of skerry that this one does not know.")
        return cls(
            id=fields.identifier("run"),
            attempt=fields.identifier("attempt"),
            organization=fields.identifier("organization"),
            node=fields.identifier("node"),
            task=fields.identifier("task"),
            uuid=fields.text("uuid", 64),
            collaboration=fields.identifier("collaboration"),
            study=fields.optional_identifier("study"),
            store=fields.optional_identifier("store"),
            image=fields.text("image"),
            databases=tuple(fields.objects("databases")),
            format=Format(fields.choice("format", tuple(Format))),
            asker=fields.identifier("asker"),
            asker_key=unb64(fields.text("asker_key", 65536)),
            lineage=tuple(Proof.parse(link) for link in fields.objects("lineage")),
            secret=unb64(fields.text("secret")),
            opened=fields.identifier("opened"),
        )
