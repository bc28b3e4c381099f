"""What is said of an object as a whole: identity, File Meta Information, ends, bounds."""

import json
import struct
import zlib

import pytest

from dicom_assets.dicom.header import Memo, Unreadable, read_header
from dicom_assets.dicom.references import retrieve
from dicom_assets.schema.codes import CODES, Outcome
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.dicom import raw
from dicom_assets_tests.dicom.raw import BIG, DEFLATED, EXPLICIT, IMPLICIT, UNDEFINED, dicom, element, item, sequence
from dicom_assets_tests.dicom.referee import outcome, read
from dicom_assets_tests.dicom.samples import test_file

IMAGE = (
    element(0x00280010, "US", b"\x02\0"),
    element(0x00280011, "US", b"\x02\0"),
    element(0x00280100, "US", b"\x10\0"),
)
PIXELS = element(0x7FE00010, "OW", bytes(8))


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_a_sound_object_in_each_encoding(syntax):
    header = read(dicom(syntax=syntax))
    assert header.issues == ()
    assert header.tier == 1
    assert header.columns["PatientID"] == "P1"
    assert header.columns["TransferSyntaxUID"] == syntax
    assert json.loads(header.json)["00100020"] == {"vr": "LO", "Value": ["P1"]}
    assert json.loads(header.json)["00020010"] == {"vr": "UI", "Value": [syntax]}


@pytest.mark.parametrize(("declared", "written"), [(EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT), (BIG, EXPLICIT)])
def test_a_data_set_in_another_encoding_than_is_declared_is_read_and_flagged(declared, written):
    options = {"explicit": written != IMPLICIT, "little": written != BIG}
    header = read(raw.meta(declared) + raw.data_set(**options))
    assert (header.issues, header.columns["PatientID"]) == (("STRUCTURE_INVALID",), "P1")
    private = read(raw.meta("1.2.840.113619.5.2\0") + raw.data_set(explicit=False))
    assert (private.issues, private.columns["PatientID"]) == ((), "P1")


def test_a_deflated_object():
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    header = read(raw.meta(DEFLATED) + packer.compress(raw.data_set(*IMAGE, PIXELS)) + packer.flush())
    assert (header.tier, header.issues, header.columns["Rows"]) == (1, (), 2)


def test_short_bulk_data_is_inline_and_longer_is_referred_to_at_every_depth():
    short, long = element(0x00420011, "OB", b"%PDF"), element(0x00660023, "OW", bytes(range(66)))
    data = dicom(sequence(0x00081115, item(short + long)), short, long)
    found = json.loads(read(data).json)
    for level in (found, found["00081115"]["Value"][0]):
        assert level["00420011"] == {"vr": "OB", "InlineBinary": "JVBERg=="}
        assert level["00660023"].keys() == {"vr", "BulkDataURI"}
        assert retrieve(BytesSource(data), level["00660023"]["BulkDataURI"]) == bytes(range(66))


@pytest.mark.parametrize("missing", [0x00080018, 0x0020000D, 0x0020000E])
@pytest.mark.parametrize("value", [None, b"", b"\0\0", b"  "])
def test_without_usable_identity_there_is_no_header(missing, value):
    found = raw.identity()
    if value is None:
        del found[missing]
    else:
        found[missing] = element(missing, "UI", value)
    later = element(0x00280010, "US", b"\x02\0")
    assert outcome(raw.meta() + b"".join(found.values()) + later) == "MISSING_IDENTITY"


def test_odd_uids_are_usable():
    data = raw.meta() + raw.data_set(element(0x0020000D, "UI", "1.2.03"))
    assert read(data).issues == ("UID_INVALID",)


def test_an_object_without_preamble_is_read_and_flagged():
    assert read(raw.data_set()).issues == ("META_MISSING",)
    assert read(raw.data_set(explicit=False)).columns["TransferSyntaxUID"] == IMPLICIT
    assert read(raw.data_set(little=False)).columns["TransferSyntaxUID"] == BIG


def test_differing_instance_uids_are_flagged_and_the_data_sets_one_counts():
    header = read(raw.meta(instance="1.2.3.9\0") + raw.data_set())
    assert header.issues == ("SOP_INSTANCE_UID_MISMATCH",)
    assert header.columns["SOPInstanceUID"] == "1.2.3.1"


