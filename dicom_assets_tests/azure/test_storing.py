"""Storing into a container: blobs appear at once and whole, under names of their own, and are accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dicom_assets.landing.deposits import MARK, Spool
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.settings import Settings, SourceSettings
from dicom_assets_tests.azure.azurite import Container
from dicom_assets_tests.serve.storing_service import Place, make_app, pixels, publish, running
from dicom_assets_tests.support.dicoms import dicom

pytestmark = pytest.mark.slow

LARGE = 70_000_000
"""Bytes of an object that the SDK sends in blocks."""


@pytest.fixture
def place(container: Container, tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[Place]:
    """A server that stores into a tree in a container, and a lake in a folder."""
    settings = Settings.model_validate(
        {
            "lake": str(tmp_path / "lake"),
            "sources": [{"name": "pacs", "root": f"{container.url}/in", "store": "tree", "tree": "lab/images"}],
            "claiming": {"quiet_seconds": 0},
            "storage": {"survive_power_cuts": False},
        }
    )
    publish(settings, instance)
    one = Place(settings, instance)
    with running(make_app(settings)) as one.url:
        yield one
    one.http.close()


def test_blobs_are_there_whole_and_the_books_count_them(place: Place, container: Container) -> None:
    assert place.store(dicom(1), dicom(1, 1, 2)).status_code == 200
    assert place.store(dicom(1), path="/pacs/Ward-7/studies").status_code == 200
    assert (place.store(dicom(1)).status_code, place.store(dicom(1, Rows=4)).status_code) == (200, 202)
    mark, *names = container.names()
    assert mark == f"in/AHDS/lab/dicom/images/{MARK}"
    assert [name.split("/")[5] for name in names] == ["Microsoft.Default"] * 3 + ["Ward-7"]
    read = [container.client.download_blob(name).readall() for name in names]
    assert sorted(read) == sorted([dicom(1), dicom(1), dicom(1, 1, 2), dicom(1, Rows=4)])
    place.publish()
    assert place.store(dicom(1, Rows=4)).status_code == 200 and len(container.names()) == 5


def test_a_large_object_is_no_blob_before_all_of_its_blocks_are(place: Place, container: Container) -> None:
    seen = []
    sent = pixels(2, LARGE)

    def slowly() -> Iterator[bytes]:
        for begin in range(0, len(sent), LARGE // 4):
            yield sent[begin : begin + LARGE // 4]
            seen.append(len(container.names()))

    assert place.post(slowly(), kind="application/dicom").status_code == 200
    assert seen[-1] == 1, "the mark alone"
    assert container.client.download_blob(container.names()[1]).readall() == sent


def test_a_container_that_is_gone_refuses_what_is_stored(place: Place, container: Container) -> None:
    assert place.store(dicom(3)).status_code == 200
    container.client.delete_container()
    answer = place.store(dicom(4))
    assert answer.status_code == 503
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA700]


def test_what_has_a_name_already_keeps_it(container: Container) -> None:
    depot = open_store(SourceSettings(name="pacs", root=container.url, store="by_date")).depot(synced=True)
    for content, there in ((b"one", True), (b"two", False)):
        spool: Spool = depot.spool()
        spool.write(content)
        assert (depot.put(spool, "2026/01/02/a.dcm") is not None) == there
        spool.close()
    assert container.client.download_blob("2026/01/02/a.dcm").readall() == b"one"
    assert depot.find("2026/01/02/b.dcm") is None and depot.find("2026/01/02/a.dcm") is not None
    assert depot.holds("2026/01") and not depot.holds("2026/02") and not depot.holds("202")
    container.client.delete_container()
    with pytest.raises(SourceUnavailable, match="pacs"):
        depot.find("2026/01/02/a.dcm")
