"""Clients that other people wrote ask the server, and say what they understood."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicomweb_client import DICOMwebClient
from pydicom.uid import ExplicitVRLittleEndian

from dicom_assets_tests.serve.client_lake import CT, MR, US, ClientLake, client_lake, pydicom_file, zipped_files

pytestmark = pytest.mark.slow

MODULES = Path(os.environ.get("DICOM_ASSETS_NODE_MODULES", Path(__file__).parents[2] / "node_modules"))


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Iterator[ClientLake]:
    with client_lake(tmp_path_factory.mktemp("clients")) as one:
        yield one


@pytest.fixture(scope="module")
def client(here) -> DICOMwebClient:
    return DICOMwebClient(here.url)


def triple(name: str) -> tuple[str, str, str]:
    """Study, Series and SOP Instance UID of a file of pydicom's."""
    found = pydicom.dcmread(pydicom_file(name), stop_before_pixels=True)
    return found.StudyInstanceUID, found.SeriesInstanceUID, found.SOPInstanceUID


class TestPython:
    """dicomweb-client."""

    def test_it_searches(self, client):
        studies = client.search_for_studies(search_filters={"ModalitiesInStudy": "CT"}, fields=["StudyDescription"])
        expected = {triple(CT)[0], pydicom.dcmread(zipped_files()[0]).StudyInstanceUID}
        assert {one["0020000D"]["Value"][0] for one in studies} == expected
        assert len(client.search_for_studies(limit=1)) == 1
        assert len(client.search_for_studies(search_filters={"PatientName": "compressed*"}, fuzzymatching=True)) == 2
        (series,) = client.search_for_series(triple(CT)[0])
        assert series["00080060"]["Value"] == ["CT"]
        assert len(client.search_for_instances()) == 3 + len(zipped_files())

    def test_it_reads_metadata_by_study_series_and_instance(self, client):
        wanted = pydicom.dcmread(pydicom_file(CT), stop_before_pixels=True)
        for found in (
            client.retrieve_study_metadata(triple(CT)[0])[0],
            client.retrieve_series_metadata(*triple(CT)[:2])[0],
            client.retrieve_instance_metadata(*triple(CT)),
        ):
            read = pydicom.Dataset.from_json(found)
            assert (read.PatientName, read.PixelSpacing) == (wanted.PatientName, wanted.PixelSpacing)
            assert found["7FE00010"]["BulkDataURI"].startswith("http://")

    @pytest.mark.parametrize("name", [MR, CT, US])
    def test_an_instance_is_the_one_in_its_file(self, client, name):
        found, wanted = client.retrieve_instance(*triple(name)), pydicom.dcmread(pydicom_file(name))
        assert found == wanted and found.PixelData == wanted.PixelData

    def test_a_study_out_of_an_archive_is_retrieved_whole(self, client):
        wanted = {one.SOPInstanceUID: one.PixelData for one in map(pydicom.dcmread, zipped_files())}
        study = pydicom.dcmread(zipped_files()[0]).StudyInstanceUID
        assert {one.SOPInstanceUID: one.PixelData for one in client.retrieve_study(study)} == wanted
        found = {one.SOPInstanceUID: one.PixelData for one in client.iter_study(study)}
        assert found == wanted

    def test_native_frames_are_the_pixels(self, client):
        (frame,) = client.retrieve_instance_frames(*triple(CT), [1], media_types=("application/octet-stream",))
        wanted = pydicom.dcmread(pydicom_file(CT))
        assert np.array_equal(np.frombuffer(frame, "<i2").reshape(128, 128), wanted.pixel_array)

    def test_compressed_frames_come_as_they_are_stored(self, client):
        wanted = list(pydicom.encaps.generate_frames(pydicom.dcmread(pydicom_file(US)).PixelData, number_of_frames=30))
        frames = client.retrieve_instance_frames(*triple(US), [1, 30], media_types=("image/jpeg",))
        assert [one.rstrip(b"\0") for one in frames] == [wanted[0].rstrip(b"\0"), wanted[29].rstrip(b"\0")]

    def test_compressed_frames_are_decoded_when_that_is_asked_for(self, client):
        media = (("application/octet-stream", ExplicitVRLittleEndian),)
        (frame,) = client.retrieve_instance_frames(*triple(US), [7], media_types=media)
        assert len(frame) == 240 * 320 * 3

    def test_images_are_rendered(self, client):
        for kind, begins in (("image/png", b"\x89PNG"), ("image/jpeg", b"\xff\xd8")):
            assert client.retrieve_instance_rendered(*triple(MR), media_types=(kind,)).startswith(begins)
            found = client.retrieve_instance_frames_rendered(*triple(US), [2], media_types=(kind,))
            assert found.startswith(begins)

    def test_bulk_data_are_found_by_their_reference(self, client):
        uri = client.retrieve_instance_metadata(*triple(MR))["7FE00010"]["BulkDataURI"]
        (data,) = client.retrieve_bulkdata(uri)
        assert data == pydicom.dcmread(pydicom_file(MR)).PixelData

    def test_it_stores_and_finds_it_again_when_it_is_ingested(self, client, here):
        sent = pydicom.dcmread(pydicom_file("examples_overlay.dcm"))
        answer = client.store_instances([sent])
        assert answer.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == sent.SOPInstanceUID
        assert "FailedSOPSequence" not in answer
        here.ingest()
        found = client.retrieve_instance(sent.StudyInstanceUID, sent.SeriesInstanceUID, sent.SOPInstanceUID)
        assert found.PixelData == sent.PixelData


