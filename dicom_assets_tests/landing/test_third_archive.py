"""An archive of another kind: a class and a line. The one of this module reads tar."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from dicom_assets.landing import archives
from dicom_assets.landing.archives import Member, members, open_members, recognise
from dicom_assets.landing.inflate import Budget
from dicom_assets.landing.sniff import Form, Sniffed, kind_of
from dicom_assets.schema.codes import Kind
from dicom_assets.settings import ArchiveLimits
from dicom_assets.storage.byte_file import ByteFile
from dicom_assets.storage.byte_ranges import ByteSource, BytesSource
from dicom_assets_tests.support.dicoms import dicom

LIMITS = ArchiveLimits()


class TarEntry(NamedTuple):
    """One member."""

    at: int
    name: str
    size: int
    modified_at: datetime | None
    unix_mode: int
    is_directory: bool
    is_encrypted: bool
    starts: int


class TarMember:
    """The bytes of a member, which stand in the archive as they are."""

    def __init__(self, source: ByteSource, entry: TarEntry) -> None:
        self.source, self.starts, self.size = source, entry.starts, entry.size

    def read(self, offset: int, length: int) -> bytes:
        return self.source.read(self.starts + offset, max(min(length, self.size - offset), 0))

    def verify(self) -> None:
        """A tar has no checksum of what is in it."""

    def spool(self) -> None:
        """It is read in place."""

    def close(self) -> None:
        """Nothing is open."""


class OpenTar:
    """A tar that is open."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        with tarfile.open(fileobj=ByteFile(source)) as tar:
            self.entries = {
                one.offset: TarEntry(
                    one.offset, one.name, one.size, datetime.fromtimestamp(one.mtime, UTC), 0, one.isdir(), False,
                    one.offset_data,
                )
                for one in tar
            }  # fmt: skip

    def __iter__(self) -> Iterator[TarEntry]:
        return iter(self.entries.values())

    def count(self, most: int) -> int:
        return len(self.entries)

    def entry(self, at: int) -> TarEntry:
        return self.entries[at]

    def package(self) -> None:
        return None

    def member(self, entry: TarEntry, limits: ArchiveLimits, budget: Budget) -> TarMember:
        return TarMember(self.source, entry)


class Tar:
    """The kind."""

    def begins(self, head: bytes) -> bool:
        return head[257:262] == b"ustar"

    def recognise(self, found: Sniffed, source: ByteSource, head: bytes, *, is_member: bool) -> Sniffed | None:
        return Sniffed(Kind.ARCHIVE, Form.PACKED) if self.begins(head) else None

    def open(self, source: ByteSource, block: int = 0) -> OpenTar:
        return OpenTar(source)


@pytest.fixture(autouse=True)
def tar_is_read(monkeypatch) -> None:
    monkeypatch.setattr(archives, "ARCHIVES", [Tar(), *archives.ARCHIVES])  # the line


def tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def contents(data: bytes, listed: list[Member]) -> list[bytes]:
    entries = [one.entry for one in listed]
    found = []
    for _, opened in open_members(BytesSource(data), entries, LIMITS):
        assert not isinstance(opened, Exception)
        found.append(opened.read(0, opened.size))
    return found


def test_it_is_recognised_listed_and_its_members_are_read():
    data = tar(image=dicom(1), note=b"text")
    found, kind = recognise(kind_of(data[:4_096], len(data)), BytesSource(data), data[:4_096])
    assert (found.kind, found.code, type(kind)) == (Kind.ARCHIVE, None, Tar)
    listed = list(members(BytesSource(data), LIMITS))
    assert [(one.name, one.kind) for one in listed] == [("image", Kind.DICOM), ("note", Kind.OTHER)]
    assert contents(data, listed) == [dicom(1), b"text"]


@pytest.mark.parametrize(("outer", "inner"), [(tar, zipped), (zipped, tar)])
def test_it_lies_in_archives_of_other_kinds_and_they_in_it(outer, inner):
    packed = inner(image=dicom(2))
    data = outer(packed=packed, last=dicom(3))
    listed = list(members(BytesSource(data), LIMITS))
    assert [(one.name, one.code) for one in listed] == [
        ("packed", "ARCHIVE_EXPANDED"),
        ("packed!image", None),
        ("last", None),
    ]
    assert contents(data, listed) == [packed, dicom(2), dicom(3)]
