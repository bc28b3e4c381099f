"""Records counted by other means than they are read by: both agree, and where the other one cannot tell it says so."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.batch.checks.recount import Uncounted, count_records
from dicom_assets.batch.checks.reopening import bounded_file
from dicom_assets.clinical.records import read_records
from dicom_assets.settings import ClinicalSettings, FhirSettings
from dicom_assets.storage.byte_file import OutOfBounds
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.support.workbooks import workbook

PATIENT = {"resourceType": "Patient", "id": "p"}


def counted(data: bytes) -> int:
    return count_records(bounded_file(BytesSource(data), 1 << 30), ClinicalSettings().patient_id_columns)


def read(data: bytes) -> int:
    parts = read_records(BytesSource(data), ClinicalSettings(), FhirSettings())
    return sum(len(part.records) + len(part.errors) for part in parts)


def bundle(*resources: object) -> dict:
    return {"resourceType": "Bundle", "entry": [{"resource": one} for one in resources]}


def parquet(rows: int) -> bytes:
    sink = io.BytesIO()
    pd.DataFrame({"PatientID": ["P"] * rows, "value": range(rows)}).to_parquet(sink)
    return sink.getvalue()


FILES = {
    "table": b"PatientID;diagnosis\nP1;R91\nP2;\n",
    "no end of line": b"PatientID,diagnosis\r\nP1,R91\r\nP2,R92",
    "blank lines": b"PatientID,diagnosis\n\nP1,R91\n\n\nP2,R92\n\n",
    "short and long records": b"PatientID,a,b\nP1\nP1,1,2\nP1,1,2,3\nP1,1,2,\n",
    "quotes": b'PatientID,text\nP1,"one\ntwo, three"\nP2,"say ""hello"""\n',
    "Windows-1252": "PatientID;Name\nP1;Müller\n".encode("cp1252"),
    "byte order mark": b"\xef\xbb\xbfPatientID;a\nP1;1\n",
    "UTF-16": "PatientID;a\nP1;1\nP2;2\n".encode("utf-16"),
    "Parquet": parquet(3),
    "NDJSON": b'{"resourceType":"Patient","id":"a"}\n\nbroken\n{"resourceType":"Patient","id":"b"}',
    "Bundles in lines": "\n".join(json.dumps(bundle(PATIENT, PATIENT)) for _ in range(3)).encode(),
    "a resource": json.dumps(PATIENT, indent=2).encode(),
    "an array": json.dumps([PATIENT, bundle(PATIENT, bundle(PATIENT, PATIENT))]).encode(),
    "a Bundle": json.dumps(bundle(*[PATIENT] * 5_000, {}), indent=1).encode(),
    "its type comes last": json.dumps({"entry": bundle(PATIENT)["entry"], "resourceType": "Bundle"}).encode(),
    "an entry without a resource": json.dumps({"resourceType": "Bundle", "entry": [{"fullUrl": "urn:a"}]}).encode(),
    "an empty Bundle": json.dumps({"resourceType": "Bundle", "entry": []}).encode(),
    "a List, whose entries are no resources": json.dumps(
        {"resourceType": "List", "id": "l", "status": "current", "mode": "working", "entry": [{}, {}]}
    ).encode(),
}  # fmt: skip


@pytest.mark.parametrize("data", FILES.values(), ids=FILES.keys())
def test_both_count_the_same(data: bytes):
    assert counted(data) == read(data)


_FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cc", "Cs"]), max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(_FIELD.map(lambda text: text.replace('"', "")), min_size=1, max_size=4), max_size=20))
def test_both_count_the_same_of_any_table(rows: list[list[str]]):
    data = "PatientID;a;b\n" + "P1;1;2\n" * 20  # most records fit the header, so that it is one
    data += "".join(";".join(f'"{field};{field}x"' for field in row) + "\n" for row in rows)
    assert counted(data.encode()) == read(data.encode()) == 20 + len(rows)


ODD_FILES = {
    "a separator above": b"sep=;\r\nPatientID;Dx\r\nP1;a\r\nP2;b\r\n",
    "a comma too many in the header": b"PatientID,Dx,\r\nP1,a\r\nP2,b\r\n",
    "Windows-1251": "PatientID;Диагноз\nP1;аппендицит\n".encode("cp1251"),
    "NDJSON in UTF-16": (f"{json.dumps(PATIENT)}\r\n" * 2).encode("utf-16"),
    "a Bundle in UTF-32 without a mark": json.dumps(bundle(PATIENT, PATIENT)).encode("utf-32-be"),
    "NDJSON up to Ctrl-Z": (json.dumps(PATIENT) + "\n\x1a").encode(),
    "a workbook": workbook([["PatientID", "Dx"], ["P1", "a"], [], ["P2", 5]]),
}  # fmt: skip


@pytest.mark.parametrize("data", ODD_FILES.values(), ids=ODD_FILES.keys())
def test_both_count_the_same_of_what_programs_write_around_records(data: bytes):
    assert counted(data) == read(data) > 0


@pytest.mark.parametrize(
    "data",
    [
        "PatientID,Dx\r\nP1,a\r\n".encode("utf-32"),
        b"Laboratory export\r\nPatientID,Dx\r\nP1,a\r\n",
        b"Export, 2024\nPatientID,Dx,Value\nP1,a,1\nP2,b,2\n",
        b"Export;;\nPatientID;Dx;Value\nP1;a;1\n",
        b"Export; 2024\nPatientID,Dx,Value\nP1,a,1\nP2,b,2\n",
        b"PatientID,Dx\n---------,--\nP1,a\n",
        b"PatientID,Dx\nP1,a\n(1 rows affected)\n",
        b"PatientID,Dx\nP1,a\nPatientID,Dx\nP2,b\n",
        b"PatientID,Dx\nP1,a\n\x1a",
        b'PatientID,Dx\nP1, "a\nb"\n',
        workbook([["Export", "2024"], ["PatientID", "Dx"], ["P1", "a"]]),
        workbook([["Export"], ["PatientID", "Dx"], ["P1", "a"]]),
        workbook([["PatientID", "Dx"], ["P1", "a"], ["PatientID", "Dx"], ["P2", "b"]]),
        workbook([["PatientID", "Dx"], ["---------", "--"], ["P1", "a"]]),
        workbook([["PatientID", "Dx"], ["P1", "a"]], [["Legend", "x"]]),
    ],
)
def test_where_it_depends_on_what_is_looked_for_the_other_reader_stands_aside(data: bytes):
    assert read(data) > 0
    with pytest.raises(Uncounted):
        counted(data)


@pytest.mark.parametrize(
    "data",
    [b"PAR1 and more PAR1", b"PatientID\nP1\n", b"a,b;c\n", b'{"resourceType":"Bundle","entry":[{', b"a;b\n\0;1\n"],
    ids=["broken Parquet", "no delimiter", "two delimiters", "cut JSON", "binary"],
)  # fmt: skip
def test_what_the_other_reader_cannot_tell_is_not_counted(data: bytes):
    with pytest.raises(Uncounted):
        counted(data)


def test_no_more_of_an_object_is_read_than_it_may_cost():
    with pytest.raises(OutOfBounds):
        count_records(bounded_file(BytesSource(b"PatientID;a\n" + b"P1;1\n" * 100_000), 65_536), ("PatientID",))
