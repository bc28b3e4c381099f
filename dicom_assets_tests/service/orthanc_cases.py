"""Cases against a real Orthanc; `test_orthanc` runs them in a network namespace. Not collected by itself."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import httpx
import orjson
import pydicom
import pydicom.data
import pytest
from dicomweb_client import DICOMwebClient

from dicom_assets.schema.registry import FLAT_METADATA, SERIES, STUDY
from dicom_assets.service.audit_lake import audit, last_findings, repair
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.dicomweb import count_studies, instances_of, orthanc_changes, search
from dicom_assets.service.feed import Window
from dicom_assets.service.push import Outcome, push
from dicom_assets.service.sync import sync_window
from dicom_assets.settings import ServiceSettings, Settings
from dicom_assets_tests.service import orthanc
from dicom_assets_tests.support.lakes import quiet_dagster
from dicom_assets_tests.support.steps import Stepped

FILES = Path(pydicom.data.__file__).parent / "test_files"
NAMES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "693_J2KI.dcm",
    "JPEG2000.dcm",
    "examples_jpeg2k.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "examples_palette.dcm",
    "reportsi.dcm",
    "rtdose.dcm",
    "image_dfl.dcm",
)
EVER = timedelta(days=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with orthanc.running(tmp_path_factory.mktemp("orthanc")) as url:
        yield url


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Real files, and two that are none."""
    folder = tmp_path_factory.mktemp("files")
    for name in NAMES:
        shutil.copy(FILES / name, folder / name)
    (folder / "notes.txt").write_text("not DICOM")
    (folder / "cut.dcm").write_bytes((FILES / "CT_small.dcm").read_bytes()[:400])
    past = time.time() - 3_600
    for path in folder.iterdir():
        os.utime(path, (past, past))
    return folder


@pytest.fixture(scope="module")
def service(server, tmp_path_factory) -> ServiceSettings:
    return ServiceSettings.model_validate(
        {
            "name": "orthanc",
            "url": f"{server}/dicom-web",
            "kind": "dicomweb",
            "landing": str(tmp_path_factory.mktemp("changes")),
        }
    )


@pytest.fixture(scope="module")
def pushed(service, folder) -> dict[str, Outcome]:
    with ServiceClient(service) as client:
        return {Path(one.path).name: one.outcome for one in push(client, folder)}


@pytest.fixture(scope="module")
def graph(service, folder, pushed, tmp_path_factory):
    """One lake with both sources: the folder, and the same files by way of Orthanc."""
    quiet_dagster()
    settings = Settings.model_validate(
        {
            "lake": str(tmp_path_factory.mktemp("lakes") / "lake"),
            "sources": [{"name": "landing", "root": str(folder), "include": ["*.dcm"], "exclude": ["cut.dcm"]}],
            "services": [service.model_dump()],
            "claiming": {"quiet_seconds": 0},
            "reading": {"workers": 1},
        }
    )
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings, instance, judges=False)
        sync(service)
        graph.ingest()
        yield graph


def now_window() -> Window:
    now = datetime.now(UTC)
    return Window(now - EVER, now + timedelta(seconds=2))


def sync(service: ServiceSettings):
    with ServiceClient(service) as client:
        return sync_window(client, now_window(), timedelta(0), datetime.now(UTC) + timedelta(seconds=5))


def test_every_file_has_its_report(pushed):
    assert {name for name, outcome in pushed.items() if outcome is Outcome.STORED} == set(NAMES)
    assert pushed["notes.txt"] is Outcome.SKIPPED
    assert pushed["cut.dcm"] is Outcome.FAILED


def test_what_was_pushed_is_there_for_another_client(server, pushed):
    found = DICOMwebClient(f"{server}/dicom-web").search_for_instances()
    kept = {one["00080018"]["Value"][0] for one in found}
    assert kept == {str(pydicom.dcmread(FILES / name, stop_before_pixels=True).SOPInstanceUID) for name in NAMES}


def test_the_same_files_are_the_same_instances_by_both_ways(graph):
    by_way = {
        source: {
            (row["StudyInstanceUID"], row["SeriesInstanceUID"], row["SOPInstanceUID"])
            for row in graph.rows(f"SELECT * FROM instance WHERE source = '{source}'")
        }
        for source in ("landing", "orthanc")
    }
    assert by_way["orthanc"] == by_way["landing"]
    assert len(by_way["orthanc"]) == len(NAMES)


OF_THE_FILE = {"TransferSyntaxUID", "SpecificCharacterSet"}
"""What DICOM JSON does not carry: it is always in UTF-8, and has no File Meta Information."""


def attributes(table) -> list[str]:
    own = {"first_seen_at", "updated_at", "version_at", "object_id", "study_key", "size", "source", "batch_id"}
    return [c.name for c in table.columns if c.name not in own | OF_THE_FILE]


@pytest.mark.parametrize("table", [SERIES, STUDY])
def test_series_and_study_rows_are_the_same_by_both_ways(graph, table):
    names = ", ".join(f'"{name}"' for name in attributes(table))
    rows = [
        graph.rows(f"SELECT {names} FROM {table.name} WHERE source = '{source}' ORDER BY ALL")
        for source in ("landing", "orthanc")
    ]
    assert rows[0] == rows[1]
    assert rows[0]


