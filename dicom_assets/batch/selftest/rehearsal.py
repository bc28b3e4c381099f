"""A self-test from its beginning to its end: delivered, watched, compared, taken out again.

Belongs here: the stages with the time that each takes, and what is said when one does not come. Does not belong here:
looking (`arrival`), putting and deleting files (`delivery`), taking rows out (`clearance`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dicom_assets.batch.books import Books, Status
from dicom_assets.batch.selftest import diary
from dicom_assets.batch.selftest.arrival import Arrivals, Claimed
from dicom_assets.batch.selftest.clearance import Cleared, NotCleared, Wait, clear
from dicom_assets.batch.selftest.delivery import Delivery
from dicom_assets.batch.selftest.reference_set import EXPECTED, STUDIES, Names, files, names_of_test, paths
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import existing
from dicom_assets.landing.claims import ClaimLog
from dicom_assets.settings import Settings, SourceSettings, UserError
from dicom_assets.storage import locks
from dicom_assets.storage.files import LakeFiles

LOOK_SECONDS = 1.0
CLEAR_SECONDS = 120.0
"""How long taking out waits for batches that are at work, at least."""


@dataclass(frozen=True, slots=True)
class Line:
    """One stage, or one comparison. seconds: None for comparisons. ok: None for what was not tried."""

    name: str
    expected: int | None
    found: int | None
    ok: bool | None
    seconds: float | None
    detail: str = ""


Told = Callable[[Line], None]
Why = Callable[[SourceSettings], str]
"""Why nothing may have picked a source's files up, in a sentence; what is known of the running system."""


class _Stopped(Exception):
    """A stage did not come; the message says what is known."""


def nothing_known(_: SourceSettings) -> str:
    """Nothing is known of the running system."""
    return "Is `dagster dev` running, or the daemon, on this lake?"


@dataclass
class Rehearsal:
    """One self-test. told: called with each line as it is known. wait: lets a while pass.

    why: asked when nothing has picked the files up.
    """

    settings: Settings
    source: SourceSettings
    timeout: float = 300.0
    told: Told = lambda _: None
    wait: Wait = time.sleep
    why: Why = nothing_known
    lines: list[Line] = field(default_factory=list)

    def run(self, *, keep: bool = False) -> bool:
        """Delivers, watches, compares, and takes everything out again, whatever comes of it; whether all was right.

        keep: it stays, for somebody to look at, until `clean`. Raises UserError when it cannot even begin, NotCleared,
        and KeyboardInterrupt once everything is taken out.
        """
        lake = existing(self.settings.lake)
        Delivery(self.source, f"{diary.PREFIX}{'0' * 8}").require_wanted(paths())
        since = len(ClaimLog(lake.files).claims())
        entry = diary.begin(lake.files, self.source.name, self.source.root)
        delivery = Delivery(self.source, entry.prefix)
        arrivals = Arrivals(lake, self._names(entry.token), delivery.uri_prefix, since)
        with locks.held(lake.files, _lock_of(entry), 5.0, once=True):
            try:
                passed = self._watch(lake, entry, delivery, arrivals)
                entry = diary.write(lake.files, replace(_of(lake.files, entry), passed=passed))
            finally:
                is_out = keep or self._take_out(lake, _of(lake.files, entry), delivery, arrivals)
        return passed and is_out

    def _names(self, token: str) -> Names:
        base = self.settings.fhir.base
        return names_of_test(token, self.source.name if base is None else base)

    def _watch(self, lake: Lake, entry: diary.Entry, delivery: Delivery, arrivals: Arrivals) -> bool:
        names = self._names(entry.token)
        count = 0
        begun = time.monotonic()
        for path, data in files(names):
            delivery.put(path, data)
            count += 1
        self._stage("arrived", count, delivery.count(), begun)
        try:
            claimed = self._claimed(count, arrivals)
            diary.write(lake.files, replace(entry, batches=claimed.batches))
            self._until("read", len(claimed.batches), lambda: arrivals.read(claimed.batches), arrivals, claimed)
            self._until("published", STUDIES, arrivals.published, arrivals, claimed)
            self._until("closed", len(claimed.batches), lambda: self._closed(arrivals, claimed), arrivals, claimed)
        except _Stopped:
            return False
        right = self._compare(arrivals.counts(claimed))
        return self._balance(arrivals, claimed) and right

    def _stage(self, name: str, expected: int, found: int, begun: float, detail: str = "") -> bool:
        return self._enter(Line(name, expected, found, found == expected, time.monotonic() - begun, detail))

    def _enter(self, line: Line) -> bool:
        self.lines.append(line)
        self.told(line)
        return line.ok is not False

    def _claimed(self, count: int, arrivals: Arrivals) -> Claimed:
        begun = time.monotonic()
        while True:
            claimed = arrivals.claimed()
            if len(claimed.objects) >= count:
                break
            if time.monotonic() - begun >= self.timeout:
                detail = self._late(len(claimed.objects))
                self._stage("claimed", count, len(claimed.objects), begun, detail)
                raise _Stopped
            self.wait(LOOK_SECONDS)
        other = [name for name in claimed.sources if name != self.source.name]
        named = f"the running system calls its source '{other[0]}': name it so here, too" if other else ""
        self._stage("claimed", count, len(claimed.objects), begun, named or _listed("batch", claimed.batches))
        return claimed

    def _late(self, found: int) -> str:
        few = "no sensor claimed the files" if not found else "a sensor claimed only some of the files"
        return f"{few} within {self.timeout:.0f} s. {self.why(self.source)}"

    def _until(self, name: str, expected: int, look: Callable[[], int], arrivals: Arrivals, claimed: Claimed) -> None:
        """Waits until a count is reached. Raises _Stopped when a batch stops, or when it takes too long."""
        begun = time.monotonic()
        while (found := look()) < expected:
            stopped = [one for one in arrivals.books(claimed.batches).values() if _has_stopped(one)]
            late = time.monotonic() - begun >= self.timeout
            if stopped or late:
                why = _stop_words(stopped) if stopped else f"not within {self.timeout:.0f} s. {self.why(self.source)}"
                self._stage(name, expected, found, begun, why)
                raise _Stopped
            self.wait(LOOK_SECONDS)
        self._stage(name, expected, found, begun)

    def _closed(self, arrivals: Arrivals, claimed: Claimed) -> int:
        return sum(one.status == Status.CLOSED for one in arrivals.books(claimed.batches).values())

    def _compare(self, found: dict[str, int]) -> bool:
        right = [
            self._enter(Line(name, expected, found[name], found[name] == expected, None))
            for name, expected in EXPECTED.items()
        ]
        return all(right)

    def _balance(self, arrivals: Arrivals, claimed: Claimed) -> bool:
        """Seen = ingested + quarantined + ignored + deleted, over its batches."""
        books = list(arrivals.books(claimed.batches).values())
        seen, out = sum(one.seen for one in books), sum(one.seen - one.balance for one in books)
        return self._enter(Line("books", seen, out, seen == out and bool(books), None, "seen, and accounted for"))

    def _take_out(self, lake: Lake, entry: diary.Entry, delivery: Delivery, arrivals: Arrivals) -> bool:
        return take_out(self.settings, lake.files, entry, delivery, arrivals, self._enter, self.timeout, self.wait)


