"""Where the bytes of one object come from, as the reader sees it.

Belongs here: the protocol only. Its implementations live where objects live (`dicom_assets.landing`).
"""

from __future__ import annotations

from typing import Protocol


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
