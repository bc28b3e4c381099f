"""Attributes that users promote: columns beyond the registry's, each named by a path into the data set.

Belongs here: what a path may say, and which type follows from its VR. Does not belong here: which columns a lake has
(`lake.column_list`), taking values from headers (`dicom.from_header`).

A path is a keyword, a tag or a private element, or several of these with dots between them: all but the last name
sequences. `RequestAttributesSequence.ScheduledProcedureStepID`, `00189073`, `(0018,9073)`,
`(0019,SIEMENS MR HEADER,0C)`. VR and multiplicity come from pydicom's copy of PS3.6 and its private dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydicom.datadict import (
    dictionary_description,
    dictionary_VM,
    dictionary_VR,
    keyword_for_tag,
    private_dictionary_VM,
    private_dictionary_VR,
    tag_for_keyword,
)

from dicom_assets.schema.attributes import TYPE_OF_VR, Level
from dicom_assets.schema.table import Column

_STEP = re.compile(r"\([^)]*\)|[^.()]+")
_PRIVATE = re.compile(r"\(([0-9A-Fa-f]{4}),([^,]+),([0-9A-Fa-f]{2})\)")
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
VALUED = {
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "SV"),
    *("TM", "UC", "UI", "UL", "UR", "US", "UT", "UV"),
}
"""VRs whose values a header holds and a column can."""

_RESERVED = frozenset({"filename", "file_row_number", "newest", "place", "file"})
"""Names that queries of ours use beside a table's columns."""


class NotPromotable(ValueError):
    """A path or a name of which no column can be made; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """One element on the way. key: its tag as DICOM JSON writes it; of a private one group and element, as GGGGxxEE."""

    key: str
    creator: str | None = None


@dataclass(frozen=True, slots=True)
class PromotedColumn:
    """A column that a user has promoted.

    path: as it was written. multiple: whether it is a list: the attribute may have several values, or lies in a
    sequence, which may have several items; never the first of several. vr: of the last step.
    """

    name: str
    path: str
    level: Level
    vr: str
    multiple: bool

    @property
    def steps(self) -> tuple[Step, ...]:
        """The elements on the way, the last one has the values."""
        return tuple(_step(written)[0] for written in _STEP.findall(self.path))

    @property
    def type(self) -> pa.DataType:
        """Arrow type of the column."""
        one = TYPE_OF_VR.get(self.vr, pa.string())
        return pa.list_(one) if self.multiple else one

    def column(self, above: str | None = None) -> Column:
        """The column of a table. above: the table that it comes from."""
        text = f"{self.path} {self.vr}, promoted in this lake"
        return Column(self.name, self.type, text, sources=((above, self.name),) if above else ())

    def to_dict(self) -> dict[str, Any]:
        """As the lake keeps it."""
        return {
            "name": self.name,
            "path": self.path,
            "level": str(self.level),
            "vr": self.vr,
            "multiple": self.multiple,
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> PromotedColumn:
        """What `to_dict` gave."""
        level = Level(told["level"])
        return cls(str(told["name"]), str(told["path"]), level, str(told["vr"]), bool(told["multiple"]))


def promoted(path: str, *, name: str | None = None, level: str = "instance", vr: str | None = None) -> PromotedColumn:
    """The column of a path. name: otherwise the keywords of the path; vr: of an element that no dictionary knows.

    Raises NotPromotable.
    """
    written = path.strip()
    tokens = _STEP.findall(written)
    if not tokens or ".".join(tokens) != written:
        raise NotPromotable(
            f"'{path}' is no path: give a keyword, a tag as GGGGEEEE, (GGGG,creator,EE), or several with dots."
        )
    found = [_step(token) for token in tokens]
    for token, (_, known, _) in zip(tokens[:-1], found[:-1], strict=True):
        if known not in ("SQ", None):
            raise NotPromotable(f"'{token}' in '{path}' is no sequence (VR {known}), so nothing lies in it.")
    _, known, several = found[-1]
    if vr is not None and known is not None and vr != known:
        raise NotPromotable(f"'{tokens[-1]}' has VR {known} by the dictionary, not {vr}. Leave `vr` away.")
    kind = known or vr
    if kind is None:
        raise NotPromotable(f"No dictionary knows the VR of '{tokens[-1]}'. Say it: vr = \"LO\", or --vr LO.")
    if kind not in VALUED:
        raise NotPromotable(
            f"'{tokens[-1]}' has VR {kind}, which no column can hold"
            + (": name an attribute in it." if kind == "SQ" else "; only VRs of texts and numbers can be promoted.")
        )
    named = name or _default_name(tokens)
    if _NAME.fullmatch(named) is None or named.lower() in _RESERVED:
        raise NotPromotable(f"'{named}' cannot name a column: letters, digits and _, a letter first, none of ours.")
    try:
        chosen = Level(level)
    except ValueError:
        raise NotPromotable(f"'{level}' is no level: instance, series or study.") from None
    return PromotedColumn(named, written, chosen, kind, several or len(tokens) > 1)


def _default_name(tokens: list[str]) -> str:
    steps = [_step(token)[0] for token in tokens]
    keywords = ["" if step.creator else keyword_for_tag(int(step.key, 16)) for step in steps]
    if not all(keywords):
        raise NotPromotable("A private or unknown element has no keyword. Give the column a name.")
    return "_".join(keywords)


def _step(token: str) -> tuple[Step, str | None, bool]:
    """A step of a path, its VR where a dictionary knows it, and whether it may have several values."""
    private = _PRIVATE.fullmatch(token)
    if private is not None:
        return _private(token, *private.groups())
    tag = _TAG.fullmatch(token)
    number = int(tag[1] + tag[2], 16) if tag else tag_for_keyword(token)
    if number is None:
        raise NotPromotable(f"'{token}' is no attribute: neither a keyword of PS3.6 nor a tag.")
    if number >> 16 & 1:
        raise NotPromotable(f"'{token}' is a private element: name its creator, (GGGG,creator,EE).")
    if number >> 16 in (0x0000, 0xFFFE) or number & 0xFFFF == 0:
        raise NotPromotable(f"'{token}' is no attribute of a data set.")
    try:
        vr, several = dictionary_VR(number), dictionary_VM(number) != "1"
        dictionary_description(number)
    except KeyError:
        return Step(f"{number:08X}"), None, True
    vr = "US" if vr == "US or SS" else vr
    return Step(f"{number:08X}"), vr, several


def _private(token: str, group: str, creator: str, element: str) -> tuple[Step, str | None, bool]:
    if int(group, 16) % 2 == 0:
        raise NotPromotable(f"'{token}': group {group} is even, and private elements have odd groups (PS3.5 7.8).")
    key, named = f"{group.upper()}xx{element.upper()}", creator.strip()
    tag = int(f"{group}10{element}", 16)
    try:
        return Step(key, named), private_dictionary_VR(tag, named), private_dictionary_VM(tag, named) != "1"
    except KeyError:
        return Step(key, named), None, True
