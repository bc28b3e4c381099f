"""The bytes of one ZIP member, inflated as far as they are asked for.

Belongs here: the methods of compression, bounds on what is really inflated, random access over a stream. Does not
belong here: the directory (`zipdirectory`), which members there are (`archives`).
"""

from __future__ import annotations

import bz2
import contextlib
import lzma
import os
import struct
import tempfile
import zlib
from typing import IO, Protocol

import pyarrow as pa

from dicom_assets.landing.store import ObjectError
from dicom_assets.landing.zipdirectory import Entry, content_at
from dicom_assets.landing.zipend import ArchiveError, unreadable
from dicom_assets.settings import ArchiveLimits
from dicom_assets.storage.byte_ranges import ByteSource

KEPT_BYTES = 16 * 2**20
"""Inflated bytes from the beginning of a member that stay in memory; reads within them go back freely."""

RATIO_COUNTS_FROM = 16 * 2**20
"""Inflated bytes below which no ratio is suspicious: an empty image of that size is ordinary."""

DEFLATE_RATIO = 1_040.0
"""More than DEFLATE makes of one byte (RFC 1951: 258 bytes from two bits)."""

_PIECE = 32 * 1024
_STEP = 256 * 1024
_DICTIONARY_MOST = 256 * 2**20
_STORED, _DEFLATED, _DEFLATED64, _BZIP2, _LZMA, _XZ = 0, 8, 9, 12, 14, 95
_ZSTANDARD = (93, 20)  # and the number that it had at first
_READ = (_STORED, _DEFLATED, _DEFLATED64, _BZIP2, _LZMA, _XZ, *_ZSTANDARD)
_PIECE64 = 512  # bytes of Deflate64 at a time: 18 bits may become 65,538 bytes


class Budget:
    """Bytes that the members of one archive have really been inflated to, all together."""

    def __init__(self, limits: ArchiveLimits) -> None:
        """Begins at zero."""
        self._most = limits.max_inflated_bytes
        self._ratio = limits.max_ratio
        self.spent = 0

    def spend(self, count: int, inflated: int, consumed: int, *, passing: bool = False) -> None:
        """Counts `count` more bytes; their member stands at `inflated` from `consumed`. ArchiveError(ARCHIVE_LIMIT).

        passing: the bytes are looked at and dropped, so an image of nothing but zeros may have any ratio of DEFLATE.
        """
        self.spent += count
        ratio = max(self._ratio, DEFLATE_RATIO) if passing else self._ratio
        if self.spent > self._most:
            raise ArchiveError("ARCHIVE_LIMIT", f"its members inflate to more than {self._most} bytes")
        if inflated > RATIO_COUNTS_FROM and inflated > ratio * consumed:
            raise ArchiveError("ARCHIVE_LIMIT", f"it inflates to more than {ratio:g} times its size")


class _Inflater(Protocol):
    """What the decompressors of the standard library share, zlib's brought into line."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Deflate:
    """zlib's decompressor with the interface of bz2's and lzma's."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        # A full answer may leave more within zlib although it has taken all of the input.
        self.needs_input = not self._stream.unconsumed_tail and len(out) < max_length
        return out


class _Deflate64:
    """inflate64's decompressor, which knows no bound on what it gives at once, so it gets little at a time."""

    def __init__(self) -> None:
        from inflate64 import Inflater  # few archives need it: those that Windows makes of large files

        self._stream = Inflater()
        self._packed, self._out = b"", memoryview(b"")

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof) and not self._out

    @property
    def needs_input(self) -> bool:
        return not self._packed and not self._out

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self._packed += data
        while self._packed and not self._out and not self._stream.eof:
            piece, self._packed = self._packed[:_PIECE64], self._packed[_PIECE64:]
            self._out = memoryview(self._stream.inflate(piece))
        out, self._out = bytes(self._out[:max_length]), self._out[max_length:]
        return out


class _Packed:
    """The packed bytes of one member, one after the other; what Arrow needs of a file.

    It knows nothing of who inflates them: what Arrow holds is seen by no collector of garbage. start, end: where they
    stand in the archive. next: where the next ones do. failure: why they could not be had.
    """

    closed = False

    def __init__(self, source: ByteSource, start: int, end: int) -> None:
        self._source = source
        self.start, self.end, self.next = start, end, start
        self.failure: OSError | None = None

    def read(self, most: int) -> bytes:
        """None at the end."""
        try:
            piece = self._source.read(self.next, min(most, self.end - self.next))
        except OSError as error:
            self.failure = error
            raise
        self.failure = None
        self.next += len(piece)
        return piece

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""