def take_out(
    settings: Settings,
    files: LakeFiles,
    entry: diary.Entry,
    delivery: Delivery,
    arrivals: Arrivals,
    enter: Callable[[Line], bool],
    seconds: float,
    wait: Wait = time.sleep,
) -> bool:
    """Takes out one self-test, and looks that nothing is left; whether nothing is. Raises NotCleared."""
    begun = time.monotonic()
    cleared = clear(settings, entry, delivery, arrivals, seconds=max(seconds, CLEAR_SECONDS), wait=wait)
    left = delivery.count() + arrivals.published()
    diary.finish(files, _of(files, entry))
    detail = _cleared_words(cleared)
    return enter(Line("removed", 0, left, left == 0, time.monotonic() - begun, detail))


def clean(settings: Settings, told: Told, seconds: float = CLEAR_SECONDS) -> bool:
    """Takes out what self-tests that were killed have left; whether nothing is left. Raises UserError."""
    lake = existing(settings.lake)
    right = True
    for entry in diary.entries(lake.files):
        if entry.cleaned_at is not None:
            continue
        source = _source_of(settings, entry)
        delivery = Delivery(source, entry.prefix)
        base = settings.fhir.base
        names = names_of_test(entry.token, source.name if base is None else base)
        arrivals = Arrivals(lake, names, delivery.uri_prefix, 0)

        def enter(line: Line) -> bool:
            told(replace(line, name=f"{line.name} {entry.token}"))  # noqa: B023 - called at once
            return line.ok is not False

        try:
            with locks.held(lake.files, _lock_of(entry), 0, once=True):
                right = take_out(settings, lake.files, entry, delivery, arrivals, enter, seconds) and right
        except locks.LockBusy:
            continue  # it is under way, and takes itself out
    return right


def _lock_of(entry: diary.Entry) -> str:
    """Name of the lock that a self-test holds as long as it is under way."""
    return f"selftest-{entry.token}"


def _source_of(settings: Settings, entry: diary.Entry) -> SourceSettings:
    """The source that a self-test delivered to, by its name, or by its place. Raises UserError."""
    for source in settings.sources:
        if source.root == entry.root:
            return source
    raise UserError(
        f"Self-test {entry.token} delivered to source '{entry.source}', which is not configured at the place that it "
        "had: give it with --landing."
    )


def _of(files: LakeFiles, entry: diary.Entry) -> diary.Entry:
    """The entry as it is written down now."""
    return next((one for one in diary.entries(files) if one.token == entry.token), entry)


def _has_stopped(books: Books) -> bool:
    return books.status in (Status.PAUSED, Status.FAILED)


def _stop_words(books: list[Books]) -> str:
    one = books[0]
    return f"batch {one.batch_id} is {one.status}: {one.reason or 'see its run'}"


def _listed(what: str, names: tuple[str, ...]) -> str:
    return f"{what} {' '.join(names)}" if names else ""


def _cleared_words(cleared: Cleared) -> str:
    return f"files at the source: {cleared.files}; of the lake: {cleared.objects} objects, {cleared.studies} studies"


__all__ = ["Line", "NotCleared", "Rehearsal", "clean", "nothing_known"]
