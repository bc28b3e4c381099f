"""phi_risk: a set with each risk once beside its clean twin; every one is found, and nothing else."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_assets.curation.confidentiality import profile
from dicom_assets.curation.patient_words import words_of_patient, words_of_text
from dicom_assets_tests.curation.support import followed
from dicom_assets_tests.support.dicoms import dicom, uid

CLEAN: dict[str, Any] = dict.fromkeys(
    ("PatientName", "PatientID", "StudyDate", "StudyDescription", "SeriesDescription")
)
"""What leaves an object nothing of the basic profile but UIDs."""
FALK = {"PatientName": "Falk^Rosamunde", "PatientID": "K-47110", "PatientBirthDate": "19610412"}
_OF_FALK = {"direct": ["PatientBirthDate", "PatientID", "PatientName"], "score_direct": 30, "score": 30}


def nested(**attributes: Any) -> list[Dataset]:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return [item]


RISKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "a direct identifier": (
        {"AccessionNumber": "A1"},
        {"direct": ["AccessionNumber"], "score_direct": 30, "score": 30},
    ),
    "an attribute that the profile removes": (
        {"InstitutionName": "House"},
        {"indirect": ["InstitutionName"], "score_indirect": 1, "score": 1},
    ),
    "the name that somebody goes by": (
        {"private": (0x00100000, 0x0012, "LO", "Rosa")},
        {"direct": ["NameToUse"], "score_direct": 30, "score": 30},
    ),
    "one in a sequence": (
        {"AnatomicRegionSequence": nested(CodeValue="1", PatientAddress="Road 1")},
        {"direct": ["PatientAddress"], "score_direct": 30, "score": 30},
    ),
    "an overlay, whose group repeats": (
        {"private": (0x60020000, 0x3000, "OW", b"\0\0")},
        {"indirect": ["OverlayData"], "score_indirect": 1, "score": 1},
    ),
    "an attribute without a value": ({"InstitutionName": ""}, {}),
    "the own patient": (FALK, _OF_FALK),
    "a name in text": (
        {**FALK, "FilterType": "for Rosamunde"},
        {**_OF_FALK, "own_text": ["00181160"], "score_text": 15, "score": 45},
    ),
    "a name in text of somebody else": (
        {"FilterType": "FALK"},
        {"other_text": ["00181160"], "score_text": 5, "score": 5},
    ),
    "an identifier in text": ({"FilterType": "no. k-47110"}, {"other_text": ["00181160"], "score_text": 5, "score": 5}),
    "a date of birth in text": (
        {"FilterType": "12.4.1961"},
        {"other_text": ["00181160"], "score_text": 5, "score": 5},
    ),
    "text of nobody": ({"FilterType": "Rosa 47110 1961"}, {}),
    "a private element": (
        {"private": (0x00290000, 0x1008, "LO", "x")},
        {"private_elements": 1, "private_creators": ["MAKER"], "score_private": 1, "score": 1},
    ),
    "a private element on the safe list": ({"private": (0x00430000, 0x1039, "IS", "1"), "maker": "GEMS_PARM_01"}, {}),
    "annotation": ({"BurnedInAnnotation": "YES"}, {"burned_in": "attribute", "score_pixels": 20, "score": 20}),
    "likely annotation": (
        {"SOPClassUID": SecondaryCaptureImageStorage},
        {"burned_in": "likely", "score_pixels": 10, "score": 10},
    ),
    "annotation that is denied": ({"SOPClassUID": SecondaryCaptureImageStorage, "BurnedInAnnotation": "NO"}, {}),
    "a claim that holds": ({"PatientIdentityRemoved": "YES"}, {"claims": 1}),
    "a claim that does not": (
        {"PatientIdentityRemoved": "YES", "AccessionNumber": "A1"},
        {"claims": 1, "contradictions": 1, "direct": ["AccessionNumber"], "score_claim": 5, "score_direct": 30,
         "score": 35},
    ),
    "a claim of somebody with a name": (
        {"PatientIdentityRemoved": "YES", "PatientName": "Li", "PatientID": "L1"},
        {"claims": 1, "contradictions": 1, "direct": ["PatientID", "PatientName"], "score_claim": 5, "score_direct": 30,
         "score": 35},
    ),
    "a claim of somebody with a pseudonym": (
        {"PatientIdentityRemoved": "YES", "PatientName": "S-01", "PatientID": "S-01", "PatientAge": "040Y"},
        {"claims": 1, "direct": ["PatientID", "PatientName"], "indirect": ["PatientAge"], "score_direct": 30,
         "score_indirect": 1, "score": 31},
    ),
}  # fmt: skip
"""By risk, what an object says and in which columns its series differs from that of an object that does not say it."""


def written(study: int, said: dict[str, Any]) -> bytes:
    """An object of a study of its own."""
    plain = {key: value for key, value in said.items() if key not in ("private", "maker")}
    if "private" not in said:
        return dicom(study, **(CLEAN | plain))
    group, element, vr, value = said["private"]
    return with_element(dicom(study, **(CLEAN | plain)), group >> 16, element, vr, value, said.get("maker", "MAKER"))


def with_element(data: bytes, group: int, element: int, vr: str, value: Any, maker: str) -> bytes:
    import io

    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(data))
    if group % 2:
        dataset.add_new((group, 0x10), "LO", maker)
    dataset.add_new((group, element), vr, value)
    sink = io.BytesIO()
    dataset.save_as(sink)
    return sink.getvalue()


@pytest.fixture(scope="module")
def rows(states) -> dict[str, dict[str, Any]]:
    """The row of each risk."""

    def make(graph, landing) -> None:
        for study, (said, _) in enumerate(RISKS.values(), start=1):
            landing.put(f"{study}.dcm", written(study, said))
        graph.ingest()

    graph, _, _ = states.begin(make)
    found = {row["StudyInstanceUID"]: row for row in followed(graph.lake)["phi_risk"]}
    return {risk: found[uid(study)] for study, risk in enumerate(RISKS, start=1)}


_OF_THE_ROW = {"StudyInstanceUID", "SeriesInstanceUID", "study_key", "made_from", "text_paths", "text_marks"}


@pytest.mark.parametrize("risk", RISKS)
def test_each_risk_is_found_and_nothing_else(rows, risk):
    clean = {key: value for key, value in rows["nothing"].items() if key not in _OF_THE_ROW}
    differs = {key: rows[risk][key] for key, value in clean.items() if rows[risk][key] != value}
    assert differs == RISKS[risk][1]


def test_an_object_without_risks_has_no_score(rows):
    assert rows["nothing"]["score"] == 0
    assert rows["nothing"]["uids"] == [
        "MediaStorageSOPInstanceUID",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "StudyInstanceUID",
    ]


def test_short_names_and_numbers_are_not_looked_for():
    assert list(words_of_patient(["Li^An", None], "4711", None)) == []


LETTERS = st.characters(categories=["Lu", "Ll"], max_codepoint=0x24F, exclude_characters="ı")  # whose capital is I
AROUND = st.text(st.sampled_from(" ,.;:()0123456789_-/\n"), max_size=5)


@given(
    family=st.text(LETTERS, min_size=4, max_size=12),
    identifier=st.from_regex(r"[A-Z0-9]{5,12}", fullmatch=True),
    form=st.sampled_from(["NFC", "NFD"]),
    around=st.tuples(AROUND, AROUND),
    case=st.sampled_from([str, str.upper, str.lower]),
)
def test_a_name_and_an_identifier_are_found_wherever_they_stand_in_a_text(family, identifier, form, around, case):
    text = unicodedata.normalize(form, f"{around[0]}{case(family)}{around[1]} ({case(identifier)})")
    found = set(words_of_text(text))
    for told in (([f"{family}^Ann"], None), ([], identifier)):
        assert {word for word in words_of_patient(*told, None) if word != "name ann"} <= found


@pytest.mark.parametrize(
    ("names", "text", "is_found"),
    [
        (["Yamada^Tarou", "山田^太郎", "やまだ^たろう"], "検査 山田太郎", True),
        (["Yamada^Tarou", "山田^太郎"], "山田 様", True),
        (["ﾔﾏﾀﾞ^ﾀﾛｳ"], "ヤマダ", True),
        (["Hong^Gildong", "洪^吉洞", "홍^길동"], "홍길동", True),
        (["Yamada^Tarou", "山田^太郎"], "胸部 造影", False),
    ],
)
def test_names_in_characters_that_stand_for_syllables_are_found(names, text, is_found):
    assert bool(set(words_of_patient(names, None, None)) & set(words_of_text(text))) == is_found


def test_dates_are_found_as_people_write_them():
    born = set(words_of_text("1961-04-12 12/04/1961 19610412"))
    assert {"date 19610412"} <= born
    assert "date 19611304" not in set(words_of_text("19611304"))


def test_the_table_of_the_profile_has_the_rows_of_its_edition():
    rows = profile()
    assert len(rows.attributes) + sum(map(len, rows.repeating.values())) == 655
    assert rows.attributes["00100010"].action == "Z"
    assert rows.attribute("60023000") is not None
    assert rows.attribute("00080008") is None
