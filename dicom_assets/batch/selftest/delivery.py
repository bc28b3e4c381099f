"""The files of a self-test at its source: put there, counted, and taken away, those that were moved there as well.

Belongs here: a folder and a container alike. Does not belong here: what is in the files (`reference_set`), rows
(`clearance`).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from dicom_assets.landing.azure import AzureContainer
from dicom_assets.landing.deposits import DepotStore
from dicom_assets.landing.file_uris import uri_of
from dicom_assets.landing.globs import matcher
from dicom_assets.landing.local import LocalFolder
from dicom_assets.landing.moves import OrganizedStore
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import ObjectRef, SourceUnavailable
from dicom_assets.settings import SettingsError, SourceSettings
from dicom_assets.storage.azure import failures, reason
from dicom_assets.storage.files import CONTRIBUTOR


class Delivery:
    """The folder of one self-test at a source. prefix: its path below the root."""

    def __init__(self, source: SourceSettings, prefix: str) -> None:
        """Opens the source. Raises SettingsError when it is of a kind that files cannot be put into."""
        self._source, self._prefix = source, prefix
        self._store = open_store(source)
        if not isinstance(self._store, AzureContainer | LocalFolder) or not isinstance(self._store, DepotStore):
            raise SettingsError(f"Source '{source.name}': a self-test needs a folder or a container.")
        self._files: _Files = (
            _Container(self._store) if isinstance(self._store, AzureContainer) else _Folder(self._store)
        )

    @property
    def uri_prefix(self) -> str:
        """What the uris of its objects begin with."""
        return self._files.uri(self._prefix) + "/"

    def require_wanted(self, paths: Iterable[str]) -> None:
        """Raises SettingsError when the source's patterns leave out what is to be delivered."""
        wanted = matcher(self._source.include, self._source.exclude)
        left_out = [path for path in paths if wanted is not None and not wanted(f"{self._prefix}/{path}")]
        if left_out:
            raise SettingsError(
                f"Source '{self._source.name}': its include and exclude patterns leave out {len(left_out)} files of "
                f"the set. Let them take `{self._prefix[:9]}*/**`, or name another source."
            )

    def put(self, path: str, data: bytes) -> None:
        """Puts one file, at once and whole. Raises SourceUnavailable."""
        if not isinstance(self._store, DepotStore):
            raise AssertionError("refused when it was opened")
        depot = self._store.depot(synced=False)
        spool = depot.spool()
        try:
            spool.write(data)
            if depot.put(spool, f"{self._prefix}/{path}") is None:
                raise SourceUnavailable(f"Source '{self._source.name}': the place of a self-test is taken.")
        finally:
            spool.close()

    def count(self) -> int:
        """How many files of it are there. Raises SourceUnavailable."""
        return len(self._files.names(self._prefix))

    def clear(self, elsewhere: Iterable[tuple[str, str, int]] = ()) -> int:
        """Deletes everything of it, and places that its objects were moved to (uri, etag, size); how many files.

        Raises SourceUnavailable.
        """
        gone = self._files.delete(self._prefix)
        if isinstance(self._store, OrganizedStore):
            mover = self._store.mover()
            for one in elsewhere:
                mover.remove(ObjectRef(*one))
        return gone


class _Files(Protocol):
    """Files of one kind of store, by paths below its root."""

    def uri(self, path: str) -> str: ...

    def names(self, folder: str) -> list[str]: ...

    def delete(self, folder: str) -> int: ...


class _Folder:
    def __init__(self, store: LocalFolder) -> None:
        self._root, self._name = store.root, store.name

    def uri(self, path: str) -> str:
        return uri_of(str(self._root / path))

    def names(self, folder: str) -> list[str]:
        try:
            if not self._root.is_dir():
                raise SourceUnavailable(f"Source '{self._name}': its folder is not there; is it mounted?")
            return [str(one) for one in (self._root / folder).rglob("*") if not one.is_dir()]
        except OSError as error:
            raise self._failed(error) from None

    def delete(self, folder: str) -> int:
        names = self.names(folder)
        try:
            for name in names:
                Path(name).unlink(missing_ok=True)
            below = sorted((one for one in (self._root / folder).rglob("*") if one.is_dir()), reverse=True)
            for one in (*below, self._root / folder):
                with suppress(FileNotFoundError):
                    one.rmdir()
        except OSError as error:
            raise self._failed(error) from None
        return len(names)

    def _failed(self, error: OSError) -> SourceUnavailable:
        return SourceUnavailable(
            f"Source '{self._name}': the files of a self-test cannot be deleted ({error.strerror}). Let the user who "
            "runs this write there, then run `dicom-assets selftest --clean`."
        )


class _Container:
    def __init__(self, store: AzureContainer) -> None:
        self._store = store

    def uri(self, path: str) -> str:
        return self._store.place.below(path).url

    def names(self, folder: str) -> list[str]:
        try:
            prefix = self._store.place.below(folder).path + "/"
            return [blob.name for blob in self._store.client.list_blobs(prefix)]
        except failures() as error:
            raise self._failed(error) from None

    def delete(self, folder: str) -> int:
        names = self.names(folder)
        try:
            for name in sorted(names, reverse=True):  # with a hierarchical namespace folders are listed, before theirs
                self._store.client.delete_blob(name)
        except failures() as error:
            raise self._failed(error) from None
        if names:
            with suppress(*failures()):
                self._store.client.delete_blob(self._store.place.below(folder).path)
        return len(names)

    def _failed(self, error: BaseException) -> SourceUnavailable:
        place = self._store.place
        return SourceUnavailable(
            f"Source '{self._store.name}': container {place.container} of account {place.account} cannot be listed or "
            f"its blobs cannot be deleted ({reason(error, CONTRIBUTOR)}). Then run `dicom-assets selftest --clean`."
        )
