"""Rules over the lake's files: logs and data files of tables, claims, staging, rows of batches that nobody claimed.

Belongs here: what can be said without comparing rows. Does not belong here: rows (`batches`, `studies`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dicom_assets.batch.leaving import own_manifest
from dicom_assets.batch.verification.findings import SHOWN, Finding, Sound, batch_tables
from dicom_assets.lake import staging, torn
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.remote import TableFiles
from dicom_assets.landing import claims
from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.files import MAY_NOT_READ, LakeError, LakeFiles, TornFile

_AT_ONCE = 8


@dataclass(frozen=True)
class Opened:
    """What of a lake can be opened. findings: of its logs and data files."""

    sound: Sound
    findings: tuple[Finding, ...]


def opened(lake: Lake) -> Opened:
    """Opens each table, and looks at each data file that its log names: there, of that size, with so many rows.

    Raises LakeError when one may not be read: it is not broken, and nobody may take it out of its table.
    """
    unopened: dict[str, str] = {}
    broken: dict[str, list[str]] = {}
    files = 0
    for name in TABLES:
        try:
            now = lake.extents(name)
        except LakeError as error:
            unopened[name] = str(error)
            continue
        files += len(now)
        look = partial(_is_broken, lake.files, name)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            wrong = list(pool.map(look, now.paths.tolist(), now.bytes.tolist(), now.rows.tolist()))
        paths = [str(path) for path, is_wrong in zip(now.paths.tolist(), wrong, strict=True) if is_wrong]
        if paths and lake.extents(name).version != now.version:  # merged and deleted meanwhile
            paths = [path for path in paths if path in set(lake.extents(name).paths.tolist())]
        if paths:
            broken[name] = paths
    logs = Finding(
        "logs", "The log of every table opens", len(unopened), shown=[*unopened], told=" ".join(unopened.values())
    )
    told = ", ".join(f"{len(paths)} of {name}" for name, paths in broken.items())
    data = Finding(
        "files",
        f"Data files are there, whole and readable ({files} files)",
        sum(map(len, broken.values())),
        shown=[f"{name}/{path}" for name, paths in broken.items() for path in paths][:SHOWN],
        told=told,
    )
    return Opened(Sound(lake, unopened, {name: set(paths) for name, paths in broken.items()}), (logs, data))


def _is_broken(files: LakeFiles, name: str, path: str, size: int, rows: int) -> bool:
    place = f"{name}/{path}"
    try:
        root = files.local_root
        if root is not None:
            if (root / place).stat().st_size != size:
                return True
            return bool(pq.read_metadata(root / place).num_rows != rows)
        remote = TableFiles(files.store)
        if remote.info(place)["size"] != size:
            return True
        with remote.open(place) as file:
            return bool(pq.read_metadata(file).num_rows != rows)
    except PermissionError:
        raise LakeError(f"Table {name}: {MAY_NOT_READ}") from None
    except (pa.ArrowException, OSError):
        return True


class Claimed(Mapping[str, pa.Array]):
    """The object_ids of each batch's claim, read when they are asked for."""

    def __init__(self, files: LakeFiles, log: claims.ClaimLog) -> None:
        """Finds the claims that can be read."""
        self._files = files
        self._returns = log.returns
        self._paths: dict[str, str] = {}
        self.torn: list[int] = []
        self.findings = tuple(self._look(log))

    def _look(self, log: claims.ClaimLog) -> Iterator[Finding]:
        paths = [path for path in self._files.names(claims.FOLDER) if path.endswith(".parquet")]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for path, batch in zip(paths, pool.map(self._batch, paths), strict=True):
                if batch is None:
                    self.torn.append(claims.number_of(path))
                else:
                    self._paths[batch] = path
        yield Finding(
            "claims",
            f"Claims can be read ({len(paths)} of them)",
            len(self.torn),
            shown=[f"claim {number}" for number in self.torn[:SHOWN]],
        )
        try:
            known = {claim.batch_id for claim in log.claims()}
        except LakeError:
            return
        differing = sorted(known ^ set(self._paths))
        yield Finding("summary", "The summary of claims = the claims", len(differing), shown=differing[:SHOWN])

    def _batch(self, path: str) -> str | None:
        try:
            rows = self._files.get_parquet(path, ["batch_id"])
        except (TornFile, FileNotFoundError):
            return None
        return str(rows["batch_id"][0].as_py()) if len(rows) else None

    def __getitem__(self, batch_id: str) -> pa.Array:
        """The objects that are the batch's own: those that have left it are claimed by another one."""
        manifest = self._files.get_parquet(self._paths[batch_id], ["batch_id", "object_id", "uri"])
        return own_manifest(manifest, self._returns)[0]["object_id"].combine_chunks()

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


