"""Metadata that arrives as DICOM JSON becomes the same header as the file it came from."""

from __future__ import annotations

import string
from datetime import date
from pathlib import Path

import orjson
import pydicom
import pydicom.data
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dicom_assets.dicom.from_json import header_from_json
from dicom_assets.dicom.header import read_header
from dicom_assets.dicom.references import NoReference, parse
from dicom_assets.dicom.rejections import NotDicom, Unreadable
from dicom_assets.dicom.rows import dicom_columns
from dicom_assets.dicom.values import DECODERS
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import BytesSource

LIMITS = ReadingLimits()
FILES = sorted(p for p in (Path(pydicom.data.__file__).parent / "test_files").iterdir() if p.is_file())
OF_FILES = {
    *("META_MISSING", "TRUNCATED_DATA_SET", "TRUNCATED_PIXEL_DATA", "TRAILING_BYTES", "CHARSET_UNDECODABLE"),
    *("STRUCTURE_INVALID", "HEADER_INCOMPLETE", "OFFSET_TABLE_INVALID"),
}
"""What can only be told from a file's bytes."""
SHORT = {"max_value_bytes": 64}
IDENTITY = {
    "0020000D": {"vr": "UI", "Value": ["1.2"]},
    "0020000E": {"vr": "UI", "Value": ["1.2.3"]},
    "00080018": {"vr": "UI", "Value": ["1.2.3.4"]},
    "00100020": {"vr": "LO", "Value": ["P1"]},
}


def read(path: Path):
    try:
        header = read_header(BytesSource(path.read_bytes()), LIMITS)
    except (NotDicom, Unreadable):
        return None
    return None if header.media_directory else header


def element(vr, *values, tag="00280030"):
    return orjson.loads(header_from_json({**IDENTITY, tag: {"vr": vr, "Value": list(values)}}, LIMITS).json)[tag]


def as_said(found):
    """A header with its references marked as somebody else's."""
    kept = {}
    for tag, one in found.items():
        if "BulkDataURI" in one:
            one = {**one, "BulkDataURI": f"received:{one['BulkDataURI']}"}
        elif one["vr"] == "SQ":
            one = {**one, "Value": [as_said(item) for item in one["Value"]]}
        kept[tag] = one
    return kept


def test_the_header_of_every_file_is_the_same_from_its_json():
    compared = 0
    for path in FILES:
        header = read(path)
        if header is None:
            continue
        compared += 1
        again = header_from_json(orjson.loads(header.json), LIMITS)
        assert orjson.loads(again.json) == as_said(orjson.loads(header.json)), path.name
        assert set(again.issues) == set(header.issues) - OF_FILES, path.name
        if "00020010" in orjson.loads(header.json):
            assert again.columns == header.columns, path.name
    assert compared > 50


def test_what_pydicom_writes_as_json_becomes_the_same_columns():
    for name in ("CT_small.dcm", "MR_small.dcm", "693_J2KI.dcm", "examples_ybr_color.dcm", "reportsi.dcm"):
        path = Path(pydicom.data.__file__).parent / "test_files" / name
        header = read(path)
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        written = dataset.to_json_dict(bulk_data_threshold=1, bulk_data_element_handler=lambda _: "")
        again = header_from_json(orjson.loads(orjson.dumps(written)), LIMITS)
        header.columns.pop("TransferSyntaxUID")
        assert again.columns == header.columns


def test_numbers_may_come_as_text_or_as_numbers():
    assert element("DS", "0.5", 0.5, " 1 ", None)["Value"] == [0.5, 0.5, 1.0, None]
    assert element("IS", "12", 12, "-3", 4.0)["Value"] == [12, 12, -3, 4]
    assert element("SV", "9223372036854775807", -1)["Value"] == [9223372036854775807, -1]


