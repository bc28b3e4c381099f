"""Which identifier, reference or coding counts, out of those that a resource gives."""

from __future__ import annotations

from typing import Any

import pytest

from dicom_assets.fhir.conversions import beginning, moment, person_name
from dicom_assets.fhir.identifiers import (
    IDENTIFIER_TYPE,
    Identified,
    accession_number,
    conditional_identifier,
    issuer_of,
    patient_identifier,
    relative_reference,
    study_uid,
    system_of,
)


def typed(code: str, value: str, **more: Any) -> dict[str, Any]:
    return {"type": {"coding": [{"system": IDENTIFIER_TYPE, "code": code}]}, "value": value, **more}


def test_the_patient_is_known_by_configured_system_then_record_number_then_official_use_then_the_first():
    first = {"system": "s1", "value": "1"}
    official = {"system": "s2", "value": "2", "use": "official"}
    record = typed("MR", "3", system="s3")
    all_three = [first, official, record]
    assert patient_identifier(all_three, ["s9", "s1"]) == Identified("1", "s1")
    assert patient_identifier(all_three) == Identified("3", "s3")
    assert patient_identifier([first, official]) == Identified("2", "s2")
    assert patient_identifier([first]) == Identified("1", "s1")


def test_identifiers_that_are_empty_or_no_longer_used_do_not_count():
    assert patient_identifier([typed("MR", "1", use="old"), typed("MR", " "), {"system": "s"}]) is None
    assert patient_identifier([]) is None
    assert patient_identifier([{"value": " 007 "}]) == Identified("007", None)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("Patient/p-1", ("Patient", "p-1")),
        ("https://fhir.example/r4/Patient/p-1", ("Patient", "p-1")),
        ("Patient/p-1/_history/3", ("Patient", "p-1")),
        ("urn:uuid:2f1c", None),
        ("#contained", None),
        ("Patient?identifier=s|1", None),
        ("", None),
        (None, None),
    ],
)
def test_literal_references_are_understood_with_and_without_base_and_version(reference: str | None, expected: Any):
    assert relative_reference(reference) == expected


def test_a_conditional_reference_names_an_identifier():
    assert conditional_identifier("Patient?identifier=http://x|007") == ("Patient", Identified("007", "http://x"))
    assert conditional_identifier("Patient?active=true&identifier=007") == ("Patient", Identified("007", None))
    assert conditional_identifier("Patient?identifier=http%3A%2F%2Fx%7C7") == ("Patient", Identified("7", "http://x"))
    assert conditional_identifier("Patient?identifier=x|") is None
    assert conditional_identifier("Patient/1") is None


def test_study_uids_are_told_from_other_identifiers():
    assert study_uid({"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}) == "1.2.3"
    assert study_uid({"system": "urn:dicom:uid", "value": "1.2.3"}) == "1.2.3"
    assert study_uid({"system": "urn:dicom:uid", "value": "urn:uuid:1"}) is None
    assert study_uid({"system": "http://other", "value": "1.2.3"}) is None


def test_accession_numbers_are_told_by_their_type():
    assert accession_number(typed("ACSN", "A1 ")) == "A1"
    assert accession_number(typed("MR", "A1")) is None
    assert accession_number({"value": "A1"}) is None


def test_issuer_and_system_translate_into_each_other():
    known = {"HOSP": "http://hosp/mrn"}
    for issuer, system in [("HOSP", "http://hosp/mrn"), ("1.2.840.5", "urn:oid:1.2.840.5"), ("http://x", "http://x")]:
        assert system_of(issuer, known) == system
        assert issuer_of(system, known) == issuer
    assert system_of("Ward 3", known) is None
    assert system_of(" ", known) is None
    assert issuer_of(None, known) is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2024-01-31T10:11:12.5+01:00", "2024-01-31 09:11:12.500000+00:00"),
        ("2024-01-31T10:11:12Z", "2024-01-31 10:11:12+00:00"),
        ("2024-01-31T10:11:12.123456789Z", "2024-01-31 10:11:12.123456+00:00"),
        ("2024-01-31", "None"),
        ("2024-01-31T10:11:12", "None"),
        ("2024-02-31T10:11:12Z", "None"),
        ("0001-01-01T00:00:00+14:00", "None"),
        (17, "None"),
    ],
)
def test_a_moment_needs_a_time_and_a_zone(written: Any, expected: str):
    assert str(moment(written)) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2024-03-05", "2024-03-05 00:00:00+00:00"),
        ("2024-03", "2024-03-01 00:00:00+00:00"),
        ("2024", "2024-01-01 00:00:00+00:00"),
        (" 2024 ", "2024-01-01 00:00:00+00:00"),
        ("2024-01-31T10:11:12+01:00", "2024-01-31 09:11:12+00:00"),
        ("2024-02-30", "None"),
        ("2024-13", "None"),
        ("0000", "None"),
        ("2024-3", "None"),
        ("20240305", "None"),
        ("٢٠٢٤", "None"),
        ("2024-01-31T10:11:12", "None"),
        (2024, "None"),
        (None, "None"),
    ],
)
def test_a_day_month_or_year_alone_is_its_beginning_in_utc(written: Any, expected: str):
    assert str(beginning(written)) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("House^Gregory^A^Dr^MD", "Dr Gregory A House MD"),
        ("Yamada^Tarou=山田^太郎", "Tarou Yamada"),
        ("=山田^太郎", "太郎 山田"),
        ("Plain", "Plain"),
        ("^^^", None),
        (None, None),
    ],
)
def test_names_are_written_as_people_write_them(written: str | None, expected: str | None):
    assert person_name(written) == expected
