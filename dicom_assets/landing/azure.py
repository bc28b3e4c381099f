"""A landing source that is a container of Azure Blob Storage, or a folder in one, read in place.

Belongs here: listing blobs, reading them by range. Does not belong here: what is new (claims), events (`events`),
moving what was ingested (`organize`), addresses and credentials (`storage.azure`). Reading needs the role Storage Blob
Data Reader.

A blob is listed with its size and etag, and each read says which etag it wants, so no request asks for a blob's
properties and no half-replaced blob is ever read. First ranges are fetched side by side and in order.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import obstore
import pyarrow as pa
import pyarrow.compute as pc
from obstore.exceptions import InvalidPathError

from dicom_assets.landing.container_deposits import ContainerDepot
from dicom_assets.landing.container_moves import ContainerMover
from dicom_assets.landing.globs import matcher
from dicom_assets.landing.inventory import Inventory
from dicom_assets.landing.store import (
    LISTING,
    ObjectArchived,
    ObjectError,
    ObjectRef,
    OpenObject,
    PassedOver,
    SourceUnavailable,
    pass_over,
)
from dicom_assets.settings import SourceSettings
from dicom_assets.storage.azure import (
    RETRY_SECONDS,
    AddressError,
    Failure,
    Place,
    container_client,
    failures,
    object_store,
    parse,
    parse_folder,
    reason,
    status_of,
)

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient
    from obstore.store import AzureStore

IN_FLIGHT = 48
"""First ranges on the way at once."""
FIRST_RANGE = 128 * 1024
"""What a first read for a header fetches: 99.4 % of the headers fit, 81 % fit into half of it."""
GROWTH = 4
PREFIX_MOST = 8 * 2**20
"""Bytes from the beginning of a blob that are kept; beyond them only a window is."""
WINDOW_LEAST = 32 * 1024
WINDOW_MOST = 4 * 2**20
LISTING_ROWS = 10_000

LEFT_ALONE = r"(?:^|/)healthCheck/"
"""Folders of a DICOM service's own probes, written and deleted every half minute: never listed, never opened."""

READER = "Storage Blob Data Reader"

_PLAIN = re.compile(r"[A-Za-z0-9._~/()=,@+-]*").fullmatch
_ODD = re.compile(r"^/|//|/$|(?:^|/)\.\.?(?:/|$)").search
"""Names that obstore cannot say; the Azure SDK can."""


