"""Raw DICOM for tests, byte by byte, so that a test can say what is odd about it."""

import struct

from dicom_assets.dicom.signature import LONG_VRS

UNDEFINED = 0xFFFFFFFF
EXPLICIT, IMPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)


def padded(value):
    """Even length, as PS3.5 7.1 asks for."""
    value = value.encode("latin-1") if isinstance(value, str) else value
    return value + b" " * (len(value) % 2)


def element(tag, vr, value=b"", *, explicit=True, little=True, length=None):
    """One element; `length` writes another length than the value has."""
    order = "<" if little else ">"
    value = padded(value)
    length = len(value) if length is None else length
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if not explicit:
        return head + struct.pack(order + "I", length) + value
    if vr.encode() in LONG_VRS:
        return head + vr.encode() + b"\0\0" + struct.pack(order + "I", length) + value
    return head + vr.encode() + struct.pack(order + "H", length) + value


def item(content, *, undefined=False):
    """An item, with a length or with a delimiter."""
    if undefined:
        return b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + content + b"\xfe\xff\x0d\xe0\0\0\0\0"
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


def sequence(tag, *items, undefined=False, explicit=True):
    """A sequence of little-endian items."""
    content = b"".join(items)
    if undefined:
        content += b"\xfe\xff\xdd\xe0\0\0\0\0"
        return element(tag, "SQ", content, explicit=explicit, length=UNDEFINED)
    return element(tag, "SQ", content, explicit=explicit)


def identity(**options):
    """SOP class and the three UIDs with a patient: what an object needs to be ingested without issue."""
    return {
        0x00080016: element(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.2\0", **options),
        0x00080018: element(0x00080018, "UI", "1.2.3.1\0", **options),
        0x00100020: element(0x00100020, "LO", "P1", **options),
        0x0020000D: element(0x0020000D, "UI", "1.2.3.2\0", **options),
        0x0020000E: element(0x0020000E, "UI", "1.2.3.3\0", **options),
    }


def data_set(*elements, **options):
    """Identity and these elements, in ascending order."""
    order = "<HH" if options.get("little", True) else ">HH"
    found = identity(**options)
    for raw in elements:
        group, number = struct.unpack_from(order, raw)
        found[group << 16 | number] = raw
    return b"".join(found[tag] for tag in sorted(found))


def meta(syntax=EXPLICIT, instance="1.2.3.1\0", **more):
    """Preamble, prefix and File Meta Information."""
    content = element(0x00020002, "UI", "1.2.840.10008.5.1.4.1.1.2\0") + element(0x00020003, "UI", instance)
    content += element(0x00020010, "UI", syntax + "\0" * (len(syntax) % 2))
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(content))) + content


def dicom(*elements, syntax=EXPLICIT, tail=b""):
    """A whole file."""
    options = {"explicit": syntax != IMPLICIT, "little": syntax != BIG}
    return meta(syntax) + data_set(*elements, **options) + tail
