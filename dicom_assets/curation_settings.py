"""The section `[curation]` of the settings file: what the data say between them, and what may leave the lake.

Belongs here: what can be set of it. Does not belong here: what is done with it (`curation`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dicom_assets.sections import Section


class CurationSettings(Section):
    """How what the data say between them is looked at, and how cohorts leave the lake.

    conflict_rule: which of several values of one attribute a series or study shows: that of the newest object, that of
    most objects, or that of the source of highest rank, and within a source of the newest object. source_rank: names of
    sources for the last one, the one that counts most first; sources that are not named come after them.
    attribute_rules: another rule for some attributes, by keyword.

    export_risk_limit: highest score of `phi_risk` that a series may have to be exported as it is. cohort_keys: folder
    of the keys of de-identification and of what they map; by default beside the lake, in `{lake}.cohort-keys`, and
    for a lake in a container below `~/.dicom-assets/cohort-keys`.
    """

    conflict_rule: Literal["newest", "most_frequent", "source_rank"] = "newest"
    source_rank: tuple[str, ...] = ()
    attribute_rules: dict[str, Literal["newest", "most_frequent"]] = Field(default_factory=dict)
    export_risk_limit: Annotated[int, Field(ge=0, le=100)] = 20
    cohort_keys: str | None = None

    @field_validator("cohort_keys")
    @classmethod
    def _a_folder(cls, folder: str | None) -> str | None:
        if folder is None:
            return None
        if "://" in folder:
            raise ValueError("cohort_keys is a folder on this machine, which nobody else reads")
        return str(Path(folder).expanduser().absolute())

    @model_validator(mode="after")
    def _ranked(self) -> CurationSettings:
        if self.conflict_rule == "source_rank" and not self.source_rank:
            raise ValueError("conflict_rule = 'source_rank' needs source_rank, names of sources in order")
        if self.source_rank and self.conflict_rule != "source_rank":
            raise ValueError("source_rank is for conflict_rule = 'source_rank'")
        if len(set(self.source_rank)) != len(self.source_rank):
            raise ValueError("source_rank names a source twice")
        return self
