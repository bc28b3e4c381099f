"""What a DICOM service lets us do: answer, take our credentials, tell changes, find and read an instance.

Belongs here: one request for each. Does not belong here: reading changes for real (`service`). Nothing that a service
says of a patient is told.
"""

from __future__ import annotations

from dicom_assets.batch.reach.trial import Trial, answer
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.dicomweb import DICOM_JSON, INSTANCE, SERIES, STUDY, instance_metadata, uid_of
from dicom_assets.service.errors import ServiceError
from dicom_assets.service.feed import latest
from dicom_assets.service.tokens import credentials_for
from dicom_assets.settings import ServiceSettings

READ_SECONDS = 30.0


def try_service(trial: Trial, service: ServiceSettings) -> None:
    """The steps of one service."""
    hasty = service.model_copy(update={"retries": 0, "read_seconds": min(service.read_seconds, READ_SECONDS)})
    with ServiceClient(hasty) as client:
        rights = _Rights(client)
        reached = trial.step("service: reach", lambda: answer(service.url))
        signed = trial.step("service: sign in", rights.sign_in, after=reached)
        trial.step("service: changes", rights.changes, after=signed)
        searched = trial.step("service: list", rights.search, after=signed)
        trial.step("service: read", rights.read, after=searched)


class _Rights:
    """The requests of one service. Each raises ServiceError."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client
        self._found: tuple[str, str, str] | None = None

    def sign_in(self) -> str:
        """What signs the requests can be had; whether it is accepted, the next ones show."""
        auth = self._client.service.auth
        credentials_for(self._client.service).header()
        return "no credentials are sent" if auth == "anonymous" else f"{auth} credentials are at hand"

    def changes(self) -> str:
        """The newest entry of what the service is followed by."""
        service = self._client.service
        if service.kind == "dicom-service":
            newest = latest(self._client)
            return "no change yet" if newest is None else f"the newest change was at {newest[1]:%Y-%m-%dT%H:%M:%SZ}"
        if service.follow == "orthanc-changes":
            self._client.get(f"{service.orthanc_url}/changes", {"limit": 1}, what="the first change")
            return "changes are told"
        return "followed by study date, which is a search"

    def search(self) -> str:
        """One instance of a search (PS3.18 10.6)."""
        path = self._client.dicomweb("instances")
        reply = self._client.get(path, {"limit": 1}, what="a search for instances", accept=DICOM_JSON)
        found = reply.objects()
        if not found:
            return "nothing lies there"
        study, series, instance = (uid_of(self._client, found[0], key) for key in (STUDY, SERIES, INSTANCE))
        self._found = study, series, instance
        return "an instance was found"

    def read(self) -> str:
        """Metadata of the instance that was found (PS3.18 10.4.1.1.2)."""
        if self._found is None:
            return "there is nothing to read"
        if not list(instance_metadata(self._client, [self._found])):
            raise ServiceError(self._client.name, "metadata of an instance", "It lists the instance and has it not.")
        return "metadata of an instance"
