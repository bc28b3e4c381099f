"""Landing a window of changes: one file for each window, whole or not at all.

Belongs here: the file's name, its frames, replacing it only when something changed. Does not belong here: the layout
as a reader sees it (`landing.change_windows`), asking for the changes (`feed`, `dicomweb`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from dicom_assets.landing.change_windows import (
    FIRST_WORDS,
    EntryInvalid,
    Frame,
    PageHead,
    PageUnreadable,
    line_digest,
    parse_entry,
    read_head,
    read_page,
)
from dicom_assets.service.feed import FeedPage, Window, iso
from dicom_assets.settings import CHANGE_FILES, ServiceSettings, UserError
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets.storage.files import LakeError, LakeFiles

FRAME_BYTES = 4 * 2**20
"""A frame ends with the entry that reaches this many bytes: few enough to read a part of a window for little."""
_LEVEL = 3


class LandingUnwritable(UserError):
    """The landing zone of a service cannot be written."""


@dataclass(frozen=True, slots=True)
class Landed:
    """What became of a window. changed: whether its file was written; False when nothing differs from before."""

    path: str
    entries: int
    pages: int
    bytes: int
    changed: bool


def window_path(window: Window) -> str:
    """Path of a window's file below the landing zone of its service: the same window, the same path."""
    start, end = window.start.astimezone(UTC), window.end.astimezone(UTC)
    name = f"{_stamp(start)}-{_stamp(end)}"
    return f"windows/{start:%Y/%m/%d}/{name}.ndjson.zst"


def newest_window_end(service: ServiceSettings) -> datetime | None:
    """The end of the newest window that was landed; None when none was. Lists a day's windows. Raises LakeError.

    The last part of a path names start and end, and the folders above it year, month and day of the start.
    """
    if "://" not in service.landing and not Path(service.landing).is_dir():
        return None
    files, folder = LakeFiles(service.landing), "windows"
    for _ in range(3):
        folders = files.folders(folder)
        if not folders:
            return None
        folder = folders[-1]
    names = [name.rsplit("/", 1)[1].partition(".ndjson")[0] for name in files.names(folder)]
    ends = [datetime.strptime(name[-16:], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) for name in names if _NAME.match(name)]
    return max(ends, default=None)


_NAME = re.compile(r"^\d{8}T\d{6}Z-\d{8}T\d{6}Z$")
"""A window of whole seconds, as the settings make them."""


def repair_path(audit_id: str) -> str:
    """Path of the file that repairs what an audit found."""
    return f"repairs/{audit_id}.ndjson.zst"


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y%m%dT%H%M%S}" + (f".{moment:%f}" if moment.microsecond else "") + "Z"


@dataclass(frozen=True, slots=True)
class Packed:
    """The entries of a window, compressed. digest: of all their lines."""

    pages: tuple[int, ...]
    frames: tuple[Frame, ...]
    data: tuple[bytes, ...]
    digest: str

    def file(self, service: str, protocol: str, window: Window | None, revision: int = 0) -> tuple[bytes, PageHead]:
        """The bytes of the window's file, and its first line."""
        head = PageHead(
            service=service,
            protocol=protocol,
            start=iso(window.start) if window else "",
            end=iso(window.end) if window else "",
            revision=revision,
            pages=self.pages,
            frames=self.frames,
            digest=self.digest,
        )
        return self.with_head(head), head

    def with_head(self, head: PageHead) -> bytes:
        """The bytes of a file with these entries, whose first line says the rest as another one does."""
        first = replace(head, pages=self.pages, frames=self.frames, digest=self.digest).line()
        # The words that tell the file's kind have a frame of their own: they inflate from the first bytes, however
        # long the first line is.
        kind, rest = first[: len(FIRST_WORDS)], first[len(FIRST_WORDS) :]
        return b"".join([_compress(kind), _compress(rest), *self.data])


def pack(pages: Iterable[FeedPage]) -> Packed:
    """Packs the entries of pages as they come: what is held is compressed, but for one frame and one page."""
    return _packed([orjson.dumps(entry) for entry in page.entries] for page in pages)


