"""What a user can set, with defaults and clear errors: one TOML file, two environment variables.

Belongs here: the file as a whole and where it is read from. Does not belong here: single settings (`sections`),
credentials (they stay in the environment and are read where a connection is made).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, PrivateAttr, ValidationError, field_validator, model_validator

from dicom_assets.alert_settings import AlertSettings as AlertSettings
from dicom_assets.curation_settings import CurationSettings as CurationSettings
from dicom_assets.dagster_settings import DagsterSettings as DagsterSettings
from dicom_assets.lineage_settings import LineageSettings as LineageSettings
from dicom_assets.rule_settings import RuleSettings as RuleSettings
from dicom_assets.sections import CHANGE_FILES as CHANGE_FILES
from dicom_assets.sections import CONFIG_FILE as CONFIG_FILE
from dicom_assets.sections import DEFAULT_CHANGES as DEFAULT_CHANGES
from dicom_assets.sections import DEFAULT_LAKE as DEFAULT_LAKE
from dicom_assets.sections import DEFAULT_LANDING as DEFAULT_LANDING
from dicom_assets.sections import ArchiveLimits as ArchiveLimits
from dicom_assets.sections import ChecksSettings as ChecksSettings
from dicom_assets.sections import ClaimingSettings as ClaimingSettings
from dicom_assets.sections import ClinicalSettings as ClinicalSettings
from dicom_assets.sections import ColumnSettings as ColumnSettings
from dicom_assets.sections import CorrectionSettings as CorrectionSettings
from dicom_assets.sections import DatasetSettings as DatasetSettings
from dicom_assets.sections import EraseSettings as EraseSettings
from dicom_assets.sections import EventSettings as EventSettings
from dicom_assets.sections import FhirServerSettings as FhirServerSettings
from dicom_assets.sections import FhirSettings as FhirSettings
from dicom_assets.sections import GateSettings as GateSettings
from dicom_assets.sections import MaintenanceSettings as MaintenanceSettings
from dicom_assets.sections import OmopSettings as OmopSettings
from dicom_assets.sections import ReadingLimits as ReadingLimits
from dicom_assets.sections import Section as Section
from dicom_assets.sections import SettingsError as SettingsError
from dicom_assets.sections import SourceSettings as SourceSettings
from dicom_assets.sections import StorageSettings as StorageSettings
from dicom_assets.sections import UserError as UserError
from dicom_assets.serve_settings import ServeSettings as ServeSettings
from dicom_assets.service_settings import DICOM_SERVICE_SCOPE as DICOM_SERVICE_SCOPE
from dicom_assets.service_settings import ChangesSettings as ChangesSettings
from dicom_assets.service_settings import ServiceSettings as ServiceSettings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Settings(Section):
    """Everything that can be set."""

    lake: str = DEFAULT_LAKE
    sources: tuple[SourceSettings, ...] = ()
    services: tuple[ServiceSettings, ...] = ()
    columns: tuple[ColumnSettings, ...] = ()
    rules: tuple[RuleSettings, ...] = ()
    changes: ChangesSettings = ChangesSettings()
    claiming: ClaimingSettings = ClaimingSettings()
    events: EventSettings = EventSettings()
    archives: ArchiveLimits = ArchiveLimits()
    reading: ReadingLimits = ReadingLimits()
    gate: GateSettings = GateSettings()
    checks: ChecksSettings = ChecksSettings()
    clinical: ClinicalSettings = ClinicalSettings()
    corrections: CorrectionSettings = CorrectionSettings()
    fhir: FhirSettings = FhirSettings()
    omop: OmopSettings = OmopSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    storage: StorageSettings = StorageSettings()
    erase: EraseSettings = EraseSettings()
    serve: ServeSettings = ServeSettings()
    curation: CurationSettings = CurationSettings()
    alerts: tuple[AlertSettings, ...] = ()
    lineage: LineageSettings | None = None
    dagster: DagsterSettings = DagsterSettings()
    _given: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def given(self) -> Mapping[str, str]:
        """The places that were given beside the file, by option: what another command needs to mean the same lake."""
        return self._given

    @model_validator(mode="before")
    @classmethod
    def _services_are_sources(cls, values: Any) -> Any:
        """The windows of a service are a landing source of its name, found by the same sensor as any other."""
        if not isinstance(values, dict) or not values.get("services"):
            return values
        services, sources = values["services"], values.get("sources") or ()
        if not isinstance(services, list | tuple) or not isinstance(sources, list | tuple):
            return values  # of a wrong type, which the fields themselves will say
        sources = list(sources)
        known = {s.get("name") if isinstance(s, dict) else getattr(s, "name", None) for s in sources}
        for service in services:
            given = service.model_dump() if isinstance(service, ServiceSettings) else service
            if not isinstance(given, dict):
                continue
            name = given.get("name")
            if isinstance(name, str) and name not in known and given.get("follow") != "nothing":
                root = given.get("landing") or f"{DEFAULT_CHANGES}/{name}"
                sources.append({"name": name, "root": root, "include": (CHANGE_FILES,)})
        return {**values, "sources": tuple(sources)}

    @field_validator("lake")
    @classmethod
    def _absolute(cls, lake: str) -> str:
        return lake if "://" in lake else str(Path(lake).expanduser().absolute())

    @field_validator("services")
    @classmethod
    def _distinct_services(cls, services: tuple[ServiceSettings, ...]) -> tuple[ServiceSettings, ...]:
        if len({service.name for service in services}) != len(services):
            raise ValueError("two services have the same name")
        return services

    @field_validator("alerts")
    @classmethod
    def _distinct_alerts(cls, alerts: tuple[AlertSettings, ...]) -> tuple[AlertSettings, ...]:
        if len({alert.name for alert in alerts}) != len(alerts):
            raise ValueError("two alerts have the same name; give each its own")
        return alerts

    @field_validator("rules")
    @classmethod
    def _distinct_rules(cls, rules: tuple[RuleSettings, ...]) -> tuple[RuleSettings, ...]:
        if len({rule.name for rule in rules}) != len(rules):
            raise ValueError("two rules have the same name")
        return rules

    @field_validator("sources")
    @classmethod
    def _distinct(cls, sources: tuple[SourceSettings, ...]) -> tuple[SourceSettings, ...]:
        names = [source.name for source in sources]
        if len(set(names)) != len(names):
            raise ValueError("two sources have the same name")
        roots: dict[str, str] = {}
        for source in sources:
            root = source.root.removeprefix("file://").rstrip("/")
            root = root if "://" in root else os.path.realpath(root)
            other = roots.setdefault(root, source.name)
            if other != source.name:
                raise ValueError(
                    f"sources '{other}' and '{source.name}' have the same root, so each object there would be claimed "
                    "twice; make them one source, or give each a folder of its own below it"
                )
        return sources

    @model_validator(mode="after")
    def _lake_outside(self) -> Settings:
        if "://" not in self.lake:
            lake = os.path.realpath(self.lake)
            for source in self.sources:
                root = source.root.removeprefix("file://")
                if "://" not in root and Path(lake).is_relative_to(os.path.realpath(root)):
                    raise ValueError(
                        f"the lake lies inside the folder of source '{source.name}', so that what is written to it "
                        "would be ingested again and again; give a lake outside of it"
                    )
        return self

    @model_validator(mode="after")
    def _forwarded(self) -> Settings:
        known = {service.name for service in self.services}
        for source in self.sources:
            if source.forward_to is not None and source.forward_to not in known:
                raise ValueError(
                    f"source '{source.name}': forward_to names no service, '{source.forward_to}'. Configured: "
                    f"{', '.join(sorted(known)) or 'none'}"
                )
            if source.forward_to == source.name:
                raise ValueError(f"source '{source.name}' would be forwarded to the service that it comes from")
        return self

    @property
    def followed(self) -> tuple[ServiceSettings, ...]:
        """The services whose changes are landed."""
        return tuple(service for service in self.services if service.follow != "nothing")

    def service(self, name: str) -> ServiceSettings:
        """The DICOM service of this name; SettingsError when none is configured."""
        for service in self.services:
            if service.name == name:
                return service
        known = ", ".join(s.name for s in self.services) or "none"
        raise SettingsError(f"Service '{name}' is not configured in {CONFIG_FILE}. Configured: {known}.")

    def source(self, name: str) -> SourceSettings:
        """The source of this name; SettingsError when none is configured."""
        for source in self.sources:
            if source.name == name:
                return source
        raise SettingsError(
            f"Source '{name}' is not configured. Configured: {', '.join(s.name for s in self.sources)}. "
            f"Add it to {CONFIG_FILE} as it was when its batches were claimed."
        )


def _words(fault: ErrorDetails) -> str:
    """What is wrong with one setting: where, what, and which names there are, where it has none of these."""
    where = ".".join(map(str, fault["loc"]))
    if fault["type"] != "extra_forbidden":
        return ": ".join(filter(None, (where, fault["msg"].removeprefix("Value error, "))))
    allowed = sorted(_section(fault["loc"][:-1]).model_fields)
    near = get_close_matches(str(fault["loc"][-1]), allowed, 1)
    meant = f"; did you mean {near[0]}?" if near else "."
    return f"{where}: there is no such setting{meant} Allowed here: {', '.join(allowed)}"


def _section(loc: Sequence[int | str]) -> type[BaseModel]:
    """The section at a place of the file."""
    section: type[BaseModel] = Settings
    for name in loc:
        field = section.model_fields.get(str(name))
        inner = [field.annotation, *get_args(field.annotation)] if field else []
        section = next((one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)), section)
    return section


def _say_nothing(path: Path) -> None:
    return


tell_file: Callable[[Path], None] = _say_nothing
"""Called with the file that settings were read from, an absolute path; the command says it, since a file in whatever
folder is the current one decides what is ingested."""


def file_name(environment: Mapping[str, str] = os.environ) -> str:
    """The settings file that is read: the one that DICOM_ASSETS_CONFIG names, or the one in the current folder."""
    return environment.get("DICOM_ASSETS_CONFIG") or CONFIG_FILE


def load(landing: str | None = None, lake: str | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from arguments, then environment, then the TOML file, then defaults.

    The file is the one that DICOM_ASSETS_CONFIG names, otherwise `dicom-assets.toml` in the current folder, if any.
    A landing folder given by argument or environment replaces the configured sources by one named `landing`; the
    windows of configured services stay sources of their own.
    Raises SettingsError.
    """
    named = environment.get("DICOM_ASSETS_CONFIG")
    path = Path(file_name(environment))
    values: dict[str, Any] = {}
    if path.is_file():
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} is not valid TOML: {error}") from None
        except OSError as error:
            raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    elif named:
        raise SettingsError(f"DICOM_ASSETS_CONFIG names a file that is not there: {named}")
    landing = landing or environment.get("DICOM_ASSETS_LANDING")
    lake = lake or environment.get("DICOM_ASSETS_LAKE")
    if landing or not (values.get("sources") or values.get("services")):
        values["sources"] = [{"name": "landing", "root": landing or DEFAULT_LANDING}]
    if lake:
        values["lake"] = lake
    values.setdefault("lake", DEFAULT_LAKE)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_words(fault) for fault in error.errors())
        raise SettingsError(f"{path if path.is_file() else 'Settings'}: {faults}") from None
    settings._given = {name: place for name, place in (("--landing", landing), ("--lake", lake)) if place}
    if path.is_file():
        tell_file(path.absolute())
    return settings
