"""Cases of remedies: a landing folder with its lake in which a code is caused, and the ways in which many are remedied.

Belongs here: what cases of several modules share, and the one dictionary that they are entered in. Does not belong
here: the cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicom_assets.landing.claims import Haste, claim_new
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder


@dataclass
class Zone:
    """A landing folder and its lake."""

    landing: LandingFolder
    graph: Graph

    def settle(self, **sections: Any) -> None:
        """Other settings from now on."""
        root = self.landing.root
        self.graph.settings = settings_for(
            Path(self.graph.settings.lake), root, gate={"quarantined_share": 1}, **sections
        )

    def claim(self) -> list[str]:
        """What `dicom-assets ingest` claims; the batches."""
        with self.graph.work() as work:
            (store,) = work.stores()
            done = claim_new(store, work.log, self.graph.settings.claiming, haste=Haste(waiting=True, absent=True))
        batches = [claim.batch_id for claim in done.claims]
        self.graph.instance.add_dynamic_partitions("batch", batches)
        return batches

    def ingest(self) -> list[str]:
        """What `dicom-assets ingest` claims and runs; the batches."""
        batches = self.claim()
        for batch in batches:
            self.graph.run(batch)
        return batches

    def run_again(self, batch: str) -> None:
        """What a backfill of one batch does."""
        assert self.graph.run(batch).success, self.graph.books(batch).reason
        assert self.graph.books(batch).status == "closed"

    def codes(self, name: str, *, folder: str = "") -> set[str]:
        """Every code that the newest batch that has an object or member of this name says of it, and its outcome."""
        rows = self.graph.rows(
            f"""
            SELECT r.batch_id, r.claimed_at, v.outcome, list(e.code) FILTER (e.code IS NOT NULL) AS codes
            FROM raw_files r JOIN validated_batch v USING (batch_id, object_id)
            LEFT JOIN ingestion_errors e USING (batch_id, object_id)
            WHERE coalesce(r.member, r.uri) LIKE '%{name}' AND contains(r.uri, '{folder and folder + "/"}')
            GROUP BY r.batch_id, r.claimed_at, r.object_id, v.outcome ORDER BY r.claimed_at DESC
            """
        )
        return {*(rows[0]["codes"] or ()), rows[0]["outcome"]} if rows else set()

    def of_batches(self) -> set[str]:
        """Every code that stands in ingestion_errors."""
        return {row["code"] for row in self.graph.rows("SELECT DISTINCT code FROM ingestion_errors")}


CASES: dict[tuple[str, ...], Callable[[Zone], None]] = {}
"""By codes, what causes and remedies them in a lake of their own."""


def remedy(*codes: str) -> Callable[[Callable[[Zone], None]], Callable[[Zone], None]]:
    """Enters the case of a code, or of several that share their batches."""

    def enter(case: Callable[[Zone], None]) -> Callable[[Zone], None]:
        assert codes not in CASES
        CASES[codes] = case
        return case

    return enter


Course = Callable[[Zone, str], Iterator[None]]
"""A case that goes along with others: it stops before each claim, and again before the batch is run. Twice each."""

TOGETHER: dict[str, Course] = {}


def remedied_together(code: str) -> Callable[[Course], Course]:
    """Enters the case of a code that shares its two batches with others, in a folder of the code's name."""

    def enter(case: Course) -> Course:
        assert code not in TOGETHER
        TOGETHER[code] = case
        return case

    return enter


class Courses:
    """All cases of TOGETHER, at the same step. failed: by code, what did not hold."""

    def __init__(self, zone: Zone) -> None:
        self._under_way = {code: case(zone, code) for code, case in TOGETHER.items()}
        self.failed: dict[str, AssertionError] = {}
        self.ended: set[str] = set()

    def go_on(self) -> None:
        """Takes each as far as it stops next; one that fails stops for good."""
        for code, case in list(self._under_way.items()):
            try:
                next(case)
                continue
            except StopIteration:
                self.ended.add(code)
            except AssertionError as error:
                self.failed[code] = error
            del self._under_way[code]


@dataclass(frozen=True)
class Delivery:
    """One object of several that are delivered into one lake: it causes its code, and another delivery puts it right.

    bad, good: names and contents. at, good_at: the members that the outcomes are of, where they are archives. before,
    after: sections of settings, for a code whose batch is run again instead.
    """

    bad: tuple[str, bytes]
    good: tuple[str, bytes]
    at: str = ""
    good_at: str = ""
    is_alone: bool = False
    before: dict = field(default_factory=dict)
    after: dict = field(default_factory=dict)

    def outcome(self, zone: Zone, code: str) -> set[str]:
        """What the newest batch says of what was delivered in the folder of the code."""
        return zone.codes(self.at or self.bad[0], folder=code)

    def outcome_in_the_end(self, zone: Zone, code: str) -> set[str]:
        """The same of what came in its place."""
        return zone.codes(self.good_at or (self.at if self.bad[0] == self.good[0] else "") or self.good[0], folder=code)


SENT: dict[str, Delivery] = {}
"""What is put right by another delivery."""
SET: dict[str, Delivery] = {}
"""What is put right by other settings."""


def sent_again(code: str, bad: bytes, good: bytes, name: str = "a.dcm", *, at: str = "", good_at: str = "") -> None:
    """Enters a case in which the object is delivered again under its name; at: the member that the code is of."""
    assert code not in SENT
    SENT[code] = Delivery((name, bad), (name, good), at, good_at)


def sent_as(code: str, name: str, bad: bytes, good_name: str, good: bytes, *, good_at: str = "") -> None:
    """Enters a case in which the content is delivered in another form; nothing else is said of it than the code."""
    assert code not in SENT
    SENT[code] = Delivery((name, bad), (good_name, good), good_at=good_at, is_alone=True)


def run_with(code: str, data: bytes, name: str = "a.dcm", *, good_at: str = "", before: dict, after: dict) -> None:
    """Enters a case in which settings are changed and the batch is run again."""
    assert code not in SET
    SET[code] = Delivery((name, data), (name, data), good_at=good_at, before=before, after=after)


def sections(cases: Iterable[dict[str, dict]]) -> dict[str, dict]:
    """The settings of several cases together, which must not want different ones."""
    together: dict[str, dict] = {}
    for case in cases:
        for section, values in case.items():
            merged = together.setdefault(section, {})
            assert all(merged.get(name, value) == value for name, value in values.items())
            merged |= values
    return together
