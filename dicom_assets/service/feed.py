"""Reading one window of a change feed, by time (v2) or by sequence (v1).

Belongs here: windows, paging, and noticing when paging cannot be trusted. Does not belong here: HTTP (`client`), what
an entry means (`landing.change_windows`), where a window is written (`changes`).

v2 takes a window of time, start inclusive and end exclusive, and pages through it by rows; the last page is the one
shorter than its limit. v1 knows no time: it takes a range of sequence numbers, so a page may be short or empty before
the end. There the first sequence of a window is found by bisection, and entries are picked by their timestamps.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from dicom_assets.landing.change_windows import EntryInvalid, parse_timestamp, sequence_of
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.errors import AnswerInvalid, ServiceError, WindowOpen

V1_LIMIT = 100
"""Most sequence numbers that one v1 request covers."""
V1_SLACK = timedelta(minutes=5)
"""How far, in v1, timestamps may run against the order of sequence numbers: commits of a server overtake each other."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time, start inclusive, end exclusive, both in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        """Refuses a span without a time zone or without a length."""
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("a window needs a time zone")
        if self.end <= self.start:
            raise ValueError("a window ends after it starts")

    def __str__(self) -> str:
        return f"{iso(self.start)}/{iso(self.end)}"

    def by_day(self) -> Iterator[Window]:
        """The window in parts that end with the days of UTC."""
        start = self.start.astimezone(UTC)
        while start < self.end:
            midnight = start.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
            yield Window(start, min(midnight, self.end.astimezone(UTC)))
            start = midnight

    def closed_by(self, now: datetime, delay: timedelta) -> bool:
        """Whether it ended long enough ago."""
        return self.end + delay <= now


def border(moment: datetime, minutes: int) -> datetime:
    """The last border of windows that is not after a moment."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day + (moment - day) // timedelta(minutes=minutes) * timedelta(minutes=minutes)


def iso(moment: datetime) -> str:
    """A moment as services take it: UTC, with a Z."""
    text = moment.astimezone(UTC).isoformat(timespec="microseconds" if moment.microsecond else "seconds")
    return text.replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class FeedPage:
    """One answer of a feed, entries as they came."""

    entries: list[dict[str, Any]]


def require_closed(client: ServiceClient, window: Window, delay: timedelta, now: datetime) -> None:
    """Raises WindowOpen when the window has not been closed for long enough to be whole."""
    if not window.closed_by(now, delay):
        raise WindowOpen(client.name, f"changes of {window}", f"Read it after {iso(window.end + delay)}.")


def read_window(client: ServiceClient, window: Window, *, metadata: bool = True) -> Iterator[FeedPage]:
    """The pages of a window, in the order of the feed, the next one fetched while one is used.

    A server without v2 (404) is read by v1. Raises ServiceError and its kinds; AnswerInvalid when entries repeat.
    """
    read = _by_sequence if client.service.api == "v1" else _by_time
    pages = read(client, window, metadata)
    return ahead(_distinct(client, window, pages))


def _by_time(client: ServiceClient, window: Window, metadata: bool) -> Iterator[FeedPage]:
    limit = client.service.page_size
    offset = 0
    while True:
        params: dict[str, str | int] = {
            "startTime": iso(window.start),
            "endTime": iso(window.end),
            "offset": offset,
            "limit": limit,
            "includeMetadata": "true" if metadata else "false",
        }
        try:
            reply = client.get("v2/changefeed", params, what=f"changes of {window} from {offset}", quote=True)
        except ServiceError as error:
            if error.status == 404 and offset == 0:
                yield from _by_sequence(client, window, metadata)
                return
            raise
        entries = reply.objects()
        if len(entries) > limit:
            raise AnswerInvalid(client.name, reply.what, "The page is longer than its limit.", reply.status)
        if entries:
            yield FeedPage(entries)
        if len(entries) < limit:
            return
        offset += len(entries)


