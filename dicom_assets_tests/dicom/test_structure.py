"""A fault inside one element costs that element: delimiters, lengths and encodings that are not what they should be."""

import json
import struct
import zlib

import pytest
from pydicom.datadict import DicomDictionary, RepeatersDictionary, get_entry

from dicom_assets.dicom.header import Header
from dicom_assets.dicom.heads import in_dictionary
from dicom_assets.dicom.references import retrieve
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.dicom import raw
from dicom_assets_tests.dicom.raw import BIG, DEFLATED, EXPLICIT, IMPLICIT, UNDEFINED, dicom, element, item, sequence
from dicom_assets_tests.dicom.referee import differences, outcome, read

ITEM_END, SEQUENCE_END = b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
OPEN_ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
ROWS = element(0x00280010, "US", b"\x02\0")
IMAGE = (ROWS, element(0x00280011, "US", b"\x02\0"), element(0x00280100, "US", b"\x10\0"))
PIXELS = element(0x7FE00010, "OW", bytes(8))
UID = element(0x00081155, "UI", "1.2")
REFERENCED = 0x00081140


def found(data):
    """The header's JSON, its issues and Rows of an object that must have a header with all that stands behind."""
    header = outcome(data)
    assert isinstance(header, Header), header
    assert header.columns["Rows"] == 2
    assert header.columns["StudyInstanceUID"] == "1.2.3.2"
    return json.loads(header.json), header.issues


def uids(header):
    return [one.get("00081155", {}).get("Value", [None])[0] for one in header[f"{REFERENCED:08X}"]["Value"]]


BROKEN = ("VALUE_INVALID", "STRUCTURE_INVALID")


@pytest.mark.parametrize("delimiter", [ITEM_END, SEQUENCE_END], ids=["of an item", "of a sequence"])
def test_a_delimiter_between_elements_is_passed_over(delimiter):
    data = raw.meta() + raw.data_set(element(0x00080060, "CS", "CT") + delimiter, *IMAGE, PIXELS)
    assert found(data)[1] == BROKEN


def test_a_sequence_with_a_length_may_have_a_delimiter_too():
    inside = sequence(REFERENCED, item(UID), SEQUENCE_END)
    header, issues = found(dicom(inside, *IMAGE, PIXELS))
    assert (uids(header), issues) == (["1.2"], ("STRUCTURE_INVALID",))
    behind = sequence(REFERENCED, item(UID)) + SEQUENCE_END
    header, issues = found(dicom(behind, *IMAGE, PIXELS))
    assert (uids(header), issues) == (["1.2"], BROKEN)


def test_an_item_with_a_length_may_have_a_delimiter_too():
    header, issues = found(dicom(sequence(REFERENCED, item(UID + ITEM_END), item(UID)), *IMAGE, PIXELS))
    assert (uids(header), issues) == (["1.2", "1.2"], BROKEN)


@pytest.mark.parametrize("count", [1, 3])
def test_an_item_is_closed_by_its_sequence_and_by_the_next_item(count):
    content = (OPEN_ITEM + UID) * count + SEQUENCE_END
    header, issues = found(dicom(element(REFERENCED, "SQ", content, length=UNDEFINED), *IMAGE, PIXELS))
    assert (uids(header), issues) == (["1.2"] * count, BROKEN)


def test_an_item_without_length_in_a_sequence_with_one_is_closed_by_it():
    header, issues = found(dicom(element(REFERENCED, "SQ", OPEN_ITEM + UID), *IMAGE, PIXELS))
    assert (uids(header), issues) == (["1.2"], BROKEN)


@pytest.mark.parametrize("explicit", [True, False])
def test_a_sequence_without_its_delimiter_ends_before_what_can_stand_behind_it(explicit):
    uid = element(0x00081155, "UI", "1.2", explicit=explicit)
    open_end = element(REFERENCED, "SQ", item(uid) * 2, length=UNDEFINED, explicit=explicit)
    rest = [
        element(
            int.from_bytes(r[:2], "little") << 16 | int.from_bytes(r[2:4], "little"), "US", r[8:], explicit=explicit
        )
        for r in IMAGE
    ]
    header, issues = found(dicom(open_end, *rest, syntax=EXPLICIT if explicit else IMPLICIT))
    assert (uids(header), issues) == (["1.2", "1.2"], BROKEN)


