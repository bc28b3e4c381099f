"""A buffer over an object, for who reads it in small pieces. Does not belong here: what is read."""

from __future__ import annotations

from dicom_assets.storage.byte_ranges import ByteSource

WINDOW_BYTES = 256 * 1024


class Window:
    """Reads of a source through a buffer, so that many small reads side by side become few ranges."""

    __slots__ = ("_block", "_data", "_source", "_start")

    def __init__(self, source: ByteSource, block: int = WINDOW_BYTES) -> None:
        """block: bytes fetched at once where less is asked for."""
        self._source = source
        self._block = block
        self._start = 0
        self._data = b""

    @property
    def size(self) -> int:
        """Length of the source in bytes."""
        return self._source.size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer at the end."""
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._data):
            if length >= self._block:
                return self._source.read(offset, length)
            self._data = self._source.read(offset, self._block)
            self._start = offset
            begin = 0
        return self._data[begin : begin + length]
