"""The views that `dicom_assets.connect` gives, in the SQL of other engines.

Belongs here: what each view says, in standard SQL with what a dialect writes otherwise put in. Does not belong here:
what DuckDB runs within the project (`lake.query`, `lake.subjects`, `lake.resolutions`), which tests compare these with.

The table `clinical` has every version of a record. As everywhere, `clinical` is what counts: a view. The table itself
is `all_clinical` in an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dicom_assets.engines.dialects import Dialect
from dicom_assets.engines.holdings import Holdings
from dicom_assets.lake.dataset_types import shown_names
from dicom_assets.lake.resource_views import COLUMNS, OF_THE_STUDY, RESOURCES, value_of

Name = Callable[[str], str]
"""A table or view, by its name in the lake, as the statement names it."""

RAW = {"clinical": "all_clinical"}
"""Tables that a view of the same name stands before, and what the table itself is called."""


@dataclass(frozen=True)
class View:
    """One view. sql: its SELECT."""

    name: str
    description: str
    sql: str


def shown_as(table: str) -> str:
    """The name under which an engine has a table."""
    return RAW.get(table, table)


def views(held: Holdings, dialect: Dialect, name: Name) -> Iterator[View]:
    """Every view that the tables of a lake allow, each behind those that it needs."""
    if held.has("clinical"):
        columns = dialect.listed(held.tables["clinical"].names)
        yield View(
            "clinical",
            "Clinical records that count: neither superseded nor held.",
            f"SELECT {columns}\nFROM {name(RAW['clinical'])}\nWHERE {dialect.named('version_state')} IS NULL",
        )
    if held.has("study", "clinical", "patient_link"):
        description = "Study and clinical record of its patient."
        yield View("study_clinical", description, _study_records(held, dialect, name, dict.fromkeys(_RECORD)))
    if held.has("flat_metadata", "overwritten"):
        yield View(
            "flat_metadata_versions",
            "Rows of flat_metadata, with the object and the batch that their place was claimed for last.",
            _flat_metadata_versions(held, dialect, name),
        )
    if held.has("ingestion_errors", "validated_batch", "overwritten", "batches"):
        yield View(
            "ingestion_error_states",
            "Rows of ingestion_errors, with what resolved them; NULL while they are open.",
            _ingestion_error_states(held, dialect, name),
        )
    if held.has("clinical"):
        yield from _resources(held, dialect, name)
        for dataset, types in held.datasets.items():
            yield View(
                f"clinical_{dataset}",
                f"Clinical records of dataset {dataset}, in typed columns.",
                _dataset(dataset, types, dialect, name),
            )


_STUDY = ("source", "StudyInstanceUID", "study_key")
_SAID = ("StudyDate", "StudyDescription", "ModalitiesInStudy", "series_count", "instance_count")
_RECORD = ("record_type", "record_key", "record", "record_values")


def _study_records(
    held: Holdings, d: Dialect, name: Name, columns: Mapping[str, str | None], types: Sequence[str] = ()
) -> str:
    """Studies with the records of their patient. columns: of a record, each a column or SQL over one. types: all."""
    n = d.named
    listed = ", ".join(n(column) if sql is None else f"{sql} AS {n(column)}" for column, sql in columns.items())
    of_types = ""
    if types:
        listed += f", {n('record_type')} AS kind_of_record"
        of_types = f"person.kind_of_record IN ({', '.join(map(d.literal, types))}) AND "
    kept = [*columns, *(["kind_of_record"] if types else [])]
    said = [column for column in _SAID if column in held.tables["study"].names]
    cleaned = f"{d.clean(n('PatientID'))} AS id,\n        {d.clean(n('IssuerOfPatientID'))} AS issuer"
    return f"""WITH written AS (
    SELECT
        {d.listed((*_STUDY, *said))}, {n("patient_count")},
        {cleaned}
    FROM {name("study")}
),
imaged AS (  -- a study whose objects contradict each other is nobody's
    SELECT
        {d.listed((*_STUDY, *said))},
        CASE WHEN coalesce({n("patient_count")}, 0) <= 1 AND id IS NOT NULL THEN id END AS id,
        CASE WHEN coalesce({n("patient_count")}, 0) <= 1 AND id IS NOT NULL THEN issuer END AS issuer
    FROM written
),
recorded AS (
    SELECT
        {listed},
        {cleaned}
    FROM {name("clinical")}
),
person AS (  -- the identifier that survives: by the link of its issuer, else by that of any issuer
    SELECT
        {d.listed(kept, "recorded")},
        coalesce(own.{n("surviving_patient_id")}, other.{n("surviving_patient_id")}, recorded.id) AS id,
        CASE
            WHEN own.{n("PatientID")} IS NOT NULL THEN coalesce(own.{n("surviving_patient_issuer")}, recorded.issuer)
            WHEN other.{n("PatientID")} IS NOT NULL
                THEN coalesce(other.{n("surviving_patient_issuer")}, recorded.issuer)
            ELSE recorded.issuer
        END AS issuer
    FROM recorded
    LEFT JOIN {name("patient_link")} AS own
        ON own.{n("PatientID")} = recorded.id AND own.{n("IssuerOfPatientID")} = recorded.issuer
    LEFT JOIN {name("patient_link")} AS other
        ON other.{n("PatientID")} = recorded.id AND other.{n("IssuerOfPatientID")} IS NULL
),
issued AS (
    SELECT id, count(DISTINCT issuer) AS issuers
    FROM (SELECT id, issuer FROM imaged UNION ALL SELECT id, issuer FROM person) AS patients
    WHERE id IS NOT NULL AND issuer IS NOT NULL
    GROUP BY id
)
SELECT
    {d.listed(_STUDY, "imaged")}, imaged.id AS {n("PatientID")}, imaged.issuer AS {n("IssuerOfPatientID")},
    {d.listed(said, "imaged")},
    {d.listed(columns, "person")}