@pytest.mark.parametrize("off", [-24, -8, -2, 2, 8])
def test_a_length_of_a_sequence_that_is_a_little_off_costs_no_more_than_that_sequence(off):
    content = item(UID + element(0x00081150, "UI", "1.2.840.10008.5.1.4.1.1.2")) * 2
    wrong = element(REFERENCED, "SQ", content, length=len(content) + off)
    _, issues = found(dicom(wrong, element(0x00100010, "PN", "A^B"), *IMAGE, PIXELS))
    assert set(BROKEN) <= set(issues)
    assert not [issue for issue in issues if "TRUNCATED" in issue or "PIXEL" in issue]


@pytest.mark.parametrize("off", [-24, -8, 2, 8, 60_000])
def test_a_length_of_an_item_that_is_a_little_off_costs_no_more_than_that_item(off):
    content = UID + element(0x00081160, "IS", "1 ") + element(0x00081190, "UR", "http://a/b")
    wrong = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content) + off) + content
    _, issues = found(dicom(sequence(REFERENCED, wrong), *IMAGE, PIXELS))
    assert set(BROKEN) <= set(issues)
    assert not [issue for issue in issues if "TRUNCATED" in issue]


@pytest.mark.parametrize("short", [8, 16, 24])
def test_the_lengths_of_an_icon_that_leave_out_the_end_of_its_fragments(short):
    fragments = item(b"") + item(b"\xff\xd8" + bytes(30) + b"\xff\xd9") + SEQUENCE_END
    icon = ROWS + element(0x7FE00010, "OB", fragments, length=UNDEFINED)
    wrong = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(icon) - short) + icon
    whole = element(0x00880200, "SQ", wrong, length=len(wrong) - short)
    pixels = element(0x7FE00010, "OB", item(b"") + item(b"\xff\xd8\xff\xd9") + SEQUENCE_END, length=UNDEFINED)
    data = dicom(*IMAGE, whole, pixels, syntax="1.2.840.10008.1.2.4.50")
    header, issues = found(data)
    assert issues == BROKEN
    (inside,) = header["00880200"]["Value"]
    assert inside.keys() == {"00280010", "7FE00010"}
    assert retrieve(BytesSource(data), inside["7FE00010"]["BulkDataURI"]) + SEQUENCE_END == fragments


def implicit(tag, value):
    return element(tag, "UI", value, explicit=False)


