"""Text with code extensions: ISO 2022 escape sequences as DICOM uses them (PS3.5 6.1.2.5, PS3.3 C.12.1.1.2).

Belongs here: which character set is in G0 and G1 at each byte, and where the first one counts again. Does not belong
here: which sets an object declares, text without escape sequences (`charset`).

An escape sequence names its character set itself. So a set that nobody declared is read all the same, and flagged.
Bytes that no character stands for are marked (`mark`), one character each, so that they take part in no splitting.
"""

from __future__ import annotations

import re
from functools import lru_cache

from dicom_assets.dicom.flaws import CHARSET_GUESSED, CHARSET_LOST, SOUND

ESC = 0x1B
_MARKS = 0xDC00  # low surrogates, which no text of DICOM has

_G0 = {
    b"\x1b(B": "iso8859",
    b"\x1b(J": "shift_jis",  # the Roman letters of JIS X 0201
    b"\x1b$B": "iso2022_jp",  # JIS X 0208
    b"\x1b$(D": "iso2022_jp_2",  # JIS X 0212
}
_G1 = {
    b"\x1b)I": "shift_jis",  # the Katakana of JIS X 0201
    b"\x1b-A": "latin_1",
    b"\x1b-B": "iso8859_2",
    b"\x1b-C": "iso8859_3",
    b"\x1b-D": "iso8859_4",
    b"\x1b-F": "iso_ir_126",
    b"\x1b-G": "iso_ir_127",
    b"\x1b-H": "iso_ir_138",
    b"\x1b-L": "iso_ir_144",
    b"\x1b-M": "iso_ir_148",
    b"\x1b-T": "iso_ir_166",
    b"\x1b-b": "iso8859_15",
    b"\x1b$)A": "iso_ir_58",
    b"\x1b$)C": "euc_kr",
}
DESIGNATIONS = frozenset((*_G0, *_G1))
"""The escape sequences of PS3.3 C.12-3 and C.12-4."""
_TWO_BYTES_G0 = frozenset({"iso2022_jp", "iso2022_jp_2"})
_TWO_BYTES_G1 = frozenset({"iso_ir_58", "euc_kr"})
_SINGLE_BYTE_G1 = frozenset(_G1.values()) - _TWO_BYTES_G1
_LAYOUT = frozenset(b"\t\n\x0c\r")
_LOW = re.compile(rb"[ -~]+")
_HIGH = re.compile(rb"[\x80-\xff]+")

RESETS = frozenset(b"\\")
"""Behind it the first character set counts again, besides line and page ends (PS3.5 6.1.2.5.3); it parts values."""
NAME_RESETS = frozenset(b"\\^=")
"""The same in a person name, whose components and representations are parted too."""
NO_RESETS: frozenset[int] = frozenset()
"""The same in a text that is a single value whatever stands in it."""


def mark(byte: int) -> str:
    """What stands for a byte that is no character, until `charset.spelled` writes it as text."""
    return chr(_MARKS + byte)


def extends(codecs: tuple[str, ...]) -> str | None:
    """The one set of two-byte characters in G1 that these codecs declare behind the first; None for none or many."""
    found = [codec for codec in codecs[1:] if codec in _TWO_BYTES_G1]
    return found[0] if len(found) == 1 else None


@lru_cache(maxsize=32)
def _upper_half(codec: str) -> tuple[str | None, ...]:
    """Characters of 80 to FF in a single-byte set; None where it has none. 80 to 9F are control characters."""
    found: list[str | None] = [None] * 32
    for byte in range(0xA0, 0x100):
        if codec == "shift_jis" and not 0xA1 <= byte <= 0xDF:  # the codec has more than JIS X 0201
            found.append(None)
            continue
        try:
            found.append(bytes((byte,)).decode(codec))
        except UnicodeError:
            found.append(None)
    return tuple(found)


def _pair(codec: str, first: int, second: int) -> str | None:
    """The character of two bytes of a 94 x 94 set; None where it has none."""
    if not 0x21 <= first & 0x7F <= 0x7E or not 0x21 <= second & 0x7F <= 0x7E:
        return None
    wide = bytes((first | 0x80, second | 0x80))
    try:
        match codec:
            case "iso2022_jp":
                return wide.decode("euc_jp")
            case "iso2022_jp_2":
                return (b"\x8f" + wide).decode("euc_jp")
            case "iso_ir_58":
                return wide.decode("gb2312")
            case _:
                return wide.decode("euc_kr")
    except UnicodeError:
        return None


