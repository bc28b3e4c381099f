"""Everything that `dicom-assets verify` looks at, put together.

Belongs here: the order of looks, and that what differs is looked at twice. Does not belong here: the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from dicom_assets.batch.books import Status
from dicom_assets.batch.verification import batch_rules as batches
from dicom_assets.batch.verification import conflict_rules, duplicate_rules, lines, promoted_rules
from dicom_assets.batch.verification import file_rules as storage
from dicom_assets.batch.verification import study_rules as studies
from dicom_assets.batch.verification.findings import SHOWN, Finding, Sound
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow
from dicom_assets.landing.claims import ClaimLog, UnknownBatch
from dicom_assets.settings import Settings, UserError
from dicom_assets.storage.files import LakeError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Verified:
    """What was found. sound: what could be opened; torn: numbers of claims that cannot be read."""

    findings: tuple[Finding, ...]
    sound: Sound
    torn: tuple[int, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return all(finding.holds for finding in self.findings)

    @property
    def batches(self) -> list[str]:
        """Batches that are to be run again."""
        return sorted({batch for finding in self.findings if not finding.holds for batch in finding.batches})

    @property
    def studies(self) -> list[str]:
        """Studies that are to be made again."""
        return sorted({study for finding in self.findings if not finding.holds for study in finding.studies})


def verify(lake: Lake, settings: Settings, chosen: Sequence[str] = (), say: Say = lambda _: None) -> Verified:
    """Looks at everything, or at some batches and what they touch.

    A lake in use changes between two looks: what differs is looked at once more, and told when it differs again.
    Raises UserError for a batch that is not there, LakeError when the lake's storage fails.
    """
    first = _look(lake, settings, chosen, say)
    if first.holds:
        return first
    say("Something differs; looking once more.")
    return _look(lake, settings, chosen, say)


def _look(lake: Lake, settings: Settings, chosen: Sequence[str], say: Say) -> Verified:
    say("Looking at files.")
    opened = storage.opened(lake)
    claimed = storage.Claimed(lake.files, ClaimLog(lake.files))
    findings = [*opened.findings, *claimed.findings]
    sound = opened.sound
    try:
        if sound.opens("batches"):
            findings += _rows(lake, sound, claimed, settings, chosen, say)
    except duckdb.Error as error:
        raise LakeError(
            f"The tables cannot be read: {type(error).__name__}. Run `dicom-assets verify` again."
        ) from None
    if not chosen:
        findings += [storage.set_aside(lake.files), storage.readable(lake.files, settings.storage.umask)]
    return Verified(tuple(findings), sound, tuple(claimed.torn))


def _rows(
    lake: Lake, sound: Sound, claimed: storage.Claimed, settings: Settings, chosen: Sequence[str], say: Say
) -> Iterator[Finding]:
    with lake.cursor() as connection:
        books = arrow(connection, f"SELECT * FROM {sound.source('batches')} ORDER BY batch_id")
    status = dict(zip(books["batch_id"].to_pylist(), books["status"].to_pylist(), strict=True))
    unknown = sorted(set(chosen) - set(claimed) - set(status))
    if unknown:
        raise UnknownClaim(f"No batch '{unknown[0]}' is claimed in this lake. See `dicom-assets status`.")
    twice = len(books) - len(status)
    yield Finding("batches", "Each batch has one row in batches", twice)
    closed = books.filter(pa.array([one == Status.CLOSED for one in books["status"].to_pylist()], pa.bool_()))
    names = closed["batch_id"].to_pylist()
    looked_at = [batch for batch in names if not chosen or batch in set(chosen)]
    say(f"Comparing closed batches: {len(looked_at)}.")
    whole = frozenset(claimed)
    yield from batches.look(sound, closed, looked_at, claimed, whole)
    say("Comparing studies.")
    those = looked_at if chosen else None
    yield from studies.look(sound, closed.select(["batch_id"]), those, settings.curation)
    say("Comparing conflicts.")
    yield from conflict_rules.look(sound, closed.select(["batch_id"]), those, settings.curation)
    yield lines.look(sound, names, those, {*claimed, *status})
    if chosen:
        return
    yield from promoted_rules.look(sound)
    yield duplicate_rules.look(sound, closed.select(["batch_id"]))
    yield storage.unbooked(sound)
    yield storage.overwritten(sound)
    yield storage.identifiers(sound)
    yield storage.coverage(sound)
    yield storage.strangers(sound, claimed, is_complete=not claimed.torn)
    not_closed = sorted((set(claimed) | set(status)) - set(names))
    yield storage.staged(lake.files, not_closed)
    yield Finding(
        "open",
        "Batches that are not closed yet",
        len(not_closed),
        shown=not_closed[:SHOWN],
        told="`dicom-assets ingest` runs them" if not_closed else "",
        is_note=True,
    )


class UnknownClaim(UserError, UnknownBatch):
    """A batch that was asked for is not claimed."""
