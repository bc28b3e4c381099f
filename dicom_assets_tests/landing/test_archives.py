"""ZIP files opened up: every member once, with its bytes, and nothing else."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dicom_assets.landing import inflate
from dicom_assets.landing.archives import ArchiveError, Member, members, open_members
from dicom_assets.landing.inflate import MemberBytes
from dicom_assets.landing.store import ObjectError
from dicom_assets.schema.codes import CODES, Kind
from dicom_assets.settings import ArchiveLimits
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.landing.zip_forge import Record, deflate, forge

LIMITS = ArchiveLimits()
DICOM = b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\x04\0\0\0\0\0"


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive that is the same at any time of the day: its own compressed size is what property tests draw from."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data, method)
    return buffer.getvalue()


def listed(archive: bytes, limits: ArchiveLimits = LIMITS) -> list[Member]:
    return list(members(BytesSource(archive), limits))


def contents(archive: bytes, entries: list[tuple[int, ...]], limits: ArchiveLimits = LIMITS) -> list[bytes | str]:
    """All bytes of each member, or the code of its error."""
    found: list[bytes | str] = []
    for entry, source in open_members(BytesSource(archive), entries, limits):
        assert entry == entries[len(found)]
        try:
            if isinstance(source, ObjectError):
                raise source
            found.append(source.read(0, source.size))
        except ObjectError as error:
            found.append(error.code)
    return found


def codes(archive: bytes, limits: ArchiveLimits = LIMITS) -> list[str | None]:
    return [member.code for member in listed(archive, limits)]


def whole(archive: bytes, limits: ArchiveLimits = LIMITS) -> str:
    """The code with which an archive as a whole is refused, before any member."""
    with pytest.raises(ArchiveError) as failure:
        next(members(BytesSource(archive), limits))
    assert failure.value.code in CODES
    return failure.value.code


class TestMembers:
    def test_each_is_told_by_its_content(self) -> None:
        archive = zipped(
            {
                "ct.txt": DICOM,
                "table.dcm": b"PatientID,Age\n001,5\n",
                "note": b"hello",
                "nothing.dcm": b"",
                "x.gz": b"\x1f\x8b\x08" + b"\0" * 20,
            }
        )
        assert [(m.kind, m.code) for m in listed(archive)] == [
            (Kind.DICOM, None),
            (Kind.CLINICAL, None),
            (Kind.OTHER, "NOT_DICOM"),
            (Kind.OTHER, "EMPTY_FILE"),
            (Kind.ARCHIVE, "COMPRESSED_FILE_UNSUPPORTED"),
        ]

    def test_folders_are_none_unless_they_have_content(self) -> None:
        archive = zipped({"a/": b"", "a/b": DICOM, "c/": DICOM})
        assert [m.name for m in listed(archive)] == ["a/b", "c/"]

    def test_names_that_repeat_are_numbered(self) -> None:
        names = [b"a", b"a", b"a#2", b"a", b"", b""]
        archive = forge([Record(name, bytes((65 + i,))) for i, name in enumerate(names)])
        found = listed(archive)
        assert [m.name for m in found] == ["a", "a#2", "a#2#2", "a#3", "#1", "#1#2"]
        assert contents(archive, [m.entry for m in found]) == [b"A", b"B", b"C", b"D", b"E", b"F"]

    def test_names_of_other_code_pages_are_read_as_437(self) -> None:
        archive = forge([Record(b"caf\x82"), Record(b"\xff\xfe", flags=0x800), Record("é".encode(), flags=0x800)])
        assert [m.name for m in listed(archive)] == ["café", "\xa0■", "é"]

    def test_times_are_utc_and_missing_where_none_is_set(self) -> None:
        stamp = struct.pack("<HHBi", 0x5455, 5, 1, 1_600_000_000)
        archive = forge(
            [Record(b"a", extra=stamp), Record(b"b", time=0x6000), Record(b"c", date=0x21), Record(b"d", date=0)]
        )
        assert [m.modified_at for m in listed(archive)] == [
            datetime.fromtimestamp(1_600_000_000, UTC),
            datetime(2025, 1, 1, 12, tzinfo=UTC),
            None,
            None,
        ]

    def test_sizes_come_from_the_directory_also_behind_data_descriptors(self) -> None:
        archive = forge([Record(b"a", DICOM, descriptor=True), Record(b"b", b"xyz", method=0, descriptor=True)])
        found = listed(archive)
        assert [m.size for m in found] == [len(DICOM), 3]
        assert contents(archive, [m.entry for m in found]) == [DICOM, b"xyz"]

    def test_zip64_archives_are_read(self) -> None:
        archive = forge([Record(b"a", DICOM, zip64=True), Record(b"b", b"x")], end64=True)
        assert contents(archive, [m.entry for m in listed(archive)]) == [DICOM, b"x"]

    @pytest.mark.parametrize("comment", [b"hello", b"PK\x01\x02 no record", b"x" * 65_535])
    def test_comments_do_not_hide_the_directory(self, comment: bytes) -> None:
        archive = forge([Record(b"a", b"x")], comment=comment)
        assert [m.name for m in listed(archive)] == ["a"]

    def test_an_archive_behind_other_bytes_is_read_from_where_it_begins(self) -> None:
        archive = forge([Record(b"a", b"x")], prefix=b"#!/bin/sh\n")
        assert contents(archive, [m.entry for m in listed(archive)]) == [b"x"]

    def test_an_empty_archive_has_none(self) -> None:
        assert listed(zipped({})) == []

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_every_common_method_is_read_in_pieces_back_and_forth(self, method: int) -> None:
        data = os.urandom(5_000) * 40
        archive = zipped({"a": data}, method)
        ((_, source),) = open_members(BytesSource(archive), [listed(archive)[0].entry], LIMITS)
        assert isinstance(source, MemberBytes)
        for offset, length in [(0, 100), (50, 10), (150_000, 7), (10, 5), (len(data) - 3, 100), (len(data), 1), (0, 1)]:
            assert source.read(offset, length) == data[offset : offset + length]


class TestNesting:
    def test_an_archive_in_an_archive_is_followed_by_its_members(self) -> None:
        inner = zipped({"i.dcm": DICOM, "j.txt": b"j"})
        archive = zipped({"a.bin": inner, "b.dcm": DICOM})
        found = listed(archive)
        assert [(m.name, m.code, m.is_archive) for m in found] == [
            ("a.bin", "ARCHIVE_EXPANDED", True),
            ("a.bin!i.dcm", None, False),
            ("a.bin!j.txt", "NOT_DICOM", False),
            ("b.dcm", None, False),
        ]
        assert contents(archive, [m.entry for m in found]) == [inner, DICOM, b"j", DICOM]

    def test_members_open_in_any_order(self) -> None:
        files = {f"{i}.zip": zipped({f"{j}": b"%d-%d" % (i, j) for j in range(3)}) for i in range(3)}
        archive = zipped({"deep.zip": zipped(files)})
        leaves = [m for m in listed(archive) if not m.is_archive]
        leaves = leaves[::-1] + leaves[::2]
        wanted = [m.name.removeprefix("deep.zip!").replace(".zip!", "-").encode() for m in leaves]
        assert contents(archive, [m.entry for m in leaves]) == wanted

    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_beyond_the_depth_an_archive_is_one_member(self, depth: int) -> None:
        archive = zipped({"c": b"c"})
        for name in ("3", "2", "1"):
            archive = zipped({name: archive})
        found = codes(archive, ArchiveLimits(max_depth=depth))
        assert found == ["ARCHIVE_EXPANDED"] * (depth - 1) + ["ARCHIVE_LIMIT"]

    def test_a_broken_archive_in_an_archive_is_one_member(self) -> None:
        inner = zipped({"x": os.urandom(1_000)})
        archive = zipped({"cut.zip": inner[:-30], "sound.zip": inner})
        assert codes(archive) == ["ARCHIVE_UNREADABLE", "ARCHIVE_EXPANDED", "NOT_DICOM"]

    def test_an_archive_that_no_longer_opens_fails_each_of_its_members(self) -> None:
        archive = bytearray(zipped({"in.zip": zipped({"a": b"1", "b": b"2"}), "c": b"3"}))
        entries = [m.entry for m in listed(bytes(archive))]
        archive[60] ^= 0xFF
        assert contents(bytes(archive), entries)[1:] == ["ARCHIVE_UNREADABLE", "ARCHIVE_UNREADABLE", b"3"]

    def test_nothing_is_written_under_a_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        archive = zipped({"in.zip": zipped({"leaf": b"x"}), "../up": b"y"})
        for member in members(BytesSource(archive), LIMITS):
            assert list(tmp_path.iterdir()) == [], member.name


class TestUnfitMembers:
    @pytest.mark.parametrize(
        "name", [b"/etc/passwd", b"\\\\host\\x", b"\\x", b"C:\\x", b"c:x", b"../x", b"a/../../x", b"a\\..\\x", b".."]
    )
    def test_unsafe_names(self, name: bytes) -> None:
        archive = forge([Record(name, DICOM), Record(b"ok", DICOM)])
        assert codes(archive) == ["ARCHIVE_MEMBER_UNSAFE", None]
        assert contents(archive, [listed(archive)[0].entry]) == ["ARCHIVE_MEMBER_UNSAFE"]

    @pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO, stat.S_IFBLK])
    def test_links_and_devices(self, mode: int) -> None:
        assert codes(forge([Record(b"a", b"/etc/passwd", mode=mode)])) == ["ARCHIVE_MEMBER_UNSAFE"]
        assert codes(forge([Record(b"a", b"x", mode=stat.S_IFREG | 0o644)])) == ["NOT_DICOM"]

    def test_encrypted(self) -> None:
        assert codes(forge([Record(b"a", DICOM, flags=1), Record(b"b", DICOM)])) == ["ARCHIVE_ENCRYPTED", None]

    @pytest.mark.parametrize(
        "name", [b"__MACOSX/._a.dcm", b"a/.DS_Store", b"Thumbs.db", b".hidden/a", b"healthCheck/a"]
    )
    def test_files_of_a_system_are_not_opened(self, name: bytes) -> None:
        assert codes(forge([Record(name, zipped({"a": DICOM}))])) == ["SYSTEM_FILE"]

    @pytest.mark.parametrize(
        "record",
        [
            Record(b"a", DICOM, crc=1),
            Record(b"a", DICOM, size=len(DICOM) + 1),
            Record(b"a", DICOM, size=len(DICOM) - 1),
            Record(b"a", DICOM, size=len(DICOM) - 1, crc=zlib.crc32(DICOM[:-1])),
            Record(b"a", DICOM, packed=deflate(DICOM)[:-4]),
            Record(b"a", DICOM, packed=b"\xff" * 50),
            Record(b"a", DICOM, method=12, packed=b"BZh9" + b"\xff" * 50),
            Record(b"a", DICOM, method=14, packed=b"\x09\x04\x05\x00\xff\0\0\0\0" + b"\xff" * 50),
            Record(b"a", DICOM, method=14, packed=b"\x09"),
            Record(b"a", DICOM, method=0, packed=DICOM[:-1]),
            Record(b"a", DICOM, local_mark=b"PK\x00\x00"),
            Record(b"a", DICOM, at=1 << 30),
            Record(b"a", DICOM, zip64=True, extra64=b"\x01\x00\x08\x00" + bytes(8)),
        ],
        ids=lambda record: f"method {record.method}",
    )
    def test_damage_of_one_leaves_the_others(self, record: Record) -> None:
        archive = forge([Record(b"before", DICOM), record, Record(b"after", DICOM)])
        found = listed(archive)
        assert [m.code for m in found] == [None, "ARCHIVE_UNREADABLE", None]
        assert contents(archive, [m.entry for m in found]) == [DICOM, "ARCHIVE_UNREADABLE", DICOM]

    @pytest.mark.parametrize("method", [1, 6, 10, 97, 98])
    def test_a_method_that_is_not_read_costs_its_member(self, method: int) -> None:
        archive = forge([Record(b"a", DICOM, method=method), Record(b"b", DICOM)])
        found = listed(archive)
        assert [m.code for m in found] == ["ARCHIVE_METHOD_UNSUPPORTED", None]
        assert contents(archive, [m.entry for m in found]) == ["ARCHIVE_METHOD_UNSUPPORTED", DICOM]

    def test_damage_behind_what_was_looked_at_shows_when_the_end_is_read(self) -> None:
        data = DICOM + os.urandom(20_000)
        archive = forge([Record(b"a", data, crc=1)])
        (member,) = listed(archive)
        assert (member.kind, member.code) == (Kind.DICOM, None)
        assert contents(archive, [member.entry]) == ["ARCHIVE_UNREADABLE"]
        ((_, source),) = open_members(BytesSource(archive), [member.entry], LIMITS)
        assert isinstance(source, MemberBytes)
        assert source.read(0, 4_096) == data[:4_096]

    def test_no_message_holds_a_name(self) -> None:
        archive = forge([Record(b"DOE^JANE", DICOM, crc=1), Record(b"../DOE^JANE"), Record(b"DOE^JANE", flags=1)])
        assert not any("JANE" in (m.detail or "") for m in listed(archive))


class TestUnfitArchives:
    @pytest.mark.parametrize(
        "archive",
        [
            b"PK\x03\x04",
            zipped({"a": DICOM})[:-10],
            zipped({"a": DICOM})[:60],
            forge([Record(b"a"), Record(b"b")]).replace(b"PK\x01\x02", b"PK\x01\x00", 1),
            forge([Record(b"a" * 100)])[:40] + forge([])[:12] + struct.pack("<IIH", 9_999, 0, 0),
            forge([Record(b"a")], end64=True).replace(b"PK\x06\x06", b"PK\x06\x00"),
            forge([Record(b"a")])[:-18] + b"\x01\x00\x01\x00" + forge([Record(b"a")])[-14:],
        ],
        ids=["only the mark", "cut end", "cut", "broken record", "directory outside", "broken zip64", "split"],
    )
    def test_unreadable(self, archive: bytes) -> None:
        assert whole(archive) == "ARCHIVE_UNREADABLE"

    def test_a_record_that_reaches_over_the_end_of_the_directory(self) -> None:
        archive = bytearray(forge([Record(b"a", b"x"), Record(b"b", b"x")]))
        last = archive.rindex(b"PK\x01\x02")
        archive[last + 28 : last + 30] = b"\xff\x00"
        assert whole(bytes(archive)) == "ARCHIVE_UNREADABLE"

    def test_storage_errors_pass_through(self) -> None:
        class Failing(BytesSource):
            def read(self, offset: int, length: int) -> bytes:
                raise ObjectError("READ_FAILED", "gone")

        with pytest.raises(ObjectError) as failure:
            next(members(Failing(b"x" * 100), LIMITS))
        assert failure.value.code == "READ_FAILED"
        ((_, result),) = open_members(Failing(b"x" * 100), [(0,)], LIMITS)
        assert isinstance(result, ObjectError)
        assert result.code == "READ_FAILED"


class TestLimits:
    def test_members_are_counted_with_those_of_nested_archives(self) -> None:
        archive = zipped({"a": b"1", "b": b"2", "c": b"3"})
        assert whole(archive, ArchiveLimits(max_entries=2)) == "ARCHIVE_LIMIT"
        assert len(listed(archive, ArchiveLimits(max_entries=3))) == 3
        nested = zipped({"x": archive, "y": archive})
        assert codes(nested, ArchiveLimits(max_entries=5))[::4] == ["ARCHIVE_EXPANDED", "ARCHIVE_LIMIT"]

    @pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_a_bomb_is_stopped_by_what_it_really_inflates_to(
        self, method: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inflate, "RATIO_COUNTS_FROM", 1_000_000)
        archive = zipped({"zeros": bytes(8_000_000)}, method)
        (member,) = listed(archive)
        assert contents(archive, [member.entry], ArchiveLimits(max_ratio=50)) == ["ARCHIVE_LIMIT"]
        assert contents(archive, [member.entry], ArchiveLimits(max_inflated_bytes=4_000_000)) == ["ARCHIVE_LIMIT"]
        assert contents(archive, [member.entry], ArchiveLimits(max_ratio=1e9)) == [bytes(8_000_000)]

    def test_a_declared_size_that_is_too_small_hides_nothing(self) -> None:
        archive = forge([Record(b"a", bytes(1_000_000), size=10, crc=0)])
        assert codes(archive) == ["ARCHIVE_UNREADABLE"]

    def test_members_that_share_their_bytes_are_counted_each(self) -> None:
        records = [Record(b"%d" % i, bytes(4_000), at=0 if i else None) for i in range(100)]
        archive = forge(records)
        found = listed(archive, ArchiveLimits(max_inflated_bytes=100_000))
        assert [m.code for m in found].count("ARCHIVE_LIMIT") == 75

    def test_a_nested_archive_is_copied_only_up_to_its_bound(self) -> None:
        inner = zipped({"a": os.urandom(50_000)})
        archive = zipped({"in.zip": inner, "b": DICOM})
        assert codes(archive, ArchiveLimits(max_nested_bytes=10_000)) == ["ARCHIVE_LIMIT", None]

    def test_what_was_dropped_from_memory_is_read_again_from_a_copy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inflate, "KEPT_BYTES", 1_000)
        data = os.urandom(100_000)
        archive = forge([Record(b"a", data)])
        ((_, source),) = open_members(BytesSource(archive), [listed(archive)[0].entry], LIMITS)
        assert isinstance(source, MemberBytes)
        for offset in (0, 500, 60_000, 900, 30_000, 99_990, 5):
            assert source.read(offset, 200) == data[offset : offset + 200]

    def test_a_full_disk_is_no_verdict_on_the_archive(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full() -> io.BytesIO:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("tempfile.TemporaryFile", full)
        with pytest.raises(ObjectError) as failure:
            listed(zipped({"in.zip": zipped({"a": b"x"})}))
        assert failure.value.code == "READ_FAILED"


class TestReadingByRanges:
    def test_a_large_archive_is_not_read_whole(self) -> None:
        class Counting(BytesSource):
            total = 0

            def read(self, offset: int, length: int) -> bytes:
                data = super().read(offset, length)
                Counting.total += len(data)
                return data

        archive = zipped({f"{i}.dcm": DICOM + os.urandom(3_000_000) for i in range(4)}, zipfile.ZIP_STORED)
        source = Counting(archive)
        found = list(members(source, LIMITS))
        for _, member in open_members(source, [m.entry for m in found], LIMITS):
            assert isinstance(member, MemberBytes)
            member.read(0, 65_536)
            member.read(member.size - 8, 8)
        assert Counting.total < len(archive) / 3

    def test_a_member_is_found_again_without_reading_the_directory(self) -> None:
        archive = zipped({f"{i:05}": b"x" for i in range(3_000)})
        last = listed(archive)[-1]
        reads: list[int] = []

        class Counting(BytesSource):
            def read(self, offset: int, length: int) -> bytes:
                reads.append(length)
                return super().read(offset, length)

        assert [m.read(0, 1) for _, m in open_members(Counting(archive), [last.entry], LIMITS)] == [b"x"]  # type: ignore[union-attr]
        assert len(reads) <= 4


NAMES = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=20)
CONTENTS = st.binary(max_size=300)
METHODS = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])


@settings(max_examples=70, deadline=None)
@given(st.lists(st.tuples(NAMES, CONTENTS, METHODS), max_size=12))
@example([("a", b"1", 0), ("a", b"2", 0), ("a#2", b"3", 0)])
@example([("", b"1", 0), ("/", b"", 0), ("d/", b"x", 8)])
def test_every_entry_that_is_no_folder_comes_out_once_with_its_bytes(entries: list[tuple[str, bytes, int]]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.MonkeyPatch.context() as quiet:
        quiet.setattr("warnings.warn", lambda *_, **__: None)
        for name, data, method in entries:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    found = [m for m in listed(buffer.getvalue()) if "!" not in m.name or len(m.entry) == 1]
    expected = [data for name, data, _ in entries if data or not name.endswith(("/", "\\"))]
    assert len({m.name for m in found}) == len(found)
    assert len(found) == len(expected)
    for member, content, data in zip(
        found, contents(buffer.getvalue(), [m.entry for m in found]), expected, strict=True
    ):
        assert member.size == len(data)
        refused = member.code in ("ARCHIVE_MEMBER_UNSAFE", "SYSTEM_FILE")
        assert content == (member.code if refused else data)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_a_broken_archive_holds_only_typed_errors_come_out(data: st.DataObject) -> None:
    inner = zipped({"x": DICOM, "y": b"table,of\nsome,text\n"}, data.draw(METHODS))
    archive = bytearray(zipped({"a.zip": inner, "b/": b"", "c": DICOM * 3}, data.draw(METHODS)))
    for _ in range(data.draw(st.integers(1, 6))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(archive[: data.draw(st.integers(0, len(archive)))]) if data.draw(st.booleans()) else bytes(archive)
    try:
        found = listed(broken)
    except ArchiveError as error:
        assert error.code in CODES
        return
    assert len({m.name for m in found}) == len(found)
    contents(broken, [m.entry for m in found])


SHARED = Path(os.environ.get("DICOM_ASSETS_SHARED") or Path(__file__).parents[3] / "shared")


@pytest.mark.skipif(not (SHARED / "corpus/derived").is_dir(), reason="the shared corpus is not there")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("empty.zip", {}),
        ("nested.zip", {"ARCHIVE_EXPANDED": 1, None: 2}),
        ("no_dicom.zip", {"NOT_DICOM": 2}),
        ("study_siemens.zip", {None: 8, "NOT_DICOM": 1}),
        ("two_series_ge.zip", {None: 40}),
        ("zipslip.zip", {"ARCHIVE_MEMBER_UNSAFE": 1, None: 1}),
        ("truncated.zip", "ARCHIVE_UNREADABLE"),
    ],
)
def test_the_archives_of_the_shared_corpus(name: str, expected: dict[str | None, int] | str) -> None:
    archive = (SHARED / "corpus/derived" / name).read_bytes()
    if isinstance(expected, str):
        assert whole(archive) == expected
        return
    found = codes(archive)
    assert {code: found.count(code) for code in found} == expected
