"""Rows of a level, never two of one UID, whatever the number of sources that hold it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dicom_assets.serve.newest import newest
from dicom_assets.serve.served import Scope, ServedLake
from dicom_assets_tests.support.dicoms import uid


def rows(
    served: ServedLake, level: str, uids: Mapping[str, Any] | None = None, scope: Scope | None = None
) -> list[dict[str, Any]]:
    """What `newest` gives, in the order of UIDs."""
    snapshot = served.snapshot().within(scope or Scope())
    found = newest(snapshot, level, uids)
    with snapshot.cursor() as connection:
        path = [c for c in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID") if level != "study"]
        order = ", ".join(path[: {"series": 2, "instance": 3}.get(level, 0)] or ["StudyInstanceUID"])
        sql = f"SELECT * FROM {found.sql} ORDER BY {order}"
        return list(connection.sql(sql, params=found.parameters).to_arrow_table().to_pylist())


def test_a_study_of_two_sources_stands_once_as_its_newest_row_says_it(served: ServedLake):
    assert [one["StudyInstanceUID"] for one in rows(served, "study")] == [uid(1), uid(2), uid(3)]
    study = rows(served, "study", {"study": uid(1)})[0]
    assert (study["source"], study["PatientName"]) == ("landing2", "New^Name")


@pytest.mark.parametrize("uids", [None, {"study": uid(1)}, {"study": [uid(1), uid(3)]}])
def test_its_counts_and_modalities_are_those_of_the_union_of_its_instances(served: ServedLake, uids: Any):
    study = rows(served, "study", uids)[0]
    assert (study["series_count"], study["instance_count"]) == (2, 3)
    assert study["ModalitiesInStudy"] == ["CT", "SR"]
    assert [one["instance_count"] for one in rows(served, "series", uids)][:2] == [2, 1]


def test_an_instance_of_two_sources_is_the_newer_version(served: ServedLake):
    found = rows(served, "instance", {"study": uid(1)})
    assert [one["SOPInstanceUID"] for one in found] == [uid(1, 1, 1), uid(1, 1, 2), uid(1, 2, 1)]
    assert [(one["source"], one["Rows"]) for one in found] == [("landing", None), ("landing2", 7), ("landing2", None)]


def test_within_one_source_there_is_that_sources_row(served: ServedLake):
    first = Scope(("landing",))
    study = rows(served, "study", {"study": uid(1)}, first)[0]
    assert (study["PatientName"], study["instance_count"], study["series_count"]) == ("Old^Name", 2, 1)
    one = rows(served, "instance", {"study": uid(1), "series": uid(1, 1), "instance": uid(1, 1, 2)}, first)
    assert [(row["source"], row["Rows"]) for row in one] == [("landing", None)]
    assert rows(served, "study", {"study": uid(3)}, first) == []


def test_what_a_condition_leaves_out_stands_for_nothing(served: ServedLake):
    hidden = Scope(condition="PatientName <> 'New^Name'")
    assert [one["source"] for one in rows(served, "study", {"study": uid(1)}, hidden)] == ["landing"]
    assert [one["source"] for one in rows(served, "instance", {"study": uid(1)}, hidden)] == ["landing", "landing"]
    assert rows(served, "study", {"study": uid(1)}, hidden)[0]["instance_count"] == 2


def test_a_uid_is_a_value_and_no_sql(served: ServedLake):
    assert rows(served, "study", {"study": "' OR true --"}) == []
    assert rows(served, "instance", {"study": uid(1), "instance": ["'", "x"]}) == []
