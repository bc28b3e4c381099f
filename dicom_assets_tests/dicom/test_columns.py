"""Typed columns: dates, times, numbers, names and UIDs as the registry types them."""

from datetime import date

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword

from dicom_assets.dicom.columns import Misfit, column, fill, iso_date, iso_date_time, iso_time, valid_uids
from dicom_assets.dicom.flaws import CHARSET_LOST, SOUND, UID_INVALID, VALUE_INVALID
from dicom_assets.schema.attributes import ATTRIBUTES


def typed(keyword, *values, flaws=SOUND):
    return column(tag_for_keyword(keyword), list(values), flaws)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("14", "14"),
        ("1405", "14:05"),
        ("140509", "14:05:09"),
        ("140509.123456", "14:05:09.123456"),
        ("140509.1 ", "14:05:09.1"),
        ("14:05:09.5", "14:05:09.5"),
        ("235960", "23:59:60"),
    ],
)
def test_times_keep_their_precision(written, meant):
    assert iso_time(written) == meant


@pytest.mark.parametrize("written", ["24", "1460", "140561", "1", "14050", "140509.", "14:0509", "abc", "１４０５"])
def test_times_that_are_none(written):
    with pytest.raises(Misfit):
        iso_time(written)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026", "2026"),
        ("202601", "2026-01"),
        ("20260102", "2026-01-02"),
        ("2026010214", "2026-01-02T14"),
        ("20260102140509", "2026-01-02T14:05:09"),
        ("20260102140509.25+0100", "2026-01-02T14:05:09.25+01:00"),
        ("202601021405-0330", "2026-01-02T14:05-03:30"),
    ],
)
def test_date_times_keep_precision_and_offset_and_invent_none(written, meant):
    assert iso_date_time(written) == meant


@pytest.mark.parametrize("written", ["20261301", "20260102140509+1500", "20260102-0000", "2026010225", "26"])
def test_date_times_that_are_none(written):
    with pytest.raises(Misfit):
        iso_date_time(written)


@given(st.dates())
def test_dates_in_either_form(day):
    assert iso_date(f"{day:%Y%m%d}".zfill(8)) == day == iso_date(f"{day:%Y.%m.%d}".zfill(10))


@pytest.mark.parametrize("written", ["20260230", "2026-01-02", "202601", "2026.0102", ""])
def test_dates_that_are_none(written):
    with pytest.raises(Misfit):
        iso_date(written)


def test_each_vr_has_its_type():
    assert typed("StudyDate", "20260102") == (date(2026, 1, 2), SOUND)
    assert typed("SliceThickness", 1.25) == (1.25, SOUND)
    assert typed("Rows", 512) == (512, SOUND)
    assert typed("ImageType", "ORIGINAL", "PRIMARY") == (["ORIGINAL", "PRIMARY"], SOUND)
    assert typed("WindowCenter", 40.0, None) == ([40.0, None], SOUND)
    assert typed("PatientName", {"Alphabetic": "A^B", "Ideographic": "x"}) == ("A^B", SOUND)
    assert typed("StudyDescription", " Thorax ") == ("Thorax", SOUND)


@pytest.mark.parametrize("attribute", [a for a in ATTRIBUTES if not a.multiple], ids=lambda a: a.keyword)
def test_several_values_of_an_attribute_that_has_one_are_flagged_and_never_cut(attribute):
    one = {"DA": "20260102", "TM": "1405", "DT": "2026", "UI": "1.2", "PN": {"Alphabetic": "A"}}
    numeric = pa.types.is_floating(attribute.type) or pa.types.is_integer(attribute.type)
    value = one.get(attribute.vr, 1 if numeric else "A")
    written = "A" if attribute.vr == "PN" else value
    text = pa.types.is_string(attribute.type) and attribute.vr not in ("TM", "DT")
    taken, flaws = column(attribute.tag, [value, value])
    assert flaws & VALUE_INVALID
    assert taken == (f"{written}\\{written}" if text else None)


def test_several_empty_values_are_none():
    assert typed("PatientID", "", "") == (None, VALUE_INVALID)


def test_empty_values_are_null_without_a_flaw():
    assert typed("StudyDate", "") == (None, SOUND)
    assert typed("ImageType", "", "") == (None, SOUND)
    assert column(tag_for_keyword("Rows"), None) == (None, SOUND)


def test_values_that_do_not_fit_are_null_and_flagged():
    assert typed("StudyDate", "20260230") == (None, VALUE_INVALID)
    assert typed("SliceThickness", "1,5") == (None, VALUE_INVALID)
    assert typed("InstanceNumber", "2.5") == (None, VALUE_INVALID)
    assert typed("WindowCenter", 40.0, "x") == (None, VALUE_INVALID)


def test_text_that_lost_characters_is_null():
    assert typed("PatientID", "M\\xfc", flaws=CHARSET_LOST) == (None, SOUND)


def test_odd_uids_are_kept_and_flagged():
    assert typed("StudyInstanceUID", "1.2.03") == ("1.2.03", UID_INVALID)
    assert typed("StudyInstanceUID", "1.2.3") == ("1.2.3", SOUND)


@pytest.mark.parametrize("uid", ["", "1", "1..2", "3.1", "1.2.", "1.a", "1." + "1" * 63])
def test_uids_against_the_rules(uid):
    assert not valid_uids([uid])


def test_patient_name_gives_family_and_given_name():
    columns = {}
    fill(columns, 0x00100010, {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane^M"}]}, SOUND)
    assert columns == {"PatientName": "Doe^Jane^M", "patient_family_name": "Doe", "patient_given_name": "Jane"}


def test_codes_come_from_the_first_item():
    columns = {}
    first = {"00080100": {"vr": "SH", "Value": ["T-D3000"]}, "00080104": {"vr": "LO", "Value": ["Chest"]}}
    fill(columns, 0x00082218, {"vr": "SQ", "Value": [first, {}]}, SOUND)
    assert columns == {"anatomic_region_code": "T-D3000", "anatomic_region_meaning": "Chest"}
