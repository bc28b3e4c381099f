"""One row for each series, in the extension's types, with how it was made beside it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dicom_assets.omop import concepts, image_occurrence
from dicom_assets.omop.image_occurrence import Context, local_path
from dicom_assets.omop.integers import allocate
from dicom_assets.omop.maps import IdMaps, load_maps
from dicom_assets.schema.registry import IMAGE_OCCURRENCE
from dicom_assets_tests.fhir.rows import series

Pair = tuple[dict[str, Any], dict[str, Any]]

UNSET = (
    "StudyDate",
    "PerformedProcedureStepStartDate",
    "BodyPartExamined",
    "Laterality",
    "IssuerOfPatientID",
    "AcquisitionDate",
    "ContentDate",
    "anatomic_region_code",
    "anatomic_region_scheme",
)


def row(study_number: int = 1, number: int = 1, **columns: Any) -> dict[str, Any]:
    empty = dict.fromkeys(UNSET)
    return {**empty, "subject_state": "identified", "uris": ["/x/a.dcm"], **series(study_number, number), **columns}


def make(*rows: dict[str, Any], maps: IdMaps | None = None, base: str | None = None) -> list[Pair]:
    context = Context(concepts.load(), maps or IdMaps(), base)
    given = allocate(image_occurrence.wanted(rows, context.maps), {}, {}, "b").to_pylist()
    ids = {(one["domain"], one["natural_key"]): one["id"] for one in given}
    occurrences, origins = image_occurrence.rows(rows, ids, context)
    assert occurrences.schema == IMAGE_OCCURRENCE.schema
    return list(zip(occurrences.to_pylist(), origins.to_pylist(), strict=True))


def test_a_series_becomes_the_row_of_the_extension():
    anatomy = {"BodyPartExamined": "LUNG", "Laterality": "L"}
    ((occurrence, origin),) = make(row(**anatomy), base="https://pacs.example/dicom-web/")
    assert occurrence == {
        "image_occurrence_id": 1,
        "person_id": -1,
        "procedure_occurrence_id": -1,
        "visit_occurrence_id": -1,
        "anatomic_site_concept_id": 4195613,
        "wadors_uri": "https://pacs.example/dicom-web/studies/1.2.1/series/1.2.1.1",
        "local_path": "/x",
        "image_occurrence_date": date(2024, 1, 31),
        "image_study_UID": "1.2.1",
        "image_series_UID": "1.2.1.1",
        "modality_concept_id": 2128009190,
    }
    assert (origin["person_from"], origin["procedure_from"], origin["visit_from"]) == ("surrogate",) * 3
    assert (origin["laterality_concept_id"], origin["date_from"]) == (4300877, "SeriesDate")


def test_columns_are_those_of_the_extension_in_its_order():
    assert (
        [column for column, _, _ in image_occurrence.MAPPING]
        == [
            "image_occurrence_id",
            "person_id",
            "procedure_occurrence_id",
            "visit_occurrence_id",
            "anatomic_site_concept_id",
            "wadors_uri",
            "local_path",
            "image_occurrence_date",
            "image_study_UID",
            "image_series_UID",
            "modality_concept_id",
        ]
        == IMAGE_OCCURRENCE.schema.names
    )


def test_series_of_one_order_share_person_procedure_and_visit():
    pairs = make(row(1, 1), row(1, 2), row(2, 1))
    assert [o["image_occurrence_id"] for o, _ in pairs] == [1, 2, 3]
    assert [o["person_id"] for o, _ in pairs] == [-1, -1, -2]
    assert [o["procedure_occurrence_id"] for o, _ in pairs] == [-1, -1, -2]


def test_mapped_ids_take_the_place_of_surrogates(tmp_path: Path):
    person, order = tmp_path / "p.csv", tmp_path / "o.csv"
    person.write_text("PatientID,person_id\nP1,501\n")
    order.write_text("AccessionNumber,procedure_occurrence_id,visit_occurrence_id\nA1,601,701\n")
    maps = load_maps(str(person), str(order), str(order))
    first, second = make(row(1), row(2), maps=maps)
    assert [first[0][name] for name in ("person_id", "procedure_occurrence_id", "visit_occurrence_id")] == [
        501,
        601,
        701,
    ]
    assert (first[1]["person_from"], second[1]["person_from"]) == ("mapping", "surrogate")
    assert second[0]["person_id"] < 0


def test_nobody_is_mapped_to_a_study_with_several_patients(tmp_path: Path):
    person = tmp_path / "p.csv"
    person.write_text("PatientID,person_id\nP1,501\n")
    ((occurrence, origin),) = make(
        row(PatientID=None, subject_state="conflict"), maps=load_maps(str(person), None, None)
    )
    assert occurrence["person_id"] < 0
    assert origin["person_from"] == "conflict"


@pytest.mark.parametrize("empty", [None, "", " "])
def test_studies_without_a_patient_are_never_one_person(empty: str | None):
    pairs = make(row(1, PatientID=empty), row(2, PatientID=empty))
    assert len({occurrence["person_id"] for occurrence, _ in pairs}) == 2
    assert [origin["person_from"] for _, origin in pairs] == ["missing", "missing"]


@pytest.mark.parametrize(
    ("columns", "day", "came_from"),
    [
        ({}, date(2024, 1, 31), "SeriesDate"),
        ({"SeriesDate": None, "StudyDate": date(2024, 1, 1)}, date(2024, 1, 1), "StudyDate"),
        ({"SeriesDate": None, "ContentDate": date(2024, 1, 2)}, date(2024, 1, 2), "ContentDate"),
        ({"SeriesDate": None}, date(1970, 1, 1), "unknown"),
    ],
)
def test_the_date_is_the_best_there_is_and_says_which(columns: dict[str, Any], day: date, came_from: str):
    ((occurrence, origin),) = make(row(**columns))
    assert (occurrence["image_occurrence_date"], origin["date_from"]) == (day, came_from)


def test_what_is_not_mapped_is_zero_and_kept_as_written():
    ((occurrence, origin),) = make(row(Modality="XYZ", BodyPartExamined="BIG TOE", Laterality="B"))
    assert (occurrence["modality_concept_id"], occurrence["anatomic_site_concept_id"]) == (0, 0)
    assert (origin["modality"], origin["anatomic_site"], origin["laterality_concept_id"]) == ("XYZ", "BIG TOE", 0)


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        (["/a/b/1.dcm", "/a/b/2.dcm"], "/a/b"),
        (["/a/b/1.dcm", "/a/c/2.dcm"], "/a"),
        (["file:///a%20b/1.dcm"], "/a b"),
        (["/a/1.dcm", "az://container/2.dcm"], None),
        (["/1.dcm"], None),
        ([], None),
    ],
)
def test_the_local_path_is_a_folder_that_holds_the_whole_series(uris: list[str], expected: str | None):
    assert local_path(uris) == expected


def test_the_printed_mapping_has_a_line_for_each_column():
    assert image_occurrence.table().count("\n| `") == len(IMAGE_OCCURRENCE.columns)
