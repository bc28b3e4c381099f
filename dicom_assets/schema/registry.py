"""The registry of tables: name, grain, key, columns, types, descriptions. The only list of columns in the project.

Belongs here: what every table of the lake looks like. Schemas, checks, docs, Dagster's column metadata and the SQL of
the hierarchy are made from it. Does not belong here: how rows come about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from dicom_assets.schema.attributes import ATTRIBUTES, CODE_PARTS, Level
from dicom_assets.schema.conflict_tables import conflict_tables
from dicom_assets.schema.correction_tables import correction_columns, correction_tables
from dicom_assets.schema.duplicate_tables import digest_columns, duplicate_tables
from dicom_assets.schema.geometry_table import series_geometry_table
from dicom_assets.schema.standard_tables import clinical_columns, standard_tables
from dicom_assets.schema.table import TEXTS as TEXTS
from dicom_assets.schema.table import TIMESTAMP as TIMESTAMP
from dicom_assets.schema.table import Column as Column
from dicom_assets.schema.table import Table as Table
from dicom_assets.schema.tag_tables import PHI_RISK, TAG_PROFILE, TAG_PROFILE_PART


def _own(**columns: tuple[pa.DataType, str]) -> dict[str, Column]:
    return {name: Column(name, kind, text) for name, (kind, text) in columns.items()}


def _required(columns: Mapping[str, Column], *names: str) -> dict[str, Column]:
    return {
        name: Column(name, c.type, c.description, nullable=name not in names, sources=c.sources)
        for name, c in columns.items()
    }


OWN = _own(
    batch_id=(pa.string(), "The batch that brought the row"),
    object_id=(pa.string(), "Short hash of source, uri, etag and member; the only name of an object outside the lake"),
    source=(pa.string(), "Name of the landing source"),
    uri=(pa.string(), "Where the object lies"),
    member=(pa.string(), "Path inside the archive; NULL for a file of its own"),
    etag=(pa.string(), "Version of the object's bytes as the storage tells it"),
    size=(pa.int64(), "Bytes of the object"),
    modified_at=(TIMESTAMP, "Last modification as the storage tells it"),
    container_id=(pa.string(), "object_id of the archive or page that holds the member"),
    kind=(
        pa.string(),
        "What its content says it is: dicom, change, clinical, correction, archive, other; or erased. Of a batch why "
        "it was claimed: arrival, reread, or delete (NULL: arrival)",
    ),
    claimed_at=(TIMESTAMP, "When the batch was claimed"),
    outcome=(pa.string(), "ingested, quarantined, ignored or deleted"),
    code=(pa.string(), "Reason code; NULL when ingested without issue"),
    judged_at=(TIMESTAMP, "When the object was read and judged"),
    superseded_by=(pa.string(), "The next closed batch that has read the same object again; NULL when there is none"),
    operation=(pa.string(), "upsert or delete"),
    version_at=(TIMESTAMP, "Time of this version: modification time of the file, timestamp of the change"),
    version_text=(pa.string(), "Timestamp of the change as the service wrote it, to its last digit; NULL for files"),
    sequence=(pa.int64(), "Sequence number of the change; 0 for files"),
    study_key=(pa.string(), "Hash of source and StudyInstanceUID; what tables are clustered and replaced by"),
    patient_family_name=(pa.string(), "Family name, alphabetic representation (PS3.5 6.2.1)"),
    patient_given_name=(pa.string(), "Given name, alphabetic representation (PS3.5 6.2.1)"),
    patient_ideographic_name=(pa.string(), "The patient's name, ideographic representation (PS3.5 6.2.1)"),
    patient_phonetic_name=(pa.string(), "The patient's name, phonetic representation (PS3.5 6.2.1)"),
    content_digest=(
        pa.string(),
        "BLAKE2b-128 of header without the offsets of its references, hexadecimal; headers of one form that say "
        "the same have equal digests",
    ),
    header=(
        pa.string(),
        "The complete header in the DICOM JSON Model (PS3.18 F); bulk data of more than 64 bytes by reference into the "
        "object",
    ),
    header_form=(
        pa.string(),
        "whole: each element of the object is in header, by value or by reference; received: what a DICOM service "
        "said, with its own references to bulk data; NULL: written by a release that left bulk data out and did not "
        "note where pixel data lie",
    ),
    pixel_offset=(
        pa.int64(),
        "Where the value of the pixel data begins in the object, in the inflated data set where that is deflated; NULL "
        "without pixel data, and where header_form is not whole",
    ),
    pixel_length=(
        pa.int64(),
        "Bytes of the pixel data that are there; of encapsulated ones their items, without the delimiter",
    ),
    frame_offsets=(
        pa.list_(pa.int64()),
        "Where each frame of encapsulated pixel data begins in the object, with the head of its first item; empty "
        "where no table tells, so that fragments must be walked; NULL where pixel data are native",
    ),
    frame_lengths=(pa.list_(pa.int64()), "Bytes of each frame up to the end of its last item, heads of items included"),
    issues=(TEXTS, "Reason codes of everything found wrong that did not keep the object out"),
    ingested_at=(TIMESTAMP, "When the batch was claimed; the same for every rerun"),
    series_count=(pa.int64(), "Series of the study, counted"),
    instance_count=(pa.int64(), "Instances, counted"),
    first_seen_at=(TIMESTAMP, "When the first object of it that the lake still knows was claimed"),
    updated_at=(TIMESTAMP, "When the newest object of it was claimed"),
    patient_count=(
        pa.int64(),
        "Different patients (PatientID with issuer) that the instances name, what is missing aside; above 1 is a "
        "conflict",
    ),
    stage=(
        pa.string(),
        "Where it was found: read, record, source (the batch was run again), identity (in no object by itself), rule "
        "(a warning of the house), check",
    ),
    rules=(TEXTS, "Names of the rules of the house that do not hold, for RULE_FAILED and RULE_WARNING"),
    record=(pa.int64(), "Number of the record in its file, from 1; 0 for the object as a whole"),
    severity=(pa.string(), "error, warning or info"),
    detail=(pa.string(), "What, in words; never patient data"),
    occurred_at=(TIMESTAMP, "When it was found"),
    run_id=(pa.string(), "The Dagster run"),
    record_type=(pa.string(), "Name of the configured dataset, or resource type"),
    record_key=(
        pa.string(),
        "Names the record within its source: hash of file and record number, or key columns",
    ),
    file_key=(pa.string(), "What newer versions replace as a whole: the file of the record, or its own record_key"),
    place_key=(pa.string(), "Hash of source, uri and member: the place of an object, whatever its version"),
    status=(pa.string(), "open, paused, closed or failed"),
    seen=(pa.int64(), "Objects and members claimed"),
    ingested=(pa.int64(), "Objects in the lake"),
    quarantined=(pa.int64(), "Objects kept out, each with a reason"),
    ignored=(pa.int64(), "Objects that are not for the lake, each with a reason"),
    deleted=(pa.int64(), "Changes that delete an instance"),
    clinical_records=(pa.int64(), "Clinical records read"),
    clinical_rows=(pa.int64(), "Clinical records in the lake; the others have their error rows"),
    started_at=(TIMESTAMP, "When its first run started"),
    closed_at=(TIMESTAMP, "When its books closed"),
    reason=(pa.string(), "Why it is paused or failed"),
    decision=(pa.string(), "What a person decided about it while it waited: accepted or dismissed"),
    decided_by=(pa.string(), "Who decided, by the name of the account"),
    decided_at=(TIMESTAMP, "When it was decided"),
    decision_reason=(pa.string(), "Why, in the words of that person"),
    step_seconds=(
        pa.string(),
        "Seconds that each step took of the run that closed it, as a JSON object by step; of what was read ahead only "
        "what the step waited for",
    ),
    audit_id=(pa.string(), "The audit that found it, named by its time"),
    audited_at=(TIMESTAMP, "When it was found"),
)
"""The project's own columns by name, described once."""
OWN.update(correction_columns())
OWN.update(digest_columns())


