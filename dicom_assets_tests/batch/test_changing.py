"""Nothing of an object is published that was not seen to be the same after it was read: files, archives, members."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_assets.clinical import records
from dicom_assets.reading import judge, kinds
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import Graph
from dicom_assets_tests.support.landings import CLINICAL_CSV, zipped
from dicom_assets_tests.support.steps import Stepped

pytestmark = pytest.mark.usefixtures("as_far_as_hierarchy")


@pytest.fixture
def graph(stepped: Stepped) -> Stepped:
    """These tests are about what is in the tables."""
    return stepped


def outcomes(graph: Graph) -> dict[str, tuple[str, str | None]]:
    """By member, or name of a file, its outcome and code."""
    rows = graph.rows(
        "SELECT coalesce(member, parse_filename(uri)) AS name, outcome, code "
        "FROM raw_files JOIN validated_batch USING (batch_id, object_id)"
    )
    return {row["name"]: (row["outcome"], row["code"]) for row in rows}


def at_call(number: int, function: Callable[..., Any], happens: Callable[[], None]) -> Callable[..., Any]:
    """The function, and something that happens after it was called for the n-th time."""
    calls = 0

    def calling(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        result = function(*arguments, **options)
        if calls == number:
            happens()
        return result

    return calling


CHANGED = ("quarantined", "CHANGED_DURING_READ")


def test_a_table_that_is_touched_while_it_is_read_is_quarantined_and_gives_no_rows(graph, landing, monkeypatch):
    path = landing.put("table.csv", CLINICAL_CSV)
    landing.put("other.csv", CLINICAL_CSV)
    kept = records.read_records

    def touching(source: Any, *arguments: Any) -> Iterator[Any]:
        yield from kept(source, *arguments)
        if source.size and not os.path.samefile(f"/proc/self/fd/{source._fd}", landing.root / "other.csv"):
            os.utime(path)

    monkeypatch.setattr(records, "read_records", touching)
    graph.ingest()
    assert outcomes(graph) == {"table.csv": CHANGED, "other.csv": ("ingested", None)}
    assert [row["uri"][-9:] for row in graph.rows("SELECT * FROM clinical JOIN raw_files USING (object_id)")] == [
        "other.csv"
    ] * 3


@pytest.mark.slow
def test_of_an_archive_that_is_rewritten_in_place_while_it_is_read_nothing_is_ingested(graph, landing, monkeypatch):
    def archive(study: int) -> bytes:
        members = {f"{number}.dcm": dicom(study, 1, number) for number in (1, 2, 3)}
        return zipped({**members, "table.csv": CLINICAL_CSV.encode(), "note.txt": b"nothing"})

    path = landing.put("a.zip", archive(1))

    def rewrite() -> None:
        with path.open("r+b") as file:
            file.write(archive(2))
            file.truncate()

    graph.judges = True
    monkeypatch.setattr(kinds, "read_header", at_call(2, kinds.read_header, rewrite))
    (batch,) = graph.ingest()
    names = ("1.dcm", "2.dcm", "3.dcm", "table.csv", "note.txt")
    found = outcomes(graph)
    assert {name: found[name] for name in names[:4]} == dict.fromkeys(names[:4], CHANGED)
    assert graph.rows("FROM flat_metadata") == graph.rows("FROM clinical") == []
    assert graph.books(batch).status == "closed"
    # What came instead is a version of its own.
    past = time.time() - 60
    os.utime(path, (past, past))
    monkeypatch.undo()
    graph.ingest()
    assert {row["StudyInstanceUID"] for row in graph.rows("FROM instance")} == {uid(2)}


def test_members_are_let_go_before_they_fill_the_memory(graph, landing, monkeypatch):
    monkeypatch.setattr(judge, "HELD_BYTES", 1_000)
    landing.put_zip("a.zip", {f"{number}.dcm": dicom(1, 1, number) for number in range(1, 9)})
    held = []
    kept = judge._record_seen

    def seen(chunk: Any, container: Any, rows: Any) -> None:
        held.append(len(rows.unseen))
        kept(chunk, container, rows)

    monkeypatch.setattr(judge, "_record_seen", seen)
    graph.ingest()
    assert sum(held) == 9
    assert max(held) < 4
    assert len(graph.rows("FROM instance")) == 8


@pytest.mark.slow
def test_a_flipped_byte_anywhere_in_a_member_costs_that_member(graph, landing):
    """Behind the header, where nothing but the checksum is looked at: in the pixels of an image, in text."""
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    for method in methods:
        landing.put(f"{method}.zip", flipped(landing.root / "made.zip", method))
    (landing.root / "made.zip").unlink()
    graph.ingest()
    found = outcomes(graph)
    for method in methods:
        assert found[f"{method}-sound.dcm"] == ("ingested", None)
        assert found[f"{method}-pixels.dcm"] == ("quarantined", "ARCHIVE_UNREADABLE")
    details = graph.rows("SELECT DISTINCT detail FROM ingestion_errors WHERE code = 'ARCHIVE_UNREADABLE'")
    assert [row["detail"] for row in details] == ["CRC: a member's checksum is wrong"]
    instances = graph.rows("SELECT SOPInstanceUID FROM instance ORDER BY 1")
    assert [row["SOPInstanceUID"] for row in instances] == sorted(uid(1, method, 1) for method in methods)


def flipped(path: Path, method: int) -> bytes:
    """An archive of a sound object, and an object and a text that are not what their checksums say."""
    sound, pixels, text = dicom(1, method, 1), dicom(1, method, 2) + b"\0" * 3_000_000, b"x" * 3_000_000
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in {"sound.dcm": sound, "pixels.dcm": pixels, "text.txt": text}.items():
            archive.writestr(f"{method}-{name}", data)
    data = bytearray(path.read_bytes())
    if method == zipfile.ZIP_STORED:
        data[data.index(text) + 2_000_000] ^= 1
        data[data.index(pixels) + 2_000_000] ^= 1
    else:  # the same to a reader: what is inflated and what the directory declares do not agree
        for name in (b"pixels.dcm", b"text.txt"):
            record = data.rindex(b"%d-%b" % (method, name)) - 46
            data[record + 16] ^= 1
    return bytes(data)


def test_a_stored_archive_in_an_archive_is_checked_as_well(graph, landing):
    inner = zipped({"1.dcm": dicom(1, 1, 1)})
    path = landing.root / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("inner.zip", inner)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"inner.zip") - 46 + 16] ^= 1
    landing.put("a.zip", bytes(data))
    graph.ingest()
    assert outcomes(graph)["inner.zip"] == ("quarantined", "ARCHIVE_UNREADABLE")


@pytest.mark.slow
def test_an_image_of_nothing_but_zeros_is_no_bomb(graph, landing):
    image = {"Rows": 5_000, "Columns": 5_000, "BitsAllocated": 8, "SamplesPerPixel": 1, "PixelData": b"\0" * 25_000_000}
    landing.put_zip("a.zip", {"1.dcm": dicom(1, 1, 1, **image)})
    graph.ingest()
    assert outcomes(graph)["1.dcm"] == ("ingested", None)
