"""Identifiers are taken out of what is exported: all, the same way each time, with a key that lies elsewhere."""

from __future__ import annotations

import csv
import io
import stat
from datetime import date
from pathlib import Path

import pytest
from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_assets.curation.cohorts.deidentification import Deidentifier
from dicom_assets.curation.cohorts.export import Wish, export_cohort
from dicom_assets.curation.cohorts.mapping_keys import root_of
from dicom_assets.curation.cohorts.objects_in_place import NotThere
from dicom_assets.curation.cohorts.selection import create_cohort
from dicom_assets.curation.confidentiality import EDITION, profile
from dicom_assets.dicom.fallback import lenient
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped

pytestmark = pytest.mark.usefixtures("as_far_as_hierarchy")

PATIENT = {"PatientID": "CANARY-4711", "PatientName": "CANARYBIRD^Yellow", "PatientBirthDate": "19500102"}
KEY = b"k" * 32


def reference(instance: str) -> Dataset:
    """An item that refers to an instance, with a name in it and a private element."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", instance
    item.InstitutionName = "CANARY-HOSPITAL"
    item.private_block(0x0009, "MAKER", create=True).add_new(1, "LO", "CANARY-PRIVATE")
    return item


def full(number: int = 1, **more: object) -> bytes:
    """An object with identifiers of each kind, nested ones too."""
    said = {
        "InstitutionName": "CANARY-HOSPITAL", "AccessionNumber": "CANARY-ACC", "StudyTime": "101112",
        "AcquisitionDateTime": "20240131101112.5", "FrameOfReferenceUID": uid(8), "PatientAge": "070Y",
        "SourceImageSequence": Sequence([reference(uid(1, 1, 7))]), "StudyDescription": "CANARY in words",
    }  # fmt: skip
    return dicom(1, 1, number, **{**PATIENT, **said, **more})


class TestOneObject:
    def test_nothing_of_the_patient_is_left_at_any_depth(self):
        made = Deidentifier(KEY).deidentify(full())
        assert b"CANARY" not in made.data and uid(1).encode() not in made.data
        assert b"20240131" not in made.data and b"19500102" not in made.data
        again = dcmread(io.BytesIO(made.data))
        assert (again.PatientIdentityRemoved, again.PatientName) == ("YES", again.PatientID)
        assert [one.CodeValue for one in again.DeidentificationMethodCodeSequence] == ["113100", "113107"]
        assert again.file_meta.MediaStorageSOPInstanceUID == again.SOPInstanceUID
        assert {one for one in made.left if one.endswith("=")} == {"00080030="}  # the time of day

    def test_references_and_intervals_hold_and_the_standards_uids_stay(self):
        maker = Deidentifier(KEY)
        first, second = (
            dcmread(io.BytesIO(maker.deidentify(one).data))
            for one in (full(1), full(7, StudyDate="20240210", AcquisitionDateTime="20240210101112.5"))
        )
        (item,) = first.SourceImageSequence
        assert (item.ReferencedSOPInstanceUID, item.ReferencedSOPClassUID) == (second.SOPInstanceUID, first.SOPClassUID)
        assert (first.StudyInstanceUID, first.PatientID) == (second.StudyInstanceUID, second.PatientID)
        days = [date.fromisoformat(one.StudyDate) for one in (first, second)]
        assert (days[1] - days[0]).days == 10
        assert first.AcquisitionDateTime == f"{first.StudyDate}101112.5"

    def test_words_in_place_of_a_date_or_a_time_go(self):
        with lenient():
            said = {"StudyTime": "YELLOW", "AcquisitionDateTime": "20240131YELLOW", "SeriesDate": "2024.01.31"}
            made = Deidentifier(KEY).deidentify(full(**said, ContentDate="YELLOW", ContentTime="10:11:12.5"))
        again = dcmread(io.BytesIO(made.data))
        assert b"YELLOW" not in made.data
        assert (again.SeriesDate, again.ContentTime) == (again.StudyDate, "10:11:12.5")

    def test_the_same_key_makes_the_same_bytes_and_another_one_others(self):
        one, two, other = (Deidentifier(key).deidentify(full()).data for key in (KEY, KEY, b"x" * 32))
        assert one == two != other
        assert len({dcmread(io.BytesIO(data)).StudyInstanceUID for data in (one, other)}) == 2

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (full(BurnedInAnnotation="YES"), "burned in"),
            (full(Manufacturer="made for CANARY-4711"), "not de-identified"),
            (b"no DICOM at all" * 20, "not de-identified"),
        ],
    )
    def test_one_that_cannot_be_cleaned_is_refused(self, data, why):
        with pytest.raises(NotThere) as refused:
            Deidentifier(KEY).deidentify(data)
        assert refused.value.why == why


def test_identifiers_are_taken_out_by_the_table_that_risk_is_judged_by():
    groups = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    theirs = {
        tag: name.removesuffix("_TAGS").replace("U_STAR", "U*").replace("_", "/")
        for name, tags in groups.items() if name != "ALL_TAGS" for tag in tags
    }  # fmt: skip
    theirs = {"".join(f"{part:04X}" for part in tag[:2]): action for tag, action in theirs.items()}
    ours = {tag: row.action for tag, row in profile().attributes.items()}
    ours |= {
        (upper + "00" + lower.replace("x", "0")): row.action
        for upper, rows in profile().repeating.items()
        for lower, row in rows.items()
    }
    assert ours == theirs


def lake_of_two(graph: Stepped, landing: LandingFolder) -> None:
    landing.put("CANARY/1.dcm", full(1))
    landing.put_zip("CANARY.zip", {"2.dcm": full(2), "burned.dcm": full(3, BurnedInAnnotation="YES")})
    graph.ingest()
    create_cohort(graph.lake, "all", sql="SELECT StudyInstanceUID FROM study", by="me")


def listed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_export_without_identifiers_is_whole_repeatable_and_leads_back_by_its_key_alone(states, tmp_path):
    graph, _, _ = states.begin(lake_of_two)
    wish = [Wish(str(tmp_path / name), "me", deidentify=True) for name in ("one", "two")]
    done = [export_cohort(graph.lake, graph.settings, "all", one) for one in wish]
    assert [one.counts for one in done] == [{"written": 2, "there before": 0, "burned in": 1}] * 2
    one, two = (
        {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in (tmp_path / name).rglob("*.*")
         if path.is_file()}
        for name in ("one", "two")
    )  # fmt: skip
    assert one == two
    assert not [name for name, data in one.items() if b"CANARY" in data or uid(1).encode() in data or "CANARY" in name]
    assert [row["why"] for row in listed(tmp_path / "one/missing.csv")] == ["burned in"]
    left = {row["element"]: (row["objects"], row["unchanged"]) for row in listed(tmp_path / "one/left.csv")}
    assert (left["StudyInstanceUID"], left["StudyTime"]) == (("2", "0"), ("2", "2"))
    assert "InstitutionName" in left and "PatientAge" not in left
    keys = root_of(graph.settings) / "all"
    assert keys.parent == Path(f"{graph.settings.lake}.cohort-keys")
    modes = {stat.S_IMODE(one.stat().st_mode) for one in keys.rglob("*") if one.is_file()}
    assert (stat.S_IMODE(keys.stat().st_mode), modes) == (0o700, {0o600})
    mapping = {row["new_SOPInstanceUID"]: row for row in listed(keys / "mapping.csv")}
    for row in listed(tmp_path / "one/manifest.csv"):
        assert mapping[row["SOPInstanceUID"]]["PatientID"] == "CANARY-4711"
        assert mapping[row["SOPInstanceUID"]]["SOPInstanceUID"] in (uid(1, 1, 1), uid(1, 1, 2))
    in_lake = b"".join(path.read_bytes() for path in Path(graph.settings.lake).rglob("_cohorts/**/*") if path.is_file())
    assert not [row for row in mapping if row.encode() in in_lake]
