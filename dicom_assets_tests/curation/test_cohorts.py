"""Cohorts: a selection is frozen, compared with what the lake has, exported as it was, and forgets who is erased."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from dicom_assets.batch.backup.copy_in import put_back
from dicom_assets.batch.backup.copy_out import take
from dicom_assets.batch.backup.vault import Vault
from dicom_assets.batch.erasure.plan import places
from dicom_assets.batch.erasure.record import ErasureRefused
from dicom_assets.batch.erasure.removal import begin
from dicom_assets.batch.erasure.search import search
from dicom_assets.batch.erasure.target import Scope, Target, find
from dicom_assets.cli.main import app
from dicom_assets.curation.cohorts import frozen
from dicom_assets.curation.cohorts.changes import verify_cohort
from dicom_assets.curation.cohorts.export import Wish, export_cohort
from dicom_assets.curation.cohorts.risks import Risk, RiskTooHigh, require_low_risk, risk_of
from dicom_assets.curation.cohorts.selection import create_cohort
from dicom_assets.curation.following import follow
from dicom_assets.defs.assets.cohorts import COHORT, JOB, cohorts_to_partitions
from dicom_assets.defs.graph import build_defs
from dicom_assets.defs.resources import work_resource
from dicom_assets.lake.delta import Lake
from dicom_assets.schema.registry import PHI_RISK, TABLES
from dicom_assets.storage.files import LakeFiles
from dicom_assets.storage.traces import Terms
from dicom_assets_tests.support.canaries import erased
from dicom_assets_tests.support.commands import clean_environment
from dicom_assets_tests.support.crashing import STATUS
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import QUIET
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped

PATIENT = {"PatientID": "CANARY-4711", "PatientName": "CANARYBIRD^Yellow"}
EVERYTHING = "SELECT StudyInstanceUID FROM study"
DESPITE = "within the hospital"


def lake_of_three(graph: Stepped, landing: LandingFolder) -> None:
    """Study 1 in files, study 2 of the canary in an archive, study 3 in both; a cohort of all of it."""
    landing.put_series(1, 1, 3)
    landing.put_zip("two.zip", {f"CANARY/{n}.dcm": dicom(2, 1, n, **PATIENT) for n in (1, 2)})
    landing.put_zip("three.zip", {"1.dcm": dicom(3, 1, 1)})
    landing.put("three/2.dcm", dicom(3, 2, 1))
    graph.ingest()
    create_cohort(graph.lake, "all", sql=EVERYTHING, by="me")


def lake_of_many(graph: Stepped, landing: LandingFolder) -> None:
    """260 objects, two of them of one SOP Instance UID; a cohort of all, and one of these two."""
    landing.put_series(1, 1, 258)
    landing.put("1.dcm", dicom(2, 1, 1))
    landing.put("2.dcm", dicom(3, 1, 1, SOPInstanceUID=uid(2, 1, 1)))
    graph.ingest()
    create_cohort(graph.lake, "many", sql=EVERYTHING, by="me")
    create_cohort(graph.lake, "all", studies=[uid(2), uid(3)], by="me")


@pytest.fixture
def three(states) -> tuple[Stepped, LandingFolder]:
    graph, landing, _ = states.begin(lake_of_three)
    return graph, landing


def command(graph: Stepped, *arguments: str | Path) -> Result:
    landing = graph.settings.sources[0].root
    options = ["--landing", landing] if arguments[0] in ("export", "verify") else []
    return CliRunner().invoke(app, ["cohort", *map(str, arguments), *options, "--lake", graph.settings.lake])


def export(graph: Stepped, to: Path, name: str = "all", **wish: Any) -> Any:
    return export_cohort(
        graph.lake, graph.settings, name, Wish(str(to), **{"by": "me", "despite_risk": DESPITE, **wish})
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Each file below a folder."""
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def listed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def why_missing(folder: Path) -> dict[str, str]:
    """Why objects are missing, by SOPInstanceUID."""
    return {Path(one["path"]).stem: one["why"] for one in listed(folder / "missing.csv")}