@pytest.mark.parametrize(
    ("vr", "value"), [("DS", "broad"), ("IS", "2.5"), ("FD", "NaN"), ("US", "many"), ("CS", "é"), ("IS", True)]
)
def test_a_value_that_does_not_fit_is_kept_and_marked(vr, value):
    header = header_from_json({**IDENTITY, "00280030": {"vr": vr, "Value": [value]}}, LIMITS)
    assert "VALUE_INVALID" in header.issues
    assert orjson.loads(header.json)["00280030"]["Value"] == [str(value) if value is True else value]
    dicom_columns([header])


@pytest.mark.parametrize(
    ("vr", "tag", "value", "kept"),
    [
        ("UI", "0020000D", "1.2\0junk", "1.2"),
        ("LO", "00100020", "P1\0\x01", "P1"),
        ("LT", "00204000", "a\x9b31mb", "a\\x9b31mb"),
        ("CS", "00080060", "C\x07T", "C\\x07T"),
        ("PN", "00100010", {"Alphabetic": "A^B\0C"}, {"Alphabetic": "A^B"}),
        ("PN", "00100010", "A^B\x1b[0m", {"Alphabetic": "A^B\\x1b[0m"}),
    ],
)
def test_nul_ends_a_value_and_control_characters_are_spelled(vr, tag, value, kept):
    header = header_from_json({**IDENTITY, tag: {"vr": vr, "Value": [value]}}, LIMITS)
    assert orjson.loads(header.json)[tag]["Value"] == [kept]
    assert "VALUE_INVALID" in header.issues
    assert not [text for text in header.columns.values() if isinstance(text, str) and not text.isprintable()]


def test_several_values_of_an_identifier_are_not_cut():
    header = header_from_json({**IDENTITY, "00100020": {"vr": "LO", "Value": ["CR3", "TEST1"]}}, LIMITS)
    assert (header.columns["PatientID"], header.issues) == ("CR3\\TEST1", ("VALUE_INVALID",))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("https://pacs.example/bulk/7", "https://pacs.example/bulk/7"),
        ("../bulk/7", "received:../bulk/7"),
        ("?offset=0&length=4", "received:?offset=0&length=4"),
    ],
)
def test_what_a_service_says_of_bulk_data_is_kept_at_every_depth_and_never_a_place_in_an_object(said, kept):
    bulk = {"00282000": {"vr": "OB", "InlineBinary": "AAAA"}, "7FE00010": {"vr": "OW", "BulkDataURI": said}}
    nested = {"00081140": {"vr": "SQ", "Value": [bulk]}}
    header = header_from_json({**IDENTITY, **bulk, **nested}, LIMITS)
    expected = {**bulk, "7FE00010": {"vr": "OW", "BulkDataURI": kept}}
    found = orjson.loads(header.json)
    assert found == {**IDENTITY, **expected, "00081140": {"vr": "SQ", "Value": [expected]}}
    assert header.issues == ()
    assert header.pixels is None
    with pytest.raises(NoReference):
        parse(found["7FE00010"]["BulkDataURI"])


@pytest.mark.parametrize("bulk", [{"InlineBinary": "A A="}, {"InlineBinary": 1}, {"BulkDataURI": 1}, {"Value": ["x"]}])
def test_bulk_data_that_are_no_bulk_data_leave_their_element_and_a_warning(bulk):
    header = header_from_json({**IDENTITY, "7FE00010": {"vr": "OW", **bulk}}, LIMITS)
    assert orjson.loads(header.json)["7FE00010"] == {"vr": "OW"}
    assert header.issues == ("VALUE_INVALID",)


def test_long_bulk_data_are_kept_as_their_digest():
    for bulk in ({"InlineBinary": "AAAA" * 100}, {"BulkDataURI": "../" * 100}):
        header = header_from_json({**IDENTITY, "7FE00010": {"vr": "OW", **bulk}}, LIMITS.model_copy(update=SHORT))
        assert "count=1&digest=" in orjson.loads(header.json)["7FE00010"]["BulkDataURI"]
        assert header.issues == ("HEADER_CAPPED",)


