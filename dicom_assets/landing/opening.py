"""From the settings of a source to its landing store.

Belongs here: OPENERS, which store serves which kind of root, and refusing what a store cannot do. Each store stands in
a module of its own: a new one is a class with the methods of `store.LandingStore`, and a line in OPENERS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dicom_assets.landing.deposits import DepotStore, layout_of
from dicom_assets.landing.local import LocalFolder
from dicom_assets.landing.moves import OrganizedStore
from dicom_assets.landing.store import ORGANIZED, AnnouncedStore, InventoriedStore, LandingStore, SourceUnavailable
from dicom_assets.settings import SettingsError, SourceSettings
from dicom_assets.storage.azure import SCHEMES, AddressError

Opener = Callable[[SourceSettings], LandingStore]


def _open_container(settings: SourceSettings) -> LandingStore:
    # Imported here: the Azure SDK takes half a second, which reading a folder should not cost.
    from dicom_assets.landing.azure import AzureContainer

    return AzureContainer(settings)


OPENERS: dict[str, Opener] = {"": LocalFolder, "file": LocalFolder, **dict.fromkeys(SCHEMES, _open_container)}
"""By the scheme of a root (none for a path) what makes its store.

Nothing is reached yet. AddressError when the root is no address, ValueError when a pattern is wrong.
"""


def open_store(settings: SourceSettings) -> LandingStore:
    """The store of one source: a folder for paths and file:// URIs, a container for addresses of Azure Storage.

    Nothing is reached yet, so a folder that is missing shows when it is listed. SettingsError when no store serves
    such a root, when it cannot do what is set, or a pattern is wrong.
    """
    if settings.mode == "organize":
        settings = settings.model_copy(update={"exclude": (*settings.exclude, *(f"{name}/**" for name in ORGANIZED))})
    scheme, separator, rest = settings.root.partition("://")
    opener = OPENERS.get(scheme if separator else "")
    if opener is None or (scheme == "file" and not rest.startswith("/")):
        raise SettingsError(
            f"Source '{settings.name}': roots that begin with {scheme}:// are not supported. "
            "Give a folder, as a path or as file:///path, or az://account/container/path."
        )
    try:
        store = opener(settings)
    except AddressError as error:
        raise SettingsError(f"Source '{settings.name}': {error}. Correct its root.") from None
    except ValueError as error:
        raise SettingsError(f"Source '{settings.name}': {error}. Correct its include or exclude patterns.") from None
    _require_abilities(store, settings)
    return store


def require_one(sources: Iterable[SourceSettings]) -> None:
    """Raises SourceUnavailable when none of the sources can be listed; asked before a lake is made for them."""
    troubles: list[str] = []
    for settings in sources:
        try:
            next(iter(open_store(settings).list()), None)
        except SourceUnavailable as error:
            troubles.append(str(error))
        else:
            return
    if troubles:
        raise SourceUnavailable(" ".join([*troubles, "No lake was made."]))


def lies_elsewhere(settings: SourceSettings, uri: str) -> bool:
    """Whether an object that was claimed of a source lies in another folder than the source is now."""
    return uri.startswith("file:") and open_store(settings).below_root(uri).startswith("/")


def _require_abilities(store: LandingStore, settings: SourceSettings) -> None:
    if settings.store is not None:
        layout_of(settings)
    wanted = {
        "mode = 'organize'": settings.mode != "organize" or isinstance(store, OrganizedStore),
        "queue": settings.queue is None or isinstance(store, AnnouncedStore),
        "store": settings.store is None or isinstance(store, DepotStore),
        "inventory": settings.inventory is None or isinstance(store, InventoriedStore),
    }
    for name, has in wanted.items():
        if not has:
            raise SettingsError(f"Source '{settings.name}': {name} is not for roots of this kind. Leave it out.")
