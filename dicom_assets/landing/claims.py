"""Claims: which objects are new, and the batches made from them.

Belongs here: `plan`, the one pure function that decides, and the claim log, the durable record that it decides from.
The log is a row of numbered files that are written once and never changed: whoever writes number n + 1 first has it,
so two claimers never claim the same object, and a claim is there whole or not at all. An object is claimed once, and
again only when its batch has returned it (`returns`), or when it lies again where another one was claimed since
(`restorations`). Does not belong here: Dagster's partitions, which follow from the log and are never asked; when few
objects wait for more to come (`pace`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.landing.claim_index import Claim as Claim
from dicom_assets.landing.claim_index import ClaimedIds as ClaimedIds
from dicom_assets.landing.claim_index import Summary, ids_of_digests, pack_ids, summarise, unpack_ids
from dicom_assets.landing.pace import Arrivals, claim_from, recent_rounds
from dicom_assets.landing.refusals import NOTHING_REFUSED, Refusals, refusals
from dicom_assets.landing.restorations import Restorations
from dicom_assets.landing.returns import ReturnLog
from dicom_assets.landing.store import LandingStore, object_digests
from dicom_assets.schema.registry import OWN
from dicom_assets.settings import ClaimingSettings
from dicom_assets.storage.files import LakeFiles, TornFile

FOLDER = "_claims"
MANIFEST = pa.schema(
    [
        *(
            OWN[name].field
            for name in ("batch_id", "object_id", "source", "uri", "etag", "size", "modified_at", "claimed_at")
        ),
        pa.field("attempt", pa.int64()),
        pa.field("batch_kind", pa.string()),
        pa.field("read_in", pa.string()),
    ]
)
"""Columns of a batch's manifest: the objects as they were listed when they were claimed.

