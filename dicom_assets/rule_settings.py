"""The sections `[[rules]]` of the settings file: what a house wants to hold of what arrives.

Belongs here: what can be set of a rule. Does not belong here: what its condition may say (`lake.conditions`), asking it
(`batch.house_rules`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dicom_assets.sections import Section


class RuleSettings(Section):
    """One rule of the house.

    name: stands in tables and logs, so it must not hold patient data. condition: SQL that says what must hold; a rule
    is broken where it is false, and kept where it is true or not known (NULL), as a CHECK constraint is. level: what
    the condition is asked of: each object, each study or the batch as a whole, these two by aggregates. effect: what
    becomes of what breaks it. message: words for whoever meets it. seconds: how long asking it may take.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,62}$")]
    condition: Annotated[str, Field(min_length=1, max_length=10_000)]
    level: Literal["object", "study", "batch"] = "object"
    effect: Literal["warn", "quarantine", "pause"] = "warn"
    message: Annotated[str, Field(max_length=500)] = ""
    seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
