"""Landed windows of a change feed: what the file looks like, and what one entry of it says.

Belongs here: the layout of a window file, reading it whole or in part, the normalised entry and what it means for its
instance. Does not belong here: asking a service for changes and writing the file (`service`), reading the metadata of
an entry (`dicom`).

A window file is newline-delimited JSON in zstd frames, so that `zstdcat`, DuckDB and pandas read it. The first two
frames are one line that describes the window; every further frame holds whole lines, one entry each, as the service
sent it. The first line says how long each frame is, so that a part of a large window is read without the rest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import orjson
import pyarrow as pa

from dicom_assets.landing.store import partition_source
from dicom_assets.storage.byte_file import ByteFile
from dicom_assets.storage.byte_ranges import ByteSource

DEFAULT_PARTITION = "Microsoft.Default"
"""The data partition of a service that has no others; it does not appear in the name of the source."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
FIRST_WORDS = b'{"dicom_changes":1,'
"""What the first line of a window file begins with: name and version of the layout."""

_SEQUENCE = re.compile(rb'"sequence":(\d+)[,}]', re.IGNORECASE)
_MAX_FIRST_LINE = 64 * 2**20
_MAX_FRAME = 512 * 2**20
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,12}))?\s?([Zz]|[+-]\d\d:?\d\d)?")


class PageUnreadable(Exception):
    """A window file is cut short or contradicts itself. The message has no patient data."""

    code = "CHANGE_PAGE_UNREADABLE"

    @property
    def detail(self) -> str:
        """What is wrong, in words."""
        return str(self)


class EntryInvalid(ValueError):
    """An entry of a feed lacks what decides its place. The message names the field, never its value."""

    code = "CHANGE_INVALID"

    @property
    def detail(self) -> str:
        """What is wrong, in words."""
        return str(self)