UNREADABLE = {
    "explicit items in implicit VR": OPEN_ITEM + UID + ITEM_END,
    "a length past the end": OPEN_ITEM + element(0x00081155, "UI", b"1.", explicit=False, length=900_000) + ITEM_END,
    "no item at all": b"no item is here " * 3,
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("tag", [0x001910A0, REFERENCED], ids=["private", "known"])
def test_a_sequence_that_cannot_be_read_costs_itself_alone(name, tag):
    creator = element(0x00190010, "LO", "ACME", explicit=False)
    lost = element(tag, "SQ", UNREADABLE[name] + SEQUENCE_END, explicit=False, length=UNDEFINED)
    rows = element(0x00280010, "US", b"\x02\0", explicit=False)
    data = dicom(creator, lost, rows, syntax=IMPLICIT)
    header, issues = found(data)
    assert issues == BROKEN
    kept = header[f"{tag:08X}"]
    assert "Value" not in kept
    assert retrieve(BytesSource(data), kept["BulkDataURI"]) == UNREADABLE[name]


def test_a_sequence_with_a_length_that_cannot_be_read_is_kept_by_its_place():
    header, issues = found(dicom(element(REFERENCED, "SQ", b"no item is here "), *IMAGE, PIXELS))
    assert header[f"{REFERENCED:08X}"]["BulkDataURI"].startswith("?offset=")
    assert issues == BROKEN


def test_a_sequence_inside_a_sequence_that_cannot_be_read_costs_the_inner_one():
    inner = element(0x00081199, "SQ", b"no item is here " + SEQUENCE_END, length=UNDEFINED)
    header, issues = found(dicom(sequence(REFERENCED, item(UID + inner), item(UID), undefined=True), *IMAGE, PIXELS))
    assert (uids(header), issues) == (["1.2", "1.2"], BROKEN)


# Ends


@pytest.mark.parametrize("zeros", [8, 40, 4096, 200_000])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_zeros_from_the_middle_to_the_end_are_told(zeros, syntax):
    header = read(dicom(syntax=syntax) + bytes(zeros))
    assert header.issues == ("HEADER_INCOMPLETE",)
    assert "00000000" not in json.loads(header.json)


def test_zeros_between_elements_are_passed_over_and_told():
    hole = element(0x00204000, "LT", "x") + bytes(512)
    assert found(dicom(hole, *IMAGE, PIXELS))[1] == ("VALUE_INVALID", "HEADER_INCOMPLETE")


@pytest.mark.parametrize("junk", [b"\xff" * 64, b"this is no element " * 10, bytes(range(1, 200))])
def test_what_is_no_element_behind_the_last_one_is_told(junk):
    header = read(dicom() + junk)
    assert "HEADER_INCOMPLETE" in header.issues
    assert not [issue for issue in header.issues if "TRUNCATED" in issue]


def test_without_identity_what_cannot_be_read_is_not_called_cut():
    assert outcome(raw.meta() + raw.identity()[0x00080018] + bytes(4096)) == "UNPARSEABLE"
    assert outcome(raw.meta() + raw.identity()[0x00080018]) == "TRUNCATED_HEADER"


@pytest.mark.parametrize("undefined", [True, False])
def test_an_object_that_ends_inside_a_sequence_is_cut_and_keeps_what_was_there(undefined):
    whole = dicom(sequence(0x300A00B0, item(UID), item(UID), undefined=undefined))
    header = read(whole[: len(whole) - (20 if undefined else 6)])
    assert "TRUNCATED_DATA_SET" in header.issues
    assert json.loads(header.json)["300A00B0"]["Value"][0] == {"00081155": {"vr": "UI", "Value": ["1.2"]}}


# Encodings


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_file_meta_information_in_big_endian(syntax):
    content = b"".join(
        element(tag, "UI", uid + "\0" * (len(uid) % 2), little=False)
        for tag, uid in ((0x00020002, "1.2.840.10008.5.1.4.1.1.2"), (0x00020003, "1.2.3.1"), (0x00020010, syntax))
    )
    length = element(0x00020000, "UL", struct.pack(">I", len(content)), little=False)
    options = {"explicit": syntax != IMPLICIT, "little": syntax != BIG}
    header = read(bytes(128) + b"DICM" + length + content + raw.data_set(**options))
    assert header.issues == ("STRUCTURE_INVALID",)
    assert header.columns["TransferSyntaxUID"] == syntax
    assert json.loads(header.json)["00020000"]["Value"] == [len(content)]


def test_a_length_in_file_meta_information_that_leads_past_the_end():
    content = element(0x00020003, "UI", "1.2.3.1\0") + element(0x00020010, "UI", EXPLICIT + "\0", length=60_000)
    group = element(0x00020000, "UL", struct.pack("<I", len(content)))
    header = read(bytes(128) + b"DICM" + group + content + raw.data_set())
    assert set(header.issues) == {"STRUCTURE_INVALID", "META_MISSING"}
    assert header.columns["StudyInstanceUID"] == "1.2.3.2"


@pytest.mark.parametrize("window", [zlib.MAX_WBITS, 16 + zlib.MAX_WBITS], ids=["zlib", "gzip"])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_deflated_data_with_a_header_of_its_own(window, level):
    packer = zlib.compressobj(level, zlib.DEFLATED, window)
    data = raw.meta(DEFLATED) + packer.compress(raw.data_set(*IMAGE, PIXELS)) + packer.flush()
    assert found(data)[1] == ("STRUCTURE_INVALID",)
    assert found(data + b"\0")[1] == ("STRUCTURE_INVALID",)


@pytest.mark.parametrize("declared", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("actual", [EXPLICIT, IMPLICIT, BIG])
def test_a_data_set_is_read_as_it_is_written_whatever_is_declared(declared, actual):
    options = {"explicit": actual != IMPLICIT, "little": actual != BIG}
    rows = element(0x00280010, "US", struct.pack("<H" if actual != BIG else ">H", 2), **options)
    _, issues = found(raw.meta(declared) + raw.data_set(rows, **options))
    assert set(issues) <= {"STRUCTURE_INVALID"}


# UN


@pytest.mark.parametrize(
    ("tag", "written", "expected"),
    [
        (0x00280010, b"\x02\0", {"vr": "US", "Value": [2]}),
        (0x00189087, struct.pack("<d", 0.5), {"vr": "FD", "Value": [0.5]}),
        (0x00280009, b"\x18\0\x63\x10", {"vr": "AT", "Value": ["00181063"]}),
        (0x00081030, b"Thorax", {"vr": "LO", "Value": ["Thorax"]}),
    ],
)
@pytest.mark.parametrize("syntax", [EXPLICIT, BIG])
def test_a_value_written_as_un_is_little_endian(syntax, tag, written, expected):
    unknown = element(tag, "UN", written, little=syntax != BIG)
    data = dicom(unknown, syntax=syntax)
    header = read(data)
    assert (json.loads(header.json)[f"{tag:08X}"], header.issues) == (expected, ())
    assert not differences(data, header)


def order(syntax):
    return {"little": syntax != BIG}


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("syntax", [EXPLICIT, BIG])
def test_a_sequence_written_as_un_is_implicit_and_little_endian(syntax, undefined):
    inside = element(0x00280010, "US", b"\x02\0", explicit=False) + element(0x00081155, "UI", "1.2", explicit=False)
    items = item(inside, undefined=undefined) * 2 + (SEQUENCE_END if undefined else b"")
    unknown = element(REFERENCED, "UN", items, length=UNDEFINED if undefined else None, **order(syntax))
    rows = element(0x00280010, "US", struct.pack("<H" if syntax == EXPLICIT else ">H", 2), **order(syntax))
    header, issues = found(dicom(unknown, rows, syntax=syntax))
    assert (uids(header), issues) == (["1.2", "1.2"], ())
    assert header[f"{REFERENCED:08X}"]["Value"][0]["00280010"] == {"vr": "US", "Value": [2]}


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG])
def test_a_value_written_as_un_because_it_is_longer_than_its_vr_allows_is_in_the_header(syntax):
    numbers = "\\".join(["1.5"] * 20_000)
    data = dicom(element(0x30060050, "UN", numbers, **order(syntax)), syntax=syntax)
    header = read(data)
    assert json.loads(header.json)["30060050"] == {"vr": "DS", "Value": [1.5] * 20_000}
    assert (header.issues, differences(data, header)) == ((), [])


