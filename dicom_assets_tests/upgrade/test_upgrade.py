"""A lake that an earlier release wrote is brought up to date: by opening it what is safe, by `upgrade` the rest."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from dicom_assets.batch import migrations
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.erasure.record import finish
from dicom_assets.batch.erasure.removal import begin, carry_out
from dicom_assets.batch.erasure.search import search
from dicom_assets.batch.erasure.target import Scope, Target, find
from dicom_assets.batch.upgrade import plan
from dicom_assets.batch.verification.verify import verify
from dicom_assets.cli.main import app
from dicom_assets.defs.jobs import register
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.form import FILE, FORMAT, MIGRATIONS, NeedsUpgrade
from dicom_assets.lake.query import connect, existing
from dicom_assets.lake.tables import NoSuchVersion
from dicom_assets.landing.claims import ClaimLog
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeFiles
from dicom_assets.storage.traces import Terms
from dicom_assets_tests.support.commands import command
from dicom_assets_tests.support.crashing import STATUS
from dicom_assets_tests.support.delta_logs import assert_plain_and_described
from dicom_assets_tests.support.projects import REPOSITORY
from dicom_assets_tests.support.steps import Stepped
from dicom_assets_tests.upgrade import make_lake
from dicom_assets_tests.upgrade.lakes import EarlierLake, everything, rows, unpacked, upgrade

NEW_OF_CLINICAL = {
    *("server", "effective_text", "effective_end_text", "patient_identifiers", "version_state", "identity_since"),
}


@pytest.fixture(scope="module")
def first() -> Iterator[EarlierLake]:
    """The lake that the first release wrote."""
    with unpacked("format1") as one:
        yield one


@pytest.fixture(scope="module")
def upgraded(first: EarlierLake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The same, brought up to date; for tests that only read it."""
    settings = first.copy(tmp_path_factory.mktemp("upgraded") / "lake")
    upgrade(settings)
    return existing(settings.lake)


def data_files(lake: Path) -> dict[str, bytes]:
    return {
        str(one.relative_to(lake)): one.read_bytes() for one in lake.rglob("*.parquet") if "_delta_log" not in str(one)
    }


def all_files(lake: Path) -> dict[str, bytes]:
    return {str(one.relative_to(lake)): one.read_bytes() for one in lake.rglob("*") if one.is_file()}


def test_opening_adds_columns_and_tables_and_rewrites_no_file(first, tmp_path):
    lake = tmp_path / "lake"
    first.copy(lake)
    before = data_files(lake)
    opened = Lake(str(lake))
    assert data_files(lake) == before
    assert {*opened.schema("clinical").names} >= NEW_OF_CLINICAL
    assert opened.row_count("overwritten") == 0
    with connect(opened) as connection:
        new = ", ".join(sorted(NEW_OF_CLINICAL))
        assert connection.execute(f"SELECT DISTINCT {new} FROM clinical").fetchall() == [(None,) * 6]
    assert json.loads((lake / FILE).read_text()) == {
        "format": FORMAT,
        "made_by": opened.form.made_by,
        "left": [*MIGRATIONS],
    }


def test_a_lake_that_is_only_read_is_read_whole_and_stays_as_it_is(first, tmp_path):
    lake = tmp_path / "lake"
    first.copy(lake)
    before = all_files(lake)
    with connect(existing(str(lake))) as connection:
        assert connection.execute("SELECT count(*), count(server) FROM clinical").fetchall() == [(7, 0)]
        assert connection.execute("SELECT count(*) FROM flat_metadata").fetchall() == [(11,)]
    assert all_files(lake) == before


def test_the_plan_says_what_would_change_and_changes_nothing(first, tmp_path):
    lake = tmp_path / "lake"
    first.copy(lake)
    before = all_files(lake)
    changes = {(one.kind, one.name): one.count for one in plan(existing(str(lake)))}
    assert changes.items() >= {("table", "overwritten"): 7, ("columns", "clinical"): 6}.items()
    assert {one: count for one, count in changes.items() if one[0] in ("migration", "lake")} == {
        ("migration", "places"): 3,
        ("migration", "resources"): 3,
        ("migration", "studies"): 3,
        ("migration", "conflicts"): 1,
        ("migration", "lines"): 2,
        ("migration", "geometry_rows"): 4,
        ("migration", "conflict_rows"): 3,
        ("migration", "duplicate_rows"): 11,
        ("lake", FILE): 1,
    }
    assert all_files(lake) == before


def test_nothing_is_added_to_a_lake_before_its_migrations_are_done(first, tmp_path):
    settings = first.copy(tmp_path / "lake")
    with RunContext(settings) as work, pytest.raises(NeedsUpgrade, match=r"places, resources.* `dicom-assets upgrade`"):
        work.lake  # noqa: B018
    assert len(ClaimLog(existing(settings.lake).files).claims()) == 4


