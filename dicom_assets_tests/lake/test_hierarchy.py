"""What a series or study says is what one of its objects has said, and its modalities are those of all of them."""

from __future__ import annotations

from datetime import date
from typing import Any

import duckdb
import pytest

from dicom_assets.batch.verification.verify import verify
from dicom_assets.lake.hierarchy import gone_sql, rebuild_sql
from dicom_assets.lake.subjects import subjects
from dicom_assets.schema.attributes import TOLD_WITH
from dicom_assets.schema.registry import SERIES, STUDY
from dicom_assets_tests.fhir.rows import instance, instances
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.steps import step_through
from dicom_assets_tests.support.versions import Version, flat_rows

DAY, NEXT = date(2024, 1, 31), date(2024, 2, 1)
NOTHING = dict.fromkeys({*TOLD_WITH, *TOLD_WITH.values()})


def made(*objects: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of series and study of one series with these objects, the oldest first."""
    rows = [
        instance(1, 1, number, object_id=f"o{number}", sequence=number, size=1) | NOTHING | columns
        for number, columns in enumerate(objects)
    ]
    with duckdb.connect() as connection:
        connection.register("instance", instances(rows))
        connection.execute("CREATE TABLE touched AS SELECT 'key1' AS study_key")
        connection.execute(f"CREATE TABLE series AS {rebuild_sql('series')}")
        (series,) = connection.sql("FROM series").to_arrow_table().to_pylist()
        (study,) = connection.sql(rebuild_sql("study")).to_arrow_table().to_pylist()
    assert (list(series), list(study)) == (SERIES.schema.names, STUDY.schema.names)
    return series, study


def test_a_time_never_stands_beside_the_date_of_another_object():
    whole = {"StudyDate": DAY, "StudyTime": "10:00", "SeriesDate": DAY, "SeriesTime": "11:00"}
    series, study = made(whole, {"StudyDate": NEXT, "SeriesDate": NEXT})
    assert (study["StudyDate"], study["StudyTime"]) == (NEXT, None)
    assert (series["SeriesDate"], series["SeriesTime"]) == (NEXT, None)
    series, study = made(whole, {"StudyTime": "23:00", "SeriesTime": "23:00"})
    assert (study["StudyDate"], study["StudyTime"]) == (DAY, "10:00")
    assert (series["SeriesDate"], series["SeriesTime"]) == (DAY, "11:00")


def test_a_code_never_stands_in_the_scheme_of_another_object():
    old = {f"procedure_{part}": part for part in ("code", "scheme", "meaning")}
    _, study = made(old, {"procedure_code": "1"})
    assert [study[name] for name in old] == ["1", None, None]
    _, study = made(old, {"procedure_meaning": "CT"})
    assert [study[name] for name in old] == ["code", "scheme", "meaning"]
    _, study = made({}, {"procedure_meaning": "CT"})
    assert [study[name] for name in old] == [None, None, "CT"]


def test_a_name_is_not_put_together_from_two():
    _, study = made(
        {"PatientName": "A^B", "patient_family_name": "A", "patient_given_name": "B"},
        {"PatientName": "C", "patient_family_name": "C"},
    )
    assert (study["PatientName"], study["patient_family_name"], study["patient_given_name"]) == ("C", "C", None)


def test_modalities_are_those_of_all_instances_also_within_one_series():
    series, study = made({"Modality": "SR"}, {"Modality": "CT"}, {"Modality": None})
    assert (series["Modality"], study["ModalitiesInStudy"]) == ("CT", ["CT", "SR"])


@pytest.mark.slow
def test_the_rules_say_the_same(graph, landing):
    landing.put("a.dcm", dicom(1, 1, 1, StudyTime="100000", SeriesDate="20240131", SeriesTime="110000"))
    landing.put("b.dcm", dicom(1, 1, 2, StudyTime=None, SeriesDate="20240201", Modality="SR"), age_seconds=80_000)
    landing.put("c.dcm", dicom(2, 1, 1, StudyDate=None, StudyTime="100000", PatientName="^B"))
    landing.put("d.dcm", dicom(2, 1, 2, StudyTime="110000", PatientName="C^"), age_seconds=80_000)
    step_through(graph)
    assert verify(graph.lake, graph.settings).holds
    found = graph.rows("SELECT StudyDate, StudyTime, patient_given_name AS given FROM study ORDER BY StudyInstanceUID")
    assert [tuple(row.values()) for row in found] == [(DAY, None, "Patient 1"), (DAY, "11:00:00", None)]


def gone(*patients: tuple[int, str | None]) -> tuple[Any, ...]:
    """What is left of a study whose instances were deleted: versions of instances by number, and whom they name."""
    told = [Version(1, 1, one, minute, 0, False, None, name, minute) for minute, (one, name) in enumerate(patients)]
    ends = [Version(1, 1, one, 50, 0, True, None, None, 100 + one) for one in {one for one, _ in patients}]
    with duckdb.connect() as connection:
        connection.register("flat_metadata", flat_rows([*told, *ends]))
        connection.execute("CREATE TABLE gone AS SELECT DISTINCT study_key FROM flat_metadata")
        (row,) = connection.sql(f"FROM {subjects(f'({gone_sql()})')}").to_arrow_table().to_pylist()
    assert list(row) == [*STUDY.schema.names, "source_file", "subject_state"]
    assert (row["series_count"], row["instance_count"], row["ModalitiesInStudy"]) == (0, 0, ["CT"])
    return row["subject_state"], row["PatientID"]


def test_a_study_without_instances_is_of_whom_all_that_it_had_said():
    assert gone((1, "P1"), (2, None)) == ("identified", "P1")
    assert gone((1, None), (2, "P1"), (3, "")) == ("identified", "P1")
    assert gone((1, "P1"), (2, "P2")) == ("conflict", None)
    assert gone((1, "P2"), (1, "P1"), (2, None)) == ("identified", "P1")  # it was corrected before it went
    assert gone((1, None)) == ("missing", None)
