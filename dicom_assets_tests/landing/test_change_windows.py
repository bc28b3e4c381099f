"""Entries of a change feed, and the files that windows are landed in."""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.landing.change_windows import (
    Action,
    EntryInvalid,
    Operation,
    PageUnreadable,
    looks_like_change_page,
    parse_entry,
    parse_timestamp,
    read_head,
    read_page,
)
from dicom_assets.service.feed import FeedPage
from dicom_assets.service.window_files import pack
from dicom_assets.storage.byte_ranges import BytesSource

ENTRY = {
    "sequence": 40_000,
    "partitionName": "Microsoft.Default",
    "studyInstanceUid": "1.2",
    "seriesInstanceUid": "1.2.3",
    "sopInstanceUid": "1.2.3.4",
    "action": "Create",
    "timestamp": "2026-03-01T08:00:00.1234567+00:00",
    "state": "Current",
    "metadata": {"00080018": {"vr": "UI", "Value": ["1.2.3.4"]}},
}


def entry(**values):
    return {**ENTRY, **values}


def test_names_and_values_are_read_without_regard_to_case():
    documented = {name[0].upper() + name[1:]: value for name, value in ENTRY.items()}
    documented |= {"Action": "create", "State": "current"}
    assert parse_entry(documented) == parse_entry(ENTRY)
    shouted = {name.upper(): value for name, value in ENTRY.items()} | {"ACTION": "CREATE", "STATE": "CURRENT"}
    assert parse_entry(shouted) == parse_entry(ENTRY)