class TestMaking:
    @pytest.mark.parametrize(
        ("sql", "objects"),
        [
            (EVERYTHING, 7),
            ("SELECT * FROM series WHERE SeriesNumber = 2", 1),
            (f"SELECT sopinstanceuid AS SOPInstanceUID FROM instance WHERE SOPInstanceUID = '{uid(1, 1, 2)}';", 1),
            ("SELECT StudyInstanceUID, 'nowhere' AS source FROM study", 0),
            (f"SELECT StudyInstanceUID, 'landing' AS source FROM study WHERE StudyInstanceUID = '{uid(2)}'", 2),
        ],
    )
    def test_everything_current_below_what_a_query_names_is_selected(self, three, sql, objects):
        graph, _ = three
        if not objects:
            with pytest.raises(frozen.CohortError, match="Nothing that is current"):
                create_cohort(graph.lake, "one", sql=sql, by="me")
            return
        assert create_cohort(graph.lake, "one", sql=sql, by="me").objects == objects
        (rows,) = frozen.rows(graph.lake.files, "one")
        ids = {row["object_id"]: row for row in graph.rows("SELECT * FROM instance")}
        for row in rows.to_pylist():
            for name in ("source", "uri", "member", "size", "version_at", "SOPInstanceUID"):
                assert row[name] == ids[row["object_id"]][name]
            assert len(row["content_digest"]) == 32 and row["etag"]

    def test_uids_of_studies_do_without_a_query(self, three):
        made = create_cohort(three[0].lake, "two", studies=[uid(1), uid(2), "1.2.3"], by="the catalogue")
        assert (made.query, made.objects, made.studies) == (None, 5, 2)

    def test_it_says_what_it_was_made_from_and_what_was_done_with_it(self, three, tmp_path):
        graph, _ = three
        export(graph, tmp_path / "out")
        found = frozen.read(graph.lake.files, "all")
        assert found.versions["instance"] == graph.lake.extents("instance").version
        shown = command(graph, "show", "all", "--format", "csv").output
        assert DESPITE in shown and "7 written" in shown and EVERYTHING not in shown
        assert command(graph, "show", "all", "--query").output.strip() == EVERYTHING
        assert "all" in command(graph, "list").output

    def test_a_name_that_is_taken_is_refused_and_changes_nothing(self, three):
        graph, _ = three
        before = contents(Path(graph.settings.lake) / "_cohorts")
        done = command(graph, "create", "all", "--sql", EVERYTHING)
        assert (done.exit_code, "There is a cohort all already" in done.output) == (2, True)
        assert contents(Path(graph.settings.lake) / "_cohorts") == before

    @pytest.mark.parametrize(
        ("sql", "says"),
        [
            ("SELECT PatientID FROM study", "gives no column StudyInstanceUID"),
            ("SELECT StudyInstanceUID FROM nothing", "nothing"),
            ("SELECT StudyInstanceUID, FROM WHERE", "Parser Error"),
            ("DELETE FROM study", "Only one SELECT"),
            ("SELECT StudyInstanceUID FROM study; SELECT 1", "Only one SELECT"),
            ("COPY study TO 'stolen.csv'", "Only one SELECT"),
            ("EXPLAIN ANALYZE SELECT StudyInstanceUID FROM study", "Only a SELECT"),
            ("SELECT StudyInstanceUID FROM read_csv('/etc/passwd')", "no other file"),
            ("SELECT (PatientName::INT)::VARCHAR AS StudyInstanceUID FROM study", "cannot be asked of every row"),
        ],
    )
    def test_a_query_that_selects_nothing_or_does_more_is_refused(self, three, sql, says, tmp_path, monkeypatch):
        graph, _ = three
        monkeypatch.chdir(tmp_path)
        done = command(graph, "create", "other", "--sql", sql)
        assert (done.exit_code, says in done.output) == (2, True), done.output
        assert "CANARY" not in done.output
        assert frozen.names(graph.lake.files) == ["all"]
        assert not (Path(graph.settings.lake) / "_cohorts" / "other").exists()
        assert list(tmp_path.glob("*.csv")) == []

    def test_what_a_killed_process_left_of_one_is_no_cohort_and_in_nobodys_way(self, three):
        graph, _ = three
        graph.lake.files.put("_cohorts/half/rows/000000.parquet", b"half")
        assert frozen.names(graph.lake.files) == ["all"]
        create_cohort(graph.lake, "half", sql=EVERYTHING, by="me")
        assert frozen.left(graph.lake.files, "half") == 7

    def test_it_is_removed_and_its_name_is_free_again(self, three):
        graph, _ = three
        assert command(graph, "remove", "all").exit_code == 0
        assert (frozen.names(graph.lake.files), graph.lake.files.names("_cohorts")) == ([], [])
        assert command(graph, "create", "all", "--sql", EVERYTHING).exit_code == 0

    def test_a_backup_takes_it_along(self, three, tmp_path):
        graph, _ = three
        vault = Vault(LakeFiles(str(tmp_path / "backups")))
        manifest = take(graph.lake, vault, [])
        there = graph.settings.model_copy(update={"lake": str(tmp_path / "restored")})
        put_back(vault, manifest, there)
        assert frozen.read(LakeFiles(there.lake), "all") == frozen.read(graph.lake.files, "all")
        assert verify_cohort(Lake(there.lake), there, "all").is_unchanged