def _dicom(levels: Iterable[Level], table: str | None) -> list[Column]:
    """DICOM columns of these levels; lineage points to `table`."""
    wanted = set(levels)
    plain = [
        Column(
            a.keyword,
            a.type,
            f"{a.name} ({a.tag >> 16:04X},{a.tag & 0xFFFF:04X}) {a.vr}",
            sources=((table, a.keyword),) if table else (),
        )
        for a in ATTRIBUTES
        if a.level in wanted
    ]
    coded = [
        Column(
            c.column,
            pa.string(),
            f"{c.part} of the first item of {c.sequence}",
            sources=((table, c.column),) if table else (),
        )
        for c in CODE_PARTS
        if c.level in wanted
    ]
    return plain + coded


def _table(
    name: str,
    grain: str,
    key: str,
    own: str,
    description: str,
    *,
    dicom: Iterable[Level] = (),
    replaced_by: str = "batch_id",
    upstream: tuple[str, ...] = (),
    required: str = "",
) -> Table:
    """A table from names of own columns and levels of DICOM columns; own columns and key columns come first."""
    keys = key.split()
    names = own.split()
    picked = _required({n: OWN[n] for n in names}, *[n for n in keys if n in OWN], *required.split())
    # DICOM columns come from a table that has them; the ledger has none, there they come from the object itself.
    first = next((one for one in upstream if one != "validated_batch"), None)
    levels = set(dicom)
    dicom_columns = _dicom(levels, first) if levels else []
    unnullable = set(keys)
    columns = list(picked.values()) + [
        Column(c.name, c.type, c.description, c.name not in unnullable, c.sources) for c in dicom_columns
    ]
    if "patient_family_name" not in names and Level.STUDY in levels:
        columns += [OWN[f"patient_{part}_name"] for part in ("family", "given", "ideographic", "phonetic")]
    return Table(name, grain, tuple(keys), tuple(columns), description, replaced_by, upstream)