def test_a_timestamp_keeps_its_ticks_as_text_and_its_microseconds_as_time():
    found = parse_entry(ENTRY)
    assert found.changed_at == datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=UTC)
    assert found.changed_at_text == "2026-03-01T08:00:00.1234567+00:00"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01T08:00:00Z", datetime(2026, 3, 1, 8, tzinfo=UTC)),
        ("2026-03-01T08:00:00", datetime(2026, 3, 1, 8, tzinfo=UTC)),
        ("2026-03-01T10:00:00.5+02:00", datetime(2026, 3, 1, 8, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-03-01T03:30:00-0430", datetime(2026, 3, 1, 8, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_timestamps_of_all_forms_become_utc(text, moment):
    assert parse_timestamp(text) == moment


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01T00:00:00Z", "2026-03-01", "0001-01-01T00:00:00+10:00", ""])
def test_a_timestamp_that_is_none_is_refused(text):
    with pytest.raises(EntryInvalid):
        parse_timestamp(text)


def test_sequences_go_far_beyond_sixteen_bits():
    assert parse_entry(entry(sequence=2**62)).sequence == 2**62
    assert parse_entry(entry(sequence="40000")).sequence == 40_000


@pytest.mark.parametrize("field", ["sequence", "action", "timestamp", "studyInstanceUid", "sopInstanceUid"])
@pytest.mark.parametrize("value", [None, "", [], {}])
def test_an_entry_without_what_decides_its_place_is_invalid_and_says_which(field, value):
    with pytest.raises(EntryInvalid) as error:
        parse_entry(entry(**{field: value}))
    assert field.lower() in str(error.value)
    assert "1.2" not in str(error.value)


def test_an_entry_never_needs_a_file_path():
    assert parse_entry(ENTRY).file_path is None
    assert parse_entry(entry(filePath="AHDS/w/dicom/s/p/abc_1.dcm")).file_path == "AHDS/w/dicom/s/p/abc_1.dcm"


def test_create_and_update_upsert_and_delete_deletes_whatever_the_state_says():
    assert parse_entry(ENTRY).operation is Operation.UPSERT
    assert parse_entry(entry(action="Update", state="Replaced")).operation is Operation.UPSERT
    # Read after a delete and a re-store, the old Delete carries the metadata of the new instance.
    assert parse_entry(entry(action="Delete", state="Replaced")).operation is Operation.DELETE


def test_an_entry_whose_instance_is_gone_is_superseded():
    assert parse_entry(entry(state="Deleted", metadata=None)).operation is Operation.SUPERSEDED


def test_a_current_entry_without_metadata_is_no_superseded_one():
    with pytest.raises(EntryInvalid):
        _ = parse_entry(entry(metadata=None)).operation


def test_the_same_instance_in_two_partitions_has_two_sources():
    assert parse_entry(ENTRY).source("pacs") == "pacs"
    assert parse_entry(entry(partitionName="research")).source("pacs") == "pacs/research"


def page(*sizes, service="pacs"):
    number = iter(range(1, 10**6))
    pages = [FeedPage([entry(sequence=next(number)) for _ in range(size)]) for size in sizes]
    return pack(pages).file(service, "v2", None)


def test_a_window_file_is_known_by_its_first_bytes():
    data, _ = page(3)
    assert looks_like_change_page(data[:4096])
    assert not looks_like_change_page(b"PK\x03\x04" + data)
    assert not looks_like_change_page(data[:6])
    assert not looks_like_change_page(b"\x28\xb5\x2f\xfd" + b"\0" * 100)


def test_a_window_file_is_known_by_its_first_bytes_however_long_its_first_line_is():
    data, head = page(*[1] * 5_000)
    assert len(head.line()) > 10_000
    assert looks_like_change_page(data[:64])


def test_the_first_line_describes_pages_and_frames():
    data, head = page(200, 200, 7)
    assert read_head(BytesSource(data)) == head
    assert head.pages == (200, 200, 7)
    assert head.entries == 407


def test_every_entry_is_a_member_named_by_its_sequence():
    data, _ = page(3)
    lines = list(read_page(BytesSource(data)))
    assert [line.member for line in lines] == ["change/000001", "change/000002", "change/000003"]
    assert lines[0].value == entry(sequence=1)
    assert len({line.etag for line in lines}) == 3


def test_an_entry_that_reads_the_same_keeps_its_version():
    before, _ = pack([FeedPage([entry(sequence=1), entry(sequence=2)])]).file("pacs", "v2", None)
    after, _ = pack([FeedPage([entry(sequence=1), entry(sequence=2, state="Replaced")])]).file("pacs", "v2", None)
    old, new = ([line.etag for line in read_page(BytesSource(data))] for data in (before, after))
    assert old[0] == new[0]
    assert old[1] != new[1]


def test_entries_without_a_sequence_are_named_by_their_place():
    broken = {"action": "Create"}
    data, _ = pack([FeedPage([broken, entry(), entry(), broken])]).file("pacs", "v2", None)
    assert [line.member for line in read_page(BytesSource(data))] == [
        "line/000000",
        "change/040000",
        "line/000002",
        "line/000003",
    ]


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(0, 60), st.integers(0, 60), st.integers(1, 4_000))
def test_any_part_of_a_window_is_what_it_is_in_the_whole(sizes, first, last, frame_bytes):
    import dicom_assets.service.window_files as changes

    usual, changes.FRAME_BYTES = changes.FRAME_BYTES, frame_bytes
    try:
        data, head = page(*sizes)
    finally:
        changes.FRAME_BYTES = usual
    whole = list(read_page(BytesSource(data)))
    assert len(whole) == head.entries == sum(sizes)
    assert list(read_page(BytesSource(data), first, last)) == whole[first:last]


@given(st.data())
def test_a_damaged_file_is_unreadable_and_never_something_else(data):
    whole, _ = page(40, 3)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(PageUnreadable):
        list(read_page(BytesSource(whole[:cut])))
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        lines = list(read_page(BytesSource(bytes(flipped))))
    except PageUnreadable:
        return
    assert [line.data for line in lines] == [line.data for line in read_page(BytesSource(whole))]


def test_a_storage_that_fails_is_no_damaged_file():
    class Failing(BytesSource):
        def read(self, offset, length):
            raise PermissionError("no")

    data, _ = page(3)
    with pytest.raises(OSError):
        read_head(Failing(data))


def test_usual_tools_read_a_window_file(tmp_path):
    data, _ = page(5, 2)
    path = tmp_path / "window.ndjson.zst"
    path.write_bytes(data)
    counted = duckdb.sql(f"select count(sequence) from read_json('{path}', format='newline_delimited')").fetchall()
    assert counted == [(7,)]


def test_the_actions_are_three():
    assert {str(action) for action in Action} == {"create", "update", "delete"}
    with pytest.raises(EntryInvalid):
        parse_entry(entry(action="Rename"))
    assert orjson.loads(orjson.dumps(ENTRY)) == ENTRY