class TestVerifying:
    def test_what_is_as_it_was_ends_with_0(self, three):
        done = command(three[0], "verify", "all", "--at-source", "--format", "csv")
        assert (done.exit_code, done.output) == (0, "what,objects\nunchanged,7\n")

    @pytest.mark.slow
    def test_what_changed_or_is_gone_is_counted_and_named_by_object_id(self, three):
        graph, landing = three
        (rows,) = frozen.rows(graph.lake.files, "all")
        ids = {row["SOPInstanceUID"]: row["object_id"] for row in rows.to_pylist()}
        landing.put("study1/series1/0001.dcm", dicom(1, 1, 1, StudyDescription="again"), age_seconds=3_600)
        graph.ingest()
        (gone,) = graph.rows(f"SELECT study_key FROM study WHERE StudyInstanceUID = '{uid(3)}'")
        graph.lake.replace("instance", [gone["study_key"]], TABLES["instance"].schema.empty_table())
        found = verify_cohort(graph.lake, graph.settings, "all")
        assert dict(found.counts) == {"replaced": 1, "gone": 2}
        assert dict(found.differing)[ids[uid(1, 1, 1)]] == "replaced"
        done = command(graph, "verify", "all", "--objects", "--format", "csv")
        assert done.exit_code == 1
        assert f"{ids[uid(3, 1, 1)]},gone" in done.output.splitlines()

    def test_sources_are_asked_on_request_alone(self, three):
        graph, landing = three
        landing.put_zip("two.zip", {"x.dcm": dicom(9, 1, 1)}, age_seconds=60)
        (landing.root / "three/2.dcm").unlink()
        assert verify_cohort(graph.lake, graph.settings, "all").is_unchanged
        found = verify_cohort(graph.lake, graph.settings, "all", at_source=True)
        assert dict(found.counts) == {"changed": 2, "gone": 1}


