"""From staging to the shared tables: each function publishes one table for one batch, idempotently.

Belongs here: which rows of a table a batch replaces, and by what. Does not belong here: the commit itself
(`lake.delta`), the SQL of the hierarchy (`lake.hierarchy`), clinical records (`batch.clinical`), the tables of FHIR and
OMOP (`batch.standards`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.withdrawals import GONE, LEFT_OUT
from dicom_assets.curation import digest_index
from dicom_assets.lake import moved_studies, overwritten, studies
from dicom_assets.lake.choice import DEFAULT, Choice
from dicom_assets.lake.column_list import ColumnsChanged
from dicom_assets.lake.corrected_objects import OBJECT_COLUMNS
from dicom_assets.lake.corrected_objects import TABLES as CORRECTION_TABLES
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.hierarchy import CORRECTED_INSTANCE_SQL, REBUILDS, needed, rebuild_sql, with_promoted
from dicom_assets.lake.query import arrow, connect, few, readable, shown
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.reading.memory import give_back
from dicom_assets.schema.codes import NOT_ARRIVED, Kind
from dicom_assets.schema.registry import BATCH_STUDY, INSTANCE, OVERWRITTEN, TABLES


def publish_rows(lake: Lake, staging: Staging, part: Part) -> int:
    """Replaces a batch's rows of raw_files, validated_batch or ingestion_errors by the staged ones; how many.

    Raises StagingMissing, and then replaces nothing.
    """
    name = str(part)
    names = TABLES[name].schema.names
    rows = staging.read_whole(part, names) if part is not Part.RAW else _lying(staging.read_whole(part)).select(names)
    with lake.committing(name):
        lake.replace(name, [staging.batch_id], rows)
    return len(rows)


def _lying(raw: pa.Table) -> pa.Table:
    """Staged raw_files with the places where objects lie now: those that they were claimed at may be others' by now."""
    at = raw["at"].combine_chunks()
    if at.null_count == len(at):
        return raw
    for name in ("uri", "member", "etag"):
        there = pc.if_else(at.is_valid(), pc.struct_field(at, name), raw[name].combine_chunks())
        raw = raw.set_column(raw.schema.get_field_index(name), raw.schema.field(name), there)
    return raw


Before = Mapping[str, Sequence[str]]
"""By uri of a batch, the batches that had claimed it before."""


def publish_flat(lake: Lake, staging: Staging, before: Callable[[], Before] = dict) -> int:
    """Replaces a batch's rows of flat_metadata by the staged ones; how many. Raises StagingMissing, LakeError.

    before: asked for the uris that earlier batches had claimed.

    What the batch overwrites is entered before anything else: an earlier batch that is published only now either has
    its rows found below, or finds this entry when it rebuilds its studies. The studies that the batch touches, by its
    new rows, by those it had and by those that it overwrites, with those to which corrections move objects of these,
    are staged next, and so is what objects share that come or go by it: a kill behind that leaves no study and no group
    of duplicates that would have to be made again.
    """
    rows = staging.require_all(Part.FLAT, "object_id")
    studies.build(lake)
    earlier = before()
    claims = claims_again(staging, earlier)
    overwritten.enter(lake, claims)
    absent = claims_again(staging, earlier, arrived=False)
    overwritten.withdraw(lake, absent, sorted({one for uri in absent["uri"].to_pylist() for one in earlier[uri]}))
    with lake.committing("flat_metadata"):
        places = pa.concat_tables([claims, absent])
        touched = _touched(lake, staging, places, earlier)
        digest_index.stage_keys(lake, staging, places, _batches_before(places, earlier))
        staging.put(Part.TOUCHED, 0, touched)
        staging.complete(Part.TOUCHED, len(touched))
        studies.enter(lake, staging.batch_id, touched["study_key"].to_pylist())
        lake.replace("flat_metadata", [staging.batch_id], lambda: staging.batches(Part.FLAT))
    return rows


