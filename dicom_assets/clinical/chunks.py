"""A clinical file's bytes, as its readers want them, what they give back, and the error that refuses a file.

Belongs here: the bridge from ranged reads to a file object. Does not belong here: any format.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

UNREADABLE = "CLINICAL_UNREADABLE"


class Bytes(Protocol):
    """Random access to the bytes of one file; what `storage.byte_ranges.ByteSource` is to DICOM objects."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer only at the end; OSError when the storage fails."""
        ...


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


class SourceFile(io.RawIOBase):
    """A seekable file object over ranged reads.

    failure: the error of the storage, if one occurred; libraries that read through this object may hide it in one of
    their own, and a failing storage must not be taken for a broken file.
    """

    def __init__(self, source: Bytes) -> None:
        """Begins at the first byte."""
        super().__init__()
        self._source = source
        self._at = 0
        self.failure: OSError | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The current place."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a place, counted from the start, from here or from the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the first byte")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fills a buffer from the current place on; how many bytes there were."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        try:
            data = self._source.read(self._at, len(view))
        except OSError as error:
            self.failure = error
            raise
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
