"""Which attribute belongs to what: to a patient, a study, a series or a frame of reference, by the information model.

Belongs here: the one list, with the module of PS3.3 that each line comes from. Of what belongs to a patient there is
one value, however many studies, series and instances repeat it (PS3.3 A.1.2, C.7). Does not belong here: how values are
compared (`lake.significance`), finding conflicts (`conflicts`).

Listed are attributes that are columns. Left out are those that do not contradict when they differ: OtherPatientIDs,
whose values are further identifiers beside each other; ModalitiesInStudy and NumberOf…Related…, which are answers to
queries; RequestedProcedureID and RequestedProcedureDescription at the top of a data set, which no image's module has;
TimezoneOffsetFromUTC and others of the SOP Common Module, which is about an instance; code sequences but for that of
the procedure, of which a study may be of several.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Owner(StrEnum):
    """What an attribute belongs to; the level of a conflict."""

    PATIENT = "patient"
    STUDY = "study"
    SERIES = "series"
    FRAME_OF_REFERENCE = "frame_of_reference"


@dataclass(frozen=True, slots=True)
class Belonging:
    """An attribute that belongs to something. keyword: of the attribute, or name of its column. source: in PS3.3."""

    owner: Owner
    keyword: str
    source: str


_PATIENT, _STUDY, _SERIES = "C.7.1.1 Patient", "C.7.2.1 General Study", "C.7.3.1 General Series"
_STUDIED, _EQUIPMENT = "C.7.2.2 Patient Study", "C.7.5.1 General Equipment"
_FRAME = "C.7.4.1 Frame of Reference"

_LINES = (
    # Each representation of a name may contradict, and one that is missing does not.
    (Owner.PATIENT, _PATIENT, "PatientName patient_ideographic_name patient_phonetic_name"),
    (Owner.PATIENT, _PATIENT, "PatientBirthDate PatientSex PatientIdentityRemoved DeidentificationMethod"),
    # Whose a study is: a study is of one patient (A.1.2), who is named by identifier and issuer.
    (Owner.STUDY, _PATIENT, "PatientID IssuerOfPatientID"),
    (Owner.STUDY, _STUDY, "StudyID AccessionNumber StudyDate StudyTime StudyDescription ReferringPhysicianName"),
    (Owner.STUDY, _STUDIED, "PatientAge PatientSize PatientWeight"),
    (Owner.SERIES, _SERIES, "SeriesNumber Modality SeriesDate SeriesTime SeriesDescription ProtocolName"),
    (Owner.SERIES, _SERIES, "BodyPartExamined Laterality PatientPosition PerformingPhysicianName OperatorsName"),
    (Owner.SERIES, _SERIES, "PerformedProcedureStepStartDate PerformedProcedureStepStartTime"),
    (Owner.SERIES, _SERIES, "PerformedProcedureStepID PerformedProcedureStepDescription"),
    # One equipment makes a series (A.1.2, C.7.5).
    (Owner.SERIES, _EQUIPMENT, "Manufacturer ManufacturerModelName SoftwareVersions DeviceSerialNumber StationName"),
    (Owner.SERIES, _EQUIPMENT, "InstitutionName InstitutionalDepartmentName"),
    (Owner.SERIES, _FRAME, "FrameOfReferenceUID"),
    (Owner.FRAME_OF_REFERENCE, _FRAME, "PositionReferenceIndicator"),
)

BELONGINGS: tuple[Belonging, ...] = tuple(
    Belonging(owner, keyword, f"PS3.3 {source}") for owner, source, keywords in _LINES for keyword in keywords.split()
)
"""Every attribute that belongs to something, from the patient down."""


def of(owner: Owner) -> list[str]:
    """Keywords of what belongs to an owner."""
    return [one.keyword for one in BELONGINGS if one.owner is owner]
