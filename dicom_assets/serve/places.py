"""The rows of instances with the places of their objects, and objects opened there.

Belongs here: from UIDs to what opens an object, kept as long as the tables stay as they are; what a client is told when
it cannot be opened. Does not belong here: what is read of an object.

A viewer asks for an image at a time, and for all of a series: so the rows of a series are looked up together, and those
of a study that was asked for whole stand for its series.
"""

from __future__ import annotations

import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dicom_assets.dicom.header import RECEIVED
from dicom_assets.lake.files_of_objects import FILE_COLUMNS, FILE_ETAG, FILE_SIZE, file_joins
from dicom_assets.lake.quoting import named, quoted
from dicom_assets.landing.retrieval import OpenPlace, Place, entries_at
from dicom_assets.landing.store import HurriedStore, LandingStore, ObjectArchived, ObjectError, SourceUnavailable
from dicom_assets.schema.attributes import Level
from dicom_assets.schema.correction_tables import RECEIVED as RECEIVED_AS
from dicom_assets.schema.keys import study_key
from dicom_assets.serve.addresses import address
from dicom_assets.serve.call import Call
from dicom_assets.serve.kept import Kept
from dicom_assets.serve.newest import newest
from dicom_assets.serve.problems import Refusal, not_found
from dicom_assets.serve.served import Scope, ServedLake, Snapshot

UIDS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}
"""By name in a path, the attribute."""

SERIES_MOST = 2_000
"""Rows of a series that are looked up together; of a longer one, one by one."""

STORE_SECONDS = 4.0
"""How long a storage that does not answer is waited for."""

_KEPT_BYTES = 48 << 20
_ENTRY_BYTES = 400
_ENTRIES_MOST = 20_000
_ROW_BYTES = 3_000
_RETRY = {"Retry-After": "30"}

METADATA = (
    *("source", "object_id", "batch_id", "TransferSyntaxUID", "corrections", *UIDS.values()),
    *dict.fromkeys(("received_study_instance_uid", *(one for one in RECEIVED_AS.values() if one not in UIDS.values()))),
)
"""Columns of `instance` that metadata need."""

PLACED = (*METADATA, "uri", "member")
"""Columns of `instance` that objects are found by."""

