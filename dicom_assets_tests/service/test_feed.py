"""Windows of a feed over real HTTP: every change of the window, once, whatever the server does on the way."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from dicom_assets.landing.change_windows import Operation, parse_entry, read_head
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.errors import AnswerInvalid, ServiceError, ServiceUnavailable, WindowOpen
from dicom_assets.service.feed import Window, latest, read_window, require_closed
from dicom_assets.service.window_files import Landed, LandingUnwritable, land, landed_entries, window_path
from dicom_assets_tests.service.feed_server import Fault, FeedServer, running
from dicom_assets_tests.service.service_model import metadata

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
HOUR = Window(START, START + timedelta(hours=1))


@pytest.fixture
def server():
    with running() as server:
        yield server


def fill(server: FeedServer, count: int, gap: int = 0, seconds: float = 0.0) -> None:
    """Stores `count` instances, each after a gap in sequence numbers and time."""
    for number in range(count):
        server.model.advance(seconds)
        server.model.skip(gap)
        study = f"1.{number // 50}"
        server.model.store(metadata(study, f"{study}.1", f"{study}.1.{number}"))


def client(server: FeedServer, **values) -> ServiceClient:
    return ServiceClient(server.settings(**values), sleep=lambda _: None)


def sequences(server: FeedServer, window: Window = HOUR, **values) -> list[int]:
    with client(server, **values) as connection:
        return [entry["sequence"] for page in read_window(connection, window) for entry in page.entries]


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 400, 657])
def test_pages_are_read_until_one_is_shorter_than_the_limit(server, count):
    fill(server, count)
    assert sequences(server) == list(range(1, count + 1))
    assert server.requests["/v2/changefeed"] == count // 200 + 1


def test_a_window_has_what_happened_from_its_start_to_before_its_end(server):
    fill(server, 10, seconds=600)
    assert sequences(server, HOUR) == [1, 2, 3, 4, 5]
    following = Window(HOUR.end, HOUR.end + timedelta(hours=1))
    assert sequences(server, following) == [6, 7, 8, 9, 10]


def test_a_page_of_superseded_entries_only_does_not_end_the_window(server):
    for number in range(200):
        server.model.delete(server.model.store(metadata("1.1", "1.1.1", f"1.1.1.{number}")))
    fill(server, 30)
    assert len(sequences(server)) == 430
    with client(server) as connection:
        first = next(iter(read_window(connection, HOUR))).entries
    kinds = {parse_entry(entry).operation for entry in first}
    assert kinds == {Operation.SUPERSEDED, Operation.DELETE}


def test_both_casings_read_the_same(server):
    fill(server, 3)
    with client(server) as connection:
        camel = [parse_entry(entry) for page in read_window(connection, HOUR) for entry in page.entries]
        server.casing = "documented"
        documented = [parse_entry(entry) for page in read_window(connection, HOUR) for entry in page.entries]
    assert documented == camel


def test_entries_come_with_and_without_metadata(server):
    fill(server, 2)
    with client(server) as connection:
        assert all("metadata" not in e for page in read_window(connection, HOUR, metadata=False) for e in page.entries)
        assert all("metadata" in e for page in read_window(connection, HOUR) for e in page.entries)


def test_an_hour_of_trouble_is_read_all_the_same(server):
    fill(server, 850)
    trouble = [Fault(429, {"retry-after": "0"}), Fault(503), Fault(500), Fault(502)]

    def before(path: str) -> None:
        if trouble and server.requests[path] % 2:
            server.faults.append(trouble.pop())

    server.before = before
    assert sequences(server) == list(range(1, 851))
    assert not trouble


def test_a_service_that_stays_away_is_an_error_that_names_the_window(server):
    server.faults += [Fault(503)] * 20
    with pytest.raises(ServiceUnavailable, match="2026-03-01T08:00:00Z/2026-03-01T09:00:00Z"):
        sequences(server, retries=2)


def test_a_token_that_ends_in_the_middle_of_a_window_is_renewed(server):
    fill(server, 450)
    server.tokens = {"one": time.time() + 60, "two": time.time() + 60}
    used = ["one", "two"]

    class Renewing:
        def header(self):
            return f"Bearer {used[0]}"

        def renew(self):
            used.pop(0)
            return True

    def before(path: str) -> None:
        if server.requests[path] == 2:
            server.tokens["one"] = 0.0

    server.before = before
    with ServiceClient(server.settings(), Renewing()) as connection:
        assert sum(len(page.entries) for page in read_window(connection, HOUR)) == 450
    assert used == ["two"]


def test_a_server_that_ignores_offset_is_noticed(server):
    fill(server, 450)
    server.ignores_offset = True
    with pytest.raises(AnswerInvalid, match="ignores offset"):
        sequences(server)


def test_a_window_that_moves_while_it_is_read_is_noticed(server):
    fill(server, 250)

    def before(path: str) -> None:
        if server.requests[path] == 2:
            # A change with an older timestamp than all others pushes the last row of page one onto page two.
            late = server.model.rows.pop(0)
            server.model.rows.insert(0, late)
            key = server.model.store(metadata("9.9", "9.9.1", "9.9.1.1"))
            row = server.model.rows.pop()
            server.model.rows.append(type(row)(row.sequence, key, row.action, late.ticks - 1, row.watermark))

    server.before = before
    with pytest.raises(AnswerInvalid):
        sequences(server)


def test_an_open_window_is_not_read(server):
    with client(server) as connection:
        with pytest.raises(WindowOpen, match="2026-03-01T09:15:00Z"):
            require_closed(connection, HOUR, timedelta(minutes=15), HOUR.end + timedelta(minutes=14))
        require_closed(connection, HOUR, timedelta(minutes=15), HOUR.end + timedelta(minutes=15))


def test_a_request_that_breaks_the_rules_is_refused_as_the_contract_says(server):
    with client(server) as connection:
        for path in (
            "v2/changefeed?limit=201",
            "v2/changefeed?limit=0",
            "v2/changefeed?offset=-1",
            "v2/changefeed?startTime=2026-03-01T08:00:00",
            "v2/changefeed?startTime=2026-03-01T08:00:00Z&endTime=2026-03-01T08:00:00Z",
            "v1/changefeed?limit=101",
        ):
            with pytest.raises(ServiceError) as error:
                connection.get(path, what="changes")
            assert error.value.status == 400


@pytest.mark.parametrize(("count", "gap", "seconds"), [(60, 0, 30), (60, 7, 30), (60, 350, 30), (3, 10_000, 2_000)])
def test_v1_reads_the_same_windows_by_sequence_across_gaps(server, count, gap, seconds):
    fill(server, count, gap=gap, seconds=seconds)
    server.has_v2 = False
    by_time = {}
    with client(server, api="v1", page_size=100) as connection:
        for number in range(3):
            window = Window(START + timedelta(hours=number), START + timedelta(hours=number + 1))
            by_time[number] = [e["sequence"] for page in read_window(connection, window) for e in page.entries]
    expected = {number: [row.sequence for row in server.model.rows if hour(row) == number] for number in range(3)}
    assert by_time == expected
    assert sum(map(len, by_time.values())) == sum(hour(row) < 3 for row in server.model.rows)


def hour(row) -> int:
    return (row.ticks // 10_000_000 - int(START.timestamp())) // 3_600


def test_v1_finds_a_late_window_without_reading_the_feed_before_it(server):
    fill(server, 3_000, gap=3, seconds=60)
    late = Window(START + timedelta(hours=49), START + timedelta(hours=50))
    assert len(sequences(server, late, api="v1")) == 60
    assert server.requests["/v1/changefeed"] < 40


def test_a_server_without_v2_is_read_by_v1(server):
    fill(server, 5)
    server.has_v2 = False
    assert sequences(server) == [1, 2, 3, 4, 5]


def test_the_newest_change_of_an_empty_feed_is_none(server):
    with client(server) as connection:
        assert latest(connection) is None
        fill(server, 2)
        assert latest(connection)[0] == 2


def landing(server: FeedServer, tmp_path, window: Window = HOUR) -> Landed:
    settings = server.settings(landing=str(tmp_path / "changes"))
    with ServiceClient(settings, sleep=lambda _: None) as connection:
        return land(settings, window_path(window), window, read_window(connection, window), "v2")


def test_a_window_is_one_file_with_a_name_that_follows_from_it(server, tmp_path):
    fill(server, 450)
    landed = landing(server, tmp_path)
    assert landed.path == "windows/2026/03/01/20260301T080000Z-20260301T090000Z.ndjson.zst"
    assert (landed.entries, landed.pages, landed.changed) == (450, 3, True)
    files = [path for path in (tmp_path / "changes").rglob("*") if path.is_file()]
    assert len(files) == 1


def test_a_window_read_again_replaces_its_file_only_when_something_differs(server, tmp_path):
    fill(server, 5)
    landing(server, tmp_path)
    path = tmp_path / "changes" / window_path(HOUR)
    before = path.stat()
    assert not landing(server, tmp_path).changed
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    server.model.advance(7_200)
    server.model.delete(next(iter(server.model.current)))
    assert landing(server, tmp_path).changed
    settings = server.settings(landing=str(tmp_path / "changes"))
    assert [entry["state"] for entry in landed_entries(settings, window_path(HOUR))].count("Deleted") == 1


def test_a_window_without_changes_leaves_no_file(server, tmp_path):
    assert not landing(server, tmp_path).changed
    assert not list((tmp_path / "changes").rglob("*.zst"))


def test_a_window_that_cannot_be_read_whole_leaves_what_was_there(server, tmp_path):
    fill(server, 450)
    landing(server, tmp_path)
    path = tmp_path / "changes" / window_path(HOUR)
    before = path.read_bytes()
    server.before = lambda p: server.faults.append(Fault(400)) if server.requests[p] % 3 == 2 else None
    with pytest.raises(ServiceError):
        landing(server, tmp_path)
    assert path.read_bytes() == before


def test_a_landed_file_holds_the_entries_as_they_came(server, tmp_path):
    from dicom_assets.storage.byte_ranges import BytesSource

    fill(server, 3)
    landing(server, tmp_path)
    settings = server.settings(landing=str(tmp_path / "changes"))
    with client(server) as connection:
        read = [entry for page in read_window(connection, HOUR) for entry in page.entries]
    assert list(landed_entries(settings, window_path(HOUR))) == read
    head = read_head(BytesSource((tmp_path / "changes" / window_path(HOUR)).read_bytes()))
    assert (head.start, head.end) == ("2026-03-01T08:00:00Z", "2026-03-01T09:00:00Z")
    assert head.service == "pacs"


def test_a_landing_zone_that_cannot_be_written_says_of_which_service(server, tmp_path):
    fill(server, 1)
    (tmp_path / "changes").write_text("a file, not a folder")
    with pytest.raises(LandingUnwritable, match="service pacs"):
        landing(server, tmp_path)