class TestExporting:
    def test_files_and_members_come_out_as_the_very_bytes_that_went_in(self, three, tmp_path):
        graph, _ = three
        done = export(graph, tmp_path / "out")
        assert done.counts == {"written": 7, "there before": 0}
        found = contents(tmp_path / "out")
        assert found[f"{uid(2)}/{uid(2, 1)}/{uid(2, 1, 2)}.dcm"] == dicom(2, 1, 2, **PATIENT)
        assert found[f"{uid(1)}/{uid(1, 1)}/{uid(1, 1, 3)}.dcm"] == dicom(1, 1, 3)
        manifest = listed(tmp_path / "out/manifest.csv")
        assert [one["path"] for one in manifest] == sorted(one for one in found if one.endswith(".dcm"))
        for one in manifest:
            assert one["sha256"] == hashlib.sha256(found[one["path"]]).hexdigest()
            assert int(one["size"]) == len(found[one["path"]])
        assert found["azcopy.txt"].decode().split() == [one["path"] for one in manifest]
        first = manifest[0]["path"]
        assert found["s5cmd.txt"].decode().splitlines()[0] == f"cp {first} s3://BUCKET/all/{first}"
        assert found["missing.csv"] == b"path,why,object_id\n"

    def test_twice_it_is_the_same_byte_for_byte_and_again_nothing_is_written(self, three, tmp_path):
        graph, _ = three
        export(graph, tmp_path / "one", by="somebody")
        export(graph, tmp_path / "two")
        assert contents(tmp_path / "one") == contents(tmp_path / "two")
        times = {one: one.stat().st_mtime_ns for one in (tmp_path / "one").rglob("*.dcm")}
        assert export(graph, tmp_path / "one").counts == {"written": 0, "there before": 7}
        assert {one: one.stat().st_mtime_ns for one in times} == times

    def test_what_was_changed_or_deleted_there_is_written_again(self, three, tmp_path):
        graph, _ = three
        export(graph, tmp_path / "out")
        before = contents(tmp_path / "out")
        first, second, *_ = sorted((tmp_path / "out").rglob("*.dcm"))
        first.write_bytes(b"something else")
        second.unlink()
        assert export(graph, tmp_path / "out").counts == {"written": 2, "there before": 5}
        assert contents(tmp_path / "out") == before

    @pytest.mark.slow
    def test_objects_of_one_sop_instance_uid_lie_side_by_side(self, states, tmp_path):
        graph, _, _ = states.begin(lake_of_many)
        export(graph, tmp_path / "out", layout="instance")
        names = [one["path"] for one in listed(tmp_path / "out/manifest.csv")]
        same = graph.rows(f"SELECT object_id FROM instance WHERE SOPInstanceUID = '{uid(2, 1, 1)}'")
        assert names == [f"{uid(2, 1, 1)}_{one}.dcm" for one in sorted(row["object_id"] for row in same)]
        assert len(names) == 2

    def test_what_is_not_what_the_lake_has_read_is_told_and_not_exported(self, three, tmp_path):
        graph, landing = three
        shutil.copytree(landing.root / "study1", tmp_path / "kept")
        landing.put("study1/series1/0001.dcm", dicom(1, 1, 1, StudyDescription="again"), age_seconds=60)
        same = landing.root / "study1/series1/0002.dcm"
        kept = same.stat()
        same.write_bytes(dicom(1, 1, 2).replace(b"Series 1", b"Series X"))  # as long, and as old
        os.utime(same, ns=(kept.st_atime_ns, kept.st_mtime_ns))
        (landing.root / "study1/series1/0003.dcm").unlink()
        landing.put_zip("two.zip", {"CANARY/1.dcm": dicom(2, 1, 1)}, age_seconds=60)
        done = command(graph, "export", "all", tmp_path / "out", "--despite-risk", DESPITE)
        assert done.exit_code == 1, done.output
        changed = {uid(1, 1, 1): "changed", uid(1, 1, 2): "changed", uid(2, 1, 1): "changed", uid(2, 1, 2): "changed"}
        assert why_missing(tmp_path / "out") == {**changed, uid(1, 1, 3): "gone"}
        assert {one.stem for one in (tmp_path / "out").rglob("*.dcm")} == {uid(3, 1, 1), uid(3, 2, 1)}
        assert not list((tmp_path / "out").rglob("*.part"))
        shutil.rmtree(landing.root / "study1")
        shutil.copytree(tmp_path / "kept", landing.root / "study1")
        assert export(graph, tmp_path / "out").counts["written"] == 3
        assert why_missing(tmp_path / "out").keys() == {uid(2, 1, 1), uid(2, 1, 2)}

    def test_a_source_that_is_away_ends_it_with_a_sentence_and_the_next_one_goes_on(self, three, tmp_path):
        graph, landing = three
        landing.root.rename(landing.root.with_name("away"))
        done = command(graph, "export", "all", tmp_path / "out", "--despite-risk", DESPITE)
        assert (done.exit_code, "is it mounted?" in done.output) == (2, True), done.output
        landing.root.with_name("away").rename(landing.root)
        assert export(graph, tmp_path / "out").counts == {"written": 7, "there before": 0}

    @pytest.mark.parametrize(
        ("place", "says"),
        [("full", "is not empty"), ("lake/x", "into the lake"), ("landing/x", "into source 'landing'"), ("", "keys")],
    )
    def test_it_goes_to_no_place_where_something_else_lies(self, three, place, says, tmp_path):
        graph, landing = three
        (landing.root.parent / "full").mkdir()
        (landing.root.parent / "full/x").touch()
        done = command(graph, "export", "all", landing.root.parent / place, "--despite-risk", DESPITE)
        assert (done.exit_code, says in done.output) == (2, True), done.output

    @pytest.mark.slow
    def test_one_that_is_killed_is_gone_on_with_and_comes_to_the_same(self, states, tmp_path):
        graph, landing, _ = states.begin(lake_of_many)
        kill = ("-m", "dicom_assets_tests.support.crashing", "curation.cohorts.destination:Folder", "put", "250")
        out = tmp_path / "out"
        options = ("--despite-risk", DESPITE, "--lake", graph.settings.lake, "--landing", str(landing.root))
        command = [sys.executable, *kill, "cohort", "export", "many", str(out), *options]
        assert os.spawnve(os.P_WAIT, sys.executable, command, clean_environment()) == STATUS
        assert not (out / "manifest.csv").exists()
        done = export(graph, out, "many")
        assert (done.there >= 200, done.written + done.there) == (True, 260)
        export(graph, tmp_path / "whole", "many")
        assert contents(out) == contents(tmp_path / "whole")


