"""What a header does not spell out it refers to, and the bytes there are pydicom's: in every layout and both tiers."""

import json
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_assets.dicom.header import Memo, read_header
from dicom_assets.dicom.references import NoReference, Reference, ValueChanged, parse, retrieve
from dicom_assets.schema.keys import content_digest
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.dicom import raw
from dicom_assets_tests.dicom.raw import BIG, DEFLATED, EXPLICIT, IMPLICIT, UNDEFINED, dicom, element, item, sequence
from dicom_assets_tests.dicom.referee import (
    body_of,
    by_second_tier,
    differences,
    read,
    references,
)

MEMO = Memo()
WIDTHS = {"OB": 1, "OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8, "UN": 1, "UT": 1}
VALUES = st.tuples(
    st.sampled_from(sorted(WIDTHS)), st.sampled_from((0, 8, 64, 72, 1_024, 1_032, 5_000)), st.integers(0, 255)
)


def value(vr, size, fill):
    """An element's VR and its value."""
    return vr, b"t" * size if vr == "UT" else bytes([fill]) * size


def block(values, **options):
    """A private block of these values, in ascending order."""
    found = element(0x00290010, "LO", "ACME", **options)
    for number, one in enumerate(values):
        vr, content = value(*one)
        found += element(0x00291000 + number, vr, content, **options)
    return found


def made(syntax, tops, nested, undefined):
    """An object with bulk values of its own, and some in items, on two levels."""
    options = {"explicit": syntax != IMPLICIT, "little": syntax != BIG}
    elements = [block(tops, **options)]
    if nested and syntax != BIG:
        explicit = options["explicit"]
        inner = sequence(0x00081199, item(block(nested, **options), undefined=undefined), explicit=explicit)
        outer = item(inner + block(nested[:1], **options), undefined=undefined)
        elements.append(sequence(0x00081115, outer, undefined=undefined, explicit=explicit))
    elements.append(element(0x7FE00010, "OW", bytes(200), **options))
    if syntax != DEFLATED:
        return dicom(*elements, syntax=syntax)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return raw.meta(DEFLATED) + packer.compress(raw.data_set(*elements)) + packer.flush()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from((EXPLICIT, IMPLICIT, BIG, DEFLATED)),
    st.lists(VALUES, max_size=5),
    st.lists(VALUES, max_size=3),
    st.booleans(),
    st.sampled_from((256, 4_096, 131_072)),
)
def test_headers_and_their_references_give_every_element_as_pydicom_does(
    monkeypatch, syntax, tops, nested, open_, first
):
    data = made(syntax, tops, nested, open_)
    limits = ReadingLimits(first_read_bytes=first)
    header = read(data, MEMO, limits)
    assert header.issues == ()
    assert not differences(data, header)
    assert read(data).tier == 1
    assert header.json == read(data).json == by_second_tier(data, monkeypatch).json
    assert all(len(retrieve(body_of(data), uri)) == parse(uri).length for uri in references(json.loads(header.json)))


@pytest.mark.parametrize(("vr", "size", "inline"), [("UN", 64, True), ("UN", 66, False), ("OB", 64, True)])
@pytest.mark.parametrize("depth", [0, 1])
def test_up_to_64_bytes_of_bulk_data_are_inline(vr, size, inline, depth):
    one = element(0x00291001, vr, bytes(size))
    block = element(0x00290010, "LO", "ACME") + one
    header = read(dicom(sequence(0x00081115, item(block)) if depth else block))
    level = json.loads(header.json)
    level = level["00081115"]["Value"][0] if depth else level
    assert ("InlineBinary" in level["00291001"], "BulkDataURI" in level["00291001"]) == (inline, not inline)


def test_words_in_big_endian_are_referred_to_since_inline_ones_are_little_endian():
    data = dicom(element(0x60003000, "OW", b"\1\2", little=False), syntax=BIG)
    assert retrieve(BytesSource(data), json.loads(read(data).json)["60003000"]["BulkDataURI"]) == b"\1\2"


def test_an_icon_in_fragments_is_referred_to_without_its_delimiter():
    fragments = item(b"") + item(b"\xff\xd8\xff\xd9")
    pixels = element(0x7FE00010, "OB", fragments + b"\xfe\xff\xdd\xe0\0\0\0\0", length=UNDEFINED)
    data = dicom(sequence(0x00880200, item(pixels)), element(0x00280010, "US", b"\2\0"))
    header = read(data)
    uri = json.loads(header.json)["00880200"]["Value"][0]["7FE00010"]["BulkDataURI"]
    assert parse(uri).encapsulated
    assert retrieve(BytesSource(data), uri) == fragments
    assert not differences(data, header)


def test_float_pixel_data_are_pixel_data():
    data = dicom(element(0x7FE00008, "OF", bytes(range(32))))
    header = read(data)
    assert (header.pixels.length, header.issues) == (32, ())
    assert retrieve(BytesSource(data), json.loads(header.json)["7FE00008"]["BulkDataURI"]) == bytes(range(32))


