"""Writing the objects of a cohort into a folder or a container, with lists of what is there and what is not.

Belongs here: the order, going on after a kill, whether it may begin at all. Does not belong here: one object
(`objects_in_place`), the place (`destination`), identifiers (`deidentification`), the lists (`export_lists`).

An object that is not what the lake has read is told and not exported. What a destination has is written down behind
each object (`journal`), so that an export that was killed goes on; of what is there as it was written nothing is read
again. Two exports of a cohort in one form are the same, byte for byte: nothing that is written knows a time or a place.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb

from dicom_assets.curation.cohorts import frozen, mapping_keys
from dicom_assets.curation.cohorts.deidentification import MOST_BYTES, Deidentifier
from dicom_assets.curation.cohorts.destination import Destination, DestinationError, open_destination
from dicom_assets.curation.cohorts.export_lists import write_lists, write_mapping
from dicom_assets.curation.cohorts.frozen import Cohort, Entry
from dicom_assets.curation.cohorts.journal import Journal
from dicom_assets.curation.cohorts.objects_in_place import Copy, NotThere, Stores, Withheld, place_of, why_of
from dicom_assets.curation.cohorts.risks import require_low_risk
from dicom_assets.dicom.lenient import lenient
from dicom_assets.lake.delta import Lake
from dicom_assets.landing.retrieval import Place, entries_at
from dicom_assets.landing.store import ObjectError
from dicom_assets.settings import Settings
from dicom_assets.storage.azure import AddressError, parse_folder
from dicom_assets.storage.files import LakeFiles

LAYOUTS = ("study/series/instance", "series/instance", "instance")
"""Folders and name of an object; the first is the usual one."""
BUCKET = "s3://BUCKET"
"""What the list for s5cmd copies to where nothing is given."""
_AT_ONCE, _AT_ONCE_DEIDENTIFIED = 8, 2
_ARCHIVES_KNOWN = 8
_SAY_SECONDS = 5.0
_FIT = re.compile(r"[0-9]{1,62}(\.[0-9]{1,62})*")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """What is to be exported how. by: who asks; despite_risk: why all the same. bucket: what s5cmd would copy to."""

    destination: str
    by: str
    layout: str = LAYOUTS[0]
    deidentify: bool = False
    despite_risk: str | None = None
    bucket: str = BUCKET

    @property
    def form(self) -> str:
        """Layout, and whether identifiers are taken out, in words."""
        return f"{self.layout}{', de-identified' if self.deidentify else ''}"


@dataclass(frozen=True)
class Exported:
    """What an export has come to. written: now; there: before; missing: by reason. size: bytes of what was written.

    erased: objects that the cohort has lost to erasures, which earlier exports may have.
    """

    destination: str
    written: int
    there: int
    missing: Mapping[str, int]
    size: int
    erased: int

    @property
    def counts(self) -> dict[str, int]:
        """By what became of the objects."""
        return {"written": self.written, "there before": self.there, **self.missing}


def export_cohort(lake: Lake, settings: Settings, name: str, wish: Wish, say: Say = lambda _: None) -> Exported:
    """Exports a cohort, or what is left of it to be exported.

    Raises CohortError, RiskTooHigh, DestinationError, SettingsError when a source is not configured or the extra is
    missing; SourceUnavailable when one cannot be reached; LakeError. After the last two the next call goes on.
    """
    cohort = frozen.read(lake.files, name)
    if wish.layout not in LAYOUTS:
        raise DestinationError(f"Give one of {', '.join(LAYOUTS)} as --as. Nothing was written.")
    with frozen.held(lake.files, name), lenient(), lake.cursor() as connection:
        if not wish.deidentify and wish.despite_risk is None:
            require_low_risk(lake, name, settings.curation.export_risk_limit)
        home, deidentifier = lake.files, None
        if wish.deidentify:
            home, key = mapping_keys.open_keys(settings, name)
            deidentifier = Deidentifier(key)
        destination = open_destination(wish.destination, synced=settings.storage.survive_power_cuts)
        _require_outside(destination, settings)
        journal = Journal(home, _folder(cohort, destination, wish))
        if journal.is_new and not destination.is_empty():
            raise DestinationError(
                f"{destination.uri} is not empty, and this cohort was not exported to it in this form: give an empty "
                "folder or path. Nothing was written."
            )
        journal.begin()
        entry = Entry("export begun", frozen.now(), wish.by, wish.despite_risk, destination.uri, wish.form)
        kept = frozen.enter(lake.files, name, entry)
        run = _Run(lake.files, settings, name, wish, destination, journal, deidentifier, say)
        try:
            run.copy_all(connection)
            journal.flush()
            journal.load(connection)
            write_lists(connection, destination, name, wish.bucket, deidentifier)
            if deidentifier is not None:
                write_mapping(connection, home)
            journal.fold(connection)
        finally:
            journal.flush()
            if deidentifier is not None:
                mapping_keys.protect(home)
        erased = cohort.objects - frozen.left(lake.files, name)
        done = Exported(destination.uri, run.written, run.there, dict(run.missing), run.size, erased)
        frozen.enter(lake.files, name, replace(entry, what="exported", counts=done.counts), kept)
    return done


def _folder(cohort: Cohort, destination: Destination, wish: Wish) -> str:
    """Where the journal of an export lies below its home. A cohort that was removed and made anew is another one."""
    told = f"{destination.uri}\0{wish.layout}\0{wish.deidentify}\0{cohort.created_at}\0{cohort.objects}"
    short = hashlib.blake2b(told.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    home = "" if wish.deidentify else f"{frozen.folder_of(cohort.name)}/"
    return f"{home}{mapping_keys.JOURNALS}/{short}"


def _require_outside(destination: Destination, settings: Settings) -> None:
    """Raises DestinationError for a place within the lake, within a source, or around the keys."""
    place = _comparable(destination.uri)
    for what, root in (("the lake", settings.lake), *((f"source '{one.name}'", one.root) for one in settings.sources)):
        if place.startswith(_comparable(root)):
            raise DestinationError(f"A cohort is not exported into {what}: give another place. Nothing was written.")
    if _comparable(str(mapping_keys.root_of(settings))).startswith(place):
        raise DestinationError(
            "The keys of cohorts would lie within what is exported: give another place. Nothing was written."
        )


def _comparable(address: str) -> str:
    """An address by which another one is found to lie below it."""
    address = address.removeprefix("file://")
    if "://" not in address:
        return f"{os.path.realpath(address)}/"
    try:
        return f"{parse_folder(address).url}/"
    except AddressError:
        return f"{address}/"  # of another kind of storage


@dataclass
class _Run:
    """One export. written, there, missing, size: as of Exported."""

    files: LakeFiles
    settings: Settings
    name: str
    wish: Wish
    destination: Destination
    journal: Journal
    deidentifier: Deidentifier | None
    say: Say
    written: int = 0
    there: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    size: int = 0
    _stores: Stores = field(init=False)
    _entries: OrderedDict[tuple[str, str], Mapping[str, tuple[int, ...]]] = field(default_factory=OrderedDict)
    _looking: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Opens nothing yet."""
        self._stores = Stores(self.settings)

    def copy_all(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Copies what is not there yet."""
        self.journal.load(connection)
        total, said = frozen.left(self.files, self.name), time.monotonic()
        at_once = _AT_ONCE if self.deidentifier is None else _AT_ONCE_DEIDENTIFIED
        with ThreadPoolExecutor(at_once, thread_name_prefix="export") as pool:
            for done, (row, line) in enumerate(_in_order(pool, self._one, self._rows(connection), 2 * at_once), 1):
                self._count(row, line)
                if time.monotonic() - said >= _SAY_SECONDS:
                    said = time.monotonic()
                    self.say(f"Cohort {self.name}: {done} of {total} objects")

    def _rows(self, connection: duckdb.DuckDBPyConnection) -> Iterator[dict[str, Any]]:
        """The cohort's rows in their order, with what the journal says of each."""
        order = ", ".join(frozen.ORDER)
        for rows in frozen.rows(self.files, self.name):
            self._stores.open_those_of(rows)
            connection.register("some_rows", rows)
            joined = connection.sql(
                "SELECT some_rows.*, lines.path, lines.mark, lines.why FROM some_rows LEFT JOIN lines "
                f"USING (object_id) ORDER BY {order}"
            ).to_arrow_table()
            connection.unregister("some_rows")
            for batch in joined.to_batches(max_chunksize=1_000):
                yield from batch.to_pylist()

    def _count(self, row: Mapping[str, Any], line: Mapping[str, Any] | None) -> None:
        if line is None:
            self.there += 1
            return
        if line["why"] is None:
            self.written += 1
            self.size += line["size"]
        else:
            self.missing[line["why"]] += 1
        if line["why"] is None or line["why"] != row["why"]:
            self.journal.add(line)

    def _one(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Copies one object; its line, None where it is there already."""
        if row["mark"] is not None and self.destination.mark(row["path"]) == row["mark"]:
            return None
        try:
            return self._copied(row)
        except NotThere as error:
            uids = [row["StudyInstanceUID"], row["SeriesInstanceUID"], row["SOPInstanceUID"]]
            if self.deidentifier is not None:
                uids = [self.deidentifier.uid(one) for one in uids]
            return {"object_id": row["object_id"], "path": self._path(row, *uids), "why": error.why}

    def _copied(self, row: Mapping[str, Any]) -> dict[str, Any]:
        place = self._place(row)
        with closing(Copy(self._stores.of(row["source"]), row, place, self.settings)) as copy:
            if self.deidentifier is not None:
                return self._deidentified(row, copy, self.deidentifier)
            uids = (row["StudyInstanceUID"], row["SeriesInstanceUID"], row["SOPInstanceUID"])
            path = self._path(row, *uids)
            mark = self.destination.put(path, copy.blocks(), copy.size)
            told = {"object_id": row["object_id"], "path": path, "sha256": copy.sha256, "size": copy.size, "mark": mark}
            return {**told, **dict(zip(("study", "series", "instance"), uids, strict=True)), "why": None}

    def _deidentified(self, row: Mapping[str, Any], copy: Copy, deidentifier: Deidentifier) -> dict[str, Any]:
        if copy.size > MOST_BYTES:
            raise NotThere(Withheld.NOT_DEIDENTIFIED)
        made = deidentifier.deidentify(b"".join(copy.blocks()))
        uids = made.uids
        path = self._path(row, uids["study"], uids["series"], uids["instance"])
        size = len(made.data)
        told = {"object_id": row["object_id"], "path": path, "size": size, "why": None, "left": made.left}
        told["sha256"] = hashlib.sha256(made.data).hexdigest()
        told["mark"] = self.destination.put(path, iter([made.data]), size)
        told |= {name: uids[name] for name in ("study", "series", "instance", "patient")}
        return told | {f"former_{name}": value for name, value in made.former.items()}

    def _place(self, row: Mapping[str, Any]) -> Place:
        """Where an object lies; of a member also where its records stand. Raises NotThere."""
        place = place_of(row)
        if place is None:
            raise NotThere(Withheld.ELSEWHERE)
        if place.member is None:
            return place
        key = (place.uri, place.etag)
        with self._looking:  # so that an archive's directory is read once
            known = self._entries.get(key, {})
            if place.member not in known:
                store = self._stores.of(row["source"])
                try:
                    known = {**known, **entries_at(store, place, self.settings.archives)}
                except ObjectError as error:
                    raise NotThere(why_of(error)) from None
                self._entries[key] = known
            self._entries.move_to_end(key)
            while len(self._entries) > _ARCHIVES_KNOWN:
                self._entries.popitem(last=False)
        return place._replace(entry=known[place.member])

    def _path(self, row: Mapping[str, Any], study: str, series: str, instance: str) -> str:
        """Where an object goes. Two of one SOPInstanceUID have another name behind it."""
        name = _folder_name(instance)
        if row["is_twin"]:
            name += f"_{row['object_id'] if self.deidentifier is None else self.deidentifier.name(row['object_id'])}"
        parts = {"study": _folder_name(study), "series": _folder_name(series), "instance": f"{name}.dcm"}
        return "/".join(parts[one] for one in self.wish.layout.split("/"))


def _folder_name(uid: str) -> str:
    """A UID as the name of a file or folder; of what is none only a hash, which is fit for one."""
    if len(uid) <= 64 and _FIT.fullmatch(uid):
        return uid
    return f"uid-{hashlib.blake2b(uid.encode('utf-8', 'surrogateescape'), digest_size=10).hexdigest()}"


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[dict[str, Any]], dict[str, Any] | None],
    rows: Iterator[dict[str, Any]],
    ahead: int,
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """What comes of each row, in their order; so many are begun ahead. After an error none is begun any more."""
    waiting: deque[tuple[dict[str, Any], Future[dict[str, Any] | None]]] = deque()
    try:
        for row in rows:
            waiting.append((row, pool.submit(work, row)))
            if len(waiting) >= ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
