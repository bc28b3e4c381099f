"""What a key of a query names: an attribute, where the tables have it, or that only headers do (PS3.18 8.3.4).

Belongs here: from a tag, a keyword or a path to an attribute and its column. Does not belong here: what its values
match (`matching`), asking (`searching`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag, tag_for_keyword

from dicom_assets.schema.attributes import ATTRIBUTES, CODE_PARTS, Level
from dicom_assets.schema.promoted import PromotedColumn
from dicom_assets.serve.newest import LEVELS
from dicom_assets.serve.problems import Refusal, bad_parameter
from dicom_assets.serve.served import Snapshot

_TAG = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)
_LONGEST = 1_000
_NO_VALUES = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")

COMPUTED: dict[str, tuple[Level, str]] = {
    "00201206": (Level.STUDY, "series_count"),
    "00201208": (Level.STUDY, "instance_count"),
    "00201209": (Level.SERIES, "instance_count"),
    "00083002": (Level.INSTANCE, "TransferSyntaxUID"),
}
"""Attributes that the lake itself knows, whatever objects say of them; by tag: level and column."""

AVAILABILITY, RETRIEVE_URL = "00080056", "00081190"
MODALITY, MODALITIES = "00080060", "00080061"
_TRANSFER_SYNTAX, _AVAILABLE_SYNTAX = "00020010", "00083002"


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute as a query names it.

    keys: tags on the way to it, the last one its own, as DICOM JSON writes them. name: for messages. level, column:
    where the tables have it; None where only headers do. multiple: whether the column is a list.
    """

    keys: tuple[str, ...]
    name: str
    vr: str
    multiple: bool
    level: Level | None = None
    column: str | None = None

    @property
    def key(self) -> str:
        """The tag under which it is found at the top of a data set; of a private one `creator/GGGGxxEE`."""
        return self.keys[0]

    def as_promoted(self) -> PromotedColumn:
        """How its values are taken from headers."""
        return PromotedColumn(".".join(self.keys), ".".join(self.keys), Level.INSTANCE, self.vr, self.multiple)


class Names:
    """The names that a lake answers to: of every attribute of PS3.6, and of its promoted columns."""

    def __init__(self, snapshot: Snapshot) -> None:
        """snapshot: whose promoted columns count."""
        self._columns = dict(_COLUMNS)
        self._by_name: dict[str, Attribute] = {}
        for one in _of_lake(snapshot):
            self._by_name[one.name] = one
            self._columns.setdefault(one.keys, one)

    def find(self, text: str) -> Attribute:
        """What a key names. Raises Refusal (400)."""
        if text in self._by_name:
            return self._by_name[text]
        keys = tuple(_key(token) for token in text[:_LONGEST].split("."))
        if keys == (_TRANSFER_SYNTAX,):
            keys = (_AVAILABLE_SYNTAX,)
        for key in keys[:-1]:
            if _vr(key) != "SQ":
                raise _unknown("only sequences have attributes in them.")
        return self._columns.get(keys) or Attribute(keys, _name(keys), _vr(keys[-1]), _several(keys))

    def of_level(self, level: Level) -> Iterator[Attribute]:
        """The columns of a level, those without an attribute of their own left out."""
        for one in (*self._columns.values(), *self._by_name.values()):
            if one.level is level and len(one.keys) == 1 and not one.key.startswith("0002"):
                yield one


def named(key: str) -> str:
    """The keyword of a tag."""
    return keyword_for_tag(int(key, 16)) or key


def require_column(attribute: Attribute) -> None:
    """Raises Refusal (400) for an attribute that the tables do not have, where no study is named."""
    if attribute.column is None:
        path = attribute.name
        if attribute.vr == "SQ":
            raise bad_parameter(path, "is a sequence, which is given only within one study or series.")
        raise bad_parameter(
            path,
            "is not among the columns of this lake, so it can be asked for only within one study or series. "
            f"`dicom-assets columns add {path} --level study` (or series, instance) makes it one.",
        )


def require_values(attribute: Attribute) -> None:
    """Raises Refusal (400) for an attribute that no value can be compared with."""
    if attribute.vr == "SQ":
        raise bad_parameter(attribute.name, "is a sequence: name an attribute in it, with a dot between them.")
    if attribute.vr in _NO_VALUES or attribute.key == RETRIEVE_URL:
        raise bad_parameter(attribute.name, "cannot be matched, only included.")


def _key(token: str) -> str:
    if _TAG.fullmatch(token):
        number = int(token, 16)
    else:
        found = tag_for_keyword(token) if token else None  # "" is the keyword of some retired elements
        if found is None:
            raise _unknown("neither a keyword of PS3.6 nor a tag of eight hexadecimal digits.")
        number = found
    if number >> 16 & 1:
        raise _unknown("a private element: promote it (`dicom-assets columns add`) and use the name of its column.")
    key = f"{number:08X}"
    _vr(key)
    return key


def _vr(key: str) -> str:
    try:
        vr = dictionary_VR(int(key, 16))
    except KeyError:
        raise _unknown("a tag that PS3.6 does not know.") from None
    return "US" if vr.startswith("US or") else "OW" if vr.startswith("OB or") else vr


def _several(keys: tuple[str, ...]) -> bool:
    return len(keys) > 1 or dictionary_VM(int(keys[-1], 16)) != "1"


def _name(keys: tuple[str, ...]) -> str:
    return ".".join(map(named, keys))


def _unknown(why: str) -> Refusal:
    return bad_parameter("{attribute}", f"a name of an attribute cannot be understood: {why}")


def _of_registry() -> Iterator[Attribute]:
    for key, (level, column) in COMPUTED.items():
        yield Attribute((key,), named(key), _vr(key), False, level, column)
    for one in ATTRIBUTES:
        key = f"{one.tag:08X}"
        if key != _TRANSFER_SYNTAX:
            yield Attribute((key,), one.keyword, one.vr, one.multiple, one.level, one.keyword)
    for part in CODE_PARTS:
        keys = tuple(f"{tag:08X}" for tag in part.path)
        yield Attribute(keys, _name(keys), _vr(keys[-1]), False, part.level, part.column)


_COLUMNS: Mapping[tuple[str, ...], Attribute] = {one.keys: one for one in reversed([*_of_registry()])}
"""Attributes that every lake has columns of, what the lake itself knows before what objects say."""


def _of_lake(snapshot: Snapshot) -> Iterator[Attribute]:
    """Promoted columns that every file of their level's table has."""
    lake = snapshot.lake
    for listed in lake.columns:
        one = listed.column
        if str(one.level) not in listed.written or one.name in lake.hidden(str(one.level)):
            continue
        keys = tuple(f"{step.creator}/{step.key}" if step.creator else step.key for step in one.steps)
        yield Attribute(keys, one.name, one.vr, one.multiple, one.level, one.name)


def below(level: Level, other: Level) -> bool:
    """Whether a level is below another one."""
    return LEVELS.index(level) > LEVELS.index(other)
