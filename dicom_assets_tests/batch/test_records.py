"""What is ingested is in a table: a clinical file of which no record is taken is called something else, with counts."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest

from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import Graph, settings_for

INVALID = {"resource": {"resourceType": "Observation", "id": "o"}}


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


def test_one_sound_record_is_enough_to_be_ingested(graph, landing):
    sound = {"resource": {"resourceType": "Patient", "id": "p"}}
    landing.put("bundle.json", bundle(INVALID, sound, INVALID))
    graph.ingest()
    assert ledger(graph) == [{"outcome": "ingested", "code": None, "kind": "clinical"}]


@pytest.mark.parametrize(
    ("name", "text"), [("table.parquet", empty_table()), ("bundle.json", bundle())], ids=["table", "Bundle"]
)
def test_a_file_without_a_record_is_ignored_and_says_so(graph, landing, name, text):
    landing.put(name, text)
    landing.put("a.dcm", dicom())
    (batch,) = graph.ingest()
    assert {"outcome": "ignored", "code": "NO_RECORDS", "kind": "clinical"} in ledger(graph)
    assert (graph.books(batch).status, graph.books(batch).ignored) == ("closed", 1)


def test_a_table_of_which_no_record_fits_its_pinned_types_is_quarantined(tmp_path, landing, instance):
    labs = {"name": "labs", "files": ["*.csv"], "patient_id_column": "PatientID"}
    graph = Graph(settings_for(tmp_path / "lake", landing.root, clinical={"datasets": [labs]}), instance)
    landing.put("a.csv", "PatientID;value\nP1;1\nP2;2\n")
    (first,) = graph.ingest()
    landing.put("b.csv", "PatientID;value\nP1;high\nP2;low\nP3\n")
    (second,) = graph.ingest()
    assert (graph.books(first).ingested, graph.books(second).quarantined) == (1, 1)
    assert graph.rows("SELECT code, detail FROM ingestion_errors WHERE stage = 'read'") == [
        {"code": "RECORDS_ALL_INVALID", "detail": "3 of 3 records are invalid"}
    ]
    assert graph.books(second).status == "closed"
