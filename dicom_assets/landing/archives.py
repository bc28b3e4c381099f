"""Archives and the archives in them, opened up into members.

Belongs here: ARCHIVES, the kinds that are opened up; which members an archive has, how each is called, which of them
are fit to be read, and opening them again one after the other. Does not belong here: how one kind stores its members
(`zip_archive`), what a member is (`sniff`). Nothing is ever written under a member's name.

A new kind is a class with the methods of `Archive`, and its line in ARCHIVES; that it lists what is there is recounted
by a reader of its own (`batch.checks.archive_checks.RECOUNTS`).

Names. A member of a nested archive is called `outer.zip!inner.dcm`. The second member of the same name gets `#2`, and
so on, in the directory's order; a member without a name is called `#1`. So each name stands once in an archive.

Folders are no members, whether their attributes or a slash of either kind at the end of their name says so. What has
content all the same is one.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from dicom_assets.landing.inflate import Budget
from dicom_assets.landing.recognition import look_closer
from dicom_assets.landing.sniff import Sniffed, is_system_file, kind_of
from dicom_assets.landing.store import ObjectError, OpenObject
from dicom_assets.landing.zip_archive import ZipArchive
from dicom_assets.landing.zipend import ArchiveError
from dicom_assets.schema.codes import Kind
from dicom_assets.settings import ArchiveLimits, ClinicalSettings
from dicom_assets.storage.byte_ranges import ByteSource
from dicom_assets.storage.window import WINDOW_BYTES

__all__ = ["ARCHIVES", "Archive", "ArchiveError", "Member", "kind_at", "members", "open_members", "recognise"]

HEAD_BYTES = 4_096
"""What is inflated of a member to tell what it is."""

_LISTING_WINDOW = 32 * 1024
_USUAL = ClinicalSettings()
_DRIVE = re.compile(r"[A-Za-z]:")


class ArchiveEntry(Protocol):
    """What an archive says of one member.

    at: its place, by which it is found again. is_directory: whether it stands for a folder. unix_mode: its type and
    permissions; 0 where the archive tells none.
    """

    @property
    def at(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def modified_at(self) -> datetime | None: ...

    @property
    def unix_mode(self) -> int: ...

    @property
    def is_directory(self) -> bool: ...

    @property
    def is_encrypted(self) -> bool: ...


class OpenMember(OpenObject, Protocol):
    """A member that is open. `read` and `verify` raise ArchiveError when its bytes are not what was declared."""

    def spool(self) -> None:
        """Makes reads back and forth cheap, as an archive in an archive needs them. ArchiveError beyond the limits."""
        ...


class OpenArchive(Protocol):
    """An archive that is open."""

    def __iter__(self) -> Iterator[ArchiveEntry]:
        """Its entries in its order, folders too."""
        ...

    def count(self, most: int) -> int:
        """How many entries there are. ArchiveError: ARCHIVE_LIMIT beyond `most`, ARCHIVE_UNREADABLE."""
        ...

    def entry(self, at: int) -> ArchiveEntry:
        """The entry at a place. ArchiveError."""
        ...

    def package(self) -> Sniffed | None:
        """What it is, when it is one document that only looks like an archive. ArchiveError."""
        ...

    def member(self, entry: Any, limits: ArchiveLimits, budget: Budget) -> OpenMember:
        """The bytes of one of its entries. ArchiveError when they cannot be read."""
        ...


class Archive(Protocol):
    """One kind of archive."""

    def begins(self, head: bytes) -> bool:
        """Whether an object with these first bytes is one from its beginning on."""
        ...

    def recognise(self, found: Sniffed, source: ByteSource, head: bytes, *, is_member: bool) -> Sniffed | None:
        """What an object is that is one: of Kind.ARCHIVE, without a code; None otherwise.

        found: what its first bytes, `head`, tell. is_member: whether reading its end is dear.
        """
        ...

    def open(self, source: ByteSource, block: int = WINDOW_BYTES) -> OpenArchive:
        """The archive; block: bytes that are read at once. ArchiveError; storage errors as they come."""
        ...


ARCHIVES: list[Archive] = [ZipArchive()]
"""The kinds that are opened up. The last one is what an archive is that does not say so by its first bytes."""


def recognise(
    found: Sniffed, source: ByteSource, head: bytes, *, is_member: bool = False
) -> tuple[Sniffed, Archive | None]:
    """What an object is, and which kind of archive, if it is one; see `Archive.recognise`. Raises storage errors."""
    for kind in ARCHIVES:
        archive = kind.recognise(found, source, head, is_member=is_member)
        if archive is not None:
            return archive, kind
    return found, None


def kind_at(source: ByteSource) -> Archive:
    """The kind of an object that is known to be an archive."""
    if len(ARCHIVES) == 1:
        return ARCHIVES[0]
    head = source.read(0, HEAD_BYTES)
    return next((kind for kind in ARCHIVES if kind.begins(head)), ARCHIVES[-1])


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive.

    name: distinct within the outermost archive. entry: where its directory records stand, from the outermost archive
    inward; `open_members` takes it. size: bytes as declared. code, detail: its reason code where that is settled
    without reading it, and why; ARCHIVE_EXPANDED for a nested archive whose members follow.
    """

    name: str
    entry: tuple[int, ...]
    size: int
    modified_at: datetime | None
    kind: Kind
    code: str | None = None
    detail: str | None = None

    @property
    def is_archive(self) -> bool:
        """Whether it is a nested archive, opened or not."""
        return self.kind is Kind.ARCHIVE


