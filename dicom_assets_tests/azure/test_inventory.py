"""Reports of Blob Inventory as the listing of a source."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from dicom_assets.landing.azure import AzureContainer
from dicom_assets.landing.store import ObjectRef, SourceUnavailable
from dicom_assets.settings import SourceSettings
from dicom_assets_tests.azure.azurite import Container, new_container

pytestmark = pytest.mark.slow


def rows(source: AzureContainer) -> list[dict[str, Any]]:
    return [row for batch in source.list() for row in batch.to_pylist()]


def source(container: Container, reports: Container, **settings: Any) -> AzureContainer:
    return AzureContainer(SourceSettings(root=f"{container.url}/in", inventory=f"{reports.url}/reports", **settings))


def write(
    container: Container, reports: Container, form: str, moment: str = "2026/11/20/01-00-00", **manifest: Any
) -> None:
    """A report about what is in a container, as the storage account writes it: in two files, with a manifest."""
    blobs = list(container.client.list_blobs())
    name = container.client.container_name
    table = pa.table(
        {
            "Name": [f"{name}/{blob.name}" for blob in blobs] + [f"{name}/in/folder", f"{name}-2/in/other.dcm"],
            "Last-Modified": [blob.last_modified.strftime("%Y-%m-%dT%H:%M:%S.0000000Z") for blob in blobs]
            + ["2026-11-20T00:00:00.0000000Z"] * 2,
            "Content-Length": [blob.size for blob in blobs] + [0, 5],
            "Etag": [blob.etag for blob in blobs] + ["0x1", "0x2"],
            "hdi_isfolder": [False] * len(blobs) + [True, False],
        }
    )
    if form == "parquet":
        moments = [int(blob.last_modified.timestamp() * 1000) for blob in blobs] + [0, 0]
        table = table.set_column(1, "Last-Modified", pa.array(moments, pa.int64()))
    files = []
    for number, part in enumerate((table.slice(0, 2), table.slice(2))):
        sink = io.BytesIO()
        (pq.write_table if form == "parquet" else pcsv.write_csv)(part, sink)
        path = f"reports/{moment}/all/all_{number}.{form}"
        reports.put(path, sink.getvalue())
        files.append({"blob": path, "size": len(sink.getvalue())})
    text = {"status": "Succeeded", "files": files, "ruleName": "all"} | manifest
    reports.put(f"reports/{moment}/all/all-manifest.json", json.dumps(text).encode())


@pytest.fixture
def reports(emulator: dict[str, str]) -> Container:
    return new_container()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_report_lists_what_a_listing_lists(container: Container, reports: Container, form: str) -> None:
    for name in ("in/a b.dcm", "in/x/c.dcm", "in/x/d.txt", "out/e.dcm", "in/healthCheck/f.txt"):
        container.put(name, name.encode())
    write(container, reports, form)
    listed = rows(AzureContainer(SourceSettings(root=f"{container.url}/in", exclude=("**/*.txt",))))
    assert rows(source(container, reports, exclude=("**/*.txt",))) == listed
    assert len(listed) == 2
    (opened,) = source(container, reports).open_all([ObjectRef(listed[0]["uri"], listed[0]["etag"], 10)], 4_096)
    assert opened.read(0, 99) == b"in/a b.dcm"  # type: ignore[union-attr]


def test_the_newest_complete_report_counts(container: Container, reports: Container) -> None:
    container.put("in/a.dcm", b"x")
    write(container, reports, "csv")
    container.put("in/b.dcm", b"x")
    write(container, reports, "csv", "2026/11/21/01-00-00")
    container.put("in/c.dcm", b"x")
    write(container, reports, "csv", "2026/11/22/01-00-00", status="Failed")
    assert len(rows(source(container, reports))) == 2


def test_without_a_report_or_with_one_that_lacks_columns_nothing_counts_as_listed(
    container: Container, reports: Container
) -> None:
    with pytest.raises(SourceUnavailable, match="no complete report"):
        rows(source(container, reports))
    reports.put("reports/2026/11/20/01-00-00/all/all.csv", b"Name,Etag\nx,y\n")
    files = [{"blob": "reports/2026/11/20/01-00-00/all/all.csv"}]
    reports.put("reports/2026/11/20/01-00-00/all/all-manifest.json", json.dumps({"files": files}).encode())
    with pytest.raises(SourceUnavailable, match="lack Last-Modified, Content-Length"):
        rows(source(container, reports))
