"""The sections of the settings file, each with its defaults and bounds; and the errors that a user can act on.

Belongs here: what can be set in one section. Does not belong here: the file as a whole, and where it is read from
(`settings`).
"""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

CONFIG_FILE = "dicom-assets.toml"
DEFAULT_LANDING = "data/landing"
DEFAULT_LAKE = "data/lake"
DEFAULT_CHANGES = "data/changes"
CHANGE_FILES = "**/*.ndjson.zst"
"""Files that windows of changes are landed in."""


class UserError(Exception):
    """What a user can do something about; the message says what is wrong, where, and what to do."""


class SettingsError(UserError, ValueError):
    """A setting is wrong; the message says which, where and what is expected."""


class Section(BaseModel):
    """A section of the file: names that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnSettings(Section):
    """One attribute that is promoted to a column; see `schema.promoted`.

    path: keyword, tag, (GGGG,creator,EE), or several of these with dots, all but the last of which name sequences.
    name: of the column; by default the keywords of the path. level: instance, series or study, up to whose table it
    goes. vr: of an element that no dictionary knows.
    """

    path: Annotated[str, Field(min_length=1)]
    name: str | None = None
    level: str = "instance"
    vr: str | None = None


class SourceSettings(Section):
    """One landing source.

    name: appears in tables and logs, so it must not hold patient data. root: folder or URL. include, exclude: glob
    patterns over the path below the root; `**` crosses folders. Everything is included by default.

    mode: `in_place` reads and never writes there; `organize` moves what was ingested to `Process/` below the root, and
    what failed to `Failed/`. compress: each organized DICOM object becomes a zip of its own. queue: storage queue that
    announces new blobs, its name (in the root's account) or its URL; the source is then listed only now and then.
    inventory: where reports of Blob Inventory lie; the newest one is the listing. fhir_server: name or URL of the
    server that all FHIR of the source comes from; see `FhirSettings.servers`.

    follow_links: whether symbolic links may lead out of the root of a folder. missing_share: see ClaimingSettings; of
    this source alone. deletions: what is gone there is ignored, reported by an audit, or followed: it leaves the
    current tables.

    store: how objects are put there that DICOMweb clients store; `landing.deposits.Layout`. Without it, nobody can.
    tree: workspace and service in the paths of `store = "tree"`; by default `dicom-assets/` and the source's name.
    forward_to: name of a service at which what was ingested is stored.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = "landing"
    root: Annotated[str, Field(min_length=1)]
    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    mode: Literal["in_place", "organize"] = "in_place"
    compress: bool = False
    queue: Annotated[str, Field(pattern=r"^(https?://[^\s?#]+/)?[a-z0-9](-?[a-z0-9]){2,62}$")] | None = None
    inventory: str | None = None
    follow_links: bool = False
    missing_share: Annotated[float, Field(gt=0, le=1)] | None = None
    fhir_server: Annotated[str, Field(min_length=1)] | None = None
    deletions: Literal["ignore", "report", "follow"] = "ignore"
    store: Literal["by_date", "tree"] | None = None
    tree: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,62}/[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] | None = (
        None
    )

    forward_to: str | None = None

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: str) -> str:
        return root if "://" in root else str(Path(root).expanduser().absolute())

    @model_validator(mode="after")
    def _fitting(self) -> SourceSettings:
        remote = "://" in self.root and not self.root.startswith("file://")
        if (self.queue or self.inventory) and not remote:
            raise ValueError("queue and inventory are for roots on Azure Storage")
        if self.follow_links and remote:
            raise ValueError("follow_links is for roots that are folders")
        if self.compress and self.mode != "organize":
            raise ValueError("compress is for mode 'organize'")
        if self.tree and self.store != "tree":
            raise ValueError("tree is for store = 'tree'")
        return self


