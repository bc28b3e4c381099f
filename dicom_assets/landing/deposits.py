"""Putting objects into a landing source: whole or not at all, under a name that nothing had before.

Belongs here: what a source can do that is stored to, bytes on their way in, and names. Does not belong here: how it is
done in a folder (`folder_deposits`) or a container (`container_deposits`), whether an object is accepted (`serve`).

From its name on, an object is one like any other: it is listed, claimed and accounted for.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from dicom_assets.landing.globs import matcher
from dicom_assets.landing.store import LandingStore, SourceUnavailable
from dicom_assets.settings import SettingsError, SourceSettings

HIDDEN = ".storing"
"""Folder below a root in which bytes lie while they come in, where they need a name; no listing sees it."""

MARK = ".dicom-assets"
"""Beside the partitions of a tree of the DICOM service's form: that it is made here. Accounted for, and ignored."""

MARK_TEXT = b"This tree is written by dicom-assets, in the form that the Azure DICOM service gives it.\n"

DEFAULT_PARTITION_FOLDER = "Microsoft.Default"

_SAMPLE = datetime(2026, 1, 2, tzinfo=UTC)
_PARTITION = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,64}").fullmatch


class Spool:
    """Bytes on their way in, in a file that no listing sees. A ByteSource of what was written so far.

    What is not put anywhere is gone when it is closed, or when the process ends.
    """

    def __init__(self, fd: int, hidden: str | None = None) -> None:
        """fd: an open file, which is taken over. hidden: its path, where it has one."""
        self.fd = fd
        self.hidden = hidden
        self.size = 0
        self._digest = hashlib.blake2b(digest_size=16)

    @property
    def digest(self) -> bytes:
        """BLAKE2b-128 of the bytes."""
        return self._digest.digest()

    def write(self, data: bytes) -> None:
        """Adds bytes. Raises OSError."""
        view = memoryview(data)
        while len(view):
            written = os.write(self.fd, view)
            view = view[written:]
        self._digest.update(data)
        self.size += len(data)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer only at the end."""
        data = b""
        while len(data) < length and (more := os.pread(self.fd, length - len(data), offset + len(data))):
            data += more
        return data

    def close(self) -> None:
        """Ends the writing; what was not put anywhere is gone. Again is harmless."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        try:
            if self.hidden is not None:
                os.unlink(self.hidden)  # noqa: PTH108 - under its lock: nobody else takes it for left behind
        except FileNotFoundError:
            pass
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Deposit:
    """An object that was put. path: below the source's root. at: its time there, as a listing gives it."""

    path: str
    at: datetime


class Depot(Protocol):
    """What a source can do that is stored to. Paths are below its root, `/` between parts.

    Everything raises SourceUnavailable when the source cannot be written or reached, or is full.
    """

    @property
    def tick_seconds(self) -> float:
        """How far apart two objects must be put, so that their times tell which one is newer."""
        ...

    def spool(self) -> Spool:
        """An empty one; the caller closes it."""
        ...

    def put(self, spool: Spool, path: str) -> Deposit | None:
        """Gives the bytes a name, at once and whole; None when something has it already, which stays as it is."""
        ...

    def find(self, path: str) -> Deposit | None:
        """What has a name; None for nothing."""
        ...

    def holds(self, folder: str) -> bool:
        """Whether anything lies below a folder."""
        ...

    def begins(self, path: str) -> bool:
        """Whether anything has a name that begins so; of a folder, as it was a second ago. path: ends with a hyphen."""
        ...


@runtime_checkable
class DepotStore(LandingStore, Protocol):
    """A landing store that objects can be put into."""

    def depot(self, *, synced: bool) -> Depot:
        """What puts them. synced: whether an object is on the disk before it counts as put."""
        ...


@dataclass(frozen=True, slots=True)
class Layout:
    """Where objects are put: by the day, or in a tree of the DICOM service's form.

    tree: `AHDS/{workspace}/dicom/{service}`; None for `YYYY/MM/DD`.
    """

    tree: str | None = None

    def has_partition(self, partition: str | None) -> bool:
        """Whether objects can be put into a data partition, of the name that the service gives it."""
        return partition is None or (self.tree is not None and _PARTITION(partition) is not None)

    def path(self, partition: str | None, identity: bytes, content: bytes, at: datetime, number: int = 0) -> str:
        """The path of an object: the same bytes have the same one, at the same day where it counts.

        identity: digest of its UIDs; content: of its bytes. number: of further objects that have the same of both.
        A name says nothing of an object. In a tree it is `{3 hash characters}_{version}.dcm`, version a number of 63
        bits, as the service writes it.
        """
        if self.tree is None:
            tail = f"-{number}" if number else ""
            return f"{at:%Y/%m/%d}/{identity.hex()[:16]}-{content.hex()}{tail}.dcm"
        both = hashlib.blake2b(b"%b%b%d" % (identity, content, number), digest_size=8).digest()
        version = int.from_bytes(both, "big") >> 1
        return f"{self.tree}/{partition or DEFAULT_PARTITION_FOLDER}/{identity.hex()[:3]}_{version}.dcm"

    def family(self, identity: bytes, at: datetime) -> str | None:
        """What paths of the objects of some UIDs begin with that are put on a day; None where names do not tell."""
        return None if self.tree is not None else f"{at:%Y/%m/%d}/{identity.hex()[:16]}-"


def layout_of(source: SourceSettings) -> Layout:
    """The layout of a source that is stored to. Raises SettingsError when what is put there would not be listed."""
    if source.store == "tree":
        tree = source.tree or f"dicom-assets/{source.name}"
        workspace, _, service = tree.partition("/")
        layout = Layout(f"AHDS/{workspace}/dicom/{service}")
    else:
        layout = Layout()
    if "/AHDS/" in f"{source.root}/":
        raise SettingsError(
            f"Source '{source.name}': store is not for roots within a tree of a DICOM service. Give another root."
        )
    wanted = matcher(source.include, source.exclude)
    if wanted is not None and not wanted(layout.path(None, bytes(16), bytes(16), _SAMPLE)):
        raise SettingsError(
            f"Source '{source.name}': its include and exclude patterns leave out what would be stored there "
            f"({'AHDS/…' if layout.tree else 'YYYY/MM/DD/…'}.dcm). Correct them, or leave store out."
        )
    return layout


def claim_tree(depot: Depot, layout: Layout, refused: Callable[[], Exception]) -> None:
    """Makes sure that the tree of a layout is ours: it bears our mark, or there is nothing of it, and it gets the mark.

    Raises what `refused` makes when it is somebody else's.
    """
    if layout.tree is None or depot.find(f"{layout.tree}/{MARK}") is not None:
        return
    if depot.holds(layout.tree):
        raise refused()
    spool = depot.spool()
    try:
        spool.write(MARK_TEXT)
        depot.put(spool, f"{layout.tree}/{MARK}")
    finally:
        spool.close()


def unavailable(source: str, why: str) -> SourceUnavailable:
    """The source cannot be stored to. why: without a path."""
    return SourceUnavailable(f"Source '{source}' cannot be stored to ({why}).")
