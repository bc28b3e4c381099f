"""Claims: what is new, how batches are made of it, and that no object is ever claimed twice or lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.landing.claim_index import ids_of_digests, pack_ids, unpack_ids
from dicom_assets.landing.claims import (
    MANIFEST,
    ClaimedIds,
    ClaimLog,
    Plan,
    UnknownBatch,
    batch_id,
    claim_new,
    plan,
    seconds_until,
)
from dicom_assets.landing.store import LISTING, SourceUnavailable, object_digests, object_id
from dicom_assets.settings import ClaimingSettings
from dicom_assets.storage.files import LakeError, LakeFiles

NOW = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
OLD = NOW - timedelta(days=1)
Entry = tuple[str, str, int, datetime | None]


def entry(path: str, etag: str = "v1", modified_at: datetime | None = OLD) -> Entry:
    return (f"file:///in/{path}", etag, 10, modified_at)


def listing(entries: Iterable[Entry], part: int = 1_000) -> Iterator[pa.RecordBatch]:
    entries = list(entries)
    for start in range(0, len(entries), part):
        columns = zip(*entries[start : start + part], strict=True)
        yield pa.RecordBatch.from_arrays(
            [pa.array(list(c), field.type) for c, field in zip(columns, LISTING, strict=True)], schema=LISTING
        )


def planned(entries: Iterable[Entry], claimed: Iterable[str] = (), part: int = 1_000, **claiming: float) -> Plan:
    chosen = ClaimingSettings.model_validate({"quiet_seconds": 10, **claiming})
    return plan("landing", listing(entries, part), ClaimedIds([pa.array(list(claimed), pa.string())]), NOW, chosen)


def uris(plan: Plan) -> list[list[str]]:
    return [[uri.removeprefix("file:///in/") for uri in batch["uri"].to_pylist()] for batch in plan.batches]


def ids(plan: Plan) -> list[str]:
    return [one for batch in plan.batches for one in batch["object_id"].to_pylist()]


class Folder:
    """A landing store that lists what it is given; `meanwhile` happens while it lists."""

    name = "landing"

    def __init__(self, entries: Iterable[Entry], meanwhile=lambda: None) -> None:
        self.entries, self.meanwhile = list(entries), meanwhile

    def list(self) -> Iterator[pa.RecordBatch]:
        yield from listing(self.entries)
        self.meanwhile()


@pytest.fixture
def files(tmp_path) -> LakeFiles:
    return LakeFiles(str(tmp_path / "lake"))


@st.composite
def zones(draw) -> list[Entry]:
    """Folders of files, in the order in which a store lists them, some of them young, some from the future."""
    entries = []
    for folder in range(draw(st.integers(0, 6))):
        for number in range(draw(st.integers(0, 9))):
            age = draw(st.sampled_from([86_400.0, 60.0, 9.0, 0.0, -1.0, -3_600.0]))
            entries.append(entry(f"{folder}/{number}", modified_at=NOW - timedelta(seconds=age)))
    return entries


class TestPlan:
    @given(zones(), st.sets(st.integers(0, 60)), st.integers(1, 12), st.integers(1, 30), st.integers(1, 20))
    @settings(max_examples=150, deadline=None)
    def test_every_new_object_is_in_exactly_one_batch_or_waits_or_is_left_for_the_next_time(
        self, zone, claimed_places, bound, wanted, part
    ):
        every = [object_id("landing", uri, etag, None) for uri, etag, _, _ in zone]
        claimed = {every[place] for place in claimed_places if place < len(every)}
        found = planned(zone, claimed, part, batch_objects=bound, batches_per_tick=wanted)

        counts = Counter(ids(found))
        assert set(counts) <= set(every) - claimed
        assert all(count == 1 for count in counts.values())
        assert len(found.batches) <= wanted
        assert all(1 <= len(batch) <= bound for batch in found.batches)
        if not found.more:
            young = [one for one, (*_, at) in zip(every, zone, strict=True) if 0 <= (NOW - at).total_seconds() < 10]
            barely_ahead = [one for one, (*_, at) in zip(every, zone, strict=True) if (NOW - at).total_seconds() == -1]
            waiting = (set(young) | set(barely_ahead)) - claimed
            assert found.waiting == len(waiting)
            assert set(counts) == set(every) - claimed - waiting

    @given(zones(), st.integers(1, 12), st.integers(1, 5))
    @settings(max_examples=60, deadline=None)
    def test_tick_after_tick_claims_everything_that_does_not_wait(self, zone, bound, wanted):
        claimed: list[str] = []
        for _ in range(100):
            found = planned(zone, claimed, batch_objects=bound, batches_per_tick=wanted)
            claimed += ids(found)
            if not found.more:
                break
        assert len(claimed) == len(set(claimed)) == len(zone) - found.waiting

    def test_a_folder_stays_together_where_it_fits(self):
        zone = [entry(f"{folder}/{n}") for folder, size in (("a", 3), ("b", 3), ("c", 2)) for n in range(size)]
        assert uris(planned(zone, batch_objects=5)) == [
            ["a/0", "a/1", "a/2"],
            ["b/0", "b/1", "b/2", "c/0", "c/1"],
        ]

    def test_a_folder_that_is_too_large_is_cut(self):
        zone = [entry(f"a/{n}") for n in range(7)]
        assert [len(batch) for batch in planned(zone, batch_objects=3).batches] == [3, 3, 1]

    def test_a_changed_file_is_a_new_object(self):
        first = planned([entry("a/1", "v1")])
        assert uris(planned([entry("a/1", "v1")], ids(first))) == []
        assert uris(planned([entry("a/1", "v2")], ids(first))) == [["a/1"]]

    def test_the_same_file_in_another_source_is_another_object(self):
        found = planned([entry("a/1")], [object_id("elsewhere", "file:///in/a/1", "v1", None)])
        assert uris(found) == [["a/1"]]

    def test_a_file_younger_than_the_quiet_period_waits_until_it_is_old_enough(self):
        found = planned([entry("a/old"), entry("a/new", modified_at=NOW - timedelta(seconds=4))])
        assert uris(found) == [["a/old"]]
        assert found.waiting == 1
        assert found.quiet_at == NOW + timedelta(seconds=6)
        assert not found.more

    def test_a_file_from_the_far_future_does_not_wait_for_ever(self):
        found = planned([entry("a/1", modified_at=NOW + timedelta(days=400))])
        assert uris(found) == [["a/1"]]
        assert found.waiting == 0

    def test_a_file_without_a_time_does_not_get_lost(self):
        assert uris(planned([entry("a/1", modified_at=None), entry("a/2")])) == [["a/1", "a/2"]]

    def test_without_a_quiet_period_nothing_waits(self):
        assert uris(planned([entry("a/1", modified_at=NOW)], quiet_seconds=0)) == [["a/1"]]

    def test_more_is_said_only_when_something_is_left(self):
        zone = [entry(f"{n}/x") for n in range(4)]
        assert not planned(zone, batch_objects=1, batches_per_tick=4).more
        found = planned(zone, batch_objects=1, batches_per_tick=3)
        assert found.more
        assert len(found.batches) == 3

    def test_nothing_there_is_nothing_to_do(self):
        assert planned([]) == Plan((), 0, None, False)

    def test_a_batch_id_sorts_by_the_time_of_its_claim_and_names_its_objects(self):
        one, other = planned([entry("a/1")]).batches[0], planned([entry("a/2")]).batches[0]
        assert batch_id(one).startswith("20261120T143000Z-")
        assert batch_id(one) != batch_id(other)
        assert batch_id(one) == batch_id(planned([entry("a/1")]).batches[0])


class TestClaimLog:
    def test_a_claim_is_read_back_as_it_was_made_by_whoever_opens_the_log(self, files):
        done = claim_new(Folder([entry("a/1"), entry("a/2")]), ClaimLog(files), ClaimingSettings(), NOW)
        (claim,) = done.claims
        log = ClaimLog(files)
        manifest = log.manifest(claim.batch_id)
        assert manifest.schema == MANIFEST
        assert manifest["uri"].to_pylist() == ["file:///in/a/1", "file:///in/a/2"]
        assert manifest["claimed_at"].to_pylist() == [NOW, NOW]
        assert [c.batch_id for c in log.claims()] == [claim.batch_id]

    def test_what_is_claimed_is_not_claimed_again(self, files):
        store = Folder([entry("a/1")])
        assert len(claim_new(store, ClaimLog(files), ClaimingSettings(), NOW).claims) == 1
        assert claim_new(store, ClaimLog(files), ClaimingSettings(), NOW).claims == ()
        assert len(ClaimLog(files)) == 1

    def test_a_number_is_given_once(self, files):
        first, second = ClaimLog(files), ClaimLog(files)
        mine, theirs = planned([entry("a/1")]).batches[0], planned([entry("b/1")]).batches[0]
        claim = first.append(mine, 0)
        assert claim is not None
        assert second.append(theirs, 0) is None
        assert [c.batch_id for c in second.claims()] == [claim.batch_id]

    def test_a_claimer_that_was_overtaken_while_listing_plans_anew(self, files):
        zone = [entry(f"{folder}/{n}") for folder in "ab" for n in range(2)]
        small = ClaimingSettings(batch_objects=2)

        def overtake() -> None:
            store.meanwhile = lambda: None
            claim_new(Folder(zone), ClaimLog(files), small, NOW)

        store = Folder([*zone, entry("c/0")], meanwhile=overtake)
        mine = claim_new(store, ClaimLog(files), small, NOW)
        assert [claim.objects for claim in mine.claims] == [1]
        assert _claimed_counts(files) == Counter(
            object_id("landing", uri, etag, None) for uri, etag, *_ in store.entries
        )

    def test_claimers_side_by_side_never_claim_the_same_object(self, files):
        zone = [entry(f"{folder}/{n}") for folder in range(12) for n in range(3)]
        start = threading.Barrier(4)

        def claimer(_: int) -> None:
            log = ClaimLog(files)
            start.wait()
            while claim_new(Folder(zone), log, ClaimingSettings(batch_objects=3, batches_per_tick=2), NOW).more:
                pass

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(claimer, range(4)))
        assert _claimed_counts(files) == _each_once(zone)

    def test_a_failed_listing_is_not_an_empty_listing_and_claims_nothing(self, files):
        def fail() -> None:
            raise SourceUnavailable("Source 'landing': gone.")

        with pytest.raises(SourceUnavailable):
            claim_new(Folder([entry("a/1")], meanwhile=fail), ClaimLog(files), ClaimingSettings(), NOW)
        assert len(ClaimLog(files)) == 0

    def test_a_crash_after_the_first_of_two_claims_leaves_the_second_for_the_next_time(self, files, monkeypatch):
        zone = [entry("a/1"), entry("b/1")]
        small = ClaimingSettings(batch_objects=1)
        put, puts = LakeFiles.put_parquet, []

        def put_once(self, path, table, *, create=False):
            if puts:
                raise LakeError("The disk that holds the lake is full.")
            puts.append(path)
            return put(self, path, table, create=create)

        monkeypatch.setattr(LakeFiles, "put_parquet", put_once)
        with pytest.raises(LakeError):
            claim_new(Folder(zone), ClaimLog(files), small, NOW)
        monkeypatch.undo()
        assert [claim.objects for claim in claim_new(Folder(zone), ClaimLog(files), small, NOW).claims] == [1]
        assert set(_claimed_counts(files).values()) == {1}
        assert len(_claimed_counts(files)) == 2

    def test_a_claim_that_broke_off_in_the_middle_is_not_there(self, files):
        claim_new(Folder([entry("a/1")]), ClaimLog(files), ClaimingSettings(), NOW)
        torn = files.local_root / "_claims" / "000000000002.parquet#1"  # what the storage leaves when it is killed
        torn.write_bytes(b"PAR1")
        assert len(ClaimLog(files)) == len(ClaimLog(files).claims()) == 1
        assert len(claim_new(Folder([entry("a/2")]), ClaimLog(files), ClaimingSettings(), NOW).claims) == 1

    def test_an_unknown_batch_is_named_with_what_to_do(self, files):
        with pytest.raises(UnknownBatch, match=r"No batch 'nope' .* `dicom-assets status`"):
            ClaimLog(files).manifest("nope")


def _claimed_counts(files: LakeFiles) -> Counter[str]:
    log = ClaimLog(files)
    return Counter(one for claim in log.claims() for one in log.manifest(claim.batch_id)["object_id"].to_pylist())


def _each_once(entries: Iterable[Entry]) -> Counter[str]:
    return Counter(object_id("landing", uri, etag, None) for uri, etag, *_ in entries)


_object_ids = st.integers(0, 2**20).map(lambda number: f"{number * 0x9E3779B97F4A7C15 % 2**16:016x}{number % 3:04x}")


@given(st.lists(st.lists(_object_ids, max_size=30), max_size=3), st.lists(_object_ids, max_size=40), st.integers(1, 3))
def test_what_is_missing_is_what_was_never_claimed_however_often_it_is_asked(claimed, wanted, times):
    first, *others = claimed or [[]]
    run = np.sort(pack_ids(pa.array(sorted(set(first)), pa.string())))
    known = ClaimedIds([pa.array(part, pa.string()) for part in others], [run])
    expected = [one not in {*first, *(one for part in others for one in part)} for one in wanted]
    for _ in range(times):
        assert known.missing(pa.array(wanted, pa.string())).tolist() == expected


@given(st.lists(st.tuples(st.text(), st.text()), max_size=20))
def test_digests_of_many_objects_are_their_ids(objects):
    uris, etags = (pa.array([pair[at] for pair in objects], pa.string()) for at in (0, 1))
    expected = "".join(object_id("landing", uri, etag, None) for uri, etag in objects)
    assert object_digests("landing", uris, etags).hex() == expected
    assert "".join(unpack_ids(ids_of_digests(object_digests("landing", uris, etags))).to_pylist()) == expected


def test_seconds_until_a_moment_are_never_negative():
    assert seconds_until(None) == 0
    assert seconds_until(datetime.now(UTC) - timedelta(seconds=5)) == 0
    assert seconds_until(datetime.now(UTC) + timedelta(seconds=5)) == 5
