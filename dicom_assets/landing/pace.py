"""The pace of claiming: when what is new at a source becomes a batch, so that a trickle is no flood of batches.

Belongs here: the one pure function that decides, from what is there and from when the source was claimed before. Does
not belong here: which objects are new (`claims`), somebody who waits for a result and therefore waits for nothing more
to come (`dicom-assets ingest`).

A batch costs some seconds however few its objects are, and Dagster keeps a partition for each. So a lone file is
claimed as soon as it is quiet, a delivery as soon as it is large enough, and while files keep coming one by one each
pause is twice as long as the one before, up to a bound. Nothing is remembered: the claim log says when claims were
made, to this process and to any other one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from dicom_assets.landing.claim_index import Claim
from dicom_assets.settings import ClaimingSettings

SHORTEST_SECONDS = 30.0
"""The first pause of a source at which files keep coming."""
CALM = 2
"""After so many of the longest pauses without a claim, what comes is the first of its kind again."""
_AT_ONCE = timedelta(seconds=1)
_FAR_ENOUGH = 12
"""Rounds that decide: after so many doublings of the shortest pause any longest one is reached."""


class Round(NamedTuple):
    """Batches of one source that were claimed together. at: when; objects: in all of them."""

    at: datetime
    objects: int


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What is new at a source. complete, writing: objects that are quiet, and that may still be written.

    oldest: time of the oldest of them; None where the storage tells none.
    """

    complete: int
    writing: int = 0
    oldest: datetime | None = None


def recent_rounds(claims: Sequence[Claim], sources: Iterable[str], now: datetime) -> list[Round]:
    """The newest rounds of some sources, the last one first; not those that a wrong clock has put into the future.

    claims: as the claim log has them, the oldest first.
    """
    wanted = set(sources)
    rounds: list[Round] = []
    for claim in reversed(claims):
        if claim.source not in wanted or claim.claimed_at > now:
            continue
        if rounds and rounds[-1].at - claim.claimed_at < _AT_ONCE:
            rounds[-1] = Round(claim.claimed_at, rounds[-1].objects + claim.objects)
        elif len(rounds) < _FAR_ENOUGH:
            rounds.append(Round(claim.claimed_at, claim.objects))
        else:
            break
    return rounds


def claim_from(past: Sequence[Round], arrivals: Arrivals, now: datetime, settings: ClaimingSettings) -> datetime:
    """The moment from which the arrivals of a source are claimed: `now` when that is at once; pure.

    past: see `recent_rounds`. No moment lies further ahead than `longest_wait_seconds`. Rounds of many objects count
    for nothing: they are no trickle.
    """
    longest = timedelta(seconds=settings.longest_wait_seconds)
    shortest = min(timedelta(seconds=SHORTEST_SECONDS), longest)
    if arrivals.complete >= settings.enough_objects:
        return now
    due = now
    if arrivals.writing and arrivals.oldest is not None and arrivals.oldest <= now:
        due = max(due, arrivals.oldest + shortest)  # more is coming right now
    small = [one for one in past if one.objects < settings.enough_objects][:_FAR_ENOUGH]
    row = 0
    after = now
    for one in small:
        if after - one.at > CALM * longest:
            break
        row, after = row + 1, one.at
    if row:
        due = max(due, small[0].at + min(longest, shortest * 2 ** (row - 1)))
    return due