FROM imaged
JOIN person ON person.id = imaged.id
LEFT JOIN issued ON issued.id = imaged.id
WHERE {of_types}({d.same("imaged.issuer", "person.issuer")}
    -- one without an issuer fits one that has one, while nobody else has issued the same
    OR ((imaged.issuer IS NULL OR person.issuer IS NULL) AND coalesce(issued.issuers, 0) <= 1))"""


def _resources(held: Holdings, d: Dialect, name: Name) -> Iterator[View]:
    """The FHIR resources that people join, in typed columns, and the same beside the studies of their patient."""
    there = held.tables["clinical"].names
    for view, (types, own) in RESOURCES.items():
        columns = {column: None for column in COLUMNS if column in there} | {
            column: d.named(element)
            if isinstance(element, str)
            else value_of(element, lambda path: d.at(d.named("record_values"), path), d.cast)
            for column, element in own.items()
        }
        listed = ",\n    ".join(
            d.named(column) if sql is None else f"{sql} AS {d.named(column)}" for column, sql in columns.items()
        )
        yield View(
            view,
            f"One row per {' or '.join(types)} that counts, in typed columns.",
            f"SELECT\n    {listed}\nFROM {name('clinical')}\n"
            f"WHERE {d.named('record_type')} IN ({', '.join(map(d.literal, types))})",
        )
        if held.has("study", "patient_link"):
            kept = {column: sql for column, sql in columns.items() if column not in OF_THE_STUDY}
            yield View(
                f"study_{view}",
                f"Study and {' or '.join(types)} of its patient.",
                _study_records(held, d, name, kept, types),
            )


def _flat_metadata_versions(held: Holdings, d: Dialect, name: Name) -> str:
    n = d.named
    return f"""SELECT
    {d.listed(held.tables["flat_metadata"].names, "flat")},
    later.{n("object_id")} AS {n("replaced_by")}, later.{n("batch_id")} AS {n("replaced_in")}
