"""Mode `organize`: what a closed batch ingested is moved out of the way, and the lake's uris follow.

Belongs here: the plan, its steps in an order that a kill cannot harm, and the tables that name an object's place. Does
not belong here: the operations of a folder or container (`landing.moves`).

The order, for a whole batch: the plan is written while its rows are still staged, and the books close; every object is
put at its new place as well; what came where is written; the tables are rewritten; only then are the old places
cleared. So an object is always somewhere, each uri of the lake always leads to it, and whoever finds a plan that is
not marked as finished goes on with it. Each step may be done twice.

A zip goes when every member has come out. One that holds what cannot come out (encrypted, damaged, unsafe, files of a
system) stays a zip and is moved whole. What is ignored stays where it is, members aside. A batch that is run again
reads its objects at their new places.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from dicom_assets.batch.publish import publish_hierarchy
from dicom_assets.batch.standards import publish_imaging_study, publish_occurrences
from dicom_assets.lake import moved_studies
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect, quoted
from dicom_assets.lake.staging import LOCATION, RAW_STAGED, Part, Staging
from dicom_assets.landing.archives import kind_at, members, open_members
from dicom_assets.landing.looks import Looks
from dicom_assets.landing.moves import Location, Mover, fit_name, mover, pieces, target
from dicom_assets.landing.store import LandingStore, ObjectError, ObjectRef
from dicom_assets.schema.codes import ABSENT, CODES, OUTSIDE, Kind, Outcome
from dicom_assets.schema.registry import FLAT_METADATA, IMAGE_OCCURRENCE, INGESTION_ERRORS, INSTANCE, RAW_FILES, TABLES
from dicom_assets.settings import ArchiveLimits, Settings
from dicom_assets.storage import locks
from dicom_assets.storage.byte_ranges import ByteSource, FileSource
from dicom_assets.storage.files import LakeError, LakeFiles

FOLDER = "_organize"
LOCK = "organize"
_LOCK_SECONDS = 120.0
_TRIES = 2

KEPT = ABSENT | OUTSIDE | {"SYSTEM_FILE"}
"""Codes of objects that are not there as claimed, or not ours to touch."""
SHUT_IN = frozenset(
    (
        "ARCHIVE_UNREADABLE",
        "ARCHIVE_LIMIT",
        "ARCHIVE_METHOD_UNSUPPORTED",
        "ARCHIVE_ENCRYPTED",
        "ARCHIVE_MEMBER_UNSAFE",
        "SYSTEM_FILE",
    )
)
"""Codes of members that cannot come out of their archive."""

PLAN = pa.schema(
    [
        *RAW_STAGED,
        pa.field("action", pa.string()),
        pa.field("target", pa.string()),
        pa.field("compress", pa.bool_()),
    ]
)
"""Staged raw_files, with what is to be done with each: move, extract (a member), unpack (an archive), or nothing."""

DONE = pa.schema([pa.field("object_id", pa.string()), pa.field("at", LOCATION), pa.field("remove", pa.bool_())])
"""Where objects have come to. remove: the old place is to be cleared; `at` is NULL for an archive that was unpacked."""


class _BehindOthers(Exception):
    """An archive has other bytes before it, which would be lost with it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the ledger says of an object."""

    outcome: str
    kind: str
    code: str | None


def plan(
    rows: Sequence[Mapping[str, Any]], ledger: Mapping[str, Judged], source: str, first_stamp: int, *, compress: bool
) -> list[dict[str, Any]]:
    """The rows of a plan (schema PLAN); pure.

    rows: staged raw_files, members behind their archive. first_stamp: each object gets a number from here on.
    """
    inside: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["member"] is not None:
            inside[row["container_id"]].append(row)
    planned: list[dict[str, Any]] = []
    unpacked: set[str] = set()
    for number, row in enumerate(rows):
        judged = ledger[row["object_id"]]
        step: dict[str, Any] = {"action": None, "target": None, "compress": False}
        name = row["member"] or row["uri"]
        if row["member"] is not None:
            if row["container_id"] in unpacked and judged.code != "ARCHIVE_EXPANDED":
                step = _step("extract", judged, source, first_stamp + number, name, compress)
        elif judged.code == "ARCHIVE_EXPANDED":
            leaves = [ledger[m["object_id"]] for m in inside[row["object_id"]]]
            leaves = [leaf for leaf in leaves if leaf.code != "ARCHIVE_EXPANDED"]
            if not any(leaf.kind == Kind.CHANGE for leaf in leaves):
                whole = _whole(leaves)
                if leaves and not any(leaf.code in SHUT_IN for leaf in leaves):
                    unpacked.add(row["object_id"])
                    failed = Judged(Outcome.QUARANTINED, Kind.ARCHIVE, None)
                    step = _step("unpack", failed, source, first_stamp + number, name, False)
                else:
                    step = _step("move", whole, source, first_stamp + number, name, False)
        elif judged.outcome in (Outcome.INGESTED, Outcome.QUARANTINED) and judged.code not in KEPT:
            step = _step("move", judged, source, first_stamp + number, name, compress)
        planned.append({**row, **step})
    return planned


def _step(action: str, judged: Judged, source: str, stamp: int, name: str, compress: bool) -> dict[str, Any]:
    zipped = compress and judged.outcome == Outcome.INGESTED and judged.kind == Kind.DICOM
    path = target(judged.outcome, judged.kind, source, stamp, name)
    return {"action": action, "target": f"{path}.zip" if zipped else path, "compress": zipped}


def _whole(leaves: Sequence[Judged]) -> Judged:
    """An archive that stays one counts as ingested when anything in it was, as quarantined when the rest was."""
    outcomes = {leaf.outcome for leaf in leaves}
    for outcome in (Outcome.INGESTED, Outcome.QUARANTINED):
        if outcome in outcomes:
            return Judged(outcome, Kind.ARCHIVE, None)
    return Judged(Outcome.IGNORED, Kind.ARCHIVE, None)


@dataclass(frozen=True)
class Organizing:
    """The organizing of one batch; whoever calls it holds the batch."""

    lake: Lake
    store: LandingStore
    batch_id: str
    settings: Settings

    @property
    def _files(self) -> LakeFiles:
        return self.lake.files

    def _path(self, name: str) -> str:
        return f"{FOLDER}/plans/{self.batch_id}/{name}"

    @property
    def _mark(self) -> str:
        return f"{FOLDER}/unfinished/{self.batch_id}"

    @property
    def is_planned(self) -> bool:
        """Whether there is a plan."""
        return bool(self._files.names(self._path("plan")))

    @property
    def is_placed(self) -> bool:
        """Whether every object is at its new place."""
        return bool(self._files.names(self._path("done")))

    def prepare(self, staging: Staging, *, compress: bool) -> None:
        """Writes the plan from what is staged, unless there is one, and marks it as unfinished. Raises LakeError."""
        self._files.put(f"{self._mark}/yes", b"")
        if self.is_planned:
            return
        rows = staging.read(Part.RAW).to_pylist()
        names = ["object_id", "outcome", "kind", "code"]
        ledger = {row.pop("object_id"): Judged(**row) for row in staging.read(Part.LEDGER, names).to_pylist()}
        planned = plan(rows, ledger, self.store.name, self._reserve(len(rows)), compress=compress)
        table = pa.Table.from_pylist(planned, schema=PLAN)
        self._files.put_parquet(self._path("plan/rows.parquet"), table, create=True)

    def begin_again(self, *, closed: bool) -> None:
        """Before a batch is run again: finishes what its last run left, or forgets a plan that nothing was done of."""
        if not self.is_planned or self.is_placed:
            return
        if closed:
            self.finish()
        else:
            self._files.delete(self._path("plan"))

    def _reserve(self, count: int) -> int:
        """The first of so many stamps that no other object of this lake has or gets."""
        path = f"{FOLDER}/next"
        try:
            with locks.held(self._files, LOCK, _LOCK_SECONDS) as check:
                try:
                    next_free = int(self._files.get(path))
                except FileNotFoundError:
                    next_free = 0
                first = max(next_free, int(datetime.now(UTC).timestamp() * 1000))
                check()
                self._files.put(path, str(first + count).encode())
                return first
        except locks.LockBusy:
            raise LakeError("Another process has been planning for two minutes. Run the batch again.") from None

    def stage(self, staging: Staging, settled: Mapping[str, str]) -> int:
        """Stages raw_files from the plan, with the places where the objects lie now; how many rows there are.

        settled: codes of objects that are not opened.
        """
        places = {row["object_id"]: row["at"] for row in self._placed().to_pylist()}
        rows = [
            {name: row[name] for name in RAW_STAGED.names}
            | {"at": places.get(row["object_id"]), "verdict": settled.get(row["object_id"], row["verdict"])}
            for row in self._plan().to_pylist()
        ]
        staging.stage(Part.RAW, pa.Table.from_pylist(rows, schema=RAW_STAGED))
        return len(rows)

    def finish(self) -> None:
        """Does what is left of the plan. Raises SourceUnavailable, LakeError."""
        if self.is_planned:
            done = self._placed()
            self._rewrite(done)
            if not self._files.names(self._path("cleared")):
                looks, removed = Looks(self._files), sum(row["remove"] for row in done.to_pylist())
                looks.note_move(self.store.name, self.batch_id, removed)
                self._clear(done)
                looks.note_move_done(self.store.name, self.batch_id, removed)
                self._files.put(self._path("cleared/yes"), b"")
        self._files.delete(self._mark)

    def _plan(self) -> pa.Table:
        return self._files.get_parquet(self._path("plan/rows.parquet"))

    def _placed(self) -> pa.Table:
        """Where objects have come to (schema DONE); puts them there first when that is not done."""
        path = self._path("done/places.parquet")
        try:
            return self._files.get_parquet(path)
        except FileNotFoundError:
            pass
        failed: dict[str, str] = {}
        rows = list(self._place(self._plan().to_pylist(), failed))
        self._tell(failed)
        table = pa.Table.from_pylist(rows, schema=DONE)
        self._files.put_parquet(path, table, create=True)
        return table

    def _tell(self, failed: Mapping[str, str]) -> None:
        """Enters objects that could not be moved in ingestion_errors; they stay where they are, and in the lake."""
        if not failed:
            return
        own = f"organize-{self.batch_id}"
        rows = [
            {
                "batch_id": own,
                "object_id": object_id,
                "stage": "organize",
                "code": "NOT_MOVED",
                "record": 0,
                "severity": str(CODES["NOT_MOVED"].severity),
                "detail": detail,
                "occurred_at": datetime.now(UTC),
            }
            for object_id, detail in failed.items()
        ]
        with self.lake.committing(INGESTION_ERRORS.name):
            self.lake.replace(INGESTION_ERRORS.name, [own], pa.Table.from_pylist(rows, schema=INGESTION_ERRORS.schema))

    def _place(self, rows: Sequence[dict[str, Any]], failed: dict[str, str]) -> Iterator[dict[str, Any]]:
        """failed: gets the objects that cannot be moved, with why."""
        moves = mover(self.store)

        def moved(row: Mapping[str, Any]) -> dict[str, Any] | None:
            try:
                return self._move(moves, row)
            except ObjectError as error:
                failed[row["object_id"]] = error.detail
                return None

        single = [row for row in rows if row["action"] == "move"]
        with ThreadPoolExecutor(moves.at_once) as pool:
            found = pool.map(moved, single)
            inside = _by_container(rows)
            for row, placed in zip(single, found, strict=True):
                if placed is not None:
                    yield {"object_id": row["object_id"], "at": placed, "remove": True}
                    yield from self._moved_whole(placed, inside.get(row["object_id"], ()))
        for row in rows:
            if row["action"] == "unpack":
                try:
                    yield from list(self._unpack(moves, row, inside[row["object_id"]]))
                except ObjectError as error:
                    failed[row["object_id"]] = error.detail

    def _move(self, moves: Mover, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """The place of an object that was moved; None when it is not there as claimed any more."""
        claimed = _ref(row)
        if not row["compress"]:
            placed = moves.copy(claimed, row["target"])
            return _location(placed) if placed is not None else None
        opened = next(self.store.open_all([claimed], 4_096))
        if isinstance(opened, ObjectError):
            moves.discard(row["target"])
            return None
        try:
            return self._zip(moves, row, opened)
        except ObjectError as error:
            if error.code == "NOT_MOVED":
                raise
            moves.discard(row["target"])
            return None
        finally:
            opened.close()

    def _moved_whole(self, at: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Places of the members of an archive that was moved as it is."""
        for row in rows:
            place = {"uri": at["uri"], "etag": at["etag"], "member": row["member"], "entry": row["entry"]}
            yield {
                "object_id": row["object_id"],
                "at": place | {"size": row["size"], "container_size": at["size"]},
                "remove": False,
            }

    def _unpack(
        self, moves: Mover, archive: Mapping[str, Any], inside: Sequence[Mapping[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """Places of the members that came out; of the whole archive when they did not."""
        leaves = [row for row in inside if row["action"] == "extract"]
        to = archive["target"]
        for _ in range(_TRIES):
            try:
                places = self._extract(moves, _ref(archive), leaves)
            except _BehindOthers:
                if any(row["target"].startswith("Process/") for row in leaves):
                    to = f"Process/{to.removeprefix('Failed/')}"
                break
            except ObjectError as error:
                if error.code in KEPT:
                    return
                continue
            for row, at in zip(leaves, places, strict=True):
                yield {"object_id": row["object_id"], "at": at, "remove": False}
            yield {"object_id": archive["object_id"], "at": None, "remove": True}
            return
        placed = moves.copy(_ref(archive), to)
        if placed is not None:
            yield {"object_id": archive["object_id"], "at": _location(placed), "remove": True}
            yield from self._moved_whole(_location(placed), inside)

    def _extract(self, moves: Mover, archive: ObjectRef, leaves: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Lets every member out, or none: ObjectError."""
        opened = next(self.store.open_all([archive], 4_096))
        places: list[dict[str, Any]] = []
        try:
            if isinstance(opened, ObjectError):
                raise opened
            if not kind_at(opened).begins(opened.read(0, 4_096)):
                raise _BehindOthers
            entries = open_members(opened, [tuple(row["entry"]) for row in leaves], self.settings.archives)
            for row, (_, member) in zip(leaves, entries, strict=True):
                if isinstance(member, ObjectError):
                    raise member
                if row["compress"]:
                    places.append(self._zip(moves, row, member))
                else:
                    places.append(_location(moves.write(row["target"], pieces(member))))
                member.verify()
            opened.verify()
        except ObjectError:
            for row in leaves:  # all of them: a try that was killed may have come further than this one
                with suppress(ObjectError):  # what has no fit name was never written
                    moves.discard(row["target"])
            raise
        finally:
            if not isinstance(opened, ObjectError):
                opened.close()
        return places

    def _zip(self, moves: Mover, row: Mapping[str, Any], source: ByteSource) -> dict[str, Any]:
        """Writes an object as a zip of its own; its place, which is a member of that zip."""
        name = fit_name(row["member"] or row["uri"])
        with tempfile.TemporaryFile() as file:
            info = zipfile.ZipInfo(name)  # without the time of the try, so that each try makes the same file
            info.compress_type = zipfile.ZIP_DEFLATED
            with zipfile.ZipFile(file, "w") as archive, archive.open(info, "w", force_zip64=True) as member:
                for piece in pieces(source):
                    member.write(piece)
            limits = ArchiveLimits(max_ratio=1e9)
            (only,) = members(FileSource(file), limits)
            placed = moves.write(row["target"], pieces(FileSource(file)))
        place = {"uri": placed.uri, "etag": placed.etag, "size": row["size"], "member": name}
        return place | {"entry": list(only.entry), "container_size": placed.size}

    def _rewrite(self, done: pa.Table) -> None:
        """Lets the tables say where the objects lie."""
        places = pa.Table.from_pylist(
            [
                {"object_id": row["object_id"], **{name: row["at"][name] for name in ("uri", "member", "etag")}}
                for row in done.to_pylist()
                if row["at"] is not None
            ],
            schema=pa.schema([(name, pa.string()) for name in ("object_id", "uri", "member", "etag")]),
        )
        if not len(places):
            return
        for table in (RAW_FILES, FLAT_METADATA, INGESTION_ERRORS):
            self._rewrite_table(table.name, places)
        with connect(self.lake, [FLAT_METADATA.name], within=self._scope(FLAT_METADATA.name)) as connection:
            found = connection.execute(
                f"SELECT DISTINCT study_key FROM flat_metadata WHERE batch_id = {quoted(self.batch_id)} ORDER BY ALL"
            ).fetchall()
        received = {key for (key,) in found}
        studies = sorted(received | set(moved_studies.targets_of(self.lake, received)))  # where corrections move them
        touched = pa.table({"study_key": studies}, schema=pa.schema([("study_key", pa.string())]))
        staging = Staging(self._files, f"{self.batch_id}-organize")
        staging.stage(Part.TOUCHED, touched)
        publish_hierarchy(self.lake, staging, INSTANCE.name)
        publish_imaging_study(self.lake, staging, self.settings)
        publish_occurrences(self.lake, staging, self.settings, IMAGE_OCCURRENCE.name)
        staging.remove()

    def _scope(self, name: str) -> dict[str, dict[str, list[str]]]:
        return {name: {"batch_id": [self.batch_id]}}

    def _rewrite_table(self, name: str, places: pa.Table) -> None:
        table = TABLES[name]
        changed = [column for column in ("uri", "member", "etag") if column in table]
        columns = ", ".join(
            f'CASE WHEN place.object_id IS NULL THEN t."{c.name}" ELSE place."{c.name}" END AS "{c.name}"'
            if c.name in changed
            else f't."{c.name}"'
            for c in table.columns
        )
        sql = (
            f"SELECT {columns} FROM {name} AS t LEFT JOIN places AS place USING (object_id) "
            f"WHERE t.batch_id = {quoted(self.batch_id)}"
        )
        with self.lake.committing(name), connect(self.lake, [name], within=self._scope(name)) as connection:
            connection.register("places", places)

            def rows() -> pa.RecordBatchReader:
                reader = connection.sql(sql).to_arrow_reader(10_000)
                batches = (
                    batch for part in reader for batch in pa.Table.from_batches([part]).cast(table.schema).to_batches()
                )
                return pa.RecordBatchReader.from_batches(table.schema, batches)

            self.lake.replace(name, [self.batch_id], rows)

    def _clear(self, done: pa.Table) -> None:
        """Clears the old places."""
        moves = mover(self.store)
        wanted = {row["object_id"] for row in done.to_pylist() if row["remove"]}
        refs = [_ref(row) for row in self._plan().to_pylist() if row["object_id"] in wanted]
        with ThreadPoolExecutor(moves.at_once) as pool:
            for _ in pool.map(moves.remove, refs):
                pass


def unfinished(files: LakeFiles) -> list[str]:
    """Batches whose plan is not finished, oldest first."""
    return [name.split("/")[-2] for name in files.names(f"{FOLDER}/unfinished")]


def _by_container(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["member"] is not None:
            found[row["container_id"]].append(row)
    return found


def _ref(row: Mapping[str, Any]) -> ObjectRef:
    return ObjectRef(row["uri"], row["etag"], row["size"])


def _location(placed: Location) -> dict[str, Any]:
    return {**asdict(placed), "member": None, "entry": None, "container_size": None}