def test_a_missing_patient_id_is_flagged():
    assert read(dicom(element(0x00100020, "LO"))).issues == ("PATIENT_ID_MISSING",)


def test_invalid_values_are_null_flagged_and_kept_in_the_header():
    header = read(dicom(element(0x00080020, "DA", "20260230"), element(0x00200013, "IS", "2.5")))
    assert header.issues == ("VALUE_INVALID",)
    assert "StudyDate" not in header.columns
    assert "InstanceNumber" not in header.columns
    assert json.loads(header.json)["00080020"]["Value"] == ["20260230"]
    assert json.loads(header.json)["00200013"]["Value"] == ["2.5"]


def test_undecodable_text_is_flagged_and_null():
    header = read(dicom(element(0x00080005, "CS", "ISO_IR 192"), element(0x00100010, "PN", b"M\xfcller^A")))
    assert header.issues == ("CHARSET_UNDECODABLE",)
    assert "PatientName" not in header.columns


def test_an_item_may_declare_its_own_character_set():
    utf8 = item(element(0x00080005, "CS", "ISO_IR 192") + element(0x00080104, "LO", "Über".encode()))
    latin = item(element(0x00080104, "LO", "Über".encode("latin-1")))
    header = read(dicom(element(0x00080005, "CS", "ISO_IR 100"), sequence(0x00081032, utf8, latin)))
    values = json.loads(header.json)["00081032"]["Value"]
    assert [v["00080104"]["Value"] for v in values] == [["Über"], ["Über"]]
    assert header.issues == ()


def test_a_media_directory_is_only_recognised():
    data = (raw.meta()).replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.1.3.10\0\0\0\0\0\0") + b"\xff" * 40
    assert read(data).media_directory


# Ends


def test_pixel_data_shorter_than_its_length():
    assert read(dicom(*IMAGE, PIXELS)[:-1]).issues == ("TRUNCATED_PIXEL_DATA",)


def test_pixel_data_shorter_than_the_image():
    assert read(dicom(*IMAGE, element(0x7FE00010, "OW", bytes(6)))).issues == ("TRUNCATED_PIXEL_DATA",)


def test_whole_pixel_data():
    assert read(dicom(*IMAGE, PIXELS)).issues == ()


def test_bytes_behind_pixel_data():
    assert read(dicom(*IMAGE, PIXELS, tail=b"garbage, not an element")).issues == ("TRAILING_BYTES",)


def test_elements_behind_pixel_data_are_no_excess():
    assert read(dicom(*IMAGE, PIXELS, tail=element(0xFFFCFFFC, "OB", bytes(10)))).issues == ()


@pytest.mark.parametrize("undefined", [False, True])
def test_elements_behind_pixel_data_are_in_the_header_by_their_place(undefined):
    signature = item(element(0x04000005, "US", b"\1\0") + sequence(0x00081115, item(b"", undefined=undefined)))
    signatures = sequence(0xFFFAFFFA, signature, undefined=undefined)
    padding = element(0xFFFCFFFC, "OB", bytes(10))
    data = dicom(*IMAGE, PIXELS, tail=element(0x7FE10010, "LO", "ACME") + signatures + padding)
    header = read(data)
    found = json.loads(header.json)
    assert header.issues == ()
    assert list(found)[-4:] == ["7FE00010", "7FE10010", "FFFAFFFA", "FFFCFFFC"]
    values = {tag: retrieve(BytesSource(data), found[tag]["BulkDataURI"]) for tag in list(found)[-4:]}
    assert (values["7FE10010"], values["FFFAFFFA"], values["FFFCFFFC"]) == (b"ACME", signature, bytes(10))
    assert [found[tag]["vr"] for tag in values] == ["OW", "UN", "UN", "OB"]


def test_a_sequence_behind_pixel_data_that_does_not_end_is_told():
    tail = element(0xFFFAFFFA, "SQ", item(element(0x04000005, "US", b"\1\0")), length=UNDEFINED)
    assert read(dicom(*IMAGE, PIXELS, tail=tail)).issues == ("TRAILING_BYTES",)


def test_zeros_behind_the_last_element():
    assert read(dicom(tail=bytes(4))).issues == ("TRAILING_BYTES",)


