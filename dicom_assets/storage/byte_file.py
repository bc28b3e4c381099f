"""An object that is read by ranges as a file object, for libraries that want one. Not what is read, nor by whom."""

from __future__ import annotations

import io
from typing import Any

from dicom_assets.storage.byte_ranges import ByteSource


class OutOfBounds(OSError):
    """More bytes of one object were asked for than its reader may have."""


class ByteFile(io.RawIOBase):
    """A seekable file over a source.

    failure: the error of the storage, if one occurred; libraries that read through this object may hide it in one of
    their own, and a failing storage must not be taken for a broken file. A length beyond the end asks for what there
    is: the length of a broken element may be gigabytes.
    """

    def __init__(self, source: ByteSource, *, most: int | None = None, block: int = 0) -> None:
        """Begins at the first byte.

        most: bytes that may be asked of the source in all; OutOfBounds beyond. block: bytes that are asked for at once
        where less is read, for who reads in small pieces.
        """
        super().__init__()
        self._source, self._left, self._least = source, most, block
        self._at = 0
        self._block, self._start = b"", 0
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
        """Goes to a place, counted from the start, from here or from the end; not before the first byte."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def read(self, length: int | None = -1) -> bytes:
        """So many bytes from the current place on, all that is left without a length. Raises what the source raises."""
        there = max(self._source.size - self._at, 0)
        wanted = there if length is None or length < 0 else min(length, there)
        begin = self._at - self._start
        if not 0 <= begin <= begin + wanted <= len(self._block):
            self._fetch(max(wanted, min(self._least, there)))
            begin = 0
        data = self._block[begin : begin + wanted]
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer from the current place on; how many bytes there were."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _fetch(self, length: int) -> None:
        if self._left is not None:
            self._left -= length
            if self._left < 0:
                raise OutOfBounds
        try:
            self._block, self._start = self._source.read(self._at, length), self._at
        except OSError as error:
            self.failure = error
            raise