attempt: 1 for an object that was never claimed before; one more each time that a batch has returned it. batch_kind: see
`BatchKind`, the same in each row. read_in: of a batch of kind `reread`, the batch that had read the object before.
"""


class BatchKind(StrEnum):
    """Why a batch was claimed: its objects are new, or the lake has them and they are to be read again, or are gone."""

    ARRIVAL = "arrival"
    REREAD = "reread"
    DELETE = "delete"


def with_defaults(rows: pa.Table) -> pa.Table:
    """Rows of a claim with the columns that a release before this one did not write."""
    defaults = {"attempt": 1, "batch_kind": str(BatchKind.ARRIVAL), "read_in": None}
    for name, value in defaults.items():
        if name not in rows.column_names:
            field = MANIFEST.field(name)
            rows = rows.append_column(field, pa.repeat(pa.scalar(value, field.type), len(rows)))
    return rows.select(MANIFEST.names)


_KNOWN_BY = ["batch_id", "object_id", "source", "claimed_at", "attempt"]
"""What is read of a claim to know it."""

SUMMARISE_AFTER = 100
"""Claims after which their summary is made anew."""

_FUTURE = timedelta(minutes=1)


class UnknownBatch(LookupError):
    """No batch of this id was claimed in this lake."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to claim now.

    batches: manifests without batch_id, at most the number asked for. waiting: new objects that may still be written.
    quiet_at: when the last of them is old enough. more: whether new objects are left for the next time. oldest: time of
    the oldest new object, in a batch or waiting.
    """

    batches: tuple[pa.Table, ...]
    waiting: int
    quiet_at: datetime | None
    more: bool
    oldest: datetime | None = None

    @property
    def arrivals(self) -> Arrivals:
        """What is new, as far as its pace is concerned."""
        return Arrivals(sum(map(len, self.batches)), self.waiting, self.oldest)


def plan(
    source: str,
    listing: Iterable[pa.RecordBatch],
    claimed: ClaimedIds,
    now: datetime,
    settings: ClaimingSettings,
    absent: Mapping[str, int] = MappingProxyType({}),
    restorations: Restorations | None = None,
    erased: Refusals = NOTHING_REFUSED,
) -> Plan:
    """Decides what is new and makes batches of it; pure.

    absent: claimed objects that their batch did not find and that are claimed again when they are listed, with how
    often they were claimed. restorations: finds claimed objects that lie again where another one was claimed since.
    erased: objects that are never claimed though they are listed.

    listing: batches of `landing.store.LISTING`, folder by folder. A folder stays in one batch where it fits. An object
    younger than the quiet period waits, unless its time lies in the future, which only a wrong clock writes.
    """
    bound = settings.batch_objects
    wanted = settings.batches_per_tick
    quiet_before = now - timedelta(seconds=settings.quiet_seconds)
    made: list[pa.Table] = []
    current: list[pa.Table] = []
    held, waiting, more = 0, 0, False
    quiet_at: datetime | None = None
    oldest: datetime | None = None
    for part in listing:
        fresh = _new_objects(source, part, claimed, absent, restorations)
        if erased.objects and len(fresh):
            fresh = fresh.filter(pa.array(erased.claims(fresh["object_id"].to_pylist())))
        if not len(fresh):
            continue
        first = pc.min(fresh["modified_at"]).as_py()
        oldest = first if oldest is None else min(oldest, first or oldest)
        young = pc.and_(
            pc.greater(fresh["modified_at"], pa.scalar(quiet_before, OWN["modified_at"].type)),
            pc.less(fresh["modified_at"], pa.scalar(now + _FUTURE, OWN["modified_at"].type)),
        )
        young = pc.fill_null(young, False)  # a storage that tells no time cannot make an object wait
        late = fresh.filter(young)
        if len(late):
            waiting += len(late)
            last = pc.max(late["modified_at"]).as_py() + timedelta(seconds=settings.quiet_seconds)
            quiet_at = last if quiet_at is None else max(quiet_at, last)
        for folder in _folders(fresh.filter(pc.invert(young))):
            if held and held + len(folder) > bound:
                made.append(pa.concat_tables(current))
                current, held = [], 0
            while held + len(folder) > bound:
                room = bound - held
                made.append(pa.concat_tables([*current, folder.slice(0, room)]))
                folder, current, held = folder.slice(room), [], 0
            if len(folder):
                current.append(folder)
                held += len(folder)
        if len(made) > wanted or (len(made) == wanted and held):
            more = True
            break
    if held:
        made.append(pa.concat_tables(current))
    more = more or len(made) > wanted
    stamped = tuple(stamp(table, source, now) for table in made[:wanted])
    return Plan(stamped, waiting, quiet_at, more, oldest)


def _new_objects(
    source: str, part: pa.RecordBatch, claimed: ClaimedIds, absent: Mapping[str, int], restorations: Restorations | None
) -> pa.Table:
    ids = ids_of_digests(object_digests(source, part.column("uri"), part.column("etag")))
    missing = claimed.lacks(ids)
    before = dict(absent)
    if restorations is not None:
        before |= restorations.restored(part.column("uri"), ids, missing)
    if before:
        missing |= np.isin(ids, pack_ids(pa.array(list(before), pa.string())))
    names = unpack_ids(ids[missing])
    attempts = pa.array(
        [before.get(one, 0) + 1 for one in names.to_pylist()] if before else [1] * len(names), pa.int64()
    )
    fresh = pa.Table.from_batches([part.filter(pa.array(missing))])
    return fresh.append_column("object_id", names).append_column("attempt", attempts)


def _folders(objects: pa.Table) -> Iterator[pa.Table]:
    """Runs of objects that lie in the same folder."""
    if not len(objects):
        return
    folders = pc.replace_substring_regex(objects["uri"], r"[^/]*$", "").combine_chunks()
    changes = np.flatnonzero(np.asarray(pc.not_equal(folders[1:], folders[:-1]))) + 1
    edges = [0, *changes.tolist(), len(objects)]
    for start, end in pairwise(edges):
        yield objects.slice(start, end - start)


def stamp(objects: pa.Table, source: str, now: datetime, kind: str = BatchKind.ARRIVAL) -> pa.Table:
    """A manifest without batch_id. objects: object_id, uri, etag, size, modified_at, attempt, and read_in if any."""
    size = len(objects)
    columns = {
        "read_in": objects["read_in"] if "read_in" in objects.column_names else pa.nulls(size, pa.string()),
        "source": pa.array([source] * size),
        "batch_kind": pa.array([str(kind)] * size, pa.string()),
        "claimed_at": pa.array([now] * size, OWN["claimed_at"].type),
        **{name: objects[name] for name in ("object_id", "uri", "etag", "size", "modified_at", "attempt")},
    }
    schema = pa.schema([field for field in MANIFEST if field.name != "batch_id"])
    return pa.table([columns[name] for name in schema.names], schema=schema)


def batch_id(manifest: pa.Table) -> str:
    """Sortable id of a batch: UTC time of its claim, then a fingerprint of its objects and of their attempts."""
    claimed_at = manifest["claimed_at"][0].as_py().astimezone(UTC)
    digest = hashlib.blake2b(digest_size=4)
    if BatchKind.REREAD in manifest["batch_kind"].slice(0, 1).to_pylist():  # the same objects may be read again soon
        digest.update(f"{BatchKind.REREAD} {claimed_at:%f}".encode())
    for one, attempt in zip(manifest["object_id"].to_pylist(), manifest["attempt"].to_pylist(), strict=True):
        digest.update(one.encode() if attempt == 1 else f"{one}.{attempt}".encode())
    return f"{claimed_at:%Y%m%dT%H%M%SZ}-{digest.hexdigest()}"


class ClaimLog:
    """The claims of one lake: `_claims/000000000001.parquet` and on, one batch each."""

    def __init__(self, files: LakeFiles) -> None:
        """A log among the lake's files."""
        self._files = files
        self._summary: Summary | None = None
        self._known: dict[str, Claim] = {}
        self._ids: dict[str, pa.ChunkedArray] = {}
        self._attempts: dict[str, int] = {}
        self.returns = ReturnLog(files)

    def _paths(self) -> list[str]:
        """The claims that came after the summary."""
        after = _path(self._summarised().number)
        return [name for name in self._files.names(FOLDER, after) if name.endswith(".parquet")]

    def _summarised(self) -> Summary:
        """The newest summary when this log was first read; its claims are known without being read."""
        if self._summary is None:
            self._summary = Summary(self._files)
            self._known = {claim.path: claim for claim in self._summary.claims} | self._known
        return self._summary

    def claims(self) -> list[Claim]:
        """Every claim, oldest first."""
        for path in self._paths():
            if path not in self._known:
                self._remember(path, read_claim(self._files, path, _KNOWN_BY))
        return sorted(self._known.values(), key=lambda claim: claim.path)

    def claimed_ids(self, source: str) -> ClaimedIds:
        """The object_ids claimed from one source."""
        try:
            return self._claimed(source)
        except FileNotFoundError:  # a newer summary has replaced the one that this log began with
            self._forget()
            return self._claimed(source)

    def attempts(self) -> Mapping[str, int]:
        """How often objects were claimed that were claimed more than once, by object_id."""
        try:
            return self._all_attempts()
        except FileNotFoundError:
            self._forget()
            return self._all_attempts()

    def _all_attempts(self) -> Mapping[str, int]:
        self.claims()
        return {**self._summarised().attempts(), **self._attempts}

    def _forget(self) -> None:
        self._summary, self._known, self._ids, self._attempts = None, {}, {}, {}

    def refusals(self) -> Refusals:
        """What was erased and is not claimed again. Raises LakeError."""
        return refusals(self._files)

    def returned(self) -> pa.Table:
        """What batches have returned and is not claimed again (schema RETURNS)."""
        return self.returns.open(self.attempts())

    def _claimed(self, source: str) -> ClaimedIds:
        claims = self.claims()
        newer = (self._ids[claim.path] for claim in claims if claim.source == source and claim.path in self._ids)
        return ClaimedIds(newer, [self._summarised().ids(source)])

    def summarise(self) -> None:
        """Writes a summary when enough claims have come since the last one, for whoever opens the log next."""
        newest = len(self)
        if newest - self._summarised().number >= SUMMARISE_AFTER:
            claims = self.claims()[:newest]
            sources = {claim.source for claim in claims}
            ids = {source: self.claimed_ids(source) for source in sources}
            summarise(self._files, len(claims), claims, ids, self.attempts())

    def _remember(self, path: str, table: pa.Table) -> Claim:
        first = table.slice(0, 1).to_pylist()[0]
        claim = Claim(first["batch_id"], first["source"], len(table), first["claimed_at"], path)
        self._known[path], self._ids[path] = claim, table["object_id"]
        again = table.filter(pc.greater(table["attempt"], 1))
        self._attempts |= zip(again["object_id"].to_pylist(), again["attempt"].to_pylist(), strict=True)
        return claim

    def after(self, moment: datetime) -> Iterator[pa.ChunkedArray]:
        """The object_ids of each claim that was made after a moment, the newest first."""
        for claim in reversed(self.claims()):
            if claim.claimed_at <= moment:
                return
            yield self._files.get_parquet(claim.path, ["object_id"])["object_id"]

    def manifest(self, wanted: str) -> pa.Table:
        """The manifest of a batch (schema MANIFEST). Raises UnknownBatch."""
        for claim in self.claims():
            if claim.batch_id == wanted:
                return read_claim(self._files, claim.path, MANIFEST.names)
        raise UnknownBatch(
            f"No batch '{wanted}' is claimed in this lake. `dicom-assets status` lists the batches that there are."
        )

    def append(self, manifest: pa.Table, after: int) -> Claim | None:
        """Writes a claim as number after + 1; None when somebody else was first, and the plan is outdated.

        Its time is made later than that of every claim before it, whatever the clock says: of one uri the last claim is
        the one that counts (`lake.overwritten`).
        """
        manifest = _later(manifest, max((claim.claimed_at for claim in self._known.values()), default=None))
        name = batch_id(manifest)
        table = manifest.add_column(0, MANIFEST.field("batch_id"), pa.array([name] * len(manifest))).cast(MANIFEST)
        path = _path(after + 1)
        if not self._files.put_parquet(path, table, create=True):
            return None
        return self._remember(path, table)

    def __len__(self) -> int:
        """The number of the newest claim."""
        paths = self._paths()
        return int(paths[-1].rsplit("/", 1)[1].removesuffix(".parquet")) if paths else self._summarised().number