@pytest.mark.parametrize("undefined", [False, True])
def test_what_lies_below_the_bound_on_depth_is_referred_to_in_both_tiers(undefined, monkeypatch):
    limits = ReadingLimits(max_depth=2)
    deep = sequence(0x00081199, item(element(0x00080050, "SH", "deep")), undefined=undefined)
    data = dicom(sequence(0x00081115, item(sequence(0x00081199, item(deep)))))
    header = read(data, limits=limits)
    assert header.issues == ("DEPTH_CAPPED",)
    assert header.json == by_second_tier(data, monkeypatch, limits).json
    (uri,) = references(json.loads(header.json))
    assert retrieve(BytesSource(data), uri) == item(element(0x00080050, "SH", "deep"))


@pytest.mark.parametrize("undefined", [False, True])
def test_a_sequence_above_the_bound_is_referred_to_in_both_tiers(undefined, monkeypatch):
    limits = ReadingLimits(max_header_bytes=65_536)
    many = [item(element(0x00081155, "UI", f"1.2.{n}")) for n in range(3_000)]
    data = dicom(sequence(0x00081140, *many, undefined=undefined))
    header = read(data, limits=limits)
    assert header.issues == ("HEADER_CAPPED",)
    assert header.json == by_second_tier(data, monkeypatch, limits).json
    assert retrieve(BytesSource(data), json.loads(header.json)["00081140"]["BulkDataURI"]) == b"".join(many)


@pytest.mark.parametrize("tag", [0x00081115, 0x00191001])
def test_values_that_are_too_much_together_are_referred_to_from_the_bound_on_in_both_tiers(tag, monkeypatch):
    limits = ReadingLimits(max_header_bytes=65_536)
    creator = [element(0x00190010, "LO", "ACME")] if tag >> 16 & 1 else []
    texts = [element(tag + number, "UT", f"{number:02}".ljust(10_000, "x")) for number in range(10)]
    data = dicom(*creator, *texts)
    header = read(data, limits=limits)
    assert header.issues == ("HEADER_CAPPED",)
    assert len(header.json) < limits.max_header_bytes
    assert header.json == by_second_tier(data, monkeypatch, limits).json
    found = [json.loads(header.json)[f"{tag + number:08X}"] for number in range(10)]
    assert [list(one)[1] for one in found] == ["Value"] * 6 + ["BulkDataURI"] * 4
    assert retrieve(BytesSource(data), found[9]["BulkDataURI"]) == b"09".ljust(10_000, b"x")


def test_of_pixel_data_that_are_cut_off_the_reference_has_what_is_there():
    data = dicom(element(0x7FE00010, "OW", bytes(100)))[:-10]
    header = read(data)
    assert header.issues == ("TRUNCATED_PIXEL_DATA",)
    assert retrieve(BytesSource(data), json.loads(header.json)["7FE00010"]["BulkDataURI"]) == bytes(90)


class Sparse(BytesSource):
    """An object of gigabytes of which only the beginning is there."""

    def __init__(self, head, size):
        super().__init__(head)
        self._size = size

    @property
    def size(self):
        return self._size

    def read(self, offset, length):
        assert offset + length < 1 << 20
        return super().read(offset, length)


def test_the_length_of_pixel_data_is_known_without_reading_them():
    length = 3 << 30
    head = dicom(element(0x7FE00010, "OW", length=length))
    header = read_header(Sparse(head, len(head) + length), ReadingLimits(first_read_bytes=512))
    assert (header.pixels.offset, header.pixels.length, header.issues) == (len(head), length, ())


# References themselves


def test_a_reference_that_is_none_or_leads_elsewhere_is_refused():
    assert parse("?offset=3&length=2&encapsulated=1") == Reference(3, 2, True)
    for uri in ("http://elsewhere/x", "?offset=3", "?offset=-3&length=2", "?offset=x&length=2", ""):
        with pytest.raises(NoReference):
            parse(uri)
    with pytest.raises(ValueChanged):
        retrieve(BytesSource(b"four"), "?offset=3&length=2")


def test_the_digest_is_about_what_an_object_says_and_not_where_it_lies():
    blob = (element(0x00290010, "LO", "ACME"), element(0x00291001, "OB", bytes(100)))
    plain = read(dicom(*blob))
    moved = read(raw.meta() + raw.data_set(*blob, element(0x00290010, "LO", "ACME")))
    shifted = json.loads(plain.json)
    uri = shifted["00291001"]["BulkDataURI"]
    elsewhere = plain.json.replace(uri.encode(), uri.replace("offset=", "offset=1").encode())
    assert elsewhere != plain.json
    assert content_digest(elsewhere) == content_digest(plain.json) == content_digest(moved.json)
    longer = read(dicom(blob[0], element(0x00291001, "OB", bytes(102))))
    assert content_digest(longer.json) != content_digest(plain.json)


def test_a_text_that_looks_like_a_reference_counts_for_the_digest():
    said = [read(dicom(element(0x00104000, "LT", f'"BulkDataURI":"?offset={n}&?'))).json for n in (1, 2)]
    assert content_digest(said[0]) != content_digest(said[1])
