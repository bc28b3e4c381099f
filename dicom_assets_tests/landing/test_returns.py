"""The log of returns: whatever is cut off when, every object ends in one batch, and none without a reason in two."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dicom_assets.batch.leaving import own_manifest
from dicom_assets.landing import claims, returns
from dicom_assets.landing.claims import ClaimLog, Haste, claim_listed
from dicom_assets.landing.returns import RETURNS, ReturnLog, returned, waiting
from dicom_assets.settings import ClaimingSettings
from dicom_assets.storage.files import LakeFiles
from dicom_assets_tests.batch.test_crashes import Killed, cut_off
from dicom_assets_tests.landing.test_claims import Folder, entry

START = datetime(2026, 11, 20, tzinfo=UTC)
PAUSES = (60.0, 300.0)
SMALL = ClaimingSettings(batch_objects=3, quiet_seconds=0, again_seconds=PAUSES)
AT_ONCE = Haste(waiting=True, absent=True)
CUTS = st.sampled_from([0, 0, 1, 2, 3])


class Returning(RuleBasedStateMachine):
    """Objects come, vanish, come back; batches read them, cannot read them, or do not find them; anything breaks off.

    A batch is modelled as it is run: what is not its own any more is left out, what it could not read is returned
    before it closes, what it did not find is returned as it closes. kept: by closed batch, what it accounts for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.files = LakeFiles(self.folder.name)
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(returns, "MERGE_AFTER", 2)
        self.patch.setattr(claims, "SUMMARISE_AFTER", 4)
        self.now = START
        self.listed: set[str] = set()
        self.every: set[str] = set()
        self.closed: dict[str, dict[str, str]] = {}
        self.log = ClaimLog(self.files)

    @initialize()
    def begin(self) -> None:
        self.arrive(4)

    @rule(number=st.integers(1, 5))
    def arrive(self, number: int) -> None:
        for _ in range(number):
            name = f"{len(self.every):03d}"
            self.every.add(name)
            self.listed.add(name)

    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        if self.listed:
            self.listed.discard(data.draw(st.sampled_from(sorted(self.listed))))

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        if self.every - self.listed:
            self.listed.add(data.draw(st.sampled_from(sorted(self.every - self.listed))))

    @rule(at=CUTS, before=st.booleans(), haste=st.sampled_from([Haste(), AT_ONCE]), seconds=st.sampled_from([1, 301]))
    def claim(self, at: int, before: bool, haste: Haste, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        with cut_off(at, before=before):
            try:
                self.claim_all(haste)
            except Killed:
                self.log = ClaimLog(self.files)

    def claim_all(self, haste: Haste) -> int:
        listing = Folder([entry(name) for name in sorted(self.listed)]).list
        return len(claim_listed("landing", listing, self.log, SMALL, self.now, haste).claims)

    def names(self, batch: str) -> dict[str, str]:
        manifest = self.log.manifest(batch)
        return {
            one: uri.rsplit("/", 1)[1]
            for one, uri in zip(manifest["object_id"].to_pylist(), manifest["uri"].to_pylist(), strict=True)
        }

    @rule(data=st.data(), at=CUTS, before=st.booleans())
    def run(self, data: st.DataObject, at: int, before: bool) -> None:
        """Any batch, also one that is closed already; what it could not read is drawn."""
        batches = [claim.batch_id for claim in self.log.claims()]
        if batches:
            batch = data.draw(st.sampled_from(batches))
            unread = data.draw(st.sampled_from([set(), self.every, set(sorted(self.every)[::2])]))
            with cut_off(at, before=before):
                try:
                    self.run_batch(batch, unread)
                except Killed:
                    self.log = ClaimLog(self.files)

    def run_batch(self, batch: str, unread: set[str]) -> None:
        manifest, names = self.log.manifest(batch), self.names(batch)
        own, settled = own_manifest(manifest, self.log.returns)
        found: dict[str, str] = {}
        for one in own["object_id"].to_pylist():
            if one in settled:
                found[one] = "absent"
            elif names[one] in unread and self.closed.get(batch, {}).get(one) != "ingested":
                found[one] = "unread"
            elif names[one] in self.listed or self.closed.get(batch, {}).get(one) == "ingested":
                found[one] = "ingested"
            else:
                found[one] = "absent"
        self.give_back(batch, manifest, [one for one, what in found.items() if what == "unread"], waits=True)
        found = {one: what for one, what in found.items() if what != "unread"}
        self.give_back(batch, manifest, [one for one, what in found.items() if what == "absent"], waits=False)
        self.closed[batch] = found

    def give_back(self, batch: str, manifest: pa.Table, ids: list[str], *, waits: bool) -> None:
        rows = manifest.filter(pc.is_in(manifest["object_id"], value_set=pa.array(ids, pa.string())))
        codes = dict.fromkeys(ids, "READ_FAILED" if waits else "OBJECT_GONE")
        self.log.returns.write(batch, returned(rows, codes, PAUSES, self.now, waits=waits))

    @invariant()
    def nothing_is_ingested_twice(self) -> None:
        counts = Counter(one for kept in self.closed.values() for one, what in kept.items() if what == "ingested")
        assert all(count == 1 for count in counts.values())

    def teardown(self) -> None:
        """When everything is there and can be read, every object ends up ingested, and nothing is left to do."""
        self.listed = set(self.every)
        self.log = ClaimLog(self.files)
        for _ in range(20):
            self.now += timedelta(seconds=1)
            claimed = self.claim_all(AT_ONCE)
            for claim in self.log.claims():
                self.run_batch(claim.batch_id, set())  # those that are closed, too: they keep to what is theirs
            if not claimed:
                break
        self.nothing_is_ingested_twice()
        ingested = [
            self.names(batch)[one]
            for batch, kept in self.closed.items()
            for one, what in kept.items()
            if what == "ingested"
        ]
        left = self.log.returned()
        self.patch.undo()
        self.folder.cleanup()
        assert sorted(ingested) == sorted(self.every)
        assert not len(left)


TestReturning = Returning.TestCase
TestReturning.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)


