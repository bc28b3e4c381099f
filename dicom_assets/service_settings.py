"""The sections of the settings file about DICOM services: where they are, and the windows in which they are read.

Belongs here: what can be set of a service whose changes are landed. Does not belong here: asking one (`service`),
answering as one (`serve_settings`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dicom_assets.sections import DEFAULT_CHANGES, Section

DICOM_SERVICE_SCOPE = "https://dicom.healthcareapis.azure.com/.default"
"""Scope of the tokens that Azure Health Data Services asks for."""


class ServiceSettings(Section):
    """One DICOM service whose changes are landed.

    name: the landing source that its windows become. url: where the service starts, without version and `studies`.
    kind: `dicom-service` has the change feed of Azure Health Data Services and microsoft/dicom-server; `dicomweb` is
    any other QIDO/WADO server, followed by Orthanc's `/changes` or by study date. follow = "nothing", of either kind:
    its changes are not landed, and it is no source. landing: folder or URL that the windows are written to,
    `data/changes/{name}` by default. auth: `token_variable`, `user_variable` and
    `password_variable` name environment variables; a secret itself has no place here. partitions: data partitions to
    audit where the service has them. page_bytes: bound on one answer. retry_after_seconds: the longest wait that the
    server may ask for.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")]
    kind: Literal["dicom-service", "dicomweb"] = "dicom-service"
    api: Literal["v2", "v1"] = "v2"
    follow: Literal["orthanc-changes", "study-date", "nothing"] = "orthanc-changes"
    changes_url: str | None = None
    landing: str = ""
    auth: Literal["anonymous", "bearer", "basic", "entra"] = "anonymous"
    token_variable: str | None = None
    user_variable: str | None = None
    password_variable: str | None = None
    scope: str = DICOM_SERVICE_SCOPE
    partitions: tuple[str, ...] = ()
    page_size: Annotated[int, Field(ge=1, le=200)] = 200
    page_bytes: Annotated[int, Field(ge=2**16)] = 256 * 2**20
    connect_seconds: Annotated[float, Field(gt=0)] = 10.0
    read_seconds: Annotated[float, Field(gt=0)] = 120.0
    retries: Annotated[int, Field(ge=0, le=20)] = 6
    retry_after_seconds: Annotated[float, Field(ge=0)] = 300.0

    @model_validator(mode="before")
    @classmethod
    def _landing_by_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("landing") and values.get("name"):
            return {**values, "landing": f"{DEFAULT_CHANGES}/{values['name']}"}
        return values

    @field_validator("landing")
    @classmethod
    def _absolute(cls, landing: str) -> str:
        return landing if "://" in landing else str(Path(landing).expanduser().absolute())

    @field_validator("url")
    @classmethod
    def _without_slash(cls, url: str) -> str:
        if "@" in url.split("/")[2]:
            raise ValueError("a url must not hold a user or a password; name environment variables instead")
        return url.rstrip("/")

    @property
    def orthanc_url(self) -> str:
        """Where Orthanc's own API starts: `changes_url`, or what stands before `/dicom-web`."""
        return (self.changes_url or self.url.removesuffix("/dicom-web")).rstrip("/")

    @model_validator(mode="after")
    def _complete(self) -> ServiceSettings:
        if _origin(self.orthanc_url) != _origin(self.url):
            raise ValueError("changes_url must be on the same host as url: credentials are sent to both")
        if self.auth == "bearer" and not self.token_variable:
            raise ValueError("auth 'bearer' needs token_variable, the name of an environment variable")
        if self.auth == "basic" and not (self.user_variable and self.password_variable):
            raise ValueError("auth 'basic' needs user_variable and password_variable, names of environment variables")
        if self.auth != "anonymous" and self.url.startswith("http://") and not _is_loopback(self.url):
            raise ValueError("credentials are sent over https only (http is accepted on loopback)")
        return self


def _origin(url: str) -> list[str]:
    return url.split("/")[:3]


def _is_loopback(url: str) -> bool:
    host = url.split("/")[2]
    return host.startswith(("127.", "localhost", "[::1]"))


class ChangesSettings(Section):
    """The windows in which changes are read; one row of windows for all services.

    start: beginning of the first window, with time zone. window_minutes: width of a window, which divides an
    hour or a day.
    delay_minutes: how long after its end a window is read; paging through a window is stable only once it has closed.
    """

    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    window_minutes: Annotated[int, Field(ge=5, le=1_440)] = 60
    delay_minutes: Annotated[int, Field(ge=0, le=1_440)] = 15

    @field_validator("start")
    @classmethod
    def _with_zone(cls, start: datetime) -> datetime:
        if start.tzinfo is None:
            raise ValueError("needs a time zone, such as 2026-01-01T00:00:00Z")
        return start.astimezone(UTC)

    @field_validator("window_minutes")
    @classmethod
    def _divides(cls, minutes: int) -> int:
        if 60 % minutes and (minutes % 60 or 1_440 % minutes):
            raise ValueError("must divide an hour, or be whole hours that divide a day, such as 5, 15, 60, 360 or 1440")
        return minutes
