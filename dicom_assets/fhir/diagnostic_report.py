"""DiagnosticReport: its columns, and the study that it belongs to.

Belongs here: what is read out of a report, and the one rule by which it is linked. Does not belong here: which reports
are looked at, and where studies come from (whoever publishes).

A report is linked by the first of these that names a study of the lake: a reference to an ImagingStudy, an identifier
that is a StudyInstanceUID, an accession number. A link is not made when it would join two patients.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from dicom_assets.fhir import conversions as values
from dicom_assets.fhir.identifiers import accession_number, objects, relative_reference, study_uid, text_of
from dicom_assets.schema.registry import DIAGNOSTIC_REPORT

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Study:
    """A study that reports can be linked to, with its subject (`lake.subjects`).

    has_conflict: its instances name several patients.
    """

    study_key: str
    uid: str
    source: str
    accession: str | None
    patient: str | None
    issuer: str | None
    has_conflict: bool


@dataclass(frozen=True)
class Studies:
    """The studies of the lake by everything that a report may call them."""

    by_resource: Mapping[str, Sequence[Study]] = field(default_factory=dict)
    by_uid: Mapping[str, Sequence[Study]] = field(default_factory=dict)
    by_accession: Mapping[str, Sequence[Study]] = field(default_factory=dict)

    @classmethod
    def of(cls, studies: Iterable[Study], resources: Iterable[tuple[str, str]]) -> Studies:
        """resources: ids of ImagingStudy resources, the lake's own and those that arrived, with their study UIDs."""
        by_uid: dict[str, list[Study]] = defaultdict(list)
        by_accession: dict[str, list[Study]] = defaultdict(list)
        for study in studies:
            by_uid[study.uid].append(study)
            if study.accession:
                by_accession[study.accession].append(study)
        by_resource: dict[str, list[Study]] = defaultdict(list)
        for name, uid in resources:
            by_resource[name] += [s for s in by_uid.get(uid, ()) if s not in by_resource[name]]
        return cls(by_resource, by_uid, by_accession)


PERSON = "person"
"""Of a report whose patient has another identifier by patient links: (id, issuer) of that one."""