def test_a_value_written_as_un_above_the_bound_is_in_the_header_by_reference():
    header = read(dicom(element(0x30060050, "UN", "1.5\\" * 400_000 + "1.5 ")))
    assert header.issues == ("HEADER_CAPPED",)
    assert "count=400001&" in json.loads(header.json)["30060050"]["BulkDataURI"]


def test_a_pixel_representation_that_is_no_number_costs_itself_alone():
    odd = element(0x00280103, "US", b"\0\0\0\0\0", explicit=False, length=5)[:-1]
    signed = sequence(REFERENCED, item(element(0x00280106, "US", b"\1\0", explicit=False)), explicit=False)
    header = read(dicom(signed, odd, syntax=IMPLICIT))
    assert header.issues == ("VALUE_INVALID",)
    assert json.loads(header.json)["00280103"]["vr"] == "UN"


# NUL


@pytest.mark.parametrize(
    ("tag", "vr", "value", "kept"),
    [
        (0x0020000D, "UI", b"1.2.3.2\0junk", "1.2.3.2"),
        (0x00100020, "LO", b"P1\0junk", "P1"),
        (0x00081030, "LO", b"Thorax\0\0old ", "Thorax"),
        (0x00080060, "CS", b"CT\0X", "CT"),
        (0x00080020, "DA", b"20260102\0\1", "20260102"),
        (0x00204000, "LT", b"first\0second", "first"),
        (0x00200013, "IS", b"7\0008", 7),
        (0x00180050, "DS", b"1.5\0x", 1.5),
        (0x00080054, "AE", b"SCU\0SCP", "SCU"),
    ],
)
def test_nul_ends_a_value(tag, vr, value, kept):
    header = read(dicom(element(tag, vr, value)))
    assert header.issues == ("VALUE_INVALID",)
    assert json.loads(header.json)[f"{tag:08X}"]["Value"] == [kept]
    assert b"\\u0000" not in header.json
    assert not [text for text in header.columns.values() if isinstance(text, str) and "\0" in text]


