"""The page of an instance: its header, where it lies, its versions."""

from __future__ import annotations

import io
import re
from pathlib import Path

import orjson
import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_description

from dicom_assets.catalogue.header_elements import LONGEST, count, elements, matching
from dicom_assets_tests.catalogue.shown_lake import ODD, Shown, instance, links, section, words
from dicom_assets_tests.support.dicoms import uid


def file(shown: Shown, number: int) -> Path:
    return Path(shown.settings.sources[0].root) / "odd" / f"{number}.dcm"


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_every_element_that_pydicom_reads_is_there_by_name_and_value(shown: Shown):
    said = section(shown.plain.get(instance(ODD)), "header")
    found = dcmread(io.BytesIO(file(shown, 1).read_bytes()))
    seen = 0
    for dataset in (found.file_meta, found):
        for element in dataset.iterall():
            group, number = f"{element.tag:08x}"[:4], f"{element.tag:08x}"[4:]
            assert f"({group},{number}) {element.VR}" in said
            if not element.tag.is_private:
                assert dictionary_description(element.tag) in said
            if element.VR in ("LO", "PN", "SH", "CS", "DA", "IS"):
                value = element.value
                assert str(value if isinstance(value, (str, int)) or element.VR == "PN" else "\\".join(value)) in said
            seen += 1
    assert seen > 30


def test_private_elements_are_told_with_their_creator_and_its_name_for_them(shown: Shown):
    said = section(shown.plain.get(instance(ODD)), "header")
    assert "(0019,0010) LO Private creator SIEMENS MR HEADER" in said
    assert "(0019,100c) IS B_value SIEMENS MR HEADER 700" in said
    assert "(0029,1001) OB Private element ACME <1>" in said


def test_bulk_values_are_named_by_their_length_and_lead_to_their_bytes(shown: Shown):
    answer = shown.plain.get(instance(ODD))
    said = section(answer, "header")
    assert "Pixel Data 128 bytes" in said
    bulk = [link for link in links(answer) if "/bulkdata/" in link]
    pixels = dcmread(file(shown, 1)).PixelData
    assert shown.plain.get(bulk[-1], headers={"Accept": "*/*"}).content == pixels


@pytest.mark.parametrize(
    ("find", "there", "gone"),
    [
        ("patient's name", "(0010,0010)", "(0010,0020)"),
        ("PatientName", "(0010,0010)", "(0010,0020)"),
        ("00100010", "(0010,0010)", "(0010,0020)"),
        ("0010,0010", "(0010,0010)", "(0010,0020)"),
        ("siemens 700", "(0019,100c)", "(0019,0010)"),
        ("LUNG", "(0008,0104)", "(0010,0010)"),
        ("lung", "(0008,2218)", "(0008,0016)"),
        ("nothing has this", "0 lines of", "(0008"),
    ],
)
def test_a_search_leaves_what_has_its_words_and_what_that_is_nested_in(shown: Shown, find: str, there: str, gone: str):
    answer = shown.plain.get(instance(ODD), params={"find": find})
    said = section(answer, "header")
    assert there in said
    assert gone not in said


def test_a_search_names_each_sequence_once_however_many_of_its_items_match():
    items = [{"00080100": {"vr": "SH", "Value": [f"found {number}"]}} for number in range(200)]
    header = orjson.dumps({"00081140": {"vr": "SQ", "Value": items}}).decode()
    found = matching(elements(header), "found")
    assert [one.name for one in found].count("Referenced Image Sequence") == 1
    assert len(found) == 401


def test_long_values_are_cut_and_say_how_long_they_are():
    header = orjson.dumps({"00281201": {"vr": "US", "Value": [*range(5_000)]}, "00080005": {"vr": "CS"}}).decode()
    _, one = elements(header)
    assert count(header) == 2
    assert one.value.startswith("0\\1\\2")
    assert len(one.value) == LONGEST
    assert one.more.startswith("… 5,000 values, ")


def test_where_it_lies_and_its_versions_are_told(shown: Shown):
    answer = shown.plain.get(instance(ODD))
    said = section(answer, "place")
    assert "landing" in said
    assert f"{shown.settings.sources[0].root}/odd/1.dcm" in said
    versions = shown.graph.rows(f"SELECT batch_id FROM flat_metadata WHERE SOPInstanceUID = '{uid(ODD, 1, 1)}'")
    assert len(versions) == 2
    told = section(answer, "versions")
    assert all(one["batch_id"] in told for one in versions)
    assert told.count("current") == 1
    assert "another header" in told
    in_archive = section(shown.plain.get(instance(ODD, 1, 2)), "place")
    assert r"odd.zip in this archive: <u>odd</u>\x1b[31mred.dcm" in in_archive


def test_what_was_found_wrong_with_it_is_told(shown: Shown):
    said = section(shown.plain.get(instance(ODD, 1, 3)), "errors")
    assert "TRUNCATED_PIXEL_DATA" in said
    assert "What to do" in said
    assert 'id="errors"' not in shown.plain.get(instance(ODD, 1, 2)).text


def test_the_instances_before_and_behind_are_one_step_away(shown: Shown):
    there = links(shown.plain.get(instance(ODD, 1, 2)))
    assert instance(ODD, 1, 1) in there
    assert instance(ODD, 1, 3) in there


def test_lines_beyond_what_a_page_shows_are_told_and_found(shown: Shown, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dicom_assets.catalogue.instance_page.MOST", 3)
    answer = shown.plain.get(instance(ODD))
    assert re.search(r"3 lines of \d+ elements, the first that there are", words(answer))
    assert "Pixel Data" not in section(answer, "header")
    assert "Pixel Data" in section(shown.plain.get(instance(ODD), params={"find": "pixel data"}), "header")
