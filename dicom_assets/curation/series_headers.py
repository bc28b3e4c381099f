"""What the headers of series hold that may tell who the patient is, without any value of it.

Belongs here: judging elements, series by series. Does not belong here: the tables of PS3.15 (`confidentiality`), which
words are the patient's (`phi_risk`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any

from dicom_assets.curation.confidentiality import DIRECT, profile
from dicom_assets.curation.element_paths import Element, take_apart
from dicom_assets.curation.marks import Marker
from dicom_assets.curation.patient_words import words_of_text

WORDS = 1_000
"""Different words of a series that are kept; those with the smallest marks."""
_WORDS_AT_ONCE = 8_000
_TEXTS = 20_000
"""Different texts of which the words are remembered."""

_TEXT = frozenset(("LO", "SH", "LT", "ST", "UT", "UC"))
"""Value representations of text that people write (PS3.5 6.2); a person name is one by itself."""
_LIKELY_MODALITIES = frozenset(("US", "ES", "GM", "XC", "OP", "IVUS", "OT", "DOC", "SC"))
_LIKELY_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture, and its multi-frame ones
    "1.2.840.10008.5.1.4.1.1.3",  # Ultrasound Multi-frame
    "1.2.840.10008.5.1.4.1.1.6",  # Ultrasound
    "1.2.840.10008.5.1.4.1.1.77.1",  # Visible Light
    "1.2.840.10008.5.1.4.1.1.104",  # Encapsulated documents
)
_SCREEN = "SCREEN SAVE"
_PATIENT_NAME, _PATIENT_ID = "00100010", "00100020"


def _plain(element: Element) -> str:
    """The value of an element as text: of a name all of its representations."""
    values = [one.values() if isinstance(one, dict) else [one] for one in element.values]
    return "=".join(str(one).strip() for parts in values for one in parts)


@dataclass(slots=True)
class Judged:
    """What was found in the headers of one series. words: mark and path. are_all: whether no word was left out."""

    direct: set[str] = field(default_factory=set)
    indirect: set[str] = field(default_factory=set)
    uids: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    creators: set[str] = field(default_factory=set)
    words: set[tuple[int, str]] = field(default_factory=set)
    are_all: bool = True
    says_burned_in: bool = False
    may_be_burned_in: bool = False
    claims: int = 0
    contradictions: int = 0

    def kept_words(self) -> list[tuple[int, str]]:
        """The words that are kept, in order."""
        self.are_all = self.are_all and len(self.words) <= WORDS
        return nsmallest(WORDS, self.words)


class SeriesHeaders:
    """Headers of series, judged as they come."""

    def __init__(self, marker: Marker) -> None:
        """Has judged nothing."""
        self._marker = marker
        self._tables = profile()
        self._known: dict[str, Sequence[int]] = {}
        self.found: dict[Any, Judged] = {}

    def add(self, series: Sequence[Any], headers: Sequence[str]) -> None:
        """Judges headers, each of the series that stands at its place. Raises ValueError for what is no header."""
        for name in series:
            self.found.setdefault(name, Judged())
        for name, element, _, _ in take_apart(series, headers):
            if not element.is_empty:
                self._judge(self.found[name], element)
        for one in self.found.values():
            if len(one.words) > _WORDS_AT_ONCE:
                self._bound(one)

    def add_claim(self, series: Any, header: str) -> None:
        """Judges the header of one object that claims to have no identity.

        What still names the patient contradicts that, but for a pseudonym: the profile lets a name be another one, and
        one that is the PatientID as well is taken for it.
        """
        found = self.found.setdefault(series, Judged())
        found.claims += 1
        said = {_PATIENT_NAME: "", _PATIENT_ID: ""}
        is_named = False
        for _, element, _, _ in take_apart([series], [header]):
            if element.path in said:
                said[element.path] = _plain(element)
            elif element.creator is None and not element.is_empty:
                row = self._tables.attribute(element.tag)
                is_named |= row is not None and row.is_removed and row.keyword in DIRECT
        found.contradictions += is_named or said[_PATIENT_NAME] not in ("", said[_PATIENT_ID])

    def add_kind(
        self, series: Any, burned_in: str | None, modality: str | None, sop_class: str | None, kind: Sequence[str]
    ) -> None:
        """Takes in what an object says of its pixels. burned_in: (0028,0301); kind: Image Type (0008,0008)."""
        found = self.found.setdefault(series, Judged())
        if burned_in == "YES":
            found.says_burned_in = True
        elif burned_in is None and not found.may_be_burned_in:
            of_class = any(sop_class == one or (sop_class or "").startswith(f"{one}.") for one in _LIKELY_CLASSES)
            found.may_be_burned_in = of_class or modality in _LIKELY_MODALITIES or _SCREEN in kind

    def _judge(self, found: Judged, element: Element) -> None:
        if element.creator is not None:
            if element.tag[4:6] != "00" and not self._tables.is_safe(element):
                found.private.add(element.path)
                found.creators.add(element.creator)
        else:
            row = self._tables.attribute(element.tag)
            if row is not None:
                kept = found.uids if row.is_uid else found.direct if row.keyword in DIRECT else found.indirect
                kept.add(row.keyword)
            if row is not None and row.keyword in DIRECT:
                return  # that the patient's own attributes name the patient is no news
        if element.vr in _TEXT:
            found.words.update([(mark, element.path) for mark in self._marks(element)])

    def _marks(self, element: Element) -> Sequence[int]:
        """Marks of the words of a text that several series may have."""
        said = element.said
        known = self._known.get(said)
        if known is None:
            values = "\n".join(map(str, element.values))
            words = {word.encode("utf-8", "surrogatepass") for word in words_of_text(values)}
            known = [self._marker.mark(word) for word in words]
            if len(self._known) >= _TEXTS:
                self._known.clear()
            self._known[said] = known
        return known

    def _bound(self, found: Judged) -> None:
        """Keeps the words with the smallest marks, whatever came first."""
        found.words, found.are_all = set(nsmallest(_WORDS_AT_ONCE // 2, found.words)), False