class _Zstandard:
    """Arrow's zstd with the interface of bz2's and lzma's; it asks for its input itself.

    `read` of Arrow's streams (26.0) never frees the bytes it was about to return when it fails; `read_buffer` does.
    """

    needs_input = False

    def __init__(self, packed: _Packed) -> None:
        self._packed = packed
        self._stream = pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd")
        self.eof = False

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            out: bytes = self._stream.read_buffer(max_length).to_pybytes()
        except (OSError, pa.ArrowException):
            failure = self._packed.failure
            if failure is None:
                raise unreadable("a member's data is damaged") from None
            code = failure if isinstance(failure, ObjectError) else ObjectError("READ_FAILED", type(failure).__name__)
            raise code from None
        self.eof = not out
        return out


class MemberBytes:
    """One member as a byte source. It is valid until the archive's next member is asked for.

    size is what the directory declares; a compressed member that turns out shorter or longer, or whose checksum is
    wrong, raises when its end is reached. A stored one is read in place, like a file. `verify` goes to the end of
    either.
    Reads go forward by inflating; backward within the first KEPT_BYTES from memory, and beyond them from an anonymous
    temporary file, to which the whole member is then inflated.
    """

    def __init__(self, source: ByteSource, entry: Entry, limits: ArchiveLimits, budget: Budget) -> None:
        """Reads the member's local header. ArchiveError when it is damaged, encrypted or compressed in no known way."""
        self._source = source
        self._limits = limits
        self._budget = budget
        self._crc_wanted = entry.crc
        self.size = entry.size
        if entry.damaged:
            raise unreadable("a member's record is damaged")
        if entry.is_encrypted:
            raise ArchiveError("ARCHIVE_ENCRYPTED", "a password is needed")
        if entry.method not in _READ:
            raise ArchiveError("ARCHIVE_METHOD_UNSUPPORTED", f"compression method {entry.method}")
        begin = content_at(source, entry)
        if begin is None:
            raise unreadable("a member's header is missing")
        if begin + entry.packed > source.size:
            raise unreadable("a member is cut short")
        self._packed = _Packed(source, begin, begin + entry.packed)
        self._stored_at = begin if entry.method == _STORED else -1
        if entry.method == _STORED and entry.packed != entry.size:
            raise unreadable("a member's sizes differ")
        self._kept = bytearray()
        self._position = 0
        self._crc = 0
        self._checked = False
        self._file: IO[bytes] | None = None
        self._inflater = None if entry.method == _STORED else self._start(entry.method)
        self._method = entry.method

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer only at the end.

        ArchiveError: ARCHIVE_UNREADABLE for damaged data, ARCHIVE_LIMIT when it inflates to too much.
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        if self._stored_at >= 0:
            return self._source.read(self._stored_at + offset, length)
        end = offset + length
        if self._file is None and end > len(self._kept) and offset < self._position > len(self._kept):
            self.spool()
        if self._file is not None:
            return os.pread(self._file.fileno(), length, offset)
        if end <= len(self._kept):
            return bytes(self._kept[offset:end])
        return self._forward(offset, end)

    def spool(self) -> None:
        """Inflates the whole member into an anonymous temporary file, from which it is read from now on.

        ArchiveError(ARCHIVE_LIMIT) beyond `max_nested_bytes`; ObjectError(READ_FAILED) when the disk is full.
        """
        if self._stored_at >= 0:
            self.verify()
        if self._stored_at >= 0 or self._file is not None:
            return
        most = self._limits.max_nested_bytes
        self._restart()
        with contextlib.ExitStack() as on_failure:
            try:
                copy = on_failure.enter_context(tempfile.TemporaryFile())
                while self._position < self.size:
                    copy.write(self._step(_STEP))
                    if self._position > most:
                        raise ArchiveError("ARCHIVE_LIMIT", f"it inflates to more than {most} bytes")
                copy.flush()
            except ObjectError:
                raise
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                raise ObjectError("READ_FAILED", f"No temporary copy could be made: {reason}.") from None
            on_failure.pop_all()
        self._file = copy
        self._kept.clear()

    def verify(self) -> None:
        """ArchiveError(ARCHIVE_UNREADABLE) unless the whole member has the checksum that its directory declares.

        What was not read yet is read for it, a piece in memory at a time; do it when nothing else is to be read.
        """
        if self._stored_at >= 0 and not self._checked:
            at, crc = 0, 0
            while at < self.size:
                piece = self._source.read(self._stored_at + at, min(_STEP, self.size - at))
                at, crc = at + len(piece), zlib.crc32(piece, crc)
                if not piece:
                    raise unreadable("a member is cut short")
            self._compare(crc)
        while self._stored_at < 0 and self._position < self.size:
            self._step(_STEP, passing=True)
        if not self.size:
            self._compare(0)

    def _compare(self, crc: int) -> None:
        if crc != self._crc_wanted:
            raise unreadable("CRC: a member's checksum is wrong")
        self._checked = True

    def close(self) -> None:
        """Gives the temporary file back, if there is one."""
        if self._file is not None:
            self._file.close()

    def _forward(self, offset: int, end: int) -> bytes:
        """Inflates up to `end`; keeps the beginning, drops what lies between it and `offset`."""
        wanted = bytearray(self._kept[offset:])
        while self._position < end:
            at = self._position
            out = self._step(min(end - at, _STEP))
            if at < KEPT_BYTES:
                self._kept += out[: KEPT_BYTES - at]
            if at + len(out) > offset:
                wanted += out[max(offset - at, 0) :]
        return bytes(wanted)

    def _step(self, most: int, *, passing: bool = False) -> bytes:
        """The next inflated bytes, at least one and at most `most`; at the member's end it is checked."""
        out = self._inflate(min(most, self.size - self._position))
        if not out:
            raise unreadable("a member ends before its declared size")
        self._position += len(out)
        self._crc = zlib.crc32(out, self._crc)
        self._budget.spend(len(out), self._position, self._packed.next - self._packed.start, passing=passing)
        if self._position == self.size and not self._checked:
            if self._inflate(1):
                raise unreadable("a member goes on behind its declared size")
            self._compare(self._crc)
        return out

    def _inflate(self, most: int) -> bytes:
        """Up to `most` bytes; none at the end of the stream or of its packed bytes."""
        inflater = self._inflater
        if inflater is None:
            raise AssertionError("a stored member is not inflated")
        while not inflater.eof:
            piece = b""
            if inflater.needs_input:
                piece = self._packed.read(_PIECE)
            starved = inflater.needs_input and not piece
            try:
                out = inflater.decompress(piece, most)
            except ObjectError:
                raise
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
                # bz2 raises OSError; storage is read outside of this block, or raises its own.
                raise unreadable("a member's data is damaged") from None
            if out:
                return out
            if starved:
                break
        return b""

    def _restart(self) -> None:
        self._packed.next = self._packed.start
        self._position, self._crc, self._checked = 0, 0, False
        self._inflater = self._start(self._method)

    def _start(self, method: int) -> _Inflater:
        if method == _DEFLATED:
            return _Deflate()
        if method == _DEFLATED64:
            return _Deflate64()
        if method == _BZIP2:
            return bz2.BZ2Decompressor()
        if method == _XZ:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DICTIONARY_MOST)
        if method in _ZSTANDARD:
            return _Zstandard(self._packed)
        return self._start_lzma()

    def _start_lzma(self) -> _Inflater:
        """APPNOTE 5.8.8: version, size of the properties, then LZMA's five bytes of properties and raw LZMA1."""
        head = self._packed.read(9)
        if len(head) < 9 or head[2:4] != b"\x05\x00" or head[4] >= 225:
            raise unreadable("a member's LZMA properties are damaged")
        (declared,) = struct.unpack_from("<I", head, 5)
        # No dictionary needs to be larger than what it serves.
        dictionary = min(max(declared, 4096), max(self.size, 4096))
        if dictionary > _DICTIONARY_MOST:
            raise ArchiveError("ARCHIVE_LIMIT", f"its LZMA dictionary is larger than {_DICTIONARY_MOST} bytes")
        packed, context = divmod(head[4], 9)
        position, literal = divmod(packed, 5)
        properties = {"id": lzma.FILTER_LZMA1, "dict_size": dictionary, "lc": context, "lp": literal, "pb": position}
        try:
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[properties])
        except (lzma.LZMAError, ValueError):
            raise unreadable("a member's LZMA properties are damaged") from None