def read_claim(files: LakeFiles, path: str, columns: Sequence[str]) -> pa.Table:
    """A claim, in some columns of MANIFEST, whichever release has made it.

    Raises FileNotFoundError, TornFile, LakeError.
    """
    try:
        return files.get_parquet(path, [*columns])
    except TornFile:  # or one that lacks a column
        return with_defaults(files.get_parquet(path)).select([*columns])


def number_of(path: str) -> int:
    """The number of the claim in a file."""
    return int(path.rsplit("/", 1)[1].removesuffix(".parquet"))


def _later(manifest: pa.Table, than: datetime | None) -> pa.Table:
    """A manifest whose time is later than another one, by a microsecond where it was not."""
    if than is None or manifest["claimed_at"][0].as_py() > than:
        return manifest
    place, field = manifest.schema.get_field_index("claimed_at"), OWN["claimed_at"].field
    return manifest.set_column(place, field, pa.array([than + timedelta(microseconds=1)] * len(manifest), field.type))


def _path(number: int) -> str:
    return f"{FOLDER}/{number:012d}.parquet"


@dataclass(frozen=True, slots=True)
class ClaimRound:
    """What one round of claiming did; see Plan.

    gathering: objects that wait for more to come, at the latest until `gathers_until`.
    """

    claims: tuple[Claim, ...]
    waiting: int
    quiet_at: datetime | None
    more: bool
    gathering: int = 0
    gathers_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Haste:
    """Whether pauses are passed over: of what waits to be read again, and of what was absent and is listed again."""

    waiting: bool = False
    absent: bool = False


