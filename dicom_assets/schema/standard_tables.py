"""The tables of the standards: FHIR R4B and OMOP, as entries of the registry.

Belongs here: name, grain, key, columns and descriptions of these tables, and the columns that FHIR adds to `clinical`.
Does not belong here: how rows come about (`dicom_assets.fhir`, `dicom_assets.omop`).
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from dicom_assets.schema.table import TEXTS, TIMESTAMP, Column, Table

TEXT = pa.string()
INT = pa.int64()
OMOP_INT = pa.int32()
"""`integer` of the OMOP CDM: 32 bits."""

Own = Mapping[str, Column]


def _table(
    own: Own,
    name: str,
    grain: str,
    key: str,
    description: str,
    columns: list[tuple[str, pa.DataType, str] | str],
    *,
    replaced_by: str,
    upstream: tuple[str, ...],
    required: str = "",
) -> Table:
    """A table whose columns are new ones, or names of the project's own."""
    needed = set(key.split()) | set(required.split())
    made = []
    for column in columns:
        if isinstance(column, str):
            found = own[column]
            column_name, kind, text = found.name, found.type, found.description
        else:
            column_name, kind, text = column
        made.append(Column(column_name, kind, text, column_name not in needed))
    return Table(name, grain, tuple(key.split()), tuple(made), description, replaced_by, upstream)


_PATIENT: list[tuple[str, pa.DataType, str] | str] = [
    ("PatientID", TEXT, "Patient identifier as text, leading zeros kept; NULL while unknown or in conflict"),
    ("IssuerOfPatientID", TEXT, "Issuer of the patient identifier"),
]


def _imaging_study(own: Own) -> Table:
    return _table(
        own,
        "imaging_study",
        "study that the lake has or had",
        "id",
        "One FHIR R4B ImagingStudy for each study, rebuilt from all its instances.",
        [
            ("id", TEXT, "SHA-256 hex of [base/]ImagingStudy/StudyInstanceUID; the same in every run"),
            "source",
            "study_key",
            ("StudyInstanceUID", TEXT, "Study Instance UID as it was written; the original identifier"),
            ("status", TEXT, "available, or entered-in-error for a study without instances"),
            ("is_deleted", pa.bool_(), "Whether the study has lost its last instance"),
            *_PATIENT,
            (
                "subject_state",
                TEXT,
                "identified, missing, or conflict when its instances name several patients or issuers",
            ),
            ("AccessionNumber", TEXT, "Accession Number"),
            ("started", TEXT, "FHIR dateTime of the beginning, as precise as what is known"),
            ("started_date", pa.date32(), "Date of started, to filter by"),
            ("modality", TEXTS, "Modalities of the instances, each once"),
            ("description", TEXT, "Study Description"),
            ("series_count", INT, "numberOfSeries"),
            ("instance_count", INT, "numberOfInstances"),
            ("resource", TEXT, "The resource as JSON"),
            ("created_at", TIMESTAMP, "When the first object of the study was claimed"),
            ("modified_at", TIMESTAMP, "When the newest object of the study was claimed; meta.lastUpdated"),
            ("source_file", TEXT, "Where the object that gives its newest attributes lies"),
            ("mapping_version", TEXT, "Version of the code tables that made it"),
        ],
        replaced_by="study_key",
        upstream=("study", "series", "instance"),
        required="source study_key StudyInstanceUID status is_deleted subject_state series_count instance_count "
        "resource created_at modified_at",
    )