@dataclass(frozen=True)
class Strangers(Finding):
    """Rows of batches that nobody claimed. rows: by table, the batches."""

    rows: Mapping[str, list[str]] = field(default_factory=dict)


_OF_NO_BATCH = "^(event|source|erasure|verify)-|-organize$"
"""What stands for a batch in rows of none: messages of queues that nobody could read, places of sources that were
passed over, and ids of OMOP that were given out when an erasure, `verify --fix` or mode organize made studies again."""


def strangers(sound: Sound, claimed: Collection[str], *, is_complete: bool) -> Finding:
    """Batches that have rows or books and no claim. is_complete: whether every claim could be read."""
    description = "Every row belongs to a batch that was claimed"
    if not is_complete:
        return Finding("unclaimed", description, told="not looked at: a claim is torn", is_note=True)
    found: dict[str, list[str]] = {}
    with sound.lake.cursor() as connection:
        connection.register("claimed", pa.table({"batch_id": pa.array(list(claimed), pa.string())}))
        for name in ("batches", *batch_tables()):
            if sound.opens(name):
                rows = connection.execute(
                    f"SELECT DISTINCT batch_id FROM {sound.source(name)} ANTI JOIN claimed USING (batch_id) "
                    f"WHERE NOT regexp_matches(batch_id, '{_OF_NO_BATCH}') ORDER BY 1"
                ).fetchall()
                if rows:
                    found[name] = [batch for (batch,) in rows]
    batches = sorted({batch for some in found.values() for batch in some})
    return Strangers("unclaimed", description, len(batches), shown=batches[:SHOWN], rows=found)


def unbooked(sound: Sound) -> Finding:
    """Batches that have rows and no books."""
    description = "Every batch that has rows has its books"
    if not sound.opens("raw_files", "batches"):
        return Finding("unbooked", description, told="not looked at: a table cannot be opened", is_note=True)
    with sound.lake.cursor() as connection:
        rows = sound.source("raw_files")  # before the books, in which a batch is entered first
        found = connection.execute(
            f"SELECT DISTINCT batch_id FROM {rows} ANTI JOIN {sound.source('batches')} AS books USING (batch_id) "
            "ORDER BY 1"
        ).fetchall()
    batches = [batch for (batch,) in found]
    return Finding("unbooked", description, len(batches), batches, shown=batches[:SHOWN])


PLACES_AT_ONCE = 2_000_000
"""Rows of raw_files whose places are compared together."""


