"""What a receiver reads: JSON for programs, text for people.

Belongs here: wording and layout. Does not belong here: what is told (`occasions`), sending (`receivers`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

from dicom_assets.alert_settings import AlertSettings, Occasion
from dicom_assets.monitoring.occasions import Told


def identity(told: Told) -> str:
    """The same for the same thing, whenever it is sent: receivers may drop what they have."""
    return hashlib.sha256(told.key.encode()).hexdigest()[:32]


def of_test() -> Told:
    """What `dicom-assets alerts test` sends: of no batch, with every part that a message has."""
    return Told(
        Occasion.PAUSED,
        f"test.{datetime.now(UTC):%Y%m%dT%H%M%S%f}",
        "This is a test: alerts of dicom-assets arrive here.",
        reason="Nothing is wrong.",
        commands=["dicom-assets status"],
    )


def link(told: Told, alert: AlertSettings) -> str | None:
    """The page of the run in Dagster, when its address is configured."""
    return None if alert.dagster_url is None else run_page(alert.dagster_url, told.run_id)


def run_page(dagster_url: str, run_id: str | None) -> str:
    """The page of a run in Dagster; without a run, its first page."""
    root = dagster_url.rstrip("/")
    return f"{root}/runs/{quote(run_id, safe='')}" if run_id else root


def text(told: Told, alert: AlertSettings) -> str:
    """For people, in some lines."""
    return "\n".join([told.about, *_more(told, alert)])


def _more(told: Told, alert: AlertSettings) -> Iterator[str]:
    if told.reason:
        yield told.reason
    if told.codes:
        yield "Objects by reason: " + ", ".join(f"{code} {count}" for code, count in told.codes.items())
    if told.commands:
        yield "What to do: " + "; ".join(told.commands)
    if (url := link(told, alert)) is not None:
        yield url


def as_json(told: Told, alert: AlertSettings) -> Mapping[str, Any]:
    """For programs; every key is always there."""
    return {
        "id": identity(told),
        "kind": str(told.kind),
        "source": told.source,
        "batch": told.batch_id,
        "since": told.since and told.since.isoformat(),
        "text": told.about,
        "reason": told.reason,
        "codes": dict(told.codes),
        "commands": [*told.commands],
        "run_id": told.run_id,
        "url": link(told, alert),
    }


def for_slack(told: Told, alert: AlertSettings) -> Mapping[str, Any]:
    """What an incoming webhook of Slack or Mattermost takes; the three characters that it reads are escaped."""
    first, *rest = text(told, alert).split("\n")
    escaped = "\n".join([f"*{first}*", *rest])
    for plain, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        escaped = escaped.replace(plain, written)
    return {"text": escaped}


def mail(told: Told, alert: AlertSettings) -> EmailMessage:
    """A mail of plain text."""
    message = EmailMessage()
    message["From"] = alert.sender
    message["To"] = ", ".join(alert.to)
    message["Subject"] = f"[dicom-assets] {told.about}"
    message["Message-ID"] = f"<{identity(told)}@dicom-assets>"
    message["Auto-Submitted"] = "auto-generated"
    if told.since is not None:
        message["X-Since"] = format_datetime(told.since)
    message.set_content(text(told, alert).replace("\n", "\n\n") + "\n")
    return message
