"""Texts in any encoding: Unicode in all its forms, and older ones where it is certain, never other letters."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.clinical import encodings, framing
from dicom_assets.clinical.alphabets import encoding_of
from dicom_assets.clinical.encodings import unicode_of
from dicom_assets.clinical.framing import holds_fhir
from dicom_assets.clinical.records import read_records
from dicom_assets.clinical.tabular import ClinicalUnreadable, read_table
from dicom_assets.landing.recognition import look_closer
from dicom_assets.landing.sniff import Form, Sniffed, kind_of
from dicom_assets.schema.codes import Kind
from dicom_assets.settings import ClinicalSettings, FhirSettings
from dicom_assets.storage.byte_ranges import BytesSource

UNICODE = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
REPORT = {
    "resourceType": "DiagnosticReport",
    "id": "r1",
    "status": "final",
    "code": {"text": "胸部 CT"},
    "presentedForm": [{"contentType": "application/pdf", "data": "A" * 6_000}],
}


def recognised(data: bytes) -> Sniffed:
    found = kind_of(data[:4_096], len(data))
    return look_closer(found, BytesSource(data), ("a",), ClinicalSettings())


def values(data: bytes, **given_settings: str) -> list[dict[str, str | None]]:
    parts = read_table(BytesSource(data), ClinicalSettings(**given_settings))  # type: ignore[arg-type]
    return [json.loads(text) for part in parts for text in part.records["record_values"].to_pylist()]


def resources(data: bytes) -> list[str]:
    """Ids of the resources of a file, or what is wrong."""
    parts = list(read_records(BytesSource(data), ClinicalSettings(), FhirSettings()))
    return [
        *(one for part in parts for one in part.records["resource_id"].to_pylist()),
        *(error.detail for part in parts for error in part.errors),
    ]


@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize(
    "write",
    [
        lambda: json.dumps(REPORT, sort_keys=True) + "\r\n" + json.dumps({**REPORT, "id": "r2"}, sort_keys=True),
        lambda: json.dumps([REPORT, {**REPORT, "id": "r2"}], sort_keys=True, indent=2, ensure_ascii=False),
        lambda: json.dumps(
            {"entry": [{"resource": REPORT}, {"resource": {**REPORT, "id": "r2"}}], "resourceType": "Bundle"},
            sort_keys=True,
        ),
    ],
    ids=["lines", "array", "Bundle"],
)
def test_fhir_is_found_and_read_in_any_order_and_any_unicode_encoding(write: Callable[[], str], encoding: str) -> None:
    data = write().encode(encoding)
    assert recognised(data).form is Form.FHIR
    assert resources(data) == ["r1", "r2"]


def test_a_resource_type_behind_megabytes_is_found_and_one_that_is_none_is_not() -> None:
    late = json.dumps({"data": "A" * 3_000_000, "id": "b", "resourceType": "Binary"}).encode()
    assert recognised(late).form is Form.FHIR
    assert recognised(late.replace(b"resourceType", b"resourceTypes")).code == "NOT_DICOM"


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 300])
def test_where_a_piece_ends_makes_no_difference(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "_PIECE", piece)
    text = json.dumps({"contentType": "é胸" * 40, "id": "b", "resourceType": "Binary"}, ensure_ascii=False)
    for encoding in ("utf-8", "utf-16", "utf-32-be"):
        assert holds_fhir(BytesSource(text.encode(encoding)))
        assert resources(text.encode(encoding)) == ["b"]
    table = "PatientID;Имя\nP1;Müller 胸部\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16-le", "utf-32"):
        assert values(table.encode(encoding)) == [{"PatientID": "P1", "Имя": "Müller 胸部"}]
    assert values("PatientID;Диагноз\nP14;аппендицит\n".encode("cp1251")) == [
        {"PatientID": "P14", "Диагноз": "аппендицит"}
    ]


def test_a_character_that_is_cut_or_lost_costs_its_line() -> None:
    good, lost = '{"resourceType":"Patient","id":"p"}\n', '{"resourceType":"Patient","id":"\ud800"}\n'
    data = (good + lost + good).encode("utf-16-le", "surrogatepass")
    assert resources(data) == ["p", "p", "not valid JSON"]
    assert resources((good + good).encode("utf-16") + b"{") == ["p", "p", "not valid JSON"]


def test_a_long_file_in_utf16_is_read_from_a_copy_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "_IN_MEMORY", 100)
    monkeypatch.setattr(framing, "LINE", 2_000)
    assert resources("".join(json.dumps({**REPORT, "id": f"r{n}"}) + "\n" for n in range(3)).encode("utf-16")) == [
        "r0", "r1", "r2",
    ]  # fmt: skip


WRITTEN = {
    "Russian": ("Диагноз;аппендицит;хронический", ("cp1251", "koi8_r", "cp866")),
    "Ukrainian": ("Прізвище;Шевченко;Ємельяненко", ("cp1251", "koi8_u")),
    "Greek": ("Διάγνωση;σκωληκοειδίτιδα", ("cp1253", "iso8859_7")),
    "German": ("Größe;Müller;Ärztin", ("cp1252", "latin-1", "cp850", "mac_roman")),
    "French": ("fièvre élevée;opération;à l'hôpital;Prénom;François;tête;très", ("cp1252", "latin-1")),
    "Spanish": ("Muñoz;Señor;García;corazón", ("cp1252",)),
    "Czech": ("Příjmení;Novák;Dvořák;žádná;léčba;třída", ("cp1250",)),
    "Polish": ("Łódź;Gdańsk;Żółć;Imię", ("cp1250",)),
    "Hungarian": ("Szabó;idő;Győr;kórház;műtét;főnök;szülő", ("cp1250",)),
    "Turkish": ("Ayşe;Işık Doğan;göğüs;ağrı;şişlik;öykü;değil;kırık", ("cp1254",)),
    "Lithuanian": ("Žemaitė;Jonušas;ligonė;šių", ("cp1257",)),
    "Hebrew": ("אבחנה;דלקת;תוספתן;חולה;רופא", ("cp1255",)),
    "Arabic": ("تشخيص;التهاب الزائدة", ("cp1256",)),
    "Thai": ("วินิจฉัย;ไส้ติ่งอักเสบ;โรงพยาบาล", ("cp874",)),
    "Japanese": ("カルテ;ひだり;診断;虫垂炎;の疑い", ("shift_jis", "euc_jp")),
    "Chinese": ("诊断;阑尾炎;胸部;上呼吸道感染;患者姓名;王小明", ("gb18030", "gbk")),
    "Chinese, traditional": ("診斷;闌尾炎;患者姓名;胸部", ("big5",)),
    "Korean": ("진단;맹장염;환자 이름;김철수;병원;가슴 통증", ("euc_kr",)),
}
PAIRS = [(name, text, encoding) for name, (text, every) in WRITTEN.items() for encoding in every]


@pytest.mark.parametrize(("text", "encoding"), [one[1:] for one in PAIRS], ids=[f"{n} {e}" for n, _, e in PAIRS])
def test_a_text_is_read_as_it_was_written_or_asked_about(text: str, encoding: str) -> None:
    data = ("PatientID;Text\n" + "".join(f"P1;{word}\n" for word in text.split(";"))).encode(encoding)
    assert recognised(data).kind is Kind.CLINICAL
    try:
        found = values(data)
    except ClinicalUnreadable as error:
        assert encoding not in ("cp1251", "gb18030", "shift_jis")
        assert "clinical.encoding" in error.detail
    else:
        assert [row["Text"] for row in found] == text.split(";")
    assert [row["Text"] for row in values(data, encoding=encoding)] == text.split(";")


@pytest.mark.parametrize("name", ["cp1251", "koi8_r", "cp1253", "cp1250", "cp1252", "shift_jis", "gb18030", "cp1256"])
def test_no_choice_of_words_is_read_in_other_letters(name: str) -> None:
    words = [word for text, every in WRITTEN.values() if name in every for word in text.split(";")]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.sampled_from(words), min_size=1, max_size=6))
    def holds(some: list[str]) -> None:
        sample = ";".join(["PatientID", *some]).encode(name)
        found = encoding_of(sample)
        assert found is None or sample.decode(found) == sample.decode(name)

    holds()


def test_far_behind_the_beginning_it_is_told_as_well() -> None:
    data = b"PatientID,a\n" + b"1,x\n" * 100_000 + "2,аппендицит\n3,Диагноз\n".encode("cp1251")
    assert [row["a"] for row in values(data)[-2:]] == ["аппендицит", "Диагноз"]


def test_what_is_not_certain_is_refused_with_the_name_of_the_setting() -> None:
    data = "PatientID,a\n1,Marković\n".encode("cp1250")
    with pytest.raises(ClinicalUnreadable, match=r"clinical\.encoding"):
        values(data)
    assert values(data, encoding="cp1250") == [{"PatientID": "1", "a": "Marković"}]


def test_a_byte_order_mark_counts_before_what_is_set() -> None:
    assert values("PatientID,a\n1,é\n".encode("utf-8-sig"), encoding="cp1252")[0]["a"] == "é"
    assert values("PatientID,a\n1,é\n".encode("utf-16"), encoding="cp1252")[0]["a"] == "é"


@given(st.binary(max_size=300))
def test_any_bytes_have_one_unicode_encoding_which_is_a_codec(data: bytes) -> None:
    "".encode(unicode_of(data))
