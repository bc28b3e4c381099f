"""What the readers of clinical files give back, and the error that refuses a file. Does not belong here: any format."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

UNREADABLE = "CLINICAL_UNREADABLE"


@dataclass(frozen=True, slots=True)
class RecordError:
    """What is wrong with one record, without its values. record: its number, from 1."""

    record: int
    detail: str


@dataclass(frozen=True, slots=True)
class ClinicalChunk:
    """Some records of one file, in its order. records: rows as their reader says; errors: those that cannot be read.

    warnings: codes of what is said of the file as a whole, with details.
    """

    records: pa.Table
    errors: tuple[RecordError, ...]
    warnings: tuple[tuple[str, str], ...] = ()


class ClinicalUnreadable(ValueError):
    """A file as a whole is refused. Carries the reason code; the detail is a sentence without any value of the file."""

    def __init__(self, code: str, detail: str) -> None:
        """Code from `dicom_assets.schema.codes`."""
        super().__init__(detail)
        self.code = code
        self.detail = detail
