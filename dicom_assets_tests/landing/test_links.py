"""Links in a landing folder: what is followed, and that what is not is counted once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dicom_assets.landing.file_uris import path_of
from dicom_assets.landing.links import LINK, is_made_up
from dicom_assets.landing.local import LocalFolder
from dicom_assets.landing.store import ObjectError, ObjectRef, PassedOver
from dicom_assets.settings import SettingsError, SourceSettings, load
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped

pytestmark = pytest.mark.usefixtures("as_far_as_hierarchy")


@pytest.fixture
def graph(stepped: Stepped) -> Stepped:
    """These tests are about what is in the tables."""
    return stepped


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`in` is the landing folder; `secret` lies beside it."""
    for path in ("in/real/a", "secret/b", "secret/deep/c"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    return tmp_path / "in"


def store(root: Path, **settings: Any) -> LocalFolder:
    return LocalFolder(SourceSettings(name="ct", root=str(root), **settings))


def listed(root: Path, **settings: Any) -> dict[str, bool]:
    """Paths below the root; whether each is followed, as far as it is a link."""
    rows = [row for batch in store(root, **settings).list() for row in batch.to_pylist()]
    return {path_of(row["uri"])[len(str(root)) + 1 :]: not row["etag"].startswith(LINK) for row in rows}


def code(root: Path, name: str, **settings: Any) -> str | None:
    """What opening an object as it was listed before comes to; None when it opens."""
    rows = {row["uri"]: row for batch in store(root, **settings).list() for row in batch.to_pylist()}
    row = next(row for uri, row in rows.items() if uri.endswith(f"/{name}"))
    return opened(root, ObjectRef(row["uri"], row["etag"], row["size"]), **settings)


def opened(root: Path, claimed: ObjectRef, **settings: Any) -> str | None:
    (result,) = store(root, **settings).open_all([claimed], 4_096)
    if isinstance(result, ObjectError):
        return result.code
    result.close()
    return None


class TestALinkThatIsNotFollowed:
    @pytest.mark.parametrize(
        "target", ["../secret/b", "../secret", "real", ".", "nowhere", "link", "/etc/hostname", "/proc/self/status"]
    )
    def test_is_an_object_of_its_own_and_the_same_each_time(self, root: Path, target: str) -> None:
        (root / "link").symlink_to(target)
        rows = [next(iter(store(root).list())).to_pylist() for _ in range(2)]
        assert rows[0] == rows[1]
        assert listed(root) == {"link": False, "real/a": True}
        assert code(root, "link") == "LINK_NOT_FOLLOWED"

    def test_is_a_new_object_when_it_is_made_anew(self, root: Path) -> None:
        (root / "link").symlink_to("../secret/b")
        before = next(iter(store(root).list()))
        (root / "link").unlink()
        (root / "link").symlink_to("../secret/deep/c")
        assert next(iter(store(root).list())) != before

    def test_within_the_patterns_counts_and_outside_does_not(self, root: Path) -> None:
        (root / "link.dcm").symlink_to("../secret/b")
        assert listed(root, include=("real/**",)) == {"real/a": True}


class TestALinkThatIsFollowed:
    def test_leads_to_a_file_within_the_root_which_is_there_twice(self, root: Path) -> None:
        (root / "link").symlink_to("real/a")
        assert listed(root) == {"link": True, "real/a": True}
        assert code(root, "link") is None

    def test_leads_out_where_the_source_says_so(self, root: Path) -> None:
        (root / "file").symlink_to("../secret/b")
        (root / "folder").symlink_to("../secret")
        found = listed(root, follow_links=True)
        assert found == {"file": True, "folder/b": True, "folder/deep/c": True, "real/a": True}
        assert code(root, "deep/c", follow_links=True) is None

    def test_leads_into_no_folder_twice_and_in_no_circle(self, root: Path) -> None:
        (root / "folder").symlink_to("../secret")
        (root / "again").symlink_to("../secret/deep")
        (root / "up").symlink_to("..")
        (root.parent / "secret/back").symlink_to("../in")
        (root.parent / "secret/self").symlink_to(".")
        found = listed(root, follow_links=True)
        assert [name for name, followed in found.items() if followed] == ["again/c", "real/a"]
        assert {name for name, followed in found.items() if not followed} == {"folder", "up"}

    def test_never_leads_to_files_that_the_system_makes_up(self, root: Path) -> None:
        (root / "status").symlink_to("/proc/self/status")
        (root / "proc").symlink_to("/proc/self")
        assert listed(root, follow_links=True) == {"proc": False, "real/a": True, "status": False}

    def test_is_for_folders(self, tmp_path: Path) -> None:
        (tmp_path / "c.toml").write_text('[[sources]]\nname = "a"\nroot = "az://a/b"\nfollow_links = true\n')
        with pytest.raises(SettingsError, match="follow_links is for roots that are folders"):
            load(environment={"DICOM_ASSETS_CONFIG": str(tmp_path / "c.toml")})


def test_a_hard_link_is_a_file(root: Path) -> None:
    os.link(root.parent / "secret/b", root / "hard")
    assert listed(root) == {"hard": True, "real/a": True}
    assert code(root, "hard") is None


@pytest.mark.parametrize("follow", [False, True])
def test_a_file_system_that_the_system_makes_up_is_passed_over(
    root: Path, monkeypatch: pytest.MonkeyPatch, follow: bool
) -> None:
    assert is_made_up(Path("/proc").stat().st_dev)
    assert not is_made_up(root.stat().st_dev)
    places: list[PassedOver] = []
    monkeypatch.setattr("dicom_assets.landing.local.is_made_up", lambda device: False)
    assert [len(batch) for batch in store(root).list(passed_over=places.append)] == [1]
    real = (root / "real").stat()
    stat = os.stat
    made_up = os.stat_result([*real[:2], 4711, *real[3:]])
    monkeypatch.setattr(
        "dicom_assets.landing.local.os.stat", lambda path: made_up if bytes(path).endswith(b"real") else stat(path)
    )
    monkeypatch.setattr("dicom_assets.landing.local.is_made_up", lambda device: device == 4711)
    assert list(store(root, follow_links=follow).list(passed_over=places.append)) == []
    assert [place.detail for place in places] == ["its files are made up by the system as they are read"]


@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_a_link_that_takes_a_files_place_after_its_claim_is_not_read(root: Path, swapped: str) -> None:
    secret = root.parent / "secret/a"
    secret.write_text("y")
    status = (root / "real/a").stat()
    os.utime(secret, ns=(status.st_atime_ns, status.st_mtime_ns))
    (row,) = next(iter(store(root).list())).to_pylist()
    (root / "real/a").unlink()
    if swapped == "file":
        (root / "real/a").symlink_to(secret)
    else:
        (root / "real").rmdir()
        (root / "real").symlink_to(secret.parent)
    claimed = ObjectRef(row["uri"], row["etag"], row["size"])
    assert opened(root, claimed) == "LINK_NOT_FOLLOWED"
    assert opened(root, claimed, follow_links=True) is None


@pytest.mark.slow
def test_the_books_count_links_and_errors_list_them_once(tmp_path: Path, landing: LandingFolder, instance: Any) -> None:
    outside = LandingFolder(tmp_path / "outside")
    outside.put("b.dcm", dicom(2))
    landing.put("a.dcm", dicom(1))
    for name, target in (("proc", "/proc/self/stat"), ("out.dcm", outside.root / "b.dcm"), ("gone", "nowhere")):
        (landing.root / name).symlink_to(target)
    quiet = {"claiming": {"quiet_seconds": 0}}
    graph = Stepped(settings_for(tmp_path / "lake", landing.root, **quiet), instance, judges=False)
    (batch,) = graph.ingest()
    books = graph.books(batch)
    assert (books.status, books.seen, books.ingested, books.ignored) == ("closed", 4, 1, 3)
    assert graph.rows("SELECT code, count(*) AS n, any_value(severity) AS s FROM ingestion_errors GROUP BY code") == [
        {"code": "LINK_NOT_FOLLOWED", "n": 3, "s": "info"}
    ]
    assert graph.ingest() == []
    source = graph.settings.sources[0].model_copy(update={"follow_links": True})
    trusting = Stepped(graph.settings.model_copy(update={"sources": (source,)}), instance, judges=False)
    (second,) = trusting.ingest()
    assert (trusting.books(second).seen, trusting.books(second).ingested) == (1, 1)
