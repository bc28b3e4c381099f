"""From the settings of a source to its landing store.

Belongs here: which store serves which kind of root. Each store stands in a module of its own.
"""

from __future__ import annotations

from dicom_assets.landing.local import LocalFolder
from dicom_assets.landing.store import LandingStore
from dicom_assets.settings import SettingsError, SourceSettings

_AZURE = ("az", "azure", "abfs", "abfss", "adl")


def open_store(settings: SourceSettings) -> LandingStore:
    """The store of one source: a folder for paths and file:// URIs.

    Nothing is reached yet, so a folder that is missing shows when it is listed. SettingsError when no store serves
    such a root, or a pattern is wrong.
    """
    scheme, separator, rest = settings.root.partition("://")
    if not separator or (scheme == "file" and rest.startswith("/")):
        try:
            return LocalFolder(settings)
        except ValueError as error:
            raise SettingsError(
                f"Source '{settings.name}': {error}. Correct its include or exclude patterns."
            ) from None
    if scheme in _AZURE:
        raise SettingsError(
            f"Source '{settings.name}': landing zones on Azure ({scheme}://) cannot be read yet. "
            "Mount the container as a folder and give that folder as root."
        )
    raise SettingsError(
        f"Source '{settings.name}': roots that begin with {scheme}:// are not supported. "
        "Give a folder, as a path or as file:///path."
    )