class Action(StrEnum):
    """What happened to the instance."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Operation(StrEnum):
    """What an entry means for the lake. SUPERSEDED: nothing, because a newer entry deletes the instance."""

    UPSERT = "upsert"
    DELETE = "delete"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class ChangeEntry:
    """One entry of a change feed, independent of the casing of its names and values.

    changed_at: the timestamp in microseconds. changed_at_text: as it was written; services write ticks of 100 ns, and
    what the microseconds drop is decided by `sequence`, which grows with time for one instance. state, metadata and
    file_path are those of the instance when the feed was read, not when the change happened.
    """

    sequence: int
    partition: str
    study: str
    series: str
    instance: str
    action: Action
    state: str | None
    changed_at: datetime
    changed_at_text: str
    file_path: str | None
    metadata: dict[str, Any] | None

    @property
    def operation(self) -> Operation:
        """What the entry means for the lake.

        A Delete deletes, whatever its state: after a re-store it may carry the metadata of the new instance. A Create
        or Update without metadata is superseded when its state says so; EntryInvalid when it claims to be current.
        """
        if self.action is Action.DELETE:
            return Operation.DELETE
        if self.metadata is not None:
            return Operation.UPSERT
        if self.state in ("deleted", "replaced"):
            return Operation.SUPERSEDED
        raise EntryInvalid("The entry is current and comes without metadata.")

    def source(self, service: str) -> str:
        """Name of the source: the service, with the data partition where it is not the default one."""
        return partition_source(service, self.partition)


def parse_timestamp(text: str) -> datetime:
    """A timestamp of the feed in UTC, cut to microseconds. Without a zone it is UTC, which services mean.

    Raises EntryInvalid.
    """
    match = _TIMESTAMP.fullmatch(text.strip())
    if match is None:
        raise EntryInvalid("The entry's timestamp is not in ISO 8601 form.")
    day, time, fraction, zone = match.groups()
    try:
        plain = datetime.fromisoformat(f"{day}T{time}").replace(microsecond=int(((fraction or "") + "000000")[:6]))
        if zone is None or zone in "Zz":
            return plain.replace(tzinfo=UTC)
        minutes = int(zone[1:3]) * 60 + int(zone[-2:])
        offset = timezone(timedelta(minutes=-minutes if zone[0] == "-" else minutes))
        return plain.replace(tzinfo=offset).astimezone(UTC)
    except (ValueError, OverflowError):
        raise EntryInvalid("The entry's timestamp is out of range.") from None


def sequence_of(value: Mapping[str, Any]) -> int | None:
    """Sequence number of an entry as it came, None when it has none that fits 64 bits."""
    for name, found in value.items():
        if name.lower() == "sequence":
            if isinstance(found, str) and re.fullmatch(r"\d{1,19}", found):
                found = int(found)
            if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**63:
                return found
    return None


def parse_entry(value: Mapping[str, Any]) -> ChangeEntry:
    """An entry from its JSON object; names and values are read without regard to case. Raises EntryInvalid."""
    fields = {name.lower(): found for name, found in value.items() if found is not None}
    sequence = sequence_of(value)
    if sequence is None:
        raise EntryInvalid("The entry has no usable sequence.")
    try:
        action = Action(_text(fields, "action").lower())
    except ValueError:
        raise EntryInvalid("The entry's action is missing or unknown.") from None
    written = _text(fields, "timestamp")
    metadata = fields.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise EntryInvalid("The entry's metadata is not an object.")
    return ChangeEntry(
        sequence=sequence,
        partition=_text(fields, "partitionname", optional=True) or DEFAULT_PARTITION,
        study=_text(fields, "studyinstanceuid"),
        series=_text(fields, "seriesinstanceuid"),
        instance=_text(fields, "sopinstanceuid"),
        action=action,
        state=_text(fields, "state", optional=True).lower() or None,
        changed_at=parse_timestamp(written),
        changed_at_text=written,
        file_path=_text(fields, "filepath", optional=True) or None,
        metadata=metadata or None,
    )


def _text(fields: Mapping[str, Any], name: str, *, optional: bool = False) -> str:
    found = fields.get(name)
    if isinstance(found, str) and found.strip():
        return found.strip()
    if optional and (found is None or isinstance(found, str)):
        return ""
    raise EntryInvalid(f"The entry's {name} is missing or no text.")


@dataclass(frozen=True, slots=True)
class Frame:
    """One zstd frame of a window file: entries in it, compressed and inflated length in bytes."""

    entries: int
    bytes: int
    inflated: int


@dataclass(frozen=True, slots=True)
class PageHead:
    """The first line of a window file.

    start, end: the window in ISO form, empty for a repair. revision: 0 for a window that is landed for the first time,
    then one more for each time its file was replaced. pages: entries in each answer of the service. digest:
    BLAKE2b-128 of all entry lines; equal digests mean that nothing changed since the window was read before.
    """

    service: str
    protocol: str
    start: str
    end: str
    revision: int
    pages: tuple[int, ...]
    frames: tuple[Frame, ...]
    digest: str

    @property
    def entries(self) -> int:
        """Entries in the window."""
        return sum(frame.entries for frame in self.frames)

    def line(self) -> bytes:
        """The first line, with its end of line."""
        values = {
            "service": self.service,
            "protocol": self.protocol,
            "start": self.start,
            "end": self.end,
            "revision": self.revision,
            "entries": self.entries,
            "pages": self.pages,
            "frames": [[frame.entries, frame.bytes, frame.inflated] for frame in self.frames],
            "digest": self.digest,
        }
        return FIRST_WORDS + orjson.dumps(values)[1:] + b"\n"


@dataclass(frozen=True, slots=True)
class PageLine:
    """One entry of a window file: its place (from 0), the member's name, its version, its bytes."""

    number: int
    member: str
    etag: str
    data: bytes

    @property
    def value(self) -> dict[str, Any] | None:
        """The entry's JSON object; None when the line is none."""
        return _object(self.data)


def line_digest() -> hashlib.blake2b:
    """The hash that `PageHead.digest` is made with."""
    return hashlib.blake2b(digest_size=16)


def looks_like_change_page(head: bytes) -> bool:
    """Whether the first bytes of an object are those of a window file."""
    if not head.startswith(ZSTD_MAGIC):
        return False
    try:
        with pa.CompressedInputStream(pa.BufferReader(head), "zstd") as stream:
            return bool(stream.read_buffer(len(FIRST_WORDS)).to_pybytes() == FIRST_WORDS)
    except OSError:
        return False


