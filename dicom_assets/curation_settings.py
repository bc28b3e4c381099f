"""The section `[curation]` of the settings file: what the data say between them, and what may leave the lake.

Belongs here: what can be set of it. Does not belong here: what is done with it (`curation`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from dicom_assets.sections import Section


class CurationSettings(Section):
    """How cohorts leave the lake.

    export_risk_limit: highest score of `phi_risk` that a series may have to be exported as it is. cohort_keys: folder
    of the keys of de-identification and of what they map; by default beside the lake, in `{lake}.cohort-keys`, and
    for a lake in a container below `~/.dicom-assets/cohort-keys`.
    """

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
