"""From the settings of a source to its landing store.

Belongs here: which store serves which kind of root. Each store stands in a module of its own.
"""

from __future__ import annotations

from dicom_assets.landing.local import LocalFolder
from dicom_assets.landing.store import ORGANIZED, LandingStore
from dicom_assets.settings import SettingsError, SourceSettings
from dicom_assets.storage.azure import SCHEMES, AddressError


def open_store(settings: SourceSettings) -> LandingStore:
    """The store of one source: a folder for paths and file:// URIs, a container for addresses of Azure Storage.

    Nothing is reached yet, so a folder that is missing shows when it is listed. SettingsError when no store serves
    such a root, or a pattern is wrong.
    """
    if settings.mode == "organize":
        settings = settings.model_copy(update={"exclude": (*settings.exclude, *(f"{name}/**" for name in ORGANIZED))})
    scheme, separator, rest = settings.root.partition("://")
    if not separator or (scheme == "file" and rest.startswith("/")):
        try:
            return LocalFolder(settings)
        except ValueError as error:
            raise SettingsError(
                f"Source '{settings.name}': {error}. Correct its include or exclude patterns."
            ) from None
    if scheme in SCHEMES:
        # Imported here: the Azure SDK takes half a second, which reading a folder should not cost.
        from dicom_assets.landing.azure import AzureContainer

        try:
            return AzureContainer(settings)
        except AddressError as error:
            raise SettingsError(f"Source '{settings.name}': {error}. Correct its root.") from None
        except ValueError as error:
            raise SettingsError(
                f"Source '{settings.name}': {error}. Correct its include or exclude patterns."
            ) from None
    raise SettingsError(
        f"Source '{settings.name}': roots that begin with {scheme}:// are not supported. "
        "Give a folder, as a path or as file:///path, or az://account/container/path."
    )