def manifest(*names: str, attempt: int = 1) -> pa.Table:
    columns = {name: pa.array([None] * len(names), RETURNS.field(name).type) for name in RETURNS.names[:7]}
    columns |= {"object_id": pa.array(names), "source": pa.array(["landing"] * len(names))}
    columns |= {"batch_id": pa.array(["batch"] * len(names)), "attempt": pa.array([attempt] * len(names), pa.int64())}
    return pa.table(columns)


def test_what_was_returned_once_is_not_returned_again_by_the_same_batch(tmp_path):
    log = ReturnLog(LakeFiles(str(tmp_path)))
    rows = returned(manifest("a", "b"), {"a": "READ_FAILED", "b": "READER_KILLED"}, PAUSES, START, waits=True)
    log.write("batch", rows)
    log.write("batch", rows)
    (one,) = waiting(ReturnLog(LakeFiles(str(tmp_path))).open({}))
    assert (one.objects, one.codes) == (2, {"READ_FAILED": 1, "READER_KILLED": 1})
    assert one.next_at == START + timedelta(seconds=60)


def test_what_was_claimed_again_long_ago_is_known_from_the_summary(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "SUMMARISE_AFTER", 1)
    files = LakeFiles(str(tmp_path))
    listing = Folder([entry("a"), entry("b")]).list
    (first,) = claim_listed("landing", listing, ClaimLog(files), SMALL, START).claims
    log = ClaimLog(files)
    ids = log.manifest(first.batch_id)["object_id"].to_pylist()
    rows = returned(log.manifest(first.batch_id), dict.fromkeys(ids, "READ_FAILED"), PAUSES, START, waits=True)
    log.returns.write(first.batch_id, rows)
    kept = files.names("_returns/open")
    (again,) = claim_listed("landing", listing, ClaimLog(files), SMALL, START, AT_ONCE).claims
    files.put(kept[0], b"")  # as if a kill had kept the claimer from clearing away
    assert ClaimLog(files).manifest(again.batch_id)["attempt"].to_pylist() == [2, 2]
    assert files.names("_claimed"), "the summary"
    assert len(ClaimLog(files).returned()) == 0
    assert claim_listed("landing", listing, ClaimLog(files), SMALL, START, AT_ONCE).claims == ()


def test_a_round_of_claiming_reads_a_bounded_number_of_files_however_many_batches_returned_something(tmp_path):
    files = LakeFiles(str(tmp_path))
    log = ReturnLog(files)
    for number in range(60):
        rows = returned(manifest(f"{number}"), {f"{number}": "OBJECT_GONE"}, PAUSES, START, waits=False)
        log.write(f"batch{number}", rows)
        log.merge({})
    assert len(files.names("_returns/open")) <= returns.MERGE_AFTER + 1
    assert len(ReturnLog(files).open({})) == 60
    assert len(ReturnLog(files).of_batch("batch7")) == 1
    claimed_again = {f"{number}": 2 for number in range(60)}
    log.merge(claimed_again)
    assert files.names("_returns/open") == []
