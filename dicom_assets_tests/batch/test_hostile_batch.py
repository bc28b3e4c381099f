"""A landing folder of hostile objects through the real flow: each ends in its code, every good object is ingested."""

import io
import zipfile

import pytest

from dicom_assets.batch.context import RunContext
from dicom_assets.lake.query import arrow, connect
from dicom_assets.landing.claims import claim_new
from dicom_assets.reading import judge
from dicom_assets.reading.engine import ProcessEngine
from dicom_assets_tests.dicom import raw
from dicom_assets_tests.dicom.test_hostile import HOSTILE
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.harmed_judge import CRASHES, GROWS, HANGS, KILLED, STALLED, judge_harmed
from dicom_assets_tests.support.lakes import TABLES_OF_A_BATCH, make_asset, settings_for
from dicom_assets_tests.support.landings import LandingFolder

GOOD = 30


class Harmed:
    """The reading processes, each with the reader above."""

    def __init__(self, engine):
        self._engine = engine

    def run(self, function, chunks):
        return self._engine.run(judge_harmed if function is judge.judge_chunk else function, chunks)


def zip_bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        blob = raw.element(0x00291010, "OB", bytes(64 << 20))
        behind = raw.element(0x00324000, "LT", "only inflating the whole member leads here")
        archive.writestr("bomb.dcm", raw.dicom(raw.element(0x00290010, "LO", "ACME"), blob, behind))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """(outcome, code) by file name, after one batch with everything in it."""
    folder = tmp_path_factory.mktemp("hostile")
    landing = LandingFolder(folder / "landing")
    for number in range(GOOD):
        landing.put(f"good/{number:04d}.dcm", dicom(1, 1, number + 1))
    for number, what in enumerate((CRASHES, HANGS, GROWS)):
        landing.put(f"good/{number * 9:04d}-bad.dcm", dicom(2, 1, number + 1, SeriesDescription=what))
    for number, what in enumerate((KILLED, STALLED)):
        sound = dicom(3, 1, number + 1, SeriesDescription=what, ImageComments=f"mark={folder / str(number)} ")
        landing.put(f"good/{number * 9 + 3:04d}-sound.dcm", sound)
    for number, (make, _) in enumerate(HOSTILE.values()):
        landing.put(f"hostile/{number:02d}.dcm", make())
    landing.put("hostile/bomb.zip", zip_bomb())
    limits = {"object_seconds": 2, "worker_memory_bytes": 2**28, "max_inflated_bytes": 32 << 20, "chunk_objects": 16}
    settings = settings_for(
        folder / "lake",
        landing.root,
        reading={**limits, "workers": 2},
        archives={"max_inflated_bytes": 8 << 20},
        gate={"quarantined_share": 1},
    )
    with ProcessEngine(settings.reading) as engine, RunContext(settings, shared_engine=Harmed(engine)) as work:
        ((made,),) = [claim_new(store, work.log, settings.claiming).claims for store in work.stores()]
        for name in TABLES_OF_A_BATCH:
            make_asset(name, made.batch_id, work)
        sql = "select uri, member, outcome, code from raw_files join validated_batch using (object_id)"
        rows = arrow(connect(work.lake), sql).to_pylist()
    return {(row["member"] or row["uri"]).rsplit("/", 1)[-1]: (row["outcome"], row["code"]) for row in rows}


@pytest.mark.slow
def test_every_good_object_is_ingested(ledger):
    assert [ledger[f"{number:04d}.dcm"] for number in range(GOOD)] == [("ingested", None)] * GOOD


def test_each_object_that_ends_a_process_has_its_own_code(ledger):
    assert ledger["0000-bad.dcm"] == ("quarantined", "PARSER_CRASH")
    assert ledger["0009-bad.dcm"] == ("quarantined", "PARSER_TIMEOUT")
    assert ledger["0018-bad.dcm"] == ("quarantined", "PARSER_CRASH")


def test_an_object_whose_process_was_killed_or_stood_still_once_is_ingested(ledger):
    assert ledger["0003-sound.dcm"] == ("ingested", None)
    assert ledger["0012-sound.dcm"] == ("ingested", None)


def test_each_hostile_object_ends_in_one_of_its_codes(ledger):
    for number, (name, (_, expected)) in enumerate(HOSTILE.items()):
        outcome, code = ledger[f"{number:02d}.dcm"]
        assert outcome in ("ingested", "quarantined"), name
        assert expected is None or (code or "sound") in expected, name


def test_a_zip_bomb_ends_at_its_limit(ledger):
    codes = {code for name, (_, code) in ledger.items() if name.startswith("bomb")}
    assert "ARCHIVE_LIMIT" in codes
