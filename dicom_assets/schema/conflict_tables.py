"""The table of conflicts, and the two that it is made with: what studies say of patients, and which UIDs they hold.

Belongs here: their columns. Does not belong here: the other tables (`registry`), which attributes belong to whom
(`dicom_assets.curation.belonging`).
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from dicom_assets.schema.table import TEXTS, TIMESTAMP, Column, Table

COUNTS = pa.list_(pa.int64())
TIMES = pa.list_(TIMESTAMP)

_NAMING = (
    ("PatientID", "Patient of a conflict of level patient, as the newest object writes it"),
    ("IssuerOfPatientID", "Its issuer; NULL where nobody tells one"),
    ("StudyInstanceUID", "Study (0020,000D) UI; of a patient's conflict only where its objects name no patient"),
    ("SeriesInstanceUID", "Series (0020,000E) UI"),
    ("FrameOfReferenceUID", "Frame of reference (0020,0052) UI"),
    ("SOPInstanceUID", "SOP instance (0008,0018) UI"),
)


def _conflict() -> Table:
    columns = (
        Column("conflict_key", pa.string(), "Hash of level, attribute and whose it is", nullable=False),
        Column("subject_key", pa.string(), "Hash of whose it is: of the patient, or of the UID of the study, series or "
               "instance; what the table is replaced by", nullable=False),
        Column("level", pa.string(), "What the attribute belongs to: patient, study, series or frame_of_reference; of "
               "a UID under several parents the level of the UID: series or instance", nullable=False),
        Column("attribute", pa.string(), "Its column; of a UID under several parents SeriesInstanceUID or "
               "SOPInstanceUID", nullable=False),
        *(Column(name, pa.string(), text) for name, text in _NAMING),
        Column("study_keys", TEXTS, "The studies whose objects tell the values, sorted", nullable=False),
        Column("value_count", pa.int64(), "Different values", nullable=False),
        Column("told_values", TEXTS, "The values, each as its newest object writes it, that of most objects first; of "
               "a UID the UIDs of its parents", nullable=False),
        Column("told_objects", COUNTS, "Current instances that tell each of them, in the same order", nullable=False),
        Column("told_first_at", TIMES, "When the first object of each was claimed", nullable=False),
        Column("told_last_at", TIMES, "When the newest object of each was claimed", nullable=False),
        Column("shown_value", pa.string(), "The one that the lake shows; NULL for a UID, which is shown under each of "
               "its parents, and where the row that counts has none"),
        Column("rule", pa.string(), "What chose it: newest, most_frequent or source_rank"),
    )  # fmt: skip
    return Table(
        "conflict",
        "attribute of a patient, study, series or frame of reference that has several values, or UID under several "
        "parents",
        ("conflict_key",),
        columns,
        "What current instances say differently of what the information model has once: attributes of a patient, a "
        "study, a series, a frame of reference, and UIDs under different parents. What is missing does not contradict.",
        "subject_key",
        ("instance",),
    )


def _patient_value(own: Mapping[str, Column]) -> Table:
    columns = (
        Column("study_key", pa.string(), own["study_key"].description, nullable=False),
        Column("source", pa.string(), own["source"].description, nullable=False),
        Column("patient_key", pa.string(), "Hash of PatientID and issuer, or of source and PatientID where nobody "
               "tells an issuer, or of the study where nobody tells an identifier", nullable=False),
        Column("PatientID", pa.string(), "The identifier, as the newest object writes it"),
        Column("IssuerOfPatientID", pa.string(), "Its issuer"),
        Column("StudyInstanceUID", pa.string(), "Study Instance UID (0020,000D) UI", nullable=False),
        Column("attribute", pa.string(), "Attribute of the patient, see conflict", nullable=False),
        Column("said", pa.string(), "The value without what does not count when values are compared", nullable=False),
        Column("value", pa.string(), "The value as the newest object writes it", nullable=False),
        Column("objects", pa.int64(), "Current instances of the study that tell it", nullable=False),
        Column("first_seen_at", TIMESTAMP, "When the first of them was claimed", nullable=False),
        Column("updated_at", TIMESTAMP, "When the newest of them was claimed", nullable=False),
        Column("version_at", TIMESTAMP, "Time of the newest of them", nullable=False),
        Column("sequence", pa.int64(), "Sequence number of the newest of them", nullable=False),
        Column("object_id", pa.string(), "The newest of them", nullable=False),
    )  # fmt: skip
    return Table(
        "patient_value",
        "study, patient, attribute of the patient and value",
        ("study_key", "patient_key", "attribute", "said"),
        columns,
        "What each study says of its patients, put together from its instances: a conflict of a patient is found "
        "without the instances of the patient's other studies.",
        "study_key",
        ("instance",),
    )


def _uid_index(own: Mapping[str, Column]) -> Table:
    columns = (
        Column("batch_id", pa.string(), own["batch_id"].description, nullable=False),
        Column("study_key", pa.string(), "Study, as received, in which the UID stands", nullable=False),
        Column("uid", pa.int64(), "BLAKE2b-64 of the UID of the study, a series or an instance", nullable=False),
    )
    return Table(
        "uid_index",
        "batch, study and UID that the batch brought in it",
        ("batch_id", "study_key", "uid"),
        columns,
        "Index of UIDs: which studies may hold a study's, series' or instance's UID; may name one too many.",
        "batch_id",
        ("flat_metadata",),
    )


def conflict_tables(own: Mapping[str, Column]) -> tuple[Table, Table, Table]:
    """conflict, patient_value and uid_index. own: the project's own columns."""
    return _conflict(), _patient_value(own), _uid_index(own)
