"""A folder as landing source: listing, opening, noticing changes."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.landing import local
from dicom_assets.landing.file_uris import etag_of, path_of, uri_of
from dicom_assets.landing.local import LocalFolder
from dicom_assets.landing.store import LISTING, ObjectError, ObjectRef, OpenObject, PassedOver, SourceUnavailable
from dicom_assets.settings import SourceSettings


def store(root: Path, **settings: Any) -> LocalFolder:
    return LocalFolder(SourceSettings(name="ct", root=str(root), **settings))


def rows(folder: LocalFolder) -> list[dict[str, Any]]:
    return [row for batch in folder.list() for row in batch.to_pylist()]


def below(root: Path, folder: LocalFolder) -> list[str]:
    return [path_of(row["uri"])[len(str(root)) + 1 :] for row in rows(folder)]


def write(root: Path, *paths: str, data: bytes = b"x") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def claim(path: Path) -> ObjectRef:
    status = path.stat()
    return ObjectRef(uri_of(str(path)), etag_of(status), status.st_size)


def opened(folder: LocalFolder, *objects: ObjectRef) -> Iterator[OpenObject | ObjectError]:
    return folder.open_all(objects, 65_536)


def only(folder: LocalFolder, claimed: ObjectRef) -> OpenObject:
    (result,) = opened(folder, claimed)
    assert not isinstance(result, ObjectError)
    return result


def code_of(folder: LocalFolder, claimed: ObjectRef) -> str:
    (result,) = opened(folder, claimed)
    assert isinstance(result, ObjectError)
    return result.code


class TestListing:
    def test_a_folders_files_come_together_and_before_its_folders(self, tmp_path: Path) -> None:
        write(tmp_path, "b/2", "b/1", "b/a/9", "a/z", "c", "B/x")
        assert below(tmp_path, store(tmp_path)) == ["c", "B/x", "a/z", "b/1", "b/2", "b/a/9"]

    def test_rows_say_where_how_large_how_old_and_which_version(self, tmp_path: Path) -> None:
        write(tmp_path, "x y%.dcm", data=b"12345")
        os.utime(tmp_path / "x y%.dcm", ns=(0, 1_600_000_000_123_456_789))
        (batch,) = store(tmp_path).list()
        assert batch.schema == LISTING
        (row,) = batch.to_pylist()
        assert row["uri"] == f"file://{tmp_path}/x%20y%25.dcm"
        assert row["size"] == 5
        assert row["modified_at"] == datetime.fromtimestamp(1_600_000_000, UTC).replace(microsecond=123_456)
        (tmp_path / "x y%.dcm").write_bytes(b"123456")
        assert rows(store(tmp_path))[0]["etag"] != row["etag"]

    def test_an_empty_folder_lists_nothing(self, tmp_path: Path) -> None:
        assert list(store(tmp_path).list()) == []

    def test_batches_are_bounded_and_nothing_is_lost_between_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(local, "LISTING_ROWS", 7)
        write(tmp_path, *[f"{i % 3}/{i:03}" for i in range(50)])
        batches = list(store(tmp_path).list())
        assert max(map(len, batches)) < 14
        assert sum(map(len, batches)) == 50

    def test_include_and_exclude_choose_by_path(self, tmp_path: Path) -> None:
        write(tmp_path, "a.dcm", "a.txt", "x/b.dcm", "old/c.dcm")
        assert below(tmp_path, store(tmp_path, include=("**/*.dcm",), exclude=("old/**",))) == ["a.dcm", "x/b.dcm"]

    def test_names_that_are_not_utf8_survive_byte_by_byte(self, tmp_path: Path) -> None:
        name = b"caf\xe9 \xff\n.dcm"
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"ok")
        (row,) = rows(store(tmp_path))
        row["uri"].encode("ascii")
        assert os.fsencode(path_of(row["uri"])).endswith(name)
        assert only(store(tmp_path), ObjectRef(row["uri"], row["etag"], row["size"])).read(0, 9) == b"ok"

    def test_the_root_may_be_a_link(self, tmp_path: Path) -> None:
        write(tmp_path, "real/a")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert below(tmp_path / "link", store(tmp_path / "link")) == ["a"]

    def test_pipes_and_sockets_are_passed_over(self, tmp_path: Path) -> None:
        write(tmp_path, "a")
        os.mkfifo(tmp_path / "pipe")
        with tempfile.TemporaryDirectory(dir="/tmp") as short, socket.socket(socket.AF_UNIX) as server:
            server.bind(f"{short}/s")
            assert below(Path(short), store(Path(short))) == []
        assert below(tmp_path, store(tmp_path)) == ["a"]

    def test_a_file_that_vanishes_before_its_stat_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, "a", "b")
        scan = LocalFolder._scan

        def scan_then_remove(self: LocalFolder, folder: bytes) -> Any:
            found = scan(self, folder)
            (tmp_path / "a").unlink()
            return found

        monkeypatch.setattr(LocalFolder, "_scan", scan_then_remove)
        assert below(tmp_path, store(tmp_path)) == ["b"]


class TestAFailedListingIsNotAnEmptyListing:
    def test_missing_root(self, tmp_path: Path) -> None:
        with pytest.raises(SourceUnavailable, match=r"Source 'ct': .*nowhere is not a folder.*Create or mount"):
            list(store(tmp_path / "nowhere").list())

    def test_root_is_a_file(self, tmp_path: Path) -> None:
        write(tmp_path, "file")
        with pytest.raises(SourceUnavailable, match="is not a folder"):
            list(store(tmp_path / "file").list())


class TestAFaultBelowTheRootStaysWithItsFolder:
    def passed_over(self, folder: LocalFolder) -> tuple[list[str], list[PassedOver]]:
        places: list[PassedOver] = []
        found = [row["uri"] for batch in folder.list(passed_over=places.append) for row in batch.to_pylist()]
        return found, places

    def refuse(self, monkeypatch: pytest.MonkeyPatch, name: bytes, error: OSError) -> None:
        scandir = os.scandir

        def refused(path: bytes) -> Any:
            if path.endswith(name):
                raise error
            return scandir(path)

        monkeypatch.setattr(local.os, "scandir", refused)

    def test_a_folder_that_cannot_be_listed_is_passed_over_and_told_with_all_else_listed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, "a", "DOE^JANE/x", "z/b")
        self.refuse(monkeypatch, b"JANE", PermissionError(13, "no"))
        found, places = self.passed_over(store(tmp_path))
        assert found == [uri_of(str(tmp_path / "a")), uri_of(str(tmp_path / "z/b"))]
        assert places == [PassedOver(f"{uri_of(str(tmp_path))}/DOE%5EJANE/", "Permission denied")]
        assert self.passed_over(store(tmp_path, exclude=("DOE*/**",)))[1] == []

    def test_a_folder_that_vanishes_among_others_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, *[f"{number:03d}/a" for number in range(40)])
        self.refuse(monkeypatch, b"017", FileNotFoundError(2, "no"))
        found, places = self.passed_over(store(tmp_path))
        assert (len(found), places) == (39, [])

    def test_a_file_that_cannot_be_looked_at_is_told_by_its_folder_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, "a", "sub/b", "sub/c", "sub/d")
        for name in ("b", "c"):
            (tmp_path / "sub" / name).chmod(0o123)

        def refuse(mode: int) -> bool:
            if mode & 0o777 == 0o123:
                raise OSError(5, "no")
            return False

        monkeypatch.setattr(local.stat, "S_ISLNK", refuse)
        found, places = self.passed_over(store(tmp_path))
        assert found == [uri_of(str(tmp_path / "a")), uri_of(str(tmp_path / "sub/d"))]
        assert [place.detail for place in places] == ["Input/output error"]

    def test_folders_of_the_system_are_not_missed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, "lost+found/x", "a")
        self.refuse(monkeypatch, b"lost+found", PermissionError(13, "no"))
        assert self.passed_over(store(tmp_path))[1] == []


class TestOpening:
    def test_one_result_for_each_object_in_order(self, tmp_path: Path) -> None:
        write(tmp_path, "a", data=b"aa")
        write(tmp_path, "b", data=b"bbb")
        claims = [claim(tmp_path / "b"), ObjectRef(uri_of(str(tmp_path / "no")), "0-0", 0), claim(tmp_path / "a")]
        sizes = []
        for result in opened(store(tmp_path), *claims):
            if isinstance(result, ObjectError):
                sizes.append(result.code)
            else:
                sizes.append(result.size)
                result.close()
        assert sizes == [3, "OBJECT_GONE", 2]

    def test_reads_are_ranges_cut_at_the_end(self, tmp_path: Path) -> None:
        write(tmp_path, "a", data=b"0123456789")
        source = only(store(tmp_path), claim(tmp_path / "a"))
        assert source.read(0, 4) == b"0123"
        assert source.read(8, 100) == b"89"
        assert source.read(10, 1) == b""
        assert source.read(50, 1) == b""
        source.verify()
        source.close()
        source.close()

    def test_a_file_that_changed_since_its_claim_is_not_read(self, tmp_path: Path) -> None:
        write(tmp_path, "a")
        claimed = claim(tmp_path / "a")
        write(tmp_path, "a", data=b"longer")
        assert code_of(store(tmp_path), claimed) == "CHANGED_DURING_READ"

    def test_a_file_that_changes_while_it_is_read_is_noticed(self, tmp_path: Path) -> None:
        write(tmp_path, "a", data=b"0123")
        source = only(store(tmp_path), claim(tmp_path / "a"))
        os.utime(tmp_path / "a", (1, 1))
        with pytest.raises(ObjectError) as changed:
            source.verify()
        assert changed.value.code == "CHANGED_DURING_READ"

    def test_a_file_cut_short_while_it_is_read_is_noticed(self, tmp_path: Path) -> None:
        write(tmp_path, "a", data=b"0123")
        source = only(store(tmp_path), claim(tmp_path / "a"))
        os.truncate(tmp_path / "a", 2)
        with pytest.raises(ObjectError) as changed:
            source.read(0, 4)
        assert changed.value.code == "CHANGED_DURING_READ"

    def test_a_file_that_grows_is_read_as_far_as_it_was_claimed(self, tmp_path: Path) -> None:
        write(tmp_path, "a", data=b"0123")
        source = only(store(tmp_path), claim(tmp_path / "a"))
        with (tmp_path / "a").open("ab") as file:
            file.write(b"4567")
        assert source.read(0, 100) == b"0123"
        with pytest.raises(ObjectError):
            source.verify()

    @pytest.mark.parametrize("what", ["folder", "pipe"])
    def test_what_took_a_files_place_is_not_read(self, tmp_path: Path, what: str) -> None:
        write(tmp_path, "a")
        claimed = claim(tmp_path / "a")
        (tmp_path / "a").unlink()
        (tmp_path / "a").mkdir() if what == "folder" else os.mkfifo(tmp_path / "a")
        assert code_of(store(tmp_path), claimed) == "CHANGED_DURING_READ"

    def test_objects_are_not_gone_when_their_whole_source_is(self, tmp_path: Path) -> None:
        write(tmp_path, "in/a")
        claimed = claim(tmp_path / "in/a")
        (tmp_path / "in").rename(tmp_path / "unmounted")
        assert code_of(store(tmp_path / "in"), claimed) == "SOURCE_UNAVAILABLE"

    def test_a_storage_that_refuses_is_no_verdict_on_the_object(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, "JANE")
        claimed = claim(tmp_path / "JANE")

        def refuse(*_: Any) -> int:
            raise PermissionError(13, "Permission denied", str(tmp_path / "JANE"))

        monkeypatch.setattr(local.os, "open", refuse)
        (result,) = opened(store(tmp_path), claimed)
        assert isinstance(result, ObjectError)
        assert (result.code, "JANE" in str(result)) == ("READ_FAILED", False)

    def test_a_storage_that_breaks_off_is_no_verdict_on_the_object(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, "a")
        source = only(store(tmp_path), claim(tmp_path / "a"))

        def fail(*_: Any) -> bytes:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(local.os, "pread", fail)
        with pytest.raises(ObjectError) as failure:
            source.read(0, 1)
        assert failure.value.code == "READ_FAILED"


@given(st.binary(min_size=1, max_size=60).filter(lambda name: b"\0" not in name))
def test_every_path_survives_its_uri(path: bytes) -> None:
    absolute = b"/" + path
    uri = uri_of(absolute)
    assert uri.isascii()
    assert os.fsencode(path_of(uri)) == absolute


@pytest.mark.parametrize("uri", ["/a", "file://host/a", "az://c/a"])
def test_other_uris_have_no_path(uri: str) -> None:
    with pytest.raises(ValueError, match="local"):
        path_of(uri)