def members(
    source: ByteSource,
    limits: ArchiveLimits,
    clinical: ClinicalSettings = _USUAL,
    path: str = "",
    corrections: Sequence[str] = (),
) -> Iterator[Member]:
    """Every member of an archive and of those nested in it, in the directories' order; none is left out.

    A nested archive is a member itself, followed by its members when it can be opened and lies within `max_depth`
    (1: members of the archive itself only). Only the first bytes of a member are inflated, nested archives whole, into
    an anonymous temporary file. clinical, path: settings and the archive's own path, by which clinical files are told.
    corrections: patterns of the files that tables of corrections are believed in.

    Raises ArchiveError before the first member when the archive as a whole cannot be read (ARCHIVE_UNREADABLE) or has
    too many members (ARCHIVE_LIMIT); storage errors as they come.
    """
    walk = _Walk(limits, clinical, path, corrections)
    yield from walk.members(walk.opened(kind_at(source), source), "", (), 1)


def entries_by_name(source: ByteSource, limits: ArchiveLimits) -> dict[str, tuple[int, ...]] | None:
    """`Member.entry` by `Member.name` of the members of an archive, those nested in it aside, by its directory alone.

    No member is read. None where names tell nothing without looking into members: one is called like a member of a
    nested archive. Raises ArchiveError; storage errors as they come.
    """
    walk = _Walk(limits, _USUAL, "", ())
    archive = walk.opened(kind_at(source), source)
    found: dict[str, tuple[int, ...]] = {
        walk.name(entry.name or "#1"): (entry.at,) for entry in archive if not entry.is_directory
    }
    return None if any("!" in name for name in found) else found


def open_members(
    source: ByteSource, entries: Sequence[tuple[int, ...]], limits: ArchiveLimits
) -> Generator[tuple[tuple[int, ...], OpenMember | ObjectError]]:
    """Opens members by their `Member.entry`, in this order, one result each; nothing is raised.

    A member is valid until the next one is asked for. Entries of one nested archive should stand together: it is
    inflated anew whenever another archive came between, and once for each call.
    """
    chain = _Chain(source, limits)
    try:
        for entry in entries:
            opened = chain.open(entry)
            yield entry, opened
            if not isinstance(opened, ObjectError):
                opened.close()
    finally:
        chain.close()


class _Walk:
    """State of listing one archive: names given, members counted, bytes inflated."""

    def __init__(
        self, limits: ArchiveLimits, clinical: ClinicalSettings, path: str, corrections: Sequence[str]
    ) -> None:
        self._limits = limits
        self._clinical, self._path, self._corrections = clinical, path, corrections
        self._budget = Budget(limits)
        self._entries = 0
        self._taken: dict[str, int] = {}

    def opened(self, kind: Archive, source: ByteSource) -> OpenArchive:
        """An archive, its entries walked through once; ArchiveError."""
        archive = kind.open(source, _LISTING_WINDOW)
        self._entries += archive.count(self._limits.max_entries - self._entries)
        return archive

    def members(self, archive: OpenArchive, prefix: str, path: tuple[int, ...], depth: int) -> Iterator[Member]:
        """Members of one archive at this depth, each named behind `prefix`."""
        for entry in archive:
            if entry.is_directory:
                continue
            name = self.name(prefix + (entry.name or "#1"))
            place = (*path, entry.at)
            try:
                _refuse(entry)
                member = archive.member(entry, self._limits, self._budget)
                head = member.read(0, HEAD_BYTES)
                sniffed, kind = recognise(kind_of(head, member.size), member, head, is_member=True)
                if kind is None:
                    sniffed = look_closer(sniffed, member, (self._path, name), self._clinical, self._corrections)
            except ArchiveError as error:
                yield Member(name, place, entry.size, entry.modified_at, Kind.OTHER, error.code, error.detail)
                continue
            if kind is None:
                yield Member(name, place, entry.size, entry.modified_at, sniffed.kind, sniffed.code, sniffed.detail)
                continue
            try:
                if depth >= self._limits.max_depth:
                    raise ArchiveError("ARCHIVE_LIMIT", f"nested deeper than {self._limits.max_depth} archives")
                member.spool()
                inner = self.opened(kind, member)
                package = inner.package()
            except ArchiveError as error:
                yield Member(name, place, entry.size, entry.modified_at, Kind.ARCHIVE, error.code, error.detail)
            else:
                if package is not None:
                    yield Member(name, place, entry.size, entry.modified_at, package.kind, package.code)
                    continue
                yield Member(name, place, entry.size, entry.modified_at, Kind.ARCHIVE, "ARCHIVE_EXPANDED")
                yield from self.members(inner, f"{name}!", place, depth + 1)
            finally:
                member.close()

    def name(self, name: str) -> str:
        """`name`, or with the first free number behind it when another member has it."""
        if name not in self._taken:
            self._taken[name] = 1
            return name
        number = self._taken[name] + 1
        while (numbered := f"{name}#{number}") in self._taken:
            number += 1
        self._taken[name] = number
        self._taken[numbered] = 1
        return numbered


