"""Views of the FHIR resources that people join: conditions, observations, medications, each with typed columns.

Belongs here: which columns each has, from which element, and the same beside the studies of the patient. Does not
belong here: whose a record is (`subjects`), the columns that every record of `clinical` has (`clinical`).
Source: FHIR R4B Condition, Observation, MedicationRequest, MedicationStatement, MedicationAdministration,
MedicationDispense.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dicom_assets.lake.dataset_types import cast
from dicom_assets.lake.quoting import one_of
from dicom_assets.lake.subjects import study_records


@dataclass(frozen=True)
class Element:
    """A column made of elements of a resource: the first of `paths` that is there, read as a type.

    paths: as SQL/JSON has them, without `$.`. kind: VARCHAR, DOUBLE or DATE (of which the first ten characters count).
    """

    paths: Sequence[str]
    kind: str = "VARCHAR"


def _text(*paths: str) -> Element:
    return Element(paths)


def _number(*paths: str) -> Element:
    return Element(paths, "DOUBLE")


COLUMNS: Sequence[str] = (
    "source", "record_key", "resource_id", "PatientID", "IssuerOfPatientID", "code_system", "code", "code_display",
    "status", "category", "effective_at", "effective_end",
)  # fmt: skip
"""Columns of `clinical` that every one of these views has."""

RESOURCES: Mapping[str, tuple[Sequence[str], Mapping[str, Element | str]]] = {
    "condition": (
        ("Condition",),
        {
            "verification_status": _text("verificationStatus.coding[0].code", "verificationStatus.text"),
            "severity": _text("severity.coding[0].display", "severity.coding[0].code", "severity.text"),
            "recorded_date": Element(("recordedDate",), "DATE"),
        },
    ),
    "observation": (
        ("Observation",),
        {
            "value_number": _number("valueQuantity.value", "valueInteger"),
            "value_unit": _text("valueQuantity.code", "valueQuantity.unit"),
            "value_code": _text("valueCodeableConcept.coding[0].code"),
            "value_text": _text(
                "valueString", "valueCodeableConcept.text", "valueCodeableConcept.coding[0].display",
                "valueDateTime", "valueBoolean",
            ),
            "interpretation": _text("interpretation[0].coding[0].code", "interpretation[0].text"),
            "reference_low": _number("referenceRange[0].low.value"),
            "reference_high": _number("referenceRange[0].high.value"),
        },
    ),
    "medication": (
        ("MedicationRequest", "MedicationStatement", "MedicationAdministration", "MedicationDispense"),
        {
            "resource_type": "record_type",
            "intent": _text("intent"),
            "dosage": _text("dosageInstruction[0].text", "dosage[0].text", "dosage.text"),
        },
    ),
}  # fmt: skip
"""By view, the resources in it, and its own columns: of elements, or a column of `clinical` by another name."""


OF_THE_STUDY = ("source", "PatientID", "IssuerOfPatientID")
"""Columns that a study has itself: beside studies they are not of the record."""


def value_of(element: Element, at: Callable[[str], str], cast: Callable[[str, str], str]) -> str:
    """SQL for the value of an element. at: for the text at a path of the record; cast: of a text as a type."""
    texts = [at(path) for path in element.paths]
    read = [f"left({text}, 10)" for text in texts] if element.kind == "DATE" else texts
    values = [cast(text, element.kind) for text in read]
    return values[0] if len(values) == 1 else f"coalesce({', '.join(values)})"


def _sql(column: Element | str) -> str:
    if isinstance(column, str):
        return column
    return value_of(column, lambda path: f"(json(record_values) ->> '$.{path}')", cast)


def _records(types: Sequence[str], columns: Mapping[str, Element | str]) -> str:
    listed = ", ".join([*COLUMNS, *(f"{_sql(column)} AS {name}" for name, column in columns.items())])
    return f"SELECT {listed} FROM clinical WHERE record_type IN ({one_of(types)})"


def _beside_studies(name: str, columns: Mapping[str, Element | str]) -> str:
    kept = [f"record.{column}" for column in (*COLUMNS, *columns) if column not in OF_THE_STUDY]
    return study_records(name, ", ".join(kept))


RESOURCE_VIEWS: Mapping[str, tuple[Sequence[str], str]] = {
    **{
        name: (("clinical",), f"-- one row per {' or '.join(types)} that counts\n{_records(types, columns)}")
        for name, (types, columns) in RESOURCES.items()
    },
    **{
        f"study_{name}": (("study", "clinical", "patient_link"), _beside_studies(name, columns))
        for name, (_, columns) in RESOURCES.items()
    },
}
"""By view, the tables that it needs, and its SQL; those of studies rest on the others."""
