"""What a cohort is: a frozen selection of objects, with the query and the versions of the tables that it was made from.

Belongs here: its files in the lake, reading, listing and removing it, its log. Does not belong here: selecting
(`selection`), comparing with what is current (`changes`), writing objects elsewhere (`export`).

`{lake}/_cohorts/{name}/` holds `cohort.json`, written once and last, so that a cohort is whole or not there; the rows
below `rows/`; what was done with it below `log/`, and below `exports/` what each destination has. No retention and no
maintenance of tables touches them, a backup takes them along. An erasure takes rows out of them, so a cohort says how
many of its objects are erased: those that it was made with, less those that are there.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from dicom_assets.landing import refusals
from dicom_assets.schema.registry import OWN
from dicom_assets.settings import UserError
from dicom_assets.storage import locks
from dicom_assets.storage.files import LakeFiles

FOLDER = "_cohorts"
LOCK = "cohort-"
"""What the name of the lock of a cohort begins with."""
ROWS_AT_ONCE = 50_000
"""Rows of one file, and of those that are in memory together."""
ERASED = "(erased)"
"""What stands in place of a text that named what was erased."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

ROWS = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("source", *_UIDS)),
        *(OWN[name].field for name in ("object_id", "batch_id", "uri", "member", "size", "version_at")),
        *(OWN[name].field for name in ("content_digest", "header_form")),
        pa.field("etag", pa.string()),
        pa.field("file_size", pa.int64()),
        pa.field("is_twin", pa.bool_(), nullable=False),
    ]
)
"""One row for each object, in the order of its UIDs, its source and its name.

etag, file_size: of the file that it is or lies in; NULL where a DICOM service has only told of it. is_twin: whether
another object of the cohort has the same SOPInstanceUID.
"""
ORDER = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "source", "object_id")
"""What rows are sorted by."""


class CohortError(UserError):
    """A cohort cannot be made, found or used; the message says why and what to do, and names no patient."""


@dataclass(frozen=True)
class Cohort:
    """One cohort as it was made. query: None where UIDs were given. versions: of each table that it could ask."""

    name: str
    created_at: str
    created_by: str
    release: str
    query: str | None
    versions: Mapping[str, int]
    objects: int
    studies: int
    series: int
    size: int


@dataclass(frozen=True)
class Entry:
    """Something that was done with a cohort. what: created, exported. counts: by what became of the objects."""

    what: str
    at: str
    by: str
    reason: str | None = None
    destination: str | None = None
    form: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


def folder_of(name: str) -> str:
    """Where a cohort lies. Raises CohortError for a name that is none."""
    if not _NAME.fullmatch(name):
        raise CohortError(
            "A cohort is called by letters, digits, `.`, `_` and `-`, at most 63 of them, the first a letter or digit."
        )
    return f"{FOLDER}/{name}"


def names(files: LakeFiles) -> list[str]:
    """The cohorts of a lake. Raises LakeError."""
    found = (path.rstrip("/").rpartition("/")[2] for path in files.folders(FOLDER))
    return [name for name in found if files.exists(f"{FOLDER}/{name}/cohort.json")]


def read(files: LakeFiles, name: str) -> Cohort:
    """One cohort. Raises CohortError when there is none of this name, LakeError."""
    try:
        told = json.loads(files.get(f"{folder_of(name)}/cohort.json"))
    except FileNotFoundError:
        known = ", ".join(names(files)) or "none"
        raise CohortError(f"There is no cohort {name}. There are: {known}.") from None
    return Cohort(**told)


def write(files: LakeFiles, cohort: Cohort) -> None:
    """Says that a cohort is whole. Raises CohortError when there is one of this name, LakeError."""
    data = json.dumps(asdict(cohort), indent=1).encode()
    if not files.put(f"{folder_of(cohort.name)}/cohort.json", data, create=True):
        raise taken(cohort.name)


def taken(name: str) -> CohortError:
    """Why a name cannot be used."""
    return CohortError(
        f"There is a cohort {name} already, and a cohort is never changed: give another name, or "
        f"`dicom-assets cohort remove {name}` first. Nothing was changed."
    )


def rows(files: LakeFiles, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The objects of a cohort, ROWS_AT_ONCE at most at a time, in their order. Raises LakeError."""
    for path in files.names(f"{folder_of(name)}/rows"):
        yield files.get_parquet(path, list(columns) if columns else None)


def left(files: LakeFiles, name: str) -> int:
    """How many objects are in a cohort, those that were erased aside. Raises LakeError."""
    return sum(
        files.open_parquet(path).metadata.num_rows  # of the footer alone
        for path in files.names(f"{folder_of(name)}/rows")
    )


def remove(files: LakeFiles, name: str) -> Cohort:
    """Removes a cohort with its log; what was exported stays where it is. Raises CohortError, LakeError."""
    with held(files, name):
        cohort = read(files, name)
        files.remove(f"{folder_of(name)}/cohort.json")  # first: what is broken off behind it is no cohort
        files.delete(folder_of(name))
    return cohort


@contextmanager
def held(files: LakeFiles, name: str) -> Iterator[None]:
    """The right to work on a cohort. Raises CohortError when somebody has it, or an erasure is under way; LakeError.

    Whoever erases writes down what first and then tries this lock, so one of the two sees the other.
    """
    folder_of(name)
    with ExitStack() as stack:
        try:
            stack.enter_context(locks.held(files, f"{LOCK}{name}", 0.5, once=True))
        except locks.LockBusy:
            raise CohortError(f"Another process is at work on cohort {name}. Wait until it has ended.") from None
        if files.exists(refusals.UNDER_WAY):
            raise CohortError(
                "An erasure is under way. Wait until it has ended; if it was broken off, `dicom-assets erase --resume` "
                "finishes it. Nothing was changed."
            )
        yield


def enter(files: LakeFiles, name: str, entry: Entry, key: str | None = None) -> str:
    """Writes an entry into a cohort's log; its key, by which it can be written anew. Raises LakeError."""
    key = key or f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(3)}"
    files.put(f"{folder_of(name)}/log/{key}.json", json.dumps(asdict(entry)).encode())
    return key


def log(files: LakeFiles, name: str) -> list[Entry]:
    """What was done with a cohort, oldest first. Raises LakeError."""
    return [Entry(**_read_json(files, path)) for path in files.names(f"{folder_of(name)}/log")]


def _read_json(files: LakeFiles, path: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(files.get(path))
    return told


def now() -> str:
    """The time as it is written down."""
    return datetime.now(UTC).isoformat(timespec="seconds")
