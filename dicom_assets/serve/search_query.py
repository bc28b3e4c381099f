"""A search as a client asks for it: what must match, what comes back, which part of it (PS3.18 8.3.4, 10.6.1.2).

Belongs here: reading the parameters of a request. Does not belong here: SQL (`search_plan`), answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from dicom_assets.schema.attributes import Level
from dicom_assets.serve.attribute_names import (
    MODALITIES,
    MODALITY,
    Attribute,
    Names,
    below,
    require_column,
    require_values,
)
from dicom_assets.serve.matching import is_pattern
from dicom_assets.serve.newest import UID_OF
from dicom_assets.serve.problems import bad_parameter

DEFAULT_LIMIT = 1_000
MOST = 10_000
"""Rows of an answer; whoever asks for more gets so many, and is told that there are more."""

_MOST_OFFSET = 2**62
_OWN = ("limit", "offset", "fuzzymatching", "includefield", "accept", "charset")
_MOST_PARAMETERS = 200


@dataclass(frozen=True)
class Match:
    """An attribute, and the values of its key each time that it was given."""

    attribute: Attribute
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """One search.

    path: UIDs in the path, by level. uids: those and the ones that keys have, which say where to look. matches: what
    else must match. included: attributes that are asked for. everything: all columns of the level.
    """

    level: Level
    path: Mapping[Level, str]
    uids: Mapping[Level, Sequence[str]]
    matches: tuple[Match, ...] = ()
    included: tuple[Attribute, ...] = ()
    everything: bool = False
    fuzzy: bool = False
    limit: int = DEFAULT_LIMIT
    offset: int = 0

    @property
    def is_within(self) -> bool:
        """Whether it names the studies or series in which is searched, so that headers can be looked into."""
        return Level.STUDY in self.uids or Level.SERIES in self.uids


def read(level: Level, path: Mapping[Level, str], parameters: QueryParams, names: Names) -> Query:
    """The search of a request. Raises Refusal (400) with the parameter and why."""
    if len(parameters.multi_items()) > _MOST_PARAMETERS:
        raise bad_parameter("{attribute}", "there are too many parameters.")
    uids: dict[Level, Sequence[str]] = {one: [uid] for one, uid in path.items()}
    texts: dict[Attribute, list[str]] = {}
    for key, value in parameters.multi_items():
        if key.lower() not in _OWN:
            texts.setdefault(_of_level(level, names.find(key), names), []).append(value)
    matches: list[Match] = []
    for attribute, given in texts.items():
        require_values(attribute)
        match = Match(attribute, tuple(given))
        at = _named_level(attribute)
        if at is None or at in uids or not any(given) or any(map(is_pattern, given)):
            matches.append(match)
        else:
            uids[at] = _uids(given)
    included, everything = _included(level, parameters.getlist("includefield"), names)
    for attribute in (*(one.attribute for one in matches), *included):
        if Level.STUDY not in uids and Level.SERIES not in uids:
            require_column(attribute)
    return Query(
        level,
        dict(path),
        uids,
        tuple(matches),
        included,
        everything,
        _flag(parameters, "fuzzymatching"),
        min(_number(parameters, "limit", DEFAULT_LIMIT), MOST),
        min(_number(parameters, "offset", 0), _MOST_OFFSET),
    )


def _of_level(level: Level, attribute: Attribute, names: Names) -> Attribute:
    """What a key that must match means at a level. Raises Refusal for an attribute of a level below."""
    if attribute.key == MODALITY and level is Level.STUDY:
        return names.find(MODALITIES)
    if attribute.level is not None and below(attribute.level, level):
        where = "/series" if attribute.level is Level.SERIES else "/instances"
        raise bad_parameter(attribute.name, f"is no attribute at this level: ask for it at {where}.")
    return attribute


def _named_level(attribute: Attribute) -> Level | None:
    """The level whose UID an attribute is."""
    return next((level for level, column in UID_OF.items() if column == attribute.column), None)


def _uids(texts: Sequence[str]) -> list[str]:
    found = [part.strip() for text in texts for part in text.replace(",", "\\").split("\\")]
    found = list(dict.fromkeys(part for part in found if part))
    if len(found) > MOST:
        raise bad_parameter("{attribute}", f"a list has at most {MOST} UIDs.")
    return found


def _included(level: Level, texts: Sequence[str], names: Names) -> tuple[tuple[Attribute, ...], bool]:
    asked = [part.strip() for text in texts for part in text.split(",")]
    if len(asked) > _MOST_PARAMETERS * 10:
        raise bad_parameter("includefield", "too many attributes are asked for.")
    everything = "all" in (one.lower() for one in asked)
    found = [names.find(one) for one in asked if one and one.lower() != "all"]
    # What belongs to a level below has no value here; viewers ask for Modality of studies.
    return tuple(one for one in found if one.level is None or not below(one.level, level)), everything


def _number(parameters: QueryParams, name: str, default: int) -> int:
    given = parameters.getlist(name)
    if not given:
        return default
    if len(given) > 1 or not (given[0].isascii() and given[0].isdigit()) or len(given[0]) > 1_000:
        raise bad_parameter(name, "one whole number from 0 on is needed.")
    return int(given[0])


def _flag(parameters: QueryParams, name: str) -> bool:
    given = parameters.getlist(name) or ["false"]
    if len(given) > 1 or given[0].lower() not in ("true", "false"):
        raise bad_parameter(name, "true or false is needed.")
    return given[0].lower() == "true"
