"""Whose a study is: what is missing does not contradict, and what contradicts makes it nobody's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dicom_assets.fhir import conversions as values
from dicom_assets.lake.hierarchy import rebuild_sql
from dicom_assets.lake.subjects import STUDY_CLINICAL, clean, subjects
from dicom_assets.schema.registry import PATIENT_LINK, STUDY
from dicom_assets_tests.fhir.rows import instance, instances

SUBJECT = ("subject_state", "PatientID", "IssuerOfPatientID", "patient_count")
Named = tuple[str | None, str | None]
TEXTS = st.one_of(
    st.none(),
    st.text(alphabet=" \t\n\r\x01\x0b\x1c\x7f\x85\xa0\u2003\u3000\u200bA1é", max_size=6),
)
NAMED = st.tuples(st.sampled_from([None, "", " ", "A", " A ", "B"]), st.sampled_from([None, "\x01", "X", "X ", "Y"]))


def studies_of(studies: Sequence[Sequence[Named]]) -> list[dict[str, Any]]:
    """Rows of study with their subject, of studies with these objects, each object in a series of its own."""
    rows = [
        instance(
            study, number, 1, object_id=f"o{number}", sequence=number, PatientID=id, IssuerOfPatientID=issuer, size=1
        )
        for study, objects in enumerate(studies, 100)
        for number, (id, issuer) in enumerate(objects)
    ]
    with duckdb.connect() as connection:
        connection.register("instance", instances(rows))
        connection.execute("CREATE TABLE touched AS SELECT DISTINCT study_key FROM instance")
        connection.execute(f"CREATE TABLE series AS {rebuild_sql('series')}")
        connection.execute(f"CREATE TABLE study AS {rebuild_sql('study')}")
        assert connection.sql("FROM study").columns == STUDY.schema.names
        return connection.sql(f"FROM {subjects()} ORDER BY study_key").to_arrow_table().to_pylist()


def decided(objects: Sequence[Named]) -> tuple[str, str | None, str | None]:
    """The same in plain words."""
    cleaned = [(values.text(id), values.text(issuer)) for id, issuer in objects]
    ids, issuers = ({*column} - {None} for column in zip(*cleaned, strict=True))
    if not ids:
        return "missing", None, None
    if len(ids) > 1 or len(issuers) > 1:
        return "conflict", None, None
    return "identified", ids.pop(), issuers.pop() if issuers else None


@settings(max_examples=3, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(st.lists(NAMED, min_size=1, max_size=4), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_whose_a_study_is_follows_from_all_its_objects_in_any_order(studies, chance):
    found = studies_of(studies)
    again = studies_of([chance.sample(objects, len(objects)) for objects in studies])
    for objects, row, other in zip(studies, found, again, strict=True):
        state, patient, issuer = decided(objects)
        assert (row["subject_state"], row["PatientID"], row["IssuerOfPatientID"]) == (state, patient, issuer)
        assert (row["patient_count"] > 1) == (state == "conflict")
        assert (row["patient_count"] == 0) == (state == "missing")
        assert [other[name] for name in SUBJECT] == [row[name] for name in SUBJECT]


def test_patients_are_counted_and_what_is_missing_is_none():
    counts: list[tuple[list[Named], int]] = [
        ([(None, None)], 0),
        ([(None, "X")], 0),
        ([("A", None), (None, None)], 1),
        ([("A", None), ("A", "X"), (None, "X")], 1),
        ([("A", None), ("B", None)], 2),
        ([("A", "X"), ("A", "Y")], 2),
        ([("A", "X"), (None, "Y")], 2),
        ([("A", "X"), ("A", "Y"), ("A", None), ("B", None), (" B", "")], 3),
    ]
    found = studies_of([objects for objects, _ in counts])
    assert [row["patient_count"] for row in found] == [count for _, count in counts]


@settings(max_examples=20, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=30))
def test_a_text_is_cleaned_as_it_is_for_fhir(texts):
    with duckdb.connect() as connection:
        connection.register("texts", pa.table({"number": range(len(texts)), "written": pa.array(texts, pa.string())}))
        found = connection.execute(f"SELECT {clean('written')} FROM texts ORDER BY number").fetchall()
    assert [value for (value,) in found] == [values.text(value) for value in texts]


def joined(studies: Sequence[Named], records: Sequence[Named]) -> set[tuple[int, int]]:
    """Which study meets which record in the view, by their numbers."""
    with duckdb.connect() as connection:
        columns = ["PatientID", "IssuerOfPatientID"]
        rows = [
            {"number": n, **dict(zip(columns, one, strict=True)), "patient_count": int(values.text(one[0]) is not None)}
            for n, one in enumerate(studies)
        ]
        connection.register("imaged", pa.Table.from_pylist(rows))
        others = "source study_key StudyInstanceUID StudyDescription StudyDate ModalitiesInStudy instance_count"
        listed = ", ".join(f"NULL AS {name}" for name in others.split())
        connection.execute(
            "CREATE TABLE study AS SELECT PatientID::VARCHAR AS PatientID, "
            "IssuerOfPatientID::VARCHAR AS IssuerOfPatientID, "
            f"patient_count, number AS series_count, {listed} FROM imaged"
        )
        found = [dict(zip(["record", *columns], [n, *one], strict=True)) for n, one in enumerate(records)]
        connection.register("told", pa.Table.from_pylist(found))
        connection.execute(
            "CREATE TABLE clinical AS SELECT record, PatientID::VARCHAR AS PatientID, "
            "IssuerOfPatientID::VARCHAR AS IssuerOfPatientID, NULL AS record_type, NULL AS record_key, "
            "NULL AS record_values FROM told"
        )
        connection.register("patient_link", PATIENT_LINK.schema.empty_table())
        return {*connection.execute(f"SELECT series_count, record FROM ({STUDY_CLINICAL})").fetchall()}


@settings(max_examples=15, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(NAMED, min_size=1, max_size=3), st.lists(NAMED, min_size=1, max_size=3))
def test_a_record_meets_the_studies_that_it_does_not_contradict_while_that_is_clear(studies, records):
    def clean(one: Named) -> Named:
        return values.text(one[0]), values.text(one[1])

    known: dict[str | None, set[str]] = {}
    for id, issuer in map(clean, [*studies, *records]):
        known.setdefault(id, set()).update({issuer} - {None})
    expected = {
        (s, r)
        for s, (id, issuer) in enumerate(map(clean, studies))
        for r, (other, own) in enumerate(map(clean, records))
        if id is not None and id == other and (issuer == own or (None in (issuer, own) and len(known[id]) == 1))
    }
    assert joined(studies, records) == expected
