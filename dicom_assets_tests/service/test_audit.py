"""Lake and service compared, study by study, and what mends exactly what differs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.landing.change_windows import Operation, parse_entry
from dicom_assets.service.audit import (
    Difference,
    Finding,
    LakeInstance,
    compare,
    partitions_of,
    repair_pages,
    server_counts,
    under_way,
)
from dicom_assets.service.client import ServiceClient
from dicom_assets_tests.service.feed_server import running
from dicom_assets_tests.service.service_model import DEFAULT, ServiceModel, metadata

NOW = datetime.now(UTC).replace(microsecond=0)
COUNTS = st.dictionaries(
    st.tuples(st.sampled_from(["pacs", "pacs/research"]), st.sampled_from(["1.1", "1.2", "1.3"])), st.integers(1, 4)
)


@pytest.fixture
def server():
    with running(ServiceModel.at(NOW - timedelta(hours=5))) as server:
        yield server


def store(server, study: str, count: int, partition: str = DEFAULT) -> None:
    for number in range(count):
        server.model.store(metadata(study, f"{study}.1", f"{study}.1.{number}"), partition)


def client(server, **values) -> ServiceClient:
    return ServiceClient(server.settings(**values), sleep=lambda _: None)


def test_studies_are_missing_extra_or_differ():
    server = {("pacs", "1.1"): 3, ("pacs", "1.2"): 5, ("pacs", "1.4"): 1}
    lake = {("pacs", "1.2"): 4, ("pacs", "1.3"): 2, ("pacs", "1.4"): 1}
    assert compare(server, lake) == [
        Finding("pacs", "1.1", Difference.MISSING, 3, 0),
        Finding("pacs", "1.2", Difference.DIFFERS, 5, 4),
        Finding("pacs", "1.3", Difference.EXTRA, 0, 2),
    ]
    assert compare(server, lake, {("pacs", "1.1"), ("pacs", "1.3")}) == [
        Finding("pacs", "1.2", Difference.DIFFERS, 5, 4)
    ]


@given(COUNTS, COUNTS)
def test_nothing_is_found_exactly_where_counts_agree(server, lake):
    found = {(one.source, one.study) for one in compare(server, lake)}
    for key in server.keys() | lake.keys():
        assert (key in found) == (server.get(key) != lake.get(key))


def test_the_server_is_counted_page_by_page_in_every_partition(server):
    for number in range(25):
        store(server, f"1.{number}", 1 + number % 3)
    store(server, "1.1", 4, "research")
    with client(server, page_size=10, partitions=["Microsoft.Default", "research"]) as connection:
        found = server_counts(connection)
    counts = found.studies
    assert len(counts) == 26
    assert found.sources == ("pacs", "pacs/research")
    assert counts["pacs", "1.1"] == 2
    assert counts["pacs/research", "1.1"] == 4
    assert abs(found.at - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_service_tells_its_partitions_itself_where_it_has_any(server):
    store(server, "1.1", 1)
    store(server, "1.1", 2, "research")
    with client(server) as connection:
        assert partitions_of(connection) == (None,)
        server.partitions = ["Microsoft.Default", "research"]
        assert partitions_of(connection) == ("Microsoft.Default", "research")
        assert server_counts(connection).studies == {("pacs", "1.1"): 1, ("pacs/research", "1.1"): 2}


def test_what_changed_since_the_last_window_that_is_due_is_left_out(server):
    store(server, "1.1", 1)
    server.model.advance(4 * 3_600)
    store(server, "1.2", 2)
    with client(server) as connection:
        assert under_way(connection, NOW - timedelta(hours=2), NOW) == {("pacs", "1.2")}
        assert under_way(connection, NOW, NOW) == set()


def test_a_repair_upserts_what_is_missing_deletes_what_is_extra_and_touches_nothing_else(server):
    store(server, "1.1", 3)
    store(server, "1.2", 20)
    store(server, "1.9", 2)
    late = NOW + timedelta(days=1)
    lake = {
        ("pacs", "1.1"): [
            LakeInstance(("1.1", "1.1.1", "1.1.1.0"), NOW),
            LakeInstance(("1.1", "1.1.1", "1.1.1.77"), late),
        ]
    }
    findings = [Finding("pacs", "1.1", Difference.DIFFERS, 3, 2), Finding("pacs", "1.2", Difference.MISSING, 20, 0)]
    with client(server) as connection:
        entries = [parse_entry(one) for page in repair_pages(connection, findings, lake) for one in page.entries]
    upserts = {e.instance for e in entries if e.operation is Operation.UPSERT}
    (deleted,) = [e for e in entries if e.operation is Operation.DELETE]
    assert upserts == {"1.1.1.1", "1.1.1.2", *(f"1.2.1.{n}" for n in range(20))}
    assert deleted.instance == "1.1.1.77"
    assert deleted.changed_at > late  # or it would not be newer than what it deletes
    assert len({e.sequence for e in entries}) == len(entries)
    # Few instances are asked for one by one, many with their study.
    assert server.requests["/v2/studies/1.2/metadata"] == 1
    assert "/v2/studies/1.1/metadata" not in server.requests


def test_a_study_that_is_gone_from_the_server_is_deleted_instance_by_instance(server):
    lake = {("pacs", "1.1"): [LakeInstance(("1.1", "1.1.1", f"1.1.1.{n}"), NOW) for n in range(450)]}
    findings = [Finding("pacs", "1.1", Difference.EXTRA, 0, 450)]
    with client(server) as connection:
        pages = [page.entries for page in repair_pages(connection, findings, lake)]
    assert [len(page) for page in pages] == [200, 200, 50]
    assert {parse_entry(one).operation for page in pages for one in page} == {Operation.DELETE}


def test_a_repair_in_a_partition_names_it(server):
    store(server, "1.1", 1, "research")
    findings = [Finding("pacs/research", "1.1", Difference.MISSING, 1, 0)]
    with client(server, partitions=["research"]) as connection:
        (page,) = repair_pages(connection, findings, {})
    (entry,) = page.entries
    assert parse_entry(entry).source("pacs") == "pacs/research"
