"""Frames and bulk values come by range from where the object lies: folders, members of archives, deflated data sets."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import pytest

from dicom_assets.dicom.frames import read_frame
from dicom_assets.dicom.references import retrieve
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.retrieval import Place, entry_of, open_data, open_object
from dicom_assets.landing.store import ObjectError
from dicom_assets.settings import ArchiveLimits, SourceSettings
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.dicom import raw
from dicom_assets_tests.dicom.raw import DEFLATED, EXPLICIT, dicom, element
from dicom_assets_tests.dicom.referee import read, row_of

LIMITS = ArchiveLimits()
MOST = 1 << 20
PRIVATE = bytes(range(100))


def image() -> tuple[bytes, ...]:
    """Elements of an object with two frames and a private blob."""
    numbers = {0x00280010: 4, 0x00280011: 4, 0x00280100: 8}
    heads = [element(tag, "US", struct.pack("<H", one)) for tag, one in numbers.items()]
    blob = (element(0x00290010, "LO", "ACME"), element(0x00291010, "OB", PRIVATE))
    return (*heads, *blob, element(0x00280008, "IS", "2"), element(0x7FE00010, "OB", bytes(range(32))))


def deflated() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return raw.meta(DEFLATED) + packer.compress(raw.data_set(*image())) + packer.flush()


def zipped(members: dict[str, bytes], method: int) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def put(folder: Path, name: str, data: bytes, member: str | None = None) -> Place:
    """A file of the landing folder, as it was claimed."""
    (folder / name).write_bytes(data)
    store = open_store(SourceSettings(name="ct", root=str(folder)))
    (row,) = [row for batch in store.list() for row in batch.to_pylist() if row["uri"].endswith(name)]
    return Place(row["uri"], row["etag"], row["size"], member)


CASES = {
    "file": lambda data: (data, None),
    "stored member": lambda data: (zipped({"a": b"x", "d/b.dcm": data}, zipfile.ZIP_STORED), "d/b.dcm"),
    "compressed member": lambda data: (zipped({"a": b"x", "d/b.dcm": data}, zipfile.ZIP_DEFLATED), "d/b.dcm"),
    "nested member": lambda data: (
        zipped({"in.zip": zipped({"b.dcm": data}, zipfile.ZIP_DEFLATED)}, zipfile.ZIP_STORED),
        "in.zip!b.dcm",
    ),
}


@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED])
@pytest.mark.parametrize("case", CASES)
def test_frames_and_references_lead_into_the_object_wherever_it_lies(case: str, syntax: str, tmp_path: Path):
    data = deflated() if syntax == DEFLATED else dicom(*image())
    content, member = CASES[case](data)
    place = put(tmp_path, "one", content, member)
    header = read(data)
    uri = json.loads(header.json)["00291010"]["BulkDataURI"]
    store = open_store(SourceSettings(name="ct", root=str(tmp_path)))
    with open_data(store, place, header.columns["TransferSyntaxUID"], LIMITS, MOST) as source:
        assert read_frame(source, row_of(header), 2) == bytes(range(16, 32))
        assert retrieve(source, uri) == PRIVATE
        assert read_frame(source, row_of(header), 1) == bytes(range(16))
    if member is not None:
        found = place._replace(entry=entry_of(BytesSource(content), member, LIMITS), member="whatever it is called")
        with open_object(store, found, LIMITS) as source:
            assert source.read(0, source.size) == data


def test_of_a_file_that_was_replaced_nothing_is_given(tmp_path: Path):
    data = dicom(*image())
    place = put(tmp_path, "one", data)
    store = open_store(SourceSettings(name="ct", root=str(tmp_path)))
    (tmp_path / "one").write_bytes(data[:-32] + bytes(32))
    os.utime(tmp_path / "one", ns=(1, 1))
    with pytest.raises(ObjectError) as error, open_object(store, place, LIMITS):
        pass
    assert error.value.code == "CHANGED_DURING_READ"
    (tmp_path / "one").unlink()
    with pytest.raises(ObjectError) as error, open_object(store, place, LIMITS):
        pass
    assert error.value.code == "OBJECT_GONE"


def test_a_file_that_changes_while_it_is_read_is_an_error_in_the_end(tmp_path: Path):
    place = put(tmp_path, "one", dicom(*image()))
    store = open_store(SourceSettings(name="ct", root=str(tmp_path)))
    with pytest.raises(ObjectError) as error, open_object(store, place, LIMITS) as source:
        assert source.read(0, 4) == bytes(4)
        os.utime(tmp_path / "one", ns=(1, 1))
    assert error.value.code == "CHANGED_DURING_READ"


def test_a_member_that_is_not_in_the_archive_is_gone(tmp_path: Path):
    place = put(tmp_path, "one.zip", zipped({"a.dcm": dicom()}, zipfile.ZIP_STORED), "b.dcm")
    store = open_store(SourceSettings(name="ct", root=str(tmp_path)))
    with pytest.raises(ObjectError) as error, open_object(store, place, LIMITS):
        pass
    assert error.value.code == "OBJECT_GONE"
