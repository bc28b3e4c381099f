"""After a power cut: whatever file is torn, every command ends with a sentence, and nothing is missing in the end.

A power cut leaves files that are empty or cut. Each kind of small file of a lake is torn here in turn.
"""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from dicom_assets.cli.main import app
from dicom_assets.lake import torn
from dicom_assets.lake.delta import Lake
from dicom_assets.landing.claims import ClaimLog
from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.files import LakeError
from dicom_assets_tests.support.lakes import contents
from dicom_assets_tests.verification.conftest import Broken

READING = (("status",), ("errors",), ("sql", "SELECT count(*) FROM study"))


def tear(path: Path, how: str) -> None:
    """Leaves nothing of a file, or half of it."""
    os.truncate(path, 0 if how == "empty" else path.stat().st_size // 2)


def asked(broken: Broken, *arguments: str) -> Result:
    """A command, which must not end in an exception; what it said."""
    where = ["--lake", str(broken.root)]
    if arguments[0] in ("ingest", "verify"):
        where += ["--landing", broken.settings.sources[0].root]
    done = CliRunner().invoke(app, [*arguments, *where])
    assert done.exception is None or isinstance(done.exception, SystemExit), (arguments, done.exception)
    assert done.exit_code in (0, 1, 2)
    if done.exit_code == 2:
        assert done.stderr.count("\n") == 1, "one sentence"
        assert "Run `dicom-assets" in done.stderr or "run `dicom-assets" in done.stderr
    return done


def newest(table: str) -> str:
    return f"{table}/_delta_log/*.json"


SMALL = {
    "the format number": "_lake.json",
    "the first claim": "_claims/000000000001.parquet",
    "the newest claim": "_claims/*.parquet",
    "a summary of counts": "_summaries/*.arrow",
    **{f"the newest entry of {table}": newest(table) for table in ("batches", "raw_files", "flat_metadata", "study")},
    "a data file": "instance/*.parquet",
}
"""Small files of a lake by what they are; of several the last one."""


TORN = (
    {"the format number": "empty", "the newest entry of raw_files": "cut"},
    {"the first claim": "cut", "a summary of counts": "cut", "the newest entry of flat_metadata": "empty"},
    {"the newest claim": "empty", "the newest entry of study": "cut", "a data file": "empty"},
    {"the newest entry of batches": "empty", "the format number": "cut", "a summary of counts": "empty"},
)
"""What is torn, and how, in one lake after the other: none of it is made again from what else is torn there."""


def test_each_kind_of_small_file_is_torn_somewhere():
    assert {what for torn_together in TORN for what in torn_together} == {*SMALL}


@pytest.mark.slow
def test_whatever_is_torn_no_command_ends_in_an_exception(broken):
    for what, how in itertools.chain(*(one.items() for one in TORN)):
        path = max(broken.root.glob(SMALL[what]))
        whole = path.read_bytes()
        tear(path, how)
        for arguments in READING:
            asked(broken, *arguments)
        path.write_bytes(whole)


@pytest.mark.slow
@pytest.mark.usefixtures("without_dagster")
@pytest.mark.parametrize("number", range(len(TORN)))
def test_whatever_is_torn_a_fix_brings_everything_back(broken, number):
    for what, how in TORN[number].items():
        tear(max(broken.root.glob(SMALL[what])), how)
    assert asked(broken, "verify").exit_code != 0
    mended = broken.mend()
    assert mended.holds
    if [one.differing for one in mended.findings if one.rule == "open"] != [0]:
        assert asked(broken, "ingest").exit_code == 0  # that it had closed is what was torn
        assert asked(broken, "verify").exit_code == 0
    found = broken.contents()
    for table, rows in broken.expected.items():
        assert found[table] == rows, table


class TestIngestAlone:
    def ingested(self, broken: Broken) -> str:
        """What an ingest says that leaves everything as it was."""
        done = asked(broken, "ingest")
        assert done.exit_code == 0, done.output
        found = broken.contents()
        for table, rows in broken.expected.items():
            assert found[table] == rows, table
        assert broken.verify().holds
        return done.stderr

    @pytest.mark.slow
    @pytest.mark.usefixtures("without_dagster")
    @pytest.mark.parametrize("tables", [{"study": "cut", "flat_metadata": "empty"}, {"batches": "cut"}], ids=list)
    def test_sets_torn_entries_aside_and_makes_again_what_they_held(self, broken, tables):
        for table, how in tables.items():
            tear(max(broken.root.glob(newest(table))), how)
            told = asked(broken, *(("status",) if table == "batches" else ("sql", f"FROM {table}")))
            assert told.exit_code == 2
            assert f"Table {table}: version" in told.stderr
        assert "set aside" in self.ingested(broken)
        for table in tables:
            assert [path.name for path in (broken.root / "_torn" / table).iterdir()], "what was torn is kept"
        assert not (broken.root / "_torn" / "unverified").exists()

    @pytest.mark.usefixtures("without_dagster")
    def test_makes_a_torn_claim_again_whose_batch_has_begun(self, broken):
        before = ClaimLog(broken.lake.files).claims()
        tear(max(broken.root.glob("_claims/*.parquet")), "cut")
        assert "torn and is made again from raw_files" in self.ingested(broken)
        assert ClaimLog(broken.lake.files).claims() == before

    @pytest.mark.usefixtures("without_dagster")
    def test_claims_the_objects_of_a_torn_claim_anew_that_no_batch_has_begun(self, broken):
        log = ClaimLog(broken.lake.files)
        newest_claim = log.claims()[-1]
        manifest = log.manifest(newest_claim.batch_id)
        later = manifest.drop_columns(["batch_id"]).set_column(
            manifest.drop_columns(["batch_id"]).schema.get_field_index("object_id"),
            manifest.schema.field("object_id"),
            [[f"{number:020x}" for number in range(len(manifest))]],
        )
        claim = log.append(later, len(log))
        assert claim is not None
        tear(broken.root / claim.path, "cut")
        assert "Claim 3 was torn" in self.ingested(broken)
        assert not (broken.root / claim.path).exists()
        assert list((broken.root / "_torn" / "claims").iterdir())


def test_a_claim_that_is_torn_is_named_by_its_file(broken):
    tear(broken.root / "_claims/000000000002.parquet", "empty")
    told = asked(broken, "status")
    assert told.exit_code == 2
    assert "The file _claims/000000000002.parquet of the lake is torn" in told.stderr


@pytest.fixture
def log(tmp_path) -> Lake:
    """A lake with a checkpoint in the log of one table, and some entries behind it."""
    lake = Lake(str(tmp_path / "lake"))
    for number in range(13):
        row = {"batch_id": f"b{number:02d}", "source": "s", "status": "open", "seen": 1}
        lake.replace("batches", [row["batch_id"]], TABLES["batches"].schema.empty_table().from_pylist(
            [row], schema=TABLES["batches"].schema))  # fmt: skip
    return lake


@pytest.mark.parametrize("how", ["empty", "cut"])
@pytest.mark.parametrize("what", ["*.checkpoint.parquet", "_last_checkpoint", "both"])
def test_a_torn_checkpoint_is_set_aside_and_nothing_is_missing(log, what, how):
    folder = Path(log.uri) / "batches" / "_delta_log"
    for pattern in ("*.checkpoint.parquet", "_last_checkpoint") if what == "both" else (what,):
        tear(max(folder.glob(pattern)), how)
    assert Lake(log.uri).row_count("batches") == 13
    assert Lake(log.uri, make=False).row_count("batches") == 13
    assert not torn.needs_verifying(log.files)


def test_entries_that_were_not_the_last_are_found_as_well(log):
    folder = Path(log.uri) / "batches" / "_delta_log"
    for version in (11, 12):
        tear(folder / f"{version:020d}.json", "empty")
    with pytest.raises(LakeError, match="Table batches: version 11 of its log was torn"):
        Lake(log.uri, make=False).row_count("batches")
    assert Lake(log.uri).row_count("batches") == 11
    assert torn.needs_verifying(log.files)


def test_the_first_entry_of_a_new_table_is_written_anew(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    tear(tmp_path / "lake" / "study" / "_delta_log" / f"{0:020d}.json", "cut")
    assert Lake(lake.uri).row_count("study") == 0


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.0)
@example(share=1 - 2**-20)
def test_an_entry_that_is_cut_anywhere_is_never_taken_for_a_whole_one(log, tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("cut") / "lake"
    shutil.copytree(log.uri, folder)
    entry = max((folder / "batches" / "_delta_log").glob("*.json"))
    os.truncate(entry, int(entry.stat().st_size * share))
    with pytest.raises(LakeError, match="Table batches: version 13 of its log was torn"):
        Lake(str(folder), make=False).row_count("batches")
    shutil.rmtree(folder)


def test_a_torn_summary_of_claims_is_passed_over(broken):
    log = ClaimLog(broken.lake.files)
    whole = log.claims()
    ids = sorted(log.claimed_ids("landing").sorted().tolist())
    from dicom_assets.landing.claim_index import summarise

    summarise(broken.lake.files, 2, whole, {"landing": log.claimed_ids("landing")}, {})
    for path in (broken.root / "_claimed").rglob("*"):
        if path.is_file():
            kept = path.read_bytes()
            for how in ("empty", "cut"):
                tear(path, how)
                again = ClaimLog(broken.lake.files)
                assert again.claims() == whole
                assert sorted(again.claimed_ids("landing").sorted().tolist()) == ids
                path.write_bytes(kept)
    assert contents(broken.lake, ["study"])["study"] == broken.expected["study"]
