"""Cases of remedies: a landing folder with its lake in which a code is caused, and the ways in which many are remedied.

Belongs here: what cases of several modules share, and the one dictionary that they are entered in. Does not belong
here: the cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicom_assets.landing.claims import Haste, claim_new
from dicom_assets.schema.codes import CODES
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder


@dataclass
class Zone:
    """A landing folder and its lake."""

    landing: LandingFolder
    graph: Graph

    def settle(self, **sections: dict) -> None:
        """Other settings from now on."""
        root = self.landing.root
        self.graph.settings = settings_for(
            Path(self.graph.settings.lake), root, gate={"quarantined_share": 1}, **sections
        )

    def ingest(self) -> list[str]:
        """What `dicom-assets ingest` claims and runs; the batches."""
        with self.graph.work() as work:
            (store,) = work.stores()
            done = claim_new(store, work.log, self.graph.settings.claiming, haste=Haste(waiting=True, absent=True))
        batches = [claim.batch_id for claim in done.claims]
        self.graph.instance.add_dynamic_partitions("batch", batches)
        for batch in batches:
            self.graph.run(batch)
        return batches

    def run_again(self, batch: str) -> None:
        """What a backfill of one batch does."""
        assert self.graph.run(batch).success, self.graph.books(batch).reason
        assert self.graph.books(batch).status == "closed"

    def codes(self, name: str) -> set[str]:
        """Every code that the newest batch that has an object or member of this name says of it."""
        rows = self.graph.rows(
            f"""
            SELECT r.batch_id, r.claimed_at, v.outcome, list(e.code) FILTER (e.code IS NOT NULL) AS codes
            FROM raw_files r JOIN validated_batch v USING (batch_id, object_id)
            LEFT JOIN ingestion_errors e USING (batch_id, object_id)
            WHERE coalesce(r.member, r.uri) LIKE '%{name}'
            GROUP BY r.batch_id, r.claimed_at, r.object_id, v.outcome ORDER BY r.claimed_at DESC
            """
        )
        return {*(rows[0]["codes"] or ()), rows[0]["outcome"]} if rows else set()

    def of_batches(self) -> set[str]:
        """Every code that stands in ingestion_errors."""
        return {row["code"] for row in self.graph.rows("SELECT DISTINCT code FROM ingestion_errors")}


CASES: dict[str, Callable[[Zone], None]] = {}


def remedy(code: str) -> Callable[[Callable[[Zone], None]], Callable[[Zone], None]]:
    """Enters the case of a code."""

    def enter(case: Callable[[Zone], None]) -> Callable[[Zone], None]:
        assert code not in CASES
        CASES[code] = case
        return case

    return enter


def sent_again(code: str, bad: bytes, good: bytes, name: str = "a.dcm", *, at: str = "", good_at: str = "") -> None:
    """Enters a case in which the object is delivered again under its name; at: the member that the code is of."""

    def case(zone: Zone) -> None:
        zone.landing.put(name, bad)
        zone.ingest()
        assert code in zone.codes(at or name)
        zone.landing.put(name, good, age_seconds=3_600)
        zone.ingest()
        assert zone.codes(good_at or at or name) == {"ingested"}

    remedy(code)(case)


def sent_as(code: str, name: str, bad: bytes, good_name: str, good: bytes, *, good_at: str = "") -> None:
    """Enters a case in which the content is delivered in another form."""

    def case(zone: Zone) -> None:
        zone.landing.put(name, bad)
        zone.ingest()
        assert zone.codes(name) == {code, "quarantined"}
        zone.landing.put(good_name, good)
        zone.ingest()
        assert zone.codes(good_at or good_name) == {"ingested"}

    remedy(code)(case)


def run_with(code: str, data: bytes, name: str = "a.dcm", *, good_at: str = "", before: dict, after: dict) -> None:
    """Enters a case in which settings are changed. before, after: sections of settings."""

    def case(zone: Zone) -> None:
        zone.settle(**before)
        zone.landing.put(name, data)
        (batch,) = zone.ingest()
        assert code in zone.codes(name)
        (section, values), *_ = after.items()
        for setting in values:
            assert f"{section}.{setting}" in CODES[code].remedy
        zone.settle(**after)
        zone.run_again(batch)
        assert zone.codes(good_at or name) == {"ingested"}

    assert "run its batch again" in CODES[code].remedy
    remedy(code)(case)