def test_instance_rows_are_the_same_by_both_ways(graph):
    names = [c.name for c in FLAT_METADATA.columns if c.name[0].isupper() and c.name not in OF_THE_FILE]
    listed = ", ".join(f'"{name}"' for name in names)
    rows = [
        graph.rows(f"SELECT {listed} FROM instance WHERE source = '{source}' ORDER BY SOPInstanceUID")
        for source in ("landing", "orthanc")
    ]
    assert rows[0] == rows[1]


def test_a_window_that_is_read_again_is_not_landed_again(service, graph):
    # The same window: its file is the same, so nothing is written and nothing claimed.
    with ServiceClient(service) as client:
        now = datetime.now(UTC).replace(microsecond=0)
        window = Window(now - EVER, now - timedelta(seconds=1))
        first = sync_window(client, window, timedelta(0), now)
        again = sync_window(client, window, timedelta(0), now)
    assert (first.files, again.files) == (1, 0)
    assert again.entries == len(NAMES)


def test_a_window_before_anything_arrived_is_empty(service, pushed):
    with ServiceClient(service) as client:
        long_ago = Window(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC))
        assert list(orthanc_changes(client, long_ago)) == []


def test_pages_of_any_size_find_every_study(service, pushed):
    found = []
    for size in (1, 2, 200):
        with ServiceClient(service.model_copy(update={"page_size": size})) as client:
            found.append(sorted(item["0020000D"]["Value"][0] for item in search(client, "studies", "0020000D")))
    assert found[0] == found[1] == found[2]
    with ServiceClient(service) as client:
        counted = list(count_studies(client))
        assert sum(one.instances or 0 for one in counted) == len(NAMES)
        assert all(len(instances_of(client, one.study)) == one.instances for one in counted)


def test_studies_are_followed_by_date_where_there_is_no_list_of_changes(service, pushed, tmp_path):
    by_date = service.model_copy(update={"follow": "study-date", "landing": str(tmp_path)})
    day = datetime(2004, 1, 19, tzinfo=UTC)  # of CT_small.dcm
    with ServiceClient(by_date) as client:
        first = sync_window(client, Window(day, day + timedelta(hours=1)), timedelta(0))
        again = sync_window(client, Window(day + timedelta(hours=1), day + timedelta(hours=2)), timedelta(0))
    assert (first.entries, first.files) == (1, 1)
    assert (again.entries, again.files) == (1, 0)


def test_deletions_on_the_server_are_found_by_the_audit_and_repaired(service, server, graph):
    study = str(pydicom.dcmread(FILES / "CT_small.dcm", stop_before_pixels=True).StudyInstanceUID)
    with ServiceClient(service) as client:
        agreed = audit(client, graph.lake, datetime.now(UTC))
        assert agreed.findings == ()
        assert agreed.instances == len(NAMES)
    orthanc_id = httpx.post(f"{server}/tools/lookup", content=study).json()[0]["ID"]
    httpx.delete(f"{server}/studies/{orthanc_id}").raise_for_status()
    with ServiceClient(service) as client:
        found = audit(client, graph.lake, datetime.now(UTC))
        assert [(one.study, str(one.difference)) for one in found.findings] == [(study, "extra")]
        assert found.command == "dicom-assets repair orthanc"
        audit_id, findings = last_findings(graph.lake, "orthanc")
        landed = repair(client, graph.lake, findings, audit_id)
    assert landed.entries == 1
    (batch,) = graph.ingest()
    assert graph.books(batch).deleted == 1
    assert graph.rows(f"SELECT * FROM study WHERE source = 'orthanc' AND StudyInstanceUID = '{study}'") == []
    with ServiceClient(service) as client:
        assert audit(client, graph.lake, datetime.now(UTC)).findings == ()


def test_a_deletion_in_the_lake_alone_is_found_as_missing_and_repaired(service, server, graph, folder):
    """An instance that is stored again after its deletion was repaired comes back."""
    with ServiceClient(service) as client:
        one = folder.parent / "again"
        one.mkdir(exist_ok=True)
        shutil.copy(folder / "CT_small.dcm", one / "CT_small.dcm")
        assert [r.outcome for r in push(client, one)] == [Outcome.STORED]
        found = audit(client, graph.lake, datetime.now(UTC) + timedelta(hours=1))
        assert [str(f.difference) for f in found.findings] == ["missing"]
        landed = repair(client, graph.lake, found.findings, found.audit_id + "-again")
    assert landed.entries == 1
    graph.ingest()
    assert len(graph.rows("SELECT * FROM instance WHERE source = 'orthanc'")) == len(NAMES)


def test_headers_are_complete_json(graph):
    with_pixels = 0
    for row in graph.rows("SELECT header FROM flat_metadata WHERE source = 'orthanc' AND operation = 'upsert'"):
        header = orjson.loads(row["header"])
        assert header["00080018"]["vr"] == "UI"
        pixels = header.get("7FE00010")
        if pixels is not None:  # an address of the server's, which is no place in an object of ours
            with_pixels += 1
            assert pixels.keys() == {"vr", "BulkDataURI"}
            assert not pixels["BulkDataURI"].startswith("?")
    assert with_pixels