def test_dicomtrolley_finds_and_downloads(here, tmp_path):
    pytest.importorskip("dicomtrolley", reason="dicomtrolley is not installed")
    import requests
    from dicomtrolley.core import Query, QueryLevels
    from dicomtrolley.qido_rs import QidoRS
    from dicomtrolley.trolley import Trolley
    from dicomtrolley.wado_rs import WadoRS
    from dicomtrolley.wado_uri import WadoURI

    with requests.Session() as session:
        searcher = QidoRS(session=session, url=here.url)
        wado = WadoRS(session=session, url=here.url)
        trolley = Trolley(downloader=wado, searcher=searcher)
        studies = trolley.find_studies(Query(PatientName="CompressedSamples*", query_level=QueryLevels.INSTANCE))
        assert {one.uid for one in studies} == {triple(MR)[0], triple(CT)[0]}
        by_uid = {one.uid: one for one in studies}
        for downloader, name in ((wado, CT), (WadoURI(session=session, url=here.url), MR)):
            (found,) = Trolley(downloader=downloader, searcher=searcher).fetch_all_datasets([by_uid[triple(name)[0]]])
            assert found.PixelData == pydicom.dcmread(pydicom_file(name)).PixelData
        trolley.download(studies, tmp_path / "out", use_async=False)
        assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 2


def test_the_client_for_javascript_searches_reads_and_stores(here):
    if shutil.which("node") is None or not (MODULES / "dicomweb-client").is_dir():
        pytest.skip("dicomweb-client for JavaScript is not installed: run `make node` (needs npm)")
    new = pydicom_file("examples_overlay.dcm")
    command = ["node", str(Path(__file__).with_name("client.mjs")), str(MODULES), here.url, *triple(CT), str(new)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3_000:]
    said = json.loads(done.stdout)
    wanted = pydicom.dcmread(pydicom_file(CT))
    assert triple(CT)[0] in said["studies"] and (said["series"], said["study_metadata"]) == (1, 1)
    assert said["name"] == "CompressedSamples^CT1"
    assert base64.b64decode(said["frame"]) == base64.b64decode(said["bulk"]) == wanted.PixelData
    assert base64.b64decode(said["png"]).startswith(b"\x89PNG")
    assert base64.b64decode(said["whole"]) == pydicom_file(CT).read_bytes()
    uid = pydicom.dcmread(new, stop_before_pixels=True).SOPInstanceUID
    assert said["stored"]["00081199"]["Value"][0]["00081155"]["Value"] == [uid]
