"""The section `[serve]` of the settings file: who may see what, how much, and what is written down about it.

Belongs here: what can be set, with defaults and bounds. Does not belong here: how it is held (`serve`). Secrets have no
place in a file: it names the environment variables that hold them.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from dicom_assets.sections import Section

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$"
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_HEADER = r"^[A-Za-z0-9-]{1,64}$"
_SOURCE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(/[^/]+)?$"
_HOST = r"^[A-Za-z0-9.:\[\]-]{1,255}$"
_ORIGIN = r"^https?://[A-Za-z0-9.\[\]:-]+$"


VIEWER_SCHEMES = ("http", "https", "weasis", "slicer", "osirix", "horos", "radiant")
"""Of addresses at which a viewer of people's own opens a study; a browser would run others as a program."""

VIEWER_PLACEHOLDERS = ("study", "series", "dicomweb")


class Permission(Section):
    """What somebody may see and do.

    sources: names as rows have them, with the data partition of a service behind the name; `name/*` is every partition.
    Without it all, with an empty list none. condition: SQL over the columns of `study`, such as
    `PatientID NOT LIKE 'VIP%'`; only studies for which it holds are there. may_store: into sources that take objects.
    may_watch: all numbers of the lake at `/metrics`, whatever studies may be seen; without it those of its sources.
    may_make_cohorts: of what a search in the catalogue finds.
    """

    sources: tuple[Annotated[str, Field(pattern=_SOURCE)], ...] | None = None
    condition: Annotated[str, Field(min_length=1)] | None = None
    may_store: bool = False
    may_watch: bool = False
    may_make_cohorts: bool = False


class TokenSettings(Permission):
    """A bearer token. name: of who has it, for the audit log. variable: the environment variable that holds it."""

    name: Annotated[str, Field(pattern=_NAME)]
    variable: Annotated[str, Field(pattern=_VARIABLE)]


class ProxySettings(Permission):
    """A proxy that signs people in before this server.

    addresses: of the proxy, or networks such as `10.0.3.0/24`; only what comes from there is believed. user_header: in
    which it gives the name of whom it has signed in. It must drop that header from what clients send.
    """

    addresses: Annotated[tuple[str, ...], Field(min_length=1)]
    user_header: Annotated[str, Field(pattern=_HEADER)] = "X-Forwarded-User"

    @field_validator("addresses")
    @classmethod
    def _networks(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for one in addresses:
            try:
                ipaddress.ip_network(one)
            except ValueError:
                raise ValueError("give IP addresses, or networks such as 10.0.3.0/24") from None
        return addresses


class AuditSettings(Section):
    """Who asked for what kind of thing, and when.

    file: where it is written, a line of JSON for each request; `-` is stderr, an empty text nowhere. By default stderr
    as soon as tokens or a proxy are set. key_variable: the environment variable with the key of the digests of
    studies and patients; without it the log does not tell whose data were asked for.
    """

    file: str | None = None
    key_variable: Annotated[str, Field(pattern=_VARIABLE)] | None = None


class ServeSettings(Section):
    """How the lake answers over HTTP.

    hosts: names by which clients reach the server, beside `localhost` and the address it listens on. origins: of pages
    elsewhere that may ask from a browser, such as `https://viewer.example.org`.

    requests_per_second, burst: of one client, in the long run and at once; of one process. requests_at_once,
    connections: of all clients together, of one process. head_bytes, query_bytes: of a request without its body.
    body_bytes: of what is stored by one request; object_bytes: of one object in it. stores_at_once: requests that store
    side by side, of one process. head_seconds: until the head of a request is there. answer_seconds: until an answer
    begins. query_seconds: of one question to the tables. stall_seconds: while a client takes or gives nothing.
    closing_seconds: that answers have when the server is ended.

    session_hours: how long a browser stays signed in by a token. access_log: a file, `-` for stderr, an empty text for
    none. dagster_url: of Dagster's pages, to which those of the catalogue lead.

    viewer_folder: where `dicom-assets viewer install` puts OHIF, and the server finds it; without it the user's own
    data folder. viewer_url, viewer_name: a viewer that people have, by the address at which it opens a study:
    `{study}`, `{series}` and `{dicomweb}` (this server's) stand for what is put in, percent-encoded.
    """

    hosts: tuple[Annotated[str, Field(pattern=_HOST)], ...] = ()
    origins: tuple[Annotated[str, Field(pattern=_ORIGIN)], ...] = ()
    tokens: tuple[TokenSettings, ...] = ()
    proxy: ProxySettings | None = None
    audit: AuditSettings = AuditSettings()
    access_log: str = "-"
    session_hours: Annotated[float, Field(gt=0, le=720)] = 12.0
    requests_per_second: Annotated[float, Field(gt=0)] = 200.0
    burst: Annotated[int, Field(ge=1)] = 2_000
    requests_at_once: Annotated[int, Field(ge=1)] = 256
    connections: Annotated[int, Field(ge=1)] = 1_000
    head_bytes: Annotated[int, Field(ge=1_024)] = 65_536
    query_bytes: Annotated[int, Field(ge=256)] = 32_768
    body_bytes: Annotated[int, Field(ge=1)] = 20 * 2**30
    object_bytes: Annotated[int, Field(ge=1)] = 2 * 2**30
    stores_at_once: Annotated[int, Field(ge=1)] = 16
    head_seconds: Annotated[float, Field(gt=0)] = 10.0
    answer_seconds: Annotated[float, Field(gt=0)] = 60.0
    query_seconds: Annotated[float, Field(gt=0)] = 30.0
    stall_seconds: Annotated[float, Field(gt=0)] = 30.0
    closing_seconds: Annotated[int, Field(ge=0)] = 5
    dagster_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")] | None = None
    viewer_folder: Annotated[str, Field(min_length=1)] | None = None
    viewer_url: str | None = None
    viewer_name: Annotated[str, Field(min_length=1, max_length=40)] = "Own viewer"

    @field_validator("origins")
    @classmethod
    def _lower(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(one.lower() for one in origins)

    @field_validator("viewer_folder")
    @classmethod
    def _absolute(cls, folder: str | None) -> str | None:
        return None if folder is None else str(Path(folder).expanduser().absolute())

    @field_validator("viewer_url")
    @classmethod
    def _template(cls, url: str | None) -> str | None:
        if url is None:
            return None
        scheme, colon, _ = url.partition(":")
        if not colon or scheme.lower() not in VIEWER_SCHEMES:
            raise ValueError(
                f"give an address that begins with one of {', '.join(f'{one}:' for one in VIEWER_SCHEMES)}"
            )
        if not url.isascii() or not url.isprintable() or any(one in url for one in " \"'<>\\`"):
            raise ValueError("spaces, quotes, angle brackets and letters beyond ASCII must be percent-encoded")
        known = {f"{{{one}}}" for one in VIEWER_PLACEHOLDERS}
        if set(re.findall(r"\{[^{}]*\}", url)) - known or re.search(r"[{}]", re.sub(r"\{[^{}]*\}", "", url)):
            raise ValueError(f"what stands in braces must be one of {', '.join(sorted(known))}")
        if "{study}" not in url:
            raise ValueError("{study} is lacking: the address would open no study")
        return url

    @model_validator(mode="after")
    def _distinct(self) -> ServeSettings:
        for what in ("name", "variable"):
            if len({getattr(one, what) for one in self.tokens}) != len(self.tokens):
                raise ValueError(f"two tokens have the same {what}")
        return self

    @property
    def is_controlled(self) -> bool:
        """Whether somebody must say who they are."""
        return bool(self.tokens) or self.proxy is not None