def columns_of(resource: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of `diagnostic_report` that stand in the resource itself; those of `clinical` are left out."""
    identifiers = objects(resource.get("identifier"))
    based_on = objects(resource.get("basedOn"))
    order_identifiers = [i for order in based_on for i in objects(order.get("identifier"))]
    studies = objects(resource.get("imagingStudy"))
    study_identifiers = [i for study in studies for i in objects(study.get("identifier"))]
    code = resource.get("code")
    forms = objects(resource.get("presentedForm"))
    return {
        "effective": _effective(resource),
        "effective_at": values.beginning(_effective(resource)),
        "issued_at": values.moment(resource.get("issued")),
        "conclusion": text_of(resource.get("conclusion")),
        "code_display": text_of(code.get("text")) if isinstance(code, dict) else None,
        "accession_numbers": _distinct(
            accession_number(i) for i in (*identifiers, *order_identifiers, *study_identifiers)
        ),
        "based_on": _distinct(
            [text_of(order.get("reference")) for order in based_on]
            + [text_of(i.get("value")) for i in order_identifiers]
        ),
        "imaging_studies": _distinct(text_of(study.get("reference")) for study in studies),
        "study_uids": _distinct(study_uid(i) for i in (*study_identifiers, *identifiers)),
        "presented_form_type": text_of(forms[0].get("contentType")) if forms else None,
        "presented_form_size": _size(forms[0]) if forms else None,
    }


def _effective(resource: Mapping[str, Any]) -> str | None:
    period = resource.get("effectivePeriod")
    return text_of(resource.get("effectiveDateTime")) or (
        text_of(period.get("start")) if isinstance(period, dict) else None
    )


def _distinct(found: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(value for value in found if value))


def _size(form: Mapping[str, Any]) -> int | None:
    if isinstance(form.get("size"), int):
        return int(form["size"])
    data = form.get("data")
    if not isinstance(data, str):
        return None
    try:
        return len(base64.b64decode(data, validate=False))
    except (binascii.Error, ValueError):
        return None


def link(report: Row, studies: Studies) -> dict[str, Any]:
    """The link of a report: study_key, StudyInstanceUID, study_keys, linked_by, link_state.

    report: columns of `diagnostic_report`. Where one name fits several studies, those of the report's own source count
    alone; when there are still several, an accession number makes no link (`ambiguous`).
    """
    ways = (
        ("imaging_study", _referenced(report["imaging_studies"], studies), True),
        ("study_uid", [studies.by_uid.get(uid, ()) for uid in report["study_uids"]], True),
        ("accession_number", [studies.by_accession.get(n, ()) for n in report["accession_numbers"]], False),
    )
    for way, named, is_unique in ways:
        groups = [_preferred(group, report) for group in named]
        found = list(dict.fromkeys(study for group in groups for study in group))
        if not found:
            continue
        if any(len(group) > 1 for group in groups) or (len(found) > 1 and not is_unique):
            return _unlinked("ambiguous")
        if any(study.has_conflict for study in found) or _contradict(found):
            return _unlinked("patient_conflict")
        if any(_differs(report, study) for study in found):
            return _unlinked("patient_mismatch")
        return {
            "study_key": found[0].study_key,
            "StudyInstanceUID": found[0].uid,
            "study_keys": [study.study_key for study in found],
            "linked_by": way,
            "link_state": "linked",
        }
    return _unlinked("unlinked")


def _unlinked(state: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("study_key", "StudyInstanceUID", "linked_by"))
    return {**nothing, "study_keys": [], "link_state": state}


def _referenced(references: Sequence[str], studies: Studies) -> list[Sequence[Study]]:
    names = [relative_reference(reference) for reference in references]
    return [studies.by_resource.get(name[1], ()) for name in names if name and name[0] == "ImagingStudy"]


def _preferred(found: Sequence[Study], report: Row) -> Sequence[Study]:
    return [study for study in found if study.source == report["source"]] or found


def _differs(report: Row, study: Study) -> bool:
    """Whether report and study name different patients: what is missing on either side does not contradict.

    As everywhere (`lake.subjects`), two ids contradict, and so do two issuers. Of a report with PERSON that counts.
    """
    told = report.get(PERSON) or (report["PatientID"], report["IssuerOfPatientID"])
    patient, issuer = map(values.text, told)
    return _several(patient, study.patient) or _several(issuer, study.issuer)


def _contradict(studies: Sequence[Study]) -> bool:
    """Whether the studies that one report names are of several patients."""
    return _several(*(study.patient for study in studies)) or _several(*(study.issuer for study in studies))


def _several(*told: str | None) -> bool:
    return len({*told} - {None}) > 1


def read(records: pa.Table) -> list[dict[str, Any]]:
    """Reports from rows of `clinical` whose record_type is DiagnosticReport; not linked yet."""
    made = []
    for record in records.to_pylist():
        own = columns_of(orjson.loads(record["record_values"]))
        own["code_display"] = record["code_display"] or own["code_display"]
        made.append({**{k: v for k, v in record.items() if k in DIAGNOSTIC_REPORT}, **own, "id": record["resource_id"]})
    return made


def names(found: Iterable[Row]) -> set[str]:
    """The UIDs and accession numbers by which reports call studies."""
    called: set[str] = set()
    for report in found:
        called.update(report["study_uids"], report["accession_numbers"])
    return called


def referred(found: Iterable[Row]) -> set[str]:
    """The ids of resources that reports refer to."""
    literals = [relative_reference(reference) for report in found for reference in report["imaging_studies"]]
    return {literal[1] for literal in literals if literal}


def linked(found: Iterable[Row], studies: Studies) -> pa.Table:
    """Rows of `diagnostic_report`. studies: those that `names` and `referred` ask for."""
    made = [{**report, **link(report, studies)} for report in found]
    return pa.Table.from_pylist(made, schema=DIAGNOSTIC_REPORT.schema)
