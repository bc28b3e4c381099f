"""How each kind of object is read, once it is open: from bytes to a verdict.

Belongs here: the line of each kind, and DICOM objects, which a file is taken for until its reader says otherwise. Does
not belong here: which kind an object is (`landing.sniff`, `listing`), opening it (`object_bytes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dicom_assets.dicom.header import Memo, NotDicom, read_header
from dicom_assets.reading.change_entries import read_entry
from dicom_assets.reading.clinical_rows import read_clinical
from dicom_assets.reading.correction_rows import read_correction_table
from dicom_assets.reading.tasks import Chunk, ObjectTask
from dicom_assets.reading.verdicts import Verdict, settled
from dicom_assets.schema.codes import Kind, Outcome
from dicom_assets.storage.byte_ranges import ByteSource

Reader = Callable[[Chunk, ObjectTask, ByteSource, Memo], Verdict]
"""Reads one open object; memo: what headers of the chunk have in common. Raises errors that carry a reason code."""


def read_dicom(chunk: Chunk, task: ObjectTask, opened: ByteSource, memo: Memo) -> Verdict:
    """What a DICOM object ends as, and its header. Raises Unreadable."""
    try:
        header = read_header(opened, chunk.reading, memo)
    except NotDicom:
        return settled(Kind.OTHER, "NOT_DICOM", None)
    if header.media_directory:
        return settled(Kind.DICOM, "DICOMDIR", None)
    return Verdict(Outcome.INGESTED, Kind.DICOM, [(code, None) for code in header.issues], header)


READERS: Mapping[str, Reader] = {
    Kind.DICOM: read_dicom,
    Kind.OTHER: read_dicom,
    Kind.CLINICAL: read_clinical,
    Kind.CORRECTION: read_correction_table,
    Kind.CHANGE: read_entry,
}
"""By kind, as listing tells it; an archive's members are read, and it is not."""


def read_object(chunk: Chunk, task: ObjectTask, opened: ByteSource, memo: Memo) -> Verdict:
    """Reads an object as its kind is read."""
    return READERS.get(task.kind, read_dicom)(chunk, task, opened, memo)