@pytest.mark.slow
def test_an_upgraded_lake_is_up_to_date_and_its_books_hold(first, upgraded):
    assert plan(upgraded) == []
    found = verify(upgraded, first.settings(Path(upgraded.uri)))
    assert [one.rule for one in found.findings if not one.holds] == []
    assert_plain_and_described(Path(upgraded.uri))


@pytest.mark.slow
def test_what_was_overwritten_is_not_current_any_more(upgraded):
    with connect(upgraded) as connection:
        found = connection.execute("SELECT uri FROM overwritten ORDER BY 1").fetchall()
        assert [uri.rsplit("landing/", 1)[1] for (uri,) in found] == [
            *("clinical/diagnoses.csv", "clinical/gone.csv", "study1/3.dcm")
        ]
        assert connection.execute("SELECT count(*) FROM clinical WHERE record_values LIKE '%G43.9%'").fetchall() == [
            (0,)
        ]


@pytest.mark.slow
def test_names_of_ndjson_files_tell_their_batch(upgraded):
    batches = [claim.batch_id for claim in ClaimLog(upgraded.files).claims()][:2]
    names = [name.rsplit("/", 1)[1] for name in upgraded.files.names("Process")]
    assert names == [f"ImagingStudy-{batch}-000001.ndjson" for batch in batches]


class Killed(BaseException):
    """As a kill does, it passes everything that catches errors."""


def upgrade_killed_in_each(settings: Settings, monkeypatch: pytest.MonkeyPatch, *events: int) -> set[str]:
    """Upgrades a lake that is killed in each of its migrations, and then goes on; in which it was.

    events: which of the commits and files of a migration it is killed behind, the first time, the second time.
    """
    doing: list[str] = []
    times: Counter[str] = Counter()
    seen: Counter[tuple[str, int]] = Counter()
    killed: set[str] = set()

    def killing(kept):
        def call(self, name, *arguments, **options):
            done = kept(self, name, *arguments, **options)
            if doing and not name.startswith("_locks"):
                time = times[doing[0]]
                seen[doing[0], time] += 1
                if time <= len(events) and seen[doing[0], time] == events[time - 1]:
                    killed.add(doing[0])
                    raise Killed
            return done

        return call

    def told(name, one):
        def do(work, tell):
            doing[:] = [name]
            times[name] += 1
            try:
                one.do(work, tell)
            finally:
                doing.clear()

        return replace(one, do=do)

    left = {one.name for one in plan(existing(settings.lake)) if one.kind == "migration"}
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "commit", killing(Lake.commit))
        patch.setattr(LakeFiles, "put", killing(LakeFiles.put))
        for name, one in migrations.MIGRATIONS.items():
            patch.setitem(migrations.MIGRATIONS, name, told(name, one))
        for _ in range(len(events) * len(left)):
            with suppress(Killed):
                upgrade(settings)
        upgrade(settings)
    lake = existing(settings.lake)
    assert killed == left
    assert lake.form.left == ()
    assert lake.files.names("_upgrade") == lake.files.names("_staging/verify") == []
    return left