def _packed(pages: Iterable[Sequence[bytes]]) -> Packed:
    frames: list[Frame] = []
    data: list[bytes] = []
    counts: list[int] = []
    digest = line_digest()
    lines: list[bytes] = []
    held = 0

    def close_frame() -> None:
        nonlocal held
        if lines:
            text = b"\n".join(lines) + b"\n"
            digest.update(text)
            data.append(_compress(text))
            frames.append(Frame(len(lines), len(data[-1]), len(text)))
            lines.clear()
            held = 0

    for page in pages:
        counts.append(len(page))
        for line in page:
            lines.append(line)
            held += len(line)
            if held >= FRAME_BYTES:
                close_frame()
    close_frame()
    return Packed(tuple(counts), tuple(frames), tuple(data), digest.hexdigest())


def _compress(data: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd", compression_level=_LEVEL).compress(data, asbytes=True)
    return packed


def land(
    service: ServiceSettings, path: str, window: Window | None, pages: Iterable[FeedPage], protocol: str
) -> Landed:
    """Writes pages to a file of the service's landing zone, unless it holds the same entries already.

    A window without entries leaves no file, unless it had some when it was read before. The file is replaced
    atomically: whoever reads it sees the old one or the new one. Raises what reading the pages raises (nothing is
    written then), and LandingUnwritable.
    """
    packed = pack(pages)
    try:
        files = LakeFiles(service.landing)
        before = _head(files, path)
        data, head = packed.file(service.name, protocol, window, before.revision + 1 if before is not None else 0)
        changed = head.digest != before.digest if before is not None else head.entries > 0
        if changed:
            files.put(path, data)
    except LakeError as error:
        raise LandingUnwritable(f"The landing zone of service {service.name} cannot be used: {error}") from None
    return Landed(path, head.entries, len(head.pages), len(data), changed)


def landed_entries(service: ServiceSettings, path: str) -> Iterator[dict[str, Any]]:
    """The entries of a file that was landed before, none when there is none. Raises PageUnreadable."""
    try:
        data = LakeFiles(service.landing).get(path)
    except FileNotFoundError:
        return
    except LakeError as error:
        raise LandingUnwritable(f"The landing zone of service {service.name} cannot be used: {error}") from None
    for line in read_page(BytesSource(data)):
        if line.value is not None:
            yield line.value


def entries_of(service: ServiceSettings, unwanted: Collection[str]) -> Mapping[str, int]:
    """By file of a service's landing zone, how many of its entries are of some studies or instances, by UID.

    Raises LandingUnwritable. Files that cannot be read have none.
    """
    found = {path: sum(1 for line in lines if _names_one(line, unwanted)) for path, lines in _windows(service)}
    return {path: number for path, number in found.items() if number}


def leave_out_entries(service: ServiceSettings, unwanted: Collection[str]) -> Mapping[str, int]:
    """Takes the entries of some studies or instances out of the landed windows of a service; see `entries_of`.

    All other lines stay as they are, so that they are the same entries as before; a window of which nothing is left
    has no file any more.
    """
    files = LakeFiles(service.landing)
    changed: dict[str, int] = {}
    for path, lines in _windows(service):
        kept = [line for line in lines if not _names_one(line, unwanted)]
        if len(kept) == len(lines):
            continue
        changed[path] = len(lines) - len(kept)
        before = read_head(BytesSource(files.get(path)))
        if not kept:
            files.remove(path)
            continue
        head = replace(before, revision=before.revision + 1)
        files.put(path, _packed([kept]).with_head(head))
    return changed


def _windows(service: ServiceSettings) -> Iterator[tuple[str, Sequence[bytes]]]:
    """The lines of each landed file of a service that can be read."""
    try:
        files = LakeFiles(service.landing)
        for path in files.names(""):
            if path.endswith(CHANGE_FILES.rpartition("*")[2]):
                try:
                    yield path, [line.data for line in read_page(BytesSource(files.get(path)))]
                except (PageUnreadable, FileNotFoundError):
                    continue
    except LakeError as error:
        raise LandingUnwritable(f"The landing zone of service {service.name} cannot be used: {error}") from None


def _names_one(line: bytes, unwanted: Collection[str]) -> bool:
    try:
        entry = parse_entry(orjson.loads(line))
    except (orjson.JSONDecodeError, EntryInvalid, AttributeError):
        return False
    return entry.study in unwanted or entry.instance in unwanted


def _head(files: LakeFiles, path: str) -> PageHead | None:
    """The first line of the file that is there; None when there is none, or one that cannot be read."""
    try:
        return read_head(BytesSource(files.get(path)))
    except (FileNotFoundError, PageUnreadable):
        return None
