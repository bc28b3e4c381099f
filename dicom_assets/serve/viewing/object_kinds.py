"""What a viewer can show of an instance, by its SOP Class.

Belongs here: images, reports, documents and everything else told apart, and the sentence about what is not shown. Does
not belong here: showing them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

_STORAGE = "1.2.840.10008.5.1.4.1.1."


class Kind(StrEnum):
    """What is shown of an instance: frames, a tree of content, a document, or its header alone."""

    IMAGE = "image"
    REPORT = "report"
    DOCUMENT = "document"
    OTHER = "other"


_SENTENCES = {
    f"{_STORAGE}481.3": "A set of structures (RT Structure Set): contours, which are not drawn here.",
    f"{_STORAGE}481.5": "A plan of a radiation treatment (RT Plan). It holds no picture.",
    f"{_STORAGE}104.2": "A document in CDA. Open it with a program for HL7 documents.",
    f"{_STORAGE}104.3": "A surface model (STL), which is not drawn here.",
    f"{_STORAGE}104.4": "A surface model (OBJ), which is not drawn here.",
    f"{_STORAGE}66": "Raw data of a scanner. It holds no picture.",
    f"{_STORAGE}66.1": "A spatial registration: how images lie to each other. It holds no picture.",
}
_FAMILIES = {
    f"{_STORAGE}11.": "A presentation state: how images of this study were shown. It is not applied here.",
    f"{_STORAGE}9.": "A waveform, such as an ECG. Its curves are not drawn here.",
    f"{_STORAGE}481.": "An object of a radiation treatment. It holds no picture.",
}
_PDF = f"{_STORAGE}104.1"
_REPORTS = f"{_STORAGE}88."


def kind_of(row: Mapping[str, Any]) -> Kind:
    """What can be shown. row: of `instance`, with SOPClassUID, Rows and Columns."""
    if row["Rows"] and row["Columns"]:
        return Kind.IMAGE
    sop_class = row["SOPClassUID"] or ""
    if sop_class.startswith(_REPORTS):
        return Kind.REPORT
    return Kind.DOCUMENT if sop_class == _PDF else Kind.OTHER


def sentence_of(row: Mapping[str, Any]) -> str:
    """What people are told of an instance that is not shown."""
    sop_class = row["SOPClassUID"] or ""
    family = next((said for beginning, said in _FAMILIES.items() if sop_class.startswith(beginning)), None)
    return _SENTENCES.get(sop_class) or family or "This object holds no picture."
