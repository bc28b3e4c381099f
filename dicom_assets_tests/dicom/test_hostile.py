"""Objects that were made to do harm: each ends in a code, soon, and takes nothing with it."""

import struct
import time
import zlib

import pytest

from dicom_assets.dicom.header import Header
from dicom_assets.settings import ReadingLimits
from dicom_assets_tests.dicom import raw
from dicom_assets_tests.dicom.raw import UNDEFINED, dicom, element, item, sequence
from dicom_assets_tests.dicom.referee import outcome

OPEN = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
CLOSE = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
IMPLICIT_OPEN = b"\x08\x00\x15\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"


def nested(depth, opening=OPEN):
    return opening * depth + element(0x00080050, "SH", "x", explicit=opening is OPEN) + CLOSE * depth


def deflate_bomb():
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [packer.compress(raw.data_set())]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(300)]
    return raw.meta(raw.DEFLATED) + b"".join(parts) + packer.flush()


def wide(count):
    """Sequences of empty items: eight bytes each."""
    return sequence(0x00081115, *[item(b"")] * count)


HOSTILE = {
    "deflate bomb": (deflate_bomb, {"TOO_LARGE"}),
    "5,000 sequences deep": (lambda: dicom(nested(5_000)), {"DEPTH_CAPPED"}),
    "5,000 deep in implicit VR": (
        lambda: dicom(nested(5_000, IMPLICIT_OPEN), syntax=raw.IMPLICIT),
        {"DEPTH_CAPPED"},
    ),
    "5,000 deep and never closed": (lambda: dicom(OPEN * 5_000), {"UNPARSEABLE", "TRUNCATED_HEADER"}),
    "a length past the end": (
        lambda: dicom(element(0x00204000, "LT", "x", length=60_000)),
        {"TRUNCATED_DATA_SET"},
    ),
    "a length of 4 GB": (
        lambda: dicom(element(0x00420011, "OB", b"x", length=0xFFFFFFF0)),
        {"TRUNCATED_DATA_SET"},
    ),
    "an item past its sequence": (
        lambda: dicom(element(0x00081115, "SQ", b"\xfe\xff\x00\xe0\xf0\xff\xff\x7f")),
        {"VALUE_INVALID", "TRUNCATED_DATA_SET"},
    ),
    "an item of length zero again and again": (lambda: dicom(wide(100_000)), {"sound"}),
    "a sequence that begins again at its own start": (
        lambda: dicom(OPEN + b"\xfe\xff\x00\xe0" + bytes(4)),
        {"UNPARSEABLE", "TRUNCATED_HEADER", "VALUE_INVALID", "TRUNCATED_DATA_SET"},
    ),
    "elements of length zero without end": (
        lambda: dicom(b"".join(element(0x00290000 | i, "LO") for i in range(0x1000, 0xFFFF, 1))),
        {"sound"},
    ),
    "the same element again and again": (
        lambda: dicom(element(0x00290010, "LO", "A") * 20_000),
        {"sound", "TRAILING_BYTES"},
    ),
    "fragments without end": (
        lambda: dicom(element(0x7FE00010, "OB", item(b"") * 200_000, length=UNDEFINED)),
        {"sound", "TRUNCATED_PIXEL_DATA"},
    ),
    "File Meta Information of 4 GB": (
        lambda: bytes(128) + b"DICM" + element(0x00020002, "OB", b"x", length=0xFFFFFFF0),
        {"TRUNCATED_HEADER"},
    ),
    "a number of ten thousand digits": (
        lambda: dicom(element(0x00200013, "IS", "9" * 10_000)),
        {"VALUE_INVALID"},
    ),
    "a million empty numbers": (
        lambda: dicom(element(0x00720075, "UC", "\\" * 1_000_000)),
        {"sound", "HEADER_CAPPED"},
    ),
    "escape sequences without end": (
        lambda: dicom(element(0x00080005, "CS", "\\ISO 2022 IR 87 "), element(0x00204000, "LT", b"\x1b$B" * 20_000)),
        {"sound", "CHARSET_UNDECODABLE"},
    ),
    "a character set that is no character set": (
        lambda: dicom(element(0x00080005, "CS", "rot13\\zlib_codec"), element(0x00100010, "PN", b"\xff\xfe")),
        {"CHARSET_UNDECODABLE", "VALUE_INVALID"},
    ),
    "surrogates by way of a character set": (
        lambda: dicom(element(0x00080005, "CS", "unicode_escape"), element(0x00100010, "PN", b"\\ud800^\\ud800")),
        {"CHARSET_UNDECODABLE", "VALUE_INVALID"},
    ),
    "nothing but 0xFF behind the prefix": (lambda: bytes(128) + b"DICM" + b"\xff" * 5_000, None),
    "nothing but zeros behind the prefix": (lambda: bytes(128) + b"DICM" + bytes(100_000), None),
    "every length undefined": (
        lambda: dicom() + b"".join(struct.pack("<HH", 41, i) + b"UN\0\0" + b"\xff" * 4 for i in range(4096, 8192)),
        None,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_objects_end_in_a_code_within_seconds(name):
    make, expected = HOSTILE[name]
    data = make()
    started = time.monotonic()
    found = outcome(data, limits=ReadingLimits(max_inflated_bytes=64 << 20))
    assert time.monotonic() - started < 10
    if expected is not None:
        codes = set(found.issues) or {"sound"} if isinstance(found, Header) else {found}
        assert codes & expected
