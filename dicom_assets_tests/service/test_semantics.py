"""What a feed means, held against the model of a service: any history, read in any windows, ends in what is there."""

from __future__ import annotations

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.dicom.header import IDENTITY, read_header
from dicom_assets.landing.change_windows import Operation, parse_entry, read_page
from dicom_assets.reading.change_entries import read_change
from dicom_assets.service.feed import FeedPage
from dicom_assets.service.window_files import pack
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.service.service_model import DEFAULT, ServiceModel, metadata, real_metadata, text_of_ticks

LIMITS = ReadingLimits()

KEYS = [
    (partition, study, series, instance)
    for partition in (DEFAULT, "research")
    for study, series in (("1.1", "1.1.1"), ("1.1", "1.1.2"), ("1.2", "1.2.1"))
    for instance in (f"{series}.1", f"{series}.2")
]

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.sampled_from(KEYS)),
        st.tuples(st.just("update"), st.sampled_from(KEYS)),
        st.tuples(st.just("delete"), st.sampled_from(KEYS)),
        st.tuples(st.just("gap"), st.integers(1, 40_000)),
        st.tuples(st.just("wait"), st.integers(1, 100)),
        st.tuples(st.just("read"), st.none()),
    ),
    max_size=60,
)


def play(model: ServiceModel, step, version: int) -> None:
    """One step; a store of what is there and a delete of what is not are refused by the service, as in life."""
    what, argument = step
    if what == "gap":
        model.skip(argument)
    elif what == "wait":
        model.ticks += argument
    elif what == "store" and argument not in model.current:
        model.store(metadata(*argument[1:], StudyDescription=f"v{version}"), argument[0])
    elif what == "update" and argument in model.current:
        model.update(argument, metadata(*argument[1:], StudyDescription=f"v{version}"))
    elif what == "delete" and argument in model.current:
        model.delete(argument)


def read(model: ServiceModel, start: int, end: int) -> list[dict]:
    """A window through the feed, a landed file and back."""
    text = model.feed_v2(0, 200, text_of_ticks(start), text_of_ticks(end)) if end > start else b"[]"
    data, _ = pack([FeedPage(orjson.loads(text))]).file("pacs", "v2", None)
    return [line.value for line in read_page(BytesSource(data))]


def current(entries) -> dict:
    """What a lake holds after these entries, in the order in which they came."""
    kept = [parse_entry(value) for value in entries]
    in_order = sorted(
        (entry for entry in kept if entry.operation is not Operation.SUPERSEDED),
        key=lambda entry: (entry.changed_at, entry.sequence),
    )
    newest = {(entry.partition, entry.study, entry.series, entry.instance): entry for entry in in_order}
    return {key: entry.metadata for key, entry in newest.items() if entry.operation is Operation.UPSERT}


@settings(max_examples=300, deadline=None)
@given(STEPS, st.randoms())
def test_any_interleaving_read_in_any_windows_ends_in_the_current_instances(steps, random):
    model = ServiceModel(ticks=10_000_000)
    landed: list[dict] = []
    read_up_to = model.ticks
    for version, step in enumerate(steps):
        if step[0] == "read":
            end = model.ticks + 1
            landed += read(model, read_up_to, end)
            read_up_to = end
        else:
            play(model, step, version)
    landed += read(model, read_up_to, model.ticks + 1)
    random.shuffle(landed)
    assert current(landed) == {key: orjson.loads(stored.metadata) for key, stored in model.current.items()}


@settings(max_examples=100, deadline=None)
@given(STEPS, st.integers(0, 200), st.integers(0, 200))
def test_windows_read_again_late_change_nothing(steps, first, length):
    model = ServiceModel(ticks=10_000_000)
    start = model.ticks
    landed: list[dict] = []
    for version, step in enumerate(steps):
        play(model, step, version)
        landed += read(model, model.ticks, model.ticks + 1)
    landed += read(model, start + first, start + first + length)
    landed += read(model, start, model.ticks + 1)
    assert current(landed) == {key: orjson.loads(stored.metadata) for key, stored in model.current.items()}


def test_a_re_stored_instance_is_there_although_its_old_delete_carries_its_metadata():
    model = ServiceModel()
    key = model.store(metadata("1.1", "1.1.1", "1.1.1.1", StudyDescription="old"))
    model.delete(key)
    model.store(metadata("1.1", "1.1.1", "1.1.1.1", StudyDescription="new"))
    create, delete, again = orjson.loads(model.feed_v1(0, 100))
    assert (create["state"], delete["state"], again["state"]) == ("Replaced", "Replaced", "Current")
    assert delete["metadata"] == again["metadata"]
    assert current([again, delete, create]) == {key: again["metadata"]}


def test_a_create_read_after_the_delete_has_no_metadata_and_is_accounted_for():
    model = ServiceModel()
    model.delete(model.store(metadata("1.1", "1.1.1", "1.1.1.1")))
    create, delete = (parse_entry(value) for value in orjson.loads(model.feed_v1(0, 100)))
    assert create.operation is Operation.SUPERSEDED
    assert delete.operation is Operation.DELETE


def test_an_update_before_the_first_sync_is_an_upsert():
    model = ServiceModel()
    key = model.store(metadata("1.1", "1.1.1", "1.1.1.1"))
    before = model.ticks + 1
    model.advance(3_600)
    model.update(key, metadata("1.1", "1.1.1", "1.1.1.1", StudyDescription="corrected"))
    entries = read(model, before, model.ticks + 1)
    assert [value["action"] for value in entries] == ["Update"]
    assert current(entries)[key]["00081030"]["Value"] == ["corrected"]


def test_forty_thousand_sequence_numbers_are_ordered_as_numbers():
    model = ServiceModel(sequence=9_998)
    key = model.store(metadata("1.1", "1.1.1", "1.1.1.1", StudyDescription="9999"))
    model.skip(30_000)
    model.update(key, metadata("1.1", "1.1.1", "1.1.1.1", StudyDescription="40000"))
    entries = [value for offset in range(9_900, 40_100, 100) for value in orjson.loads(model.feed_v1(offset, 100))]
    assert [value["sequence"] for value in entries] == [9_999, 40_000]
    same_time = [{**value, "timestamp": "2026-03-01T08:00:00Z"} for value in entries]
    assert parse_entry(same_time[1]).sequence == 40_000
    assert current(reversed(same_time)) == current(entries)


def test_real_files_say_the_same_by_the_feed_as_from_disk():
    model = ServiceModel()
    held = {}
    for path, content in real_metadata():
        header = read_header(BytesSource(path.read_bytes()), LIMITS)
        if not {"VALUE_INVALID", "CHARSET_UNDECODABLE"} & set(
            header.issues
        ):  # pydicom's own JSON loses something there
            held[model.store(content)] = header
    compared = 0
    for value in orjson.loads(model.feed_v1(0, 100)):
        found = read_change(BytesSource(orjson.dumps(value)), "pacs", LIMITS)
        assert found is not None
        header, version = found
        original = held[(DEFAULT, *(header.columns[name] for name in IDENTITY))]
        differing = {
            name
            for name in header.columns.keys() | original.columns.keys()
            if header.columns.get(name) != original.columns.get(name)
        }
        assert differing <= {"TransferSyntaxUID"}
        assert (version.operation, version.source) == ("upsert", "pacs")
        compared += 1
    assert compared > 30
