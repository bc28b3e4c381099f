"""Forgetting what tables were: their log begins anew as it is now, and every file that it does not name is deleted.

Belongs here: the log of one table and the files in its folder, in an order that a kill cannot harm. Does not belong
here: which rows go (`batch.erasure`), merging small files and keeping old versions for a while (`maintenance`).

Rows that were taken out of a table still stand in the files of older versions, their smallest and largest values in the
entries and checkpoints of its log, and files that were replaced may say a range of keys in their names. So the log gets
one more entry, which changes nothing, then a checkpoint that names the files of now and none that are gone, and what
came before goes. The version's number stays: whoever asks for a newer one is served as ever, and whoever has an older
one open opens the table anew (`Tables.committing`).
"""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from dicom_assets.lake import torn
from dicom_assets.lake.tables import Tables
from dicom_assets.storage.files import LakeError

_LOG = "_delta_log"
_HINT = "_last_checkpoint"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was deleted of one table: files that no version names any more, and files of its log."""

    data_files: int
    log_files: int


def forget(lake: Tables, name: str) -> Forgotten:
    """Leaves of a table what it is now, and nothing of what it was. Raises LakeError.

    Readers of an older version find its files gone. Each step may be done twice; a table whose log is one checkpoint
    and its entry already gets no further entry.
    """
    with lake.committing(name):
        version = lake.extents(name).version
        if not _is_alone(lake, name, version):
            version = _begin_again(lake, name, version)
        lake.open_anew(name)
        named = set(lake.extents(name).paths.tolist())
        log = _delete(lake, f"{name}/{_LOG}", {*_files_of(version), _HINT})
        data = _delete(lake, name, named, but=_LOG)
        return Forgotten(data, log)


def _files_of(version: int) -> tuple[str, str]:
    return f"{version:020d}.json", f"{version:020d}.checkpoint.parquet"


def _is_alone(lake: Tables, name: str, version: int) -> bool:
    """Whether the log is one checkpoint without files that are gone, and the entry that it stands for."""
    own = _files_of(version)
    here = {path.rsplit("/", 1)[1] for path in lake.files.names(f"{name}/{_LOG}")}
    if not {*own, _HINT} <= here or any(entry > own[0] for entry in here if entry.endswith(".json")):
        return False
    entry = lake.files.get(f"{name}/{_LOG}/{own[0]}")
    return b'"remove"' not in entry and b'"add"' not in entry


def _begin_again(lake: Tables, name: str, version: int) -> int:
    """Commits an entry that changes nothing and a checkpoint of it; its version. Raises LakeError."""
    version += 1
    entry, checkpoint = (f"{name}/{_LOG}/{path}" for path in _files_of(version))
    told = {"timestamp": int(time.time() * 1000), "operation": "FORGET", torn.ACTIONS: "0", "version": version}
    if not lake.files.put(entry, json.dumps({"commitInfo": told}).encode(), create=True):
        raise LakeError(f"Table {name}: somebody else committed meanwhile. Run the command again.")
    lake.open_anew(name)
    try:
        table = lake.table(name)
        table.create_checkpoint()
    except (DeltaError, OSError) as error:
        raise LakeError(f"Table {name} cannot be written: {type(error).__name__}. Run the command again.") from None
    rows = pq.read_table(io.BytesIO(lake.files.get(checkpoint)))
    kept = rows.filter(pc.is_null(rows["remove"])) if "remove" in rows.column_names else rows
    sink = io.BytesIO()
    pq.write_table(kept, sink, compression="zstd")
    lake.files.put(checkpoint, sink.getvalue())
    _tell_hint(lake, f"{name}/{_LOG}/{_HINT}", kept, sink.tell())
    lake.sync_log(name, version, checkpoint=True)  # before what it stands for goes
    return version


def _tell_hint(lake: Tables, path: str, checkpoint: pa.Table, size: int) -> None:
    hint = json.loads(lake.files.get(path))
    hint |= {"size": len(checkpoint)} | ({"sizeInBytes": size} if "sizeInBytes" in hint else {})
    lake.files.put(path, json.dumps(hint).encode())


def _delete(lake: Tables, folder: str, kept: set[str], but: str | None = None) -> int:
    """Deletes the files of a folder, those of killed writers too, that are not to be kept; how many."""
    gone = [
        path
        for path in lake.files.every_name(folder)
        if (below := path.removeprefix(f"{folder}/")) not in kept and below.split("/")[0] != but
    ]
    for path in gone:
        lake.files.remove_whole(path)
    return len(gone)
