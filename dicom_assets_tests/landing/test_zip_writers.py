"""What 7-Zip lists and extracts of any program's archives is listed and read: names, sizes, folders, checksums."""

from __future__ import annotations

import bz2
import gc
import os
import random
import subprocess
import tracemalloc
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.batch.checks.archive_checks import Incomparable
from dicom_assets.batch.checks.archive_checks import Member as Staged
from dicom_assets.batch.checks.archive_checks import same_archive as checked
from dicom_assets.batch.checks.reopening import bounded_file
from dicom_assets.landing.archives import Member, members, open_members
from dicom_assets.landing.inflate import MemberBytes
from dicom_assets.landing.sniff import Form, kind_of, may_end_as_zip
from dicom_assets.landing.store import ObjectError
from dicom_assets.landing.zip_archive import ends_as_zip
from dicom_assets.landing.zipdirectory import Directory
from dicom_assets.schema.codes import Kind
from dicom_assets.settings import ArchiveLimits
from dicom_assets.storage.byte_ranges import ByteSource, BytesSource
from dicom_assets_tests.landing import zip_writers
from dicom_assets_tests.landing.zip_forge import DESCRIPTORS, Record, central, deflate, ending, forge, local
from dicom_assets_tests.landing.zip_writers import BEYOND, FOLDERS, IMAGE, NOTE, PROGRAMS, RULES, TREE, TWO, program
from dicom_assets_tests.support.dicoms import dicom
from fuzz import archives as fuzz_archives
from fuzz.running import blindly

LIMITS = ArchiveLimits()


