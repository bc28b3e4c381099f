"""Taking what is erased out of the tables: rows go, books keep a nameless one, and what follows from them is made anew.

Belongs here: each table's turn. Each may be done twice, so that an erasure that was killed is done again from its
record. Does not belong here: which rows hold something (`row_rules`), older versions of tables (`lake.history`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.books import Status, all_books
from dicom_assets.batch.erasure import row_rules
from dicom_assets.batch.erasure.record import Record
from dicom_assets.batch.publish import publish_hierarchy
from dicom_assets.batch.standards import (
    publish_coverage,
    publish_diagnostic_report,
    publish_imaging_study,
    publish_occurrences,
    write_ndjson_again,
)
from dicom_assets.curation.digest_index import enter_anew
from dicom_assets.curation.duplicates import make_again
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.hierarchy import REBUILDS
from dicom_assets.lake.query import arrow, scan
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.landing.refusals import CODE
from dicom_assets.schema.codes import CODES, Kind, Outcome
from dicom_assets.schema.registry import DUPLICATE, INGESTION_ERRORS, OVERWRITTEN, TABLES
from dicom_assets.settings import Settings

BATCHES_AT_ONCE = 50
"""Batches whose rows of the books are in memory together."""
ROWS_AT_ONCE = 2_000
"""Rows with headers that are in memory together."""
_RETIRED = "erased-"
_MADE_ANEW = frozenset((*REBUILDS, "imaging_study", "image_occurrence_origin", "mapping_coverage"))


def take_out(lake: Lake, record: Record, settings: Settings) -> None:
    """Takes everything of a record out of every table. Raises LakeError, MappingError."""
    _out_of_books(lake, record)
    _enter_reasons(lake, record)
    own = {"raw_files", "validated_batch", "ingestion_errors", "overwritten", "batch_study", DUPLICATE.name}
    own.add(row_rules.NUMBERS)
    for name, sql in row_rules.each(lambda table: table.name not in own | _MADE_ANEW).items():
        _drop(lake, record, name, sql)
    _out_of_places(lake, record)
    _out_of_duplicates(lake, record)
    _make_anew(lake, record, settings)
    _drop(lake, record, "batch_study", row_rules.each()["batch_study"])
    _retire(lake, record)
    publish_coverage(lake)


def _groups(values: Sequence[str], at_once: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), at_once):
        yield values[start : start + at_once]


def _rows_of(lake: Lake, name: str, batches: Sequence[str]) -> pa.Table:
    """The rows of some batches."""
    with lake.cursor() as connection:
        connection.register("wanted", pa.table({"batch_id": pa.array(batches, pa.string())}))
        source = scan(lake, name, within={"batch_id": batches})
        found = connection.sql(f"FROM {source} SEMI JOIN wanted USING (batch_id)").to_arrow_table()
    return found.select(TABLES[name].schema.names).cast(TABLES[name].schema)


def _out_of_books(lake: Lake, record: Record) -> None:
    """In raw_files and the ledger a row stays for each object, which says nothing but what became of it."""
    closed = {books.batch_id for books in all_books(lake) if books.status == Status.CLOSED}
    batches = sorted({batch for of in record.objects.values() for batch in of})
    for group in _groups(batches, BATCHES_AT_ONCE):
        for name, change in (("raw_files", nameless), ("validated_batch", lambda r, t: outcomes(r, t, closed))):
            with lake.committing(name):
                rows = _rows_of(lake, name, group)
                changed = change(record, rows)
                if not changed.equals(rows):
                    lake.replace(name, group, changed)


def nameless(record: Record, rows: pa.Table) -> pa.Table:
    """Rows of raw_files, of a claim or of what is staged of it, in which objects that are erased have lost their names.

    Columns that a table does not have are passed over. A member whose archive stays keeps the archive's time.
    """
    new = {one: record.name_of(one) for one in record.objects}
    listed = rows.to_pylist()
    for row in listed:
        if row["object_id"] not in new:
            continue
        container = row.get("container_id")
        name = new[row["object_id"]]
        told: dict[str, Any] = {"object_id": name, "uri": record.uri_of(row["object_id"]), "etag": "", "size": 0}
        told |= {"kind": str(Kind.ERASED), "verdict": CODE, "detail": None, "entry": None, "at": None}
        told |= {"container_size": None, "member": None if row.get("member") is None else name}
        if container is None or container in new:
            told |= {"modified_at": None, "container_id": new.get(container or "")}
        row.update({column: value for column, value in told.items() if column in row})
    return pa.Table.from_pylist(listed, schema=rows.schema)


def outcomes(record: Record, rows: pa.Table, closed: Iterable[str]) -> pa.Table:
    """Rows of the ledger in which objects that are erased have lost their names.

    In closed books their outcome stays; what a batch that is not closed has not brought yet, it ignores.
    """
    known, done = set(closed), set(record.objects)
    listed = rows.to_pylist()
    for row in listed:
        if row["object_id"] in done:
            is_closed = row["batch_id"] in known
            row.update(object_id=record.name_of(row["object_id"]), kind=str(Kind.ERASED), code=CODE)
            row["outcome"] = row["outcome"] if is_closed else str(Outcome.IGNORED)
    return pa.Table.from_pylist(listed, schema=rows.schema)


def _enter_reasons(lake: Lake, record: Record) -> None:
    """Takes out what ingestion_errors says of objects and records that go, and enters that they were erased."""
    for group in _groups(record.batches, BATCHES_AT_ONCE):
        with lake.committing(INGESTION_ERRORS.name):
            rows = _rows_of(lake, INGESTION_ERRORS.name, group)
            lake.replace(INGESTION_ERRORS.name, group, reasons(record, rows, group))
    if record.uris:
        _drop(lake, record, INGESTION_ERRORS.name, "uri IN (SELECT uri FROM erased_uris)")


def reasons(record: Record, rows: pa.Table, batches: Sequence[str]) -> pa.Table:
    """Rows of ingestion_errors of some batches, as they are when a record's objects and clinical records have gone."""
    kept = rows.filter(pc.invert(pc.is_in(rows["object_id"], pa.array(list(record.objects), pa.string()))))
    gone: defaultdict[tuple[str, str], int] = defaultdict(int)
    for batch, one, _, _, counted in record.records:
        gone[batch, one] += counted
    own: list[dict[str, Any]] = []
    for batch in batches:
        for one in record.ids_of(batch):
            own.append(_reason(record, batch, record.name_of(one), "read", 0))
    for (batch, one), number in gone.items():
        if batch in batches:
            name = record.name_of(one) if one in record.objects else one
            own += [_reason(record, batch, name, "record", place) for place in range(1, number + 1)]
    key = [column for column in INGESTION_ERRORS.key if column != "record"]
    last: dict[tuple[Any, ...], int] = {}
    for row in kept.select([*key, "record", "run_id"]).to_pylist():
        place = tuple(row[column] for column in key)
        if row["code"] == CODE and row["run_id"] != record.erasure_id:
            last[place] = max(last.get(place, 0), row["record"])
    for row in own:  # after those of earlier erasures
        row["record"] += last.get(tuple(row[column] for column in key), 0)
    is_own = pc.fill_null(pc.equal(kept["run_id"], record.erasure_id), False)
    fresh = pa.Table.from_pylist(own, schema=INGESTION_ERRORS.schema)
    return pa.concat_tables([kept.filter(pc.invert(is_own)), fresh])