FROM {name("flat_metadata")} AS flat
LEFT JOIN {name("overwritten")} AS later
    ON later.{n("source")} = flat.{n("source")} AND later.{n("uri")} = flat.{n("uri")}
    AND {d.same(f"later.{n('member')}", f"flat.{n('member')}")}
    AND flat.{n("version_text")} IS NULL
    AND (later.{n("claimed_at")} > flat.{n("ingested_at")}
        OR (flat.{n("operation")} = 'delete' AND later.{n("claimed_at")} = flat.{n("ingested_at")}))"""


def _ingestion_error_states(held: Holdings, d: Dialect, name: Name) -> str:
    n = d.named
    own = held.tables["ingestion_errors"].names
    return f"""WITH closed AS (
    SELECT {d.listed(("batch_id", "closed_at"))} FROM {name("batches")} WHERE {n("status")} = 'closed'
),
failed AS (
    SELECT {n("object_id")}, min({n("batch_id")}) AS {n("batch_id")}
    FROM {name("ingestion_errors")} GROUP BY {n("object_id")}
),
again AS (
    SELECT ledger.{n("object_id")}, max(ledger.{n("batch_id")}) AS {n("batch_id")}
    FROM {name("validated_batch")} AS ledger
    JOIN failed ON failed.{n("object_id")} = ledger.{n("object_id")} AND failed.{n("batch_id")} < ledger.{n("batch_id")}
    JOIN closed ON closed.{n("batch_id")} = ledger.{n("batch_id")}
    WHERE ledger.{n("outcome")} <> 'quarantined'
    GROUP BY ledger.{n("object_id")}
),
replaced AS (
    SELECT later.{n("source")}, later.{n("uri")}, later.{n("batch_id")}, closed.{n("closed_at")}
    FROM {name("overwritten")} AS later
    JOIN closed ON closed.{n("batch_id")} = later.{n("batch_id")}
    WHERE later.{n("member")} IS NULL
),
told AS (
    SELECT
        {d.listed(own, "error")},
        CASE
            WHEN error.{n("code")} = 'DISMISSED' AND batch.{n("decision")} = 'dismissed' THEN 'dismissed'
            WHEN again.{n("batch_id")} IS NOT NULL THEN 'read again'
            WHEN replaced.{n("batch_id")} IS NOT NULL THEN 'replaced'
        END AS resolution,
        batch.{n("decided_at")} AS dismissed_at, batch.{n("batch_id")} AS dismissed_batch,
        reader.{n("closed_at")} AS read_at, again.{n("batch_id")} AS read_batch,
        replaced.{n("closed_at")} AS replaced_at, replaced.{n("batch_id")} AS replaced_batch
    FROM {name("ingestion_errors")} AS error
    LEFT JOIN {name("batches")} AS batch ON batch.{n("batch_id")} = error.{n("batch_id")}
    LEFT JOIN again ON again.{n("object_id")} = error.{n("object_id")} AND again.{n("batch_id")} > error.{n("batch_id")}
    LEFT JOIN closed AS reader ON reader.{n("batch_id")} = again.{n("batch_id")}
    LEFT JOIN replaced
        ON replaced.{n("source")} = batch.{n("source")} AND replaced.{n("uri")} = error.{n("uri")}
        AND replaced.{n("batch_id")} > error.{n("batch_id")}
)
SELECT
    {d.listed(own)},
    resolution,
    CASE resolution WHEN 'dismissed' THEN dismissed_at WHEN 'read again' THEN read_at ELSE replaced_at END
        AS resolved_at,
    CASE resolution WHEN 'dismissed' THEN dismissed_batch WHEN 'read again' THEN read_batch ELSE replaced_batch END
        AS resolved_by
FROM told"""


_RENAMED = {
    "source": "source",
    "record_key": "record_key",
    "PatientID": "patient_id",
    "IssuerOfPatientID": "patient_issuer",
    "effective_at": "effective_at",
}
"""Columns that the view of every dataset has: as clinical has them, and as the view does."""


def _dataset(dataset: str, types: Mapping[str, str], d: Dialect, name: Name) -> str:
    shown = shown_names(types)
    columns = [f"{d.named(own)} AS {d.named(as_)}" for own, as_ in _RENAMED.items()]
    columns += [
        f"{d.cast(d.said(d.named('record_values'), column), kind)} AS {d.named(shown[column])}"
        for column, kind in types.items()
    ]
    taken = {one.casefold() for one in (*_RENAMED.values(), *shown.values())}
    for column, kind in types.items():
        offset = d.offset(d.said(d.named("record_values"), column))
        own = f"{shown[column]}_offset"
        if kind == "TIMESTAMPTZ" and offset is not None and own.casefold() not in taken:
            columns.append(f"{offset} AS {d.named(own)}")
    listed = ",\n    ".join(columns)
    return f"SELECT\n    {listed}\nFROM {name('clinical')}\nWHERE {d.named('record_type')} = {d.literal(dataset)}"
