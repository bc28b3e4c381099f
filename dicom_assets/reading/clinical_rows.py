"""Staged rows of `clinical`: the records of one file, with the names that they are known by.

Belongs here: which data set and which server a file belongs to, keys of records. Does not belong here: reading records
(`dicom_assets.clinical`), which versions count (`versions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from dicom_assets.dicom.header import Memo
from dicom_assets.lake.staging import SCHEMAS, Part
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.recognition import match
from dicom_assets.reading.tasks import Chunk, ObjectTask
from dicom_assets.reading.verdicts import Verdict, error_row, settled
from dicom_assets.schema import keys
from dicom_assets.schema.codes import Kind, Outcome
from dicom_assets.settings import DatasetSettings, FhirSettings, SourceSettings
from dicom_assets.storage.byte_ranges import ByteSource


def dataset_of(chunk: Chunk, task: ObjectTask) -> DatasetSettings | None:
    """The configured dataset that a file belongs to, by its path below the root or in its archive."""
    if not chunk.clinical.datasets:
        return None
    named = (one for one in chunk.clinical.datasets if _is_named(chunk.settings, task.uri, task.member, one.files))
    return next(named, None)


def _is_named(source: SourceSettings, uri: str, member: str | None, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches a file's path below the root, or its path in its archive."""
    return match(patterns, (open_store(source).below_root(uri), _slashed(member)))


def _slashed(member: str | None) -> str | None:
    r"""A member's path with `/` between its parts, also where its archive has `\`."""
    return member if member is None else member.replace("\\", "/")


def server_of(source: SourceSettings, fhir: FhirSettings, uri: str, member: str | None) -> str | None:
    """The FHIR server that a file is configured to come from: by its path, otherwise by its source."""
    named = (one.name for one in fhir.servers if _is_named(source, uri, member, one.files))
    return next(named, source.fhir_server)


def clinical_rows(chunk: Chunk, task: ObjectTask, records: pa.Table) -> pa.Table:
    """Staged rows of clinical for some records of one file.

    A record with a key of its own replaces older versions of itself wherever they stood; any other one goes with its
    file. Ids of FHIR are those of a server, which is part of the key.
    """
    size = len(records)
    if "server" in records.column_names:
        server = server_of(chunk.settings, chunk.fhir, task.uri, task.member)
        servers = records["server"].to_pylist() if server is None else [server] * size
        own_names = zip(servers, records["natural_key"].to_pylist(), strict=True)
        names = [keys.record_key(task.source, server, name) for server, name in own_names]
        files = names
        records = records.set_column(records.column_names.index("server"), "server", pa.array(servers, pa.string()))
    elif "natural_key" in records.column_names:
        names = [keys.record_key(task.source, name) for name in records["natural_key"].to_pylist()]
        files = names
    else:
        file = keys.file_key(task.source, task.uri, task.member)
        names = [keys.record_key(file, str(number)) for number in records["record"].to_pylist()]
        files = [file] * size
    own: dict[str, Any] = {
        "source": [task.source] * size,
        "record_key": names,
        "batch_id": [chunk.batch_id] * size,
        "object_id": [task.object_id] * size,
        "file_key": files,
        "version_at": [task.modified_at or chunk.claimed_at] * size,
    }
    schema = SCHEMAS[Part.CLINICAL]
    arrays = [
        pa.array(own[f.name], f.type)
        if f.name in own
        else records[f.name].combine_chunks().cast(f.type)
        if f.name in records.column_names
        else pa.nulls(size, f.type)
        for f in schema
    ]
    return pa.table(arrays, schema=schema)


def read_clinical(chunk: Chunk, task: ObjectTask, opened: ByteSource, memo: Memo) -> Verdict:
    """What a clinical file ends as, and its records. Raises ClinicalUnreadable."""
    from dicom_assets.clinical.records import read_records  # slow to import, and few workers need it

    tables, errors = [], []
    warnings: list[tuple[str, str | None]] = []
    for part in read_records(opened, chunk.clinical, chunk.fhir, dataset_of(chunk, task)):
        tables.append(clinical_rows(chunk, task, part.records))
        errors += [error_row(chunk, task, "record", "RECORD_INVALID", e.detail, e.record) for e in part.errors]
        warnings += part.warnings
    if any(map(len, tables)):
        return Verdict(Outcome.INGESTED, Kind.CLINICAL, warnings, records=tables, record_errors=errors)
    nothing = settled(Kind.CLINICAL, *nothing_taken(len(errors)))
    nothing.record_errors = errors
    return nothing


def nothing_taken(refused: int) -> tuple[str, str | None]:
    """Code and detail of a clinical file of which no record was taken, so many of them for what is wrong with them."""
    return ("RECORDS_ALL_INVALID", f"{refused} of {refused} records are invalid") if refused else ("NO_RECORDS", None)
