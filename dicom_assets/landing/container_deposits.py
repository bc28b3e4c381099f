"""Putting objects into a container of Azure. What each operation promises stands in `deposits.Depot`.

Bytes come into a file of this machine without a name, and go to the container in blocks, which are no blob before they
are committed, all at once and only where there is no blob yet. The role Storage Blob Data Contributor is needed.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from dicom_assets.landing.deposits import Deposit, Spool, unavailable
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.storage.azure import Failure, Place, failures, reason, status_of
from dicom_assets.storage.files import CONTRIBUTOR

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient


class ContainerDepot:
    """Puts blobs into the container of a source."""

    tick_seconds = 1.1

    def __init__(self, source: str, place: Place, client: ContainerClient) -> None:
        """source: its name, for messages; place: its container or folder in it; client: of the container."""
        self._source, self._place, self._client = source, place, client

    def spool(self) -> Spool:
        """See Depot. TMPDIR says in which folder of this machine."""
        try:
            with tempfile.TemporaryFile() as file:
                return Spool(os.dup(file.fileno()))
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else "unknown error"
            raise unavailable(self._source, f"temporary files of this machine: {why}") from None

    def put(self, spool: Spool, path: str) -> Deposit | None:
        """See Depot."""
        blob = self._blob(path)
        try:
            with os.fdopen(os.dup(spool.fd), "rb") as file:
                file.seek(0)
                blob.upload_blob(file, length=spool.size, overwrite=False, max_concurrency=2)
            return self._deposit(path, blob)
        except failures() as error:
            if status_of(error) in (409, 412) and "ContainerBeingDeleted" not in str(error):
                return None
            raise self._failed(error) from None

    def find(self, path: str) -> Deposit | None:
        """See Depot."""
        try:
            return self._deposit(path, self._blob(path))
        except failures() as error:
            if status_of(error) == 404 and "ContainerNotFound" not in str(error):
                return None
            raise self._failed(error) from None

    def holds(self, folder: str) -> bool:
        """See Depot."""
        try:
            prefix = self._place.below(folder).path + "/"
            return next(iter(self._client.list_blobs(prefix, results_per_page=1)), None) is not None
        except failures() as error:
            raise self._failed(error) from None

    def begins(self, path: str) -> bool:
        """See Depot."""
        try:
            return (
                next(iter(self._client.list_blobs(self._place.below(path).path, results_per_page=1)), None) is not None
            )
        except failures() as error:
            raise self._failed(error) from None

    def _blob(self, path: str) -> BlobClient:
        return self._client.get_blob_client(self._place.below(path).path)

    def _deposit(self, path: str, blob: BlobClient) -> Deposit:
        return Deposit(path, blob.get_blob_properties().last_modified)

    def _failed(self, error: Failure) -> SourceUnavailable:
        return unavailable(self._source, reason(error, CONTRIBUTOR))
