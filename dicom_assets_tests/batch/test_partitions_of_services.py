"""Names that whoever delivers gives to folders, where they become a part of a source's name."""

from __future__ import annotations

import os

import pytest

from dicom_assets_tests.support.dicoms import dicom


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        (b"ward-1", "landing/ward-1"),
        (b"Microsoft.Default", "landing"),
        (b"line\nbreak\r", "landing/line%0Abreak%0D"),
        (b"it's \x1b[31m; DROP", "landing/it%27s%20%1B%5B31m%3B%20DROP"),
        (b"caf\xe9", "landing/caf%E9"),
        (b"%2e%2e", "landing/%252e%252e"),
    ],
)
def test_a_batch_closes_whatever_a_partitions_folder_is_called(graph, landing, folder: bytes, source: str):
    landing.put("AHDS/work/dicom/service/" + os.fsdecode(folder) + "/1/1.dcm", dicom(1))
    landing.put("AHDS/work/dicom/service/" + os.fsdecode(folder) + "/1.dcm", dicom(2))
    (batch,) = graph.ingest()
    assert graph.books(batch).status == "closed"
    assert graph.books(batch).ingested == 2
    assert source in {row["source"] for row in graph.rows("SELECT source FROM study")}
