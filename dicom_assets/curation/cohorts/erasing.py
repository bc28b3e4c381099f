"""Taking what is erased out of cohorts: their rows, what their exports noted, texts that name it, mapped identifiers.

Belongs here: each file's turn; each may be done twice. Does not belong here: what is erased (`batch.erasure`), and what
was exported, which lies elsewhere: a cohort's log says where.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.curation.cohorts import frozen, mapping_keys
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeFiles
from dicom_assets.storage.traces import Terms


def rows_of(files: LakeFiles, objects: Collection[str]) -> int:
    """How many rows of cohorts are of some objects. Raises LakeError."""
    return sum(
        int(pc.sum(_is_gone(files.get_parquet(path, ["object_id"]), objects)).as_py() or 0)
        for path in files.names(frozen.FOLDER)
        if "/rows/" in path
    )


def take_out(files: LakeFiles, settings: Settings, objects: Collection[str], terms: Terms) -> None:
    """Takes objects out of every cohort, and texts that name one of some terms. Raises LakeError.

    A cohort says from then on how many of its objects are erased.
    """
    for path in files.names(frozen.FOLDER):
        if path.endswith(".parquet"):
            _out_of_rows(files, path, objects)
        elif path.endswith(".json"):
            _out_of_texts(files, path, terms)
    root = mapping_keys.root_of(settings)
    if not root.is_dir():
        return
    keys = LakeFiles(str(root))
    for path in keys.names(""):
        if path.endswith(".parquet"):
            _out_of_rows(keys, path, objects)
        elif path.endswith(f"/{mapping_keys.MAPPING}"):
            _out_of_mapping(keys, path, objects)
        else:
            continue
        (root / path).chmod(0o600)


def _is_gone(rows: pa.Table, objects: Collection[str]) -> pa.Array:
    return pc.is_in(rows["object_id"], value_set=pa.array(sorted(objects), pa.string()))


def _out_of_rows(files: LakeFiles, path: str, objects: Collection[str]) -> None:
    rows = files.get_parquet(path)
    kept = rows.filter(pc.invert(_is_gone(rows, objects)))
    if len(kept) < len(rows):
        files.put_parquet(path, kept)


def _out_of_texts(files: LakeFiles, path: str, terms: Terms) -> None:
    """A query, a reason or a destination that names what is erased goes as a whole: nobody can tell what is left."""
    told = json.loads(files.get(path))
    changed = {
        name: frozen.ERASED if isinstance(value, str) and terms.stand_in(value.encode("utf-8", "replace")) else value
        for name, value in told.items()
    }
    if changed != told:
        files.put(path, json.dumps(changed, indent=1).encode())


def _out_of_mapping(files: LakeFiles, path: str, objects: Collection[str]) -> None:
    lines = list(csv.reader(io.StringIO(files.get(path).decode("utf-8", "surrogateescape"), newline="")))
    kept = [line for number, line in enumerate(lines) if not number or line[0] not in objects]
    if len(kept) < len(lines):
        sink = io.StringIO()
        csv.writer(sink, lineterminator="\n").writerows(kept)
        files.put(path, sink.getvalue().encode("utf-8", "surrogateescape"))
