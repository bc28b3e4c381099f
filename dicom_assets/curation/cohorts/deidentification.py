"""Taking identifiers out of one object: Basic Profile (PS3.15 E.2) with dates that are shifted (E.3.6, Modified Dates).

Belongs here: what dicom-anonymizer is told, the keyed mappings that it is given, and what is left afterwards. Does not
belong here: where the key lies (`mapping_keys`).

dicom-anonymizer applies its rules to one data set at a time and leaves items of sequences as they are, so it is called
for each item, the innermost first. UIDs, patient identifiers and dates are mapped by HMAC-SHA-256 with a key: the same
value becomes the same one in each export with that key, and nobody without it can tell which it was. Dates and times
of a patient are moved back by the same number of whole days, between one and ten years; times of day stay. The
patient's birth date goes. Pixel data stay, so an object that says itself that identifiers are burned into them is
refused.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.metadata import version
from typing import Any

from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_assets.curation.cohorts.objects_in_place import NotThere, Withheld
from dicom_assets.curation.confidentiality import EDITION, profile
from dicom_assets.dicom.known_vr import PYDICOM_ERRORS
from dicom_assets.settings import SettingsError

MOST_BYTES = 1 << 30
"""Bytes of an object that is de-identified, which is in memory whole, four times: as read, parsed, written, given."""
_EXTRA = "pip install 'dicom-assets[deidentify]'"
_STANDARD_ROOT = "1.2.840.10008."
"""UIDs that DICOM itself gives out name no patient."""
_FEWEST_DAYS, _MOST_DAYS = 365, 3650
_IMPLEMENTATION = UID("2.25.210433382932850761544004425428209622238")
"""Implementation Class UID of what is written here (PS3.7 D.3.3.2), of a UUID."""
_FEWEST_LETTERS = 8
_PATIENT_ID, _PATIENT_NAME = (0x0010, 0x0020), (0x0010, 0x0010)
_REPEATING = (0x50, 0x60)
"""Upper half of the groups of curves and overlays."""
_BIRTH = ((0x0010, 0x0030), (0x0010, 0x0032))
_GPS_TIME = (0x0016, 0x0077)
_TIME = re.compile(r" *[0-9:]{2,8}(\.[0-9]{1,6})? *")
_DATE = re.compile(r"([0-9]{4})\.?([0-9]{2})\.?([0-9]{2})([0-9]{2,6}(\.[0-9]{1,6})?)?([+-][0-9]{4})?")
"""A date, and what of a time stands behind it; an offset from UTC goes."""
_UNFIT = (*PYDICOM_ERRORS, RecursionError, struct.error)
"""What reading, changing and writing an object raise that is not fit for it; what they say quotes values."""

Rule = Callable[[Dataset, Any], None]


@dataclass(frozen=True)
class Deidentified:
    """An object without identifiers. uids: study, series and instance, patient; former: the same before, and issuer.

    left: for each element of the profile that still has a value, its tag as eight hexadecimal digits, with `=` behind
    it where the value is what it was.
    """

    data: bytes
    uids: Mapping[str, str]
    former: Mapping[str, str | None]
    left: tuple[str, ...]


def require_library() -> None:
    """Raises SettingsError without the extra."""
    try:
        import dicomanonymizer  # noqa: F401
    except ImportError:
        raise SettingsError(f"De-identifying needs an extra: {_EXTRA}. Nothing was written.") from None


class Deidentifier:
    """Takes identifiers out of objects, with one key."""

    def __init__(self, key: bytes) -> None:
        """key: of the mappings. Raises SettingsError without the extra."""
        require_library()
        from dicomanonymizer import simpledicomanonymizer as library

        self._library = library
        self._key = key
        self._profile = profile()
        self._days = 0
        self._pseudonym = ""
        self._rules: dict[Any, Rule] = self._made_rules()
        self._alone = threading.Lock()  # the library keeps UIDs by module

    def uid(self, value: str) -> str:
        """What a UID becomes: one of its own below 2.25 (PS3.5 B.2); those of the standard stay."""
        if not value or value.startswith(_STANDARD_ROOT):
            return value
        number = int.from_bytes(self._hash("uid", value)[:16], "big")
        number = number & ~(0xF << 76) | 8 << 76  # a UUID of version 8, whose bits are the maker's own (RFC 9562)
        return f"2.25.{number & ~(0x3 << 62) | 2 << 62}"

    def patient(self, patient_id: str, issuer: str) -> str:
        """What a patient is called: the same for each object of one identifier and issuer."""
        return f"P{self._hash('patient', patient_id, issuer).hex()[:16].upper()}"

    def days(self, patient_id: str, issuer: str) -> int:
        """By how many days the dates of a patient are moved back."""
        drawn = int.from_bytes(self._hash("days", patient_id, issuer)[:8], "big")
        return _FEWEST_DAYS + drawn % (_MOST_DAYS - _FEWEST_DAYS)

    def name(self, object_id: str) -> str:
        """What tells two objects of one SOPInstanceUID apart."""
        return self._hash("object", object_id).hex()[:12]

    def _hash(self, *parts: str) -> bytes:
        named = "\0".join(parts).encode("utf-8", "surrogateescape")
        return hmac.new(self._key, named, hashlib.sha256).digest()

    def deidentify(self, data: bytes) -> Deidentified:
        """An object without identifiers, the same bytes each time. Raises NotThere when that cannot be done."""
        with self._alone:
            try:
                return self._deidentify(data)
            except _UNFIT:
                raise NotThere(Withheld.NOT_DEIDENTIFIED) from None
            finally:
                self._library.dictionary.clear()

    def _deidentify(self, data: bytes) -> Deidentified:
        dataset = dcmread(io.BytesIO(data), force=True)
        if str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES":
            raise NotThere(Withheld.BURNED_IN)
        former = _identity(dataset)
        names = _names(dataset, former)
        who = (former["patient"] or "", former["issuer"] or "")
        self._pseudonym, self._days = self.patient(*who), self.days(*who)
        before = {place: _told(element) for place, element in _values(dataset) if self._is_listed(element)}
        dataset.remove_private_tags()
        self._apply(dataset)
        _tell_method(dataset)
        dataset.preamble = bytes(128)
        dataset.file_meta = _meta(dataset)
        left = [
            f"{int(element.tag):08X}{'=' if before.get(place) == _told(element) else ''}"
            for place, element in _values(dataset)
            if self._is_listed(element)
        ]
        sink = io.BytesIO()
        dcmwrite(sink, dataset, enforce_file_format=True)
        written = sink.getvalue()
        if any(_stands(one, written) for one in names):
            raise NotThere(Withheld.NOT_DEIDENTIFIED)
        return Deidentified(written, _identity(dataset), former, tuple(sorted(set(left))))

    def action_of(self, tag: int) -> str | None:
        """What the profile does with an element; see `confidentiality.Profile`."""
        return self._profile.action_of(tag)

    def _is_listed(self, element: DataElement) -> bool:
        return self._profile.action_of(int(element.tag)) is not None

    def _apply(self, dataset: Dataset) -> None:
        """Applies the rules to a data set and before that to each item in it."""
        for element in list(dataset):
            if element.VR == "SQ":
                for item in element.value:
                    self._apply(item)
            elif element.VR == "UI":  # what the library replaces whole is not to get UIDs of its own
                self._library.dictionary.update((one, one) for one in map(self.uid, _texts(element)))
                self._library.dictionary.update((one, self.uid(one)) for one in _texts(element))
        self._library.anonymize_dataset(dataset, delete_private_tags=False, base_rules_gen=lambda: self._of(dataset))

    def _of(self, dataset: Dataset) -> dict[Any, Rule]:
        """The rules that a data set needs: the library would look for each of the table's elements."""
        there = [(tag.group, tag.element) for tag in dataset.keys()]  # noqa: SIM118 - a data set gives its elements
        rules = {tag: self._rules[tag] for tag in there if tag in self._rules}
        is_wanted = any(group >> 8 in _REPEATING for group, _ in there)
        return {**rules, **{tag: rule for tag, rule in self._rules.items() if is_wanted and len(tag) > 2}}

    def _made_rules(self) -> dict[Any, Rule]:
        """The library's rules for the table, but for UIDs, dates, times and what names the patient."""
        rules: dict[Any, Rule] = self._library.initialize_actions(f"dicomfields_{EDITION}")
        for tag in rules:
            if len(tag) > 2:
                continue
            try:
                kind = dictionary_VR(tag)
            except KeyError:
                continue  # newer than pydicom's dictionary
            if tag in (*_BIRTH, _GPS_TIME):
                rules[tag] = _emptied
            elif kind == "UI" and rules[tag] is not self._library.delete:
                rules[tag] = self._map_uids
            elif kind in ("DA", "DT"):
                rules[tag] = self._shift
            elif kind == "TM":
                rules[tag] = _keep_time
            elif kind == "SQ" and self.action_of(tag[0] << 16 | tag[1]) in ("Z", "X/Z"):
                rules[tag] = _without_items
            elif kind == "SQ" and self.action_of(tag[0] << 16 | tag[1]) == "X/Z/U*":
                rules[tag] = self._library.keep  # of references, whose UIDs are mapped
        rules[_PATIENT_ID] = rules[_PATIENT_NAME] = self._name_patient
        return rules

    def _map_uids(self, dataset: Dataset, tag: Any) -> None:
        element = dataset.get(tag)
        if element is not None and element.VR == "UI":
            mapped = [self.uid(one) for one in _texts(element)]
            element.value = mapped[0] if len(mapped) == 1 else mapped
        elif element is not None:
            del dataset[tag]

    def _shift(self, dataset: Dataset, tag: Any) -> None:
        element = dataset.get(tag)
        if element is not None:
            moved = [_moved(one, self._days) for one in _texts(element)]
            element.value = moved[0] if len(moved) == 1 else moved

    def _name_patient(self, dataset: Dataset, tag: Any) -> None:
        if tag in dataset:
            dataset[tag].value = self._pseudonym


