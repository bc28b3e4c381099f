"""Where the bytes of one object come from, as whoever reads them sees it.

Belongs here: the protocol, bytes in memory and in an open file. Other implementations live where objects live
(`dicom_assets.landing`). Does not belong here: reading through a buffer (`window`), or as a file (`byte_file`).
"""

from __future__ import annotations

import io
from typing import IO, Protocol


class ByteSource(Protocol):
    """Random access to the bytes of one object.

    size: length in bytes. `read` returns fewer bytes than asked for only at the end of the object. It raises OSError
    (or a subclass that carries a reason code) when the storage fails; that error is not the reader's to handle.
    """

    @property
    def size(self) -> int:
        """Length of the object in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on."""
        ...


class BytesSource:
    """An object that is in memory already."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        """Wraps `data`."""
        self._data = data

    @property
    def size(self) -> int:
        """Length of the object in bytes."""
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on."""
        return self._data[offset : offset + length]


class FileSource:
    """An open file, which stays its owner's to close. Not for two threads at once."""

    __slots__ = ("_file", "size")

    def __init__(self, file: IO[bytes]) -> None:
        """The file as long as it is now; where it stands is changed."""
        self._file = file
        self.size = file.seek(0, io.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on."""
        self._file.seek(offset)
        return self._file.read(length)
