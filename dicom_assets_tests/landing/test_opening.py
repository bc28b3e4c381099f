"""Which store serves which root."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_assets.landing.local import LocalFolder
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import source_of
from dicom_assets.settings import SettingsError, SourceSettings


@pytest.mark.parametrize("root", ["/data/in", "file:///data/in"])
def test_paths_and_file_uris_are_folders(root: str) -> None:
    store = open_store(SourceSettings(name="ct", root=root))
    assert isinstance(store, LocalFolder)
    assert store.name == "ct"


def test_a_file_uri_and_its_path_list_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "x").write_bytes(b"1")
    by_path = list(open_store(SourceSettings(root=str(folder))).list())
    by_uri = list(open_store(SourceSettings(root=folder.as_uri())).list())
    assert by_path == by_uri
    assert len(by_path) == 1


@pytest.mark.parametrize("root", ["s3://bucket", "file://host/share"])
def test_a_root_that_no_store_serves_is_refused_with_the_source_and_a_way_out(root: str) -> None:
    with pytest.raises(SettingsError, match=r"Source 'ct': .*folder"):
        open_store(SourceSettings(name="ct", root=root))


@pytest.mark.parametrize("root", ["az://imaging/incoming", "abfss://incoming@imaging.dfs.core.windows.net/p"])
def test_addresses_of_azure_storage_are_containers(root: str) -> None:
    assert type(open_store(SourceSettings(name="ct", root=root))).__name__ == "AzureContainer"


@pytest.mark.parametrize("root", ["az://imaging", "az://Imaging/incoming", "az://imaging/incoming?sv=1&sig=abc"])
def test_an_address_without_a_container_or_with_a_signature_is_refused_without_repeating_it(root: str) -> None:
    with pytest.raises(SettingsError, match=r"Source 'ct': .*Correct its root") as raised:
        open_store(SourceSettings(name="ct", root=root))
    assert "sig" not in str(raised.value).replace("signature", "")


def test_a_wrong_pattern_is_refused_when_the_store_is_opened() -> None:
    with pytest.raises(SettingsError, match="patterns"):
        open_store(SourceSettings(root="/x", include=("[b-a]",)))


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("az://acc/ahds/AHDS/ws/dicom/svc/Microsoft.Default/abc_1.dcm", "s"),
        ("az://acc/ahds/AHDS/ws/dicom/svc/site-a/abc_1.dcm", "s/site-a"),
        ("file:///mnt/AHDS/ws/dicom/svc/site-a/abc_1.dcm", "s/site-a"),
        ("az://acc/in/study/1.dcm", "s"),
        ("az://acc/in/AHDS/1.dcm", "s"),
    ],
)
def test_partitions_of_a_dicom_service_become_part_of_the_source(uri: str, source: str) -> None:
    assert source_of("s", uri) == source


def test_an_organized_source_does_not_list_what_it_has_moved(tmp_path: Path) -> None:
    for name in ("Ingest/a", "Process/b", "Failed/c", "d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    store = open_store(SourceSettings(root=str(tmp_path), mode="organize"))
    listed = [store.below_root(uri) for batch in store.list() for uri in batch.column("uri").to_pylist()]
    assert sorted(listed) == ["Ingest/a", "d"]
