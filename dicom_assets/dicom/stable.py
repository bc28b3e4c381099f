"""What of a header stays when an image is sent again: the table of what does not, and the digest of the rest.

Belongs here: which elements are left out and why, and taking them out of DICOM JSON. Does not belong here: what objects
that have the same digest are called (`curation.duplicates`), the digest of the whole header (`schema.keys`).

Two objects whose digests are equal are, with all that their software says of them, one image that was given other
names: a new SOP Instance UID, another patient's identifier, another order. What the device itself noted of the image
stays, since it tells images of one series apart: times of acquisition and content, numbers, positions, exposure, the
length of the pixel data. References to other objects stay as well: in a presentation state or a report they are the
content. So an image whose references were given new UIDs too is found by its pixels alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from json import JSONDecoder
from typing import Any, NamedTuple

import orjson
from pydicom.datadict import tag_for_keyword

from dicom_assets.dicom.memo import MAX_SEQUENCE, Members, Memo


class Volatile(NamedTuple):
    """Attributes of the data set itself that say nothing of the image. keywords: separated by spaces."""

    keywords: str
    source: str
    reason: str


VOLATILE: tuple[Volatile, ...] = (
    Volatile(
        "SOPInstanceUID SeriesInstanceUID StudyInstanceUID FrameOfReferenceUID SynchronizationFrameOfReferenceUID "
        "IrradiationEventUID ConcatenationUID SOPInstanceUIDOfConcatenationSource",
        "PS3.15 Table E.1-1, action U",
        "names that an object is given anew when it is copied, corrected or de-identified",
    ),
    Volatile(
        "InstanceCreationDate InstanceCreationTime InstanceCreatorUID InstanceCoercionDateTime",
        "PS3.3 C.12.1.1",
        "when and by whom the copy was made",
    ),
    Volatile(
        "SpecificCharacterSet DataSetTrailingPadding LengthToEnd",
        "PS3.3 C.12.1.1.2, PS3.10 7.2",
        "how it is written: text is compared as it reads",
    ),
    Volatile(
        "PatientName PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence TypeOfPatientID "
        "OtherPatientIDs OtherPatientIDsSequence OtherPatientNames PatientBirthName PatientMotherBirthName "
        "PatientBirthDate PatientBirthTime PatientSex EthnicGroup PatientComments PatientAddress "
        "PatientTelephoneNumbers MilitaryRank BranchOfService CountryOfResidence RegionOfResidence "
        "PatientReligiousPreference MedicalRecordLocator ReferencedPatientSequence ReferencedPatientPhotoSequence "
        "ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization QualityControlSubject",
        "PS3.3 C.2.2, C.2.3, C.7.1.1",
        "who the patient is: what a correction of identity changes (IHE PIR)",
    ),
    Volatile(
        "PatientAge PatientSize PatientWeight AdmissionID IssuerOfAdmissionIDSequence AdmittingDate AdmittingTime "
        "AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence ServiceEpisodeID ServiceEpisodeDescription "
        "IssuerOfServiceEpisodeIDSequence Occupation AdditionalPatientHistory SmokingStatus PregnancyStatus "
        "LastMenstrualDate MedicalAlerts Allergies SpecialNeeds PatientState CurrentPatientLocation "
        "PatientInstitutionResidence",
        "PS3.3 C.3, C.7.2.2",
        "the visit, and what was asked of the patient for it",
    ),
    Volatile(
        "AccessionNumber IssuerOfAccessionNumberSequence StudyID StudyDescription StudyComments ProcedureCodeSequence "
        "ReferringPhysicianName ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers "
        "ReferringPhysicianIdentificationSequence ConsultingPhysicianName ConsultingPhysicianIdentificationSequence "
        "PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence NameOfPhysiciansReadingStudy "
        "PhysiciansReadingStudyIdentificationSequence RequestingService RequestingServiceCodeSequence "
        "RequestingPhysician RequestingPhysicianIdentificationSequence ReasonForStudy ReferencedStudySequence "
        "ReasonForPerformedProcedureCodeSequence",
        "PS3.3 C.7.2.1",
        "the study as it was ordered and filed",
    ),
    Volatile(
        "RequestAttributesSequence RequestedProcedureID RequestedProcedureDescription RequestedProcedureCodeSequence "
        "ReasonForTheRequestedProcedure ReasonForRequestedProcedureCodeSequence RequestedProcedurePriority "
        "RequestedProcedureComments RequestedProcedureLocation PlacerOrderNumberImagingServiceRequest "
        "FillerOrderNumberImagingServiceRequest OrderPlacerIdentifierSequence OrderFillerIdentifierSequence "
        "PatientTransportArrangements ImagingServiceRequestComments ScheduledProcedureStepID "
        "ScheduledProcedureStepDescription ScheduledProcedureStepSequence PerformedProcedureStepID "
        "PerformedProcedureStepDescription ReferencedPerformedProcedureStepSequence "
        "CommentsOnThePerformedProcedureStep",
        "PS3.3 C.4.10, C.4.11, C.4.13, C.7.3.1",
        "the order and its steps: what is put right when an image was filed to the wrong order",
    ),
    Volatile(
        "OperatorsName OperatorIdentificationSequence PerformingPhysicianName "
        "PerformingPhysicianIdentificationSequence InstitutionName InstitutionAddress InstitutionCodeSequence "
        "InstitutionalDepartmentName InstitutionalDepartmentTypeCodeSequence StationName",
        "PS3.3 C.7.3.1, C.7.5.1; PS3.15 Table E.1-1",
        "people and places, which de-identification takes out",
    ),
    Volatile(
        "PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence "
        "LongitudinalTemporalInformationModified RecognizableVisualFeatures "
        "ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName ClinicalTrialSiteID "
        "ClinicalTrialSiteName ClinicalTrialSubjectID ClinicalTrialSubjectReadingID ClinicalTrialTimePointID "
        "ClinicalTrialTimePointDescription ClinicalTrialCoordinatingCenterName "
        "ClinicalTrialProtocolEthicsCommitteeName ClinicalTrialProtocolEthicsCommitteeApprovalNumber "
        "ConsentForClinicalTrialUseSequence",
        "PS3.3 C.7.1.3, C.7.2.3, C.12.1.1.1; PS3.15 E.1",
        "what de-identification and a trial put in",
    ),
    Volatile(
        "OriginalAttributesSequence ContributingEquipmentSequence ModifiedAttributesSequence "
        "DigitalSignaturesSequence MACParametersSequence EncryptedAttributesSequence "
        "SOPAuthorizationDateTime SOPAuthorizationComment AuthorizationEquipmentCertificationNumber "
        "InstanceOriginStatus QueryRetrieveView ConversionSourceAttributesSequence",
        "PS3.3 C.12.1.1",
        "traces that archives, routers and signatures leave on the way",
    ),
    Volatile(
        "RetrieveAETitle RetrieveURL RetrieveURI StationAETitle InstanceAvailability StorageMediaFileSetID "
        "StorageMediaFileSetUID AvailableTransferSyntaxUID ModalitiesInStudy NumberOfStudyRelatedSeries "
        "NumberOfStudyRelatedInstances NumberOfSeriesRelatedInstances StudyStatusID",
        "PS3.4 C.3.4, C.6.2",
        "what an archive says of where it keeps the object",
    ),
)
"""What is left out of the data set itself. Besides: File Meta Information (PS3.10 7.1), group lengths (PS3.5 7.2), and
private elements at every depth (PS3.5 7.8): each software writes its own."""


def _keys() -> Iterator[bytes]:
    for group in VOLATILE:
        for keyword in group.keywords.split():
            tag = tag_for_keyword(keyword)
            if tag is None:
                raise ValueError(f"{keyword} is not a keyword of PS3.6")
            yield f"{tag:08X}".encode("ascii")


LEFT_OUT = frozenset(_keys())
"""Keys of DICOM JSON of what VOLATILE names."""

MOMENTS = ("AcquisitionDateTime", "AcquisitionTime", "ContentTime")
"""Attributes that tell when an image was made."""
PLACES = ("SeriesTime", "StudyTime")
"""Attributes that tell of which examination it is, where InstanceNumber tells which image of it."""

_PRIVATE = re.compile(rb'\{"vr":"(?<=[13579BDF][0-9A-F]{4}":\{"vr":")').search
"""Finds an element of an odd group. What is rare and always the same stands first: so `re` passes over all else."""
_OFFSET = re.compile(rb'"BulkDataURI":"\?offset=[0-9]+').sub
_LENGTH = re.compile(rb"&length=[0-9]+").search
_VALUE = JSONDecoder().raw_decode
_BEFORE_VALUE = len('"00080018":')
_AT_VR = len('"00080018":{"vr":"')
_ODD = frozenset(b"13579BDF")
_PIXELS = frozenset((b"7FE00008", b"7FE00009", b"7FE00010"))


def stable_digest(members: Iterable[bytes], memo: Memo) -> str:
    """BLAKE2b-128 of what stays of some members of a header's JSON object, in their order; hexadecimal.

    members: texts of one element, or of several as `Members`. memo: of those that were met before.
    """
    kept = []
    for text in members:
        is_one = type(text) is not Members
        if is_one and (len(text) > MAX_SEQUENCE or not text.startswith(b"SQ", _AT_VR)):
            kept.append(_kept(text))
            continue
        found = memo.stable.get(text)
        if found is None:
            found = _kept(text) if is_one else b",".join(filter(None, map(_kept, elements(text))))
            if len(text) <= MAX_SEQUENCE:
                memo.stable[text] = found
                memo.hold(len(text) + len(found))
        kept.append(found)
    return hashlib.blake2b(b",".join(filter(None, kept)), digest_size=16).hexdigest()


def stable_digest_of(header: bytes) -> str:
    """The same of a whole header, a JSON object."""
    return stable_digest(elements(header[1:-1]), Memo())


def says_which(columns: Mapping[str, Any]) -> bool:
    """Whether an object says which image it is: when it was made, or its number and of which examination.

    Where it says neither, images of one device say the same whosoever they are. columns: its values by column.
    """
    is_numbered = columns.get("InstanceNumber") is not None
    return any(columns.get(name) is not None for name in (MOMENTS + PLACES if is_numbered else MOMENTS))


def elements(members: bytes) -> Iterator[bytes]:
    """The members of a JSON object of elements, one by one; `members`: without its braces."""
    text = members.decode()
    start = 0
    while start < len(text):
        _, end = _VALUE(text, start + _BEFORE_VALUE)
        yield text[start:end].encode()
        start = end + 1


def comparable(element: bytes) -> bytes:
    """An element without where its value lies in the object; of pixel data their length alone.

    The VR of these depends on the transfer syntax (PS3.5 A).
    """
    if element[1:9] in _PIXELS:
        length = _LENGTH(element)
        return b'"%b%b"' % (element[1:9], length[0] if length else b"")
    return _OFFSET(b'"BulkDataURI":"?', element) if b'"BulkDataURI":"?' in element else element


def _is_left_out(key: bytes) -> bool:
    return key[3] in _ODD or key in LEFT_OUT or key[4:] == b"0000" or key[:4] == b"0002"


def _kept(element: bytes) -> bytes:
    """What stays of one element; nothing where it is left out as a whole."""
    key = element[1:9]
    if _is_left_out(key):
        return b""
    if element.startswith(b"SQ", _AT_VR) and _PRIVATE(element):  # in an item: its own key is none
        element = orjson.dumps(_public(orjson.loads(b"{%b}" % element)))[1:-1]
    return comparable(element)


def _public(items: Mapping[str, Any]) -> dict[str, Any]:
    """The elements of an item without private ones, at every depth."""
    found = {}
    for key, element in items.items():
        if ord(key[3]) in _ODD:
            continue
        if element.get("vr") == "SQ" and "Value" in element:
            element = {**element, "Value": [_public(item) for item in element["Value"]]}
        found[key] = element
    return found
