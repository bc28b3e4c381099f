"""The sections `[[alerts]]` of the settings file: who is told of what, and how.

Belongs here: what can be set, with defaults and bounds. Does not belong here: what is told (`monitoring.occasions`),
how it is sent (`monitoring.receivers`). Secrets have no place in a file: it names the environment variables that hold
them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dicom_assets.sections import Section

_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_ADDRESS = r"^[^@\s<>,;]+@[^@\s<>,;]+$"
_LOOPBACK = ("127.", "localhost", "[::1]", "::1")

Variable = Annotated[str, Field(pattern=_VARIABLE)]
Address = Annotated[str, Field(pattern=_ADDRESS)]


class Occasion(StrEnum):
    """What somebody can be told of."""

    PAUSED = "paused"
    FAILED = "failed"
    STALE = "stale"
    SILENT = "silent"
    SOURCE_EMPTIED = "source_emptied"
    RUN_FAILED = "run_failed"


PORTS = {"starttls": 587, "tls": 465, "none": 25}
"""Of a mail server, by how the connection is protected."""


class AlertSettings(Section):
    """One receiver of alerts.

    kind: `webhook` posts JSON, `slack` what Slack and Mattermost take, `mail` sends a mail. name: for
    `dicom-assets alerts test`; by default the kind. on: of what it is told: batches that are paused or failed, what
    waits too long (stale), sources of which no batch closes (silent), sources that look emptied, and runs of other jobs
    than the batches' that failed. sources: only what is about these. waiting_minutes: what waits longer is stale.
    silent_hours: of a source that closes no batch for so long; without it none is silent. dagster_url: of Dagster's
    pages, for a link to the run.

    url: where is posted; url_variable: the environment variable that holds it, as for Slack, whose address is a secret.
    token_variable: the one with a token that is sent as `Authorization: Bearer`.

    to, sender, host, port, security: of mails; user_variable, password_variable: for a login. ca_file: certificates
    that the receiver's is signed by, beside those that the system trusts.
    """

    kind: Literal["webhook", "slack", "mail"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")] = ""
    on: Annotated[tuple[Occasion, ...], Field(min_length=1)] = tuple(Occasion)
    sources: tuple[str, ...] | None = None
    waiting_minutes: Annotated[float, Field(gt=0)] = 60.0
    silent_hours: Annotated[float, Field(gt=0)] | None = None
    dagster_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")] | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=30)] = 10.0
    ca_file: str | None = None

    url: Annotated[str, Field(pattern=r"^https?://[^\s#]+$")] | None = None
    url_variable: Variable | None = None
    token_variable: Variable | None = None

    to: tuple[Address, ...] = ()
    sender: Address | None = None
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:\[\]-]+$")] | None = None
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    security: Literal["starttls", "tls", "none"] = "starttls"
    user_variable: Variable | None = None
    password_variable: Variable | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_by_kind(cls, values: object) -> object:
        if isinstance(values, dict) and not values.get("name") and isinstance(values.get("kind"), str):
            return {**values, "name": values["kind"]}
        return values

    @model_validator(mode="after")
    def _complete(self) -> AlertSettings:
        of_mail = ("to", "sender", "host", "port", "user_variable", "password_variable")
        of_posts = ("url", "url_variable", "token_variable")
        other = of_posts if self.kind == "mail" else of_mail
        wrong = [name for name in other if getattr(self, name)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: not for kind '{self.kind}'")
        if self.kind == "mail":
            self._require_mail()
        else:
            self._require_post()
        return self

    def _require_mail(self) -> None:
        if not (self.to and self.sender and self.host):
            raise ValueError("kind 'mail' needs to, sender and host")
        if bool(self.user_variable) != bool(self.password_variable):
            raise ValueError("a login needs user_variable and password_variable, names of environment variables")
        if self.user_variable and self.security == "none" and not self.host.startswith(_LOOPBACK):
            raise ValueError("a login needs security 'starttls' or 'tls' (none is accepted on loopback)")

    def _require_post(self) -> None:
        if bool(self.url) == bool(self.url_variable):
            raise ValueError(f"kind '{self.kind}' needs url or url_variable, the name of an environment variable")
        if self.url is not None and "@" in self.url.split("/")[2]:
            raise ValueError("a url must not hold a user or a password; use token_variable or url_variable")
        if self.token_variable and self.url and not is_protected(self.url):
            raise ValueError("a token is sent over https only (http is accepted on loopback)")


def is_protected(url: str) -> bool:
    """Whether nobody else reads what is sent to a URL: https, or this machine."""
    return url.startswith("https://") or url.split("/")[2].startswith(_LOOPBACK)
