"""A source of another kind: a class and a line. The store of this module holds its objects in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from dicom_assets.batch.claim_rounds import claim_by_listing
from dicom_assets.landing import opening
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import LISTING, ObjectError, ObjectRef, OpenObject, PassedOver, pass_over
from dicom_assets.settings import Settings, SettingsError, SourceSettings
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.steps import Stepped

SHELF: dict[str, bytes] = {}
"""Objects by path."""
OLD = datetime.now(UTC) - timedelta(hours=1)


class Shelved:
    """An open object."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def verify(self) -> None:
        """Nobody else changes the shelf."""

    def close(self) -> None:
        """Nothing is open."""


class Shelf:
    """A landing store in memory."""

    def __init__(self, settings: SourceSettings) -> None:
        self.name, self.root = settings.name, settings.root.rstrip("/")

    def below_root(self, uri: str) -> str:
        return uri.removeprefix(f"{self.root}/")

    def device(self) -> int | None:
        return None

    def list(self, *, passed_over: Callable[[PassedOver], None] = pass_over) -> Iterator[pa.RecordBatch]:
        paths = sorted(SHELF)
        columns = [[f"{self.root}/{path}" for path in paths], ["v1"] * len(paths), [len(SHELF[p]) for p in paths],
                   [OLD] * len(paths)]  # fmt: skip
        arrays = [pa.array(values, field.type) for values, field in zip(columns, LISTING, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=LISTING)

    def open_all(self, objects: Sequence[ObjectRef], first_bytes: int) -> Iterator[OpenObject | ObjectError]:
        for one in objects:
            data = SHELF.get(self.below_root(one.uri))
            yield ObjectError("OBJECT_GONE", "It is not on the shelf.") if data is None else Shelved(data)


@pytest.fixture(autouse=True)
def shelf(monkeypatch) -> dict[str, bytes]:
    monkeypatch.setitem(opening.OPENERS, "shelf", Shelf)  # the line
    SHELF.clear()
    return SHELF


def test_its_objects_are_claimed_read_and_in_the_lake(shelf, tmp_path, instance):
    values = {
        "lake": str(tmp_path / "lake"),
        "sources": [{"name": "shelf", "root": "shelf://one"}],
        "reading": {"workers": 1},
    }
    graph = Stepped(Settings.model_validate(values), instance)
    shelf.update({"a/1.dcm": dicom(1), "a/2.txt": b"no image"})
    (batch,) = graph.ingest()
    books = graph.books(batch)
    assert (books.status, books.ingested, books.ignored) == ("closed", 1, 1)
    assert graph.rows("SELECT uri FROM instance") == [{"uri": "shelf://one/a/1.dcm"}]
    with graph.work() as work:
        claimed, cursor, failed = claim_by_listing(work, [open_store(work.settings.sources[0])], None, 0.0)
    assert ([one.claims for one in claimed], cursor, failed) == ([()], "", None)


@pytest.mark.parametrize(
    "ability", [{"mode": "organize"}, {"queue": "https://a.queue.core.windows.net/new"}, {"inventory": "az://a/c"}]
)
def test_what_it_cannot_do_is_refused_when_it_is_opened(ability):
    with pytest.raises(SettingsError, match=f"Source 's': {next(iter(ability))}.* is not for roots of this kind"):
        open_store(SourceSettings(name="s", root="shelf://one", **ability))
