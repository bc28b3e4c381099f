"""What is ingested is in a table: a clinical file of which no record is taken is called something else, with counts."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest

from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped
from dicom_assets_tests.support.workbooks import workbook

pytestmark = pytest.mark.usefixtures("as_far_as_hierarchy")

INVALID = {"resource": {"resourceType": "Observation", "id": "o"}}


@pytest.fixture
def graph(stepped: Stepped) -> Stepped:
    """These tests are about what is in the tables."""
    return stepped


def bundle(*entries: dict) -> str:
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": list(entries)})


def empty_table() -> bytes:
    sink = io.BytesIO()
    pd.DataFrame({"PatientID": pd.Series([], dtype=str), "value": pd.Series([], dtype=int)}).to_parquet(sink)
    return sink.getvalue()


def ledger(graph: Graph) -> list[dict]:
    return graph.rows("SELECT outcome, code, kind FROM validated_batch")


def test_a_bundle_of_which_every_entry_is_invalid_is_quarantined_with_counts(graph, landing):
    landing.put("bundle.json", bundle(*[INVALID] * 4_000))
    (batch,) = graph.ingest()
    assert ledger(graph) == [{"outcome": "quarantined", "code": "RECORDS_ALL_INVALID", "kind": "clinical"}]
    assert graph.rows("SELECT severity, detail FROM ingestion_errors WHERE stage = 'read'") == [
        {"severity": "error", "detail": "4000 of 4000 records are invalid"}
    ]
    books = graph.books(batch)
    assert (books.status, books.ingested, books.quarantined) == ("closed", 0, 1)
    assert (books.clinical_records, books.clinical_rows) == (4_000, 0)


def several(graph: Stepped, landing: LandingFolder) -> str:
    """A bundle with one sound record, files without a record, and an object; their batch."""
    sound = {"resource": {"resourceType": "Patient", "id": "p"}}
    landing.put("sound.json", bundle(INVALID, sound, INVALID))
    landing.put("table.parquet", empty_table())
    landing.put("empty.json", bundle())
    landing.put("a.dcm", dicom())
    (batch,) = graph.ingest()
    return batch


def outcome_of(graph: Graph, name: str) -> dict:
    """What the ledger says of a file."""
    (row,) = graph.rows(
        "SELECT outcome, code, validated_batch.kind FROM validated_batch JOIN raw_files USING (object_id) "
        f"WHERE uri LIKE '%/{name}'"
    )
    return row


def test_one_sound_record_is_enough_to_be_ingested(states):
    graph, _, _ = states.begin(several)
    assert outcome_of(graph, "sound.json") == {"outcome": "ingested", "code": None, "kind": "clinical"}


@pytest.mark.parametrize("name", ["table.parquet", "empty.json"])
def test_a_file_without_a_record_is_ignored_and_says_so(states, name):
    graph, _, batch = states.begin(several)
    assert outcome_of(graph, name) == {"outcome": "ignored", "code": "NO_RECORDS", "kind": "clinical"}
    assert (graph.books(batch).status, graph.books(batch).ignored) == ("closed", 2)


@pytest.mark.slow
def test_a_table_of_which_no_record_fits_its_pinned_types_is_quarantined(tmp_path, landing, instance):
    labs = {"name": "labs", "files": ["*.csv"], "patient_id_column": "PatientID"}
    graph = Stepped(
        settings_for(tmp_path / "lake", landing.root, clinical={"datasets": [labs]}), instance, judges=False
    )
    landing.put("a.csv", "PatientID;value\nP1;1\nP2;2\n")
    (first,) = graph.ingest()
    landing.put("b.csv", "PatientID;value\nP1;high\nP2;low\nP3\n")
    (second,) = graph.ingest()
    assert (graph.books(first).ingested, graph.books(second).quarantined) == (1, 1)
    assert graph.rows("SELECT code, detail FROM ingestion_errors WHERE stage = 'read'") == [
        {"code": "RECORDS_ALL_INVALID", "detail": "3 of 3 records are invalid"}
    ]
    assert graph.books(second).status == "closed"


@pytest.mark.slow
def test_a_batch_of_tables_as_programs_write_them_closes_and_says_what_it_refused(tmp_path, landing, instance):
    labs = {"name": "labs", "files": ["labs/**"], "patient_id_column": "Pat No", "date_column": "taken"}
    gate = {"quarantined_share": 1}
    graph = Stepped(settings_for(tmp_path / "lake", landing.root, clinical={"datasets": [labs]}, gate=gate), instance)
    table = "PatientID;Dx\r\nP1;a\r\n"
    files: dict[str, str | bytes] = {
        "separator.csv": "sep=;\r\n" + table,
        "title.csv": "Laboratory export;\r\n;\r\n" + table,
        "utf32.csv": table.encode("utf-32"),
        "cyrillic.csv": "PatientID;Диагноз\r\nP14;аппендицит\r\n".encode("cp1251"),
        "sqlcmd.csv": "PatientID,Dx   \r\n---------,-----\r\nP24      ,a    \r\n\r\n(1 rows affected)\r\n",
        "again.csv": table + table + "\x1a",
        "wide.ndjson": '{"id":"p1","resourceType":"Patient"}\r\n'.encode("utf-16"),
        "late.ndjson": json.dumps({"contentType": "x/y", "data": "A" * 9_000, "id": "b", "resourceType": "Binary"}),
        "broken.ndjson": '{"resourceType": Patient"}\n{"resourceType": "Patient", "id": "p3"}\n',
        "labs/book": workbook([["Export"], ["Pat No", "taken"], ["P9", "5 Mar 2024"], ["P8", "some day"]]),
        "unsure.csv": "PatientID,a\n1,Marković\n".encode("cp1250"),
        "labs/order.csv": "Pat No,taken\nP1,03/04/2024\n",
        "labs/note.txt": "prose",
        "labs/a.pdf": "%PDF-1.4\n",
        "open.csv": 'PatientID,Dx\nP1,"a\n',
        "note.txt": "prose",
    }
    for name, data in files.items():
        landing.put(name, data)
    (batch,) = graph.ingest()
    books = graph.books(batch)
    assert (books.status, books.seen, books.ingested, books.quarantined, books.ignored) == ("closed", 16, 10, 5, 1)
    said = graph.rows("SELECT detail FROM ingestion_errors WHERE code = 'CLINICAL_UNREADABLE'")
    for word in ("clinical.encoding", "date_order", "No header", "It lies where", "line 2"):
        assert sum(word in row["detail"] for row in said) == 1, word
    patients = graph.rows("SELECT DISTINCT PatientID FROM clinical WHERE PatientID IS NOT NULL ORDER BY 1")
    assert [row["PatientID"] for row in patients] == ["P1", "P14", "P24", "P9"]