def _diagnostic_report(own: Own) -> Table:
    return _table(
        own,
        "diagnostic_report",
        "current DiagnosticReport",
        "source record_key",
        "Reports that arrived as FHIR, each linked to its study where that is possible.",
        [
            "source",
            "record_key",
            ("id", TEXT, "Logical id of the resource"),
            *_PATIENT,
            ("status", TEXT, "Status (registered, preliminary, final, ...)"),
            ("code_system", TEXT, "System of the first coding of code"),
            ("code", TEXT, "First coding of code"),
            ("code_display", TEXT, "Its display, or the text of code"),
            (
                "effective_at",
                TIMESTAMP,
                "effectiveDateTime or the start of effectivePeriod; a day, month or year alone is its beginning in UTC",
            ),
            ("effective", TEXT, "The same as it was written"),
            ("issued_at", TIMESTAMP, "issued"),
            ("conclusion", TEXT, "conclusion"),
            ("accession_numbers", TEXTS, "Values of identifiers of type ACSN, its own and those of basedOn"),
            ("based_on", TEXTS, "References and identifiers of basedOn"),
            ("imaging_studies", TEXTS, "References to ImagingStudy"),
            ("study_uids", TEXTS, "StudyInstanceUIDs that its identifiers name"),
            ("presented_form_type", TEXT, "Media type of the first presented form"),
            ("presented_form_size", INT, "Its size in bytes: as stated, otherwise counted from the data"),
            ("study_key", TEXT, "The study that it is linked to; the first one when it names several"),
            ("StudyInstanceUID", TEXT, "The same as a UID"),
            ("study_keys", TEXTS, "All studies that it is linked to"),
            (
                "linked_by",
                TEXT,
                "imaging_study, study_uid or accession_number: what made the link, in this order of trust",
            ),
            (
                "link_state",
                TEXT,
                "linked; unlinked; ambiguous (several studies); patient_conflict (several patients in the study, or in "
                "the studies); patient_mismatch (the report names another patient or issuer)",
            ),
            "batch_id",
            "object_id",
            "version_at",
        ],
        replaced_by="record_key",
        upstream=("clinical", "study", "imaging_study"),
        required="link_state batch_id version_at",
    )


def _omop_identifier(own: Own) -> Table:
    return _table(
        own,
        "omop_identifier",
        "integer id given out",
        "domain natural_key",
        "Integers given out for OMOP, one for each natural key and for ever: positive for image_occurrence, negative "
        "for surrogates of persons, visits and procedures.",
        [
            ("domain", TEXT, "image_occurrence, person, visit_occurrence or procedure_occurrence"),
            ("natural_key", TEXT, "BLAKE2b-128 of what the id stands for, hexadecimal"),
            ("id", OMOP_INT, "The integer; unique within its domain"),
            "batch_id",
        ],
        replaced_by="batch_id",
        upstream=("series",),
        required="id batch_id",
    )


def _image_occurrence(own: Own) -> Table:
    return _table(
        own,
        "image_occurrence",
        "series",
        "image_occurrence_id",
        "image_occurrence of the OHDSI imaging extension of the OMOP CDM: its columns, its types, nothing else.",
        [
            ("image_occurrence_id", OMOP_INT, "Given out once for each series, see omop_identifier"),
            ("person_id", OMOP_INT, "From the user's mapping; negative when a surrogate"),
            ("procedure_occurrence_id", OMOP_INT, "From the user's mapping; negative when a surrogate"),
            ("visit_occurrence_id", OMOP_INT, "From the user's mapping; negative when a surrogate"),
            ("anatomic_site_concept_id", OMOP_INT, "Standard concept of the body part and side; 0 when unmapped"),
            ("wadors_uri", TEXT, "{base}/studies/{}/series/{}, when a base is configured"),
            ("local_path", TEXT, "Folder that holds the series, when its objects are local files"),
            ("image_occurrence_date", pa.date32(), "Series Date, otherwise the next best date"),
            ("image_study_UID", TEXT, "Study Instance UID"),
            ("image_series_UID", TEXT, "Series Instance UID"),
            ("modality_concept_id", OMOP_INT, "Concept of the modality in the DICOM vocabulary; 0 when unmapped"),
        ],
        replaced_by="image_study_UID",
        upstream=("series", "omop_identifier"),
        required="person_id procedure_occurrence_id image_occurrence_date image_study_UID image_series_UID "
        "modality_concept_id",
    )