class AzureContainer:
    """A container, or a folder in one, as landing store."""

    def __init__(self, settings: SourceSettings) -> None:
        """Nothing is reached until `list` or `open_all`. ValueError when the root or a pattern is wrong."""
        self._name = settings.name
        self.place = parse_folder(settings.root)
        self._wanted = matcher(settings.include, settings.exclude)
        self._inventory = settings.inventory
        self._retry_seconds: float = RETRY_SECONDS

    def hurry(self, seconds: float) -> None:
        """Gives up after so long what cannot be read; see `store.HurriedStore`."""
        if seconds != self._retry_seconds:
            self._retry_seconds = seconds
            self.__dict__.pop("store", None)

    @property
    def name(self) -> str:
        """The source's name."""
        return self._name

    @cached_property
    def store(self) -> AzureStore:
        """The container."""
        return object_store(Place(self.place.account, self.place.container), self._retry_seconds)

    @cached_property
    def client(self) -> ContainerClient:
        """The container, as the Azure SDK sees it."""
        return container_client(self.place)

    def below_root(self, uri: str) -> str:
        """The path of a blob below the source's root."""
        return self._below(parse(uri).path)

    def _below(self, path: str) -> str:
        return path.removeprefix(f"{self.place.path}/") if self.place.path else path

    def serves(self, uri: str) -> bool:
        """Whether a blob lies in this source and its patterns want it."""
        mine, place = self.place, parse(uri)
        if (place.account, place.container) != (mine.account, mine.container):
            return False
        if mine.path and not place.path.startswith(f"{mine.path}/"):
            return False
        below = self._below(place.path)
        return re.search(LEFT_ALONE, below) is None and (self._wanted is None or self._wanted(below))

    def device(self) -> int | None:
        """None: a container is no file system."""
        return None

    @property
    def inventory(self) -> str | None:
        """Where reports lie that stand for the listing."""
        return self._inventory

    def mover(self) -> ContainerMover:
        """What moves blobs within the container."""
        return ContainerMover(self._name, self.place, self.client)

    def size_of(self, uri: str) -> int:
        """Length in bytes of a blob. Raises ObjectError."""
        path = parse(uri).path
        try:
            return int(self.client.get_blob_client(path).get_blob_properties().size)
        except failures() as error:
            raise self.object_error(error, path) from None

    def depot(self, *, synced: bool) -> ContainerDepot:
        """What puts blobs into the container; a blob is always on the disk."""
        return ContainerDepot(self._name, self.place, self.client)

    def list(self, *, passed_over: Callable[[PassedOver], None] = pass_over) -> Iterator[pa.RecordBatch]:
        """Everything that is there now, by name (schema LISTING); see `list_after`."""
        return self.list_after(None, passed_over=passed_over)

    def list_after(
        self, uri: str | None, *, passed_over: Callable[[PassedOver], None] = pass_over
    ) -> Iterator[pa.RecordBatch]:
        """What comes behind a blob by name (schema LISTING), everything for None.

        With an inventory, its newest report stands for the listing. Raises SourceUnavailable when any page of it cannot
        be had.
        """
        last = parse(uri).path if uri else None
        if self._inventory is not None:
            yield from self._list_inventory(last)
            return
        try:
            for page in self._pages(last):
                batch = self._rows(page)
                last = page.column("path")[-1].as_py()
                if len(batch):
                    yield batch
        except InvalidPathError:
            yield from self._list_odd(last)
        except failures() as error:
            raise self._unavailable(error) from None

    def _list_inventory(self, after: str | None) -> Iterator[pa.RecordBatch]:
        prefix = f"{self.place.path}/" if self.place.path else ""
        for page in Inventory(self._name, self._inventory or "").pages(self.place.container):
            rows = page.filter(pc.starts_with(page.column("path"), prefix))
            if after is not None:
                rows = rows.filter(pc.greater(rows.column("path"), after))
            batch = self._rows(rows)
            if len(batch):
                yield batch

    def _pages(self, after: str | None) -> Iterator[pa.RecordBatch]:
        pages = obstore.list(
            self.store, self.place.path or None, offset=after, chunk_size=LISTING_ROWS, return_arrow=True
        )
        for page in pages:
            rows = pa.record_batch(page)
            if after is not None:  # the emulator ignores where a listing is to start
                rows = rows.filter(pc.greater(rows.column("path"), after))
            if len(rows):
                yield rows

    def _list_odd(self, after: str | None) -> Iterator[pa.RecordBatch]:
        """The listing by the Azure SDK, slower, for containers with names such as `a//b`."""
        prefix = f"{self.place.path}/" if self.place.path else None
        try:
            for page in self.client.list_blobs(prefix, results_per_page=5_000).by_page():
                blobs = [b for b in page if after is None or b.name > after]
                columns = {
                    "path": pa.array([b.name for b in blobs], pa.string()),
                    "last_modified": pa.array([b.last_modified for b in blobs], LISTING.field("modified_at").type),
                    "size": pa.array([b.size for b in blobs], pa.int64()),
                    "e_tag": pa.array([b.etag for b in blobs], pa.string()),
                }
                batch = self._rows(pa.record_batch(columns))
                if len(batch):
                    yield batch
        except failures() as error:
            raise self._unavailable(error) from None

    def _rows(self, page: pa.RecordBatch) -> pa.RecordBatch:
        """A page of blobs as rows of a listing, those that are wanted."""
        page = page.filter(pc.invert(pc.match_substring_regex(page.column("path"), LEFT_ALONE)))
        if self._wanted is not None:
            keep = [self._wanted(self._below(path)) for path in page.column("path").to_pylist()]
            page = page.filter(pa.array(keep, pa.bool_()))
        columns = {
            "uri": pa.array(uris(self.place, page.column("path").to_pylist()), pa.string()),
            "etag": pc.utf8_trim(page.column("e_tag").cast(pa.string()), '"'),
            "size": page.column("size"),
            "modified_at": page.column("last_modified"),
        }
        return pa.RecordBatch.from_arrays([columns[f.name].cast(f.type) for f in LISTING], schema=LISTING)

    def open_all(self, objects: Sequence[ObjectRef], first_bytes: int) -> Iterator[OpenObject | ObjectError]:
        """Opens blobs in this order, one result each; IN_FLIGHT first ranges are fetched ahead.

        first_bytes: what is fetched first; FIRST_RANGE where it is more than is needed to tell what a blob is.
        """
        first = first_bytes if first_bytes < 2**16 else max(first_bytes, FIRST_RANGE)
        waiting: deque[tuple[ObjectRef, str, Future[bytes] | None]] = deque()
        left = iter(objects)
        try:
            while True:
                while len(waiting) < IN_FLIGHT and (claimed := next(left, None)) is not None:
                    waiting.append(self._begin(claimed, first))
                if not waiting:
                    return
                claimed, path, future = waiting.popleft()
                yield self._opened(claimed, path, future, first)
        finally:
            for _, _, future in waiting:
                if future is not None:
                    future.cancel()

    def open_for_ranges(self, claimed: ObjectRef) -> AzureObject:
        """The blob, nothing of it fetched yet: that it is there and what was claimed, the first read shows."""
        return AzureObject(self, parse(claimed.uri).path, claimed)

    def _begin(self, claimed: ObjectRef, first: int) -> tuple[ObjectRef, str, Future[bytes] | None]:
        path = parse(claimed.uri).path
        if _ODD(path):
            return claimed, path, None
        until = min(first, claimed.size)
        return claimed, path, asyncio.run_coroutine_threadsafe(_fetch(self.store, path, claimed.etag, until), _loop())

    def _opened(
        self, claimed: ObjectRef, path: str, future: Future[bytes] | None, first: int
    ) -> OpenObject | ObjectError:
        opened = AzureObject(self, path, claimed)
        try:
            if future is None:
                opened.read(0, min(first, claimed.size))
            else:
                opened.prefix = future.result()
                opened.fetched = len(opened.prefix)
        except ObjectError as error:
            return error
        except failures() as error:
            return self.object_error(error, path)
        return opened

    def object_error(self, error: Failure, path: str) -> ObjectError:
        """The outcome of a blob that cannot be read; what the library says stays behind, it names the blob."""
        status = status_of(error)
        if status == 412:
            # A blob that is gone may be answered like one that was replaced: it, too, is not of that etag.
            try:
                self.client.get_blob_client(path).get_blob_properties()
            except failures() as failure:
                return self.object_error(failure, path)
            return ObjectError("CHANGED_DURING_READ", "The blob's etag is not what was claimed.")
        text = str(error)
        if status == 404:
            if "ContainerNotFound" in text:
                return ObjectError("SOURCE_UNAVAILABLE", f"The container of source '{self._name}' is not there.")
            return ObjectError("OBJECT_GONE", "The blob is not there any more.")
        if "BlobArchived" in text:
            return ObjectArchived("archive")
        return ObjectError("READ_FAILED", reason(error, READER))

    def _unavailable(self, error: Failure) -> SourceUnavailable:
        where = f"container {self.place.container} of account {self.place.account}"
        if status_of(error) == 404:
            return SourceUnavailable(f"Source '{self._name}': {where} is not there. Create it, or correct the root.")
        return SourceUnavailable(f"Source '{self._name}': {where} cannot be listed ({reason(error, READER)}).")


