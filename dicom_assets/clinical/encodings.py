"""Texts in any encoding, as the bytes of UTF-8: what every reader of clinical files reads.

Belongs here: which Unicode encoding a text has, and a file's bytes in UTF-8, streamed or at random. Does not belong
here: which of the older encodings a text has (`alphabets`), what the text says.

Unicode is told by its byte order mark, or by where zeros stand (RFC 4627 3, for any text with ASCII in it). Bytes that
are not UTF-8 keep their place: a line that holds one is a fault of that line, and nobody's letters are replaced.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from typing import IO

from dicom_assets.clinical.chunks import UNREADABLE, ClinicalUnreadable
from dicom_assets.storage.byte_ranges import ByteSource, FileSource

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_LOOKED_AT = 2_048
_ASCII = bytes(range(0x20, 0x7F)) + b"\t\r\n"
_PIECE = 256 * 1024
_SAMPLE = 1 << 20
"""Bytes behind the first one that is no ASCII by which an encoding is told."""
_IN_MEMORY = 8 << 20
"""Bytes of a transcoded file that stay in memory; more go to an anonymous temporary file."""

Chooser = Callable[[bytes], str]
"""From bytes that are not UTF-8 to the name of their codec; raises ClinicalUnreadable when that is not certain."""


def marked(head: bytes) -> bool:
    """Whether a text begins with a byte order mark, which nothing that is configured overrules."""
    return any(head.startswith(mark) for mark, _ in _BOMS)


def unicode_of(head: bytes) -> str:
    """The Unicode codec of a text that begins with `head`: by mark, otherwise by zeros, otherwise `utf-8`."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    some = head[:_LOOKED_AT]
    if 0 not in some:
        return "utf-8"
    found = max(_WIDE, key=lambda one: _plain_share(some, one))
    return found if _plain_share(some, found) > 0.3 and _plain_share(some, "utf-8") < 0.9 else "utf-8"


def _plain_share(some: bytes, encoding: str) -> float:
    """Which share of the characters is ASCII, in this encoding; 0 when one is a control character or none at all."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(some).encode("ascii", "replace")
    if not text or b"\0" in text or any(mark in text for mark in (b"\x01", b"\x02")):
        return 0.0
    return (len(text) - len(text.translate(None, _ASCII)) - text.count(b"?")) / len(text)


def is_utf8(encoding: str) -> bool:
    """Whether a codec's name is one of UTF-8."""
    return encoding.replace("_", "-").lower() in ("utf-8", "utf8", "utf-8-sig")


def undecoded(line: str) -> bool:
    """Whether a line that was read with `surrogateescape` holds bytes that its encoding does not have."""
    if line.isascii():
        return False
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


class Utf8Stream(io.RawIOBase):
    """A file object that gives the bytes of a text in UTF-8, without a mark, from its beginning to its end.

    encoding: a codec of Python. choose: asked once, when a text in `utf-8` turns out to be none, with the bytes from
    the first one on that is no ASCII; not asked where sequences of UTF-8 are more than wrong bytes: then these stay as
    they are. Raises UnicodeError where a text is not in the encoding that was given, and what `choose` and `source`
    raise.
    """

    def __init__(self, source: ByteSource, encoding: str, choose: Chooser | None = None) -> None:
        """Begins at the first byte."""
        super().__init__()
        self._pieces = _pieces(source, encoding, choose)
        self._held = b""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fills a buffer; how many bytes there were, 0 at the end."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if not self._held:
            self._held = next((piece for piece in self._pieces if piece), b"")
        count = min(len(view), len(self._held))
        view[:count] = self._held[:count]
        self._held = self._held[count:]
        return count


def _pieces(source: ByteSource, encoding: str, choose: Chooser | None) -> Iterator[bytes]:
    if is_utf8(encoding):
        yield from _from_utf8(source, choose)
    else:
        yield from _decoded(source, 0, encoding, "strict")


def _read(source: ByteSource, start: int) -> Iterator[bytes]:
    while piece := source.read(start, _PIECE):
        start += len(piece)
        yield piece


def _from_utf8(source: ByteSource, choose: Chooser | None) -> Iterator[bytes]:
    """The bytes as they are, until the first that is no UTF-8 tells that all behind it are of another encoding."""
    position = 3 if source.read(0, 3) == codecs.BOM_UTF8 else 0
    if position:
        choose = None
    for piece in _read(source, position):
        if choose is not None and not piece.isascii():
            first = position + next(at for at, byte in enumerate(piece) if byte > 0x7F)
            if not _mostly_utf8(source, first):
                yield piece[: first - position]
                yield from _decoded(source, first, choose(_sample(source, first)), "surrogateescape")
                return
            choose = None
        position += len(piece)
        yield piece


def _mostly_utf8(source: ByteSource, start: int) -> bool:
    """Whether the text from `start` on has more sequences of UTF-8 than bytes that belong to none."""
    text = _sample(source, start).decode("utf-8", "surrogateescape")
    wrong = sum("\udc80" <= one <= "\udcff" for one in text if not one.isascii())
    letters = sum(not one.isascii() for one in text)
    return letters - wrong > wrong


def _sample(source: ByteSource, start: int) -> bytes:
    return source.read(start, min(_SAMPLE, source.size - start))


def _decoded(source: ByteSource, start: int, encoding: str, errors: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    is_first = start == 0
    for piece in _read(source, start):
        text = decoder.decode(piece)
        if is_first and text:
            text, is_first = text.removeprefix("\ufeff"), False
        yield text.encode("utf-8", errors)
    yield decoder.decode(b"", True).encode("utf-8", errors)


class Utf8Copy:
    """A text in UTF-8 at random access: the file itself when it is in UTF-8, otherwise a copy of it.

    The copy lies in memory, or without a name on the disk, and goes with this object. A character that is cut at the
    end of the file is a character that cannot be read, not an error: the record that it stands in will be one.
    """

    def __init__(self, source: ByteSource, encoding: str) -> None:
        """Reads the file through, unless it is in UTF-8. Raises what `source` raises, ClinicalUnreadable."""
        self._source = source
        self._file: IO[bytes] | None = None
        if not is_utf8(encoding):
            self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - it lives as long as this object
            self._fill(source, encoding, self._file)
            self._source = FileSource(self._file)
        self.size = self._source.size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer only at the end."""
        return self._source.read(offset, length)

    def close(self) -> None:
        """Gives the copy back."""
        if self._file is not None:
            self._file.close()

    @staticmethod
    def _fill(source: ByteSource, encoding: str, copy: IO[bytes]) -> None:
        decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        try:
            for piece in _read(source, 0):
                copy.write(decoder.decode(piece).encode("utf-8", "surrogatepass"))
        except UnicodeError:
            raise ClinicalUnreadable(UNREADABLE, f"Its text is not valid {encoding}.") from None
        with contextlib.suppress(UnicodeError):
            decoder.decode(b"", True)
            return
        copy.write(b"\n\xff\n")


def has_text(source: ByteSource, pattern: Callable[[bytes], bool], encoding: str, most: int) -> bool:
    """Whether a pattern holds for the first `most` bytes of a text, in UTF-8, looked at piece by piece.

    The pieces overlap by 256 bytes.
    """
    seen, held = 0, b""
    decoder = None if is_utf8(encoding) else codecs.getincrementaldecoder(encoding)("replace")
    while seen < most and (piece := source.read(seen, min(_PIECE, most - seen))):
        seen += len(piece)
        data = held + (piece if decoder is None else decoder.decode(piece).encode("utf-8", "replace"))
        if pattern(data):
            return True
        held = data[-256:]
    return False
