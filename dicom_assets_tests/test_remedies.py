"""The remedy of each reason code works when it is followed: the code is caused, the remedy done, the outcome changed.

Adding a code asks for one function here or in `remedies_of_reading`, which causes it and does what `schema/codes.py`
says, or for a line in NOTHING: why nothing has to be done. Reading the remedy and the function side by side is the
review.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from pydicom.dataset import Dataset

from dicom_assets.batch.erasure.target import Scope, Target
from dicom_assets.batch.reread import Choice, choose, claim_chosen
from dicom_assets.defs.sensors import mark
from dicom_assets.defs.single_batches import dismiss
from dicom_assets.schema.codes import CODES
from dicom_assets.settings import GateSettings
from dicom_assets_tests import remedies_of_reading as remedies_of_reading  # enters its cases
from dicom_assets_tests.dicom import raw
from dicom_assets_tests.landing.zip_forge import Record, forge
from dicom_assets_tests.support.canaries import erased
from dicom_assets_tests.support.dicoms import dicom, uid, without_identity
from dicom_assets_tests.support.lakes import make_asset, settings_for
from dicom_assets_tests.support.landings import LandingFolder, zipped
from dicom_assets_tests.support.remedies import (
    CASES,
    SENT,
    SET,
    TOGETHER,
    Courses,
    Zone,
    remedied_together,
    remedy,
    run_with,
    sections,
    sent_again,
    sent_as,
)
from dicom_assets_tests.support.steps import Stepped
from dicom_assets_tests.support.workbooks import workbook

NOTHING = {
    "TRAILING_BYTES": "the object is in the lake, whole",
    "OFFSET_TABLE_INVALID": "the object is in the lake, and its frames are found without the table",
    "UID_INVALID": "the object is in the lake, and its UID joins as it was written",
    "GONE_SINCE_READ": "what was read of the object is in the lake",
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
    "CORRECTIONS_NOT_EXPECTED": "batch/test_corrections.py",
    "CORRECTIONS_UNREADABLE": "batch/test_corrections.py",
    "CORRECTION_INVALID": "batch/test_corrections.py",
    "CORRECTION_CONTRADICTED": "batch/test_corrections.py",
    "PATIENT_LINK_CYCLE": "batch/test_corrections.py",
    "CHANGE_INVALID": "service/test_batches.py",
    "CHANGE_PAGE_UNREADABLE": "service/test_batches.py",
}
"""Codes of sources, services, organizing and several deliveries: the tests there cause them and do what they say."""


@pytest.fixture
def zone(landing: LandingFolder, stepped: Stepped) -> Zone:
    stepped.judges = False  # cases that come together ask every rule
    made = Zone(landing, stepped)
    made.settle()
    return made


# Sent again, in order this time.


def pixels(count: int) -> bytes:
    """An image of 8 by 8, with so many of its bytes."""
    image = {"Rows": 8, "Columns": 8, "SamplesPerPixel": 1, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    return dicom(11, **image, PixelRepresentation=0, PhotometricInterpretation="MONOCHROME2", PixelData=bytes(count))


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


MESSAGE = b"MSH|^~\\&|LAB|H|||20240305||ORU^R01|1|P|2.5\rPID|1||P1\r"
TABLE = [["PatientID", "diagnosis"], ["P1", "R91.8"]]
sent_as("CONTAINER_UNSUPPORTED", "a.7z", b"7z\xbc\xaf\x27\x1c\0\4", "a.zip", ZIP, good_at="1.dcm")
sent_as("COMPRESSED_FILE_UNSUPPORTED", "a.gz", gzip.compress(GOOD), "a.dcm", GOOD)
sent_as("SPREADSHEET_UNSUPPORTED", "a.xls", b"\x09\x08\x08\x00\x00\x05" + bytes(500), "a.xlsx", workbook(TABLE))
sent_as("HL7_UNSUPPORTED", "a.hl7", MESSAGE, "a.ndjson", (PATIENT % 3).encode())


# A bound is raised, or a name configured, and the batch run again.


def nested(depth: int) -> Dataset:
    item = Dataset()
    if depth:
        item.ReferencedSeriesSequence = [nested(depth - 1)]
    item.Modality = "CT"
    return item


run_with("DEPTH_CAPPED", dicom(12, ReferencedSeriesSequence=[nested(3)]),
         before={"reading": {"max_depth": 2}}, after={"reading": {"max_depth": 32}})  # fmt: skip
run_with("HEADER_CAPPED", dicom(13, TextValue="x" * 2_000),
         before={"reading": {"max_value_bytes": 1_024}}, after={"reading": {"max_value_bytes": 8_192}})  # fmt: skip
run_with("TOO_LARGE", dicom(14, DataSetTrailingPadding=bytes(8_000)),
         before={"reading": {"max_object_bytes": 6_000}}, after={"reading": {"max_object_bytes": 10_000}})  # fmt: skip
run_with("ARCHIVE_LIMIT", zipped({"1.dcm": dicom(15), "2.dcm": dicom(16)}), "a.zip", good_at="2.dcm",
         before={"archives": {"max_entries": 1}}, after={"archives": {"max_entries": 9}})  # fmt: skip
run_with("CLINICAL_UNREADABLE", b"Pat No;diagnosis\nP1;R91.8\nP2;M54.5\n", "a.csv",
         before={}, after={"clinical": {"patient_id_columns": ["PatientID", "Pat No"]}})  # fmt: skip
run_with("SHEETS_PASSED_OVER", workbook(TABLE, [["Pat No", "diagnosis"], ["P2", "M54.5"]]), "a.xlsx",
         before={}, after={"clinical": {"patient_id_columns": ["PatientID", "Pat No"]}})  # fmt: skip


@remedied_together("SOP_INSTANCE_CONFLICT")
def _(zone: Zone, folder: str) -> Iterator[None]:
    instances = f"FROM instance WHERE StudyInstanceUID = '{uid(31)}'"
    zone.landing.put(f"{folder}/a.dcm", dicom(31, 1, 1, InstanceNumber=1))
    zone.landing.put(f"{folder}/b.dcm", dicom(31, 1, 1, InstanceNumber=2))
    yield
    yield
    for name in ("a.dcm", "b.dcm"):
        assert zone.codes(name, folder=folder) == {"SOP_INSTANCE_CONFLICT", "ingested"}
    assert len(zone.graph.rows(instances)) == 1
    zone.landing.put(f"{folder}/b.dcm", dicom(31, 1, 2, InstanceNumber=2))
    yield
    yield
    assert zone.codes("b.dcm", folder=folder) == {"ingested"}
    assert len(zone.graph.rows(instances)) == 2


@remedied_together("LINK_NOT_FOLLOWED")
def _(zone: Zone, folder: str) -> Iterator[None]:
    """A link out of the zone; then the file itself."""
    outside = zone.landing.root.parent / "outside.dcm"
    outside.write_bytes(GOOD)
    link = zone.landing.root / folder / "a.dcm"
    link.parent.mkdir()
    link.symlink_to(outside)
    os.utime(link, (1e9, 1e9), follow_symlinks=False)
    yield
    yield
    assert zone.codes("a.dcm", folder=folder) == {"LINK_NOT_FOLLOWED", "ignored"}
    link.unlink()
    zone.landing.put(f"{folder}/a.dcm", GOOD)
    yield
    yield
    assert zone.codes("a.dcm", folder=folder) == {"ingested"}


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


def rules(*, are_met: bool) -> tuple[dict[str, str], ...]:
    """A rule of the house for each of two patients, that nobody meets or everybody."""
    met = "true" if are_met else "IssuerOfPatientID IS NOT NULL"
    told = (("of-failed", "quarantine"), ("of-warned", "warn"))
    return tuple({"name": who, "condition": f"PatientID <> '{who}' OR {met}", "effect": what} for who, what in told)


@remedy("DISMISSED", "ERASED", "RULE_FAILED", "RULE_WARNING")
def _(zone: Zone) -> None:
    """A batch is dismissed, a study erased, and rules are changed: what arrives again or is read again is ingested."""
    zone.settle(rules=rules(are_met=False))
    zone.landing.put("dismissed.dcm", dicom(2))
    (batch,) = zone.graph.claim()
    with zone.graph.work() as work:
        dismiss(work, zone.graph.instance, batch, "somebody", "a mistake")
    assert zone.codes("dismissed.dcm") == {"DISMISSED", "quarantined"}

    zone.landing.put("dismissed.dcm", dicom(2), age_seconds=3_600)
    zone.landing.put("study/1.dcm", dicom(1, 1, 1))
    zone.landing.put("failed.dcm", dicom(3, PatientID="of-failed"))
    zone.landing.put("warned.dcm", dicom(4, PatientID="of-warned"))
    zone.ingest()
    assert zone.codes("dismissed.dcm") == {"ingested"}
    assert zone.codes("failed.dcm") == {"RULE_FAILED", "quarantined"}
    assert zone.codes("warned.dcm") == {"RULE_WARNING", "ingested"}

    erased(zone.graph, Target(Scope.STUDY, uid(1)))
    zone.landing.put("study/2.dcm", dicom(1, 1, 2))
    (batch,) = zone.ingest()
    assert zone.codes("2.dcm") == {"ERASED", "ignored"}

    zone.settle(rules=rules(are_met=True), erase={"re_arrival": "admit"})
    with zone.graph.work() as work:
        (claim,) = claim_chosen(work, choose(work, Choice(codes=("RULE_FAILED", "RULE_WARNING"))))
    zone.run_again(claim.batch_id)
    assert zone.codes("failed.dcm") == zone.codes("warned.dcm") == {"ingested"}
    zone.run_again(batch)
    assert zone.codes("2.dcm") == {"ingested"}


@remedy("RUN_FAILED")
def _(zone: Zone) -> None:
    zone.landing.put("a.dcm", GOOD)
    (batch,) = zone.graph.claim()
    with zone.graph.work() as work:
        for name in ("raw_files", "validated_batch"):
            make_asset(name, batch, work)
    with zone.graph.work() as work:
        mark(work, batch, "run")
    assert zone.of_batches() == {"RUN_FAILED"}
    zone.run_again(batch)
    assert zone.of_batches() == set()


def test_every_code_has_a_case_or_needs_none():
    alone = [code for codes in CASES for code in codes]
    assert sorted([*alone, *TOGETHER, *SENT, *SET, *NOTHING, *ELSEWHERE]) == sorted(CODES)


@pytest.mark.parametrize("code", sorted(ELSEWHERE))
def test_a_code_that_is_caused_elsewhere_is_named_there(code):
    assert code in (Path(__file__).parent / ELSEWHERE[code]).read_text(encoding="utf-8")


@pytest.mark.parametrize("code", sorted(NOTHING))
def test_where_nothing_has_to_be_done_the_remedy_says_so(code):
    assert CODES[code].remedy.startswith(("Nothing", "See detail and the message"))


@contextmanager
def zone_in(folder: Path, *, judges: bool, **sections: dict) -> Iterator[Zone]:
    """A landing folder for the cases of a module, each in a folder of its own. judges: see `Stepped`."""
    (folder / "landing").mkdir()
    landing = LandingFolder(folder / "landing")
    with dg.DagsterInstance.ephemeral() as instance:
        made = Zone(landing, Stepped(settings_for(folder / "lake", landing.root), instance, judges=judges))
        made.settle(**sections)
        yield made


Outcomes = dict[str, tuple[set[str], set[str]]]
"""By code, what was said of an object, and what was said when the remedy had been done."""


@pytest.fixture(scope="module")
def delivered(tmp_path_factory) -> tuple[Outcomes, Courses]:
    """All objects that are put right by another delivery: in one batch, and again in a second one; with TOGETHER."""
    with zone_in(tmp_path_factory.mktemp("sent"), judges=True) as zone:
        courses = Courses(zone)

        def take() -> None:
            courses.go_on()
            batches = zone.claim()  # what could not be read before comes in one of its own
            courses.go_on()
            for batch in batches:
                zone.graph.run(batch)

        for code, case in SENT.items():
            zone.landing.put(f"{code}/{case.bad[0]}", case.bad[1])
        take()
        first = {code: case.outcome(zone, code) for code, case in SENT.items()}
        for code, case in SENT.items():
            zone.landing.put(f"{code}/{case.good[0]}", case.good[1], age_seconds=3_600)
        take()
        courses.go_on()
        return {code: (first[code], case.outcome_in_the_end(zone, code)) for code, case in SENT.items()}, courses


@pytest.fixture(scope="module")
def run_again(tmp_path_factory) -> Outcomes:
    """All objects that are put right by other settings: in one batch, which is run again with these."""
    with zone_in(tmp_path_factory.mktemp("set"), judges=False, **sections(one.before for one in SET.values())) as zone:
        for code, case in SET.items():
            zone.landing.put(f"{code}/{case.bad[0]}", case.bad[1])
        (batch,) = zone.ingest()
        first = {code: case.outcome(zone, code) for code, case in SET.items()}
        zone.settle(**sections(one.after for one in SET.values()))
        zone.run_again(batch)
        return {code: (first[code], case.outcome_in_the_end(zone, code)) for code, case in SET.items()}


@pytest.mark.parametrize("code", sorted(SENT))
def test_what_is_delivered_again_as_the_remedy_says_is_ingested(code, delivered):
    bad, good = delivered[0][code]
    assert code in bad
    assert bad == {code, "quarantined"} or not SENT[code].is_alone
    assert good == {"ingested"}


@pytest.mark.parametrize("code", sorted(SET))
def test_what_is_read_with_the_settings_that_the_remedy_names_is_ingested(code, run_again):
    bad, good = run_again[code]
    assert code in bad
    assert "run its batch again" in CODES[code].remedy
    assert all(
        f"{section}.{name}" in CODES[code].remedy for section, values in SET[code].after.items() for name in values
    )
    assert good == {"ingested"}


@pytest.mark.parametrize("code", sorted(TOGETHER))
def test_the_remedy_works_among_others(code, delivered):
    _, courses = delivered
    if code in courses.failed:
        raise courses.failed[code]
    assert code in courses.ended


@pytest.mark.slow
@pytest.mark.parametrize("codes", sorted(CASES), ids=", ".join)
def test_the_remedy_works(codes, zone):
    CASES[codes](zone)
