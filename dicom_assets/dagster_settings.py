"""The section `[dagster]` of the settings file: how tables stand in Dagster.

Belongs here: what can be set. Does not belong here: what is made of it (`defs`), Dagster itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, field_validator

from dicom_assets.sections import Section

_OWNER = r"^(team:\S+|[^@\s:]+@[^@\s]+\.[^@\s]+)$"
_TAG = r"^([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}$"
_TAG_VALUE = r"^[A-Za-z0-9_.-]{0,63}$"

Tag = Annotated[str, Field(pattern=_TAG)]
TagValue = Annotated[str, Field(pattern=_TAG_VALUE)]


class DagsterSettings(Section):
    """How assets stand in Dagster.

    owners: of every asset, mail addresses or `team:name`. key_prefix: stands before the name in the key of each asset,
    so that `imaging` makes `imaging/study` of `study`; parts are separated by `/`. tags: of every asset.
    fresh_within_hours: tables that people read are shown as not fresh when they were made longer ago; without it
    nothing is expected of them.
    """

    owners: tuple[Annotated[str, Field(pattern=_OWNER)], ...] = ("team:imaging-data",)
    key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*$")] | None = None
    tags: Mapping[Tag, TagValue] = Field(default_factory=dict)
    fresh_within_hours: Annotated[float, Field(gt=0)] | None = None

    @field_validator("fresh_within_hours")
    @classmethod
    def _looked_at_often_enough(cls, hours: float | None) -> float | None:
        if hours is not None and hours * 60 < 1:
            raise ValueError("Dagster looks once a minute; give at least a minute")
        return hours

    @property
    def prefix(self) -> tuple[str, ...]:
        """The parts before an asset's name."""
        return tuple(self.key_prefix.split("/")) if self.key_prefix else ()
