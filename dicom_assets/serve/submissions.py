"""What is stored here and where to, for as long as one process serves: sources, their layouts, and what came last.

Belongs here: which source a request stores into, and whether it may; what this process has put that the lake does not
have yet. Does not belong here: what the lake has (`current_objects`), the request and its answer (`storing`).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import anyio
import anyio.to_thread

from dicom_assets.landing.deposits import Deposit, Depot, DepotStore, Layout, Spool, claim_tree, layout_of
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import LandingStore, partition_source
from dicom_assets.serve.problems import Refusal, not_found
from dicom_assets.settings import Settings

T = TypeVar("T")

REMEMBERED = 50_000
"""Objects that were put here and that the lake may not have yet; of more, the oldest are forgotten."""
_THREADS = 4

OFF = "Storing is not switched on here: `store` of a source does it."
FOREIGN_TREE = "Storing is refused: the tree that would be written to was made by somebody else."
READ_ONLY = {"Allow": "GET, HEAD, OPTIONS"}

Identity = tuple[str, str, str]
"""Study, Series and SOP Instance UID."""


def identity_digest(source: str, identity: Identity) -> bytes:
    """What an object is called by in names of files: BLAKE2b-128 of its source and UIDs."""
    return hashlib.blake2b("\0".join((source, *identity)).encode("utf-8", "surrogateescape"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Put:
    """The newest object of some UIDs that was put here. content: digest of its bytes."""

    content: bytes
    deposit: Deposit


@dataclass(frozen=True)
class Goal:
    """Where a request stores to.

    source: as rows have it, the partition behind it. partition: as the tree has it; None for the default one.
    """

    source: str
    partition: str | None
    store: LandingStore
    depot: Depot
    layout: Layout

    def put(self, spool: Spool, identity: Identity, number: int = 0) -> tuple[str, Deposit | None]:
        """Puts an object; its path, and None when something is there already. Raises SourceUnavailable."""
        path = self.layout.path(
            self.partition, identity_digest(self.source, identity), spool.digest, datetime.now(UTC), number
        )
        return path, self.depot.put(spool, path)

    def has_family(self, identity: Identity) -> bool:
        """Whether somebody has put an object of these UIDs today, as far as names tell. Raises SourceUnavailable."""
        begin = self.layout.family(identity_digest(self.source, identity), datetime.now(UTC))
        return begin is not None and self.depot.begins(begin)


class Submissions:
    """What one process stores into the sources of a lake."""

    def __init__(self) -> None:
        """Nothing is reached yet."""
        self._opened: dict[str, tuple[LandingStore, Depot]] = {}
        self._put: OrderedDict[bytes, Put] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = anyio.CapacityLimiter(_THREADS)
        self.under_way = 0

    def goal(self, settings: Settings, name: str) -> Goal:
        """Where objects of a source are put, by what `source_of_request` gave; blocks while the source is reached.

        Raises Refusal when its tree is somebody else's, SourceUnavailable.
        """
        base, _, partition = name.partition("/")
        source = settings.source(base)
        layout = layout_of(source)
        with self._lock:
            opened = self._opened.get(base)
        if opened is None:
            store = open_store(source)
            assert isinstance(store, DepotStore)
            opened = store, store.depot(synced=settings.storage.survive_power_cuts)
            claim_tree(opened[1], layout, lambda: Refusal(403, FOREIGN_TREE))
            with self._lock:
                self._opened[base] = opened
        called = partition_source(base, partition) if partition else base
        return Goal(called, partition or None, *opened, layout)

    def last(self, key: bytes) -> Put | None:
        """What was put last here, by the `identity_digest`."""
        with self._lock:
            return self._put.get(key)

    def remember(self, key: bytes, put: Put) -> None:
        """Notes what was put, unless something newer is known."""
        with self._lock:
            known = self._put.get(key)
            if known is None or known.deposit.at <= put.deposit.at:
                self._put[key] = put
                self._put.move_to_end(key)
            while len(self._put) > REMEMBERED:
                self._put.popitem(last=False)

    async def work(self, function: Callable[[], T]) -> T:
        """What a function that blocks gives, called in a thread; it is never left behind half done."""
        return await anyio.to_thread.run_sync(function, limiter=self._threads)


def source_of_request(settings: Settings, source: str | None) -> str:
    """The name of the source that a request stores to, the partition behind it.

    source: of the request's path, None for none. Raises Refusal: 405 where storing is off, 404 for a source or a
    partition that cannot be, 400 where several could be meant.
    """
    stored_to = [one for one in settings.sources if one.store is not None]
    if not stored_to:
        raise Refusal(405, OFF, READ_ONLY)
    if source is None:
        if len(stored_to) > 1:
            raise Refusal(400, "Several sources can be stored to: name one, as /dicom-web/{source}/studies.")
        return stored_to[0].name
    name, separator, partition = source.partition("/")
    found = next((one for one in settings.sources if one.name == name), None)
    if found is None:
        raise not_found("source")
    if found.store is None:
        raise Refusal(405, OFF, READ_ONLY)
    if separator and not layout_of(found).has_partition(partition):
        raise not_found("partition")
    return source


def is_partition_to_be(settings: Settings, source: str) -> bool:
    """Whether a name is one of a data partition that may be stored to, be there anything in it or not."""
    name, separator, partition = source.partition("/")
    found = next((one for one in settings.sources if one.name == name), None)
    return bool(separator) and found is not None and found.store == "tree" and layout_of(found).has_partition(partition)
