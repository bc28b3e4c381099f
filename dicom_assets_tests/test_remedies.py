"""The remedy of each reason code works when it is followed: the code is caused, the remedy done, the outcome changed.

Adding a code asks for one function here, which causes it and does what `schema/codes.py` says, or for a line in
NOTHING: why nothing has to be done. Reading the remedy and the function side by side is the review.
"""

from __future__ import annotations

import gzip
import mmap
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_assets.batch.context import Work
from dicom_assets.defs.sensors import mark
from dicom_assets.landing.claims import Haste, claim_new
from dicom_assets.reading import judge, kinds
from dicom_assets.reading.engine import ProcessEngine
from dicom_assets.schema.codes import CODES
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.feed import read_window
from dicom_assets.service.window_files import land, window_path
from dicom_assets.settings import GateSettings
from dicom_assets_tests.dicom import raw
from dicom_assets_tests.landing.zip_forge import Record, forge
from dicom_assets_tests.service.test_batches import Synced, one, synced, window
from dicom_assets_tests.support.dicoms import dicom, uid, without_identity
from dicom_assets_tests.support.faults import refusing
from dicom_assets_tests.support.lakes import BATCH_STEPS, Graph, make_asset, settings_for
from dicom_assets_tests.support.landings import LandingFolder, zipped
from dicom_assets_tests.support.workbooks import workbook

NOTHING = {
    "TRAILING_BYTES": "the object is in the lake, whole",
    "UID_INVALID": "the object is in the lake, and its UID joins as it was written",
    "NOT_DICOM": "it is not for the lake",
    "DOCUMENT": "it is not for the lake",
    "DICOMDIR": "the files that it lists are read by themselves",
    "SYSTEM_FILE": "it is not for the lake",
    "CHANGE_SUPERSEDED": "the entry that deletes the instance follows",
    "NO_RECORDS": "there is nothing to take from it",
    "ARCHIVE_EXPANDED": "the members are counted one by one",
    "EVENT_UNREADABLE": "no object is concerned: listings find what events miss, and the message is kept for a person",
}
"""Codes whose remedy asks for nothing that would change the lake, and why."""


ELSEWHERE = {
    "SOURCE_EMPTIED": "batch/test_emptied_sources.py",
    "FOLDER_UNREADABLE": "batch/test_passed_over.py",
    "NOT_MOVED": "batch/test_organize.py",
    "IDENTITY_CHANGED": "clinical/test_identity.py",
}
"""Codes of sources, of organizing and of several deliveries: the tests there cause them and do what the remedy says."""


@dataclass
class Zone:
    """A landing folder and its lake."""

    landing: LandingFolder
    graph: Graph

    def settle(self, **sections: dict) -> None:
        """Other settings from now on."""
        root = self.landing.root
        self.graph.settings = settings_for(
            Path(self.graph.settings.lake), root, gate={"quarantined_share": 1}, **sections
        )

    def ingest(self) -> list[str]:
        """What `dicom-assets ingest` claims and runs; the batches."""
        with self.graph.work() as work:
            (store,) = work.stores()
            done = claim_new(store, work.log, self.graph.settings.claiming, haste=Haste(waiting=True, absent=True))
        batches = [claim.batch_id for claim in done.claims]
        self.graph.instance.add_dynamic_partitions("batch", batches)
        for batch in batches:
            self.graph.run(batch)
        return batches

    def run_again(self, batch: str) -> None:
        """What a backfill of one batch does."""
        assert self.graph.run(batch).success, self.graph.books(batch).reason
        assert self.graph.books(batch).status == "closed"

    def codes(self, name: str) -> set[str]:
        """Every code that the newest batch that has an object or member of this name says of it."""
        rows = self.graph.rows(
            f"""
            SELECT r.batch_id, r.claimed_at, v.outcome, list(e.code) FILTER (e.code IS NOT NULL) AS codes
            FROM raw_files r JOIN validated_batch v USING (batch_id, object_id)
            LEFT JOIN ingestion_errors e USING (batch_id, object_id)
            WHERE coalesce(r.member, r.uri) LIKE '%{name}'
            GROUP BY r.batch_id, r.claimed_at, r.object_id, v.outcome ORDER BY r.claimed_at DESC
            """
        )
        return {*(rows[0]["codes"] or ()), rows[0]["outcome"]} if rows else set()

    def of_batches(self) -> set[str]:
        """Every code that stands in ingestion_errors."""
        return {row["code"] for row in self.graph.rows("SELECT DISTINCT code FROM ingestion_errors")}