def overwritten(sound: Sound) -> Finding:
    """Places that were claimed twice and are not known as overwritten by their last claim."""
    description = "Places that were claimed again are known as overwritten"
    if not sound.opens("raw_files", "overwritten", "batches"):
        return Finding("overwritten", description, told="not looked at: a table cannot be opened", is_note=True)
    found: set[str] = set()
    parts = max(1, -(-sound.lake.row_count("raw_files") // PLACES_AT_ONCE))
    with sound.lake.cursor() as connection:
        connection.execute(
            f"CREATE TEMP TABLE closed AS SELECT batch_id FROM {sound.source('batches')} WHERE status = 'closed'"
        )
        connection.execute(f"CREATE TEMP VIEW arrived AS SELECT * FROM {sound.source('raw_files')}")
        connection.execute(f"CREATE TEMP VIEW known AS SELECT * FROM {sound.source('overwritten')}")
        connection.execute(
            f"CREATE TEMP TABLE absent AS SELECT batch_id, object_id FROM {sound.source('validated_batch')} "
            "WHERE code IN ('OBJECT_GONE', 'CHANGED_DURING_READ', 'DISMISSED')"
        )
        for part in range(parts):
            found |= {batch for (batch,) in connection.execute(_CLAIMED_AGAIN, [parts, part]).fetchall()}
    batches = sorted(found)
    return Finding("overwritten", description, len(batches), batches, shown=batches[:SHOWN])


_CLAIMED_AGAIN = """
-- closed batches with objects at a place that an earlier claim had, and no entry of that time or a later one; what was
-- not there as it was claimed did not come to its place
WITH places AS (
    SELECT source, uri, member, batch_id, claimed_at FROM arrived
    SEMI JOIN closed USING (batch_id)
    ANTI JOIN absent USING (batch_id, object_id)
    WHERE kind NOT IN ('change', 'erased') AND hash(uri) % $1 = $2
),
again AS (
    SELECT * FROM places
    QUALIFY claimed_at > min(claimed_at) OVER (PARTITION BY source, uri, coalesce(member, ''))
)
SELECT DISTINCT batch_id FROM again
WHERE NOT EXISTS (
    SELECT 1 FROM known WHERE known.source = again.source AND known.uri = again.uri
        AND coalesce(known.member, '') = coalesce(again.member, '') AND known.claimed_at >= again.claimed_at
)
ORDER BY 1
"""


def identifiers(sound: Sound) -> Finding:
    """Ids of image_occurrence that were never given out, or stand for two things."""
    description = "Every id of OMOP was given out, once"
    if not sound.opens("omop_identifier", "image_occurrence_origin", "flat_metadata"):
        return Finding("identifiers", description, told="not looked at: a table cannot be opened", is_note=True)
    with sound.lake.cursor() as connection:
        origins = sound.source("image_occurrence_origin")  # before the ids, which are given out first
        metadata = sound.source("flat_metadata")
        connection.execute(f"CREATE TEMP VIEW ids AS SELECT * FROM {sound.source('omop_identifier')}")
        found = connection.execute(
            f"""
            SELECT min(batch_id) FROM {metadata} AS flat
            SEMI JOIN (
                SELECT source, StudyInstanceUID, SeriesInstanceUID FROM {origins}
                ANTI JOIN (
                    SELECT id AS image_occurrence_id FROM ids WHERE domain = 'image_occurrence'
                    GROUP BY id HAVING count(*) = 1
                ) AS given USING (image_occurrence_id)
            ) AS series USING (source, StudyInstanceUID, SeriesInstanceUID)
            GROUP BY source, StudyInstanceUID, SeriesInstanceUID
            ORDER BY 1
            """
        ).fetchall()
        twice = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM ids GROUP BY domain, id HAVING count(*) > 1)"
        ).fetchall()[0][0]
    batches = [batch for (batch,) in found]  # the first that brought the series
    return Finding("identifiers", description, len(batches) or int(twice), sorted(set(batches)))


def coverage(sound: Sound) -> Finding:
    """Whether the table of what is mapped counts every series and study there is."""
    description = "mapping_coverage counts every series"
    if not sound.opens("mapping_coverage", "series"):
        return Finding("coverage", description, told="not looked at: a table cannot be opened", is_note=True)
    with sound.lake.cursor() as connection:
        series, counted = connection.execute(
            f"SELECT (SELECT count(*) FROM {sound.source('series')}), (SELECT coalesce(max(total), 0) FROM "
            f"{sound.source('mapping_coverage')} WHERE value = '' AND measure LIKE 'series%')"
        ).fetchall()[0]
    return Finding("coverage", description, abs(series - counted))


def staged(files: LakeFiles, open_batches: Collection[str]) -> Finding:
    """What is staged of batches that are not open."""
    names = files.names(staging.FOLDER)
    left = sorted({name.split("/")[1] for name in names} - set(open_batches))
    return Finding("staging", "Nothing is staged of batches that are not open", len(left), shown=left[:SHOWN])


def set_aside(files: LakeFiles) -> Finding:
    """Whether torn entries were set aside and the tables were not compared since."""
    waits = torn.needs_verifying(files)
    return Finding("set aside", "Torn entries that were set aside are made good", int(waits))


def readable(files: LakeFiles, umask: int) -> Finding:
    """Files and folders that more users may read than is configured: a note, since nothing is lost."""
    description = "Files are readable by whom [storage] readable_by names"
    root = files.local_root
    if root is None:
        return Finding("modes", description, is_note=True)
    wider = sum(bool(path.lstat().st_mode & umask & 0o777) for path in _below(root))
    told = "run `chmod -R go-rwx` on the lake, or set readable_by" if wider else ""
    return Finding("modes", description, wider, told=told, is_note=True)


def _below(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        yield Path(folder)
        yield from (path for path in (Path(folder, name) for name in names) if path.exists())
