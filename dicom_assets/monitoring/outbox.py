"""What was told already, and telling what was not: once for each batch and state, again when a receiver was away.

Belongs here: the marks in the lake, and one round over all receivers. Does not belong here: what is worth telling
(`occasions`), when a round is made (`defs`, `cli`).

A mark `_alerts/{receiver}/{key}` is written when a receiver has taken a message, so a kill between the two sends it
again, with the same id; a receiver that is away gets it with a later round. The mark of a batch stays until its books
close, whatever states it goes through: run again and paused again for the same reason it is no news. The mark of a
source stays as long as what it tells of.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from dicom_assets.alert_settings import AlertSettings
from dicom_assets.lake.delta import Lake
from dicom_assets.monitoring.occasions import State, Told, codes_of, concerns, due, look
from dicom_assets.monitoring.receivers import ReceiverAway, send
from dicom_assets.settings import Settings, SettingsError
from dicom_assets.storage import locks

FOLDER = "_alerts"
LOCK = "alerts"

AT_ONCE = 20
"""Messages that a receiver gets in one round; the rest follows with the next one."""

ROUND_SECONDS = 15.0
"""After which a receiver that takes its time gets no more messages in one round: a tick of a sensor has 60 s."""

RUN_DAYS = 3
"""How long the marks of failed runs are kept; whoever looks for such runs looks back less far."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a round came to. sent: messages. away: why a receiver did not take its messages, a sentence each."""

    sent: int = 0
    away: tuple[str, ...] = ()


def tell(
    lake: Lake,
    settings: Settings,
    further: Sequence[Told] = (),
    *,
    environment: Mapping[str, str] = os.environ,
    now: datetime | None = None,
) -> Round:
    """Tells every receiver what it was not told yet; what one does not take keeps nothing from the others.

    further: what the lake does not know of, such as failed runs of other jobs. Raises LockBusy when another process
    tells, LakeError.
    """
    if not settings.alerts:
        return Round()
    with locks.held(lake.files, LOCK, 0):
        state = look(lake, settings, now)
        rounds = [_tell(lake, state, alert, further, environment) for alert in settings.alerts]
    return Round(sum(one.sent for one in rounds), tuple(away for one in rounds for away in one.away))


def _tell(
    lake: Lake, state: State, alert: AlertSettings, further: Sequence[Told], environment: Mapping[str, str]
) -> Round:
    folder = f"{FOLDER}/{alert.name}"
    marks = {name.removeprefix(f"{folder}/") for name in lake.files.names(folder)}
    wanted = {one.key: one for one in [*due(state, alert), *(one for one in further if concerns(one, alert))]}
    for gone in sorted(marks - wanted.keys()):
        if _is_over(gone, state):
            lake.files.remove(f"{folder}/{gone}")
    sent, until = 0, time.monotonic() + ROUND_SECONDS
    for key in [key for key in wanted if key not in marks][:AT_ONCE]:
        told = wanted[key]
        if told.batch_id is not None:
            told = replace(told, codes=codes_of(lake, told.batch_id))
        try:
            send(told, alert, environment)
        except (ReceiverAway, SettingsError) as error:
            return Round(sent, (str(error),))
        lake.files.put(f"{folder}/{key}", b"")
        sent += 1
        if time.monotonic() > until:
            break
    return Round(sent)


def _is_over(key: str, state: State) -> bool:
    """Whether what a mark tells of has ended, so that it would be news again."""
    kind, name, *_ = key.split(".")
    if kind == "run":
        return datetime.strptime(name, "%Y%m%d").replace(tzinfo=UTC) < state.at - timedelta(days=RUN_DAYS)
    if kind == "batch":
        return all(books.batch_id != name for books in state.books)
    return True
