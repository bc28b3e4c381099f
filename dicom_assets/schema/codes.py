"""The reason codes: what can be said of an object or a record, and what a user does about it.

Belongs here: every code that may stand in `validated_batch.code`, `flat_metadata.issues` and
`ingestion_errors.code`, with its outcome, its severity and its remedy. The README's table, the checks and the
command line read this registry. Does not belong here: the rules that find a code (they stand where bytes are read).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of an object. Every claimed object ends in exactly one of these."""

    INGESTED = "ingested"
    QUARANTINED = "quarantined"
    IGNORED = "ignored"
    DELETED = "deleted"


class Severity(StrEnum):
    """How much a row of `ingestion_errors` matters."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Kind(StrEnum):
    """What an object is, told from its content."""

    DICOM = "dicom"
    CHANGE = "change"
    CLINICAL = "clinical"
    CORRECTION = "correction"
    ARCHIVE = "archive"
    OTHER = "other"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class ReasonCode:
    """One reason code.

    outcome: what an object with this code ends as; None for codes of records, which have no outcome of their own, and
    for reasons from outside, which are no outcome.
    meaning, remedy: one sentence each, for users.
    """

    name: str
    outcome: Outcome | None
    meaning: str
    remedy: str

    @property
    def severity(self) -> Severity:
        """ERROR where something is kept out of the lake, WARNING where it is kept with a flaw, INFO where ignored."""
        if self.outcome is Outcome.INGESTED:
            return Severity.WARNING
        if self.outcome in (Outcome.IGNORED, Outcome.DELETED):
            return Severity.INFO
        return Severity.ERROR


_INGESTED = [
    (
        "TRUNCATED_PIXEL_DATA",
        "The pixel data is shorter than its length, or than rows, columns, samples, bits and frames ask for.",
        "Send the file again from its source; the header in the lake is complete.",
    ),
    (
        "OFFSET_TABLE_INVALID",
        "An offset table of encapsulated pixel data has other frames than the object, or leads beyond the pixel data.",
        "Nothing has to be done: frames are found by their fragments, one after the other, when they are asked for.",
    ),
    (
        "TRUNCATED_DATA_SET",
        "The object ends inside its header, behind its identity. The header in the lake is what was there.",
        "Send the file again from its source.",
    ),
    ("TRAILING_BYTES", "Bytes follow the end of the data set.", "Nothing, unless the sender should be told."),
    (
        "VALUE_INVALID",
        "A value cannot be read by its value representation (PS3.5 6.2), holds several values where its attribute has "
        "one (6.4), continues after a NUL, could have several value representations, or is a sequence that cannot be "
        "read. Its typed column is NULL, or the text as written; header keeps what was written. Lengths and letters "
        "that can be read are not judged.",
        "Look at header; correct the sender if the attribute matters to you.",
    ),
    (
        "STRUCTURE_INVALID",
        "Lengths, delimiters or encodings break PS3.5 7 or PS3.10 7.1; what stands there was read as far as it goes.",
        "Look at header; correct the sender if other software refuses the object.",
    ),
    (
        "HEADER_INCOMPLETE",
        "Some bytes of the data set, or all from some byte on, are no data elements. The header holds the others.",
        "Compare the file with its source; send it again if they differ.",
    ),
    (
        "UID_INVALID",
        "A UID breaks the rules of PS3.5 9.1. It is kept as it was written.",
        "Nothing; joins work on the text as written.",
    ),
    (
        "CHARSET_UNDECODABLE",
        "Text is not valid in the character set that the object declares (PS3.3 C.12.1.1.2), or holds control "
        "characters.",
        "Correct Specific Character Set at the sender; undecodable bytes stand in header.",
    ),
    (
        "META_MISSING",
        "The preamble or the File Meta Information is missing or misplaced (PS3.10 7.1); a transfer syntax that it "
        "does not name was found by looking.",
        "Nothing; store the object as a DICOM file if others must read it.",
    ),
    (
        "SOP_INSTANCE_UID_MISMATCH",
        "Media Storage SOP Instance UID and SOP Instance UID differ; the data set's one counts.",
        "Find out which software rewrote one of them.",
    ),
    (
        "SOP_INSTANCE_CONFLICT",
        "Another object of its study, or of its batch, has the same SOP Instance UID and another header, and lies at "
        "another place. Both stay in flat_metadata; the newer one is the instance. Pixels are not compared.",
        "Find out which software gave one UID to both (docs/identity.md lists them). If they are two instances, "
        "deliver one of them with a UID of its own, in its old place.",
    ),
    (
        "RULE_WARNING",
        "The object, its study or its batch breaks a rule of the house that warns. The object is in the lake.",
        "See detail and rules: mend the sender, or change the rule ([[rules]]) and read it again: dicom-assets reread "
        "--code RULE_WARNING.",
    ),
    (
        "GONE_SINCE_READ",
        "Run again, its batch found that the object is gone or was replaced at the source. Its rows stay as they were "
        "read; whatever lies there now is an object of its own.",
        "Nothing.",
    ),
    (
        "PATIENT_ID_MISSING",
        "There is no PatientID; clinical records cannot be joined.",
        "Supply it at the source if the object must be joined with clinical data.",
    ),
    (
        "DEPTH_CAPPED",
        "Sequences are nested deeper than the bound; the header refers to those below it, and to no values in them.",
        "If you need what they hold, raise reading.max_depth, then run its batch again (README, Backfills).",
    ),
    (
        "HEADER_CAPPED",
        "A value above the size bound is kept by reference, with its count and digest.",
        "Follow the reference into the object (docs/reader.md); or raise reading.max_value_bytes, then run its batch "
        "again (README, Backfills).",
    ),
    (
        "SHEETS_PASSED_OVER",
        "Some sheets of a workbook name no patient id column and are not in the lake; the others are.",
        "If they hold records, name their column in clinical.patient_id_columns, then run its batch again (README, "
        "Backfills).",
    ),
]
_QUARANTINED = [
    ("EMPTY_FILE", "The object has no bytes.", "Send it again."),
    (
        "TRUNCATED_HEADER",
        "The object ends inside an element of its header, or before the elements that identify it.",
        "Compare it with its source, and send it again if that has more.",
    ),
    ("UNPARSEABLE", "It begins like DICOM and cannot be read as DICOM.", "Open it with another tool; send it again."),
    (
        "MISSING_IDENTITY",
        "Study, Series or SOP Instance UID is missing or unusable.",
        "Supply the UIDs at the source; without them the instance has no place in the lake.",
    ),
    (
        "TOO_LARGE",
        "The object is larger than the bound.",
        "Raise reading.max_object_bytes, then run its batch again (README, Backfills).",
    ),
    (
        "PARSER_TIMEOUT",
        "Reading took longer than the limit for one object, and did so again when it was read alone.",
        "Look at the object; if it is sound, raise reading.object_seconds, then run its batch again (README, "
        "Backfills).",
    ),
    (
        "PARSER_CRASH",
        "The process that read it ended or grew beyond its memory limit, and so did another one that read it alone.",
        "Look at the object; if it is sound, raise reading.worker_memory_bytes, then run its batch again (README, "
        "Backfills).",
    ),
    (
        "ARCHIVE_UNREADABLE",
        "A ZIP file whose directory cannot be read, or a member whose bytes are not what the directory says.",
        "See detail; send the archive again, or make it again.",
    ),
    (
        "ARCHIVE_LIMIT",
        "The archive exceeds a limit: entries, inflated bytes, ratio or nesting.",
        "Split it; or, if you trust its sender, raise archives.max_entries or the limit that detail names, then "
        "run its batch again (README, Backfills).",
    ),
    (
        "ARCHIVE_METHOD_UNSUPPORTED",
        "The member is compressed by a method that is not read.",
        "Make the archive again with Deflate, or without compression.",
    ),
    ("ARCHIVE_ENCRYPTED", "The member is encrypted.", "Deliver it without a password."),
    (
        "ARCHIVE_MEMBER_UNSAFE",
        "The member's name is absolute or climbs out of the archive, or it is a link.",
        "Ask the sender; a sound archive has none of these.",
    ),
    ("CONTAINER_UNSUPPORTED", "An archive of a kind that is not read (7z, RAR, tar, CAB).", "Deliver it as ZIP."),
    (
        "COMPRESSED_FILE_UNSUPPORTED",
        "A file compressed by gzip, bzip2, xz or zstd, which is not read.",
        "Deliver what is in it, by itself or as ZIP.",
    ),
    (
        "SPREADSHEET_UNSUPPORTED",
        "A spreadsheet in a form that is not read: XLS, XLSB, ODS, XML or HTML of Excel; or an Office file behind a "
        "password.",
        "Save it as XLSX or CSV, without a password, and deliver that.",
    ),
    (
        "HL7_UNSUPPORTED",
        "HL7 in a form that is not read: a message or batch of version 2, a CDA document, FHIR as XML.",
        "Deliver it as FHIR JSON or NDJSON, or as a table.",
    ),
    (
        "CLINICAL_UNREADABLE",
        "A clinical file cannot be read: its encoding, its structure, or no patient id column.",
        "See detail; name the column in clinical.patient_id_columns, or set what detail asks for (encoding, "
        "date_order), then run its batch again (README, Backfills); or correct the file and deliver it again.",
    ),
    (
        "RECORDS_ALL_INVALID",
        "A clinical file has records, and not one of them can be read.",
        "See detail and the rows of stage record; correct the records and deliver the file again.",
    ),
    (
        "CORRECTIONS_NOT_EXPECTED",
        "A table of corrections lies where the configuration expects none. None of it is applied.",
        "If it is to be believed, name its source or its files in [corrections], then run its batch again (README, "
        "Backfills); otherwise ask who put it there.",
    ),
    (
        "CORRECTIONS_UNREADABLE",
        "A table that lies where corrections are expected cannot be read as one: its columns, its encoding or its "
        "structure. What an earlier version of the file said is not in force any more.",
        "See detail; correct the file (docs/stewardship.md has its columns) and deliver it again.",
    ),
    (
        "CHANGE_PAGE_UNREADABLE",
        "A landed window of changes is cut short, or is not what its first line says.",
        "Delete the file and read the window again: run its partition of dicom_changes.",
    ),
    (
        "CHANGE_INVALID",
        "An entry of a change feed lacks its key, its action or its time, or is current and comes without metadata.",
        "See detail; read the window again when the service is mended.",
    ),
    (
        "RULE_FAILED",
        "The object, its study or its batch breaks a rule of the house that quarantines.",
        "See detail and rules: deliver the object again when its sender is mended; or change the rule ([[rules]]) and "
        "read it again: dicom-assets reread --code RULE_FAILED.",
    ),
    (
        "CHANGED_DURING_READ",
        "The object changed between its claim and the end of reading.",
        "Nothing: its new version is a new object and is claimed by itself.",
    ),
    (
        "OBJECT_GONE",
        "The object was there when it was claimed and is not there any more.",
        "If it was moved by mistake, move it back: it is claimed again when it is listed as it was, or as a new "
        "version.",
    ),
    (
        "DISMISSED",
        "A person has closed its batch without it (`dicom-assets batch dismiss`).",
        "If it was a mistake, deliver the object again, with another modification time.",
    ),
]
_WAITING = [
    (
        "READ_FAILED",
        "The storage refused or broke off the reading. The object has left its batch and waits to be read again.",
        "Mend permissions or connection; it is read again by itself, at once by `dicom-assets ingest`.",
    ),
    (
        "READER_KILLED",
        "Each process that read the object was killed from outside, as the system does when memory is short, also when "
        "it was read alone. The object has left its batch and waits to be read again.",
        "Give the machine more memory or lower reading.workers; it is read again by itself, at once by "
        "`dicom-assets ingest`.",
    ),
    (
        "SOURCE_UNAVAILABLE",
        "The root of its source was not there. The batch pauses.",
        "Mount the folder, or mend the container; then run `dicom-assets ingest`.",
    ),
]
_IGNORED = [
    ("NOT_DICOM", "Neither DICOM nor anything else that is read here.", "Nothing."),
    ("DOCUMENT", "A document for people: PDF, PostScript, RTF, Word, PowerPoint and the like.", "Nothing."),
    ("NO_RECORDS", "A clinical table, Bundle or list without a single record.", "Nothing, unless it should have some."),
    ("DICOMDIR", "A DICOM media directory (PS3.10 8.6); the files that it lists are read by themselves.", "Nothing."),
    (
        "SYSTEM_FILE",
        "A file of the operating system or of a service: hidden files, __MACOSX, Thumbs.db, healthCheck.",
        "Nothing.",
    ),
    (
        "CHANGE_SUPERSEDED",
        "A change whose instance has been deleted since; the entry that deletes it follows in the feed.",
        "Nothing.",
    ),
    (
        "LINK_NOT_FOLLOWED",
        "A symbolic link that leads out of the source's root, to a folder, in a circle or nowhere; it was not read.",
        "Deliver the file itself, or set follow_links = true for the source if links out of it are to be trusted.",
    ),
    ("ARCHIVE_EXPANDED", "The archive itself; its members are counted one by one.", "Nothing."),
    (
        "ERASED",
        "The object was erased, and its row stays for the books alone; or its patient, its study or the object itself "
        "was erased before it arrived, and nothing of it was taken in. For a clinical file: that many of its records.",
        "Delete it at its source. If it is to come in: set erase.re_arrival, then run its batch again (README, "
        "Backfills).",
    ),
]
_RECORD = [
    (
        "RECORD_INVALID",
        "A record of a clinical file cannot be read; the rest of the file is.",
        "See detail and record; correct the record and deliver the file again.",
    ),
    (
        "IDENTITY_CHANGED",
        "A version of a clinical record names another patient than the versions before it. It is held back: the record "
        "stays with the patient it had.",
        "When ids of several servers meet, name the servers (fhir_server of the source, or fhir.servers). When the "
        "patient has a new identifier, deliver the Patient with the one before among its identifiers. When the change "
        "is right, put the record_key that detail names into clinical.accepted_identity_changes. Then run the batch "
        "again.",
    ),
    (
        "CORRECTION_INVALID",
        "A row of a table of corrections cannot be read; the rest of the file is, and is applied.",
        "See detail and record; correct the row and deliver the file again.",
    ),
    (
        "CORRECTION_CONTRADICTED",
        "A correction contradicts one about the same objects or person that was made earlier, or at the same time. The "
        "earlier one stays in force; of two that were made at the same time neither is.",
        "See detail and the table correction; take the wrong one out of its file and deliver that file again. The "
        "other one comes into force by itself.",
    ),
    (
        "PATIENT_LINK_CYCLE",
        "A patient link leads, with those that were said earlier or at the same time, back to where it begins. It is "
        "not in force; the earlier ones are.",
        "See detail and the table correction; take the wrong link out of its file and deliver that file again. The "
        "others come into force by themselves.",
    ),
    (
        "CHECK_FAILED",
        "A blocking check on the batch did not hold; the batch is paused.",
        "See detail and `dicom-assets batch show`; remove the cause, then run the batch again.",
    ),
    (
        "SOURCE_EMPTIED",
        "The source holds far less than the last look found, as a mount that is away does; the batch waits.",
        "Mount it again; if it is as it should be: dicom-assets source confirm NAME. The batch then goes on by itself.",
    ),
    (
        "FOLDER_UNREADABLE",
        "A folder of the source cannot be listed; it was passed over, and nothing in it is claimed or called gone.",
        "Let the user who runs this read and enter it, or exclude it with a pattern that ends in /**.",
    ),
    (
        "NOT_MOVED",
        "An object of a source in mode organize could not be moved; it stays where it is, and in the lake.",
        "See detail; rename it, or move it by hand where it is in the way.",
    ),
    ("RUN_FAILED", "A run of the batch broke off.", "See detail and the run's log; run the batch again."),
    (
        "EVENT_UNREADABLE",
        "A message in a storage queue is no event of Event Grid; it was moved to the poison queue.",
        "See detail and the message in {queue}-poison; see who else writes to the queue.",
    ),
]

CODES: dict[str, ReasonCode] = {
    name: ReasonCode(name, outcome, meaning, remedy)
    for outcome, group in (
        (Outcome.INGESTED, _INGESTED),
        (Outcome.QUARANTINED, _QUARANTINED),
        (Outcome.IGNORED, _IGNORED),
        (None, _WAITING),
        (None, _RECORD),
    )
    for name, meaning, remedy in group
}
"""Every reason code by name, in the order in which users meet them."""

WAITING = "waiting"
"""What stands in place of an outcome while a batch is read: the object could not be read for an outside reason."""
OUTSIDE = frozenset(name for name, _, _ in _WAITING)
"""Codes of objects that could not be read for a reason that is not theirs; they are no outcome."""
ABSENT = frozenset(("OBJECT_GONE", "CHANGED_DURING_READ"))
"""Codes of objects that were not there as they were claimed; listed again as they were, they are claimed again."""
NOT_ARRIVED = ABSENT | {"DISMISSED"}
"""Codes of objects that replace nothing: what the lake has of their places, or of themselves, stays current."""