def read_head(source: ByteSource) -> PageHead:
    """The first line of a window file. Raises PageUnreadable."""
    line = bytearray()
    file = ByteFile(source)
    try:
        with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd") as stream:
            while b"\n" not in line:
                more = stream.read_buffer(16_384).to_pybytes()
                if not more or len(line) > _MAX_FIRST_LINE:
                    raise PageUnreadable("The window file has no first line.")
                line += more
    except (pa.ArrowException, OSError):
        if file.failure is not None:
            raise file.failure from None
        raise PageUnreadable("The window file is cut short or no zstd.") from None
    try:
        values = orjson.loads(line[: line.index(b"\n")])
        head = PageHead(
            service=str(values["service"]),
            protocol=str(values["protocol"]),
            start=str(values["start"]),
            end=str(values["end"]),
            revision=int(values["revision"]),
            pages=tuple(int(count) for count in values["pages"]),
            frames=tuple(Frame(*map(int, frame)) for frame in values["frames"]),
            digest=str(values["digest"]),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        raise PageUnreadable("The first line of the window file is not understood.") from None
    if values.get("dicom_changes") != 1 or any(min(f.entries, f.bytes, f.inflated) < 0 for f in head.frames):
        raise PageUnreadable("The first line of the window file is not understood.")
    return head


def read_page(source: ByteSource, first: int = 0, last: int | None = None) -> Iterator[PageLine]:
    """Entries `first` to `last` (exclusive) of a window file, in order; only the frames that hold them are read.

    A member's name is `change/` and the sequence number, `line/` and the place where an entry has no sequence or
    repeats one of the same frame's. The etag is a digest of the line: an entry that reads the same when its window is
    read again is the same version of the same object. Reading the whole file also proves its digest. Raises
    PageUnreadable, and OSError when the storage fails.
    """
    head = read_head(source)
    stop = head.entries if last is None else min(last, head.entries)
    offset = source.size - sum(frame.bytes for frame in head.frames)
    whole = line_digest() if first <= 0 and stop == head.entries else None
    number = 0
    for frame in head.frames:
        if number + frame.entries > first and number < stop:
            lines = _inflate(source, offset, frame)
            if whole is not None:
                whole.update(b"\n".join(lines) + b"\n")
            for line in _named(lines, number):
                if first <= line.number < stop:
                    yield line
        number += frame.entries
        offset += frame.bytes
    if whole is not None and whole.hexdigest() != head.digest:
        raise PageUnreadable("The entries of the window file are not those that its first line describes.")


def _inflate(source: ByteSource, offset: int, frame: Frame) -> list[bytes]:
    if frame.inflated > _MAX_FRAME or offset < 0:
        raise PageUnreadable("A frame of the window file is larger than the bound, or the file is cut short.")
    data = source.read(offset, frame.bytes)
    try:
        text: bytes = pa.decompress(data, decompressed_size=frame.inflated, codec="zstd", asbytes=True)
    except (pa.ArrowException, OSError):
        raise PageUnreadable("A frame of the window file cannot be inflated.") from None
    lines = text.split(b"\n")
    if lines.pop() != b"" or len(lines) != frame.entries:
        raise PageUnreadable("A frame of the window file does not hold the lines that it should.")
    return lines


def _named(lines: list[bytes], number: int) -> Iterator[PageLine]:
    seen: set[int] = set()
    for place, line in enumerate(lines, start=number):
        sequence = _sequence_in(line)
        if sequence is None or sequence in seen:
            member = f"line/{place:06d}"
        else:
            seen.add(sequence)
            member = f"change/{sequence:06d}"
        yield PageLine(place, member, hashlib.blake2b(line, digest_size=8).hexdigest(), line)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _sequence_in(line: bytes) -> int | None:
    """Sequence number of an entry's line.

    Metadata has no such key (its keys are tags, `vr`, `Value` and names of representations), and in a string its
    quotes would be escaped: where the key stands once, it is the entry's, and the line need not be parsed.
    """
    found = _SEQUENCE.findall(line)
    if len(found) == 1 and len(found[0]) <= 18:
        return int(found[0])
    value = _object(line)
    return None if value is None else sequence_of(value)