@pytest.mark.slow
def test_an_upgrade_that_is_killed_at_first_and_in_each_of_its_migrations_goes_on_where_it_was(
    first, tmp_path, monkeypatch, upgraded
):
    """The first time it is a process of its own that is killed."""
    settings = first.copy(tmp_path / "lake")
    done = command(
        *("python", "-m", "dicom_assets_tests.support.crashing", "lake.tables:Tables", "commit", "1"),
        *("upgrade", "--lake", settings.lake),
        cwd=first.place,
        environment={"PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == STATUS
    assert upgrade_killed_in_each(settings, monkeypatch, 1, 2) == {*MIGRATIONS}
    assert everything(existing(settings.lake)) == everything(upgraded)


@pytest.mark.slow
def test_an_upgraded_lake_equals_one_that_this_release_makes_of_the_same_arrivals(first, tmp_path, upgraded):
    """What is read differently stays as it was read: the text of a dataset's date, and when an older version came."""
    settings = first.settings(tmp_path / "fresh")
    shutil.rmtree(first.landing)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings, instance, judges=False)
        for hour, files in enumerate((make_lake.first(), make_lake.second(), make_lake.third())):
            make_lake.put(first.landing, files, hour)
            graph.ingest()
        make_lake.put(first.landing, make_lake.last(), 3)
        graph.claim()
    fresh, old = everything(graph.lake), everything(upgraded)
    before = existing(str(first.place / "lake"))
    of_headers = {"batch_digest", "duplicate"}  # digests of what releases write differently
    for name in fresh.keys() - of_headers:
        try:
            later = {*TABLES[name].schema.names} - {*before.schema(name).names}
        except NoSuchVersion:
            later = set()
        kept = {"server", "patient_identifiers", "effective_end_text", "version_state"}
        left_out = {"reason", "detail", "header", "content_digest", "identity_since", "told_first_at", "told_last_at"}
        left_out |= later - kept
        strip = [[{k: v for k, v in row.items() if k not in left_out} for row in some[name]] for some in (old, fresh)]
        assert strip[0] == strip[1], name


@pytest.mark.slow
def test_what_was_open_and_what_comes_new_is_ingested_after_an_upgrade(first, tmp_path):
    """What was claimed closes, what was paused says what it waits for, and a resource replaces its older self."""
    settings = first.copy(tmp_path / "lake")
    upgrade(settings)
    resource = json.loads(make_lake.fhir().split("\n")[1]) | {"onsetDateTime": "2024-05-05"}
    late = {"study1/6.dcm": make_lake.image(1, 1, 6), "clinical/later.ndjson": json.dumps(resource)}
    make_lake.put(first.landing, {**make_lake.last(), **late}, 4)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings, instance, judges=False)
        open_ones = [claim.batch_id for claim in ClaimLog(graph.lake.files).claims()][2:]
        register(instance, open_ones)
        for batch in [*open_ones, *graph.claim()]:
            graph.run(batch)
    found = graph.rows("SELECT status, seen FROM batches ORDER BY batch_id")
    assert [(row["status"], row["seen"]) for row in found[2:4]] == [("paused", 12), ("closed", 2)]
    assert {row["status"] for row in found[4:]} == {"closed"}
    conditions = graph.rows("SELECT effective_text FROM clinical WHERE record_type = 'Condition'")
    assert conditions == [{"effective_text": "2024-05-05"}]
    assert [one.rule for one in verify(graph.lake, settings).findings if not one.holds] == []


BETWEEN_THEM = {"geometry_rows", "conflict_rows", "duplicate_rows"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["format2", "format3"])
def test_a_lake_of_a_later_format_needs_what_the_data_say_between_them_and_nothing_else(tmp_path, monkeypatch, name):
    with unpacked(name) as earlier:
        settings = earlier.copy(tmp_path / "lake")
        names = [name for name in TABLES if (Path(settings.lake) / name).exists()]

        def held() -> dict[str, list[dict[str, object]]]:
            found = {name: rows(existing(settings.lake), name) for name in names}
            for row in found["flat_metadata"]:
                row.pop("stable_digest", None)  # the column that is filled
            return found

        before = held()
        assert {line.split(":")[0] for line in upgrade(settings)} == BETWEEN_THEM
        with RunContext(settings) as work:
            assert work.lake.form.number == FORMAT
            assert work.lake.form.left == ()
            assert work.lake.row_count("series_geometry") == 4
        assert held() == before
        lake = existing(settings.lake)
        assert rows(lake, "patient_value")
        assert [(row["level"], row["attribute"]) for row in rows(lake, "conflict")] == [("study", "StudyDescription")]
        assert {row["kind"] for row in rows(lake, "duplicate")} == {"header", "sop_instance"}
        assert [one.rule for one in verify(lake, settings).findings if not one.holds] == []
        if name == "format3":  # what the data say between them is found although each migration is killed
            killed = earlier.copy(tmp_path / "killed")
            assert upgrade_killed_in_each(killed, monkeypatch, 3) == BETWEEN_THEM
            assert everything(existing(killed.lake)) == everything(lake)


@pytest.mark.slow
def test_the_command_tells_what_it_would_do_and_what_it_did(first, tmp_path):
    settings = first.copy(tmp_path / "lake")
    planned = CliRunner().invoke(app, ["upgrade", "--plan", "--lake", settings.lake])
    assert planned.exit_code == 0
    assert "would change" in planned.stdout
    assert "resources" in planned.stdout


@pytest.mark.slow
def test_a_study_is_erased_although_a_batch_waits_that_the_earlier_release_has_staged(first, upgraded, tmp_path):
    shutil.copytree(upgraded.uri, tmp_path / "lake")
    settings = first.settings(tmp_path / "lake")
    lake = existing(settings.lake)
    target = Target(Scope.STUDY, f"{make_lake.ROOT}.2")
    record = begin(lake, target, find(lake, target, "a steward"))
    carry_out(lake, settings, record)
    finish(lake.files)
    assert [*search(lake, settings, Terms.of(record.terms))] == []
    assert [one.rule for one in verify(lake, settings).findings if not one.holds] == []