def _reason(record: Record, batch: str, name: str, stage: str, place: int) -> dict[str, Any]:
    return {
        "batch_id": batch,
        "object_id": name,
        "stage": stage,
        "code": CODE,
        "record": place,
        "severity": str(CODES[CODE].severity),
        "detail": "It was erased.",
        "occurred_at": datetime.fromisoformat(record.at),
        "run_id": record.erasure_id,
    }


def _drop(lake: Lake, record: Record, name: str, sql: str) -> None:
    """Takes the rows out of a table for which SQL holds."""
    table = lake.tables[name]
    with lake.committing(name):
        with lake.cursor() as connection:
            row_rules.register(connection, record)
            connection.register("erased_uris", pa.table({"uri": pa.array(record.uris, pa.string())}))
            found = connection.execute(
                f"SELECT DISTINCT {table.replaced_by} FROM {scan(lake, name)} WHERE {sql}"
            ).fetchall()
        values = sorted(value for (value,) in found)
        if not values:
            return
        if table.replaced_by == "batch_id":
            for value in values:  # one at a time: a batch has thousands of headers
                lake.replace(name, [value], partial(_kept, lake, record, name, sql, value))
            return
        rows = [pa.Table.from_batches(_kept(lake, record, name, sql, value), table.schema) for value in values]
        lake.replace(name, values, pa.concat_tables([table.schema.empty_table(), *rows]))


def _kept(lake: Lake, record: Record, name: str, sql: str, value: str) -> Iterator[pa.RecordBatch]:
    """The rows of a table with one value of what it is replaced by, but for those for which SQL holds."""
    table = lake.tables[name]
    listed = ", ".join(f'"{column}"' for column in table.schema.names)
    source = scan(lake, name, within={table.replaced_by: [value]})
    kept = f"SELECT {listed} FROM {source} WHERE {table.replaced_by} = $value AND NOT coalesce({sql}, false)"
    with lake.cursor() as connection:
        row_rules.register(connection, record)
        connection.register("erased_uris", pa.table({"uri": pa.array(record.uris, pa.string())}))
        for batch in connection.sql(kept, params={"value": value}).to_arrow_reader(ROWS_AT_ONCE):
            yield batch.cast(table.schema)


