"""Fuzzes character sets: any bytes in any declared set become text that is whole, writable and the same each time.

    python -m fuzz.charset [--seconds N] [--seed S]

Guided by coverage where atheris is installed, blind otherwise. What fails is kept in build/fuzz, and ends the process
with a status that is not 0. An input is VR, NUL, Specific Character Set, NUL, value.
"""

from __future__ import annotations

import random
import re

import orjson

from fuzz.running import instrumented, run

with instrumented(__name__):
    from dicom_assets.dicom.charset import codecs_of
    from dicom_assets.dicom.flaws import CHARSET_GUESSED, CHARSET_LOST, CHARSET_PARTLY, SOUND
    from dicom_assets.dicom.iso2022 import DESIGNATIONS
    from dicom_assets.dicom.values import json_element

VRS = (b"LO", b"PN", b"LT", b"SH", b"ST", b"UC", b"UT", b"CS", b"UI", b"AE", b"UR", b"DS", b"IS", b"DA", b"TM")
_TEXTS = frozenset({"LO", "PN", "LT", "SH", "ST", "UC", "UT"})
_TERMS = (
    *(b"", b"ISO_IR 192", b"GB18030", b"GBK", b"ISO_IR 13", b"ISO_IR 100", b"ISO_IR 166", b"ISO_IR 203", b"rot13"),
    *(b"ISO 2022 IR %d" % number for number in (6, 13, 58, 87, 100, 126, 127, 138, 144, 148, 149, 159, 166, 203)),
)
_PIECES = (
    *sorted(DESIGNATIONS),
    *(b"^", b"=", b"\\", b"\r\n", b"\x0c", b"\0", b"\x1b", b"\x1b$", b"\x9b31m", b" ", b"A", b"\xd0\xd8", b";3"),
)
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LOST = CHARSET_GUESSED | CHARSET_LOST | CHARSET_PARTLY


def judge(data: bytes) -> None:
    """Raises AssertionError, or whatever decoding should not have raised."""
    vr, _, rest = data.partition(b"\0")
    charset, _, raw = rest.partition(b"\0")
    if vr in VRS:
        _judge(vr.decode("ascii"), charset, raw)


def _judge(vr: str, charset: bytes, raw: bytes) -> None:
    codecs = codecs_of(charset)
    found, flaws = json_element(vr, raw, True, codecs)
    assert json_element(vr, raw, True, codecs) == (found, flaws), "not the same twice"
    orjson.dumps(found)
    texts = [
        text
        for value in found.get("Value", ())
        for text in (value.values() if isinstance(value, dict) else [value])
        if isinstance(text, str)
    ]
    assert not any(map(_FORBIDDEN.search, texts)), "a control character, a NUL or a surrogate is left"
    if vr in _TEXTS and raw.isascii() and b"\x1b" not in raw and raw.decode("ascii").isprintable():
        assert flaws & _LOST == SOUND, "ASCII is sound in every set"


def made(rng: random.Random) -> bytes:
    """A value of a random VR and Specific Character Set."""
    charset = b"\\".join(rng.choice(_TERMS) for _ in range(rng.randrange(1, 4)))
    pieces = [rng.choice(_PIECES) if rng.random() < 0.6 else rng.randbytes(rng.randrange(1, 6)) for _ in range(8)]
    return rng.choice(VRS) + b"\0" + charset + b"\0" + b"".join(pieces)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A value with a piece put into it, in place of up to two bytes."""
    at = rng.randrange(len(data))
    return data[:at] + rng.choice(_PIECES) + data[at + rng.randrange(3) :]


if __name__ == "__main__":
    run(__doc__ or "", judge, made, mutated, seeds=[made(random.Random(number)) for number in range(200)], most=512)