class ClaimingSettings(Section):
    """How batches are made.

    quiet_seconds: a younger file may still be written and waits. longest_wait_seconds: while files keep coming at a
    source, what is complete waits for more, each time twice as long, at most so long; 0 waits for nothing.
    enough_objects: so many are a batch at once. Both are for sensors: `dicom-assets ingest` takes what is complete.
    missing_share: a source that lacks more than this share of the objects that the last look found, and at least
    missing_minimum of them, or all, looks emptied: nothing of it is called gone until it is back or confirmed. 1 for
    sources that are emptied by those who deliver.
    again_seconds: pauses after which an object that could not be read for an outside reason is claimed again, by
    attempt; the last one counts from then on.
    """

    batch_objects: Annotated[int, Field(ge=1, le=100_000)] = 50_000
    batches_per_tick: Annotated[int, Field(ge=1, le=100)] = 8
    quiet_seconds: Annotated[float, Field(ge=0)] = 10.0
    longest_wait_seconds: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    enough_objects: Annotated[int, Field(ge=1)] = 1_000
    missing_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    missing_minimum: Annotated[int, Field(ge=1)] = 10
    again_seconds: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        60.0, 300.0, 1_800.0, 7_200.0, 43_200.0, 86_400.0,
    )  # fmt: skip


class StorageSettings(Section):
    """How a lake in a folder is written.

    survive_power_cuts: what the books rest on is on the disk before a step goes on. readable_by: whom of this machine's
    users the files of lake and state are readable by.
    """

    survive_power_cuts: bool = True
    readable_by: Literal["owner", "group", "everyone"] = "owner"

    @property
    def umask(self) -> int:
        """The permissions that no file or folder gets."""
        return {"owner": 0o077, "group": 0o027, "everyone": 0o022}[self.readable_by]


class EraseSettings(Section):
    """What becomes of what was erased and arrives again.

    re_arrival: `refuse` keeps objects of an erased patient, study or instance out, with code ERASED; `admit` lets them
    in. A file that was erased and lies where it lay is never claimed again.
    """

    re_arrival: Literal["refuse", "admit"] = "refuse"


class EventSettings(Section):
    """How storage queues are read.

    messages_per_tick: bound on what one tick takes. visible_again_seconds: when a message is delivered again whose
    claim did not become durable. tries: deliveries after which an unreadable message goes to `{queue}-poison`.
    reconcile_minutes: how often sources with a queue are listed all the same, for what events missed.
    """

    messages_per_tick: Annotated[int, Field(ge=1, le=20_000)] = 4_000
    visible_again_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    tries: Annotated[int, Field(ge=1, le=100)] = 5
    reconcile_minutes: Annotated[int, Field(ge=1)] = 360


class ArchiveLimits(Section):
    """Bounds on one ZIP file with everything nested in it."""

    max_entries: Annotated[int, Field(ge=1)] = 1_000_000
    max_inflated_bytes: Annotated[int, Field(ge=1)] = 64 * 2**30
    max_ratio: Annotated[float, Field(gt=1)] = 1_000.0
    max_depth: Annotated[int, Field(ge=1, le=16)] = 3
    max_nested_bytes: Annotated[int, Field(ge=1)] = 2 * 2**30


class ReadingLimits(Section):
    """Bounds on the reading of one object.

    workers: reading processes; 0 means one for each core. first_read_bytes: most that is read of an object at once; of
    small headers in a row it is less. max_value_bytes: a longer value of a header is kept by reference, with count and
    digest. max_header_bytes: bound on the DICOM JSON of one object. object_seconds: for reading it, and for listing all
    members of an archive. pixel_digest: read each object whole, for digests of its bytes and of its pixel data.
    """

    workers: Annotated[int, Field(ge=0, le=256)] = 0
    chunk_objects: Annotated[int, Field(ge=1, le=10_000)] = 500
    first_read_bytes: Annotated[int, Field(ge=256)] = 65_536
    max_object_bytes: Annotated[int, Field(ge=1)] = 16 * 2**30
    max_inflated_bytes: Annotated[int, Field(ge=1)] = 256 * 2**20
    max_depth: Annotated[int, Field(ge=1, le=200)] = 32
    max_value_bytes: Annotated[int, Field(ge=1_024)] = 2**20
    max_header_bytes: Annotated[int, Field(ge=65_536)] = 64 * 2**20
    object_seconds: Annotated[float, Field(gt=0)] = 60.0
    worker_memory_bytes: Annotated[int, Field(ge=2**28)] = 2 * 2**30
    pixel_digest: bool = False