def claims_again(staging: Staging, earlier: Before, *, arrived: bool = True) -> pa.Table:
    """The batch's objects and members whose uri was claimed before, whatever became of those that were there.

    arrived: whether those that came there are asked for, or those that did not.

    What was not there as it was claimed overwrites nothing: it may have been claimed once more, with a newer version in
    its place. Entries of a service's changes have no place of their own; a delete of what is gone has, one of members
    that an archive has no more has theirs.
    """
    names = [name for name in OVERWRITTEN.schema.names if name != "place_key"]
    if not earlier:
        return TABLES["raw_files"].schema.empty_table().select(names)
    rows = staging.read_whole(Part.RAW, [*names, "kind", "etag"])
    again = pc.is_in(rows["uri"], pa.array(list(earlier), pa.string()))
    left_out = pc.and_(pc.starts_with(rows["etag"], LEFT_OUT), pc.is_valid(rows["member"]))
    deletes = pc.or_(pc.starts_with(rows["etag"], GONE), left_out)
    has_place = pc.or_(pc.not_equal(rows["kind"], str(Kind.CHANGE)), deletes)
    rows = rows.filter(pc.and_(again, has_place)).select(names)
    if not len(rows):
        return rows
    ledger = staging.read_whole(Part.LEDGER, ["object_id", "code"])
    absent = ledger.filter(pc.is_in(ledger["code"], pa.array(sorted(NOT_ARRIVED))))["object_id"]
    is_absent = pc.is_in(rows["object_id"], absent.combine_chunks())
    return rows.filter(pc.invert(is_absent) if arrived else is_absent)


def _batches_before(claims: pa.Table, earlier: Before) -> list[str]:
    """The batches that had claimed the places of some claims before."""
    return sorted({batch for uri in claims["uri"].unique().to_pylist() for batch in earlier[uri]})


def _overwritten_studies(lake: Lake, claims: pa.Table, earlier: Before) -> set[str]:
    """The studies of what earlier batches had found at the places of these claims."""
    if not len(claims):
        return set()
    batches = _batches_before(claims, earlier)
    with connect(lake, ["flat_metadata"], within={"flat_metadata": {"batch_id": batches}}) as connection:
        connection.register("claims", claims)
        found = connection.execute(
            "SELECT DISTINCT study_key FROM flat_metadata AS flat JOIN claims ON claims.source = flat.source "
            "AND claims.uri = flat.uri AND claims.member IS NOT DISTINCT FROM flat.member"
        ).fetchall()
    return {key for (key,) in found}


def _touched(lake: Lake, staging: Staging, claims: pa.Table, earlier: Before) -> pa.Table:
    keys = set(staging.read(Part.FLAT, ["study_key"])["study_key"].unique().to_pylist())
    keys.update(staging.read(Part.TOUCHED)["study_key"].to_pylist())
    keys |= _overwritten_studies(lake, claims, earlier)
    # The index as well: what the batch had overwritten is not known any more where its own object was erased.
    scope = {"batch_id": [staging.batch_id]}
    both = (shown(lake, name, scope, "study_key") for name in ("flat_metadata", BATCH_STUDY.name))
    with readable("flat_metadata", BATCH_STUDY.name), lake.cursor() as connection:
        had = connection.execute(" UNION ".join(f"FROM {rows}" for rows in both)).fetchall()
    keys.update(key for (key,) in had)
    if moved_studies.any_in(lake):
        arriving = staging.read(Part.FLAT, [*OBJECT_COLUMNS])
        keys |= moved_studies.enter_moves(lake, staging.batch_id, moved_studies.moves_of(lake, arriving))
        keys |= moved_studies.targets_of(lake, keys)
    return pa.table({"study_key": sorted(keys)}, schema=pa.schema([pa.field("study_key", pa.string())]))


def touched_studies(staging: Staging) -> pa.Table:
    """The study_keys that a batch touches. Raises StagingMissing when flat_metadata was not published."""
    return staging.read_whole(Part.TOUCHED)


ROWS_AT_ONCE = 20_000
"""Rows of 150 columns that are put together at a time: they take DuckDB 200 MB."""

FEW_ROWS = 1_000
"""Rows so few that to copy them costs less than to set the statement up twice."""

TRIES_OF_COLUMNS = 2
"""How often rows are made again because the table has got other columns meanwhile."""

COMMIT_ROWS = 40_000
"""Rows that are committed at a time, so that a batch of usual size commits a table once: 1.5 KB each in memory."""