def _emptied(dataset: Dataset, tag: Any) -> None:
    if tag in dataset:
        dataset[tag].value = ""


def _without_items(dataset: Dataset, tag: Any) -> None:
    if tag in dataset:
        dataset[tag].value = []


def _keep_time(dataset: Dataset, tag: Any) -> None:
    if tag in dataset and not all(_TIME.fullmatch(one) for one in _texts(dataset[tag])):
        dataset[tag].value = ""


def _moved(text: str, days: int) -> str:
    """A date or date and time (DA, DT) so many days earlier; empty where it is none, or names no day."""
    found = _DATE.fullmatch(text.strip())
    if found is None:
        return ""
    try:
        day = date(int(found[1]), int(found[2]), int(found[3])) - timedelta(days=days)
    except (ValueError, OverflowError):
        return ""
    return f"{day:%Y%m%d}{found[4] or ''}" if day.year >= 1000 else ""


def _texts(element: DataElement) -> list[str]:
    """The values of an element as texts."""
    value = element.value
    if value is None or value == "":
        return []
    return [str(one) for one in value] if isinstance(value, MultiValue | list) else [str(value)]


def _identity(dataset: Dataset) -> dict[str, Any]:
    names = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}
    names |= {"patient": "PatientID", "issuer": "IssuerOfPatientID"}
    return {name: str(dataset.get(keyword) or "") or None for name, keyword in names.items()}