class FileSource:
    """A file, of which only what is asked for is read."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)


class Listed(NamedTuple):
    """An entry as both say it. name: None where it is not UTF-8."""

    name: str | None
    is_folder: bool
    size: int
    crc: int


def by_7zip(path: Path) -> list[Listed]:
    """What `7zz` lists, after it has tested the archive."""
    for command in ("t", "l"):
        done = subprocess.run(
            [program("7zz"), command, "-slt", str(path)], capture_output=True, timeout=60, check=True
        )  # fmt: skip
    text = done.stdout.partition(b"----------\n")[2]
    found = []
    for block in text.split(b"\n\n"):
        fields = dict(line.split(b" = ", 1) for line in block.splitlines() if b" = " in line)
        if b"Path" in fields:
            try:
                name: str | None = fields[b"Path"].decode().rstrip("/\\")
            except UnicodeDecodeError:
                name = None
            crc = int(fields.get(b"CRC") or b"0", 16)
            found.append(Listed(name, fields[b"Folder"] == b"+", int(fields[b"Size"]), crc))
    return found


def by_us(source: ByteSource) -> list[Listed]:
    """The same from our directory."""
    return [Listed(e.name.rstrip("/\\"), e.is_directory, e.size, e.crc) for e in Directory(source)]


def named_as(ours: list[Listed], theirs: list[Listed]) -> list[Listed]:
    """Ours, without the names that they cannot say."""
    return [one._replace(name=other.name and one.name) for one, other in zip(ours, theirs, strict=True)]


def contents(source: ByteSource) -> dict[str, bytes | str]:
    """All bytes of each member, its checksum compared, or the code of its error, by name."""
    found = list(members(source, LIMITS))
    opened = open_members(source, [member.entry for member in found], LIMITS)
    return {member.name: _content(member, one) for member, (_, one) in zip(found, opened, strict=True)}


def _content(member: Member, opened: MemberBytes | ObjectError) -> bytes | str:
    if isinstance(opened, ObjectError):
        return opened.code
    data = opened.read(0, opened.size)
    opened.verify()
    assert len(data) == member.size
    return data


def recognised(source: ByteSource) -> bool:
    """Whether a landed object with these bytes is opened up."""
    head = source.read(0, 4_096)
    found = kind_of(head, source.size)
    return found.form is Form.ZIP or (may_end_as_zip(head, found) and ends_as_zip(source, head))


def agreed(source: ByteSource) -> bool:
    """Whether the blocking check would let pass what is listed."""
    staged: dict[tuple[int, ...], list[Staged]] = {}
    for m in members(source, LIMITS):
        one = Staged(m.entry[-1], m.size, m.name, m.code == "ARCHIVE_EXPANDED")
        staged.setdefault(m.entry[:-1], []).append(one)
    try:
        return checked(bounded_file(source, 1 << 30), staged, (), "", [1 << 20])
    except Incomparable:
        return any(one.is_open for inside in staged.values() for one in inside)


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_program_packs_comes_out(name: str, tmp_path: Path) -> None:
    data = PROGRAMS[name](tmp_path)
    source = BytesSource(data)
    assert recognised(source)
    assert contents(source) == TREE
    assert {one.name for one in by_us(source) if one.is_folder} <= {"ST", "ST/deep", *FOLDERS}
    assert agreed(source)
    path = tmp_path / "archive.bin"
    path.write_bytes(data)
    theirs = by_7zip(path)
    assert named_as(by_us(source), theirs) == theirs


@pytest.mark.parametrize("name", RULES)
def test_what_7zip_lists_is_listed(name: str, tmp_path: Path) -> None:
    source = BytesSource(RULES[name])
    assert recognised(source)
    assert IMAGE in contents(source).values()
    assert agreed(source)
    path = tmp_path / "archive.bin"
    path.write_bytes(RULES[name])
    theirs = by_7zip(path)
    assert named_as(by_us(source), theirs) == theirs


@pytest.mark.parametrize("name", BEYOND)
def test_what_7zip_lists_otherwise_is_read_all_the_same(name: str) -> None:
    source = BytesSource(BEYOND[name])
    assert recognised(source)
    found = list(contents(source).values())
    assert found[-2:] == [IMAGE, NOTE]
    assert found[:-2] in ([], [IMAGE], [NOTE])
    assert agreed(source)


class TestBeyondFourGibibytes:
    @pytest.mark.parametrize("hole", [1 << 32, 3 << 30])
    @pytest.mark.parametrize("prefix", [b"", b"MZ" + bytes(510)], ids=["alone", "behind a program"])
    def test_members_are_found_without_zip64(self, prefix: bytes, hole: int, tmp_path: Path) -> None:
        path = tmp_path / "large.bin"
        records = [Record(b"a", IMAGE), Record(b"b", NOTE), Record(b"c", dicom(1, 1, 3))]
        zip_writers.put_beyond_four_gibibytes(path, records, prefix, hole)
        source = FileSource(path)
        assert source.size > 6 << 30
        assert recognised(source)
        assert contents(source) == {"a": IMAGE, "b": NOTE, "c": dicom(1, 1, 3)}
        assert agreed(source)

    def test_a_member_is_told_from_one_that_stands_a_multiple_of_four_gibibytes_before(self, tmp_path: Path) -> None:
        path = tmp_path / "large.bin"
        records = [Record(b"a", IMAGE), Record(b"b", NOTE)]
        length = len(local(records[0]))
        zip_writers.put_beyond_four_gibibytes(path, records, b"", (1 << 32) - length)
        assert contents(FileSource(path)) == {"a": IMAGE, "b": NOTE}

    def test_more_members_than_two_bytes_count(self) -> None:
        archive = forge([Record(b"%d" % n, b"", method=0) for n in range(70_000)])
        assert Directory(BytesSource(archive)).count(100_000) == 70_000


class TestArchivesOneBehindTheOther:
    def test_members_of_all_are_listed(self) -> None:
        archive = forge(TWO) + forge([Record(b"a.dcm", NOTE)]) + forge([Record(b"last", IMAGE)])
        assert contents(BytesSource(archive)) == {"a.dcm": IMAGE, "b.txt": NOTE, "a.dcm#2": NOTE, "last": IMAGE}
        assert agreed(BytesSource(archive))

    @pytest.mark.parametrize("first", [TWO_FILES := forge(TWO), forge(TWO, end64=True), b"PK00" + TWO_FILES])
    @pytest.mark.parametrize(
        "behind",
        [
            b"between" + forge([Record(b"c", b"c")]),
            forge([Record(b"c", b"c")]) + b"behind",
            forge([Record(b"c", b"c")])[-69:],
            forge([Record(b"c", b"c" * 99)])[50:],
        ],
        ids=["bytes between", "bytes behind", "a directory alone", "a part"],
    )
    def test_what_follows_does_not_hide_the_first_one(self, first: bytes, behind: bytes) -> None:
        found = [m.name for m in members(BytesSource(first + behind), LIMITS)]
        assert found[:2] == ["a.dcm", "b.txt"]
        assert found[2:] in ([], ["c"])

    def test_one_that_is_cut_is_not_taken_for_an_archive_that_is_stored_in_it(self) -> None:
        inner = forge([Record(b"inner", NOTE)])
        cut = forge([Record(b"a", inner, method=0), *TWO])[: 30 + 1 + len(inner) + 50]
        for archive in (cut, cut[: 31 + len(inner)]):
            with pytest.raises(ObjectError) as failure:
                list(members(BytesSource(archive), LIMITS))
            assert failure.value.code == "ARCHIVE_UNREADABLE"


TAIL = forge(TWO)
FIRST, SECOND = central(TWO[0], 0), central(TWO[1], len(local(TWO[0])))


class TestDirectories:
    """What fuzzing has found: members must not vanish because the end of an archive says so."""

    @pytest.mark.parametrize(
        "archive",
        [
            forge(TWO)[:-22] + ending(0, 0, 0, 0),
            forge(TWO, prefix=b"PK00")[:-22] + ending(0, 0, 0, 0),
            TAIL[:-22] + ending(1, len(SECOND), 0, 0),
            TAIL[:-22] + ending(1, len(FIRST), TAIL.index(FIRST), 0),
        ],
        ids=["empty", "empty, behind a mark", "without its first record", "without its last record"],
    )
    def test_one_that_is_longer_than_its_end_says_is_an_error(self, archive: bytes) -> None:
        with pytest.raises(ObjectError) as failure:
            list(members(BytesSource(archive), LIMITS))
        assert failure.value.code == "ARCHIVE_UNREADABLE"

    def test_a_folder_is_told_by_its_name_as_written(self) -> None:
        archive = forge([Record(b"\0/", method=0), Record(b"ST/\0x", NOTE), *TWO])
        assert list(contents(BytesSource(archive))) == ["ST/", "a.dcm", "b.txt"]
        assert agreed(BytesSource(archive))


class TestRecognition:
    @pytest.mark.parametrize(
        "prefix", [b"MZ" + bytes(510), b"#!/bin/sh\n", b"\x7fELF", b"\x89PNG", b"text\n", bytes(99)]
    )
    @pytest.mark.parametrize("method", [0, 8])
    def test_an_archive_behind_anything_is_one(self, prefix: bytes, method: int) -> None:
        assert recognised(BytesSource(forge([Record(b"a", IMAGE, method=method)], prefix=prefix)))

    @pytest.mark.parametrize("begin", [IMAGE, IMAGE[132:], b"xx" + IMAGE])
    def test_dicom_stays_dicom_with_an_archive_behind_it(self, begin: bytes) -> None:
        data = begin + forge(TWO)
        assert kind_of(data[:4_096], len(data)).kind is Kind.DICOM
        assert not recognised(BytesSource(data))

    @pytest.mark.parametrize(
        "data",
        [
            b"MZ" + bytes(99),
            b"MZ" + bytes(99) + b"PK\5\6" + bytes(18),
            b"MZ" + bytes(99) + forge([]),
            b"MZ" + forge(TWO)[40:],
            b"MZ" + forge(TWO)[:-5],
            b"MZ" + b"PK\5\6" * 20_000,
        ],
        ids=["program", "end mark", "empty archive", "no member", "cut", "marks"],
    )
    def test_end_marks_alone_make_no_archive(self, data: bytes) -> None:
        assert not recognised(BytesSource(data))

    def test_what_is_told_by_its_beginning_is_not_asked_for_its_end(self) -> None:
        for data in (IMAGE, b"PatientID,Dx\n1,a\n", RULES["Apple"], b"\x1f\x8b\x08" + bytes(40)):
            assert not may_end_as_zip(data[:4_096], kind_of(data[:4_096], len(data)))

    def test_a_large_object_that_is_nothing_costs_one_more_read(self) -> None:
        reads: list[int] = []

        class Counting(BytesSource):
            def read(self, offset: int, length: int) -> bytes:
                reads.append(length)
                return super().read(offset, length)

        assert not recognised(Counting(b"\x89PNG" + os.urandom(1_000_000)))
        assert len(reads) == 2
        assert sum(reads) < 140_000

    @pytest.mark.parametrize("method", [0, 8])
    def test_a_self_extracting_archive_in_an_archive_is_opened(self, method: int) -> None:
        inner = forge(TWO, prefix=b"MZ" + bytes(5_000))
        found = contents(BytesSource(forge([Record(b"sfx.exe", inner, method=method), Record(b"p.exe", b"MZ" + NOTE)])))
        assert found == {"sfx.exe": inner, "sfx.exe!a.dcm": IMAGE, "sfx.exe!b.txt": NOTE, "p.exe": b"MZ" + NOTE}


class TestOneBadMember:
    @pytest.mark.parametrize(
        ("bad", "code"),
        [
            (Record(b"bad", IMAGE, crc=7), "ARCHIVE_UNREADABLE"),
            (Record(b"bad", IMAGE, method=0, packed=IMAGE[:-9] + b"x" * 9), "ARCHIVE_UNREADABLE"),
            (Record(b"bad", IMAGE, method=93, packed=b"\x28\xb5\x2f\xfd" + b"x" * 60), "ARCHIVE_UNREADABLE"),
            (Record(b"bad", IMAGE, method=9, packed=b"\xff" * 60), "ARCHIVE_UNREADABLE"),
            (Record(b"bad", IMAGE, method=9, packed=deflate(IMAGE)[:-9]), "ARCHIVE_UNREADABLE"),
            (Record(b"bad", IMAGE, method=95, packed=b"\xfd7zXZ\0" + b"x" * 60), "ARCHIVE_UNREADABLE"),
            (Record(b"bad", IMAGE, method=98), "ARCHIVE_METHOD_UNSUPPORTED"),
            (Record(b"bad", IMAGE, zip64=True, extra64=b""), "ARCHIVE_UNREADABLE"),
            (Record(b"bad", IMAGE, at=3), "ARCHIVE_UNREADABLE"),
        ],
        ids=lambda one: one if isinstance(one, str) else f"method {one.method}",
    )
    def test_costs_itself_alone(self, bad: Record, code: str) -> None:
        archive = forge([Record(b"before", IMAGE), bad, Record(b"after", NOTE)], prefix=b"MZ" + bytes(99))
        found: dict[str, bytes | str] = {}
        source = BytesSource(archive)
        for member in members(source, LIMITS):
            ((_, opened),) = open_members(source, [member.entry], LIMITS)
            try:
                found[member.name] = _content(member, opened)
            except ObjectError as error:
                found[member.name] = error.code
        assert found == {"before": IMAGE, "bad": code, "after": NOTE}
        assert agreed(source)

    def test_storage_that_fails_is_not_the_members_fault(self) -> None:
        noise = os.urandom(300_000)
        archive = forge([Record(b"a", noise, method=93, packed=pa.compress(noise, codec="zstd", asbytes=True))])
        (member,) = members(BytesSource(archive), LIMITS)

        class Failing(BytesSource):
            fails = False

            def read(self, offset: int, length: int) -> bytes:
                if self.fails:
                    raise ObjectError("READ_FAILED", "gone")
                return super().read(offset, min(length, 100_000))

        source = Failing(archive)
        ((_, opened),) = open_members(source, [member.entry], LIMITS)
        assert isinstance(opened, MemberBytes)
        source.fails = True
        with pytest.raises(ObjectError) as failure:
            opened.read(0, opened.size)
        assert failure.value.code == "READ_FAILED"


def _zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


@pytest.mark.parametrize("method", [0, 8, 93])
def test_nothing_of_a_member_stays_in_memory(method: int) -> None:
    packed = {0: IMAGE, 8: None, 93: pa.compress(IMAGE, codec="zstd", asbytes=True)}[method]

    class Watched(BytesSource):
        __slots__ = ("__weakref__",)

    source = Watched(forge([Record(b"a", IMAGE, method=method, packed=packed)]))
    assert contents(source) == {"a": IMAGE}
    still_there = weakref.ref(source)
    del source
    gc.collect()
    assert still_there() is None


@pytest.mark.parametrize("method, pack", [(8, deflate), (12, bz2.compress), (93, _zstd)])
def test_nothing_of_a_member_that_is_cut_stays_in_memory(method: int, pack: Callable[[bytes], bytes]) -> None:
    noise = random.Random(1).randbytes(100_000)
    archive = BytesSource(forge([Record(b"a", noise, method=method, packed=pack(noise)[:50_000])]))

    def read() -> None:
        (member,) = members(archive, LIMITS)
        ((_, opened),) = open_members(archive, [member.entry], LIMITS)
        with pytest.raises(ObjectError):
            _content(member, opened)

    read()
    tracemalloc.start()
    try:
        for _ in range(12):
            read()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()


NAMES = (
    st.text("abcé/\\.PK\x05\x06", min_size=1, max_size=9)
    .map(lambda text: f"n{text}")
    .filter(lambda name: ".." not in name and "/." not in name and "\\." not in name)
)
RECORDS = st.builds(
    lambda name, data, method, system, zip64, descriptor, form, more: Record(
        name.encode(), data, method=method, system=system, zip64=zip64, descriptor=descriptor,
        descriptor_form=form, local_extra=more,
    ),
    NAMES,
    st.binary(max_size=200) | st.sampled_from([forge(TWO), b"PK\5\6" + bytes(18), IMAGE]),
    st.sampled_from([0, 8]),
    st.sampled_from([0, 3, 11, 19]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(DESCRIPTORS),
    st.binary(max_size=9),
)  # fmt: skip
QUIRKS = st.fixed_dictionaries(
    {
        "prefix": st.sampled_from([b"", b"MZ" + bytes(70), b"#!/bin/sh\n", os.urandom(0), b"\x7fELF" + b"PK\5\6" * 9]),
        "adjusted": st.booleans(),
        "comment": st.binary(max_size=40) | st.sampled_from([b"PK\5\6" + bytes(18), b"PK\5\6" * 9]),
        "end64": st.booleans(),
        "extensible": st.binary(max_size=40),
        "trailing": st.sampled_from([b"", b"\0" * 9, b"\x1a" * 600]),
    }
)


@settings(max_examples=250, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=6), QUIRKS)
def test_whatever_the_writer_what_went_in_comes_out(records: list[Record], quirks: dict[str, object]) -> None:
    source = BytesSource(forge(records, **quirks))  # type: ignore[arg-type]
    wanted = [r for r in records if r.data or not r.name.endswith((b"/", b"\\"))]
    found = [m for m in members(source, LIMITS) if len(m.entry) == 1]
    assert [(m.size, m.name.partition("#")[0]) for m in found] == [(len(r.data), r.name.decode()) for r in wanted]
    opened = open_members(source, [m.entry for m in found], LIMITS)
    for member, record, (_, one) in zip(found, wanted, opened, strict=True):
        if member.code != "SYSTEM_FILE":
            assert _content(member, one) == record.data
            assert isinstance(one, MemberBytes)
            assert zlib.crc32(record.data) == record.checksum
    assert agreed(source)


def test_archives_hold_for_a_moment_of_fuzzing() -> None:
    assert blindly(fuzz_archives.Judge(), fuzz_archives.made, 1.0, 20261129) == 0
