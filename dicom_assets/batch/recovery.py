"""What a power cut has torn of claims and data files, set aside or made again, so that what they held is found missing.

Belongs here: what becomes of a claim or of a data file that cannot be read. Does not belong here: torn logs of tables
(`lake.torn`), running batches again (`defs.mending`).

A claim is durable before its batch is run, so a torn one mostly is one that nothing came of. Where synchronisation was
switched off, its batch may have published something: `raw_files` then has all that the claim had, and a batch that read
objects again is an arrival from then on. The claim log counts
by the newest number, so a number that is set aside is a gap, which nobody fills.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake.transaction import AddAction

from dicom_assets.lake import torn
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Extents
from dicom_assets.lake.query import arrow, connect
from dicom_assets.lake.rewrite import swap
from dicom_assets.lake.staging import object_ids
from dicom_assets.landing import claim_index as claimed
from dicom_assets.landing import claims
from dicom_assets.landing.claims import MANIFEST, with_defaults
from dicom_assets.landing.returns import ReturnLog
from dicom_assets.schema.registry import BATCHES, TABLES
from dicom_assets.storage.files import LakeError, LakeFiles, TornFile


@dataclass(frozen=True)
class Mended:
    """What became of torn claims: numbers that were set aside, and batches whose claim was made again."""

    aside: Sequence[int] = ()
    made: Sequence[str] = ()

    def __bool__(self) -> bool:
        """Whether there were any."""
        return bool(self.aside or self.made)

    def __str__(self) -> str:
        parts = []
        if self.aside:
            numbers = ", ".join(map(str, self.aside))
            parts.append(f"Claim {numbers} was torn, as by a power cut, and is set aside: its objects are new again.")
        if self.made:
            parts.append(f"The claim of batch {', '.join(self.made)} was torn and is made again from raw_files.")
        return " ".join(parts)


def mend_claims(lake: Lake) -> Mended:
    """Mends torn claims, for whoever holds the right to claim. Raises LakeError.

    What has begun of a batch whose claim is lost for good is taken out of the books: its objects come in another batch.
    """
    files = lake.files
    whole: list[str] = []
    lost: list[str] = []
    for path in files.names(claims.FOLDER):
        try:
            whole.append(str(files.get_parquet(path, ["batch_id"])["batch_id"][0].as_py()))
        except (TornFile, IndexError):
            lost.append(path)
    if not lost:
        return Mended()
    rows = _arrived(lake, whole)
    orphans = sorted(set(rows["batch_id"].to_pylist()))
    if len(orphans) > len(lost):
        raise LakeError("More batches have rows without a claim than claims are torn. Run `dicom-assets verify`.")
    files.delete(claimed.FOLDER)  # it may know objects of claims that are set aside
    attempts = _attempts(files)
    made: list[str] = []
    aside: list[int] = []
    for path in sorted(lost):
        torn.set_file_aside(files, path)
        if len(made) < len(orphans):
            batch = orphans[len(made)]
            own = rows.filter(pa.array([one == batch for one in rows["batch_id"].to_pylist()], pa.bool_()))
            own = own.append_column("attempt", pa.array([attempts.get(one, 1) for one in object_ids(own)], pa.int64()))
            own = with_defaults(own)
            files.put_parquet(path, own.select(MANIFEST.names).cast(MANIFEST), create=True)
            made.append(batch)
        else:
            aside.append(claims.number_of(path))
    _forget_begun(lake, [*whole, *made])
    return Mended(tuple(aside), tuple(made))


def _attempts(files: LakeFiles) -> Mapping[str, int]:
    """How often objects were claimed that a batch has returned, once for each return and once more."""
    found: dict[str, int] = {}
    for row in ReturnLog(files).open({}).select(["object_id", "attempt"]).to_pylist():
        found[row["object_id"]] = max(found.get(row["object_id"], 1), row["attempt"] + 1)
    return found


def drop_files(lake: Lake, name: str, paths: Collection[str]) -> None:
    """Takes data files that cannot be read out of a table; their rows are missing from then on. Raises LakeError."""

    def change(now: Extents) -> tuple[npt.NDArray[np.int64], list[AddAction]]:
        return np.array([at for at, path in enumerate(now.paths.tolist()) if path in paths], dtype=np.int64), []

    with lake.committing(name):
        swap(lake, name, change, data_change=True)


def forget_batches(lake: Lake, rows: Mapping[str, Sequence[str]]) -> None:
    """Takes the rows of batches that nobody claimed out of tables. rows: by table, the batches. Raises LakeError."""
    for name, batches in rows.items():
        with lake.committing(name):
            lake.replace(name, batches, TABLES[name].schema.empty_table())


def _arrived(lake: Lake, whole: Sequence[str]) -> pa.Table:
    """Rows of raw_files, members aside, of batches without a claim."""
    with connect(lake, ["raw_files"]) as connection:
        connection.register("whole", pa.table({"batch_id": pa.array(list(whole), pa.string())}))
        return arrow(
            connection,
            "SELECT * FROM raw_files ANTI JOIN whole USING (batch_id) "
            "WHERE container_id IS NULL ORDER BY batch_id, uri",
        )


def _forget_begun(lake: Lake, known: Sequence[str]) -> None:
    """Takes batches out of the books whose claim is lost and that have published nothing."""
    with lake.committing(BATCHES.name):
        with connect(lake, ["batches"]) as connection:
            found = connection.execute("SELECT batch_id FROM batches").fetchall()
        begun = sorted({batch for (batch,) in found} - set(known))
        if begun:
            lake.replace(BATCHES.name, begun, BATCHES.schema.empty_table())