def _names(dataset: Dataset, former: Mapping[str, Any]) -> list[bytes]:
    """What names the patient and the object, so long that it stands nowhere by chance.

    Broken objects have elements that swallow others, whose values no rule reaches.
    """
    texts = [former[one] or "" for one in ("study", "series", "instance", "patient")]
    texts.append(str(dataset.get("PatientName") or ""))
    return [
        one.strip().encode("utf-8", "replace")
        for one in texts
        if len(one.strip()) >= _FEWEST_LETTERS and not one.startswith(_STANDARD_ROOT)
    ]


def _stands(name: bytes, data: bytes) -> bool:
    """Whether a name stands in data, and not as a part of a longer one. A search by bytes: pixel data are long."""
    at = data.find(name)
    while at >= 0:
        before, behind = data[max(at - 1, 0) : at], data[at + len(name) : at + len(name) + 2]
        if not re.match(rb"[0-9A-Za-z.]", before) and not re.match(rb"[0-9A-Za-z]|\.[0-9]", behind):
            return True
        at = data.find(name, at + 1)
    return False


def _values(dataset: Dataset, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], DataElement]]:
    """Each element that has a value and is no sequence, with the place at which it stands."""
    for element in dataset:
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                yield from _values(item, (*path, int(element.tag), number))
        elif element.value not in (None, "", b""):
            yield (*path, int(element.tag)), element


def _told(element: DataElement) -> bytes:
    """A digest of a value."""
    value = element.value
    return hashlib.sha256(value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")).digest()


def _tell_method(dataset: Dataset) -> None:
    """Says of an object that it is de-identified, and how (PS3.15 E.1.1; codes of PS3.16 CID 7050)."""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = f"dicom-anonymizer {version('dicom-anonymizer')}, PS3.15 {EDITION}"
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"
    codes = []
    for code, meaning in (
        ("113100", "Basic Application Confidentiality Profile"),
        ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", meaning
        codes.append(item)
    dataset.DeidentificationMethodCodeSequence = codes


def _meta(dataset: Dataset) -> FileMetaDataset:
    """File Meta Information that says what the object is and nothing of where it comes from."""
    meta = FileMetaDataset()
    known = getattr(dataset, "file_meta", None)
    syntax = known.get("TransferSyntaxUID") if known is not None else None
    implicit, little = dataset.original_encoding
    if syntax is None:
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.ImplementationClassUID, meta.ImplementationVersionName = _IMPLEMENTATION, "DICOM_ASSETS"
    return meta