CASES: dict[str, Callable[[Zone], None]] = {}


def remedy(code: str) -> Callable[[Callable[[Zone], None]], Callable[[Zone], None]]:
    """Enters the case of a code."""

    def enter(case: Callable[[Zone], None]) -> Callable[[Zone], None]:
        assert code not in CASES
        CASES[code] = case
        return case

    return enter


@pytest.fixture
def zone(landing: LandingFolder, graph: Graph) -> Zone:
    made = Zone(landing, graph)
    made.settle()
    return made


# Sent again, in order this time.


def sent_again(code: str, bad: bytes, good: bytes, name: str = "a.dcm", *, at: str = "", good_at: str = "") -> None:
    """Enters a case in which the object is delivered again under its name; at: the member that the code is of."""

    def case(zone: Zone) -> None:
        zone.landing.put(name, bad)
        zone.ingest()
        assert code in zone.codes(at or name)
        zone.landing.put(name, good, age_seconds=3_600)
        zone.ingest()
        assert zone.codes(good_at or at or name) == {"ingested"}

    remedy(code)(case)


def pixels(count: int) -> bytes:
    image = {"Rows": 8, "Columns": 8, "SamplesPerPixel": 1, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    return dicom(**image, PixelRepresentation=0, PhotometricInterpretation="MONOCHROME2", PixelData=bytes(count))


def with_text(text: bytes) -> bytes:
    return dicom(SpecificCharacterSet="ISO_IR 192", StudyDescription="@" * len(text)).replace(b"@" * len(text), text)


def called_deflated(data: bytes) -> bytes:
    """The object with a transfer syntax that its data set does not have."""
    told = data.replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x16\x001.2.840.10008.1.2.1.99")
    length = int.from_bytes(data[140:144], "little") + len(told) - len(data)
    return told[:140] + length.to_bytes(4, "little") + told[144:]


GOOD, ZIP = dicom(), zipped({"1.dcm": dicom()})
sent_again("TRUNCATED_PIXEL_DATA", pixels(32), pixels(64))
sent_again("TRUNCATED_DATA_SET", GOOD[:-1], GOOD)
sent_again("VALUE_INVALID", GOOD.replace(b"20240131", b"20249931"), GOOD)
sent_again("CHARSET_UNDECODABLE", with_text(b"\xff\xfe"), GOOD)
sent_again("META_MISSING", dicom(preamble=False), GOOD)
sent_again("SOP_INSTANCE_UID_MISMATCH", GOOD.replace(uid(1, 1, 1).encode(), uid(1, 1, 2).encode(), 1), GOOD)
sent_again("PATIENT_ID_MISSING", dicom(PatientID=None), GOOD)
sent_again("EMPTY_FILE", b"", GOOD)
sent_again("TRUNCATED_HEADER", GOOD[:400], GOOD)
sent_again("UNPARSEABLE", called_deflated(GOOD), GOOD)
sent_again("MISSING_IDENTITY", without_identity(), GOOD)
sent_again("ARCHIVE_UNREADABLE", ZIP[:-30], ZIP, "a.zip", good_at="1.dcm")
sent_again("ARCHIVE_METHOD_UNSUPPORTED", forge([Record(b"1.dcm", GOOD, method=6)]), ZIP, "a.zip", at="1.dcm")
sent_again("ARCHIVE_ENCRYPTED", forge([Record(b"1.dcm", GOOD, flags=1)]), ZIP, "a.zip", at="1.dcm")
sent_again("ARCHIVE_MEMBER_UNSAFE", forge([Record(b"/1.dcm", GOOD)]), ZIP, "a.zip", at="1.dcm")
PATIENT = '{"resourceType": "Patient", "id": "%s", "identifier": [{"value": "P1"}]}\n'
sent_again("RECORD_INVALID", (PATIENT % 1 + PATIENT.replace("}]}", "}") % 2).encode(),
           (PATIENT % 1 + PATIENT % 2).encode(), "a.ndjson")  # fmt: skip


def sent_as(code: str, name: str, bad: bytes, good_name: str, good: bytes, *, good_at: str = "") -> None:
    """Enters a case in which the content is delivered in another form."""

    def case(zone: Zone) -> None:
        zone.landing.put(name, bad)
        zone.ingest()
        assert zone.codes(name) == {code, "quarantined"}
        zone.landing.put(good_name, good)
        zone.ingest()
        assert zone.codes(good_at or good_name) == {"ingested"}

    remedy(code)(case)


MESSAGE = b"MSH|^~\\&|LAB|H|||20240305||ORU^R01|1|P|2.5\rPID|1||P1\r"
TABLE = [["PatientID", "diagnosis"], ["P1", "R91.8"]]
sent_as("CONTAINER_UNSUPPORTED", "a.7z", b"7z\xbc\xaf\x27\x1c\0\4", "a.zip", ZIP, good_at="1.dcm")
sent_as("COMPRESSED_FILE_UNSUPPORTED", "a.gz", gzip.compress(GOOD), "a.dcm", GOOD)
sent_as("SPREADSHEET_UNSUPPORTED", "a.xls", b"\x09\x08\x08\x00\x00\x05" + bytes(500), "a.xlsx", workbook(TABLE))
sent_as("HL7_UNSUPPORTED", "a.hl7", MESSAGE, "a.ndjson", (PATIENT % 1).encode())


# A bound is raised, or a name configured, and the batch run again.


def run_with(code: str, data: bytes, name: str = "a.dcm", *, good_at: str = "", before: dict, after: dict) -> None:
    """Enters a case in which settings are changed. before, after: sections of settings."""

    def case(zone: Zone) -> None:
        zone.settle(**before)
        zone.landing.put(name, data)
        (batch,) = zone.ingest()
        assert code in zone.codes(name)
        (section, values), *_ = after.items()
        for setting in values:
            assert f"{section}.{setting}" in CODES[code].remedy
        zone.settle(**after)
        zone.run_again(batch)
        assert zone.codes(good_at or name) == {"ingested"}

    assert "run its batch again" in CODES[code].remedy
    remedy(code)(case)


def nested(depth: int) -> Dataset:
    item = Dataset()
    if depth:
        item.ReferencedSeriesSequence = [nested(depth - 1)]
    item.Modality = "CT"
    return item


run_with("DEPTH_CAPPED", dicom(ReferencedSeriesSequence=[nested(3)]),
         before={"reading": {"max_depth": 2}}, after={"reading": {"max_depth": 32}})  # fmt: skip
run_with("HEADER_CAPPED", dicom(TextValue="x" * 4_000),
         before={"reading": {"max_value_bytes": 1_024}}, after={"reading": {"max_value_bytes": 8_192}})  # fmt: skip
run_with("TOO_LARGE", GOOD,
         before={"reading": {"max_object_bytes": 100}}, after={"reading": {"max_object_bytes": 10_000}})  # fmt: skip
run_with("ARCHIVE_LIMIT", zipped({"1.dcm": dicom(), "2.dcm": dicom(2)}), "a.zip", good_at="2.dcm",
         before={"archives": {"max_entries": 1}}, after={"archives": {"max_entries": 9}})  # fmt: skip
run_with("CLINICAL_UNREADABLE", b"Pat No;diagnosis\nP1;R91.8\nP2;M54.5\n", "a.csv",
         before={}, after={"clinical": {"patient_id_columns": ["Pat No"]}})  # fmt: skip
run_with("SHEETS_PASSED_OVER", workbook(TABLE, [["Pat No", "diagnosis"], ["P2", "M54.5"]]), "a.xlsx",
         before={}, after={"clinical": {"patient_id_columns": ["PatientID", "Pat No"]}})  # fmt: skip


@remedy("SOP_INSTANCE_CONFLICT")
def _(zone: Zone) -> None:
    zone.landing.put("a.dcm", dicom(1, 1, 1, InstanceNumber=1))
    zone.landing.put("b.dcm", dicom(1, 1, 1, InstanceNumber=2))
    zone.ingest()
    assert zone.codes("a.dcm") == zone.codes("b.dcm") == {"SOP_INSTANCE_CONFLICT", "ingested"}
    assert len(zone.graph.rows("FROM instance")) == 1
    zone.landing.put("b.dcm", dicom(1, 1, 2, InstanceNumber=2))
    zone.ingest()
    assert zone.codes("b.dcm") == {"ingested"}
    assert len(zone.graph.rows("FROM instance")) == 2


# What reads comes to an end.

SLOW, LARGE, KILLED = "is read in two seconds", "is read in 500 MB", "is read by processes that are killed"


def judge_slowly(chunk, beat):
    """The real judgement, with a reader that needs time, memory or peace for some objects."""
    read_header = kinds.read_header

    def reading(source, *arguments):
        content = source.read(0, 4_096)
        if SLOW.encode() in content:
            time.sleep(2)
        if LARGE.encode() in content:
            held = bytearray(500 << 20)
            held[:: mmap.PAGESIZE] = bytes(len(range(0, len(held), mmap.PAGESIZE)))
            time.sleep(0.3)
        if KILLED.encode() in content and Path(chunk.settings.root, "../short-of-memory").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return read_header(source, *arguments)

    kinds.read_header = reading
    try:
        return judge.judge_chunk(chunk, beat)
    finally:
        kinds.read_header = read_header


class Slow:
    """Reading processes with the reader above."""

    def __init__(self, engine: ProcessEngine) -> None:
        self._engine = engine

    def run(self, function, chunks):
        return self._engine.run(judge_slowly if function is judge.judge_chunk else function, chunks)


def run_in_processes(zone: Zone, batch: str) -> None:
    settings = zone.graph.settings
    with ProcessEngine(settings.reading) as engine, Work(settings, shared_engine=Slow(engine)) as work:
        for name in BATCH_STEPS:
            make_asset(name, batch, work)


def read_again(code: str, what: str, setting: str, low: float, high: float) -> None:
    """Enters a case in which a bound of the reading of one object is raised."""

    def case(zone: Zone) -> None:
        zone.landing.put("a.dcm", dicom(SeriesDescription=what))
        zone.settle(reading={setting: low})
        (batch,) = zone.graph.claim()
        run_in_processes(zone, batch)
        assert zone.codes("a.dcm") == {code, "quarantined"}
        assert f"reading.{setting}" in CODES[code].remedy
        assert "run its batch again" in CODES[code].remedy
        zone.settle(reading={setting: high})
        run_in_processes(zone, batch)
        assert zone.codes("a.dcm") == {"ingested"}
        assert zone.graph.books(batch).status == "closed"

    remedy(code)(case)


read_again("PARSER_TIMEOUT", SLOW, "object_seconds", 0.8, 20)
read_again("PARSER_CRASH", LARGE, "worker_memory_bytes", 2**28, 2**31)


# What could not be read, or was not there.


@remedy("READER_KILLED")
def _(zone: Zone) -> None:
    short = zone.landing.root.parent / "short-of-memory"
    short.touch()
    zone.landing.put("a.dcm", dicom(SeriesDescription=KILLED))
    (batch,) = zone.graph.claim()
    run_in_processes(zone, batch)
    with zone.graph.work() as work:
        assert work.log.returned()["code"].to_pylist() == ["READER_KILLED"]
    assert zone.codes("a.dcm") == set()
    short.unlink()
    zone.ingest()
    assert zone.codes("a.dcm") == {"ingested"}


@remedy("READ_FAILED")
def _(zone: Zone) -> None:
    with refusing(zone.landing.put("a.dcm", GOOD)):
        zone.ingest()
    with zone.graph.work() as work:
        assert work.log.returned()["code"].to_pylist() == ["READ_FAILED"]
    zone.ingest()
    assert zone.codes("a.dcm") == {"ingested"}


@remedy("SOURCE_UNAVAILABLE")
def _(zone: Zone) -> None:
    zone.landing.put("a.dcm", GOOD)
    (batch,) = zone.graph.claim()
    root, away = zone.landing.root, zone.landing.root.with_name("away")
    root.rename(away)
    zone.graph.run(batch)
    assert zone.graph.books(batch).status == "paused"
    assert "SOURCE_UNAVAILABLE" in zone.codes("a.dcm")
    away.rename(root)
    zone.run_again(batch)
    assert zone.codes("a.dcm") == {"ingested"}


@remedy("OBJECT_GONE")
def _(zone: Zone) -> None:
    path = zone.landing.put("a.dcm", GOOD)
    (batch,) = zone.graph.claim()
    moved = path.rename(zone.landing.root.parent / "moved by mistake")
    zone.graph.run(batch)
    assert zone.codes("a.dcm") == {"OBJECT_GONE", "quarantined"}
    moved.rename(path)
    zone.ingest()
    assert zone.codes("a.dcm") == {"ingested"}


@remedy("CHANGED_DURING_READ")
def _(zone: Zone) -> None:
    zone.landing.put("a.dcm", GOOD)
    (batch,) = zone.graph.claim()
    zone.landing.put("a.dcm", GOOD, age_seconds=3_600)
    zone.graph.run(batch)
    assert zone.codes("a.dcm") == {"CHANGED_DURING_READ", "quarantined"}
    zone.ingest()
    assert zone.codes("a.dcm") == {"ingested"}


# Windows of a DICOM service.


def read_window_again(code: str, spoil: Callable[[Synced], None]) -> None:
    """Enters a case in which the window is read again when file or service are in order."""

    def case(zone: Zone) -> None:
        with synced(zone.landing.root.parent / "service") as service:
            for number in range(30):
                service.model.store(one(number))
            spoil(service)
            service.graph.ingest()
            assert {code} == {row["code"] for row in service.graph.rows("SELECT code FROM ingestion_errors "
                                                                        "WHERE severity = 'error'")}  # fmt: skip
            service.sync(0)
            assert service.current() == service.expected()

    remedy(code)(case)


def spoil_entry(service: Synced) -> None:
    with ServiceClient(service.service) as client:
        pages = list(read_window(client, window(0)))
    del pages[0].entries[3]["action"]
    land(service.service, window_path(window(0)), window(0), pages, "v2")


def spoil_file(service: Synced) -> None:
    """The file is cut short; and deleted, as the remedy says, once it has been read."""
    service.land(0)
    path = Path(service.service.landing) / window_path(window(0))
    path.write_bytes(path.read_bytes()[:-5])
    service.graph.ingest()
    path.unlink()


read_window_again("CHANGE_INVALID", spoil_entry)
read_window_again("CHANGE_PAGE_UNREADABLE", spoil_file)


@remedy("LINK_NOT_FOLLOWED")
def _(zone: Zone) -> None:
    """A link out of the zone; then the file itself."""
    outside = zone.landing.root.parent / "outside.dcm"
    outside.write_bytes(GOOD)
    link = zone.landing.root / "a.dcm"
    link.symlink_to(outside)
    os.utime(link, (1e9, 1e9), follow_symlinks=False)
    zone.ingest()
    assert zone.codes("a.dcm") == {"LINK_NOT_FOLLOWED", "ignored"}
    link.unlink()
    zone.landing.put("a.dcm", GOOD)
    zone.ingest()
    assert zone.codes("a.dcm") == {"ingested"}


sent_again(
    "RECORDS_ALL_INVALID",
    b'{"resourceType":"Patient"}\n{"resourceType":"Patient"}\n',
    b'{"resourceType":"Patient","id":"p1"}\n{"resourceType":"Patient","id":"p2"}\n',
    "a.ndjson",
)


IMAGE = (raw.element(0x00280010, "US", b"\x02\0"), raw.element(0x00280011, "US", b"\x02\0"))
sent_again("STRUCTURE_INVALID", raw.dicom(raw.sequence(0x00081140, b"\xfe\xff\xdd\xe0\0\0\0\0"), *IMAGE), GOOD)
sent_again("HEADER_INCOMPLETE", raw.dicom(*IMAGE) + bytes(200), GOOD)


# Of a batch.


@remedy("CHECK_FAILED")
def _(zone: Zone) -> None:
    zone.graph.settings = zone.graph.settings.model_copy(update={"gate": GateSettings(quarantined_share=0, minimum=1)})
    zone.landing.put("a.dcm", without_identity())
    (batch,) = zone.ingest()
    assert zone.graph.books(batch).status == "paused"
    assert zone.of_batches() == {"CHECK_FAILED", "MISSING_IDENTITY"}
    zone.settle()
    zone.run_again(batch)
    assert zone.of_batches() == {"MISSING_IDENTITY"}


@remedy("RUN_FAILED")
def _(zone: Zone) -> None:
    zone.landing.put("a.dcm", GOOD)
    (batch,) = zone.graph.claim()
    zone.graph.run(batch, select=["raw_files", "validated_batch"])
    with zone.graph.work() as work:
        mark(work, batch, zone.graph.results[batch].run_id)
    assert zone.of_batches() == {"RUN_FAILED"}
    zone.run_again(batch)
    assert zone.of_batches() == set()


def test_every_code_has_a_case_or_needs_none():
    assert {*CASES, *NOTHING, *ELSEWHERE} == set(CODES)
    assert len(CASES) + len(NOTHING) + len(ELSEWHERE) == len(CODES)


@pytest.mark.parametrize("code", sorted(ELSEWHERE))
def test_a_code_that_is_caused_elsewhere_is_named_there(code):
    assert code in (Path(__file__).parent / ELSEWHERE[code]).read_text(encoding="utf-8")


@pytest.mark.parametrize("code", sorted(NOTHING))
def test_where_nothing_has_to_be_done_the_remedy_says_so(code):
    assert CODES[code].remedy.startswith(("Nothing", "See detail and the message"))


@pytest.mark.parametrize("code", sorted(CASES))
def test_the_remedy_works(code, zone):
    CASES[code](zone)
