"""Objects that contradict each other once, and their clean twins.

Belongs here: each conflict that the information model knows, as a pair of objects. Does not belong here: what is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dicom_assets_tests.support.dicoms import dicom, uid


@dataclass(frozen=True)
class Contradiction:
    """Two objects that differ in one attribute of what they share, and nothing else.

    level, attribute: of the one row that is to be found. first, second: values of the attribute. shared: what both say
    besides. second_at: series and instance of the second object in the study; other_study: it lies in a study of its
    own. keyword: what is set where the attribute's name is not it.
    """

    level: str
    attribute: str
    first: Any
    second: Any
    shared: Mapping[str, Any] = field(default_factory=dict)
    second_at: tuple[int, int] = (1, 2)
    other_study: bool = False
    keyword: str = ""

    def objects(self, number: int, *, clean: bool = False) -> list[bytes]:
        """Its objects, as study `number` (and `number` + 500); clean: both say what the first one says."""
        keyword = self.keyword or self.attribute
        shared = {"PatientID": f"P{number}", "PatientName": f"Name^{number}", "StudyDescription": "S", **self.shared}
        shared |= {"SeriesDescription": "D", "SeriesNumber": 1} if self.second_at[0] == 1 else {}
        one = dicom(number, 1, 1, **{**shared, keyword: self.first})
        study = number + 500 if self.other_study else number
        second = self.first if clean else self.second
        return [one, dicom(study, *self.second_at, **{**shared, keyword: second})]


FRAME = {"FrameOfReferenceUID": uid(9, 9)}

CONTRADICTIONS = (
    Contradiction("patient", "PatientName", "Meyer^Anna", "Meier^Anna"),
    Contradiction("patient", "PatientName", "Meyer^Anna", "MEYER^ANNA", other_study=True),
    Contradiction("patient", "patient_ideographic_name", "Yamada=山田", "Yamada=山本", keyword="PatientName",
                  shared={"SpecificCharacterSet": "ISO_IR 192"}),
    Contradiction("patient", "patient_phonetic_name", "Yamada==やまだ", "Yamada==やまもと", keyword="PatientName",
                  shared={"SpecificCharacterSet": "ISO_IR 192"}, other_study=True),
    Contradiction("patient", "PatientBirthDate", "19700101", "19700102", other_study=True),
    Contradiction("patient", "PatientSex", "M", "F", second_at=(2, 1)),
    Contradiction("patient", "PatientSex", "M", "F", shared={"PatientID": None}),
    Contradiction("patient", "PatientIdentityRemoved", "YES", "NO"),
    Contradiction("patient", "DeidentificationMethod", "A", "B"),
    Contradiction("study", "PatientID", "one", "two", shared={"PatientName": None}),
    Contradiction("study", "IssuerOfPatientID", "here", "there"),
    Contradiction("study", "StudyDate", "20240101", "20240102", second_at=(2, 1)),
    Contradiction("study", "StudyTime", "101112.5", "101112.51"),
    Contradiction("study", "AccessionNumber", "A1", "A2"),
    Contradiction("study", "StudyID", "1", "01"),
    Contradiction("study", "StudyDescription", "CT Thorax", "CT THORAX", second_at=(2, 1)),
    Contradiction("study", "ReferringPhysicianName", "Doe^J", "Doe^K"),
    Contradiction("study", "PatientAge", "040Y", "041Y"),
    Contradiction("study", "PatientWeight", "70", "71"),
    Contradiction("study", "PatientSize", "1.7", "1.8"),
    Contradiction("series", "Modality", "CT", "PT"),
    Contradiction("series", "SeriesNumber", 1, 2),
    Contradiction("series", "SeriesDate", "20240101", "20240102"),
    Contradiction("series", "SeriesTime", "101112", "101113"),
    Contradiction("series", "SeriesDescription", "axial", "coronal"),
    Contradiction("series", "ProtocolName", "a", "b"),
    Contradiction("series", "BodyPartExamined", "CHEST", "ABDOMEN"),
    Contradiction("series", "Laterality", "L", "R"),
    Contradiction("series", "PatientPosition", "HFS", "FFS"),
    Contradiction("series", "PerformingPhysicianName", "Doe^J", "Doe^K"),
    Contradiction("series", "OperatorsName", ["Doe^J", "Roe^R"], ["Doe^J"]),
    Contradiction("series", "PerformedProcedureStepStartDate", "20240101", "20240102"),
    Contradiction("series", "PerformedProcedureStepStartTime", "10", "11"),
    Contradiction("series", "PerformedProcedureStepID", "1", "2"),
    Contradiction("series", "PerformedProcedureStepDescription", "a", "b"),
    Contradiction("series", "Manufacturer", "A", "B"),
    Contradiction("series", "ManufacturerModelName", "A", "B"),
    Contradiction("series", "SoftwareVersions", ["1", "2"], ["1", "3"]),
    Contradiction("series", "DeviceSerialNumber", "1", "2"),
    Contradiction("series", "StationName", "CT1", "CT2"),
    Contradiction("series", "InstitutionName", "St. John's", "St John's"),
    Contradiction("series", "InstitutionalDepartmentName", "A", "B"),
    Contradiction("series", "FrameOfReferenceUID", uid(8, 1), uid(8, 2)),
    Contradiction("frame_of_reference", "PositionReferenceIndicator", "XY", "SN", shared=FRAME, second_at=(2, 1)),
    Contradiction("series", "SeriesInstanceUID", uid(700, 1), uid(700, 1), other_study=True),
    Contradiction("instance", "SOPInstanceUID", uid(701, 1), uid(701, 1), second_at=(2, 1)),
    Contradiction("instance", "SOPInstanceUID", uid(702, 1), uid(702, 1), other_study=True),
)  # fmt: skip
"""Each attribute of the list once, some at a distance; the last three are UIDs under two parents."""

AGREEING = (
    {"PatientName": "Meyer^Anna"}, {"PatientName": "Meyer^Anna^^^"}, {"PatientName": " Meyer ^Anna"},
    {"PatientName": "Meyer^Anna==まいや", "SpecificCharacterSet": "ISO_IR 192"}, {"PatientName": None},
    {"IssuerOfPatientID": "H"}, {"StudyDescription": " S"}, {"StudyDescription": None}, {"PatientSex": "F"},
    {"StudyTime": "101112.5"}, {"StudyTime": "101112.500000"}, {"PatientID": None}, {"PatientWeight": "70"},
    {"PatientWeight": "70.0"}, {"OtherPatientIDs": "A"}, {"OtherPatientIDs": "B"},
)  # fmt: skip
"""What objects of one series say that does not contradict."""


def agreeing(study: int) -> list[bytes]:
    """Objects of one series that say the same, each in its own way."""
    shared: dict[str, Any] = {"PatientID": f"P{study}", "PatientName": "Meyer^Anna", "StudyDescription": "S"}
    return [dicom(study, 1, number, **{**shared, **own}) for number, own in enumerate(AGREEING, 1)]
