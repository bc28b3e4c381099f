"""What a landed change means for the lake: its version, its header, its outcome.

Belongs here: entries of window files as members of a batch. Does not belong here: the layout of the file and the
fields of an entry (`landing.change_windows`), how metadata becomes columns (`dicom.from_json`), which entries earlier
batches brought (`batch.known`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson

from dicom_assets.dicom.from_json import header_from_json
from dicom_assets.dicom.header import Header, Memo
from dicom_assets.landing.change_windows import EntryInvalid, Operation, parse_entry, read_page
from dicom_assets.reading.tasks import Chunk, ObjectTask
from dicom_assets.reading.verdicts import Verdict, Version, settled
from dicom_assets.schema.codes import Kind, Outcome
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import ByteSource, BytesSource


def read_change(source: ByteSource, service: str, limits: ReadingLimits) -> tuple[Header, Version] | None:
    """The header and version that one entry stands for; None when it is superseded (CHANGE_SUPERSEDED).

    A Delete has a header of its UIDs alone. Raises EntryInvalid, Unreadable.
    """
    try:
        value = orjson.loads(source.read(0, source.size))
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise EntryInvalid("The entry is no JSON object.")
    entry = parse_entry(value)
    operation = entry.operation
    if operation is Operation.SUPERSEDED:
        return None
    identity = (entry.study, entry.series, entry.instance)
    version = Version(
        source=entry.source(service),
        operation=str(operation),
        version_at=entry.changed_at,
        version_text=entry.changed_at_text,
        sequence=entry.sequence,
        uri=entry.file_path,
    )
    if operation is Operation.DELETE:
        names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        return Header(b"", dict(zip(names, identity, strict=True)), ()), version
    return header_from_json(entry.metadata or {}, limits, identity), version


def read_entry(chunk: Chunk, task: ObjectTask, opened: ByteSource, memo: Memo) -> Verdict:
    """What a landed change ends as. Raises EntryInvalid, Unreadable."""
    found = read_change(opened, task.source, chunk.reading)
    if found is None:
        return settled(Kind.CHANGE, "CHANGE_SUPERSEDED", None)
    header, version = found
    outcome = Outcome.DELETED if version.operation == "delete" else Outcome.INGESTED
    return Verdict(outcome, Kind.CHANGE, [(code, None) for code in header.issues], header, version)


def open_entries(page: ByteSource, numbers: Sequence[int]) -> Iterator[ByteSource]:
    """The entries at these places of a window file, ascending. Raises PageUnreadable."""
    if not numbers:
        return
    wanted = set(numbers)
    for line in read_page(page, numbers[0], numbers[-1] + 1):
        if line.number in wanted:
            yield BytesSource(line.data)
