"""The lists beside what is exported: what is there, what is missing, what is left, and what other tools copy by.

Belongs here: their columns and their order, which follow from the lines of the journal alone. Does not belong here:
writing objects (`export`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import duckdb
from pydicom.datadict import keyword_for_tag

from dicom_assets.curation.cohorts.deidentification import Deidentifier
from dicom_assets.curation.cohorts.destination import Destination
from dicom_assets.curation.cohorts.mapping_keys import MAPPING
from dicom_assets.storage.files import LakeFiles

MANIFEST, MISSING, LEFT, S5CMD, AZCOPY = "manifest.csv", "missing.csv", "left.csv", "s5cmd.txt", "azcopy.txt"
_AT_ONCE = 10_000

Row = Sequence[Any]
_DICOM = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_MANIFEST = "SELECT path, sha256, size, study, series, instance{more} FROM lines WHERE why IS NULL ORDER BY path"
_MISSING = "SELECT path, why{more} FROM lines WHERE why IS NOT NULL ORDER BY ALL"
_PATHS = "SELECT path FROM lines WHERE why IS NULL ORDER BY path"
_LEFT = """
-- one row per element of the profile that still has a value in what was exported
SELECT element[:8] AS tag, count(*) AS objects, count(*) FILTER (ends_with(element, '=')) AS unchanged
FROM (SELECT unnest("left") AS element FROM lines WHERE why IS NULL) GROUP BY tag ORDER BY tag
"""
_MAPPING = """
SELECT object_id, former_patient, former_issuer, former_study, former_series, former_instance,
    patient, study, series, instance
FROM lines WHERE why IS NULL ORDER BY object_id
"""


def write_lists(
    connection: duckdb.DuckDBPyConnection,
    destination: Destination,
    cohort: str,
    bucket: str,
    deidentifier: Deidentifier | None,
) -> None:
    """Writes the lists, of table `lines`. deidentifier: of what was de-identified. Raises DestinationError.

    An object_id is a hash of a place, which may name a patient: what is de-identified goes without it.
    """
    more, names = ("", ()) if deidentifier is not None else (", object_id", ("object_id",))
    manifest = _rows(connection, _MANIFEST.format(more=more))
    destination.put(MANIFEST, _csv(("path", "sha256", "size", *_DICOM, *names), manifest))
    missing = _rows(connection, _MISSING.format(more=more))
    destination.put(MISSING, _csv(("path", "why", *names), missing))
    base = f"{bucket.rstrip('/')}/{cohort}"
    destination.put(S5CMD, _text(_rows(connection, _PATHS), lambda row: f"cp {row[0]} {base}/{row[0]}\n"))
    destination.put(AZCOPY, _text(_rows(connection, _PATHS), lambda row: f"{row[0]}\n"))
    if deidentifier is not None:
        left = _left(connection, deidentifier)
        destination.put(LEFT, _csv(("tag", "element", "action", "objects", "unchanged"), left))


def write_mapping(connection: duckdb.DuckDBPyConnection, home: LakeFiles) -> None:
    """Writes which identifier became which, of table `lines`. Raises LakeError."""
    names = ("PatientID", "IssuerOfPatientID", *_DICOM)
    new = ("new_PatientID", *(f"new_{one}" for one in _DICOM))
    with home.writing(MAPPING) as file:
        for block in _csv(("object_id", *names, *new), _rows(connection, _MAPPING)):
            file.write(block)


def _left(connection: duckdb.DuckDBPyConnection, deidentifier: Deidentifier) -> Iterator[Row]:
    """What of the profile is left: tag, keyword, what the profile does with it, in how many objects."""
    for tag, objects, unchanged in _rows(connection, _LEFT):
        number = int(tag, 16)
        action = deidentifier.action_of(number) or ""
        yield tag, keyword_for_tag(number), action, objects, unchanged


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> Iterator[Row]:
    for batch in connection.sql(sql).to_arrow_reader(_AT_ONCE):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _csv(names: Sequence[str], rows: Iterator[Row]) -> Iterator[bytes]:
    """Lines of a CSV file with a header, some at a time."""
    yield from _text(iter([names]), _line)
    yield from _text(rows, _line)


def _line(row: Row) -> str:
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerow("" if value is None else value for value in row)
    return sink.getvalue()


def _text(rows: Iterator[Row], line: Callable[[Row], str]) -> Iterator[bytes]:
    waiting: list[str] = []
    for row in rows:
        waiting.append(line(row))
        if len(waiting) >= _AT_ONCE:
            yield "".join(waiting).encode("utf-8", "surrogateescape")
            waiting.clear()
    yield "".join(waiting).encode("utf-8", "surrogateescape")
