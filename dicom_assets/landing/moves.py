"""Moving objects within a source in mode `organize`: the few operations that write there, and where things go.

Belongs here: what a source can be asked to do, and the tree that objects are moved to. Does not belong here: how it is
done in a folder (`folder_moves`) or a container (`container_moves`), what is moved and when (`batch.organize`).

Every operation may be repeated: one that was broken off, or that has been done already, ends in the same state. None
replaces or removes an object that is not what was claimed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from dicom_assets.landing.store import LandingStore, ObjectRef
from dicom_assets.storage.byte_ranges import ByteSource

PIECE = 4 * 2**20
_NAME_MOST = 120
_NAME_BYTES = 200
"""Of the 255 bytes that a file's name may have: a stamp, `.zip`, and what a file is called while it is written come in
addition. Characters of three bytes are usual."""
_UNFIT = re.compile(r"[^\w.()+=@ -]")


@dataclass(frozen=True, slots=True)
class Location:
    """Where an object has come to, and its version there."""

    uri: str
    etag: str
    size: int


class Mover(Protocol):
    """What an organized source can do besides being read. Paths are below its root, `/` between parts.

    Raises SourceUnavailable when the source cannot be written, ObjectError when one object cannot be.
    """

    @property
    def at_once(self) -> int:
        """Operations that are worth doing side by side."""
        ...

    def copy(self, claimed: ObjectRef, path: str) -> Location | None:
        """Puts an object at `path` as well; None when it is not there any more, or not what was claimed."""
        ...

    def write(self, path: str, pieces: Iterable[bytes]) -> Location:
        """Writes an object, whole or not at all."""
        ...

    def remove(self, claimed: ObjectRef) -> None:
        """Deletes an object if it is still what was claimed."""
        ...

    def discard(self, path: str) -> None:
        """Deletes what `write` may have written at a path."""
        ...


@runtime_checkable
class OrganizedStore(Protocol):
    """A landing store whose objects can be moved within it: what mode `organize` needs."""

    def mover(self) -> Mover:
        """What moves them."""
        ...

    def size_of(self, uri: str) -> int:
        """Length in bytes of what lies at an address, such as an archive that was made here. Raises ObjectError."""
        ...


def mover(store: LandingStore) -> Mover:
    """The operations of a source in mode `organize`."""
    return _organized(store).mover()


def size_of(store: LandingStore, uri: str) -> int:
    """Length in bytes of what mode `organize` has put at an address. Raises ObjectError."""
    return _organized(store).size_of(uri)


def _organized(store: LandingStore) -> OrganizedStore:
    if not isinstance(store, OrganizedStore):
        raise AssertionError("a source whose store moves nothing is refused when it is opened")
    return store


def target(outcome: str, kind: str, source: str, stamp: int, name: str) -> str:
    """Path of an organized object: `Process/Imaging/DICOM/{source}/yyyy/mm/dd/{stamp}_{name}`.

    stamp: Unix time in milliseconds, different for each object, since several archives name their objects alike. What
    was quarantined stands below `Failed`, what is neither DICOM nor clinical below `Process/Other`.
    """
    day = datetime.fromtimestamp(stamp / 1000, UTC)
    first = "Failed" if outcome == "quarantined" else "Process"
    what = "Clinical" if kind in ("clinical", "correction") else "Imaging/DICOM"
    if outcome == "ignored":
        what = "Other"
    return f"{first}/{what}/{source}/{day:%Y/%m/%d}/{stamp}_{fit_name(name)}"


def fit_name(path: str) -> str:
    """The last part of a path or a member's name, fit for any storage."""
    last = re.split(r"[/\\!]", path.rstrip("/"))[-1].encode("utf-8", "replace").decode()
    fit = _UNFIT.sub("_", last)[-_NAME_MOST:]
    return fit.encode()[-_NAME_BYTES:].decode(errors="ignore").strip() or "object"


def pieces(source: ByteSource) -> Iterator[bytes]:
    """The bytes of an object from beginning to end."""
    for offset in range(0, source.size, PIECE):
        yield source.read(offset, min(PIECE, source.size - offset))
