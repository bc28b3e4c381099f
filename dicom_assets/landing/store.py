"""What a landing store can do, whatever it is made of; its implementations stand beside this module.

Belongs here: the protocol, the row of a listing, typed errors. Does not belong here: which objects are new (claims),
what they are (sniffing), what is in them (archives).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable
from urllib.parse import quote, unquote_to_bytes

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.schema.registry import OWN
from dicom_assets.settings import UserError
from dicom_assets.storage.byte_ranges import ByteSource

LISTING = pa.schema([OWN[name].field for name in ("uri", "etag", "size", "modified_at")])
"""Columns of a listing; `uri` is absolute, `etag` changes whenever the bytes may have changed."""

ORGANIZED = ("Process", "Failed", "External", "Inventory")
"""Folders below the root of an organized source that are never listed; objects arrive anywhere else in it."""

_PARTITION = re.compile(r"(?:^|/)AHDS/[^/]+/dicom/[^/]+/([^/]+)/[^/]+$").search
DEFAULT_PARTITION = "microsoft.default"


def source_of(source: str, uri: str) -> str:
    """The source of an object, with the data partition of a DICOM service behind it.

    Below `AHDS/{workspace}/dicom/{service}/{partition}/` two partitions may hold the same UIDs. The default one adds
    nothing.
    """
    found = _PARTITION(uri)
    return source if found is None else partition_source(source, unquote_to_bytes(found[1]))


def partition_source(source: str, partition: str | bytes) -> str:
    """Name of the source that a data partition is.

    A partition of a DICOM service is called by letters, digits, `.`, `-` and `_`. Whoever delivers names the folder, so
    anything else is percent-encoded: the name of a source stands in books, keys and messages.
    """
    quoted = quote(partition, safe="", errors="surrogatepass") if isinstance(partition, str) else quote(partition, "")
    return source if quoted.lower() == DEFAULT_PARTITION else f"{source}/{quoted}"


class SourceUnavailable(UserError):
    """A source cannot be listed or reached. The message names the source, never an object."""


class PassedOver(NamedTuple):
    """A place that could not be listed, while the rest was. detail: why, without a path."""

    uri: str
    detail: str


def pass_over(_: PassedOver) -> None:
    """Does nothing: for who does not want to know what was passed over."""


class ObjectError(OSError):
    """One object cannot be read. Carries the reason code of its outcome; the message has no path."""

    def __init__(self, code: str, detail: str) -> None:
        """Code from `dicom_assets.schema.codes`, detail without patient data."""
        super().__init__(detail)
        self.code = code
        self.detail = detail


class ObjectArchived(ObjectError):
    """An object is there, in a tier from which nothing is read before it is moved. tier: as the storage calls it."""

    def __init__(self, tier: str) -> None:
        """Its code is READ_FAILED."""
        super().__init__("READ_FAILED", f"The blob is in the {tier} tier: move it to hot, cool or cold.")
        self.tier = tier


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object as it was claimed."""

    uri: str
    etag: str
    size: int


class OpenObject(ByteSource, Protocol):
    """An open object. `verify` raises ObjectError(CHANGED_DURING_READ) when it is not what was claimed any more."""

    def verify(self) -> None:
        """Compares size and version with the claim, after reading."""
        ...

    def close(self) -> None:
        """Ends the reading."""
        ...


class LandingStore(Protocol):
    """A place where objects arrive, read in place.

    What only some stores can do besides stands in protocols of its own: ResumableStore, RangedStore, AnnouncedStore,
    InventoriedStore, and `moves.OrganizedStore`. Whoever needs it asks whether a store has it, never which store it is.
    """

    @property
    def name(self) -> str:
        """The source's name."""
        ...

    def below_root(self, uri: str) -> str:
        """The path of an object below the source's root."""
        ...

    def device(self) -> int | None:
        """Number of the file system that the root lies on; None where there is none to tell."""
        ...

    def list(self, *, passed_over: Callable[[PassedOver], None] = pass_over) -> Iterator[pa.RecordBatch]:
        """Everything that is there now (schema LISTING, folder by folder).

        passed_over: called for each place below the root that cannot be listed; the rest is. Raises SourceUnavailable
        when the source as a whole cannot be listed: a failed listing is not an empty listing.
        """
        ...

    def open_all(self, objects: Sequence[ObjectRef], first_bytes: int) -> Iterator[OpenObject | ObjectError]:
        """Opens objects in this order, one result each; a store may fetch their first bytes ahead, side by side.

        Each OpenObject is closed by the caller before the next one is asked for.
        """
        ...


@runtime_checkable
class ResumableStore(LandingStore, Protocol):
    """A store that lists in one order, so that a listing that was broken off can be gone on with by another one."""

    def list_after(
        self, uri: str | None, *, passed_over: Callable[[PassedOver], None] = pass_over
    ) -> Iterator[pa.RecordBatch]:
        """As `list`, only what comes behind an object; everything for None."""
        ...


@runtime_checkable
class RangedStore(LandingStore, Protocol):
    """A store that opens an object without fetching its first bytes, for who wants a range from its middle."""

    def open_for_ranges(self, claimed: ObjectRef) -> OpenObject:
        """The object, nothing of it fetched yet; the caller closes it. Raises ObjectError."""
        ...


@runtime_checkable
class HurriedStore(LandingStore, Protocol):
    """A store that waits for a storage that does not answer, as long as it is told to."""

    def hurry(self, seconds: float) -> None:
        """Gives up after so long what cannot be read, because somebody waits for it."""
        ...


@runtime_checkable
class AnnouncedStore(LandingStore, Protocol):
    """A store whose new objects a queue can announce."""

    def serves(self, uri: str) -> bool:
        """Whether an object lies in this source and its patterns want it."""
        ...


@runtime_checkable
class InventoriedStore(LandingStore, Protocol):
    """A store that reports can stand for the listing of."""

    @property
    def inventory(self) -> str | None:
        """Where the reports lie; None when it is listed itself."""
        ...


def object_id(source: str, uri: str, etag: str, member: str | None) -> str:
    """Short name of one version of one object: BLAKE2b-80 in hexadecimal, 20 characters.

    80 bits keep a collision among 10 thousand million objects below one in ten thousand.
    """
    named = f"{source}\0{uri}\0{etag}\0{member or ''}\0"
    return hashlib.blake2b(named.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()


def object_digests(source: str, uris: pa.Array, etags: pa.Array) -> bytes:
    """The bytes of the object_ids of many objects that are no members, ten each, one after the other."""
    named = pc.binary_join_element_wise(
        source, uris, etags, "", "", "\0", null_handling="replace", null_replacement="None"
    ).cast(pa.binary())
    digest = hashlib.blake2b
    return b"".join([digest(name, digest_size=10).digest() for name in named.to_pylist()])