class TestRisk:
    def scored(self, graph: Stepped, scores: Mapping[str, int]) -> None:
        """Takes the batches in, and gives series these scores and the others none."""
        follow(graph.lake)
        rows = [
            {**row, "score": scores[row["SeriesInstanceUID"]]}
            for row in graph.rows("SELECT * FROM phi_risk")
            if row["SeriesInstanceUID"] in scores
        ]
        keys = [row["study_key"] for row in graph.rows("SELECT DISTINCT study_key FROM phi_risk")]
        graph.lake.replace(PHI_RISK.name, keys, pa.Table.from_pylist(rows, schema=PHI_RISK.schema))

    def test_a_risk_that_nobody_knows_is_refused_until_somebody_says_why_not(self, three, tmp_path):
        graph, _ = three
        done = command(graph, "export", "all", tmp_path / "out")
        assert (done.exit_code, "risk of 4 of its 4 series is not known" in done.output) == (2, True), done.output
        assert not (tmp_path / "out").exists()
        assert command(graph, "export", "all", tmp_path / "out", "--despite-risk", " ").exit_code == 2
        export(graph, tmp_path / "out")
        *_, entry = frozen.log(graph.lake.files, "all")
        assert (entry.what, entry.reason, entry.by) == ("exported", DESPITE, "me")

    def test_a_risk_above_the_limit_is_refused_and_one_below_is_not(self, three, tmp_path):
        graph, _ = three
        series = [uid(1, 1), uid(2, 1), uid(3, 1), uid(3, 2)]
        self.scored(graph, dict.fromkeys(series[1:], 20) | {series[0]: 21})
        with pytest.raises(RiskTooHigh, match="1 of its 4 series are above the limit of 20"):
            export(graph, tmp_path / "out", despite_risk=None)
        self.scored(graph, dict.fromkeys(series, 20))
        assert export(graph, tmp_path / "out", despite_risk=None).written == 7

    @pytest.mark.slow
    def test_a_score_says_nothing_of_objects_that_it_was_not_made_from(self, three, tmp_path):
        graph, landing = three
        self.scored(graph, dict.fromkeys([uid(1, 1), uid(2, 1), uid(3, 1), uid(3, 2)], 0))
        assert risk_of(graph.lake, "all", 20) == Risk(series=4, above=0, unknown=0)
        landing.put("later.dcm", dicom(2, 1, 3))
        landing.put("study1/series1/0003.dcm", dicom(1, 1, 3, SeriesDescription="again"), age_seconds=3_600)
        graph.ingest()
        create_cohort(graph.lake, "later", sql=EVERYTHING, by="me")
        assert risk_of(graph.lake, "later", 20) == Risk(series=4, above=0, unknown=2)
        follow(graph.lake)
        assert risk_of(graph.lake, "later", 100) == Risk(series=4, above=0, unknown=0)
        with pytest.raises(RiskTooHigh, match=r"the risk of 1 of its 4 series is not known .*`dicom-assets curate`"):
            require_low_risk(graph.lake, "all", 100)  # of which one object was replaced


