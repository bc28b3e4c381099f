"""Where the keys of de-identification lie, with what they have mapped: apart from the lake, and from what is exported.

Belongs here: the folder of a cohort's key, its permissions. Does not belong here: what is made of a key
(`deidentification`).

`{cohort_keys}/{name}/key` is drawn with the first export that de-identifies a cohort, and `mapping.csv` beside it says
which identifier became which: whoever has either can lead back to patients. Only their owner may read them. A backup of
the lake does not take them along; without the key a later export maps to other identifiers.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from dicom_assets.settings import Settings, SettingsError
from dicom_assets.storage.files import LakeFiles

JOURNALS = "exports"
MAPPING = "mapping.csv"
_KEY_BYTES = 32


def root_of(settings: Settings) -> Path:
    """The folder of the keys of a lake's cohorts."""
    if settings.curation.cohort_keys is not None:
        return Path(settings.curation.cohort_keys)
    if "://" in settings.lake:
        return Path.home() / ".dicom-assets" / "cohort-keys" / settings.lake.partition("://")[2].replace("/", "+")
    lake = Path(settings.lake)
    return lake.with_name(f"{lake.name}.cohort-keys")


def open_keys(settings: Settings, name: str) -> tuple[LakeFiles, bytes]:
    """The folder of a cohort's key, made when it is missing, and the key. Raises SettingsError."""
    root = root_of(settings)
    folder = root / name
    try:
        for one in (root, folder):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
            one.chmod(0o700)
        key = folder / "key"
        if not key.exists():
            beside = folder / f"key-{secrets.token_hex(4)}"
            beside.touch(mode=0o600)
            beside.write_bytes(secrets.token_bytes(_KEY_BYTES))
            beside.replace(key)  # whole or not at all: the right to the cohort is held
        return LakeFiles(str(folder)), key.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"The folder of the keys of cohorts cannot be used: {error.strerror}. Give another one, [curation] "
            "cohort_keys. Nothing was written."
        ) from None


def protect(files: LakeFiles) -> None:
    """Lets nobody but their owner read the files of a cohort's key; others do not come into its folder meanwhile."""
    root = files.local_root
    assert root is not None, "keys lie in a folder"
    for path in files.every_name(""):
        (root / path).chmod(0o600)


def remove(settings: Settings, name: str) -> bool:
    """Removes a cohort's key and mapping; whether there was one. Raises LakeError."""
    folder = root_of(settings) / name
    if not folder.is_dir():
        return False
    files = LakeFiles(str(root_of(settings)))
    for path in files.every_name(name):
        files.remove_whole(path)
    for one in sorted(folder.rglob("*"), reverse=True):
        one.rmdir()
    folder.rmdir()
    return True