def claim_new(
    store: LandingStore,
    log: ClaimLog,
    settings: ClaimingSettings,
    now: datetime | None = None,
    haste: Haste = Haste(),
    restorations: Restorations | None = None,
    *,
    paced: bool = False,
) -> ClaimRound:
    """Lists a source and claims what is new in it, and what is to be read again; see `claim_listed`."""
    return claim_listed(store.name, store.list, log, settings, now, haste, restorations, paced=paced)


def claim_listed(
    source: str,
    listing: Callable[[], Iterable[pa.RecordBatch]],
    log: ClaimLog,
    settings: ClaimingSettings,
    now: datetime | None = None,
    haste: Haste = Haste(),
    restorations: Restorations | None = None,
    *,
    paced: bool = False,
) -> ClaimRound:
    """Claims what is new in a listing of a source, batch by batch, each claim durable before the next.

    What its batch did not find and is listed as it was is claimed again. So is what left its batch because it could not
    be read, listed or not, in batches of its own: reading finds out what became of it. listing: begins anew whenever
    another claimer was quicker. restorations: see `plan`. paced: whether few objects wait for more to come (`pace`);
    not where somebody waits for them. Raises SourceUnavailable before anything is claimed when it does not come to its
    end, and LakeError.
    """
    while True:
        newest = len(log)
        moment = now or datetime.now(UTC)
        returned = log.returned()
        absent = _due(returned, source, None if haste.absent else moment, waits=False)
        attempts = dict(zip(absent["object_id"].to_pylist(), absent["attempt"].to_pylist(), strict=True))
        claimed, erased = log.claimed_ids(source), log.refusals()
        planned = plan(source, listing(), claimed, moment, settings, attempts, restorations, erased)
        again, more = _again(_due(returned, source, None if haste.waiting else moment, waits=True), moment, settings)
        gathers_until = _gathers_until(planned, log, source, moment, settings) if paced else None
        gathering = 0 if gathers_until is None else planned.arrivals.complete
        done: list[Claim] = []
        for manifest in (*(planned.batches if gathers_until is None else ()), *again):
            claim = log.append(manifest, newest)
            if claim is None:
                break
            done.append(claim)
            newest += 1
        else:
            log.summarise()
            if len(returned):
                log.returns.merge(log.attempts())
            left = planned.more or more
            return ClaimRound(tuple(done), planned.waiting, planned.quiet_at, left, gathering, gathers_until)
        if done:
            return ClaimRound(tuple(done), planned.waiting, planned.quiet_at, True)