def test_nul_ends_a_name():
    header = read(dicom(element(0x00100010, "PN", b"A^B\0C^D")))
    assert (header.columns["PatientName"], header.issues) == ("A^B", ("VALUE_INVALID",))


def test_nul_that_pads_is_no_flaw():
    assert read(dicom(element(0x00081030, "LO", b"Thorax\0\0"))).issues == ()


# Multiplicity


def test_two_patients_are_never_made_one():
    headers = [read(dicom(element(0x00100020, "LO", f"CR3\\TEST{n}"))) for n in (1, 2)]
    assert [header.columns["PatientID"] for header in headers] == ["CR3\\TEST1", "CR3\\TEST2"]
    assert all(header.issues == ("VALUE_INVALID",) for header in headers)
    assert json.loads(headers[0].json)["00100020"]["Value"] == ["CR3", "TEST1"]


@pytest.mark.parametrize(
    ("tag", "vr", "name", "written"),
    [
        (0x00080050, "SH", "AccessionNumber", "A1\\A2 "),
        (0x0020000D, "UI", "StudyInstanceUID", "1.2.3.2\\1.2.3.9"),
        (0x00100021, "LO", "IssuerOfPatientID", "A\\B "),
    ],
)
def test_identifiers_are_never_cut(tag, vr, name, written):
    header = read(dicom(element(tag, vr, written)))
    assert header.columns[name] == written.strip()
    assert "VALUE_INVALID" in header.issues


@pytest.mark.parametrize("behind", [b"", b"\0" * 9, OPEN_ITEM, ITEM_END, b"\x08\0\x05\0CS\0\0" * 2])
def test_fragments_outside_of_any_item_whose_end_is_missing_cost_that_element(behind):
    document = element(0x00420011, "OB", item(b"%PDF"), length=UNDEFINED) + behind
    assert outcome(dicom(document)) is not None
    _, issues = found(dicom(*IMAGE, document, element(0x00420012, "LO", "x")))
    assert "VALUE_INVALID" in issues or "TRUNCATED_HEADER" in issues, issues


@pytest.mark.parametrize("vr", ["IO", "??", "US"])
def test_a_private_creator_that_is_no_text_costs_no_other_element(vr):
    """Its VR is none, or makes nothing of its bytes; the element that it should name ends beyond the object."""
    creator = b"\x29\0\x10\0" + vr.encode() + b"\x03\0ABC"
    header = read(dicom(*IMAGE, creator, element(0x00291001, "UN", b"abcd", length=400)))
    assert header.columns["SOPInstanceUID"] and header.issues


def test_elements_of_the_dictionary_and_of_its_repeating_groups_are_told_from_others():
    repeating = [int(mask.replace("x", digit), 16) for mask in RepeatersDictionary for digit in "02ABEF"]
    known = [*DicomDictionary, *repeating]
    others = [tag ^ 1 << bit for tag in known[::9] for bit in (0, 3, 7, 16, 17, 24, 31)]
    assert all(in_dictionary(tag) for tag in DicomDictionary)
    for tag in (*repeating, *others):
        try:
            get_entry(tag)
        except KeyError:
            assert not in_dictionary(tag)
        else:
            assert in_dictionary(tag)
