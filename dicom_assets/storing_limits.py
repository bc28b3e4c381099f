"""The section of the settings file that bounds what clients store; see `sections`.

Belongs here: how much. Does not belong here: where to (`sections.SourceSettings.store`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dicom_assets.sections import Section


class StoringLimits(Section):
    """Bounds on what is stored by DICOMweb.

    max_part_bytes: one object. at_once: requests that store side by side; others are told to come again.
    """

    max_part_bytes: Annotated[int, Field(ge=1)] = 2 * 2**30
    at_once: Annotated[int, Field(ge=1, le=1_000)] = 16
