"""Moving blobs within a container in mode `organize`. What each operation promises stands in `moves.Mover`.

The role Storage Blob Data Contributor is needed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dicom_assets.landing.moves import Location
from dicom_assets.landing.store import ObjectRef, SourceUnavailable
from dicom_assets.storage.azure import Place, credential, failures, parse, reason, status_of
from dicom_assets.storage.files import CONTRIBUTOR

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

_COPY_SECONDS = 3_600.0


class ContainerMover:
    """Moves within a container: copied by the storage itself, then the old blob away."""

    at_once = 16

    def __init__(self, source: str, place: Place, client: ContainerClient) -> None:
        """source: its name, for messages; place: its container or folder in it; client: of the container."""
        self._source, self._place, self._client = source, place, client

    def copy(self, claimed: ObjectRef, path: str) -> Location | None:
        """See Mover."""
        from azure.core import MatchConditions  # here and below alone: a folder does without

        place = self._place.below(path)
        new = self._client.get_blob_client(place.path)
        old = self._client.get_blob_client(parse(claimed.uri).path)
        found = credential(place.account)
        try:
            try:
                new.start_copy_from_url(
                    f"{old.url}?{found.secret}" if found.kind == "sas" else old.url,
                    source_etag=f'"{claimed.etag}"',
                    source_match_condition=MatchConditions.IfNotModified,
                    match_condition=MatchConditions.IfMissing,
                )
            except failures() as error:
                if status_of(error) not in (404, 409, 412):
                    raise
            return self._there(path)
        except failures() as error:
            raise self._failed(error) from None

    def _there(self, path: str) -> Location | None:
        """The blob at a path when it is whole; waits for a copy that is under way."""
        place = self._place.below(path)
        blob = self._client.get_blob_client(place.path)
        until = time.monotonic() + _COPY_SECONDS
        pause = 0.1
        while True:
            try:
                properties = blob.get_blob_properties()
            except failures() as error:
                if status_of(error) == 404:
                    return None
                raise
            status = properties.copy.status
            if status in (None, "success"):
                return Location(place.url, str(properties.etag).strip('"'), int(properties.size))
            if status != "pending" or time.monotonic() > until:
                blob.delete_blob()
                raise SourceUnavailable(f"Source '{self._source}': the storage broke off a copy. Try again.")
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def write(self, path: str, pieces: Iterable[bytes]) -> Location:
        """See Mover."""
        place = self._place.below(path)
        blob = self._client.get_blob_client(place.path)
        # Read into a file first: an object that breaks off must not be told from a storage that does.
        with tempfile.TemporaryFile() as spool:
            for piece in pieces:
                spool.write(piece)
            size = spool.tell()
            spool.seek(0)
            try:
                answer = blob.upload_blob(spool, length=size, overwrite=True)
            except failures() as error:
                raise self._failed(error) from None
        return Location(place.url, str(answer["etag"]).strip('"'), size)

    def remove(self, claimed: ObjectRef) -> None:
        """See Mover."""
        from azure.core import MatchConditions

        blob = self._client.get_blob_client(parse(claimed.uri).path)
        try:
            blob.delete_blob(etag=f'"{claimed.etag}"', match_condition=MatchConditions.IfNotModified)
        except failures() as error:
            if status_of(error) not in (404, 412):
                raise self._failed(error) from None

    def discard(self, path: str) -> None:
        """See Mover."""
        try:
            self._client.get_blob_client(self._place.below(path).path).delete_blob()
        except failures() as error:
            if status_of(error) != 404:
                raise self._failed(error) from None

    def _failed(self, error: BaseException) -> SourceUnavailable:
        return SourceUnavailable(f"Source '{self._source}' cannot be organized ({reason(error, CONTRIBUTOR)}).")