def _by_sequence(client: ServiceClient, window: Window, metadata: bool) -> Iterator[FeedPage]:
    newest = latest(client, str(window), "v1")
    if newest is None:
        return
    last, _ = newest
    offset = _first_offset(client, window, last)
    while offset < last:
        entries = _range(client, window, offset, metadata)
        times = [_time(client, window, entry) for entry in entries]
        chosen = [entry for entry, at in zip(entries, times, strict=True) if window.start <= at < window.end]
        if chosen:
            yield FeedPage(chosen)
        if times and min(times) >= window.end + V1_SLACK:
            return
        offset += V1_LIMIT


def latest(client: ServiceClient, window: str = "now", api: str = "v2") -> tuple[int, datetime] | None:
    """Sequence and time of the newest entry of the feed; None while it is empty."""
    reply = client.get(
        f"{api}/changefeed/latest",
        {"includeMetadata": "false"},
        what=f"the newest change, for {window}",
        quote=True,
    )
    entry = reply.json()
    if not entry:
        return None
    if not isinstance(entry, dict):
        raise AnswerInvalid(client.name, reply.what, "The body is no entry.", reply.status)
    return _sequence(client, window, entry), _time(client, window, entry)


def _range(client: ServiceClient, window: Window, offset: int, metadata: bool) -> list[dict[str, Any]]:
    """Entries with sequence in (offset, offset + 100]."""
    params: dict[str, str | int] = {
        "offset": offset,
        "limit": V1_LIMIT,
        "includeMetadata": "true" if metadata else "false",
    }
    return client.get("v1/changefeed", params, what=f"changes of {window} after {offset}", quote=True).objects()


def _first_offset(client: ServiceClient, window: Window, last: int) -> int:
    """An offset below which every entry is older than the window, by bisection: some 20 requests for a million."""
    cut = window.start - V1_SLACK
    low, high = 0, last
    while high - low > V1_LIMIT:
        middle = (low + high) // 2
        found = _first_after(client, window, middle, high)
        if found is not None and found[1] < cut:
            low = found[0]
        else:
            high = middle
    return low


def _first_after(client: ServiceClient, window: Window, offset: int, stop: int) -> tuple[int, datetime] | None:
    """The first entry with a sequence above offset, across gaps; None when there is none up to `stop`."""
    while offset < stop:
        entries = _range(client, window, offset, metadata=False)
        if entries:
            return min((_sequence(client, str(window), e), _time(client, window, e)) for e in entries)
        offset += V1_LIMIT
    return None


def _sequence(client: ServiceClient, window: object, entry: dict[str, Any]) -> int:
    found = sequence_of(entry)
    if found is None:
        raise AnswerInvalid(client.name, f"changes of {window}", "An entry has no sequence.")
    return found


def _time(client: ServiceClient, window: object, entry: dict[str, Any]) -> datetime:
    for name, found in entry.items():
        if name.lower() == "timestamp" and isinstance(found, str):
            try:
                return parse_timestamp(found)
            except EntryInvalid:
                break
    raise AnswerInvalid(client.name, f"changes of {window}", "An entry has no usable timestamp.")


def _distinct(client: ServiceClient, window: Window, pages: Iterator[FeedPage]) -> Iterator[FeedPage]:
    """The pages, as long as no sequence number comes twice.

    A sequence that comes again means that the offset was ignored or that the window moved while it was paged
    through: entries may then be missing as well.
    """
    seen: set[int] = set()
    for page in pages:
        numbers = {number for number in map(sequence_of, page.entries) if number is not None}
        if seen & numbers:
            raise AnswerInvalid(
                client.name,
                f"changes of {window}",
                "A page repeats entries of an earlier one: the server ignores offset, or the window is still open. "
                "Nothing was landed; run the window again.",
            )
        seen |= numbers
        yield page


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one made in a thread while one is used."""
    nothing: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        waiting = pool.submit(next, items, nothing)
        while (item := waiting.result()) is not nothing:
            waiting = pool.submit(next, items, nothing)
            yield item