class _Chain:
    """The archives that are open, from the outermost to the one that was last read from."""

    def __init__(self, source: ByteSource, limits: ArchiveLimits) -> None:
        self._source = source
        self._limits = limits
        self._budget = Budget(limits)
        self._open: list[_Opened] = []

    def open(self, entry: tuple[int, ...]) -> OpenMember | ObjectError:
        """The member at this place, or why it cannot be read."""
        try:
            archive = self._archive(entry[:-1])
            return self._member(archive, entry[-1])
        except ObjectError as error:
            return error

    def close(self) -> None:
        """Closes every archive."""
        self._shrink(0)

    def _archive(self, path: tuple[int, ...]) -> _Opened:
        """The archive at this path, opened with those around it; ObjectError, the same one when asked again."""
        same = 0
        while same < min(len(self._open), len(path) + 1) and self._open[same].path == path[:same]:
            same += 1
        self._shrink(same)
        while len(self._open) <= len(path):
            here = path[: len(self._open)]
            try:
                member = self._spooled(here) if here else None
                source = member or self._source
                self._open.append(_Opened(here, member, kind_at(source).open(source), None))
            except ObjectError as error:
                self._open.append(_Opened(here, None, None, error))
            if self._open[-1].failure is not None:
                break
        failure = self._open[-1].failure
        if failure is not None:
            raise failure
        return self._open[-1]

    def _spooled(self, path: tuple[int, ...]) -> OpenMember:
        """The archive at this path in the one that was opened last, as its member."""
        member = self._member(self._open[-1], path[-1])
        try:
            member.spool()
        except ObjectError:
            member.close()
            raise
        return member

    def _member(self, opened: _Opened, at: int) -> OpenMember:
        if opened.archive is None:
            raise AssertionError("an archive that failed has no members")
        entry = opened.archive.entry(at)
        _refuse(entry)
        return opened.archive.member(entry, self._limits, self._budget)

    def _shrink(self, length: int) -> None:
        while len(self._open) > length:
            member = self._open.pop().member
            if member is not None:
                member.close()


@dataclass(frozen=True, slots=True)
class _Opened:
    """One archive of a chain, or why it did not open. member: what it is of the one around it."""

    path: tuple[int, ...]
    member: OpenMember | None
    archive: OpenArchive | None
    failure: ObjectError | None


def _refuse(entry: ArchiveEntry) -> None:
    """ArchiveError for a member that is never read: unsafe, of a system, or encrypted."""
    parts = entry.name.replace("\\", "/").split("/")
    if parts[0] == "" and len(parts) > 1:
        raise ArchiveError("ARCHIVE_MEMBER_UNSAFE", "its name is absolute")
    if _DRIVE.match(entry.name):
        raise ArchiveError("ARCHIVE_MEMBER_UNSAFE", "its name begins with a drive")
    if ".." in parts:
        raise ArchiveError("ARCHIVE_MEMBER_UNSAFE", "its name climbs")
    if stat.S_IFMT(entry.unix_mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError("ARCHIVE_MEMBER_UNSAFE", "it is a link or a device")
    if is_system_file("/".join(parts)):
        raise ArchiveError("SYSTEM_FILE", "a file of a system")
    if entry.is_encrypted:
        raise ArchiveError("ARCHIVE_ENCRYPTED", "a password is needed")
