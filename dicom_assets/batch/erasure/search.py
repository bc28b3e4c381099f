"""The search that finds nothing: every file of a lake and around it, decoded, for what was erased.

Belongs here: which files are looked at, what each of them is, and sweeping away what nobody needs. Does not belong
here: decoding (`storage.traces`).
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dicom_assets.batch.erasure.record import PATH
from dicom_assets.curation.cohorts import mapping_keys
from dicom_assets.lake.database import FOLDER as SPILLED
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import FOLDER as STAGING
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeFiles
from dicom_assets.storage.traces import Terms, places

_TEMPORARY = "dicom-assets-*/spill"
"""Folders of ours among the system's temporary files, see `lake.database.spill_folder`."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Something that is left. where: the kind of file; place: how it stands there; path: of the file, for a steward."""

    where: str
    place: str
    path: str

    @property
    def kind(self) -> str:
        """Both, in words."""
        return f"{self.where}: {self.place}"


def search(lake: Lake, settings: Settings, terms: Terms, others: Iterable[Path] = ()) -> Iterator[Trace]:
    """Everything that names one of some texts: in the lake, in landed windows, in folders of temporary files.

    Also in what cohorts have mapped. others: further folders, such as Dagster's state. The record of an erasure that is
    under way is not looked at. Raises LakeError.
    """
    named = {f"{name}/{path}" for name in TABLES for path in lake.extents(name).paths.tolist()}
    for path in lake.files.every_name(""):
        if path != PATH:
            yield from _of_file(lake.files, path, kind_of(path, named), terms)
    for service in settings.services:
        files = LakeFiles(service.landing)
        for path in files.every_name(""):
            yield from _of_file(files, path, "landed window", terms)
    for folder in (mapping_keys.root_of(settings), *others, *Path(tempfile.gettempdir()).glob(_TEMPORARY)):
        if folder.is_dir():
            files = LakeFiles(str(folder))
            for path in files.every_name(""):
                yield from _of_file(files, path, "file beside the lake", terms)


def sweep(files: LakeFiles, terms: Terms) -> None:
    """Deletes files that were spilled into a lake and name one of some texts. Raises LakeError.

    DuckDB keeps its files open, so that a query that goes on with one reads it to its end. What lies among the system's
    temporary files is told by the search and never deleted: it may be another lake's.
    """
    for path in files.every_name(SPILLED):
        if any(_of_file(files, path, "", terms)):
            files.remove_whole(path)


def _of_file(files: LakeFiles, path: str, where: str, terms: Terms) -> Iterator[Trace]:
    if terms.stand_in(path.encode("utf-8", "surrogateescape")):
        yield Trace(where, "name of a file", path)
    try:
        root = files.local_root
        data = files.get(path) if root is None else (root / path).read_bytes()
    except FileNotFoundError:
        return  # it went meanwhile
    for place in sorted(places(data, terms)):
        yield Trace(where, place, path)


def kind_of(path: str, named: Iterable[str]) -> str:
    """What a file of a lake is. named: data files that the logs of tables name as they are now."""
    parts = path.split("/")
    if parts[0] in TABLES:
        if parts[1] != "_delta_log":
            return "data file" if path in named else "data file that no log names"
        if "checkpoint" in parts[-1]:
            return "checkpoint"
        return "entry of a log" if re.fullmatch(r"\d{20}\.json", parts[-1]) else "file of a log"
    if parts[0] == STAGING:
        return "staged file"
    if parts[0] == SPILLED:
        return "spilled file"
    return f"file of {parts[0]}" if parts[0].startswith("_") else "file"


def counts(traces: Iterable[Trace]) -> Mapping[str, int]:
    """How many there are of each kind."""
    return dict(sorted(Counter(trace.kind for trace in traces).items()))