def test_names_come_as_objects_or_as_text():
    for value in ({"Alphabetic": "Doe^Jane", "Ideographic": "山田"}, "Doe^Jane=山田"):
        header = header_from_json({**IDENTITY, "00100010": {"vr": "PN", "Value": [value]}}, LIMITS)
        assert header.columns["PatientName"] == "Doe^Jane"
        assert header.columns["patient_given_name"] == "Jane"
        assert orjson.loads(header.json)["00100010"]["Value"][0]["Ideographic"] == "山田"


def test_the_senders_identity_counts():
    header = header_from_json({}, LIMITS, ("1.2", "1.2.3", "1.2.3.4"))
    assert header.columns["SOPInstanceUID"] == "1.2.3.4"
    assert header.issues == ("PATIENT_ID_MISSING",)
    other = header_from_json(IDENTITY, LIMITS, ("1.2", "1.2.3", "9.9"))
    assert other.columns["SOPInstanceUID"] == "9.9"
    assert "SOP_INSTANCE_UID_MISMATCH" in other.issues
    with pytest.raises(Unreadable, match="MISSING_IDENTITY"):
        header_from_json({"00080018": IDENTITY["00080018"]}, LIMITS)


def test_services_name_the_transfer_syntax_in_an_attribute_of_their_own():
    available = {"00083002": {"vr": "UI", "Value": ["1.2.840.10008.1.2.4.90"]}}
    assert header_from_json({**IDENTITY, **available}, LIMITS).columns["TransferSyntaxUID"] == "1.2.840.10008.1.2.4.90"


def test_keys_in_lower_case_and_elements_without_a_vr_are_read():
    header = header_from_json({**IDENTITY, "0008103e": {"Value": ["Thorax"]}}, LIMITS)
    assert header.columns["SeriesDescription"] == "Thorax"


def test_dates_are_typed_and_wrong_ones_are_kept_as_text():
    header = header_from_json({**IDENTITY, "00080020": {"vr": "DA", "Value": ["20260301"]}}, LIMITS)
    assert header.columns["StudyDate"] == date(2026, 3, 1)
    wrong = header_from_json({**IDENTITY, "00080020": {"vr": "DA", "Value": ["20261301"]}}, LIMITS)
    assert "StudyDate" not in wrong.columns and "VALUE_INVALID" in wrong.issues


def test_long_values_deep_sequences_and_long_headers_are_capped():
    limits = ReadingLimits(max_value_bytes=1_024, max_header_bytes=65_536, max_depth=3)
    long = header_from_json({**IDENTITY, "00204000": {"vr": "LT", "Value": ["x" * 2_000]}}, limits)
    assert "HEADER_CAPPED" in long.issues
    assert "count=1" in orjson.loads(long.json)["00204000"]["BulkDataURI"]
    deep: dict = {}
    for _ in range(6):
        deep = {"00081140": {"vr": "SQ", "Value": [deep]}}
    assert "DEPTH_CAPPED" in header_from_json({**IDENTITY, **deep}, limits).issues
    many = {f"0021{n:04X}": {"vr": "LO", "Value": ["x" * 1_000]} for n in range(100)}
    capped = header_from_json({**IDENTITY, **many}, limits)
    assert len(capped.json) <= 65_536 and "HEADER_CAPPED" in capped.issues


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.hexdigits, max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(["00080020", "00100010", "00280030", "00081140", "00081032", "00080005", "0020000D", "x"])
VRS = st.just([]) | st.sampled_from([*DECODERS, "SQ", "X", 7, None])
ELEMENTS = st.fixed_dictionaries({}, optional={"vr": VRS, "Value": JSON_VALUES, "BulkDataURI": JSON_VALUES})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example({"00280030": {"vr": "DS", "Value": 1e308}})
@given(st.dictionaries(KEYS, ELEMENTS | JSON_VALUES))
def test_whatever_a_server_sends_ends_as_a_header_that_fits_its_columns(metadata):
    header = header_from_json(metadata, LIMITS, ("1.2", "1.2.3", "1.2.3.4"))
    orjson.loads(header.json)
    assert len(dicom_columns([header])) == 1
    again = header_from_json(orjson.loads(header.json), LIMITS, ("1.2", "1.2.3", "1.2.3.4"))
    assert again.columns == header.columns
