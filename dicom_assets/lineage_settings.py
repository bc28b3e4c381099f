"""The section `[lineage]` of the settings file: who is told where tables come from.

Belongs here: what can be set. Does not belong here: what is told (`monitoring.lineage`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from dicom_assets.alert_settings import Variable, is_protected
from dicom_assets.sections import Section


class LineageSettings(Section):
    """A receiver of OpenLineage, such as Marquez or DataHub.

    url: of its server; endpoint: below it. api_key_variable: the environment variable with a key that is sent as
    `Authorization: Bearer`. namespace: of jobs and sources; tables are named by where they lie. timeout_seconds: of one
    event.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^\s?#@]+$")]
    endpoint: str = "api/v1/lineage"
    api_key_variable: Variable | None = None
    namespace: Annotated[str, Field(pattern=r"^[^\s]+$")] = "dicom-assets"
    timeout_seconds: Annotated[float, Field(gt=0, le=30)] = 5.0

    @model_validator(mode="after")
    def _is_protected(self) -> LineageSettings:
        if self.api_key_variable and not is_protected(self.url):
            raise ValueError("a key is sent over https only (http is accepted on loopback)")
        return self