class TestErasing:
    @pytest.mark.slow
    def test_who_is_erased_leaves_every_cohort_and_what_was_mapped(self, three, tmp_path):
        graph, _ = three
        create_cohort(graph.lake, "one", sql=f"SELECT '{uid(2)}' AS StudyInstanceUID", by="me")
        export(graph, tmp_path / "out")
        export(graph, tmp_path / "clean", deidentify=True)
        target = Target(Scope.PATIENT, PATIENT["PatientID"])
        record = find(graph.lake, target, "a steward")
        assert places(graph.lake, graph.settings, record)["rows of cohorts"] == 4
        assert list(search(graph.lake, graph.settings, Terms.of(record.terms)))
        record = erased(graph, target)
        assert list(search(graph.lake, graph.settings, Terms.of(record.terms))) == []
        found = verify_cohort(graph.lake, graph.settings, "all")
        assert (dict(found.counts), found.unchanged) == ({"erased": 2}, 5)
        assert frozen.read(graph.lake.files, "one").query == frozen.ERASED
        done = command(graph, "export", "all", tmp_path / "out", "--despite-risk", DESPITE)
        assert (done.exit_code, "Erased since the cohort was made: 2 objects" in done.output) == (0, True), done.output
        assert [one for one in listed(tmp_path / "out/manifest.csv") if uid(2) in one["path"]] == []
        assert len(listed(tmp_path / "out/manifest.csv")) == 5

    def test_nothing_is_erased_while_a_cohort_is_exported_and_none_is_made_meanwhile(self, three):
        graph, _ = three
        target = Target(Scope.STUDY, uid(2))
        with frozen.held(graph.lake.files, "all"), pytest.raises(ErasureRefused, match="Cohort all is being worked on"):
            begin(graph.lake, target, find(graph.lake, target, "a steward"))
        begin(graph.lake, target, find(graph.lake, target, "a steward"))
        with pytest.raises(frozen.CohortError, match="An erasure is under way"):
            create_cohort(graph.lake, "new", sql=EVERYTHING, by="me")


def test_no_command_prints_anything_of_a_patient(three, tmp_path):
    graph, landing = three
    said = [command(graph, "create", "one", "--sql", "SELECT SOPInstanceUID, PatientName FROM instance")]
    said += [command(graph, "export", "one", tmp_path / "out", "--despite-risk", DESPITE)]
    said += [command(graph, "export", "one", tmp_path / "clean", "--deidentify")]
    shutil.rmtree(landing.root / "study1")
    landing.put_zip("two.zip", {"x.dcm": b"x"})
    said += [command(graph, "verify", "one", "--at-source", "--objects"), command(graph, "verify", "one")]
    said += [command(graph, "export", "one", tmp_path / "again", "--despite-risk", DESPITE)]
    said += [command(graph, "show", "one"), command(graph, "list"), command(graph, "remove", "one", "--keys")]
    assert {one.exit_code for one in said} == {0, 1}
    text = "".join(one.output for one in said)
    assert len(text) > 500
    assert not [one for one in ("CANARY", uid(), "Test^Patient", "P0001", "two.zip") if one in text]


def test_in_the_graph_a_cohort_is_a_partition_that_is_verified_and_exported(three, tmp_path):
    graph, landing = three

    def tick() -> None:
        with dg.build_sensor_context(
            instance=graph.instance, resources={"work": work_resource(graph.settings)}
        ) as context:
            found = cohorts_to_partitions(context)
        for one in getattr(found, "dynamic_partitions_requests", None) or ():
            if isinstance(one, dg.AddDynamicPartitionsRequest):
                graph.instance.add_dynamic_partitions("cohort", one.partition_keys)
            else:
                for key in one.partition_keys:
                    graph.instance.delete_dynamic_partition("cohort", key)

    tick()
    assert graph.instance.get_dynamic_partitions(COHORT.name) == ["all"]
    job = build_defs(graph.settings).resolve_job_def(JOB)
    config = {"destination": str(tmp_path / "out"), "despite_risk": DESPITE}
    done = job.execute_in_process(
        {**QUIET, "ops": {"cohort": {"config": config}}}, graph.instance, partition_key="all", raise_on_error=False
    )
    assert done.success
    (made,) = done.asset_materializations_for_node("cohort")
    assert (made.metadata["unchanged"].value, made.metadata["export: written"].value) == (7, 7)
    assert [one.passed for one in done.get_asset_check_evaluations()] == [True]
    assert len(listed(tmp_path / "out/manifest.csv")) == 7
    (landing.root / "three/2.dcm").unlink()
    config["destination"] = str(tmp_path / "again")
    done = job.execute_in_process(
        {**QUIET, "ops": {"cohort": {"config": config}}}, graph.instance, partition_key="all", raise_on_error=False
    )
    assert [(one.passed, one.description) for one in done.get_asset_check_evaluations()] == [
        (False, "1 not exported: gone")
    ]
    frozen.remove(graph.lake.files, "all")
    tick()
    assert graph.instance.get_dynamic_partitions(COHORT.name) == []