RAW_FILES = _table(
    "raw_files",
    "object or member claimed",
    "batch_id object_id",
    "batch_id object_id source uri member etag size modified_at container_id kind claimed_at",
    "Everything that arrived: each file, and each member of each archive, exactly once.",
    required="source uri kind claimed_at",
)
VALIDATED_BATCH = _table(
    "validated_batch",
    "object or member judged",
    "batch_id object_id",
    "batch_id object_id outcome code kind judged_at superseded_by",
    "The ledger: the one outcome of each object, with its reason.",
    upstream=("raw_files",),
    required="outcome kind judged_at",
)
FLAT_METADATA = _table(
    "flat_metadata",
    "accepted DICOM object or change, every version",
    "batch_id object_id",
    "batch_id object_id source operation version_at version_text sequence uri member size study_key content_digest "
    "header header_form pixel_offset pixel_length frame_offsets frame_lengths issues ingested_at stable_digest "
    "bytes_digest pixel_digest",
    "Every accepted DICOM object with its typed attributes and its complete header; history, never merged.",
    dicom=Level,
    upstream=("validated_batch",),
    required="source operation version_at sequence study_key ingested_at",
)
INSTANCE = _table(
    "instance",
    "current SOP instance",
    "source StudyInstanceUID SeriesInstanceUID SOPInstanceUID",
    "source study_key object_id batch_id version_at sequence uri member size issues first_seen_at updated_at "
    "corrections received_patient_id received_patient_issuer received_accession_number received_study_instance_uid",
    "The newest version of each instance, without its header, as corrections and patient links say it.",
    dicom=Level,
    replaced_by="study_key",
    upstream=("flat_metadata",),
    required="study_key object_id batch_id version_at sequence first_seen_at updated_at",
)
SERIES = _table(
    "series",
    "current series",
    "source StudyInstanceUID SeriesInstanceUID",
    "source study_key object_id version_at instance_count size first_seen_at updated_at corrections",
    "Each series that has instances; its attributes are the newest that any instance gives. A time comes with its "
    "date, a scheme or meaning with its code, both parts of a name from one name.",
    dicom=(Level.STUDY, Level.SERIES),
    replaced_by="study_key",
    upstream=("instance",),
    required="study_key object_id version_at instance_count first_seen_at updated_at",
)
STUDY = _table(
    "study",
    "current study",
    "source StudyInstanceUID",
    "source study_key object_id version_at series_count instance_count patient_count size first_seen_at updated_at "
    "corrections",
    "Each study that has instances; its attributes are the newest that any instance gives, those that belong together "
    "from one instance, as in series. ModalitiesInStudy and patient_count follow from all instances.",
    dicom=(Level.STUDY,),
    replaced_by="study_key",
    upstream=("series",),
    required="study_key object_id version_at series_count instance_count first_seen_at updated_at",
)
INGESTION_ERRORS = _table(
    "ingestion_errors",
    "error, warning or remark",
    "batch_id object_id stage code record",
    "batch_id object_id stage code record severity detail uri member occurred_at run_id rules",
    "Everything that was found wrong or left out, with its reason code.",
    upstream=("validated_batch", "clinical"),
    required="severity occurred_at",
)
BATCHES = _table(
    "batches",
    "batch",
    "batch_id",
    "batch_id source status seen ingested quarantined ignored deleted clinical_records clinical_rows started_at "
    "closed_at run_id reason kind decision decided_by decided_at decision_reason step_seconds",
    "The books: what each batch saw and what became of it.",
    upstream=("raw_files", "validated_batch"),
    required="source status seen",
)
BATCH_STUDY = _table(
    "batch_study",
    "batch and study that it touched",
    "batch_id study_key",
    "batch_id study_key",
    "Index of flat_metadata: which batches hold rows of a study, so that a study is found without a scan.",
    upstream=("flat_metadata",),
)
OVERWRITTEN = _table(
    "overwritten",
    "place (uri, or uri and member of an archive) that was claimed more than once",
    "place_key",
    "place_key source uri member batch_id object_id claimed_at",
    "The last claim of each place whose bytes were replaced; what flat_metadata has of earlier claims stays there, and "
    "takes no part in what is current.",
    replaced_by="place_key",
    upstream=("raw_files",),
    required="source uri batch_id object_id claimed_at",
)
_CLINICAL = _table(
    "clinical",
    "clinical record",
    "source record_key",
    "source record_key record_type batch_id object_id record file_key version_at",
    "Clinical records as they came, one row each, beside the patient they belong to.",
    replaced_by="batch_id",
    upstream=("validated_batch",),
    required="record_type batch_id object_id record file_key version_at",
)
CLINICAL = Table(
    _CLINICAL.name,
    _CLINICAL.grain,
    _CLINICAL.key,
    (
        *_CLINICAL.columns,
        Column("PatientID", pa.string(), "Patient identifier as text, leading zeros kept"),
        Column("IssuerOfPatientID", pa.string(), "Issuer of the identifier, where the file or its settings name one"),
        Column("record_values", pa.string(), "The record as a JSON object; values of CSV and Parquet files as text"),
        *clinical_columns(),
    ),
    _CLINICAL.description,
    _CLINICAL.replaced_by,
    _CLINICAL.upstream,
)