FRAGMENTS = b"".join(item(part) for part in (b"", b"\xff\xd8abcdef", b"12345678"))
JPEG = "1.2.840.10008.1.2.4.50"


def encapsulated(content, tail=b""):
    pixels = element(0x7FE00010, "OB", content, length=UNDEFINED)
    return dicom(*IMAGE, pixels, syntax=JPEG, tail=tail)


def test_encapsulated_pixel_data_with_its_end():
    assert read(encapsulated(FRAGMENTS + b"\xfe\xff\xdd\xe0\0\0\0\0")).issues == ()


@pytest.mark.parametrize("cut", [4, 8, 12, 20])
def test_encapsulated_pixel_data_without_its_end(cut):
    whole = encapsulated(FRAGMENTS + b"\xfe\xff\xdd\xe0\0\0\0\0")
    assert read(whole[:-cut]).issues == ("TRUNCATED_PIXEL_DATA",)


def test_bytes_behind_encapsulated_pixel_data():
    assert read(encapsulated(FRAGMENTS + b"\xfe\xff\xdd\xe0\0\0\0\0", b"xx")).issues == ("TRAILING_BYTES",)


def test_every_prefix_of_an_object_has_an_outcome_and_no_short_one_is_taken_for_sound():
    whole = dicom(element(0x00204000, "LT", "a comment of some length"), *IMAGE, PIXELS)
    borders = set()
    position = len(raw.meta())
    while position < len(whole):  # a cut between two elements cannot be seen
        borders.add(position)
        vr = whole[position + 4 : position + 6]
        position += 12 + 8 if vr == b"OW" else 8 + struct.unpack_from("<H", whole, position + 6)[0]
    for end in range(len(whole)):
        found = outcome(whole[:end])
        if isinstance(found, str):
            assert found in ("EMPTY_FILE", "NOT_DICOM", "TRUNCATED_HEADER", "MISSING_IDENTITY"), end
        elif end not in borders:
            assert {"TRUNCATED_DATA_SET", "TRUNCATED_PIXEL_DATA"} & set(found.issues), end


def test_a_header_cut_behind_its_identity_is_kept_and_flagged():
    header = read(test_file("rtplan_truncated.dcm"))
    assert "TRUNCATED_DATA_SET" in header.issues
    assert CODES["TRUNCATED_DATA_SET"].outcome is Outcome.INGESTED


def test_a_header_cut_before_its_identity_is_not_kept():
    assert outcome(raw.meta() + raw.identity()[0x00080018]) == "TRUNCATED_HEADER"


# Windows and bounds


@pytest.mark.parametrize("first", [256, 1000, 4096])
def test_a_header_longer_than_the_first_read_is_read_on(first):
    blobs = [element(0x00291010 + i, "OB", bytes(5_000)) for i in range(3)]
    long = [element(0x00204000, "LT", "x" * 3_000), sequence(0x00081115, item(element(0x00080050, "SH", "y")))]
    open_end = sequence(0x00081140, *[item(element(0x00081155, "UI", "1.2"), undefined=True)] * 200, undefined=True)
    data = dicom(element(0x00290010, "LO", "ACME"), *blobs, *long, open_end, *IMAGE, PIXELS)
    header = read_header(BytesSource(data), ReadingLimits(first_read_bytes=first))
    assert (header.tier, header.json, header.issues) == (1, read(data).json, ())


def test_a_long_value_is_kept_as_a_reference_that_leads_back_to_it():
    limits = ReadingLimits(max_value_bytes=1_024)
    data = dicom(element(0x00204000, "LT", "x" * 2_000))
    header = read_header(BytesSource(data), limits)
    assert header.issues == ("HEADER_CAPPED",)
    kept = json.loads(header.json)["00204000"]
    assert kept["BulkDataURI"].startswith("?offset=")
    assert "length=2000&count=1&" in kept["BulkDataURI"]
    assert retrieve(BytesSource(data), kept["BulkDataURI"]) == b"x" * 2_000
    with pytest.raises(ValueError, match="not what it was"):
        retrieve(BytesSource(data.replace(b"xx", b"yx")), kept["BulkDataURI"])