def _out_of_places(lake: Lake, record: Record) -> None:
    """The last claim of a place stays known while older objects of the place are there: by its new name.

    Otherwise what it had replaced would be current again.
    """
    with lake.committing(OVERWRITTEN.name):
        with lake.cursor() as connection:
            row_rules.register(connection, record)
            rows = connection.sql(
                f"FROM {scan(lake, OVERWRITTEN.name)} WHERE {row_rules.each()[OVERWRITTEN.name]}"
            ).to_arrow_table()
            if not len(rows):
                return
            connection.register("last", rows)
            held = connection.execute(
                f"SELECT DISTINCT place_key FROM last SEMI JOIN {scan(lake, 'flat_metadata')} AS flat "
                "ON flat.source = last.source AND flat.uri = last.uri AND flat.member IS NOT DISTINCT FROM last.member"
            ).fetchall()
        names = [record.name_of(one) for one in rows["object_id"].to_pylist()]
        renamed = rows.select(OVERWRITTEN.schema.names).cast(OVERWRITTEN.schema)
        renamed = renamed.set_column(renamed.column_names.index("object_id"), OVERWRITTEN.schema.field("object_id"),
                                     pa.array(names, pa.string()))  # fmt: skip
        still = pa.array([key for (key,) in held], pa.string())
        lake.replace(
            OVERWRITTEN.name, rows["place_key"].to_pylist(), renamed.filter(pc.is_in(renamed["place_key"], still))
        )


def _out_of_duplicates(lake: Lake, record: Record) -> None:
    """Groups that have lost a member are made again: what is there once then is no duplicate any more."""
    for group in _groups(sorted({batch for of in record.objects.values() for batch in of}), BATCHES_AT_ONCE):
        enter_anew(lake, group)
    with lake.cursor() as connection:
        row_rules.register(connection, record)
        sql = f"SELECT DISTINCT shared_key FROM {scan(lake, DUPLICATE.name)} WHERE {row_rules.each()[DUPLICATE.name]}"
        keys = arrow(connection, sql)["shared_key"]
    if len(keys):
        make_again(lake, keys)


def _make_anew(lake: Lake, record: Record, settings: Settings) -> None:
    """Makes what follows from flat_metadata anew for the studies that have lost rows, as a batch does."""
    touched = sorted({*record.touched, *record.siblings})
    staging = Staging(lake.files, f"erasure-{record.erasure_id}")
    try:
        for part in Part:
            staging.stage(part, SCHEMAS[part].empty_table())
        staging.stage(Part.TOUCHED, pa.table({"study_key": touched}, schema=SCHEMAS[Part.TOUCHED]))
        for name in REBUILDS:
            publish_hierarchy(lake, staging, name)
        publish_diagnostic_report(lake, staging)  # by names that imaging_study still has
        publish_imaging_study(lake, staging, settings)
        for name in (*REBUILDS, "imaging_study", "image_occurrence_origin"):  # a study without rows is told by nobody
            _drop(lake, record, name, row_rules.each()[name])
        staging.stage(Part.TOUCHED, pa.table({"study_key": _there(lake, touched)}, schema=SCHEMAS[Part.TOUCHED]))
        for name in ("image_occurrence", "image_occurrence_origin"):
            publish_occurrences(lake, staging, settings, name)
    finally:
        staging.remove()
    for batch in record.indexed:
        write_ndjson_again(lake, batch)


def _there(lake: Lake, touched: Sequence[str]) -> list[str]:
    """Those of some studies that the table of studies has."""
    with lake.cursor() as connection:
        connection.register("touched", pa.table({"study_key": pa.array(touched, pa.string())}))
        source = scan(lake, "study", within={"study_key": touched})
        found = connection.execute(f"SELECT study_key FROM {source} SEMI JOIN touched USING (study_key)").fetchall()
    return sorted(key for (key,) in found)


def _retire(lake: Lake, record: Record) -> None:
    """Ids of OMOP that nobody uses any more stay given out, and stand for nothing: their natural keys are hashes."""
    name = row_rules.NUMBERS
    gone = {*record.retired}
    with lake.committing(name):
        with lake.cursor() as connection:
            row_rules.register(connection, record)
            sql = f"SELECT DISTINCT batch_id FROM {scan(lake, name)} WHERE {row_rules.each()[name]}"
            batches = sorted(batch for (batch,) in connection.execute(sql).fetchall())
        for group in _groups(batches, BATCHES_AT_ONCE):
            listed = _rows_of(lake, name, group).to_pylist()
            for row in listed:
                if (row["domain"], row["id"]) in gone and not row["natural_key"].startswith(_RETIRED):
                    row["natural_key"] = f"{_RETIRED}{record.name_of(row['natural_key'])}"
            lake.replace(name, group, pa.Table.from_pylist(listed, schema=TABLES[name].schema))


def counts(record: Record) -> Mapping[str, int]:
    """How much an erasure takes, for the table of erasures and for whoever asked."""
    return {
        "objects": len(record.objects),
        "records": sum(counted for *_, counted in record.records),
        "studies": len(record.whole),
        "rows": sum(record.rows.values()),
    }
