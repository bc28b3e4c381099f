"""Names that whoever delivers gives to folders, where they become a part of a source's name."""

from __future__ import annotations

import os

from dicom_assets_tests.support.dicoms import dicom, uid

FOLDERS = {
    b"ward-1": "landing/ward-1",
    b"Microsoft.Default": "landing",
    b"line\nbreak\r": "landing/line%0Abreak%0D",
    b"it's \x1b[31m; DROP": "landing/it%27s%20%1B%5B31m%3B%20DROP",
    b"caf\xe9": "landing/caf%E9",
    b"%2e%2e": "landing/%252e%252e",
}
"""What a partition's folder is called, and the source of what lies in it as the service lays it."""


def test_a_batch_closes_whatever_a_partitions_folder_is_called(graph, landing):
    of_study = {}
    for number, (folder, source) in enumerate(FOLDERS.items(), start=1):
        below = "AHDS/work/dicom/service/" + os.fsdecode(folder)
        landing.put(f"{below}/{number}/1.dcm", dicom(number))
        landing.put(f"{below}/1.dcm", dicom(10 + number))
        of_study |= {uid(number): "landing", uid(10 + number): source}
    (batch,) = graph.ingest()
    assert graph.books(batch).status == "closed"
    assert graph.books(batch).ingested == 2 * len(FOLDERS)
    found = {row["uid"]: row["source"] for row in graph.rows("SELECT StudyInstanceUID AS uid, source FROM study")}
    assert found == of_study