def _gathers_until(
    planned: Plan, log: ClaimLog, source: str, moment: datetime, settings: ClaimingSettings
) -> datetime | None:
    """Until when what was planned waits for more to come; None when it is claimed now."""
    if planned.more or not planned.batches:
        return None
    due = claim_from(recent_rounds(log.claims(), (source,), moment), planned.arrivals, moment, settings)
    return due if due > moment else None


def _due(returned: pa.Table, source: str, moment: datetime | None, *, waits: bool) -> pa.Table:
    """What batches of a source have returned; moment: only what may be claimed again by then."""
    wanted = pc.and_(pc.equal(returned["source"], source), pc.equal(returned["waits"], waits))
    if moment is not None:
        wanted = pc.and_(wanted, pc.less_equal(returned["due_at"], pa.scalar(moment, returned["due_at"].type)))
    return returned.filter(wanted)


def _again(due: pa.Table, now: datetime, settings: ClaimingSettings) -> tuple[list[pa.Table], bool]:
    """Batches of what is read again, at most as many as a round makes, and whether something is left."""
    if not len(due):
        return [], False
    rows = due.sort_by("uri")
    rows = rows.set_column(rows.column_names.index("attempt"), "attempt", pc.add(rows["attempt"], 1))
    bound, most = settings.batch_objects, settings.batches_per_tick
    source = rows["source"][0].as_py()
    parts = [
        stamp(alike.slice(start, bound), source, now, kind)
        for kind in BatchKind
        for alike in [rows.filter(pc.equal(pc.fill_null(rows["batch_kind"], str(BatchKind.ARRIVAL)), str(kind)))]
        for start in range(0, len(alike), bound)
    ]
    return parts[:most], len(parts) > most


def seconds_until(moment: datetime | None) -> int:
    """Whole seconds until a moment, at least 0."""
    return 0 if moment is None else max(0, math.ceil((moment - datetime.now(UTC)).total_seconds()))