def decode(raw: bytes, codecs: tuple[str, ...], resets: frozenset[int]) -> tuple[str, int]:
    """Text of `raw`, with marks where a byte is no character, and its flaw (`flaws`)."""
    return _Shift(raw, codecs, resets).run()


class _Shift:
    """One pass over one value, with what G0 and G1 hold at each byte."""

    def __init__(self, raw: bytes, codecs: tuple[str, ...], resets: frozenset[int]) -> None:
        self._raw = raw
        self._codecs = codecs
        self._resets = resets
        self._first = codecs[0]
        self._flaw = SOUND
        self._reset()

    def _reset(self) -> None:
        """As at the beginning: the first declared set, or the default repertoire."""
        first = self._first
        self._g0 = "shift_jis" if first == "shift_jis" else "iso8859"
        self._g1 = first if first in _SINGLE_BYTE_G1 or first in _TWO_BYTES_G1 else None

    def run(self) -> tuple[str, int]:
        raw, position, size = self._raw, 0, len(self._raw)
        parts: list[str] = []
        while position < size:
            byte = raw[position]
            if byte == ESC:
                position = self._escape(position, parts)
            elif byte < 0x20 or byte == 0x7F:
                parts.append(chr(byte))  # `charset.spelled` writes those that no text may have
                self._reset()
                position += 1
            elif byte >= 0x80:
                position = self._upper(position, parts)
            elif self._g0 in _TWO_BYTES_G0:
                position = self._wide(position, parts)
            else:
                position = self._lower(position, parts)
        return "".join(parts), self._flaw

    def _escape(self, position: int, parts: list[str]) -> int:
        for length in (3, 4):
            sequence = self._raw[position : position + length]
            if sequence in DESIGNATIONS:
                codec = _G0.get(sequence) or _G1[sequence]
                if sequence in _G0:
                    self._g0 = codec
                else:
                    self._g1 = codec
                if codec not in self._codecs and codec != "iso8859":
                    self._flaw |= CHARSET_GUESSED
                return position + length
        return self._refuse(position, 1, parts)

    def _refuse(self, position: int, count: int, parts: list[str]) -> int:
        parts += map(mark, self._raw[position : position + count])
        self._flaw |= CHARSET_LOST
        return position + count

    def _lower(self, position: int, parts: list[str]) -> int:
        """Printable bytes below 80; JIS X 0201's two other characters are read as ASCII, as everybody does."""
        found = _LOW.match(self._raw, position)
        assert found is not None
        text = found.group().decode("ascii")
        parts.append(text)
        if self._g1 != self._first and not self._resets.isdisjoint(found.group()):
            self._reset()
        return found.end()

    def _wide(self, position: int, parts: list[str]) -> int:
        """A character of two bytes in G0, a space, or a delimiter that nobody switched back for."""
        first, second = self._raw[position], self._raw[position + 1 : position + 2]
        if first == 0x20:
            parts.append(" ")
            return position + 1
        if second and 0x21 <= second[0] <= 0x7E:
            character = _pair(self._g0, first, second[0])
            if character is None:
                return self._refuse(position, 2, parts)
            parts.append(character)
            return position + 2
        if first in self._resets:
            parts.append(chr(first))
            self._flaw |= CHARSET_GUESSED
            self._reset()
            return position + 1
        return self._refuse(position, 1, parts)

    def _upper(self, position: int, parts: list[str]) -> int:
        """Bytes from 80 on: what G1 holds."""
        found = _HIGH.match(self._raw, position)
        assert found is not None
        run, g1 = found.group(), self._g1
        if g1 is None and (guess := extends(self._codecs)) is not None:
            g1 = guess  # declared, and used again without its escape sequence
            self._flaw |= CHARSET_GUESSED
        if g1 in _TWO_BYTES_G1:
            self._pairs(g1, run, parts)
        elif g1 is None:
            self._refuse(position, len(run), parts)
        else:
            table = _upper_half(g1)
            for byte in run:
                character = table[byte - 0x80]
                if character is None:
                    character, self._flaw = mark(byte), self._flaw | CHARSET_LOST
                parts.append(character)
        return found.end()

    def _pairs(self, codec: str, run: bytes, parts: list[str]) -> None:
        position = 0
        while position < len(run):
            character = _pair(codec, run[position], run[position + 1]) if position + 1 < len(run) else None
            if character is None or run[position] < 0xA1 or run[position + 1] < 0xA1:
                parts.append(mark(run[position]))
                self._flaw |= CHARSET_LOST
                position += 1
            else:
                parts.append(character)
                position += 2
