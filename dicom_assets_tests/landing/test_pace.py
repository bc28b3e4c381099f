"""The pace of claiming: a lone file soon, a large delivery at once, a trickle in few batches, and nothing for ever."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate, cycle, takewhile

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dicom_assets.landing.claim_index import Claim
from dicom_assets.landing.claims import ClaimLog, ClaimRound, claim_listed
from dicom_assets.landing.pace import SHORTEST_SECONDS, Arrivals, Round, claim_from, recent_rounds
from dicom_assets.landing.store import LISTING
from dicom_assets.settings import ClaimingSettings
from dicom_assets.storage.files import LakeFiles

START = datetime(2026, 11, 20, tzinfo=UTC)
TICK, QUIET, DAY = 15, 10, 86_400
USUAL = ClaimingSettings()
LONGEST = USUAL.longest_wait_seconds

ONE = Arrivals(1)
SECONDS = st.integers(0, 4_000)
ARRIVALS = st.builds(
    Arrivals, st.integers(1, 1_500), st.integers(0, 5), SECONDS.map(lambda age: START - timedelta(seconds=age))
)


def rounds(*seconds_ago: float, objects: int = 1) -> list[Round]:
    return [Round(START - timedelta(seconds=ago), objects) for ago in seconds_ago]


def wait(past: list[Round], arrivals: Arrivals = ONE, claiming: ClaimingSettings = USUAL) -> float:
    """Seconds from now until the arrivals are claimed."""
    return (claim_from(past, arrivals, START, claiming) - START).total_seconds()


class TestTheDecision:
    def test_a_lone_file_is_claimed_at_once(self):
        assert wait([]) == 0
        assert wait(rounds(LONGEST)) == 0

    def test_a_large_delivery_is_claimed_at_once_whatever_came_before(self):
        assert wait(rounds(1, 100, 200, 300), Arrivals(USUAL.enough_objects, writing=50, oldest=START)) == 0

    def test_each_pause_is_twice_as_long_as_the_one_before_up_to_the_longest(self):
        assert [wait(rounds(*range(number))) for number in range(1, 8)] == [30, 60, 120, 240, 300, 300, 300]

    def test_after_a_calm_what_comes_is_the_first_of_its_kind_again(self):
        assert wait(rounds(40, 700, 800, 900)) == 0
        assert wait(rounds(40, 500, 800, 900)) > 0

    def test_large_deliveries_do_not_make_what_follows_wait(self):
        assert wait(rounds(1, 2, 3, objects=USUAL.enough_objects)) == 0

    def test_while_a_few_files_are_being_written_the_first_ones_wait_for_them(self):
        assert wait([], Arrivals(1, writing=1, oldest=START - timedelta(seconds=12))) == SHORTEST_SECONDS - 12

    def test_a_longest_wait_of_nothing_waits_for_nothing(self):
        assert wait(rounds(0, 1, 2), Arrivals(1, 1, START), ClaimingSettings(longest_wait_seconds=0)) == 0

    @given(st.lists(SECONDS, max_size=12), ARRIVALS, st.integers(0, 600), st.integers(1, 2_000))
    @settings(max_examples=300, deadline=None)
    def test_nothing_waits_longer_than_the_longest_wait_after_the_last_claim(self, ages, arrivals, longest, enough):
        claiming = ClaimingSettings(longest_wait_seconds=longest, enough_objects=enough)
        past = rounds(*sorted(ages))
        seconds = wait(past, arrivals, claiming)
        since = (START - past[0].at).total_seconds() if past else longest
        assert 0 <= seconds <= max(longest - since, min(longest, SHORTEST_SECONDS), 0)
        assert seconds == 0 or arrivals.complete < enough

    def test_claims_of_one_moment_are_one_round_and_those_of_the_future_none(self):
        def claim(source: str, seconds: float) -> Claim:
            return Claim("b", source, 5, START + timedelta(seconds=seconds), "p")

        claims = [claim("a", -90), claim("b", -60), claim("a", -30), claim("a", -29.9), claim("a", 3_600)]
        assert [(one.objects, (START - one.at).seconds) for one in recent_rounds(claims, ["a"], START)] == [
            (10, 30),
            (5, 90),
        ]


def claim_times(arrivals: list[float], enough: int) -> list[tuple[float, int]]:
    """A day of ticks over files that arrive at some seconds: when each claim is made, and of how many."""
    claiming = ClaimingSettings(enough_objects=enough)
    past: list[Round] = []
    made: list[tuple[float, int]] = []
    first = 0
    for tick in range(0, DAY, TICK):
        if first == len(arrivals) or arrivals[first] > tick:
            continue
        there = arrivals[first : bisect_right(arrivals, tick)]
        quiet = sum(at <= tick - QUIET for at in there)
        now = START + timedelta(seconds=tick)
        seen = Arrivals(quiet, len(there) - quiet, START + timedelta(seconds=there[0]))
        if quiet and claim_from(past, seen, now, claiming) <= now:
            made.append((tick, quiet))
            past.insert(0, Round(now, quiet))
            first += quiet
    return made


@given(st.lists(st.sampled_from([1, 5, 20, 50, 200, 310, 601, 1_000]), min_size=1, max_size=5))
@example([5])
@settings(max_examples=20, deadline=None)
def test_a_day_of_any_trickle_is_at_most_600_batches_and_no_file_waits_for_ever(gaps):
    arrivals = list(takewhile(lambda at: at < DAY - 400, accumulate(cycle(gaps))))[:18_000]
    made = claim_times(arrivals, 1_000)
    assert len(made) <= 600
    claimed = [at for at, count in made for _ in range(count)]
    assert len(claimed) == len(arrivals)
    assert all(QUIET <= then - at <= LONGEST + QUIET + 2 * TICK for at, then in zip(arrivals, claimed, strict=True))


class Trickle:
    """A source at which a file arrives every so many seconds; what was claimed an hour ago is taken away again."""

    def __init__(self, every: int, until: int) -> None:
        self.every, self.until, self.now = every, until, 0

    def list(self) -> Iterator[pa.RecordBatch]:
        newest = min(self.now, self.until) // self.every
        numbers = range(max(0, (self.now - 700) // self.every), newest + 1)
        times = [START + timedelta(seconds=number * self.every) for number in numbers]
        columns = [[f"file:///in/{n:06d}" for n in numbers], ["v1"] * len(numbers), [10] * len(numbers), times]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, LISTING, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=LISTING)


class Claimer:
    """Ticks of a sensor over a trickle; the process is another one every now and then."""

    def __init__(self, root: str, source: Trickle) -> None:
        self.root, self.source = root, source
        self.log = ClaimLog(LakeFiles(root))

    def tick(self, second: int, *, paced: bool = True) -> ClaimRound:
        self.source.now = second
        if second % 20 == 0:
            self.log = ClaimLog(LakeFiles(self.root))
        moment = START + timedelta(seconds=second)
        return claim_listed("landing", self.source.list, self.log, USUAL, moment, paced=paced)


@pytest.fixture
def claimer(tmp_path) -> Claimer:
    return Claimer(str(tmp_path / "lake"), Trickle(5, DAY))


class TestATrickle:
    def test_a_file_each_five_seconds_makes_at_most_600_batches_a_day_in_the_claim_log(self, claimer):
        hours = 4
        claims, files, second = 0, 0, 0
        while second < hours * 3_600:
            found = claimer.tick(second)
            claims, files = claims + len(found.claims), files + sum(claim.objects for claim in found.claims)
            pause = 0 if found.gathers_until is None else (found.gathers_until - START).total_seconds() - second
            second += TICK * max(1, -int(-pause // TICK))  # ticks in between would say the same
        assert claims <= 600 / 24 * hours
        assert files >= hours * 720 - (LONGEST + QUIET + TICK) / 5
        assert len(ClaimLog(LakeFiles(claimer.root)).claims()) == claims

    def test_24_files_one_each_five_seconds_are_at_most_4_batches(self, claimer):
        claimer.source.until = 23 * 5
        sizes = [claim.objects for second in range(0, 500, TICK) for claim in claimer.tick(second).claims]
        assert (len(sizes) <= 4, sum(sizes)) == (True, 24)

    def test_a_lone_file_is_claimed_within_a_minute(self, claimer):
        claimer.source.until = 0
        times = [second for second in range(0, 500, TICK) if claimer.tick(second).claims]
        assert times == [15]

    def test_what_waits_is_counted_with_the_moment_at_which_it_is_claimed_at_the_latest(self, claimer):
        claimer.tick(30)
        found = claimer.tick(45)
        assert (found.claims, found.gathering, found.waiting) == ((), 3, 2)
        assert found.gathers_until == START + timedelta(seconds=60)

    def test_whoever_waits_for_a_result_takes_what_is_complete(self, claimer):
        claimer.tick(30)
        assert [claim.objects for claim in claimer.tick(45, paced=False).claims] == [3]
