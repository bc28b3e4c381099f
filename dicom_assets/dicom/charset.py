r"""Text of a DICOM object: from bytes and Specific Character Set to Unicode (PS3.3 C.12.1.1.2, PS3.5 6.1.2).

Belongs here: which codec decodes which bytes, by pydicom's tables, and what stands for bytes that no codec takes.
Does not belong here: how a decoded value is split and typed (`values`).

Bytes that the declared character set does not allow are written as `\xHH`, so that nothing is lost and the JSON stays
valid. Without a declaration text is read as Latin-1, as pydicom does: lossless, a guess, and flagged as one.
"""

from __future__ import annotations

import re
import warnings
from functools import lru_cache

from pydicom.charset import CODES_TO_ENCODINGS, convert_encodings, default_encoding, handled_encodings, python_encoding
from pydicom.valuerep import TEXT_VR_DELIMS

from dicom_assets.dicom.flaws import CHARSET_GUESSED, CHARSET_LOST, SOUND

DEFAULT: tuple[str, ...] = (default_encoding,)
"""Codecs of an object that declares no character set."""

_DICOM_CODECS = frozenset(python_encoding.values())
_FRAGMENT = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")


@lru_cache(maxsize=256)
def codecs_of(declared: bytes) -> tuple[str, ...]:
    """Python codecs for the raw value of Specific Character Set (0008,0005); unknown terms become Latin-1."""
    terms = declared.decode("latin-1").rstrip(" \x00").split("\\")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return tuple(convert_encodings(terms if len(terms) > 1 else terms[0]))
        except (ValueError, LookupError):
            return DEFAULT


def decode(raw: bytes, codecs: tuple[str, ...]) -> tuple[str, int]:
    """Text and its flaw (`flaws`): SOUND, CHARSET_GUESSED or CHARSET_LOST."""
    if b"\x1b" in raw and len(raw) > 1:
        return _decode_extended(raw, codecs)
    first = codecs[0]
    try:
        text = raw.decode(first)
    except UnicodeError:
        return _escaped(raw, first), CHARSET_LOST
    except LookupError:
        return raw.decode("latin-1"), CHARSET_GUESSED
    if first == default_encoding and not text.isascii():
        return text, CHARSET_GUESSED
    if first not in _DICOM_CODECS and any("\ud800" <= c <= "\udfff" for c in text):
        return _escaped(raw, "ascii"), CHARSET_LOST  # some codecs of Python make surrogates, which JSON cannot hold
    return text, SOUND


def _escaped(raw: bytes, codec: str) -> str:
    r"""`raw` with `\xHH` for each byte that the codec refuses."""
    try:
        return raw.decode(codec, "backslashreplace")
    except (UnicodeError, LookupError):  # codecs without error handlers
        return raw.decode("ascii", "backslashreplace")


def _decode_extended(raw: bytes, codecs: tuple[str, ...]) -> tuple[str, int]:
    """Text with code extensions: each fragment from an escape sequence on has its own codec (PS3.5 6.1.2.5)."""
    parts, flaw = [], SOUND
    for fragment in _FRAGMENT.findall(raw):
        try:
            parts.append(_decode_fragment(fragment, codecs))
        except (UnicodeError, LookupError):
            parts.append(_escaped(fragment, codecs[0]))
            flaw = CHARSET_LOST
    return "".join(parts), flaw


def _decode_fragment(fragment: bytes, codecs: tuple[str, ...]) -> str:
    if fragment[:1] != b"\x1b":
        return fragment.decode(codecs[0])
    length = 4 if fragment.startswith((b"\x1b$(", b"\x1b$)")) else 3
    codec = CODES_TO_ENCODINGS.get(fragment[:length])
    if codec is None or (codec not in codecs and codec != default_encoding):
        raise LookupError("the escape sequence is none of the declared character sets")
    if codec in handled_encodings:
        return fragment.decode(codec)
    body = fragment[length:]
    # A delimiter ends the code extension: the first character set counts from there on (PS3.5 6.1.2.5.3).
    end = next((i for i, byte in enumerate(body) if byte in TEXT_VR_DELIMS), None)
    if end is None:
        return body.decode(codec)
    return body[:end].decode(codec) + body[end:].decode(codecs[0])
