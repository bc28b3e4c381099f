"""Publishing clinical records: the newest version of each, and whose record it is.

Belongs here: which rows of `clinical` a batch replaces, and by what. Does not belong here: which version counts
(`versions`), reading records (`dicom_assets.clinical`), the commit itself (`lake.delta`).

The order of arrival makes no difference. Versions are compared with each other, not with the clock, and a reference to
a Patient that arrives later is resolved when it does: the batches that hold such rows are rewritten together with the
one that brings the Patient, in one commit.

Everything is decided and written before the right to commit is taken, and taken again as it is when nobody has
committed meanwhile; only a batch that was overtaken again and again does it while others wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.versions import Decisions, decide, staged_rows
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.overwritten import last_claims
from dicom_assets.lake.query import connect, quoted, scan
from dicom_assets.lake.rewrite import NewFiles, write_rows
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.reading.memory import give_back
from dicom_assets.schema.codes import CODES
from dicom_assets.schema.registry import CLINICAL

ROWS_AT_ONCE = 2_000
"""Rows of a batch of the stream that is written: some megabytes."""

TRIES_WITHOUT_RIGHT = 3
"""How often what was written is overtaken by another commit before it is done with the right to commit in hand."""

ERRORS_FILE = 999_998
"""Number of the staged file that holds errors of identity; chunks are numbered from 0."""

_CODE = "IDENTITY_CHANGED"


@dataclass(frozen=True)
class _Prepared:
    """What is to be committed, worked out on one version of the table. rows: of the batch, of those that count."""

    version: int
    replaced: list[str]
    files: NewFiles
    held: pa.Table
    rows: int


def publish_clinical(lake: Lake, staging: Staging, run_id: str = "", accepted: Collection[str] = ()) -> int:
    """Publishes a batch's clinical records; how many rows the batch now has in the table that count.

    Of the versions of one file only the one that was claimed last counts, of one record with a key of its own the
    newest. The rows of other
    batches that this changes are rewritten together with the batch's own, in one commit. A batch that neither brings
    records nor brought some before opens nothing of the table. accepted: see `ClinicalSettings`.
    """
    staged = staged_rows(staging)
    claims = last_claims(lake, staging.read_whole(Part.RAW, ["source", "uri", "member"]))
    if not len(staged) and not len(claims):
        with lake.committing(CLINICAL.name):
            if _had(lake, staging):
                lake.replace(CLINICAL.name, [staging.batch_id], CLINICAL.schema.empty_table())
        return 0
    for _ in range(TRIES_WITHOUT_RIGHT):
        prepared = _prepared(lake, staging, staged, claims, accepted)
        with lake.committing(CLINICAL.name):
            if lake.extents(CLINICAL.name).version == prepared.version:
                return _committed(lake, staging, prepared, run_id)
    with lake.committing(CLINICAL.name):
        return _committed(lake, staging, _prepared(lake, staging, staged, claims, accepted), run_id)


def _had(lake: Lake, staging: Staging) -> bool:
    """Whether the table has rows of the batch, from an earlier run."""
    source = scan(lake, CLINICAL.name, within={"batch_id": [staging.batch_id]})
    with lake.cursor() as connection:
        found = connection.execute(f"SELECT 1 FROM {source} WHERE batch_id = {quoted(staging.batch_id)} LIMIT 1")
        return bool(found.fetchall())


def _prepared(lake: Lake, staging: Staging, staged: pa.Table, claims: pa.Table, accepted: Collection[str]) -> _Prepared:
    """Decides and writes on the table as it is now. What is never committed is nobody's; vacuum deletes it."""
    seen = lake.extents(CLINICAL.name)
    with lake.cursor() as connection:
        decisions = decide(connection, lake, seen, staging, staged, claims, accepted)
    give_back()  # what the decisions took, before rows are written
    changes = _Changes(decisions)
    files = write_rows(lake, CLINICAL.name, _rows(lake, staging, decisions, changes))
    rows = len(staged) - changes.not_counting_below(len(staged))
    return _Prepared(seen.version, [*decisions.affected, staging.batch_id], files, decisions.held, rows)


def _committed(lake: Lake, staging: Staging, prepared: _Prepared, run_id: str) -> int:
    _stage_errors(lake, staging, prepared.held, run_id)
    lake.replace(CLINICAL.name, prepared.replaced, prepared.files)
    return prepared.rows