_PIXELS = (
    *("header_form", "pixel_offset", "pixel_length", "frame_offsets", "frame_lengths", "TransferSyntaxUID", "size"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("PhotometricInterpretation", "SOPClassUID"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """An instance and its object.

    row: of `instance`, by column. pixels: of flat_metadata, what frames are found by. place: None where the object is
    with a DICOM service that has only told of it.
    """

    row: Mapping[str, Any]
    pixels: Mapping[str, Any] = field(default_factory=dict)
    place: Place | None = None

    @property
    def name(self) -> tuple[str, str]:
        """Batch and object_id."""
        return self.row["batch_id"], self.row["object_id"]


_Name = tuple[str, str]
"""Series and SOP Instance UID."""


class Places:
    """What is kept of places. found: by versions, scope, study and series. entries: of members, by archive."""

    def __init__(self) -> None:
        """Keeps nothing yet."""
        self.found: Kept[dict[_Name, Found]] = Kept(_KEPT_BYTES)
        self.entries: Kept[tuple[int, ...]] = Kept(_KEPT_BYTES // 4)


def url_of(base: str, row: Mapping[str, Any]) -> str:
    """The address of an instance. row: of `instance`."""
    return address(base, [row[one] for one in UIDS.values()])


def listed(snapshot: Snapshot, uids: Mapping[str, str], most: int | None = None) -> list[dict[str, Any]]:
    """The rows of `instance` of a study, series or instance, by number and UID; never two of one UID.

    uids: by name in a path. most: how many rows are given.

    Raises Refusal (404) when there is none.
    """
    rows = newest(snapshot, Level.INSTANCE, uids, columns=[*PLACED, "SeriesNumber", "InstanceNumber"])
    wanted = ", ".join(named(one) for one in PLACED)
    limit = f"LIMIT {most}" if most is not None else ""
    with snapshot.cursor() as connection:
        found = connection.execute(
            f"""
            -- one row per instance
            SELECT {wanted} FROM {rows.sql} AS instance
            ORDER BY SeriesNumber, SeriesInstanceUID, InstanceNumber, SOPInstanceUID {limit}
            """,
            [*rows.parameters],
        ).fetchall()
    if not found:
        raise not_found(list(uids)[-1])
    return [dict(zip(PLACED, row, strict=True)) for row in found]


def flat_source(
    snapshot: Snapshot,
    rows: Sequence[Mapping[str, Any]],
    uids: Mapping[str, str],
    columns: Sequence[str] | None = None,
) -> str:
    """SQL that stands for the rows of flat_metadata of instances, and perhaps of others of their series.

    rows: of `listed`, which the caller may see: where corrections have moved an object, its row stands in a study that
    the caller's scope may leave out. uids: as they were listed by. columns: that are given, None for all.
    """
    studies = {(row["source"], row["received_study_instance_uid"] or row["StudyInstanceUID"]) for row in rows}
    keys = {study_key(*one) for one in studies}
    within = {"batch_id": sorted({row["batch_id"] for row in rows}), "study_key": sorted(keys)}
    within |= {UIDS[one]: [uid] for one, uid in uids.items() if one != "study"}
    return snapshot.within(Scope()).scan("flat_metadata", within, columns)


def find(call: Call, uids: Mapping[str, str]) -> Found:
    """One instance and its object. Raises Refusal. Blocks."""
    snapshot = call.snapshot()
    kept = kept_of(call, snapshot, uids)
    if kept is not None:
        return kept
    of_series = {name: uids[name] for name in ("study", "series")}
    rows = listed(snapshot, of_series, SERIES_MOST + 1)
    if len(rows) > SERIES_MOST:
        return located(snapshot, listed(snapshot, uids), uids)[0]
    if all(row["SOPInstanceUID"] != uids["instance"] for row in rows):
        raise not_found("instance")
    return _keep(call, snapshot, of_series, rows)[_name(uids)]


def find_all(call: Call, uids: Mapping[str, str]) -> list[Found]:
    """The instances of a study, series or instance with their objects, as `listed`. Raises Refusal. Blocks."""
    if "instance" in uids:
        return [find(call, uids)]
    snapshot = call.snapshot()
    kept = call.served.part(Places).found
    found = kept.get(_key(snapshot, uids["study"], uids.get("series")))
    if found is None and (of_study := kept.get(_key(snapshot, uids["study"]))) is not None:
        found = {name: one for name, one in of_study.items() if name[0] == uids["series"]}
    return [*(found or _keep(call, snapshot, uids, listed(snapshot, uids))).values()]


def kept_of(call: Call, snapshot: Snapshot, uids: Mapping[str, str]) -> Found | None:
    """As `find`, where it is known already: the tables are not asked."""
    found, name = call.served.part(Places).found, _name(uids)
    for series in (uids["series"], None):
        kept = found.get(_key(snapshot, uids["study"], series))
        if kept is not None and name in kept:
            return kept[name]
    return None


def _keep(
    call: Call, snapshot: Snapshot, uids: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> dict[_Name, Found]:
    """The objects of all rows of a study or series, kept."""
    found = {(one.row["SeriesInstanceUID"], one.row["SOPInstanceUID"]): one for one in located(snapshot, rows, uids)}
    key = _key(snapshot, uids["study"], uids.get("series"))
    call.served.part(Places).found.keep(key, found, sum(map(_weight, found.values())))
    return found


def _name(uids: Mapping[str, str]) -> _Name:
    return uids["series"], uids["instance"]


def _key(snapshot: Snapshot, study: str, series: str | None = None) -> tuple[object, ...]:
    return snapshot.versions("study", "instance", "flat_metadata", "raw_files"), snapshot.scope, study, series


def _weight(found: Found) -> int:
    return _ROW_BYTES + 16 * len(found.pixels["frame_offsets"] or ())


def located(snapshot: Snapshot, rows: Sequence[Mapping[str, Any]], uids: Mapping[str, str]) -> list[Found]:
    """The objects of instances that were listed, in their order; arguments as of `flat_source`."""
    batches = sorted({row["batch_id"] for row in rows})
    columns = ", ".join(f"flat.{named(one)}" for one in _PIXELS)
    wanted = {(row["batch_id"], row["object_id"]) for row in rows}
    few = f"AND flat.object_id IN ({', '.join(quoted(name) for _, name in sorted(wanted))})" if len(wanted) < 20 else ""
    with snapshot.cursor() as connection:
        table = connection.sql(
            f"""
            -- one row per object: where its pixels lie, and version and size of the file that it is or lies in
            SELECT flat.batch_id, flat.object_id, {columns}, {FILE_ETAG} AS file_etag, {FILE_SIZE} AS file_size
            FROM {flat_source(snapshot, rows, uids, ("batch_id", "object_id", "uri", "operation", *_PIXELS))} AS flat
            {file_joins("flat", claimed_files(snapshot, batches))}
            WHERE flat.operation = 'upsert' {few}
            """
        ).to_arrow_table()
    known = {(one["batch_id"], one["object_id"]): one for one in table.to_pylist()}
    return [_found(row, known[row["batch_id"], row["object_id"]]) for row in rows]


def claimed_files(snapshot: Snapshot, batches: Sequence[str]) -> str:
    """SQL that stands for raw_files of some batches, for `files_of_objects`.

    Whoever may see an object may know its file: a scope says nothing of these.
    """
    return snapshot.within(Scope()).scan("raw_files", {"batch_id": [*batches]}, FILE_COLUMNS)


def _found(row: Mapping[str, Any], told: dict[str, Any]) -> Found:
    for name in ("frame_offsets", "frame_lengths"):
        if told[name]:
            told[name] = array.array("q", told[name])
    etag, size = told.pop("file_etag"), told.pop("file_size")
    if told["header_form"] == RECEIVED or etag is None:
        return Found(row, told)
    return Found(row, told, Place(row["uri"], etag, size, row["member"]))


# Objects


@contextmanager
def explained() -> Iterator[None]:
    """Turns what a store says of an object into what a client is told."""
    try:
        yield
    except ObjectArchived as error:
        raise Refusal(
            409, f"The object is in the {error.tier} tier of its storage; its bytes come when it is moved to another."
        ) from None
    except ObjectError as error:
        raise _refusal(error) from None
    except SourceUnavailable:
        raise _unreachable() from None


def _refusal(error: ObjectError) -> Refusal:
    if error.code == "OBJECT_GONE":
        return Refusal(410, "The object is not at its source any more.")
    if error.code == "SOURCE_UNAVAILABLE":
        return _unreachable()
    if error.code == "READ_FAILED":
        return Refusal(503, "The object cannot be read at the moment.", _RETRY)
    return Refusal(410, "What lies at the source is not what the lake has read there.")


def _elsewhere() -> Refusal:
    return Refusal(404, "The object lies with the DICOM service that has told of it, and not here.")


def _unreachable() -> Refusal:
    return Refusal(503, "The source of the object cannot be reached at the moment.", _RETRY)


def store_of(served: ServedLake, found: Found) -> LandingStore:
    """The store in which an object lies, which does not wait long: somebody else does. Raises Refusal."""
    store = served.store(found.row["source"])
    if isinstance(store, HurriedStore):
        store.hurry(STORE_SECONDS)
    return store


def check(served: ServedLake, found: Found) -> Refusal | None:
    """Why the file of an object, or of the archive that it lies in, cannot be read; None where it can, as it seems.

    A folder is asked; a container is not, since each read from it says which version it wants.
    """
    try:
        if found.place is None:
            raise _elsewhere()
        with explained():
            place = found.place._replace(member=None)
            OpenPlace(store_of(served, found), place, served.settings.archives).close()
    except Refusal as refusal:
        return refusal
    return None


def open_found(served: ServedLake, found: Found) -> OpenPlace:
    """The object of an instance, open; the caller closes it. Raises Refusal. Blocks."""
    if found.place is None:
        raise _elsewhere()
    store = store_of(served, found)
    with explained():
        place = found.place
        if place.member is None:
            return OpenPlace(store, place, served.settings.archives)
        entry = _entry(served, store, place, place.member)
        return OpenPlace(store, place._replace(entry=entry), served.settings.archives)


def _entry(served: ServedLake, store: LandingStore, place: Place, member: str) -> tuple[int, ...]:
    """Where the records of a member stand; its archive's directory is read once for all of its members."""
    entries, limits = served.part(Places).entries, served.settings.archives
    kept = entries.get((place.uri, place.etag, member))
    if kept is not None:
        return kept
    named = entries_at(store, place, limits)
    for name, entry in named.items() if len(named) <= _ENTRIES_MOST else [(member, named[member])]:
        entries.keep((place.uri, place.etag, name), entry, _ENTRY_BYTES)
    return named[member]
