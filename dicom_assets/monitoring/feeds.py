"""How far behind the feeds are that bring news: storage queues of events, and windows of DICOM services.

Belongs here: asking queues and landing zones, each with one or two requests. Does not belong here: taking messages
(`landing.events`), reading windows (`service`), what is counted of the lake (`numbers`).

Whether a queue or a landing zone can be asked right now is a number as well: a measurement never fails for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from dicom_assets.landing.events import EventQueue
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.service.feed import border
from dicom_assets.service.window_files import newest_window_end
from dicom_assets.settings import ServiceSettings, Settings
from dicom_assets.storage.files import LakeError


class Takes(Protocol):
    """What samples are entered into; see `numbers.Samples`."""

    def set(self, name: str, value: float, *labels: str) -> None:
        """Enters a sample."""
        ...


class Feeds:
    """The queues and services of the settings."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is asked yet."""
        self._queues = [source for source in settings.sources if source.queue]
        self._services = [one for one in settings.followed if one.follow != "study-date" or one.kind != "dicomweb"]
        self._changes = settings.changes

    def measure(self, samples: Takes, now: datetime) -> None:
        """Enters how far behind each feed is."""
        if self._queues:
            _try(samples, "events", lambda: self._events(samples, now))
        if self._services:
            _try(samples, "windows", lambda: self._windows(samples, now))

    def _events(self, samples: Takes, now: datetime) -> None:
        for source in self._queues:
            queue = EventQueue(source.queue or "", source.root)
            samples.set("event_messages", queue.arrivals().complete, source.name, "incoming")
            oldest = queue.next_since()
            samples.set("event_lag_seconds", max(0.0, (now - oldest).total_seconds()) if oldest else 0.0, source.name)
            poisoned = queue.poisoned()
            if poisoned is not None:
                samples.set("event_messages", poisoned, source.name, "poison")

    def _windows(self, samples: Takes, now: datetime) -> None:
        minutes, delay = self._changes.window_minutes, timedelta(minutes=self._changes.delay_minutes)
        due = border(now - delay, minutes)
        for service in self._services:
            samples.set("window_lag_seconds", _lag(service, due, self._changes.start), service.name)


def _lag(service: ServiceSettings, due: datetime, start: datetime) -> float:
    newest = newest_window_end(service) or start
    return max(0.0, (due - newest).total_seconds())


def _try(samples: Takes, part: str, ask: Callable[[], None]) -> None:
    try:
        ask()
    except (SourceUnavailable, LakeError, OSError):
        samples.set("unmeasured", 1, part)
    else:
        samples.set("unmeasured", 0, part)