class _Changes:
    """Decisions by place, to be applied to rows as they stream by."""

    def __init__(self, decisions: Decisions) -> None:
        changes = decisions.changes
        self._places = changes["place"].to_numpy()
        self._stays = changes["stays"].to_numpy(zero_copy_only=False).astype(bool)
        self._changes = changes.select(["state", "since", "patient", "identifiers"]).combine_chunks()
        self._patients = decisions.patients.combine_chunks()

    def not_counting_below(self, place: int) -> int:
        """How many rows before a place do not stay, or stay and do not count."""
        end = int(np.searchsorted(self._places, place))
        states = self._changes["state"].slice(0, end)
        return int((~self._stays[:end] | states.is_valid().to_numpy(zero_copy_only=False)).sum())

    def applied(self, batch: pa.RecordBatch, places: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """The rows of a batch that stay, as they are published. What a record says is only passed on."""
        at = np.minimum(np.searchsorted(self._places, places), max(len(self._places) - 1, 0))
        is_changed = self._places[at] == places if len(self._places) else np.zeros(len(places), bool)
        rows = pa.Table.from_batches([batch]).select(CLINICAL.schema.names)
        if is_changed.any():
            stays = ~is_changed | self._stays[at]
            rows, at, is_changed = rows.filter(pa.array(stays)), at[stays], is_changed[stays]
            rows = self._changed(rows, pa.array(at), pa.array(is_changed))
        yield from rows.cast(CLINICAL.schema).combine_chunks().to_batches()

    def _changed(self, rows: pa.Table, at: pa.Array, is_changed: pa.Array) -> pa.Table:
        changes = self._changes.take(at)
        has_patient = pc.and_(is_changed, changes["patient"].is_valid())
        patients = self._patients.take(changes["patient"])
        columns = {name: rows[name] for name in rows.column_names}
        for name, new in (("version_state", "state"), ("identity_since", "since")):
            kind = rows.schema.field(name).type
            columns[name] = pc.if_else(is_changed, changes[new].cast(kind), rows[name])
        for name, new in (("PatientID", "id"), ("IssuerOfPatientID", "issuer"), ("patient_system", "system")):
            columns[name] = pc.if_else(has_patient, patients[new], rows[name])
        if changes["identifiers"].null_count < len(rows):
            known = pc.and_(is_changed, changes["identifiers"].is_valid()).to_pylist()
            merged = zip(
                known, changes["identifiers"].to_pylist(), rows["patient_identifiers"].to_pylist(), strict=True
            )
            kind = rows.schema.field("patient_identifiers").type
            columns["patient_identifiers"] = pa.array([new if is_new else old for is_new, new, old in merged], kind)
        return pa.table(columns)


def _rows(lake: Lake, staging: Staging, decisions: Decisions, changes: _Changes) -> Iterator[pa.RecordBatch]:
    """Rows of `clinical` for the staged batch and the affected ones, ROWS_AT_ONCE in memory at a time."""
    first = 0
    for batch in staging.batches(Part.CLINICAL):
        yield from changes.applied(batch, np.arange(first, first + len(batch)))
        first += len(batch)
    if not decisions.affected:
        return
    within = {"batch_id": decisions.affected}
    source = scan(lake, CLINICAL.name, within=within, filename=True, row_number=True)
    listed = ", ".join(map(quoted, decisions.affected))
    sql = f"SELECT *, parse_filename(filename) AS file FROM {source} WHERE batch_id IN ({listed})"
    with lake.cursor() as connection:
        for batch in connection.sql(sql).to_arrow_reader(ROWS_AT_ONCE):
            files = batch["file"].dictionary_encode()
            starts = np.array([decisions.firsts[name] for name in files.dictionary.to_pylist()], np.int64)
            places = starts[files.indices.to_numpy()] + batch["file_row_number"].to_numpy()
            yield from changes.applied(batch, places)


def _stage_errors(lake: Lake, staging: Staging, held: pa.Table, run_id: str) -> None:
    """Stages an error for each version that a person has to resolve, unless the batch that brought it has told it."""
    rows = _untold(lake, held, staging.batch_id) if len(held) else []
    if not rows and not any(name.endswith(f"/{ERRORS_FILE:06d}.arrow") for name in staging.names(Part.ERRORS)):
        return
    errors = [
        {
            "batch_id": staging.batch_id,
            "object_id": row["object_id"],
            "stage": "record",
            "code": _CODE,
            "record": row["record"],
            "severity": str(CODES[_CODE].severity),
            "detail": f"record_key {row['file_key']}: it names another patient than the versions before it",
            "uri": row["uri"],
            "member": row["member"],
            "occurred_at": datetime.now(UTC),
            "run_id": run_id,
        }
        for row in rows
    ]
    staging.put(Part.ERRORS, ERRORS_FILE, pa.Table.from_pylist(errors, schema=SCHEMAS[Part.ERRORS]))
    staging.complete_as_it_is(Part.ERRORS)


_UNTOLD = f"""
-- one row per held version that no other batch which brought it has told of, with where its object lies
SELECT held.*, uri, member
FROM held
LEFT JOIN raw_files USING (batch_id, object_id)
WHERE batch_id = $own OR NOT EXISTS (
    SELECT 1 FROM ingestion_errors AS told
    WHERE told.batch_id = held.batch_id AND told.object_id = held.object_id AND told.record = held.record
        AND told.code = '{_CODE}'
)
ORDER BY ALL
"""


def _untold(lake: Lake, held: pa.Table, own: str) -> list[dict[str, Any]]:
    tables = ["raw_files", "ingestion_errors"]
    within = {name: {"batch_id": held["batch_id"].unique().to_pylist()} for name in tables}
    with connect(lake, tables, within=within) as connection:
        connection.register("held", held)
        rows: list[dict[str, Any]] = connection.sql(_UNTOLD, params={"own": own}).to_arrow_table().to_pylist()
    return rows
