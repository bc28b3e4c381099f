"""One window of one service, whatever its kind, from the server to the landing zone.

Belongs here: which way of reading fits which service. Does not belong here: the ways themselves (`feed`, `dicomweb`),
when a window is due (`defs`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicom_assets.landing.change_windows import PageUnreadable
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.dicomweb import days, orthanc_window, snapshot
from dicom_assets.service.feed import FeedPage, Window, ahead, read_window, require_closed
from dicom_assets.service.window_files import Landed, land, landed_entries, window_path
from dicom_assets.settings import ServiceSettings


@dataclass(frozen=True, slots=True)
class Synced:
    """What a window of a service came to. files: written or replaced, of those that belong to the window."""

    service: str
    entries: int
    pages: int
    bytes: int
    files: int


def sync_window(client: ServiceClient, window: Window, delay: timedelta, now: datetime | None = None) -> Synced:
    """Reads a window and lands it; nothing is written unless all of it was read.

    A server that is followed by study date has no windows of time: the studies of the days that the window touches
    are read whole, into one file a day. Raises WindowOpen, ServiceError and its kinds, LandingUnwritable.
    """
    service = client.service
    if service.kind == "dicomweb" and service.follow == "study-date":
        return _total(service, [_day(client, day) for day in days(window)])
    require_closed(client, window, delay, now or datetime.now(UTC))
    if service.kind == "dicomweb":
        pages, protocol = ahead(orthanc_window(client, window)), "orthanc"
    else:
        pages, protocol = read_window(client, window), service.api
    return _total(service, [land(service, window_path(window), window, pages, protocol)])


def _day(client: ServiceClient, day: datetime) -> Landed:
    path = f"studies/{day:%Y/%m}/{day:%Y%m%d}.ndjson.zst"
    try:
        before = list(landed_entries(client.service, path))
    except PageUnreadable:
        before = []
    pages: Iterable[FeedPage] = ahead(snapshot(client, day, day, before))
    return land(client.service, path, Window(day, day + timedelta(days=1)), pages, "qido")


def _total(service: ServiceSettings, landed: list[Landed]) -> Synced:
    return Synced(
        service=service.name,
        entries=sum(one.entries for one in landed),
        pages=sum(one.pages for one in landed),
        bytes=sum(one.bytes for one in landed),
        files=sum(one.changed for one in landed),
    )


def prepare_landing(service: ServiceSettings) -> None:
    """Makes the landing folder of a service, so that there is something to list before its first window."""
    if "://" not in service.landing:
        Path(service.landing).mkdir(parents=True, exist_ok=True)