CORRECTION, PATIENT_LINK, MOVED_STUDY = correction_tables(OWN)
CONFLICT, PATIENT_VALUE, UID_INDEX = conflict_tables(OWN)

BATCH_DIGEST, DUPLICATE = duplicate_tables(OWN)

(
    IMAGING_STUDY,
    DIAGNOSTIC_REPORT,
    OMOP_IDENTIFIER,
    IMAGE_OCCURRENCE,
    IMAGE_OCCURRENCE_ORIGIN,
    MAPPING_COVERAGE,
) = standard_tables(OWN)

SERIES_GEOMETRY = series_geometry_table(OWN)

DICOM_SERVICE_AUDIT = Table(
    "dicom_service_audit",
    "study in which the lake differs from the service it is copied from",
    ("source", "StudyInstanceUID"),
    (
        Column("service", pa.string(), "Name of the DICOM service", nullable=False),
        Column("audit_id", pa.string(), "The audit that found it, named by its time", nullable=False),
        Column("source", pa.string(), "The service, with the data partition where it has several", nullable=False),
        Column("StudyInstanceUID", pa.string(), "Study Instance UID (0020,000D) UI", nullable=False),
        Column("difference", pa.string(), "missing in the lake, extra in the lake, or differs", nullable=False),
        Column("server_instances", pa.int64(), "Instances that the service counts", nullable=False),
        Column("lake_instances", pa.int64(), "Instances that the lake counts", nullable=False),
        Column("audited_at", TIMESTAMP, "The service's time when it was asked", nullable=False),
    ),
    "What the last audit of each DICOM service found; empty where lake and service agree.",
    "service",
    ("study",),
)