def _image_occurrence_origin(own: Own) -> Table:
    return _table(
        own,
        "image_occurrence_origin",
        "series",
        "image_occurrence_id",
        "How each row of image_occurrence was made: where its ids, its date and its concepts come from.",
        [
            ("image_occurrence_id", OMOP_INT, "The row of image_occurrence"),
            "source",
            "study_key",
            ("StudyInstanceUID", TEXT, "Study Instance UID"),
            ("SeriesInstanceUID", TEXT, "Series Instance UID"),
            ("person_from", TEXT, "mapping, surrogate, missing (no PatientID) or conflict (several patients)"),
            ("visit_from", TEXT, "mapping or surrogate"),
            ("procedure_from", TEXT, "mapping or surrogate"),
            ("date_from", TEXT, "Attribute that gave the date; unknown when 1970-01-01 stands for none"),
            ("modality", TEXT, "Modality as written"),
            ("modality_mapped", pa.bool_(), "Whether it has a concept"),
            ("anatomic_site", TEXT, "Code of the anatomic region, otherwise Body Part Examined, as written"),
            ("anatomic_site_mapped", pa.bool_(), "Whether it has a concept"),
            ("laterality", TEXT, "Laterality as written"),
            ("laterality_concept_id", OMOP_INT, "Standard concept of the side; 0 when there is none"),
            ("mapping_version", TEXT, "Version of the concept tables"),
        ],
        replaced_by="study_key",
        upstream=("series", "omop_identifier"),
        required="source study_key StudyInstanceUID SeriesInstanceUID person_from visit_from procedure_from date_from "
        "modality_mapped anatomic_site_mapped",
    )


def _mapping_coverage(own: Own) -> Table:
    return _table(
        own,
        "mapping_coverage",
        "measure, or value that is not mapped",
        "measure value",
        "How much of the lake is mapped and linked, and what is not, by volume; the whole lake, after every batch.",
        [
            ("measure", TEXT, "What is counted"),
            ("value", TEXT, "Empty for the measure itself; otherwise a value that is not mapped"),
            ("mapped", INT, "How many are mapped or linked"),
            ("total", INT, "Of how many"),
            ("share", pa.float64(), "mapped / total; NULL when there are none"),
        ],
        replaced_by="measure",
        upstream=("image_occurrence_origin", "study", "diagnostic_report", "clinical"),
        required="mapped total",
    )


def standard_tables(own: Own) -> tuple[Table, Table, Table, Table, Table, Table]:
    """The six tables in the order in which they depend on each other."""
    return (
        _imaging_study(own),
        _diagnostic_report(own),
        _omop_identifier(own),
        _image_occurrence(own),
        _image_occurrence_origin(own),
        _mapping_coverage(own),
    )


def clinical_columns() -> tuple[Column, ...]:
    """Columns of `clinical` that FHIR resources fill; mostly NULL for records of CSV and Parquet files."""
    return tuple(
        Column(name, kind, text)
        for name, kind, text in (
            ("server", TEXT, "Server whose id it is: as configured, else meta.source, else empty; part of the key"),
            ("resource_id", TEXT, "Logical id of the FHIR resource"),
            ("resource_version", TEXT, "meta.versionId"),
            ("last_updated", TIMESTAMP, "meta.lastUpdated"),
            ("patient_reference", TEXT, "Reference to the patient as it was written, or Patient/{id} of a Patient"),
            ("patient_system", TEXT, "System of the patient's identifier"),
            ("status", TEXT, "status, or code of clinicalStatus"),
            ("category", TEXT, "First code of category, or of class"),
            ("code_system", TEXT, "System of the first coding of code, type or vaccineCode ..."),
            ("code", TEXT, "That coding's code"),
            ("code_display", TEXT, "Its display, otherwise the text"),
            (
                "effective_at",
                TIMESTAMP,
                "When it was true or done: effective, performed, onset, period, date ...; a day, month or year alone "
                "is its beginning in UTC",
            ),
            ("effective_end", TIMESTAMP, "End of that period; a day, month or year alone is its beginning in UTC"),
            ("effective_text", TEXT, "effective_at as it was written, with its offset"),
            ("effective_end_text", TEXT, "effective_end as it was written, with its offset"),
            ("patient_identifiers", TEXTS, "Every identifier of a Patient as system|value, those of the past as well"),
            (
                "version_state",
                TEXT,
                "NULL: it counts. superseded: a newer version names the same patient in another way. held: it names "
                "another patient than before (IDENTITY_CHANGED). Views show what counts",
            ),
            ("identity_since", TIMESTAMP, "When the first version named this patient, if that was an older version"),
        )
    )
