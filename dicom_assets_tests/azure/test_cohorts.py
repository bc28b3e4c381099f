"""A cohort of blobs, of a lake in a container, exported into a container: the same as into a folder."""

from __future__ import annotations

import pytest

from dicom_assets.curation.cohorts import frozen
from dicom_assets.curation.cohorts.changes import verify_cohort
from dicom_assets.curation.cohorts.destination import DestinationError
from dicom_assets.curation.cohorts.export import Wish, export_cohort
from dicom_assets.curation.cohorts.selection import create_cohort
from dicom_assets.settings import Settings
from dicom_assets_tests.azure import azurite
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.landings import zipped
from dicom_assets_tests.support.steps import Stepped

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_far_as_hierarchy")]


def test_blobs_are_exported_into_a_container_and_into_a_folder_alike(container, instance, tmp_path):
    container.put("in/1.dcm", dicom(1, 1, 1))
    large = dicom(1, 1, 2, PixelData=bytes(9 << 20), Rows=1, Columns=1, BitsAllocated=8, SamplesPerPixel=1)
    container.put("in/2.dcm", large)
    container.put("in/some.zip", zipped({"3.dcm": dicom(1, 1, 3), "4.dcm": dicom(1, 1, 4)}))
    settings = Settings.model_validate({
        "lake": f"{container.url}/lake", "sources": [{"root": f"{container.url}/in"}],
        "claiming": {"quiet_seconds": 0}, "reading": {"workers": 1},
    })  # fmt: skip
    graph = Stepped(settings, instance, judges=False)
    graph.ingest()
    create_cohort(graph.lake, "all", sql="SELECT StudyInstanceUID FROM study", by="me")
    container.put("in/1.dcm", dicom(1, 1, 1, StudyDescription="again"))
    assert dict(verify_cohort(graph.lake, settings, "all", at_source=True).counts) == {"changed": 1}
    other = azurite.new_container()

    def exported(to: str) -> dict[str, int]:
        return export_cohort(graph.lake, settings, "all", Wish(to, "me", despite_risk="a test")).counts

    assert exported(f"{other.url}/out") == {"written": 3, "there before": 0, "changed": 1}
    assert exported(f"{other.url}/out") == {"written": 0, "there before": 3, "changed": 1}
    assert exported(str(tmp_path / "out")) == {"written": 3, "there before": 0, "changed": 1}
    folder = {f"out/{one.relative_to(tmp_path / 'out').as_posix()}": one.read_bytes()
              for one in (tmp_path / "out").rglob("*") if one.is_file()}  # fmt: skip
    assert {name: other.client.download_blob(name).readall() for name in other.names()} == folder
    assert folder[f"out/{uid(1)}/{uid(1, 1)}/{uid(1, 1, 2)}.dcm"] == large
    assert len(frozen.log(graph.lake.files, "all")) == 4
    with pytest.raises(DestinationError, match="container no-such-place is not there"):
        exported("az://devstoreaccount1/no-such-place/out")
