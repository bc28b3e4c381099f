"""raw_files: a batch's manifest, with every archive opened up into its members.

Belongs here: what there is in a batch, object by object, before any header is read: kind by content, members, and
codes that are settled without reading. Does not belong here: judging what is inside (`judge`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from dicom_assets.batch.known import Known
from dicom_assets.batch.staging import RAW_STAGED, Part, Staging
from dicom_assets.lake.codes import Kind
from dicom_assets.landing.archives import ArchiveError, Member, members
from dicom_assets.landing.changes import PageLine, PageUnreadable, read_head, read_page
from dicom_assets.landing.sniff import Form, is_system_file, kind_of
from dicom_assets.landing.store import LandingStore, ObjectError, ObjectRef, OpenObject, object_id, source_of
from dicom_assets.settings import ArchiveLimits

HEAD_BYTES = 4_096
_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class _Claimed:
    """One object of the manifest."""

    object_id: str
    uri: str
    etag: str
    size: int
    modified_at: datetime | None


class _Parts:
    """Collects rows and stages them in bounded files."""

    def __init__(self, staging: Staging) -> None:
        self._staging, self._rows, self._number = staging, [], 0  # type: ignore[var-annotated]
        self.total = 0

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self.total += 1
        if len(self._rows) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        if self._rows or not self._number:
            self._staging.put(Part.RAW, self._number, pa.Table.from_pylist(self._rows, schema=RAW_STAGED))
            self._number += 1
            self._rows = []


def _nothing_known(uri: str) -> frozenset[str]:
    return frozenset()


def expand(
    manifest: pa.Table,
    store: LandingStore,
    limits: ArchiveLimits,
    staging: Staging,
    known: Known = _nothing_known,
    settled: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Stages one row for each object of a manifest and each member of each archive in it; how many there are.

    An object that cannot be opened keeps its row, with the code that it will end in. known: entries of a window file
    that earlier batches have accounted for; they are not claimed again. settled: codes of objects that are not opened.
    A manifest without objects stages no row.
    """
    staging.clear(Part.RAW)
    parts = _Parts(staging)
    objects = [_Claimed(**row) for row in manifest.select(list(_Claimed.__slots__)).to_pylist()]
    claimed_at = manifest["claimed_at"][0].as_py() if objects else None
    shared = {"batch_id": staging.batch_id, "source": store.name, "claimed_at": claimed_at}
    opened = store.open_all(
        [ObjectRef(o.uri, o.etag, o.size) for o in objects if o.object_id not in settled], HEAD_BYTES
    )
    for claimed in objects:
        own = shared | {"source": source_of(store.name, claimed.uri)}
        if claimed.object_id in settled:
            parts.add(own | _claimed_row(claimed) | {"verdict": settled[claimed.object_id]})
            continue
        source = next(opened)
        for row in _rows(claimed, source, store, limits, known):
            parts.add(own | row)
        if not isinstance(source, ObjectError):
            source.close()
    parts.flush()
    return parts.total


def _rows(
    claimed: _Claimed, source: OpenObject | ObjectError, store: LandingStore, limits: ArchiveLimits, known: Known
) -> Iterator[dict[str, Any]]:
    own = _claimed_row(claimed)
    if is_system_file(store.below_root(claimed.uri)):
        yield own | {"verdict": "SYSTEM_FILE"}
        return
    if isinstance(source, ObjectError):
        yield own | {"verdict": source.code, "detail": source.detail}
        return
    try:
        found = kind_of(source.read(0, HEAD_BYTES), claimed.size)
    except ObjectError as error:
        yield own | {"verdict": error.code, "detail": error.detail}
        return
    except OSError as error:
        yield own | {"verdict": "READ_FAILED", "detail": type(error).__name__}
        return
    own["kind"] = str(found.kind)
    if found.kind is not Kind.ARCHIVE or found.code is not None:
        yield own | {"verdict": found.code}
        return
    # Members are listed before the archive's own row, because only then is it known whether it opens.
    rows: list[dict[str, Any]] = []
    try:
        if found.form is Form.CHANGES:
            rows += _entry_rows(claimed, source, store.name, known)
        else:
            rows += (_member_row(claimed, member, store.name) for member in members(source, limits))
    except (ArchiveError, ObjectError, PageUnreadable) as error:
        yield own | {"verdict": error.code, "detail": error.detail}
        return
    yield own | {"verdict": "ARCHIVE_EXPANDED"}
    yield from rows


def _claimed_row(claimed: _Claimed) -> dict[str, Any]:
    """The row of an object of which nothing is known but its claim."""
    return {
        "object_id": claimed.object_id,
        "uri": claimed.uri,
        "etag": claimed.etag,
        "size": claimed.size,
        "modified_at": claimed.modified_at,
        "kind": str(Kind.OTHER),
    }


def _entry_rows(container: _Claimed, page: OpenObject, source: str, known: Known) -> Iterator[dict[str, Any]]:
    accounted = known(container.uri) if read_head(page).revision else frozenset()
    for line in read_page(page):
        row = _entry_row(container, line, source)
        if row["object_id"] not in accounted:
            yield row


def _entry_row(container: _Claimed, line: PageLine, source: str) -> dict[str, Any]:
    """One entry. Its version is that of its line: an entry that reads the same again is the same object."""
    return {
        "object_id": object_id(source, container.uri, line.etag, line.member),
        "uri": container.uri,
        "member": line.member,
        "etag": container.etag,
        "size": len(line.data),
        "modified_at": container.modified_at,
        "container_id": container.object_id,
        "kind": str(Kind.CHANGE),
        "entry": [line.number],
        "container_size": container.size,
    }


def _member_row(container: _Claimed, member: Member, source: str) -> dict[str, Any]:
    return {
        "object_id": object_id(source, container.uri, container.etag, member.name),
        "uri": container.uri,
        "member": member.name,
        "etag": container.etag,
        "size": member.size,
        "modified_at": container.modified_at,
        "container_id": container.object_id,
        "kind": str(member.kind),
        "entry": list(member.entry),
        "container_size": container.size,
        "verdict": member.code,
        "detail": member.detail,
    }
