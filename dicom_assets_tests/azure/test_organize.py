"""Mode organize in a container: copied by the storage, then deleted; a kill in between loses and doubles nothing."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.organize import Organizing
from dicom_assets.landing.container_moves import ContainerMover
from dicom_assets.landing.moves import mover
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import ObjectRef, SourceUnavailable
from dicom_assets.settings import Settings, SourceSettings
from dicom_assets.storage.azure import parse
from dicom_assets_tests.azure.azurite import Container, Proxy
from dicom_assets_tests.support.dicoms import dicom, without_identity
from dicom_assets_tests.support.landings import zipped
from dicom_assets_tests.support.steps import Stepped

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_far_as_hierarchy")]


def found(container: Container) -> Counter[str]:
    """How often each object's bytes are there, archives looked into."""
    counts: Counter[str] = Counter()
    for name in container.names():
        data = container.client.download_blob(name).readall()
        inside = [data]
        if data[:2] == b"PK":
            archive = zipfile.ZipFile(io.BytesIO(data))
            inside = [archive.read(member) for member in archive.namelist()]
        counts.update(hashlib.sha256(one).hexdigest() for one in inside)
    return counts


class Killed(BaseException):
    """What a kill looks like from inside."""


def test_objects_of_a_container_move_whatever_kills_come_between(
    container: Container, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.put("in/Ingest/a b/1.dcm", dicom(1, 1, 1))
    container.put("in/Ingest/c/1.dcm", dicom(1, 1, 2))
    container.put("in/Ingest/bad.dcm", without_identity(3))
    container.put("in/Ingest/notes.txt", b"nothing that is read here")
    container.put("in/Ingest/z.zip", zipped({"x/1.dcm": dicom(1, 1, 4), "readme": b"a text"}))
    settings = Settings.model_validate(
        {
            "lake": str(tmp_path / "lake"),
            "sources": [{"name": "pacs", "root": f"{container.url}/in", "mode": "organize"}],
            "claiming": {"quiet_seconds": 0},
        }
    )
    before = found(container)
    graph = Stepped(settings, instance, judges=False)
    with monkeypatch.context() as patch:
        patch.setattr(Organizing, "finish", lambda self: None)
        (batch,) = graph.ingest()

    steps = kill_at = 0

    def counted(method: Any) -> Any:
        def call(self: Any, *arguments: Any) -> Any:
            nonlocal steps
            for moment in range(2):
                steps += 1
                if steps == kill_at:
                    raise Killed
                if moment == 0:
                    result = method(self, *arguments)
            return result

        return call

    with monkeypatch.context() as patch:
        patch.setattr(ContainerMover, "at_once", 1)
        patch.setattr(Organizing, "_rewrite", counted(lambda self, done: None))
        for name in ("copy", "write", "remove"):
            patch.setattr(ContainerMover, name, counted(getattr(ContainerMover, name)))
        # Each round is killed one step later than the one before it, and goes on from what that one left.
        while kill_at < 20:
            kill_at, steps = kill_at + 1, 0
            try:
                with RunContext(settings) as work:
                    work.organize_left()
            except Killed:
                assert set(found(container)) == set(before)
                continue
            break
    with RunContext(settings) as work:
        batch_work = work.batch(batch)
        batch_work.organizing.finish()
    assert found(container) == before
    names = container.names()
    assert [name for name in names if "Ingest" in name] == ["in/Ingest/notes.txt"]
    assert sum("/Process/Imaging/DICOM/pacs/" in name for name in names) == 3
    assert sum("/Failed/Imaging/DICOM/pacs/" in name for name in names) == 1
    uris = [row["uri"] for row in graph.rows("SELECT uri FROM instance")]
    assert len(uris) == 3
    assert {parse(uri).path in names for uri in uris} == {True}
    assert graph.claim() == []
    assert graph.run(batch).success
    assert graph.books(batch).ingested == 3
    assert found(container) == before


def test_a_blob_replaced_meanwhile_is_neither_moved_nor_deleted(container: Container) -> None:
    etag = container.put("in/a.dcm", b"old")
    store = open_store(SourceSettings(root=f"{container.url}/in"))
    claimed = ObjectRef(f"{container.url}/in/a.dcm", etag, 3)
    container.put("in/a.dcm", b"new")
    moves = mover(store)
    assert moves.copy(claimed, "Process/a.dcm") is None
    moves.remove(claimed)
    assert container.names() == ["in/a.dcm"]


def test_missing_rights_say_which_role_is_needed(container: Container, faults: Proxy) -> None:
    etag = container.put("in/a.dcm", b"old")
    moves = mover(open_store(SourceSettings(root=f"{container.url}/in")))
    faults.refuse = lambda method, path: 403
    with pytest.raises(SourceUnavailable, match="Storage Blob Data Contributor"):
        moves.remove(ObjectRef(f"{container.url}/in/a.dcm", etag, 3))
