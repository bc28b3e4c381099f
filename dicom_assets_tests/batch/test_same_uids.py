"""Objects of different content that claim one SOP Instance UID: told, whichever comes first, and nothing else is."""

from __future__ import annotations

import pytest
from deltalake import DeltaTable

from dicom_assets.batch import context
from dicom_assets.batch.checks.contract import SHOWN
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.verification.verify import verify
from dicom_assets.lake.staging import Part
from dicom_assets.schema.codes import CODES
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.landings import zipped
from dicom_assets_tests.support.steps import failures, publish, step_through

CODE = "SOP_INSTANCE_CONFLICT"


@pytest.fixture
def told(graph):
    """Ingests; the files and members that the batch's errors name with the code, by their last letters."""

    def ingest(*, judges: bool = False) -> list[str]:
        (batch,) = step_through(graph, judges=judges)
        rows = graph.rows(
            f"SELECT severity, coalesce(member, uri) AS place FROM ingestion_errors "
            f"WHERE batch_id = '{batch}' AND code = '{CODE}'"
        )
        assert {row["severity"] for row in rows} <= {"warning"}
        return sorted(row["place"].rsplit("/", 1)[-1] for row in rows)

    return ingest


@pytest.mark.slow
def test_what_claims_one_uid_with_different_headers_is_told_and_nothing_else(graph, landing, told):
    assert str(CODES[CODE].severity) == "warning"
    landing.put("a.dcm", dicom(1, 1, 1, InstanceNumber=1))
    landing.put("b.dcm", dicom(1, 1, 1, InstanceNumber=2))
    landing.put("copy/b.dcm", dicom(1, 1, 1, InstanceNumber=2))
    landing.put("other-series.dcm", dicom(2, 1, 1))
    landing.put("other-series-2.dcm", dicom(2, 2, 1, SOPInstanceUID=uid(2, 1, 1)))
    landing.put("other-study.dcm", dicom(3, 1, 1))
    landing.put("other-study-2.dcm", dicom(4, 1, 1, SOPInstanceUID=uid(3, 1, 1)))
    landing.put("zip/one.zip", zipped({"m1.dcm": dicom(5, 1, 1, InstanceNumber=1), "n.dcm": dicom(5, 1, 2)}))
    landing.put("zip/two.zip", zipped({"m2.dcm": dicom(5, 1, 1, InstanceNumber=2), "n.dcm": dicom(5, 1, 2)}))
    landing.put("same.dcm", dicom(6, 1, 1))
    landing.put("same-2.dcm", dicom(6, 1, 1))
    landing.put("first.dcm", dicom(7, 1, 1, InstanceNumber=1))
    landing.put("edited.dcm", dicom(8, 1, 1, InstanceNumber=1))
    assert told(judges=True) == [
        "a.dcm", "b.dcm", "b.dcm", "m1.dcm", "m2.dcm", "other-series-2.dcm", "other-series.dcm", "other-study-2.dcm",
        "other-study.dcm",
    ]  # fmt: skip
    assert len(graph.rows("SELECT 1 FROM flat_metadata")) == 15

    landing.put("second.dcm", dicom(7, 1, 1, InstanceNumber=2))
    landing.put("edited.dcm", dicom(8, 1, 1, InstanceNumber=20))
    before = graph.rows("SELECT * FROM ingestion_errors ORDER BY ALL")
    assert told(judges=True) == ["second.dcm"]
    after = graph.rows("SELECT * FROM ingestion_errors ORDER BY ALL")
    assert [row for row in after if row["uri"] is None or not row["uri"].endswith("second.dcm")] == before


@pytest.mark.slow
def test_of_many_that_are_not_told_all_are_counted_and_the_first_are_named(graph, landing, monkeypatch):
    for number in range(1, 14):
        for content in (1, 2):
            landing.put(f"{number}-{content}.dcm", dicom(1, 1, number, InstanceNumber=content))
    monkeypatch.setattr(context, "stage_same_uids", lambda lake, staging, run_id: 0)
    with RunContext(graph.settings, shared_engine=InlineEngine()) as work:
        (batch,) = graph.claim(work)
        found = failures(work.batch(batch))["ingestion_errors.same_uids_are_told"]
    names = sorted(row["object_id"] for row in graph.rows("SELECT object_id FROM raw_files"))
    assert (found.expected, found.actual, found.differing) == (26, 0, names[:SHOWN])


@pytest.mark.slow
def test_a_warning_that_is_lost_is_named_by_verify(graph, landing, told):
    landing.put("a.dcm", dicom(1, 1, 1, InstanceNumber=1))
    landing.put("b.dcm", dicom(1, 1, 1, InstanceNumber=2))
    assert told() == ["a.dcm", "b.dcm"]
    assert verify(graph.lake, graph.settings).holds
    DeltaTable(graph.lake.location("ingestion_errors")).delete("true")
    found = [one for one in verify(graph.lake, graph.settings).findings if not one.holds]
    assert [one.rule for one in found] == ["sop_instances"]
    assert [*found[0].batches] == [row["batch_id"] for row in graph.rows("SELECT batch_id FROM batches")]


def test_the_same_data_set_behind_other_file_meta_information_is_one_object(landing, told):
    first, second = dicom(1), dicom(1)
    place = second.index(b"PYDICOM")
    landing.put("a.dcm", first)
    landing.put("b.dcm", second[:place] + b"ANOTHER" + second[place + 7 :])
    assert told() == []


@pytest.mark.slow
def test_bulk_values_and_where_they_lie_make_no_other_object(graph, landing, told):
    comment = {"ImageComments": "x" * 2_000}
    landing.put("a.dcm", dicom(1, EncapsulatedDocument=b"%PDF" * 50, **comment))
    landing.put("shorter.dcm", dicom(1, EncapsulatedDocument=b"%PDF" * 40, **comment))
    landing.put("inline.dcm", dicom(1, EncapsulatedDocument=b"%PDF", **comment))
    landing.put("without.dcm", dicom(1, **comment))
    assert told() == []
    landing.put("other.dcm", dicom(1, EncapsulatedDocument=b"%PDF", ImageComments="y" * 2_000))
    assert told() == ["other.dcm"]
    assert verify(graph.lake, graph.settings).holds


@pytest.mark.slow
def test_of_two_batches_that_run_at_the_same_time_the_one_that_commits_last_tells(graph, landing):
    landing.put("a.dcm", dicom(1, 1, 1, InstanceNumber=1))
    (first,) = graph.claim()
    landing.put("b.dcm", dicom(1, 1, 1, InstanceNumber=2))
    (second,) = graph.claim()
    with (
        RunContext(graph.settings, shared_engine=InlineEngine()) as one,
        RunContext(graph.settings, shared_engine=InlineEngine()) as two,
    ):
        batches = one.batch(first), two.batch(second)
        for batch in batches:
            batch.begin("run")
            batch.judge("run")
        told = []
        for batch in reversed(batches):
            batch.publish_flat()
            told.append([row["code"] for row in batch.staging.read_whole(Part.ERRORS).to_pylist()])
        assert told == [[], [CODE]]
        for batch in batches:
            publish(batch)
    assert verify(graph.lake, graph.settings).holds