class GateSettings(Section):
    """When a batch pauses: share of its objects that are quarantined, once at least `minimum` are.

    none_ingested: a smaller batch pauses when so many objects are quarantined and nothing at all is ingested; a single
    broken file pauses nothing. ignored_share: the same for objects that are nothing that is read here (NOT_DICOM); 1
    lets folders pass that hold no images. record_error_share: of the clinical records in files that are ingested.
    warning_share: makes a check warn, never pause.
    """

    quarantined_share: Annotated[float, Field(ge=0, le=1)] = 0.30
    ignored_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    record_error_share: Annotated[float, Field(ge=0, le=1)] = 0.50
    minimum: Annotated[int, Field(ge=1)] = 10
    none_ingested: Annotated[int, Field(ge=1)] = 3
    warning_share: Annotated[float, Field(ge=0, le=1)] = 0.50


class ChecksSettings(Section):
    """How much of a batch the checks read again from its source, with other libraries than the ingest.

    sample_objects: ingested objects that pydicom reads again and compares with their rows; 0 switches this off.
    promoted_rows: rows whose promoted columns are compared with their headers; 0 switches this off.
    refused_objects: objects called NOT_DICOM or quarantined that are looked at again. archives: archives whose members
    are compared with their directories. archive_members: members in one of them; larger ones are not compared.
    clinical_files, clinical_bytes: files whose records are counted again, and bytes of them. Each is a bound on one
    batch, and which objects are taken when there are more follows from the batch's id.
    """

    sample_objects: Annotated[int, Field(ge=0, le=10_000)] = 5
    promoted_rows: Annotated[int, Field(ge=0, le=10_000)] = 50
    refused_objects: Annotated[int, Field(ge=0)] = 500
    archives: Annotated[int, Field(ge=0)] = 1_000
    archive_members: Annotated[int, Field(ge=0)] = 200_000
    clinical_files: Annotated[int, Field(ge=0)] = 1_000
    clinical_bytes: Annotated[int, Field(ge=0)] = 2 * 2**30


