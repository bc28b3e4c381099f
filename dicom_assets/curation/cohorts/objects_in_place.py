"""One object of a cohort where it lies: opened by its landing store, compared with what the lake has read of it.

Belongs here: from a row of a cohort to bytes that are what they were, or to why there are none. Does not belong here:
where they go (`destination`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import pyarrow as pa

from dicom_assets.dicom.header import WHOLE, read_header
from dicom_assets.dicom.rejections import NotDicom, Unreadable
from dicom_assets.landing.opening import lies_elsewhere, open_store
from dicom_assets.landing.retrieval import OpenPlace, Place
from dicom_assets.landing.store import LandingStore, ObjectError, SourceUnavailable
from dicom_assets.schema.keys import content_digest
from dicom_assets.settings import Settings, SettingsError

BLOCK = 4 << 20
"""Bytes of an object that are in memory together."""


class Withheld(StrEnum):
    """Why an object is not exported.

    CHANGED: other bytes lie in its place, or its header says something else than the lake has read. GONE: nothing lies
    there. UNREAD: it cannot be read. ELSEWHERE: a DICOM service has told of it and its bytes never arrived.
    NOT_DEIDENTIFIED: its identifiers cannot be taken out. BURNED_IN: it says itself that there are some in its pixels.
    """

    CHANGED = "changed"
    GONE = "gone"
    UNREAD = "unread"
    ELSEWHERE = "elsewhere"
    NOT_DEIDENTIFIED = "not de-identified"
    BURNED_IN = "burned in"


class NotThere(Exception):
    """An object that is not exported. why: the reason; the message says no more."""

    def __init__(self, why: str) -> None:
        """why: one of Withheld."""
        super().__init__(why)
        self.why = str(why)


def why_of(error: ObjectError) -> str:
    """The reason for what a store says of an object. Raises SourceUnavailable when it says it of its source."""
    if error.code == "SOURCE_UNAVAILABLE":
        raise SourceUnavailable(f"{error.detail} Run this again when it can be reached.") from None
    reasons = {"OBJECT_GONE": Withheld.GONE, "CHANGED_DURING_READ": Withheld.CHANGED}
    return reasons.get(error.code, Withheld.UNREAD)


def place_of(row: Mapping[str, Any]) -> Place | None:
    """Where the object of a cohort's row lies; None for one that never arrived."""
    if row["etag"] is None:
        return None
    return Place(row["uri"], row["etag"], row["file_size"], row["member"])


class Stores:
    """The stores of sources, by the names that rows have, each opened once."""

    def __init__(self, settings: Settings) -> None:
        """Opens none yet."""
        self._settings = settings
        self._opened: dict[str, LandingStore] = {}

    def open_those_of(self, rows: pa.Table) -> None:
        """Opens the stores of some rows of a cohort.

        Raises SettingsError for a source that is not configured, or is another folder now.
        """
        firsts = rows.group_by("source", use_threads=False).aggregate([("uri", "min")])
        for source, uri in zip(firsts["source"].to_pylist(), firsts["uri_min"].to_pylist(), strict=True):
            settings = self._settings.source(_configured(source))
            if lies_elsewhere(settings, uri):
                raise SettingsError(
                    f"Objects of source '{settings.name}' lie in another folder than the source has now: give "
                    "--landing, or its root in the settings file."
                )
            self._opened.setdefault(settings.name, open_store(settings))

    def of(self, source: str) -> LandingStore:
        """The store of a source that was opened."""
        return self._opened[_configured(source)]


def _configured(source: str) -> str:
    """The name of a source as it is configured: a data partition stands behind it in rows."""
    return source.partition("/")[0]


class Copy:
    """The bytes of one object, block by block; that they are what they were is sure when all have been taken.

    size: how many there are. sha256: their digest, once all have been taken.
    """

    def __init__(self, store: LandingStore, row: Mapping[str, Any], place: Place, settings: Settings) -> None:
        """Opens it, and compares its header with what the lake has. Raises NotThere; closed then."""
        self._row, self._settings = row, settings
        self._digest = hashlib.sha256()
        try:
            self._opened = OpenPlace(store, place, settings.archives)
        except ObjectError as error:
            raise NotThere(why_of(error)) from None
        try:
            self._compare()
        except BaseException:
            self.close()
            raise
        self.size: int = self._opened.source.size

    def _compare(self) -> None:
        """Raises NotThere when the header is not the one that the lake has."""
        row = self._row
        if row["header_form"] != WHOLE or row["content_digest"] is None:
            return  # of an earlier release, whose digests are others
        try:
            header = read_header(self._opened.source, self._settings.reading)
        except ObjectError as error:
            raise NotThere(why_of(error)) from None
        except (NotDicom, Unreadable):
            raise NotThere(Withheld.CHANGED) from None
        if content_digest(header.json) != row["content_digest"]:
            raise NotThere(Withheld.CHANGED)

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, once. Raises NotThere behind the last block at the latest, so none of them counts before."""
        at = 0
        try:
            while at < self.size:
                block = self._opened.source.read(at, min(BLOCK, self.size - at))
                if not block:
                    raise NotThere(Withheld.CHANGED)
                at += len(block)
                self._digest.update(block)
                yield block
            self._opened.verify()
        except ObjectError as error:
            raise NotThere(why_of(error)) from None

    @property
    def sha256(self) -> str:
        """Digest of what was taken, hexadecimal."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Closes the object."""
        self._opened.close()
