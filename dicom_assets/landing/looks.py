"""Looks at a source: what the last one found, and whether what a new one finds is too little to be true.

Belongs here: the memory of the last look, the one pure function that compares two looks, and a listing that is
compared when it comes to its end. Does not belong here: what is claimed (`claims`), what a batch does meanwhile
(`batch.presence`).

A mount that is away leaves its empty mountpoint behind, which lists without an error: nothing would be there, and
everything claimed would be gone. So the last look of each source is remembered in the lake as a few numbers and the
digests of some uris, and a look that finds far less is not believed until a person has confirmed it.

Counts are compared, not names: objects that are replaced by others, or go one by one, are no loss, since each look
that is believed becomes the measure of the next. Only where the root lies on another file system than before is it
asked whether some of the same objects are there, because a mount may have another number each time. A listing that
was not complete says nothing, and neither does one that was made with other patterns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dicom_assets.landing.store import LandingStore, PassedOver, SourceUnavailable
from dicom_assets.settings import ClaimingSettings, SourceSettings
from dicom_assets.storage.files import LakeFiles

FOLDER = "_looks"
SAMPLE = 64
"""Uris of a look of which digests are kept."""


class SourceEmptied(SourceUnavailable):
    """A source can be listed, and holds so little of what it held that it is not believed."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a complete listing of a source found.

    objects: how many. at: when, in ISO form. device: number of the file system of the root; None where there is none.
    scope: digest of what decides which objects are listed. passed_over: places that could not be listed. sample:
    digests of up to SAMPLE of the uris.
    """

    objects: int
    at: str
    device: int | None
    scope: str
    passed_over: int = 0
    sample: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Left:
    """Objects that a round of claiming saw and did not claim: they may still be written, or wait for more to come.

    since: when the first of a row of rounds left some and claimed none, in ISO form.
    """

    objects: int
    since: str


@dataclass(frozen=True, slots=True)
class Memory:
    """What is kept of a source.

    believed: the last look that was believed. doubted: the newest look, when it was not. told: digest of the places
    that were passed over and are entered in `ingestion_errors`; unread: how many those are. cut: where a listing that
    goes on with the next tick has come to, and the objects before that. left: what the last round of claiming saw and
    did not claim.
    """

    believed: Look | None = None
    doubted: Look | None = None
    told: str = ""
    unread: int = 0
    cut: tuple[str, int] | None = None
    left: Left | None = None


class Limits(NamedTuple):
    """What may be missing: a share of what was there, and a number below which the share does not count."""

    share: float
    minimum: int


def limits_of(source: SourceSettings, claiming: ClaimingSettings) -> Limits:
    """The limits of a source: its own share, or that of all."""
    share = claiming.missing_share if source.missing_share is None else source.missing_share
    return Limits(share, claiming.missing_minimum)


def scope_of(source: SourceSettings) -> str:
    """Digest of the settings that decide which objects are listed."""
    decisive = source.model_dump_json(include={"root", "include", "exclude", "mode", "inventory", "follow_links"})
    return hashlib.blake2b(decisive.encode(), digest_size=8).hexdigest()


def looks_emptied(before: Look | None, now: Look, limits: Limits, *, moved: int = 0, kept: float | None = None) -> bool:
    """Whether a look finds too little of what the one before found; pure.

    moved: objects that were moved away by ourselves since. kept: share of the sample of `before` that is there; None
    where it was not looked for.
    """
    if before is None or before.scope != now.scope or limits.share >= 1:
        return False
    if now.passed_over > before.passed_over:
        return False  # what lies below a folder that cannot be listed is not missing
    had = before.objects - moved
    missing = had - now.objects
    if had <= 0:
        return False
    if now.objects == 0:
        return True
    if before.device != now.device and kept is not None and not moved:
        return 1 - kept > limits.share
    return missing >= limits.minimum and missing > limits.share * had


class Looks:
    """The looks at the sources of one lake.

    emptied: what was found of sources that this process has looked at, as a sentence; those that are as they should be
    are not among them.
    """

    def __init__(self, files: LakeFiles) -> None:
        """Nothing is read yet."""
        self._files = files
        self.emptied: dict[str, str] = {}
        self.passed_over: dict[str, int] = {}

    def memory(self, source: str) -> Memory:
        """What is kept of a source; what cannot be read is as if it were not there. Raises LakeError."""
        try:
            kept = json.loads(self._files.get(_path(source)))
            looks = {
                name: Look(**{**kept[name], "sample": tuple(kept[name]["sample"])}) if kept.get(name) else None
                for name in ("believed", "doubted")
            }
            cut = kept.get("cut")
            end = (str(cut[0]), int(cut[1])) if cut else None
            left = Left(**kept["left"]) if kept.get("left") else None
            return Memory(looks["believed"], looks["doubted"], kept["told"], kept["unread"], end, left)
        except (FileNotFoundError, ValueError, TypeError, KeyError, IndexError):
            return Memory()

    def remember(self, source: str, memory: Memory) -> None:
        """Keeps what is known of a source. Raises LakeError."""
        self._files.put(_path(source), json.dumps(asdict(memory)).encode())

    def sources(self) -> list[str]:
        """Every source that was looked at."""
        names = self._files.names(f"{FOLDER}/sources")
        return [name.rsplit("/", 1)[1].removesuffix(".json") for name in names]

    def is_emptied(self, source: str) -> bool:
        """Whether the newest look at a source was not believed."""
        return self.memory(source).doubted is not None

    def note_move(self, source: str, batch_id: str, objects: int) -> None:
        """Before objects of a batch are moved out of sight by ourselves: so many are not missing. Raises LakeError."""
        self._files.put(_moved_path(source, batch_id), f"{objects} moving".encode())

    def note_move_done(self, source: str, batch_id: str, objects: int) -> None:
        """When they are moved: the next look need not know of them any more. Raises LakeError."""
        self._files.put(_moved_path(source, batch_id), f"{objects} moved".encode())

    def moves(self, source: str) -> dict[str, tuple[int, bool]]:
        """By batch: objects that were moved since the last look, and whether that is done."""
        found: dict[str, tuple[int, bool]] = {}
        for name in self._files.names(f"{FOLDER}/moved/{source}"):
            try:
                number, state = self._files.get(name).split()
            except (FileNotFoundError, ValueError):
                continue
            found[name.rsplit("/", 1)[1]] = (int(number), state == b"moved")
        return found

    def forget_moves(self, source: str, batches: Iterable[str]) -> None:
        """Forgets moves that a look has seen done."""
        for batch_id in batches:
            self._files.delete(_moved_path(source, batch_id))

    def wait(self, batch_id: str, run_id: str) -> None:
        """Notes a batch whose run was refused, so that it is run again by itself. Raises LakeError."""
        self._files.put(f"{FOLDER}/waiting/{batch_id}/{run_id}", b"")

    def waiting(self) -> dict[str, str]:
        """Batches that wait for their source, each with its last refused run."""
        return dict(name.split("/")[-2:] for name in self._files.names(f"{FOLDER}/waiting"))

    def wait_no_more(self, batch_id: str) -> None:
        """Forgets that a batch waits. Raises LakeError."""
        self._files.delete(f"{FOLDER}/waiting/{batch_id}")


def _path(source: str) -> str:
    return f"{FOLDER}/sources/{source}.json"


def _moved_path(source: str, batch_id: str) -> str:
    return f"{FOLDER}/moved/{source}/{batch_id}"


def sentence(source: str, believed: Look, doubted: Look) -> str:
    """What is doubtful about a source, in counts, and what to do about it."""
    return (
        f"Source '{source}' looks emptied: {counts(believed, doubted)}. Nothing of it is called gone, and its open "
        "batches wait. See that it is mounted, or as full as it should be; if this is how it should be: "
        f"{CONFIRM} {source}"
    )


CONFIRM = "dicom-assets source confirm"
"""Takes what a source holds now as what it is to hold; its name follows."""


def counts(believed: Look, doubted: Look) -> str:
    """What two looks found, as a part of a sentence."""
    elsewhere = " on another file system" if believed.device != doubted.device else ""
    return (
        f"{believed.objects} objects were found on {believed.at[:19]}Z, and {doubted.objects} on {doubted.at[:19]}Z"
        f"{elsewhere}"
    )


Listing = Callable[[], Iterator[pa.RecordBatch]]


@dataclass
class Watch:
    """A listing of a source that is compared with the last look when it comes to its end, and then remembered.

    listing: instead of the whole source. begins_at: what it begins behind; None or "" for the beginning. ends_at: what
    it was cut behind, asked for at its end. Called, it lists anew: raises SourceEmptied at the end, before what was
    listed is claimed, unless `confirming`. passed_over: places that could not be listed; told, left: see Memory.
    found: what the look came to; None when it was not complete. grows: called as soon as more is listed than the last
    look has found, so that something is new.
    """

    store: LandingStore
    looks: Looks
    source: SourceSettings
    limits: Limits
    listing: Listing | None = None
    begins_at: str | None = None
    ends_at: Callable[[], str | None] = lambda: None
    confirming: bool = False
    grows: Callable[[], None] = lambda: None
    passed_over: list[PassedOver] = field(default_factory=list)
    found: Look | None = None
    told: str = ""
    left: Left | None = None

    def __call__(self) -> Iterator[pa.RecordBatch]:
        """The listing, anew."""
        name = self.source.name
        memory = self.looks.memory(name)
        moves = self.looks.moves(name) if self.source.mode == "organize" else {}
        self.passed_over.clear()
        self.found, self.told, self.left = None, memory.told, memory.left
        device = self.store.device()
        objects = self._before(memory)
        asked = memory.believed is not None and memory.believed.device != device
        sample, held = _Sample(), _Held(memory.believed.sample if asked and memory.believed else ())
        known = memory.believed.objects if memory.believed is not None else 0
        for batch in (self.listing or self._list)():
            if objects is not None:
                if objects <= known < objects + len(batch):
                    self.grows()
                objects += len(batch)
            sample.add(batch)
            held.add(batch)
            yield batch
        if self.store.device() != device:
            raise SourceUnavailable(f"Source '{name}': another file system took its place while it was listed.")
        if objects is None:
            return
        cut = self.ends_at()
        if cut is not None:
            self.looks.remember(name, replace(memory, cut=(cut, objects)))
            return
        whole = not self.begins_at
        look = Look(
            objects,
            datetime.now(UTC).isoformat(),
            device,
            scope_of(self.source),
            len(self.passed_over),
            sample.digests() if whole else (),
        )
        self._judge(memory, look, moves, held.share if asked and whole else None)

    def _list(self) -> Iterator[pa.RecordBatch]:
        return self.store.list(passed_over=self.passed_over.append)

    def _before(self, memory: Memory) -> int | None:
        """Objects that are known to lie before what is listed; None when that is not known."""
        if not self.begins_at:
            return 0
        return memory.cut[1] if memory.cut is not None and memory.cut[0] == self.begins_at else None

    def _judge(self, memory: Memory, look: Look, moves: dict[str, tuple[int, bool]], kept: float | None) -> None:
        name = self.source.name
        moved = sum(number for number, _ in moves.values())
        self.found = look
        self.looks.passed_over[name] = look.passed_over
        if not self.confirming and looks_emptied(memory.believed, look, self.limits, moved=moved, kept=kept):
            believed = memory.believed
            if believed is None:
                raise AssertionError("nothing can be missing before the first look")
            self.looks.remember(name, replace(memory, doubted=look, cut=None))
            self.looks.emptied[name] = sentence(name, believed, look)
            raise SourceEmptied(self.looks.emptied[name])
        self.looks.emptied.pop(name, None)
        believed = memory.believed
        if believed is not None and not self.confirming and look.passed_over > believed.passed_over:
            look = replace(look, objects=max(look.objects, believed.objects), passed_over=believed.passed_over)
        same = memory.believed is not None and replace(memory.believed, at="", sample=()) == replace(
            look, at="", sample=()
        )
        if not same or memory.doubted is not None or memory.cut is not None or self.confirming:
            self.looks.remember(name, replace(memory, believed=look, doubted=None, cut=None))
        self.looks.forget_moves(name, [batch for batch, (_, done) in moves.items() if done])


class _Sample:
    """Some of the uris that are listed, each as likely as any other."""

    def __init__(self) -> None:
        self._chance = np.random.default_rng(0)
        self._drawn: list[tuple[float, str]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        numbers = self._chance.random(len(batch))
        least = np.argpartition(numbers, SAMPLE)[:SAMPLE] if len(batch) > SAMPLE else np.arange(len(batch))
        uris = batch.column("uri").take(pa.array(least)).to_pylist()
        self._drawn = sorted([*self._drawn, *zip(numbers[least].tolist(), uris, strict=True)])[:SAMPLE]

    def digests(self) -> tuple[str, ...]:
        return tuple(digest(uri) for _, uri in self._drawn)


class _Held:
    """Which of some uris are listed again; nothing is looked for when there are none."""

    def __init__(self, digests: Iterable[str]) -> None:
        self._wanted = set(digests)
        self._all = len(self._wanted)

    def add(self, batch: pa.RecordBatch) -> None:
        if self._wanted:
            self._wanted.difference_update(map(digest, batch.column("uri").to_pylist()))

    @property
    def share(self) -> float | None:
        return 1 - len(self._wanted) / self._all if self._all else None


def digest(uri: str) -> str:
    """What a look keeps of a uri."""
    return hashlib.blake2b(uri.encode(), digest_size=8).hexdigest()
