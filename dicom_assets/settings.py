"""What a user can set, with defaults and clear errors: one TOML file, two environment variables.

Belongs here: names, defaults and bounds of settings. Does not belong here: credentials (they stay in the environment
and are read where a connection is made).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

CONFIG_FILE = "dicom-assets.toml"
DEFAULT_LANDING = "data/landing"
DEFAULT_LAKE = "data/lake"


class SettingsError(ValueError):
    """A setting is wrong; the message says which, where and what is expected."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSettings(_Section):
    """One landing source.

    name: appears in tables and logs, so it must not hold patient data. root: folder or URL. include, exclude: glob
    patterns over the path below the root; `**` crosses folders. Everything is included by default.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = "landing"
    root: str
    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: str) -> str:
        return root if "://" in root else str(Path(root).expanduser().absolute())


class ClaimingSettings(_Section):
    """How batches are made. quiet_seconds: a younger file may still be written and waits."""

    batch_objects: Annotated[int, Field(ge=1, le=100_000)] = 5_000
    batches_per_tick: Annotated[int, Field(ge=1, le=100)] = 20
    quiet_seconds: Annotated[float, Field(ge=0)] = 10.0


class ArchiveLimits(_Section):
    """Bounds on one ZIP file with everything nested in it."""

    max_entries: Annotated[int, Field(ge=1)] = 1_000_000
    max_inflated_bytes: Annotated[int, Field(ge=1)] = 64 * 2**30
    max_ratio: Annotated[float, Field(gt=1)] = 1_000.0
    max_depth: Annotated[int, Field(ge=1, le=16)] = 3
    max_nested_bytes: Annotated[int, Field(ge=1)] = 2 * 2**30


class ReadingLimits(_Section):
    """Bounds on the reading of one object.

    workers: reading processes; 0 means one for each core. max_value_bytes: a longer value of a header is kept as
    count and digest. max_header_bytes: bound on the DICOM JSON of one object.
    """

    workers: Annotated[int, Field(ge=0, le=256)] = 0
    chunk_objects: Annotated[int, Field(ge=1, le=10_000)] = 250
    first_read_bytes: Annotated[int, Field(ge=256)] = 65_536
    max_object_bytes: Annotated[int, Field(ge=1)] = 16 * 2**30
    max_inflated_bytes: Annotated[int, Field(ge=1)] = 256 * 2**20
    max_depth: Annotated[int, Field(ge=1, le=200)] = 32
    max_value_bytes: Annotated[int, Field(ge=1_024)] = 2**20
    max_header_bytes: Annotated[int, Field(ge=65_536)] = 64 * 2**20
    object_seconds: Annotated[float, Field(gt=0)] = 60.0
    worker_memory_bytes: Annotated[int, Field(ge=2**28)] = 2 * 2**30


class GateSettings(_Section):
    """When a batch pauses: share of its objects that are quarantined, once at least `minimum` are."""

    quarantined_share: Annotated[float, Field(ge=0, le=1)] = 0.30
    minimum: Annotated[int, Field(ge=1)] = 10
    warning_share: Annotated[float, Field(ge=0, le=1)] = 0.50


class ClinicalSettings(_Section):
    """How clinical tables are recognised. Column names are compared without regard to case, space, `_` and `-`."""

    patient_id_columns: tuple[str, ...] = ("PatientID", "patient_id", "MRN", "person_source_value")
    issuer_columns: tuple[str, ...] = ("IssuerOfPatientID", "issuer")
    issuer: str | None = None
    key_columns: tuple[str, ...] = ()


class MaintenanceSettings(_Section):
    """How long replaced versions of the tables stay readable."""

    retention_hours: Annotated[int, Field(ge=0)] = 720


class Settings(_Section):
    """Everything that can be set."""

    lake: str = DEFAULT_LAKE
    sources: tuple[SourceSettings, ...] = ()
    claiming: ClaimingSettings = ClaimingSettings()
    archives: ArchiveLimits = ArchiveLimits()
    reading: ReadingLimits = ReadingLimits()
    gate: GateSettings = GateSettings()
    clinical: ClinicalSettings = ClinicalSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()

    @field_validator("lake")
    @classmethod
    def _absolute(cls, lake: str) -> str:
        return lake if "://" in lake else str(Path(lake).expanduser().absolute())

    @field_validator("sources")
    @classmethod
    def _distinct(cls, sources: tuple[SourceSettings, ...]) -> tuple[SourceSettings, ...]:
        names = [source.name for source in sources]
        if len(set(names)) != len(names):
            raise ValueError("two sources have the same name")
        return sources

    def source(self, name: str) -> SourceSettings:
        """The source of this name; SettingsError when none is configured."""
        for source in self.sources:
            if source.name == name:
                return source
        raise SettingsError(
            f"Source '{name}' is not configured. Configured: {', '.join(s.name for s in self.sources)}. "
            f"Add it to {CONFIG_FILE} as it was when its batches were claimed."
        )


def load(
    landing: str | None = None, lake: str | None = None, environment: Mapping[str, str] = os.environ
) -> Settings:
    """Settings from arguments, then environment, then the TOML file, then defaults.

    The file is the one that DICOM_ASSETS_CONFIG names, otherwise `dicom-assets.toml` in the current folder, if any.
    A landing folder given by argument or environment replaces the configured sources by one named `landing`.
    Raises SettingsError.
    """
    named = environment.get("DICOM_ASSETS_CONFIG")
    path = Path(named or CONFIG_FILE)
    values: dict[str, Any] = {}
    if path.is_file():
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} is not valid TOML: {error}") from None
    elif named:
        raise SettingsError(f"DICOM_ASSETS_CONFIG names a file that is not there: {named}")
    landing = landing or environment.get("DICOM_ASSETS_LANDING")
    lake = lake or environment.get("DICOM_ASSETS_LAKE")
    if landing or not values.get("sources"):
        values["sources"] = [{"name": "landing", "root": landing or DEFAULT_LANDING}]
    if lake:
        values["lake"] = lake
    values.setdefault("lake", DEFAULT_LAKE)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"{path if path.is_file() else 'Settings'}: {re.sub(r'^Value error, ', '', faults)}") from None