def _rebuilt(
    connection: duckdb.DuckDBPyConnection, sql: str, touched: pa.Table, source: str, is_corrected: bool
) -> Iterator[tuple[list[str], pa.Table]]:
    """What a rebuild gives, for some of the touched studies after the other.

    source: the table that it reads. is_corrected: whether its SQL asks for `origins` as well.
    """
    connection.register("all_touched", touched)
    moves = _moves(connection) if is_corrected else None
    sizes = connection.execute(
        f"SELECT study_key, count({source}.study_key) FROM all_touched LEFT JOIN {source} USING (study_key) "
        "GROUP BY 1 ORDER BY 1"
    ).fetchall()
    held: list[str] = []
    rows = 0
    for index, (key, size) in enumerate(sizes):
        held.append(key)
        rows += size
        if rows >= ROWS_AT_ONCE or index == len(sizes) - 1:
            connection.register("touched", pa.table({"study_key": pa.array(held, pa.string())}))
            if moves is not None:
                origins = sorted({*held, *(origin for key in held for origin in moves.get(key, ()))})
                connection.register("origins", pa.table({"study_key": pa.array(origins, pa.string())}))
            yield held, (few if rows <= FEW_ROWS else arrow)(connection, sql)
            held, rows = [], 0


def _moves(connection: duckdb.DuckDBPyConnection) -> Mapping[str, Sequence[str]]:
    """By study, those of which corrections move objects to it."""
    found: dict[str, list[str]] = defaultdict(list)
    sql = "SELECT DISTINCT target_key, study_key FROM moved_study WHERE target_key IN (SELECT study_key FROM {})"
    for target, origin in connection.execute(sql.format("all_touched")).fetchall():
        found[target].append(origin)
    return found


def publish_hierarchy(lake: Lake, staging: Staging, name: str, choice: Choice = DEFAULT) -> int:
    """Rebuilds the touched studies of instance, series or study from all their rows; how many rows they now have.

    choice: which of several values a series or study shows.

    Reading and commit happen under the table's lock, so that of two batches that touch one study the later publisher
    has read what the earlier one wrote. A batch that touches many old rows makes a commit for every COMMIT_ROWS of
    them; each study is replaced whole.
    """
    touched = touched_studies(staging)
    for _ in range(TRIES_OF_COLUMNS):
        try:
            return _publish_level(lake, touched, name, choice)
        except ColumnsChanged:  # promoted, or taken away again, since the lake was opened
            continue
    return _publish_level(lake, touched, name, choice)


def _publish_level(lake: Lake, touched: pa.Table, name: str, choice: Choice) -> int:
    sql, sources = rebuild_sql(name, choice), REBUILDS[name]
    # Sorted here, because DuckDB takes many times the memory for rows of so many columns.
    order = ["study_key", *(column for column in TABLES[name].key if column.endswith("InstanceUID"))]
    published = 0
    with lake.committing(name):
        schema = lake.tables[name].schema
        wanted = touched["study_key"].to_pylist()
        is_corrected = name == INSTANCE.name and moved_studies.any_in(lake)
        origins = moved_studies.origins_of(lake, wanted) if is_corrected else wanted
        scope = studies.study_scope(lake, sources, origins)
        if name == INSTANCE.name:
            scope = {**scope, **overwritten.scope_of(lake, sorted(origins), scope["flat_metadata"])}
        sql = CORRECTED_INSTANCE_SQL if is_corrected else sql
        promoted = [one.column.name for one in lake.columns if name in one.written]
        sql = with_promoted(name, sql, promoted, "origins" if is_corrected else "touched")
        tables = [*scope, *(CORRECTION_TABLES if is_corrected else ())]
        columns = {} if name == INSTANCE.name else {INSTANCE.name: needed(name, promoted)}
        with connect(lake, tables, within=scope, columns=columns) as connection:
            keys: list[str] = []
            parts: list[pa.Table] = []
            for more, rebuilt in _rebuilt(connection, sql, touched, sources[-1], is_corrected):
                keys += more
                ordered = rebuilt.select(schema.names).sort_by([(column, "ascending") for column in order])
                parts.append(ordered.cast(schema))
                del rebuilt
                give_back(lake)
                if sum(map(len, parts)) >= COMMIT_ROWS:
                    published += _replace(lake, name, keys, parts)
                    keys, parts = [], []
            published += _replace(lake, name, keys, parts)
    return published


def _replace(lake: Lake, name: str, keys: Sequence[str], parts: Sequence[pa.Table]) -> int:
    if not keys:
        return 0
    rows = pa.concat_tables(parts)
    lake.replace(name, keys, rows)
    return len(rows)
