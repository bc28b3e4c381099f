"""Archives of any writer through the whole graph, and the rule that compares them with their directories."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import pytest

from dicom_assets.batch.checks.archive_checks import Incomparable, Member, same_archive
from dicom_assets.batch.checks.directory_chains import TooLarge, chains
from dicom_assets.batch.checks.reopening import bounded_file
from dicom_assets.landing.archives import members
from dicom_assets.settings import ArchiveLimits
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.landing.zip_forge import Record, central, forge
from dicom_assets_tests.landing.zip_writers import BEYOND, RULES, TWO, dotnet
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.steps import Stepped

ALL = RULES | BEYOND
BY_CHAINS = (
    "ZIP64 with a sector",
    "a comment with an end mark",
    "many bytes behind the end",
    "a signed directory",
)
"""Archives that zipfile refuses."""


def staged(archive: bytes) -> list[Member]:
    return [
        Member(m.entry[-1], m.size, m.name, False)
        for m in members(BytesSource(archive), ArchiveLimits())
        if len(m.entry) == 1
    ]


def is_same(archive: bytes, listed: Sequence[Member]) -> bool:
    return same_archive(bounded_file(BytesSource(archive), 1 << 30), {(): listed}, (), "", [0])


@pytest.mark.parametrize("name", ALL)
def test_no_member_can_be_left_out_added_or_changed(name: str) -> None:
    listed = staged(ALL[name])
    assert is_same(ALL[name], listed)
    for index, one in enumerate(listed):
        assert not is_same(ALL[name], [*listed[:index], *listed[index + 1 :]])
        longer = Member(one.at, one.size + 1, one.name, False)
        assert not is_same(ALL[name], [*listed[:index], longer, *listed[index + 1 :]])
    assert not is_same(ALL[name], [*listed, listed[-1]])
    assert not is_same(ALL[name], [])


@pytest.mark.parametrize("name", BY_CHAINS)
def test_names_are_compared_where_zipfile_refuses(name: str) -> None:
    listed = staged(ALL[name])
    other = [Member(one.at, one.size, f"x{one.name}", False) for one in listed]
    assert is_same(ALL[name], listed)
    assert not is_same(ALL[name], other)


def test_an_empty_archive_before_other_bytes_is_not_compared_with_what_looks_like_records_in_them() -> None:
    archive = forge([]) + forge(TWO)[:-22]
    assert staged(archive) == []
    with pytest.raises(Incomparable):
        is_same(archive, [])


def test_a_directory_too_far_from_the_end_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_assets.batch.checks.directory_chains.MOST_BYTES", 100)
    archive = forge(TWO)
    with pytest.raises(TooLarge):
        chains(bounded_file(BytesSource(archive), 1 << 20), len(archive), 0)


def test_chains_are_found_in_bounded_time_among_marks() -> None:
    archive = b"PK\1\2" * 60_000 + forge([Record(b"%d" % n) for n in range(100)])
    listed = staged(forge([Record(b"%d" % n) for n in range(100)], prefix=b"PK\1\2" * 60_000))
    assert len(chains(bounded_file(BytesSource(archive), 1 << 30), len(archive), 0)[-1]) <= 100
    assert is_same(archive, listed)


def test_bytes_of_a_member_that_look_like_a_record_hide_no_record_of_the_directory() -> None:
    """What looks like a record ends where the second record begins, so both chains go on from there."""
    looks_so = central(Record(b"fake"), 0)
    records = [Record(b"a", b"before" + looks_so + bytes(50), method=0), Record(b"b", b"other", method=0)]
    archive = bytearray(forge(records, comment=b"PK\5\6" + bytes(18)))
    fake, second = archive.find(looks_so), archive.rfind(b"PK\1\2")
    struct.pack_into("<H", archive, fake + 32, second - fake - len(looks_so))
    found = chains(bounded_file(BytesSource(bytes(archive)), 1 << 20), len(archive), 0)
    assert [[one.at for one in chain][-1] for chain in found] == [second, second]
    listed = staged(bytes(archive))
    assert is_same(bytes(archive), listed)
    assert not is_same(bytes(archive), listed[:1])
    assert not is_same(bytes(archive), listed[1:])


@pytest.mark.parametrize("is_wide", [False, True])
def test_bytes_of_a_member_that_look_like_a_record_before_the_directory_add_no_record_to_it(is_wide: bool) -> None:
    """What looks like a record ends where the directory begins; its end says how many records and bytes it has."""
    looks_so = central(Record(b"fake"), 0)
    records = [Record(b"a", looks_so + bytes(2_000), method=0), *TWO, Record(b"n", b"", method=0)]
    archive = bytearray(forge(records, comment=b"PK\5\6" + bytes(18), end64=is_wide))
    fake, first = archive.find(looks_so), archive.find(b"PK\1\2", archive.find(looks_so) + 4)
    struct.pack_into("<H", archive, fake + 32, first - fake - len(looks_so))
    listed = staged(bytes(archive))
    assert is_same(bytes(archive), listed)
    for index in range(len(listed)):
        assert not is_same(bytes(archive), [*listed[:index], *listed[index + 1 :]])
    fewer = archive.rfind(b"PK\6\6") + 24 if is_wide else archive.find(b"PK\5\6") + 8
    archive[fewer] = archive[fewer + (8 if is_wide else 2)] = len(records) - 1
    assert not is_same(bytes(archive), listed[1:])  # the number of bytes bears witness against the number of records


@pytest.fixture
def graph_of(tmp_path, landing, instance) -> Callable[..., Graph]:
    return lambda kind, **sections: kind(settings_for(tmp_path / "lake", landing.root, **sections), instance)


@pytest.mark.slow
def test_a_batch_of_archives_of_every_writer_closes(graph_of, landing) -> None:
    for number, archive in enumerate(ALL.values()):
        landing.put(f"{number}.bin", archive)
    graph = graph_of(Graph)
    (batch,) = graph.ingest()
    checks = graph.checks(batch)
    assert checks["raw_files.members_equal_directories"].metadata["expected"].value == len(ALL)
    assert checks["raw_files.members_equal_directories"].passed
    assert checks["raw_files.archives_are_compared"].passed
    assert graph.books(batch).status == "closed"
    rows = graph.rows("SELECT uri, outcome, code FROM raw_files JOIN validated_batch USING (object_id)")
    assert {row["code"] for row in rows if row["outcome"] == "quarantined"} == {"EMPTY_FILE"}
    assert len({row["uri"] for row in rows if row["outcome"] == "ingested"}) == len(ALL)


def test_members_between_backslashes_belong_to_datasets_and_systems_as_others_do(graph_of, landing) -> None:
    table = b"Pat;lab\nP1;5\n"
    landing.put(
        "net.zip", forge([dotnet("labs\\1.csv", table), dotnet("__MACOSX\\a", dicom()), dotnet("b.dcm", dicom())])
    )
    labs = {"name": "labs", "files": ["labs/**"], "patient_id_column": "Pat"}
    graph = graph_of(Stepped, clinical={"datasets": [labs]})
    (batch,) = graph.ingest()
    assert graph.books(batch).status == "closed"
    rows = graph.rows("SELECT member, outcome, code FROM raw_files JOIN validated_batch USING (object_id)")
    assert {row["member"]: row["code"] or row["outcome"] for row in rows} == {
        None: "ARCHIVE_EXPANDED", "labs\\1.csv": "ingested", "__MACOSX\\a": "SYSTEM_FILE", "b.dcm": "ingested",
    }  # fmt: skip
    assert [row["record_type"] for row in graph.rows("SELECT record_type FROM clinical")] == ["labs"]
