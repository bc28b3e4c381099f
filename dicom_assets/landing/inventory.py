"""Reports of Azure Blob Inventory as the listing of a source: past some millions of blobs, listing gives out.

Belongs here: finding the newest report, its columns, turning its rows into a listing. Does not belong here: making
reports (a rule of the storage account does), what is new (`claims`).

A report lies at `{destination}/yyyy/mm/dd/hh-mm-ss/{rule}/`, in CSV or Parquet, with a manifest beside it once it is
complete. Columns that are needed: Name, Last-Modified, Content-Length, Etag; on accounts with a hierarchical namespace
hdi_isfolder. Name begins with the container. What has changed since the report was made is found by events, or by the
next report: a row that is outdated names an etag that is not there any more.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import obstore
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.storage.azure import Place, failures, object_store, parse_folder, reason, status_of

if TYPE_CHECKING:
    from obstore.store import AzureStore

COLUMNS = ("Name", "Last-Modified", "Content-Length", "Etag")
FOLDER = "hdi_isfolder"
ROWS = 50_000
ROLE = "Storage Blob Data Reader"
_RUN = re.compile(r"(?:^|/)(\d{4}/\d{2}/\d{2}/\d{2}-\d{2}-\d{2})/")


class Inventory:
    """The reports of one rule, as pages of blobs."""

    def __init__(self, source: str, address: str) -> None:
        """source: its name, for messages. address: the folder that reports lie in, or one above it."""
        self._source = source
        self._place = parse_folder(address)
        self._store: AzureStore = object_store(Place(self._place.account, self._place.container))

    def pages(self, container: str) -> Iterator[pa.RecordBatch]:
        """Blobs of a container by the newest complete report: path, last_modified, size, e_tag.

        Raises SourceUnavailable when there is no complete report, or it cannot be read whole.
        """
        try:
            for path in self._files():
                yield from self._read(path, container)
        except failures() as error:
            raise self._unavailable(reason(error, ROLE)) from None

    def _files(self) -> list[str]:
        """The files of the newest complete report."""
        manifests: dict[str, str] = {}
        try:
            for page in obstore.list(self._store, self._place.path or None, chunk_size=5_000):
                for meta in page:
                    found = _RUN.search(meta["path"])
                    if found and meta["path"].endswith("-manifest.json"):
                        manifests[found[1]] = meta["path"]
        except failures() as error:
            if status_of(error) != 404:
                raise
        for moment in sorted(manifests, reverse=True):
            manifest = self._manifest(manifests[moment])
            if str(manifest.get("status", "Succeeded")).lower() == "succeeded":
                return self._named(manifest)
        raise self._unavailable("there is no complete report; add a rule that makes one")

    def _manifest(self, path: str) -> dict[str, Any]:
        try:
            value = json.loads(bytes(obstore.get(self._store, path).bytes()))
        except ValueError:
            value = None
        if not isinstance(value, dict) or not isinstance(value.get("files"), list):
            raise self._unavailable("the manifest of the newest report cannot be read")
        return value

    def _named(self, manifest: dict[str, Any]) -> list[str]:
        names = [str(file.get("blob") or "") for file in manifest["files"] if isinstance(file, dict)]
        # Written with the container before it, or without.
        return [name.removeprefix(f"{self._place.container}/") for name in names if name]

    def _read(self, path: str, container: str) -> Iterator[pa.RecordBatch]:
        data = io.BytesIO(bytes(obstore.get(self._store, path).bytes()))
        try:
            if path.endswith(".parquet"):
                batches: Any = pq.ParquetFile(data).iter_batches(ROWS)
            else:
                text = pcsv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()))
                batches = pcsv.open_csv(data, convert_options=text)
            for batch in batches:
                rows = self._rows(batch, container)
                if len(rows):
                    yield rows
        except pa.ArrowException:
            raise self._unavailable("a file of the newest report cannot be read") from None

    def _rows(self, batch: pa.RecordBatch, container: str) -> pa.RecordBatch:
        missing = [name for name in COLUMNS if name not in batch.schema.names]
        if missing:
            raise self._unavailable(f"its reports lack {', '.join(missing)}; add them to the rule's fields")
        if FOLDER in batch.schema.names:
            flags = pc.utf8_lower(batch.column(FOLDER).cast(pa.string()))
            batch = batch.filter(pc.fill_null(pc.not_equal(flags, "true"), True))
        prefix = f"{container}/"
        batch = batch.filter(pc.starts_with(batch.column("Name").cast(pa.string()), prefix))
        names = batch.column("Name").cast(pa.string())
        return pa.RecordBatch.from_arrays(
            [
                pc.utf8_slice_codeunits(names, len(prefix)),
                _moments(batch.column("Last-Modified")),
                batch.column("Content-Length").cast(pa.int64()),
                batch.column("Etag").cast(pa.string()),
            ],
            names=["path", "last_modified", "size", "e_tag"],
        )

    def _unavailable(self, why: str) -> SourceUnavailable:
        return SourceUnavailable(f"Source '{self._source}': its inventory cannot be used ({why}).")


def _moments(values: pa.Array) -> pa.Array:
    """Times of a report: text in ISO 8601 form, timestamps, or milliseconds since 1970."""
    kind = pa.timestamp("us", tz="UTC")
    if pa.types.is_integer(values.type):
        return values.cast(pa.timestamp("ms", tz="UTC")).cast(kind)
    if pa.types.is_timestamp(values.type):
        return values.cast(kind) if values.type.tz else pc.assume_timezone(values, "UTC").cast(kind)
    # Reports give tenths of microseconds.
    return pc.replace_substring_regex(values.cast(pa.string()), r"(\.\d{6})\d+", r"\1").cast(kind)
