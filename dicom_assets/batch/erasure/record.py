"""An erasure that is under way: written down before anything changes, so that whoever comes next can finish it.

Belongs here: the record and its file. Does not belong here: finding what goes (`target`), the steps (`erase`).

The record names everything that is to go, and is deleted when it is gone. The books keep a row for each object that
was erased, under another name: the old name is a hash of a path, and who knows the path could find it again. New names
are made with a key that is thrown away with the record, so that nothing leads back.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from dicom_assets.landing.refusals import ERASED, UNDER_WAY
from dicom_assets.settings import UserError
from dicom_assets.storage.files import LakeFiles

PATH = UNDER_WAY
SELFTEST = "self-test"
"""Scope of a record that takes out what a self-test brought: nobody's data, so that nothing has to forget them."""


class ErasureRefused(UserError):
    """Nothing can be erased now, or there is no such thing; the message says why and what to do. Nothing changed."""


@dataclass(frozen=True)
class Record:
    """What one erasure takes out of a lake.

    objects: by object_id the batches that have rows of it. records: (batch_id, object_id, record_key, source, how many
    times it counts in the books) of clinical records. touched: studies that lose rows; whole: those of which none is
    left, by study_key; studies: source and UID of these. siblings: studies of the same UID in other sources.
    occurrences: ids of image_occurrence that go. retired: (domain, id) that nobody uses afterwards. indexed: batches
    that had rows of touched studies. references: source, server and name by which resources call the patient. uris:
    places that no object has any more. terms: what the search looks for. identities, digests: by which identities and
    objects are recognised. rows: by table, how many rows held something.
    """

    erasure_id: str
    scope: str
    by: str
    at: str
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    objects: Mapping[str, list[str]] = field(default_factory=dict)
    records: list[tuple[str, str, str, str, int]] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    studies: list[tuple[str, str]] = field(default_factory=list)
    siblings: list[str] = field(default_factory=list)
    occurrences: list[int] = field(default_factory=list)
    retired: list[tuple[str, int]] = field(default_factory=list)
    indexed: list[str] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)
    patients: list[tuple[str, str | None]] = field(default_factory=list)
    references: list[tuple[str, str, str]] = field(default_factory=list)
    terms: list[str] = field(default_factory=list)
    identities: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    rows: Mapping[str, int] = field(default_factory=dict)

    def name_of(self, object_id: str) -> str:
        """What an object that was erased is called in the books from now on: 20 hexadecimal characters."""
        return hmac.new(bytes.fromhex(self.key), object_id.encode(), hashlib.sha256).hexdigest()[:20]

    def uri_of(self, object_id: str) -> str:
        """What stands in place of its uri."""
        return f"{ERASED}{self.name_of(object_id)}"

    @property
    def batches(self) -> list[str]:
        """Batches whose books have rows of what goes, in their order."""
        of_objects = (batch for batches in self.objects.values() for batch in batches)
        return sorted({*of_objects, *(batch for batch, *_ in self.records)})

    def ids_of(self, batch_id: str) -> list[str]:
        """The objects of one batch that go."""
        return sorted(one for one, batches in self.objects.items() if batch_id in batches)


def new_id() -> str:
    """Name of an erasure: its time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def write(files: LakeFiles, record: Record) -> None:
    """Writes down an erasure, durably. Raises ErasureRefused when another one is under way, LakeError."""
    if not files.put(PATH, json.dumps(asdict(record)).encode(), create=True):
        raise ErasureRefused("Another erasure is under way. Run `dicom-assets erase --resume` first.")


def is_under_way(files: LakeFiles) -> bool:
    """Whether an erasure was begun and not finished. Raises LakeError."""
    return files.exists(PATH)


def under_way(files: LakeFiles) -> Record | None:
    """The erasure that was begun and not finished, if any. Raises LakeError."""
    try:
        told = json.loads(files.get(PATH))
    except FileNotFoundError:
        return None
    rows = ("records", "studies", "retired", "patients", "references")
    values: dict[str, Any] = {name: _tuples(value) if name in rows else value for name, value in told.items()}
    return Record(**values)


def finish(files: LakeFiles) -> None:
    """Forgets what an erasure was about. Raises LakeError."""
    files.remove(PATH)


def _tuples(rows: Iterable[Iterable[object]]) -> list[tuple[object, ...]]:
    return [tuple(row) for row in rows]