def test_a_long_list_says_how_many_values_it_has():
    limits = ReadingLimits(max_value_bytes=1_024)
    header = read_header(BytesSource(dicom(element(0x00720075, "FD", bytes(8 * 1_000)))), limits)
    assert "count=1000" in json.loads(header.json)["00720075"]["BulkDataURI"]


def test_a_header_above_the_bound_keeps_references_instead_of_its_largest_sequences():
    limits = ReadingLimits(max_header_bytes=65_536)
    many = sequence(0x00081140, *[item(element(0x00081155, "UI", "1.2.3." + str(i))) for i in range(3_000)])
    header = read_header(BytesSource(dicom(many)), limits)
    assert header.issues == ("HEADER_CAPPED",)
    assert len(header.json) < 65_536


@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_below_the_bound_on_depth_are_left_out_and_flagged(undefined):
    nested = element(0x00080050, "SH", "deep")
    for _ in range(10):
        nested = sequence(0x00081115, item(nested, undefined=undefined), undefined=undefined)
    header = read_header(BytesSource(dicom(nested)), ReadingLimits(max_depth=4))
    assert header.issues == ("DEPTH_CAPPED",)
    found, depth = json.loads(header.json), 0
    while found["00081115"].get("Value"):
        found, depth = found["00081115"]["Value"][0], depth + 1
    assert depth == 4


def test_an_object_above_the_bound_is_not_read():
    with pytest.raises(Unreadable) as error:
        read_header(BytesSource(dicom(*IMAGE, PIXELS)), ReadingLimits(max_object_bytes=10))
    assert error.value.code == "TOO_LARGE"


def test_what_is_said_of_a_bad_object_quotes_nothing_from_it():
    data = dicom(element(0x00100010, "PN", "DOE^JANE"))[:-30] + b"\xff" * 20
    for bad in (data[:300], data.replace(b"UI", b"QQ"), data[132:]):
        try:
            read(bad)
        except Unreadable as error:
            assert "DOE" not in str(error)
            assert error.__cause__ is None


class Broken(BytesSource):
    """Storage that fails behind the first bytes."""

    def read(self, offset, length):
        if offset > 300:
            raise PermissionError("storage")
        return super().read(offset, min(length, 400 - offset))


def test_the_storages_own_errors_are_not_mistaken_for_bad_bytes():
    data = dicom(element(0x00290010, "LO", "ACME"), element(0x00291010, "OB", bytes(200_000)), *IMAGE, PIXELS)
    with pytest.raises(PermissionError):
        read_header(Broken(data), ReadingLimits(first_read_bytes=256))


# Memory


def test_runs_of_omitted_elements_leave_no_trace_in_the_json():
    blobs = [element(0x00291010 + i, "OB", b"ab") for i in range(4)]
    memo = Memo()
    for number in range(5):
        data = dicom(element(0x00200013, "IS", str(number)), element(0x00290010, "LO", f"C{number}"), *blobs, *IMAGE)
        assert json.loads(read(data, memo).json)["00200013"]["Value"] == [number]


def test_private_elements_are_read_by_their_own_creator_whatever_was_read_before():
    known = element(0x00190010, "LO", "SIEMENS MR HEADER", explicit=False)
    unknown = element(0x00190010, "LO", "SOMEBODY ELSES CT", explicit=False)
    private = element(0x0019100C, "IS", "1000", explicit=False)
    memo = Memo()
    for creator, expected in ((known, True), (known, True), (unknown, False), (known, True), (unknown, False)) * 2:
        header = read(dicom(creator, private, syntax=IMPLICIT), memo)
        vr = "IS" if expected else "UN"
        assert json.loads(header.json)["0019100C"]["vr"] == vr


def test_signed_values_follow_pixel_representation_whatever_was_read_before():
    memo = Memo()
    for sign in (0, 1, 1, 0, 0, 1, 0) * 2:
        data = dicom(
            element(0x00280103, "US", struct.pack("<H", sign), explicit=False),
            element(0x00280106, "US", b"\xff\xff", explicit=False),
            element(0x00280107, "US", b"\xff\xff", explicit=False),
            syntax=IMPLICIT,
        )
        value = json.loads(read(data, memo).json)["00280106"]
        assert value == ({"vr": "SS", "Value": [-1]} if sign else {"vr": "US", "Value": [65535]})