class DatasetSettings(Section):
    """One set of clinical tables, delivered as CSV or Parquet again and again.

    name: record type of its records and, after `clinical_`, a view of typed columns. files: patterns over the path
    below the root, or over a member's path. key_columns: a record with the same values replaces the older one, whatever
    file it stands in; without them a newer version of a file replaces the whole file. date_column: becomes
    effective_at; a date that cannot be read makes its record an error. date_order: whether `03/04/2024` begins with its
    day or its month; without it such a date refuses the file. time_zone: of times without an offset, by its name in the
    IANA database; UTC by default. decimal: what stands before the fraction of a number. encoding: see ClinicalSettings;
    of these files alone. A file that the patterns match is read or refused, never ignored.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
    files: Annotated[tuple[str, ...], Field(min_length=1)]
    patient_id_column: str
    issuer_column: str | None = None
    issuer: str | None = None
    date_column: str | None = None
    date_order: Literal["day-first", "month-first"] | None = None
    time_zone: str | None = None
    decimal: Literal[".", ","] = "."
    encoding: str | None = None
    key_columns: tuple[str, ...] = ()

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str | None) -> str | None:
        return _codec(encoding)

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, zone: str | None) -> str | None:
        if zone is not None and zone not in available_timezones():
            raise ValueError("no time zone of this name; try Europe/Berlin or America/New_York")
        return zone


def _codec(encoding: str | None) -> str | None:
    try:
        io.TextIOWrapper(io.BytesIO(), encoding)
        return encoding and codecs.lookup(encoding).name
    except LookupError:
        raise ValueError("no codec of this name; try utf-8, cp1252 or utf-16") from None


class ClinicalSettings(Section):
    """How clinical tables are recognised. Column names are compared without regard to case, space, `_` and `-`.

    encoding: codec of text tables, such as cp1250 or shift_jis; without one it is told from the bytes where that is
    certain. A byte order mark counts before it.
    datasets: tables with columns of their own; the first one whose patterns match a file counts. A table that none of
    them matches is read by the columns above, each record under its place in its file.
    accepted_identity_changes: keys (record_key, as the error IDENTITY_CHANGED names them) of records whose newest
    version is taken although it names another patient than the versions before it.
    """

    patient_id_columns: tuple[str, ...] = ("PatientID", "patient_id", "MRN", "person_source_value")
    issuer_columns: tuple[str, ...] = ("IssuerOfPatientID", "issuer")
    issuer: str | None = None
    encoding: str | None = None
    datasets: tuple[DatasetSettings, ...] = ()
    accepted_identity_changes: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")], ...] = ()

    @field_validator("datasets")
    @classmethod
    def _distinct(cls, datasets: tuple[DatasetSettings, ...]) -> tuple[DatasetSettings, ...]:
        if len({dataset.name for dataset in datasets}) != len(datasets):
            raise ValueError("two datasets have the same name")
        return datasets

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str | None) -> str | None:
        return _codec(encoding)


class CorrectionSettings(Section):
    """Where tables of corrections and patient links are believed; anywhere else such a table is an error.

    source: the source that they come from. files: patterns over the path below a root, or over a member's path. With
    both, those files of that source; with neither, none are believed.
    """

    source: str | None = None
    files: tuple[str, ...] = ()

    def patterns_of(self, source: str) -> tuple[str, ...]:
        """Patterns of the files of a source that are believed; none for a source of which nothing is."""
        if self.source not in (None, source):
            return ()
        return self.files or (("**",) if self.source else ())


class FhirServerSettings(Section):
    """One FHIR server. name: any name of it, such as its URL. files: patterns over the path of what comes from it."""

    name: Annotated[str, Field(min_length=1)]
    files: Annotated[tuple[str, ...], Field(min_length=1)]


class FhirSettings(Section):
    """How FHIR names things.

    base: what stands before `ImagingStudy/...` in the text whose hash is a resource's id; the source's name by
    default. issuer_systems: FHIR identifier system for each IssuerOfPatientID. patient_identifier_systems: systems of
    the patient identifiers that imaging uses, most wanted first. servers: whose ids the resources of some files have;
    the first one whose patterns match the path below the root, or the member's path, counts; otherwise `fhir_server` of
    the source, otherwise `meta.source` of the resource. Ids of two servers are different ids.
    """

    base: str | None = None
    issuer_systems: dict[str, str] = {}
    patient_identifier_systems: tuple[str, ...] = ()
    servers: tuple[FhirServerSettings, ...] = ()


class OmopSettings(Section):
    """How series become rows of an OMOP database.

    wadors_base: URL that `/studies/...` follows in wadors_uri. person_map, visit_map, procedure_map: CSV or Parquet
    with PatientID (and IssuerOfPatientID) or AccessionNumber, and the id. modality_concepts, anatomic_site_concepts:
    CSV whose rows come before the packaged ones. mapped_share_warning, mapped_share_error: a share of mapped series
    below this makes the coverage check warn or fail; it never blocks.
    """

    wadors_base: str | None = None
    person_map: str | None = None
    visit_map: str | None = None
    procedure_map: str | None = None
    modality_concepts: str | None = None
    anatomic_site_concepts: str | None = None
    mapped_share_warning: Annotated[float, Field(ge=0, le=1)] = 0.9
    mapped_share_error: Annotated[float, Field(ge=0, le=1)] = 0.5


class MaintenanceSettings(Section):
    """How long replaced versions of the tables stay readable, and closed batches stay partitions of Dagster.

    partition_days: a batch that closed before is taken off Dagster's list, which is kept for some ten thousand keys,
    and its runs are taken out of Dagster's storage; its books and its rows stay. 0: however long ago it closed.
    partition_most: of more closed batches than so many the oldest ones go, too. 0: however many there are.
    """

    retention_hours: Annotated[int, Field(ge=0)] = 720
    partition_days: Annotated[int, Field(ge=0)] = 30
    partition_most: Annotated[int, Field(ge=0)] = 20_000
