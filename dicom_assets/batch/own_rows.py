"""What a batch has brought into the lake and cannot read again: its rows in the tables are its record of that.

Belongs here: staging a batch's own published rows, on a rerun, for objects whose bytes at the source are gone or others
now. Does not belong here: reading (`validate`), what leaves a batch (`leaving`).

A batch that is run again reads its objects anew. One that was replaced or deleted at the source since it was read
would drop out of the lake by that, although it was truly read: a run may be killed between the commit of flat_metadata
and the closing of the books, and the object be overwritten before the rerun. So what such an object has in the tables
stays, as it was read. An archive or window file stays with all of its members, which nobody can list any more. An
object of which the tables have no rows ends as gone or changed, as in a first run.

Places come first (`stage_places`), because raw_files is replaced before anything is read; the other rows when it is
known what could not be read (`stage_rows`). Both mark the objects in the staged raw_files by the code with which they
were found absent: what reads objects again, for a check, leaves these out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect, quoted, scan
from dicom_assets.lake.staging import SCHEMAS, Part, Staging, object_ids
from dicom_assets.schema.codes import ABSENT, CODES, Kind, Outcome
from dicom_assets.schema.correction_tables import State
from dicom_assets.schema.registry import CORRECTION

STAGE = "source"
CODE = "GONE_SINCE_READ"

FILE = 800_000
"""Number of the staged file that holds such rows, and of the first one of metadata; chunks are numbered from 0."""

ROWS_AT_ONCE = 2_000
"""Rows of metadata, with their headers, that are in memory at a time."""

_TOLD_LATER = ("IDENTITY_CHANGED", "CORRECTION_CONTRADICTED", "PATIENT_LINK_CYCLE", CODE)
"""Codes that are found when the rows are published, by what the tables hold then."""

_DECIDED = {"version_state": "VARCHAR", "identity_since": "TIMESTAMPTZ"}
_OF_A_PATIENT = ("PatientID", "IssuerOfPatientID", "patient_system")
_SAYS_ITSELF = "(patient_reference IS NULL OR record_type = 'Patient')"
"""SQL: a record names its patient by itself, and not by another record."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Record:
    """What the tables hold of one batch, without headers and records. manifest: as it was claimed."""

    lake: Lake
    staging: Staging
    manifest: pa.Table

    @cached_property
    def places(self) -> Mapping[str, Row]:
        """Its rows of raw_files."""
        return self._rows("raw_files", "*")

    @cached_property
    def ledger(self) -> Mapping[str, Row]:
        """Its rows of validated_batch."""
        return self._rows("validated_batch", "*")

    @cached_property
    def metadata(self) -> Mapping[str, Row]:
        """Its rows of flat_metadata, in few columns."""
        return self._rows("flat_metadata", "object_id, source, uri, member, size, operation, version_text, issues")

    @cached_property
    def tables(self) -> Collection[str]:
        """object_ids of clinical files that have records, whether these count or not, or that were replaced."""
        with self.lake.cursor() as connection:
            found = connection.execute(f"SELECT DISTINCT object_id FROM {self.records}").fetchall()
        return {name for (name,) in found} | self._replaced

    @property
    def _replaced(self) -> set[str]:
        """Of clinical files that it has ingested, those of which a later batch has ingested a newer version.

        The records of these have left the table for the newer ones. The ledger alone proves nothing: it is published
        before the records, and a run may end between the two.
        """
        if not any(row["kind"] == Kind.CLINICAL for row in self.ledger.values()):
            return set()
        mine = quoted(self.staging.batch_id)
        ingested = "SELECT batch_id, object_id FROM validated_batch WHERE outcome = 'ingested' AND kind = 'clinical'"
        with connect(self.lake, ["raw_files", "validated_batch"]) as connection:
            found = connection.execute(
                f"""
                SELECT DISTINCT own.object_id
                FROM raw_files AS own
                SEMI JOIN ({ingested}) AS older ON older.batch_id = own.batch_id AND older.object_id = own.object_id
                JOIN raw_files AS later ON later.source = own.source AND later.uri = own.uri
                    AND later.member IS NOT DISTINCT FROM own.member AND later.batch_id > own.batch_id
                SEMI JOIN ({ingested}) AS newer
                    ON newer.batch_id = later.batch_id AND newer.object_id = later.object_id
                WHERE own.batch_id = {mine}
                """
            ).fetchall()
        return {name for (name,) in found}

    @cached_property
    def corrections(self) -> Collection[str]:
        """object_ids of tables of corrections that have rows, whether these are in force or not."""
        return {*self._rows(CORRECTION.name, "DISTINCT object_id")}

    @property
    def records(self) -> str:
        """SQL for all rows that it has in clinical: the view of the table leaves out those that do not count."""
        batch_id = self.staging.batch_id
        source = scan(self.lake, "clinical", within={"batch_id": [batch_id]})
        return f"(SELECT * FROM {source} WHERE batch_id = {quoted(batch_id)})"

    def _rows(self, table: str, columns: str) -> dict[str, Row]:
        with connect(self.lake, [table], within=self.staging.scope(table)) as connection:
            found = arrow(connection, f"SELECT {columns} FROM {table}").to_pylist()
        return {row["object_id"]: row for row in found}

    @cached_property
    def claimed(self) -> Mapping[str, Row]:
        """The objects of the manifest."""
        return {row["object_id"]: row for row in self.manifest.to_pylist()}

    @cached_property
    def _by_uri(self) -> Mapping[str, str]:
        return {row["uri"]: name for name, row in self.claimed.items()}

    def owner(self, name: str) -> str | None:
        """The object of the manifest that an object is or lies in; None when nobody knows.

        A member that raw_files does not have any more is found by its metadata: an earlier release dropped such rows.
        """
        place = self.places.get(name)
        if place is not None:
            return place["container_id"] or name
        if name in self.claimed:
            return name
        row = self.metadata.get(name)
        return None if row is None or _kind(row) == Kind.CHANGE else self._by_uri.get(row["uri"])

    @cached_property
    def members(self) -> Mapping[str, Collection[str]]:
        """By object of the manifest, what lies in it."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for name in dict.fromkeys([*self.places, *self.metadata]):
            owner = self.owner(name)
            if owner is not None and owner != name:
                found[owner].append(name)
        return found

    @cached_property
    def brought(self) -> Collection[str]:
        """The objects of the manifest of which, or of whose members, the batch has metadata or records."""
        owners = {self.owner(name) for name in (*self.metadata, *self.tables, *self.corrections)}
        return {owner for owner in owners if owner is not None}

    def place(self, name: str) -> Row:
        """The row of raw_files of an object."""
        known = self.places.get(name)
        row = self.metadata.get(name)
        if known is not None and known["kind"] != Kind.OTHER:
            return known
        kind = Kind.CLINICAL if name in self.tables else Kind.ARCHIVE if self.members.get(name) else Kind.OTHER
        if name in self.corrections:
            kind = Kind.CORRECTION
        if row is not None:
            kind = _kind(row)
        if known is not None:
            return {**known, "kind": str(kind)}
        owner = self.owner(name)
        if owner is None:
            raise AssertionError("whatever belongs to an object of the manifest is asked for with it")
        told = {} if row is None else {column: row[column] for column in ("source", "member", "size")}
        inside = {"container_id": owner} if owner != name else {}
        return {**self.claimed[owner], "object_id": name, "kind": str(kind), **told, **inside}


def _kind(metadata: Row) -> Kind:
    return Kind.DICOM if metadata["version_text"] is None else Kind.CHANGE


def stage_places(lake: Lake, staging: Staging, manifest: pa.Table) -> int:
    """After a batch was expanded: stages the places of what it has brought and cannot open now.

    How many objects and members are staged in all. Raises LakeError.
    """
    raw = staging.read(Part.RAW, ["object_id", "container_id", "verdict"])
    absent = raw.filter(pc.and_(_is_absent(raw["verdict"]), pc.is_null(raw["container_id"])))
    if not len(absent):
        return len(raw)
    record = _Record(lake, staging, manifest)
    codes = dict(zip(object_ids(absent), absent["verdict"].to_pylist(), strict=True))
    codes = {name: code for name, code in codes.items() if name in record.brought}
    if not codes:
        return len(raw)
    rows = [
        {**record.place(name), "verdict": code}
        for owner, code in codes.items()
        for name in (owner, *record.members.get(owner, ()))
    ]
    total = len(raw) - len(codes) + len(rows)
    _replace(staging, Part.RAW, codes, rows)
    staging.complete(Part.RAW, total)
    return total


def stage_rows(lake: Lake, staging: Staging, manifest: pa.Table, run_id: str) -> int:
    """After a batch was read: stages the rows of what it has brought and could not read; of how many objects.

    Raises StagingMissing, LakeError.
    """
    ledger = staging.read_whole(Part.LEDGER, ["object_id", "code"])
    absent = ledger.filter(_is_absent(ledger["code"]))
    if not len(absent):
        return 0
    record = _Record(lake, staging, manifest)
    raw = staging.read_whole(Part.RAW, ["object_id", "container_id", "uri", "member", "kind"]).to_pylist()
    owners = {row["object_id"]: row["container_id"] or row["object_id"] for row in raw}
    codes = dict(zip(object_ids(absent), absent["code"].to_pylist(), strict=True))
    kept = {owners[name]: code for name, code in codes.items() if owners[name] in record.brought}
    if not kept:
        return 0
    places = {row["object_id"]: row for row in raw if owners[row["object_id"]] in kept}
    judged = {
        name: _judged(record, place, codes.get(name) or kept[owners[name]], staging.batch_id)
        for name, place in places.items()
    }
    _mark(staging, {name: kept[owners[name]] for name in places})
    _replace(staging, Part.LEDGER, places, judged.values())
    taken = {name for name, row in judged.items() if row["outcome"] in (Outcome.INGESTED, Outcome.DELETED)}
    _replace(staging, Part.ERRORS, places, _errors(record, places, judged, kept, run_id))
    _replace(staging, Part.FLAT, places, ())
    _replace(staging, Part.CLINICAL, places, ())
    _replace(staging, Part.CORRECTION, places, ())
    _stage_metadata(record, taken)
    _stage_records(record, taken)
    _stage_corrections(record, taken)
    for part in (Part.LEDGER, Part.FLAT, Part.CLINICAL, Part.CORRECTION, Part.ERRORS):
        staging.complete_as_it_is(part)
    return len(places)


def _judged(record: _Record, place: Row, absent: str, batch_id: str) -> Row:
    """The row of the ledger of an object: as the batch had it, where that has rows or was refused."""
    name = place["object_id"]
    known = record.ledger.get(name)
    is_sound = known is not None and known["code"] not in ABSENT
    metadata = record.metadata.get(name)
    if metadata is not None:
        outcome = Outcome.DELETED if metadata["operation"] == "delete" else Outcome.INGESTED
        code = known["code"] if known is not None and is_sound else next(iter(metadata["issues"] or ()), None)
    elif name in record.tables or name in record.corrections:
        outcome, code = Outcome.INGESTED, known["code"] if known is not None and is_sound else None
    elif known is not None and is_sound and known["outcome"] in (Outcome.QUARANTINED, Outcome.IGNORED):
        return known
    elif record.members.get(name):
        outcome, code = Outcome.IGNORED, "ARCHIVE_EXPANDED"
    else:
        outcome, code = Outcome.QUARANTINED, absent
    judged_at = known["judged_at"] if known is not None and is_sound else datetime.now(UTC)
    return {
        "batch_id": batch_id,
        "object_id": name,
        "outcome": str(outcome),
        "code": code,
        "kind": place["kind"],
        "judged_at": judged_at,
    }


def _errors(
    record: _Record,
    places: Mapping[str, Row],
    judged: Mapping[str, Row],
    kept: Mapping[str, str],
    run_id: str,
) -> Iterable[Row]:
    """Error rows of objects: those that the table has, those that it has not got yet, and one for each that is absent.

    A run publishes errors last, so that one that was cut off may have published metadata without them.
    """
    expected = {
        name: dict.fromkeys([*([row["code"]] if row["code"] else []), *_issues(record, name)])
        for name, row in judged.items()
    }
    for row in _known_errors(record, places):
        name, code = row["object_id"], row["code"]
        if row["stage"] == "read":
            if code not in expected[name]:
                continue  # of a run that found it absent
            del expected[name][code]
        yield row
    told = [(name, "read", code) for name, codes in expected.items() for code in codes]
    told += [(owner, STAGE, CODE) for owner in kept]
    for name, stage, code in told:
        yield {
            "batch_id": record.staging.batch_id,
            "object_id": name,
            "stage": stage,
            "code": code,
            "record": 0,
            "severity": str(CODES[code].severity),
            "detail": f"{kept[name]}: {CODES[code].meaning}" if code == CODE else CODES[code].meaning,
            "uri": places[name]["uri"],
            "member": places[name]["member"],
            "occurred_at": datetime.now(UTC),
            "run_id": run_id,
        }


def _issues(record: _Record, name: str) -> Iterable[str]:
    metadata = record.metadata.get(name)
    return () if metadata is None else metadata["issues"] or ()


def _known_errors(record: _Record, names: Mapping[str, Row]) -> list[dict[str, Any]]:
    with connect(record.lake, ["ingestion_errors"], within=record.staging.scope("ingestion_errors")) as connection:
        connection.register("names", _table_of(names))
        codes = ", ".join(f"'{code}'" for code in _TOLD_LATER)
        rows: list[dict[str, Any]] = arrow(
            connection,
            "SELECT * FROM ingestion_errors SEMI JOIN names USING (object_id) "
            f"WHERE stage IN ('read', 'record') AND code NOT IN ({codes})",
        ).to_pylist()
    return rows


def _stage_metadata(record: _Record, names: Collection[str]) -> None:
    with connect(record.lake, ["flat_metadata"], within=record.staging.scope("flat_metadata")) as connection:
        connection.register("names", _table_of(names))
        found = connection.sql("SELECT * FROM flat_metadata SEMI JOIN names USING (object_id)")
        for number, batch in enumerate(found.to_arrow_reader(ROWS_AT_ONCE)):
            rows = pa.Table.from_batches([batch]).select(SCHEMAS[Part.FLAT].names).cast(SCHEMAS[Part.FLAT])
            record.staging.put(Part.FLAT, FILE + number, rows)


def _stage_records(record: _Record, names: Collection[str]) -> None:
    """Records as they were read: which version counts and whom a reference names is decided when they are published.

    Those that a newer version has replaced since are in the table no more.
    """
    told = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in _DECIDED.items())
    told += "".join(f', CASE WHEN {_SAYS_ITSELF} THEN "{name}" END AS "{name}"' for name in _OF_A_PATIENT)
    with record.lake.cursor() as connection:
        connection.register("names", _table_of(names))
        found = connection.sql(f"SELECT * REPLACE ({told}) FROM {record.records} SEMI JOIN names USING (object_id)")
        for number, batch in enumerate(found.to_arrow_reader(ROWS_AT_ONCE)):
            rows = pa.Table.from_batches([batch]).select(SCHEMAS[Part.CLINICAL].names).cast(SCHEMAS[Part.CLINICAL])
            record.staging.put(Part.CLINICAL, FILE + number, rows)


def _stage_corrections(record: _Record, names: Collection[str]) -> None:
    """Corrections as they were read: which are in force is decided when they are published."""
    scope = record.staging.scope(CORRECTION.name)
    with connect(record.lake, [CORRECTION.name], within=scope) as connection:
        connection.register("names", _table_of(names))
        sql = f"SELECT * REPLACE ('{State.IN_FORCE}' AS state) FROM {CORRECTION.name} SEMI JOIN names USING (object_id)"
        rows = arrow(connection, sql).select(CORRECTION.schema.names).cast(CORRECTION.schema)
    if len(rows):
        record.staging.put(Part.CORRECTION, FILE, rows)


def _mark(staging: Staging, codes: Mapping[str, str]) -> None:
    """Enters in the staged raw_files the codes with which objects were found absent."""
    for name in staging.names(Part.RAW):
        rows = pa.Table.from_batches(staging.files.arrow_batches(name), SCHEMAS[Part.RAW])
        before = rows["verdict"].to_pylist()
        after = [codes.get(one, old) for one, old in zip(object_ids(rows), before, strict=True)]
        if after != before:
            place = rows.schema.get_field_index("verdict")
            marked = rows.set_column(place, rows.schema.field(place), pa.array(after, pa.string()))
            staging.put(Part.RAW, _number(name), marked)


def _replace(staging: Staging, part: Part, names: Collection[str], rows: Iterable[Row]) -> None:
    """Takes the rows of some objects out of a part, and stages others in a file of their own."""
    gone = pa.array(list(names), pa.string())
    for name in staging.names(part):
        found = pa.Table.from_batches(staging.files.arrow_batches(name), SCHEMAS[part])
        left = found.filter(pc.invert(pc.is_in(found["object_id"], value_set=gone)))
        if len(left) < len(found):
            staging.put(part, _number(name), left)
    made = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMAS[part])
    if len(made):
        staging.put(part, FILE, made)


def _number(name: str) -> int:
    return int(name.rpartition("/")[2].removesuffix(".arrow"))


def _table_of(names: Iterable[str]) -> pa.Table:
    return pa.table({"object_id": pa.array(sorted(names), pa.string())})


def _is_absent(codes: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.is_in(codes, value_set=pa.array(sorted(ABSENT), pa.string())), False)