SOURCE_AUDIT = _table(
    "source_audit",
    "current instance whose object is gone at its source",
    "source object_id",
    "source object_id audit_id audited_at uri member",
    "What the last audit of each folder or container found gone there; empty where nothing is.",
    replaced_by="source",
    upstream=("instance",),
    required="audit_id audited_at uri",
)

ERASURE = Table(
    "erasure",
    "erasure",
    ("erasure_id",),
    (
        Column("erasure_id", pa.string(), "The erasure, named by its time", nullable=False),
        Column("scope", pa.string(), "What was asked for: patient, study, instance or object", nullable=False),
        Column("erased_by", pa.string(), "Who asked for it"),
        Column("erased_at", TIMESTAMP, "When it was asked for", nullable=False),
        Column("finished_at", TIMESTAMP, "When nothing was left of it", nullable=False),
        Column("objects", pa.int64(), "Objects and members of archives", nullable=False),
        Column("records", pa.int64(), "Clinical records", nullable=False),
        Column("studies", pa.int64(), "Studies of which nothing is left", nullable=False),
        Column("rows", pa.int64(), "Rows of all tables that held something of it", nullable=False),
    ),
    "What was erased, when and by whom, without anything of what it was.",
    "erasure_id",
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        RAW_FILES,
        VALIDATED_BATCH,
        FLAT_METADATA,
        BATCH_STUDY,
        BATCH_DIGEST,
        OVERWRITTEN,
        CORRECTION,
        PATIENT_LINK,
        MOVED_STUDY,
        CLINICAL,
        INSTANCE,
        SERIES,
        STUDY,
        SERIES_GEOMETRY,
        CONFLICT,
        PATIENT_VALUE,
        UID_INDEX,
        INGESTION_ERRORS,
        BATCHES,
        IMAGING_STUDY,
        DIAGNOSTIC_REPORT,
        OMOP_IDENTIFIER,
        IMAGE_OCCURRENCE,
        IMAGE_OCCURRENCE_ORIGIN,
        MAPPING_COVERAGE,
        DUPLICATE,
        DICOM_SERVICE_AUDIT,
        SOURCE_AUDIT,
        TAG_PROFILE_PART,
        TAG_PROFILE,
        PHI_RISK,
        ERASURE,
    )
}
"""Every table of the lake by name."""


def column_sources(table: Table) -> dict[str, list[tuple[str, str]]]:
    """Which columns of upstream tables a table's columns come from: those of the same name, nearest table first."""
    upstream = [TABLES[name] for name in table.upstream]
    found = {
        column.name: [(source.name, column.name) for source in upstream if column.name in source]
        for column in table.columns
    }
    return {name: sources for name, sources in found.items() if sources}
