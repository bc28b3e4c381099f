"""What may be done in a container of Azure Blob Storage, tried call by call, and in a storage queue.

Belongs here: one call for each right, and what its refusal says: which role, or which letter of a shared access
signature. Does not belong here: which rights a place needs (`rights`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dicom_assets.batch.reach.trial import Refused, Trial, answer
from dicom_assets.landing.events import ROLE as MESSAGE_PROCESSOR
from dicom_assets.landing.events import EventQueue
from dicom_assets.storage.azure import (
    Place,
    container_client,
    credential,
    endpoint,
    failures,
    queue_client,
    reason,
    status_of,
)
from dicom_assets.storage.files import CONTRIBUTOR

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

HEALTH = "healthCheck"
"""Folder of probes that no listing of a container sees, and no event."""
FIRST_BYTES = 132
PAGE = 1_000
_NOBODY = "00000000-0000-0000-0000-000000000000"
_LETTERS = {"list": "l", "read": "r", "write": "w or c", "delete": "d", "lease": "w", "peek": "r", "take": "p"}


def container_words(place: Place) -> str:
    """A container, in words."""
    return f"container {place.container} of account {place.account}"


def refusal(error: BaseException, account: str, where: str, right: str, role: str) -> Refused:
    """Why a call was refused, and what is missing. where: container or queue in words. right: key of _LETTERS."""
    status = status_of(error)
    code = getattr(error, "error_code", None)
    name = str(getattr(code, "value", code) or "")
    if status == 404:
        return Refused(f"{where} is not there: create it, or correct the address")
    if status not in (401, 403):
        return Refused(f"{where}: {reason(error, role)}")
    kind = credential(account).kind
    told = f" ({name})" if name else ""
    if kind == "key":
        return Refused(
            f"the account key is refused: it is wrong or of another account, the account takes no keys, or its "
            f"firewall does not let this machine in{told}"
        )
    wanted = f"role {role} on the {where}"
    if kind == "sas":
        if name.endswith("Mismatch"):
            return Refused(
                f"the shared access signature does not allow to {right} ({_LETTERS[right]}); an identity needs the "
                f"{wanted}"
            )
        return Refused(f"the shared access signature is refused: wrong, of another place, or not valid now{told}")
    if status == 401 or name in ("AuthenticationFailed", "InvalidAuthenticationInfo"):
        return Refused(f"not signed in: set credentials in the environment, or run az login{told}")
    if name == "AuthorizationFailure":
        return Refused(f"the account's firewall does not let this machine in, or the {wanted} is missing")
    return Refused(f"the {wanted} is missing")


class ContainerTrial:
    """The calls of one container. Each raises Refused, and returns what it found in words."""

    def __init__(self, place: Place, role: str, wanted: Callable[[str], bool] = lambda path: True) -> None:
        """role: what reading needs. wanted: whether a blob of this path is one that the source takes."""
        self.place, self._role, self._wanted = place, role, wanted
        self._client: ContainerClient = container_client(place)
        self._found: tuple[str, int] | None = None
        self._probe = place.below(f"{HEALTH}/dicom-assets-{secrets.token_hex(8)}").path
        self._had_folder: bool | None = None

    def _failed(self, error: BaseException, right: str, role: str | None = None) -> Refused:
        return refusal(error, self.place.account, container_words(self.place), right, role or self._role)

    def reach(self) -> str:
        """Whether the account answers."""
        return answer(endpoint(self.place.account, "blob"))

    def list(self) -> str:
        """One page of a listing."""
        prefix = f"{self.place.path}/" if self.place.path else None
        try:
            pages = self._client.list_blobs(prefix, results_per_page=PAGE).by_page()
            page: list[Any] = list(next(iter(pages), ()))
        except failures() as error:
            raise self._failed(error, "list") from None
        wanted = [one for one in page if self._wanted(one.name) and str(one.blob_tier) != "Archive"]
        self._found = next(((one.name, one.size) for one in wanted if one.size), None)
        if not page:
            return "nothing lies there"
        taken = "" if len(wanted) == len(page) else f", of which the source takes {len(wanted)}"
        return f"objects on the first page: {len(page)}{taken}"

    def read(self) -> str:
        """The first bytes of one blob; of one that does not exist where there is none, which shows the right too."""
        name, size = self._found or (f"{self._probe}-none", 1)
        try:
            data = self._client.download_blob(name, 0, min(size, FIRST_BYTES)).readall()
        except failures() as error:
            if status_of(error) in (404, 416) and "ContainerNotFound" not in str(error):
                return "may be read; there is nothing to read"
            raise self._failed(error, "read") from None
        return f"{len(data)} bytes by range"

    def write(self) -> str:
        """A probe that no listing sees."""
        try:
            if self._had_folder is None:
                self._had_folder = self._has_folder()
            self._client.upload_blob(self._probe, b"dicom-assets source test", overwrite=False)
        except failures() as error:
            raise self._failed(error, "write", CONTRIBUTOR) from None
        return "a probe was written"

    def lease(self) -> str:
        """A lease on the probe, taken and given back: locks of a lake are such leases."""
        try:
            self._client.get_blob_client(self._probe).acquire_lease(lease_duration=15).release()
        except failures() as error:
            raise self._failed(error, "lease", CONTRIBUTOR) from None
        return "a lock was taken and given back"

    def delete(self) -> str:
        """The probe goes."""
        try:
            self._client.delete_blob(self._probe)
        except failures() as error:
            if status_of(error) == 404:
                return "the probe is gone"
            left = f"{HEALTH}/{self._probe.rpartition('/')[2]}"
            raise Refused(
                f"{self._failed(error, 'delete', CONTRIBUTOR)}. The probe {left} is left behind: delete it by hand"
            ) from None
        if self._had_folder is False:
            with suppress(*failures()):  # with a hierarchical namespace folders exist; elsewhere there is none
                self._client.delete_blob(self._probe.rpartition("/")[0])
        return "the probe is gone"

    def _has_folder(self) -> bool:
        """Whether anything lies beside the probe; True where that cannot be told."""
        folder = self._probe.rpartition("/")[0]
        try:
            return next(iter(self._client.list_blobs(folder, results_per_page=1)), None) is not None
        except failures():
            return True


def try_writing(trial: Trial, container: ContainerTrial, *, after: bool, locks: bool = False) -> None:
    """Steps `write`, `delete`, and `lock` where locks are leases."""
    wrote = trial.step("write", container.write, after=after)
    if locks:
        trial.step("lock", container.lease, after=wrote)
    trial.step("delete", container.delete, after=wrote)


def try_queue(trial: Trial, queue: str, root: str) -> None:
    """The steps of a source's queue. No message is taken, so that none is delivered later or once more."""
    known = EventQueue(queue, root)
    client = queue_client(known.account, known.name)
    where = f"queue {known.name} of account {known.account}"

    def peek() -> str:
        try:
            messages = client.peek_messages(32)
            count = client.get_queue_properties().approximate_message_count
        except failures() as error:
            raise refusal(error, known.account, where, "peek", MESSAGE_PROCESSOR) from None
        return f"messages that wait, roughly: {count or len(messages)}"

    def take() -> str:
        try:
            client.delete_message(_NOBODY, "AgAAAAMAAAAAAAAA")
        except failures() as error:
            if status_of(error) in (400, 404):
                return "messages may be taken"
            raise refusal(error, known.account, where, "take", MESSAGE_PROCESSOR) from None
        return "messages may be taken"

    reached = trial.step("queue: reach", lambda: answer(endpoint(known.account, "queue")))
    peeked = trial.step("queue: peek", peek, after=reached)
    trial.step("queue: take", take, after=peeked)
    trial.leave("queue: poison", "written to only when a message cannot be read; needs Storage Queue Data Contributor")
