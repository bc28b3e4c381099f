r"""Text of a DICOM object: from bytes and Specific Character Set to Unicode (PS3.3 C.12.1.1.2, PS3.5 6.1.2).

Belongs here: which codec decodes which bytes, by pydicom's tables, and what stands for bytes that no codec takes.
Does not belong here: escape sequences (`iso2022`), how a decoded value is split and typed (`values`).

Bytes that the declared character set does not allow, and control characters that no text may have (PS3.5 6.1.3), are
written as `\xHH`, so that nothing is lost and no reader's terminal obeys them. Without a declaration text is read as
Latin-1, as pydicom does: lossless, a guess, and flagged as one.
"""

from __future__ import annotations

import codecs as python_codecs
import re
import warnings
from functools import lru_cache

from pydicom.charset import convert_encodings, default_encoding, python_encoding

from dicom_assets.dicom import iso2022
from dicom_assets.dicom.flaws import CHARSET_GUESSED, CHARSET_LOST, SOUND
from dicom_assets.dicom.iso2022 import RESETS, mark

DEFAULT: tuple[str, ...] = (default_encoding,)
"""Codecs of an object that declares no character set."""

_LATIN_9 = "iso8859_15"
_LATER_TERMS = {"ISO_IR 203": _LATIN_9, "ISO 2022 IR 203": _LATIN_9}
"""Defined terms that pydicom's table does not have yet (PS3.3 C.12-2, C.12-3)."""
_DICOM_CODECS = frozenset((*python_encoding.values(), _LATIN_9))
_STAND_ALONE = frozenset({"UTF8", "GB18030", "GBK", "GB2312"})
_UNWRITABLE = re.compile("[\x01-\x08\x0b\x0e-\x1f\x7f-\x9f\udc00-\udcff]")
"""Control characters, but for tabulator, line and page ends, and NUL, which ends a value; marks of refused bytes."""


def _marked(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(map(mark, error.object[error.start : error.end])), error.end


_REFUSED = "dicom_assets.refused"
python_codecs.register_error(_REFUSED, _marked)


@lru_cache(maxsize=256)
def codecs_of(declared: bytes) -> tuple[str, ...]:
    """Python codecs for the raw value of Specific Character Set (0008,0005); unknown terms become Latin-1."""
    terms = declared.decode("latin-1").partition("\0")[0].rstrip(" ").split("\\")
    terms = [_LATER_TERMS.get(term.strip(" "), term) for term in terms]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return tuple(convert_encodings(terms if len(terms) > 1 else terms[0]))
        except (ValueError, LookupError):
            return DEFAULT


def decode(raw: bytes, codecs: tuple[str, ...], resets: frozenset[int] = RESETS) -> tuple[str, int]:
    r"""Text and its flaw (`flaws`): SOUND, CHARSET_GUESSED or CHARSET_LOST, with marks for what is not sound.

    Where the flaw is CHARSET_LOST, split the text first and write each part by `spelled`: the backslash of `\xHH`
    separates nothing.
    """
    first = codecs[0]
    try:
        text = raw.decode(first)
    except (UnicodeError, LookupError):
        text, flaw = _refused(raw, codecs, resets)
    else:
        if text.isprintable() and text.isascii():
            return text, SOUND
        text, flaw = _second_look(raw, text, codecs, resets)
    if _UNWRITABLE.search(text):
        flaw |= CHARSET_LOST
    return text, flaw


def _second_look(raw: bytes, text: str, codecs: tuple[str, ...], resets: frozenset[int]) -> tuple[str, int]:
    """Judges what the first codec made of bytes that are more than printable ASCII."""
    first = codecs[0]
    if b"\x1b" in raw and first not in _STAND_ALONE:
        return iso2022.decode(raw, codecs, resets)
    if first not in _DICOM_CODECS and any("\ud800" <= c <= "\udfff" for c in text):
        # Some codecs of Python make surrogates, which JSON cannot hold.
        return raw.decode("ascii", _REFUSED), CHARSET_LOST
    if raw.isascii():
        return text, SOUND
    if first == default_encoding:
        if iso2022.extends(codecs) is not None:
            return iso2022.decode(raw, codecs, resets)
        return text, CHARSET_GUESSED
    if first == "shift_jis" and len(text) != len(raw):
        return text, CHARSET_GUESSED  # Kanji, which JIS X 0201 does not have and Shift JIS does
    return text, SOUND


def _refused(raw: bytes, codecs: tuple[str, ...], resets: frozenset[int]) -> tuple[str, int]:
    """Text of bytes that the first codec does not take as a whole."""
    if b"\x1b" in raw and codecs[0] not in _STAND_ALONE:
        return iso2022.decode(raw, codecs, resets)
    try:
        return raw.decode(codecs[0], _REFUSED), CHARSET_LOST
    except LookupError:
        return raw.decode("latin-1"), SOUND if raw.isascii() else CHARSET_GUESSED
    except UnicodeError:  # codecs without error handlers
        return raw.decode("ascii", _REFUSED), CHARSET_LOST


def _spelling(found: re.Match[str]) -> str:
    return f"\\x{ord(found.group()) & 0xFF:02x}"


def spelled(text: str) -> str:
    r"""`text` with `\xHH` for each mark and each control character that no text may have."""
    return _UNWRITABLE.sub(_spelling, text)
