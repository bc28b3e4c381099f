"""A DICOM service in memory: what it holds, and its change feed to the letter of the contract.

It is the reference that our reading is compared with. A row of the feed keeps sequence, action and timestamp for ever;
state, metadata and file path are those of the instance when the feed is read:

- no such instance any more: state Deleted, no metadata, for every row of its key;
- the row that made the version which is current: state Current, with metadata;
- any other row of a key that exists, old Deletes included: state Replaced, with the metadata of the current version.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pydicom
import pydicom.data
from pydicom.datadict import dictionary_VR, tag_for_keyword

BULK = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
TICKS = 10_000_000
"""Ticks of 100 ns in a second."""
DEFAULT = "Microsoft.Default"
Key = tuple[str, str, str, str]


class AlreadyExists(Exception):
    """The service holds the instance already (45070)."""


class NotFound(Exception):
    """The service does not hold the instance."""


class BadRequest(Exception):
    """The request breaks a rule of the contract (400)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the feed. watermark: the version that the change made or removed."""

    sequence: int
    key: Key
    action: str
    ticks: int
    watermark: int


@dataclass(slots=True)
class Stored:
    """The current version of an instance; metadata as JSON bytes, so that a page is assembled quickly."""

    watermark: int
    metadata: bytes
    file_path: str | None


@dataclass
class ServiceModel:
    """The service. Each change takes the next sequence number and, unless told, the next second of its clock."""

    ticks: int = 0
    sequence: int = 0
    watermark: int = 0
    rows: list[Row] = field(default_factory=list)
    current: dict[Key, Stored] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @classmethod
    def at(cls, moment: datetime) -> ServiceModel:
        """An empty service whose clock stands at `moment`."""
        return cls(ticks=ticks_of(moment))

    def advance(self, seconds: float) -> None:
        """Moves the clock."""
        self.ticks += round(seconds * TICKS)

    def skip(self, numbers: int) -> None:
        """Leaves a gap in the sequence numbers."""
        self.sequence += numbers

    def store(self, metadata: dict, partition: str = DEFAULT, file_path: str | None = None) -> Key:
        """STOW of one instance."""
        with self.lock:
            key = key_of(metadata, partition)
            if key in self.current:
                raise AlreadyExists
            self._change(key, "Create", metadata, file_path)
            return key

    def update(self, key: Key, metadata: dict, file_path: str | None = None) -> None:
        """Bulk update of one instance."""
        with self.lock:
            if key not in self.current:
                raise NotFound
            self._change(key, "Update", metadata, file_path or self.current[key].file_path)

    def delete(self, key: Key) -> None:
        """DELETE of one instance."""
        with self.lock:
            if key not in self.current:
                raise NotFound
            gone = self.current.pop(key)
            self._append(key, "Delete", gone.watermark)

    def _change(self, key: Key, action: str, metadata: dict, file_path: str | None) -> None:
        self.watermark += 1
        kept = {tag: element for tag, element in metadata.items() if element.get("vr") not in BULK}
        self.current[key] = Stored(self.watermark, orjson.dumps(kept), file_path)
        self._append(key, action, self.watermark)

    def _append(self, key: Key, action: str, watermark: int) -> None:
        self.sequence += 1
        self.ticks += 1
        self.rows.append(Row(self.sequence, key, action, self.ticks, watermark))

    def feed_v1(self, offset: int, limit: int, metadata: bool = True, casing: str = "camel") -> bytes:
        """Rows with sequence in (offset, offset + limit]."""
        if offset < 0 or not 1 <= limit <= 100:
            raise BadRequest
        with self.lock:
            # rows are in the order of their sequence
            chosen = [row for row in self.rows if offset < row.sequence <= offset + limit]
            return self._page(chosen, metadata, casing)

    def feed_v2(
        self,
        offset: int,
        limit: int,
        start: str | None = None,
        end: str | None = None,
        metadata: bool = True,
        casing: str = "camel",
    ) -> bytes:
        """Rows of a window of time, by (timestamp, sequence), `limit` of them after `offset`."""
        if offset < 0 or not 1 <= limit <= 200:
            raise BadRequest
        first = ticks_of_text(start) if start is not None else -(2**62)
        last = ticks_of_text(end) if end is not None else 2**62
        if last <= first:
            raise BadRequest
        with self.lock:
            chosen = [row for row in self.rows if first <= row.ticks < last]
            chosen.sort(key=lambda row: (row.ticks, row.sequence))
            return self._page(chosen[offset : offset + limit], metadata, casing)

    def latest(self, metadata: bool = True, casing: str = "camel") -> bytes | None:
        """The row with the highest sequence."""
        with self.lock:
            return self._entry(self.rows[-1], metadata, casing) if self.rows else None

    def _page(self, rows: list[Row], metadata: bool, casing: str) -> bytes:
        return b"[" + b",".join(self._entry(row, metadata, casing) for row in rows) + b"]"

    def _entry(self, row: Row, metadata: bool, casing: str) -> bytes:
        stored = self.current.get(row.key)
        partition, study, series, instance = row.key
        values = {
            "sequence": row.sequence,
            "partitionName": partition,
            "studyInstanceUid": study,
            "seriesInstanceUid": series,
            "sopInstanceUid": instance,
            "action": row.action,
            "timestamp": text_of_ticks(row.ticks),
            "state": "Deleted"
            if stored is None
            else ("Current" if row.watermark == stored.watermark and row.action != "Delete" else "Replaced"),
        }
        if stored is not None and stored.file_path is not None:
            values["filePath"] = stored.file_path
        if casing == "documented":
            values = {name[0].upper() + name[1:]: value for name, value in values.items()}
            values["Action"], values["State"] = values["Action"].lower(), values["State"].lower()
        text = orjson.dumps(values)
        if metadata and stored is not None:
            name = b"Metadata" if casing == "documented" else b"metadata"
            text = text[:-1] + b',"' + name + b'":' + stored.metadata + b"}"
        return text

    def studies(self, partition: str | None = None) -> dict[str, list[Key]]:
        """The keys of each study."""
        found: dict[str, list[Key]] = {}
        for key in self.current:
            if partition is None or key[0] == partition:
                found.setdefault(key[1], []).append(key)
        return found


def key_of(metadata: dict, partition: str = DEFAULT) -> Key:
    """Key of an instance from its metadata."""
    return (partition, *(metadata[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018")))


def ticks_of(moment: datetime) -> int:
    """Ticks of 100 ns since 1970."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * TICKS + delta.microseconds * 10


