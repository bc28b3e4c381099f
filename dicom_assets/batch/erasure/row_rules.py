"""Which rows of which table hold something of what is erased: told from the table's columns, so that none is forgotten.

Belongs here: one rule for each table, from the registry. A table that is new to it falls under the rule of its columns;
one without any that names an object, a study, a record or a patient has to be said to hold nothing
(`HOLDS_NOTHING`), or a test fails. Does not belong here: what becomes of the rows (`tables`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import duckdb
import pyarrow as pa

from dicom_assets.batch.erasure.record import Record
from dicom_assets.lake.subjects import clean
from dicom_assets.schema.registry import TABLES, Table

KEEPS_BOOKS = frozenset(("raw_files", "validated_batch"))
"""Tables in which a row stays for each object that was erased, under another name, so that the books balance."""
BY_SERIES = "image_occurrence"
NUMBERS = "omop_identifier"
HOLDS_NOTHING = {
    "batches": "counts of objects, and sentences without patient data",
    "mapping_coverage": "counts over the whole lake, made anew with each erasure",
    "tag_profile": "counts of elements, added up anew from tag_profile_part",
    "batch_digest": "hashes in numbers, entered anew for each batch that an erasure takes rows of",
    "erasure": "what was erased, without anything of what it was",
}
"""Tables that hold nothing of anybody, and why."""

_OBJECT = "object_id IN (SELECT object_id FROM erased_objects)"
_STUDY = "study_key IN (SELECT study_key FROM erased_studies)"
_NAMED_STUDY = "(source, StudyInstanceUID) IN (SELECT (source, uid) FROM erased_studies)"
_RECORD = "(source, record_key) IN (SELECT (source, record_key) FROM erased_records)"
_ROW_OF_RECORD = (
    "(batch_id, object_id, record_key) IN (SELECT (batch_id, object_id, record_key) FROM erased_record_rows)"
)
_PATIENT = (
    f"({clean('PatientID')}, coalesce({clean('IssuerOfPatientID')}, '')) IN (SELECT (id, issuer) FROM erased_patients)"
)
_NAME = "coalesce({} IN (SELECT name FROM erased_names), false)"
"""What stewards call by its name, in corrections and links."""
_OWN: dict[str, str] = {
    "clinical": f"({_OBJECT} OR {_ROW_OF_RECORD})",
    "diagnostic_report": _RECORD,  # one whose record stays is linked anew
    BY_SERIES: "image_occurrence_id IN (SELECT id FROM erased_occurrences)",
    NUMBERS: "(domain, id) IN (SELECT (domain, id) FROM retired_numbers)",
    "batch_study": _STUDY,
    "tag_profile_part": "batch_id IN (SELECT batch_id FROM erased_batches)",  # both hold hashes of values,
    "phi_risk": "study_key IN (SELECT study_key FROM touched_studies)",  # and are made anew
    "conflict": "list_has_any(study_keys, (SELECT list(study_key) FROM erased_studies))",
    "moved_study": f"({_STUDY} OR target_key IN (SELECT study_key FROM erased_studies))",
    "correction": f"({_OBJECT} OR {_NAME.format('key')} OR {_NAME.format('PatientID')} "
    f"OR {_NAME.format('StudyInstanceUID')})",
    "patient_link": f"({_NAME.format('PatientID')} OR {_NAME.format('surviving_patient_id')})",
}
_BY_COLUMNS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset(("study_key",)), _STUDY),
    (frozenset(("source", "StudyInstanceUID")), _NAMED_STUDY),
    (frozenset(("object_id",)), _OBJECT),
    (frozenset(("source", "record_key")), _RECORD),
    (frozenset(("PatientID", "IssuerOfPatientID")), _PATIENT),
)
"""By the columns that a table has, SQL for the rows that go. The hierarchy is made anew where something of a study
stays, so what says its study goes by that alone; all other rules of a table hold together."""


def rule(table: Table) -> str | None:
    """SQL for the rows of a table that hold something of what is erased; None when the table can hold nothing."""
    if table.name in HOLDS_NOTHING:
        return None
    if table.name in _OWN:
        return _OWN[table.name]
    if table.name == "flat_metadata" or table.name in KEEPS_BOOKS:
        return _OBJECT
    if "study_key" in table:
        return _STUDY
    found = [sql for columns, sql in _BY_COLUMNS if all(column in table for column in columns)]
    if not found:
        raise LookupError(f"table {table.name} names neither object, study, record nor patient: say what it holds")
    return f"({' OR '.join(found)})"


def register(connection: duckdb.DuckDBPyConnection, record: Record) -> None:
    """Makes what goes known to a connection, under the names that the rules use."""

    def put(name: str, schema: Iterable[tuple[str, pa.DataType]], rows: Iterable[tuple[object, ...]]) -> None:
        fields, listed = pa.schema(schema), list(rows)
        columns = [pa.array([row[at] for row in listed], field.type) for at, field in enumerate(fields)]
        connection.register(name, pa.table(columns, schema=fields))

    text, number = pa.string(), pa.int64()
    put("erased_objects", [("object_id", text)], ((one,) for one in record.objects))
    put("touched_studies", [("study_key", text)], ((one,) for one in {*record.touched, *record.whole}))
    put("erased_batches", [("batch_id", text)], ((one,) for one in {b for of in record.objects.values() for b in of}))
    keys = {"study_key": text, "source": text, "uid": text}
    studies = ((key, *pair) for key, pair in zip(record.whole, record.studies, strict=True))
    put("erased_studies", keys.items(), studies)
    put("erased_records", [("source", text), ("record_key", text)], {(one[3], one[2]) for one in record.records})
    named = [("batch_id", text), ("object_id", text), ("record_key", text)]
    put("erased_record_rows", named, (one[:3] for one in record.records))
    put("erased_occurrences", [("id", number)], ((one,) for one in record.occurrences))
    put("retired_numbers", [("domain", text), ("id", number)], record.retired)
    uids = {uid for _, uid in record.studies}
    put("erased_names", [("name", text)], ((one,) for one in sorted({one for one, _ in record.patients} | uids)))
    put("erased_patients", [("id", text), ("issuer", text)], ((one, by or "") for one, by in record.patients))


def each(of: Callable[[Table], bool] = lambda _: True) -> dict[str, str]:
    """By table that can hold something, SQL for the rows that do."""
    return {name: sql for name, table in TABLES.items() if of(table) and (sql := rule(table)) is not None}
