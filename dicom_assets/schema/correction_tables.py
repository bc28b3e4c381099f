"""The tables of corrections and patient links, as entries of the registry, and the words that stand in them.

Belongs here: name, grain, key, columns and descriptions of these tables. Does not belong here: which corrections are in
force (`dicom_assets.batch.corrections`), what they do to objects (`dicom_assets.lake.corrected_objects`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import pyarrow as pa

from dicom_assets.schema.table import TEXTS, TIMESTAMP, Column, Table


class Scope(StrEnum):
    """What a correction is about: which objects, or which person. The narrower one counts before the wider one."""

    INSTANCE = "instance"
    SERIES = "series"
    STUDY = "study"
    ACCESSION = "accession"
    PATIENT = "patient"
    PATIENT_LINK = "patient_link"


class State(StrEnum):
    """Whether a correction is in force. replaced: something else was claimed in the place of its file since."""

    IN_FORCE = "in_force"
    CONTRADICTED = "contradicted"
    CYCLIC = "cyclic"
    REPLACED = "replaced"


RECEIVED = {
    "received_patient_id": "PatientID",
    "received_patient_issuer": "IssuerOfPatientID",
    "received_accession_number": "AccessionNumber",
    "received_study_instance_uid": "StudyInstanceUID",
}
"""Columns of instance that say what the object itself says, by column the attribute that a correction may change."""

CORRECTED_BY = "corrections"
"""Column of the hierarchy: the corrections that have changed something."""


def correction_columns() -> dict[str, Column]:
    """The columns that corrections add to instance, series and study."""
    own = {CORRECTED_BY: (TEXTS, "Keys of the corrections and links that have changed something here; NULL: none has")}
    own |= {
        name: (pa.string(), f"{keyword} as the object says it, where corrections have changed something of it")
        for name, keyword in RECEIVED.items()
    }
    return {name: Column(name, kind, text) for name, (kind, text) in own.items()}


_CORRECTION = [
    ("correction_key", "Hash of everything that the row says but its reason: the same in every file that says the same",
     False),
    ("scope", "What it is about: instance, series, study, accession, patient or patient_link", False),
    ("object_source", "Source of the objects that it is about; NULL: of every source", True),
    ("key", "The UID, AccessionNumber or PatientID, as the objects say it, by which they are found", False),
    ("key_issuer", "For patient and patient_link: the issuer of the PatientID in key; NULL: whatever issuer", True),
    ("PatientID", "The PatientID that is right, of a link the one that survives; NULL: not corrected", True),
    ("IssuerOfPatientID", "The issuer that is right; NULL: not corrected", True),
    ("AccessionNumber", "The AccessionNumber that is right; NULL: not corrected", True),
    ("StudyInstanceUID", "The study that the objects really belong to; NULL: not corrected", True),
    ("corrected_by", "Who says so", False),
]  # fmt: skip


def _correction(own: Mapping[str, Column]) -> Table:
    def required(name: str) -> Column:
        return Column(name, own[name].type, own[name].description, nullable=False)

    columns = [
        *map(required, ("batch_id", "object_id", "record", "source")),
        Column(
            "place_key", pa.string(), "Hash of source and uri: the place of the file, of an archive as a whole", False
        ),
        required("claimed_at"),
        *(Column(name, pa.string(), text, nullable) for name, text, nullable in _CORRECTION),
        Column("corrected_at", TIMESTAMP, "When it was said; UTC where the file names no offset", nullable=False),
        Column("reason", pa.string(), "Why, in the words of the file"),
        Column("state", pa.string(), "in_force, contradicted, cyclic, or replaced with its file", nullable=False),
    ]
    return Table(
        "correction",
        "correction or patient link that a file says",
        ("batch_id", "object_id", "record"),
        tuple(columns),
        "What objects and persons really are, as files of corrections say it; those in force are applied when the "
        "hierarchy, FHIR and OMOP are made, and change nothing in flat_metadata.",
        "batch_id",
        ("validated_batch",),
    )


def _patient_link() -> Table:
    columns = (
        Column("PatientID", pa.string(), "Patient identifier that is another one's", nullable=False),
        Column("IssuerOfPatientID", pa.string(), "Its issuer; NULL: every issuer that has no row of its own"),
        Column("surviving_patient_id", pa.string(), "The identifier that the person has, at the end of all links",
               nullable=False),
        Column("surviving_patient_issuer", pa.string(), "Its issuer; NULL: the issuer that was there"),
        Column(CORRECTED_BY, TEXTS, "Keys of the links on the way", nullable=False),
    )  # fmt: skip
    return Table(
        "patient_link",
        "patient identifier that is another one's",
        ("PatientID", "IssuerOfPatientID"),
        columns,
        "Which identifier survives for a person with several, from all links in force; made from correction.",
        "PatientID",
        ("correction",),
    )


def _moved_study(own: Mapping[str, Column]) -> Table:
    columns = (
        Column("batch_id", pa.string(), own["batch_id"].description, nullable=False),
        Column("study_key", pa.string(), "Study of which objects are, or were, moved to another", nullable=False),
        Column("source", pa.string(), own["source"].description, nullable=False),
        Column("StudyInstanceUID", pa.string(), "The study that they are moved to", nullable=False),
        Column("target_key", pa.string(), "study_key of that study", nullable=False),
    )
    return Table(
        "moved_study",
        "batch and study of which corrections move objects to another",
        ("batch_id", "study_key", "target_key"),
        columns,
        "Index of studies as received by the study that corrections move their objects to; may name one too many.",
        "batch_id",
        ("flat_metadata", "correction"),
    )


def correction_tables(own: Mapping[str, Column]) -> tuple[Table, Table, Table]:
    """correction, patient_link and moved_study. own: the project's own columns."""
    return _correction(own), _patient_link(), _moved_study(own)