def ticks_of_text(text: str) -> int:
    """Ticks of an ISO timestamp that has a time zone; BadRequest otherwise."""
    match = re.fullmatch(r"(.{19})(?:\.(\d{1,7}))?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        raise BadRequest
    try:
        moment = datetime.fromisoformat(match[1] + match[3])
    except ValueError:
        raise BadRequest from None
    return ticks_of(moment) + int((match[2] or "").ljust(7, "0"))


def text_of_ticks(ticks: int) -> str:
    """As System.Text.Json writes a DateTimeOffset: up to seven decimals, no zeros behind them."""
    seconds, fraction = divmod(ticks, TICKS)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    decimals = f".{fraction:07d}".rstrip("0") if fraction else ""
    return f"{text}{decimals}+00:00"


def metadata(study: str, series: str, instance: str, **values: str) -> dict:
    """A small set of metadata; values by DICOM keyword are texts."""
    found = {
        "00080018": {"vr": "UI", "Value": [instance]},
        "0020000D": {"vr": "UI", "Value": [study]},
        "0020000E": {"vr": "UI", "Value": [series]},
        "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00100020": {"vr": "LO", "Value": ["P1"]},
    }
    for keyword, value in values.items():
        tag = tag_for_keyword(keyword)
        found[f"{tag:08X}"] = {"vr": dictionary_VR(tag), "Value": [value]}
    return found


def real_metadata(count: int = 90) -> Iterator[tuple[Path, dict]]:
    """The files that pydicom's wheel carries, each instance with a whole identity once, with their DICOM JSON."""
    seen: set[Key] = set()
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm")):
        if len(seen) >= count:
            return
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            found = dataset.to_json_dict(
                bulk_data_threshold=1, bulk_data_element_handler=lambda _: "", suppress_invalid_tags=True
            )
            found = orjson.loads(orjson.dumps(found))
            key = key_of(found)
        except Exception:  # noqa: BLE001 - pydicom's own odd files; those it cannot read are no seed
            continue
        if key not in seen and all(key):
            seen.add(key)
            yield path, found
