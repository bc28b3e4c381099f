"""The corpus of the benchmarks: what lies together belongs together, and no two objects claim to be the same one."""

from __future__ import annotations

import io

import pydicom
import pytest

from bench.corpus import KINDS, files_of


@pytest.mark.parametrize("kind", KINDS)
def test_each_file_is_an_instance_of_its_own_in_the_series_and_study_of_its_folder(kind: str) -> None:
    _, _, usual = KINDS[kind]
    wanted, found = [], []
    for series, file in files_of(kind, min(usual, 4), first_series=30):  # the UIDs of some have digits of others
        read = pydicom.dcmread(io.BytesIO(file.content), stop_before_pixels=True)
        wanted.append((series.study_uid, series.uid))
        found.append((read.StudyInstanceUID, read.SeriesInstanceUID, read.SOPInstanceUID))
    assert [(study, series) for study, series, _ in found] == wanted
    assert len({instance for *_, instance in found}) == len(found)
