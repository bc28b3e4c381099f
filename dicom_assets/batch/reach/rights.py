"""Which steps a source and a lake need, of whatever kind they are.

Belongs here: from settings to trials. Does not belong here: the steps (`folders`, `containers`, `dicom_services`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dicom_assets.batch.reach import containers, folders
from dicom_assets.batch.reach.dicom_services import try_service
from dicom_assets.batch.reach.trial import Result, Step, Trial, say_nothing
from dicom_assets.landing.azure import READER, AzureContainer
from dicom_assets.landing.inventory import Inventory
from dicom_assets.landing.local import LocalFolder
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import LandingStore
from dicom_assets.settings import ServiceSettings, Settings, SettingsError, SourceSettings
from dicom_assets.storage.azure import AddressError, Place, parse_folder
from dicom_assets.storage.files import CONTRIBUTOR


def try_places(settings: Settings, name: str | None, told: Callable[[Step], None] = say_nothing) -> list[Step]:
    """Tries a source, or all of them, and the lake. told: called with each step as it ends. Raises SettingsError."""
    services = {service.name: service for service in settings.services}
    sources = list(settings.sources) if name is None else [settings.source(name)]
    opened = [(source, open_store(source)) for source in sources]  # what is set wrong is said before anything is tried
    steps: list[Step] = []
    for source, store in opened:
        trial = Trial(f"source {source.name}", told)
        service = services.get(source.name)
        if service is not None:
            try_service(trial, service)
        _try_source(trial, source, store, service)
        steps += trial.steps
    lake = Trial("lake", told)
    _try_place(lake, settings.lake, "Lake", locks=True)
    return steps + lake.steps


def all_ok(steps: list[Step]) -> bool:
    """Whether nothing failed."""
    return all(step.result is not Result.FAILS for step in steps)


def _try_source(trial: Trial, source: SourceSettings, store: LandingStore, service: ServiceSettings | None) -> None:
    if isinstance(store, AzureContainer):
        _try_container(trial, source, store, writes=service is not None)
    elif isinstance(store, LocalFolder):
        if service is not None:
            folders.try_writing(trial, Path(service.landing.removeprefix("file://")))
        else:
            _try_folder(trial, source, store)
    else:
        trial.leave("reach", "there are no steps for a store of this kind")


def _try_folder(trial: Trial, source: SourceSettings, store: LocalFolder) -> None:
    folder = folders.FolderTrial(store)
    reached = trial.step("reach", folder.reach)
    trial.step("list", folder.list, after=reached)
    trial.step("read", folder.read, after=reached)
    if source.mode == "organize" or source.store:
        trial.step("write", folder.store, after=reached)
    if source.mode == "organize":
        trial.step("move", folder.move, after=reached)


def _try_container(trial: Trial, source: SourceSettings, store: AzureContainer, *, writes: bool) -> None:
    writes = writes or source.mode == "organize" or bool(source.store)
    place = store.place
    role = CONTRIBUTOR if writes else READER
    container = containers.ContainerTrial(
        place, role, lambda path: store.serves(Place(place.account, place.container, path).url)
    )
    reached = trial.step("reach", container.reach)
    if source.inventory is not None:
        trial.step("inventory", lambda: _report(source, place), after=reached)
    trial.step("list", container.list, after=reached)
    trial.step("read", container.read, after=reached)
    if writes:
        containers.try_writing(trial, container, after=reached)
    if source.queue:
        containers.try_queue(trial, source.queue, source.root)


def _report(source: SourceSettings, place: Place) -> str:
    first = next(Inventory(source.name, source.inventory or "").pages(place.container), None)
    return "the newest report names no blob" if first is None else "the newest report names blobs"


def _try_place(trial: Trial, uri: str, what: str, *, locks: bool) -> None:
    """A place that files are written to."""
    if "://" not in uri:
        folders.try_writing(trial, Path(uri), locks=locks)
        return
    try:
        place = parse_folder(uri)
    except AddressError as error:
        raise SettingsError(f"{what}: {error}. Correct its address.") from None
    container = containers.ContainerTrial(place, CONTRIBUTOR)
    reached = trial.step("reach", container.reach)
    trial.step("list", container.list, after=reached)
    trial.step("read", container.read, after=reached)
    containers.try_writing(trial, container, after=reached, locks=locks)
