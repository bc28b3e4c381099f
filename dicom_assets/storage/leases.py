"""Locks of a lake on Azure: leases on blobs, which end by themselves when their holder dies.

Belongs here: taking, renewing and giving back a lease. The storage keeps the time, so clocks need not agree. Does not
belong here: what is locked, and why.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError

from dicom_assets.storage.azure import reason, status_of
from dicom_assets.storage.files import CONTRIBUTOR, LakeError

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobLeaseClient, ContainerClient

LEASE_SECONDS = 60
"""The longest that a dead holder blocks others; the storage allows 15 to 60."""
RENEW_SECONDS = 15.0
_POLL_SECONDS = (0.1, 0.5)


class LeaseBusy(Exception):
    """Somebody else holds the lease and did not let go in time."""


class LeaseLost(LakeError):
    """The lease ended while it was held: the storage could not be reached for a minute, or the process was frozen."""


class Held:
    """A lease that is held, renewed by a thread of its own."""

    def __init__(self, lease: BlobLeaseClient) -> None:
        """Begins renewing."""
        self._lease = lease
        self._until = time.monotonic() + LEASE_SECONDS
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises LeaseLost when somebody else may hold the lease by now."""
        if time.monotonic() >= self._until:
            raise LeaseLost(
                "The right to write was lost: the lake's storage could not be reached for a minute. Run the batch "
                "again; nothing is lost."
            )

    def stop(self) -> None:
        """Ends renewing."""
        self._end.set()
        self._thread.join()

    def _renew(self) -> None:
        pause = RENEW_SECONDS
        while not self._end.wait(pause):
            begun = time.monotonic()
            try:
                self._lease.renew()
            except AzureError as error:
                if status_of(error) in (404, 409, 412):
                    self._until = 0.0
                    return
                pause = 1.0
            else:
                self._until = begun + LEASE_SECONDS
                pause = RENEW_SECONDS


@contextmanager
def hold(container: ContainerClient, path: str, wait_seconds: float, *, remove: bool = False) -> Iterator[Held]:
    """Holds the lease on the blob `path`, which is made when it is missing.

    remove: the blob goes with the lease; for locks that are taken once. Raises LeaseBusy after wait_seconds, and
    LakeError when the storage refuses.
    """
    blob = container.get_blob_client(path)
    lease = _acquire(blob, wait_seconds)
    held = Held(lease)
    try:
        yield held
    finally:
        held.stop()
        with contextlib.suppress(AzureError):  # it ends by itself, and whoever wants it waits for that long
            if remove:
                blob.delete_blob(lease=lease)
            else:
                lease.release()


def _acquire(blob: BlobClient, wait_seconds: float) -> BlobLeaseClient:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return blob.acquire_lease(lease_duration=LEASE_SECONDS)
        except AzureError as error:
            status = status_of(error)
            if status == 404 and "ContainerNotFound" not in str(error):
                _make(blob)
                continue
            if status != 409:
                raise LakeError(f"The lake cannot be locked: {reason(error, CONTRIBUTOR)}.") from None
        if time.monotonic() >= deadline:
            raise LeaseBusy
        time.sleep(random.uniform(*_POLL_SECONDS))


def _make(blob: BlobClient) -> None:
    try:
        blob.upload_blob(b"", overwrite=False)
    except AzureError as error:
        if status_of(error) not in (409, 412):  # somebody else made it, or holds it already
            raise LakeError(f"The lake cannot be locked: {reason(error, CONTRIBUTOR)}.") from None