class AzureObject:
    """One blob, read by ranges of the version that was claimed.

    prefix: its bytes from the beginning as far as they were fetched. fetched: bytes fetched in all.
    """

    __slots__ = ("_claimed", "_container", "_path", "_window", "_window_at", "fetched", "prefix")

    def __init__(self, container: AzureContainer, path: str, claimed: ObjectRef) -> None:
        """Fetches nothing yet."""
        self._container = container
        self._path = path
        self._claimed = claimed
        self._window, self._window_at = b"", 0
        self.prefix = b""
        self.fetched = 0

    @property
    def size(self) -> int:
        """Length in bytes as claimed."""
        return self._claimed.size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer only at the end.

        ObjectError: CHANGED_DURING_READ when the blob was replaced, OBJECT_GONE, READ_FAILED.
        """
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        have = len(self.prefix)
        if end > have and offset <= have and end <= PREFIX_MOST:
            wanted = min(max(end, GROWTH * have), self.size, PREFIX_MOST)
            self.prefix += self._fetch(have, wanted)
            have = len(self.prefix)
        if end <= have:
            return self.prefix[offset:end]
        return self._from_window(offset, end)

    def _from_window(self, offset: int, end: int) -> bytes:
        at, window = self._window_at, self._window
        if at <= offset and end <= at + len(window):
            return window[offset - at : end - at]
        # Reads that follow one another fetch more and more at once; a jump begins small again.
        follows = bool(window) and at <= offset <= at + len(window)
        ahead = min(GROWTH * len(window), WINDOW_MOST) if follows else WINDOW_LEAST
        self._window = self._fetch(offset, min(max(end, offset + ahead), self.size))
        self._window_at = offset
        return self._window[: end - offset]

    def _fetch(self, start: int, end: int) -> bytes:
        try:
            if _ODD(self._path):
                from azure.core import MatchConditions  # here alone: a lake in a folder does without

                stream = self._container.client.download_blob(
                    self._path,
                    offset=start,
                    length=end - start,
                    etag=f'"{self._claimed.etag}"',
                    match_condition=MatchConditions.IfNotModified,
                )
                data = bytes(stream.readall())
            else:
                options: Any = {"range": (start, end), "if_match": self._claimed.etag}
                data = bytes(obstore.get(self._container.store, self._path, options=options).bytes())
        except failures() as error:
            raise self._container.object_error(error, self._path) from None
        if len(data) != end - start:
            raise ObjectError("READ_FAILED", "The storage sent fewer bytes than it said.")
        self.fetched += len(data)
        return data

    def verify(self) -> None:
        """Nothing is left to compare: every read has named the etag that was claimed."""

    def close(self) -> None:
        """Lets go of what was fetched."""
        self.prefix, self._window = b"", b""


async def _fetch(store: AzureStore, path: str, etag: str, until: int) -> bytes:
    """The first bytes of a blob; an empty one is asked for whole, since it has no range."""
    options: Any = {"if_match": etag} | ({"range": (0, until)} if until else {})
    result = await obstore.get_async(store, path, options=options)
    return bytes(await result.bytes_async())


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process's reading, on a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="blob-reading", daemon=True).start()
    return loop


def uris(place: Place, paths: Iterable[str]) -> list[str]:
    """URIs of blobs in the container of `place`, from their full paths."""
    head = f"az://{place.account}/{place.container}/"
    return [head + path if _PLAIN(path) else Place(place.account, place.container, path).url for path in paths]


__all__ = ["AddressError", "AzureContainer", "AzureObject", "uris"]
