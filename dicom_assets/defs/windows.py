"""Windows of changes: the time partitions of `dicom_changes`, when they are due, which of them a tick asks for.

Belongs here: the clock, as pure functions over settings and times. Does not belong here: reading a window (`service`).
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import dagster as dg

from dicom_assets.service.feed import Window
from dicom_assets.service.feed import border as border
from dicom_assets.settings import ChangesSettings

KEY = "%Y-%m-%d-%H:%M"
"""A window is named by its start: 2026-03-01-08:00."""
CATCH_UP = timedelta(days=7)
"""How far back a tick looks for windows that were never read; older ones are for a backfill."""
RUNS_PER_TICK = 12


def partitions(changes: ChangesSettings) -> dg.TimeWindowPartitionsDefinition:
    """Tumbling windows from the configured start on, in UTC."""
    return dg.TimeWindowPartitionsDefinition(
        start=changes.start.astimezone(UTC).strftime(KEY),
        fmt=KEY,
        timezone="UTC",
        cron_schedule=window_cron(changes.window_minutes),
    )


def window_cron(minutes: int) -> str:
    """The cron expression whose ticks are the windows' borders."""
    if minutes >= 1_440:
        return "0 0 * * *"
    if minutes >= 60:
        return "0 * * * *" if minutes == 60 else f"0 */{minutes // 60} * * *"
    return f"*/{minutes} * * * *"


def tick_cron(minutes: int, delay: int) -> str:
    """The cron expression whose ticks are `delay` minutes after each border."""
    if minutes >= 60:
        step = minutes // 60
        hours = sorted({(hour + delay // 60) % 24 for hour in range(0, 24, step)})
        return f"{delay % 60} {'*' if len(hours) == 24 else ','.join(map(str, hours))} * * *"
    return f"{','.join(str(minute) for minute in sorted({(m + delay) % 60 for m in range(0, 60, minutes)}))} * * * *"


def window_of(key: str, minutes: int) -> Window:
    """The window of a partition key."""
    start = datetime.strptime(key, KEY).replace(tzinfo=UTC)
    return Window(start, start + timedelta(minutes=minutes))


def due(changes: ChangesSettings, now: datetime, back: timedelta) -> list[str]:
    """Keys of the windows that have been closed for the delay, oldest first, as far as `back`."""
    width = timedelta(minutes=changes.window_minutes)
    end = border(now - timedelta(minutes=changes.delay_minutes), changes.window_minutes)
    first = border(changes.start, changes.window_minutes)
    if first < changes.start:
        first += width
    keys = []
    while end - width >= first and now - end <= back:
        keys.append((end - width).strftime(KEY))
        end -= width
    return keys[::-1]


def wanted(due_keys: list[str], landed: Collection[str], under_way: Collection[str]) -> list[str]:
    """Windows that a tick asks for: the newest, and every hole since the first window that was ever read.

    A window that failed is a hole like any other, so what the service could not give is read when it can. Before any
    window was read only the newest is wanted: history is read by a backfill, when somebody asks for it.
    """
    if not due_keys:
        return []
    holes = never_read(due_keys, landed) if landed else due_keys[-1:]
    return [key for key in holes if key not in under_way][:RUNS_PER_TICK]


def never_read(due_keys: list[str], landed: Collection[str]) -> list[str]:
    """Windows that are due and were never read, since the first one that was; none before anything was read."""
    if not landed:
        return []
    first = min(landed)
    return [key for key in due_keys if key >= first and key not in landed]
