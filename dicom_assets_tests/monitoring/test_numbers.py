"""The numbers of a lake say what its books, claims, looks and tables say, and other people's parsers read them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from typer.testing import CliRunner

from dicom_assets.batch.claim_rounds import claim_everywhere
from dicom_assets.batch.context import RunContext
from dicom_assets.cli.main import app
from dicom_assets.lake.query import existing
from dicom_assets.landing.looks import Looks
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.monitoring.exposition import openmetrics, prometheus
from dicom_assets.monitoring.families import FAMILIES, OF_THE_LAKE, OF_THE_SERVER, PREFIX, Kind
from dicom_assets.monitoring.numbers import Meter
from dicom_assets.schema.codes import CODES
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import ClaimingSettings, Settings
from dicom_assets_tests.monitoring.watched import SECRETS, Watched
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")
LATER = timedelta(hours=2)


@pytest.fixture(scope="module")
def text(watched: Watched) -> str:
    """What the command prints."""
    result = CliRunner().invoke(app, ["metrics", "--lake", watched.settings.lake])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def numbers(text: str) -> Mapping[tuple[str, ...], float]:
    """Each sample of it: the name without prefix and the values of its labels; read by Prometheus' own client."""
    return {
        (sample.name.removeprefix(PREFIX), *sample.labels.values()): sample.value
        for family in read_text(text)
        for sample in family.samples
    }


class TestBooks:
    def test_batches_are_counted_by_status_zeros_too(self, numbers: Mapping[tuple[str, ...], float]):
        states = {"closed": 1, "paused": 1, "claimed": 1, "open": 0, "failed": 0}
        assert {key[2]: value for key, value in numbers.items() if key[0] == "batches"} == states

    def test_objects_are_counted_by_outcome_and_all_are_accounted_for(self, numbers: Mapping[tuple[str, ...], float]):
        found = {key[2]: value for key, value in numbers.items() if key[0] == "objects"}
        assert found == {"ingested": 10, "quarantined": 13, "ignored": 3, "deleted": 0}
        assert numbers["unaccounted_objects", "landing"] == 0

    def test_the_last_batch_that_closed_tells_when(self, numbers: Mapping[tuple[str, ...], float]):
        age = datetime.now(UTC).timestamp() - numbers["last_closed_timestamp_seconds", "landing"]
        assert 0 < age < 3_600

    def test_what_is_kept_out_is_told_by_reason(self, numbers: Mapping[tuple[str, ...], float]):
        found = {key[2]: value for key, value in numbers.items() if key[0] == "quarantined_objects"}
        assert found["MISSING_IDENTITY"] == 13
        assert sum(found.values()) == 13
        assert found.keys() <= CODES.keys()


class TestWhatWaits:
    def test_every_object_that_is_not_accounted_for_waits_somewhere(self, numbers: Mapping[tuple[str, ...], float]):
        found = {key[2]: value for key, value in numbers.items() if key[0] == "waiting_objects"}
        assert found == {"paused": 12, "claimed": 1, "unclaimed": 1}

    def test_the_oldest_is_as_old_as_its_claim(self, watched: Watched):
        lake = existing(watched.settings.lake)
        meter = Meter(lake, watched.settings)
        claimed = {claim.batch_id: claim.claimed_at for claim in meter.log.claims()}
        now = datetime.now(UTC) + LATER
        waits = meter.measure(now)["oldest_waiting_seconds"]
        assert waits["landing", "paused"] == pytest.approx((now - claimed[watched.paused]).total_seconds())
        assert waits["landing", "claimed"] == pytest.approx((now - claimed[watched.claimed]).total_seconds())
        assert LATER.total_seconds() < waits["landing", "unclaimed"] < waits["landing", "claimed"] + 1

    def test_what_is_seen_and_not_claimed_waits_since_it_was_first_seen_until_it_is_claimed(
        self, landing: LandingFolder, tmp_path: Path
    ):
        settings = settings_for(tmp_path / "lake", landing.root)

        def left(quiet: float):
            claiming = ClaimingSettings(quiet_seconds=quiet)
            with RunContext(settings.model_copy(update={"claiming": claiming})) as work:
                claim_everywhere(work)
                return Looks(work.lake.files).memory("landing").left

        assert left(1e6) is None
        landing.put("1.dcm", dicom(1, 1, 1), age_seconds=0)
        first = left(1e6)
        landing.put("2.dcm", dicom(1, 1, 2), age_seconds=0)
        second = left(1e6)
        assert first is not None and second is not None
        assert (first.objects, second.objects, second.since) == (1, 2, first.since)
        assert left(0) is None


class TestTables:
    def test_each_has_rows_files_bytes_and_a_version(self, numbers: Mapping[tuple[str, ...], float], watched: Watched):
        lake = existing(watched.settings.lake)
        for name in TABLES:
            found = lake.extents(name)
            expected = (int(found.rows.sum()), len(found), int(found.bytes.sum()), found.version)
            told = tuple(numbers[f"table_{what}", name] for what in ("rows", "files", "bytes", "version"))
            assert told == expected, name

    def test_what_is_current_is_counted_by_source(self, numbers: Mapping[tuple[str, ...], float], watched: Watched):
        lake = existing(watched.settings.lake)
        for what in ("series", "instances"):
            table = what.removesuffix("s") if what == "instances" else what
            assert numbers[f"current_{what}", "landing"] == int(lake.extents(table).rows.sum())
        assert numbers["current_bytes", "landing"] > 1_000


@pytest.mark.slow
def test_steps_tell_how_long_they_took(graph: Graph, landing: LandingFolder):
    landing.put("1.dcm", dicom(1, 1, 1))
    (batch,) = graph.ingest()
    assert graph.books(batch).status == "closed"
    found = Meter(graph.lake, graph.settings).measure()["step_seconds"]
    assert {source for source, _ in found} == {"landing"}
    assert {"raw_files", "validated_batch", "flat_metadata", "hierarchy"} <= {step for _, step in found}
    assert all(0 <= seconds < 300 for seconds in found.values())
    assert sum(found.values()) > 0


def test_a_file_of_the_ledger_is_read_once(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    meter = Meter(existing(watched.settings.lake), watched.settings)
    first = meter.measure()["quarantined_objects"]
    asked: list[list[str]] = []
    monkeypatch.setattr(meter, "_read_codes", lambda paths: asked.append(paths) or iter(()))
    assert meter.measure()["quarantined_objects"] == first
    assert asked == [[]]


class TestForm:
    def test_the_text_is_prometheus_own_and_each_family_describes_itself(self, text: str):
        for family in read_text(text):
            known = FAMILIES[family.name.removeprefix(PREFIX)]
            assert (family.documentation, family.type) == (known.meaning, str(known.kind))

    def test_openmetrics_is_read_by_prometheus_client_with_units(self, watched: Watched):
        result = CliRunner().invoke(app, ["metrics", "--lake", watched.settings.lake, "--format", "openmetrics"])
        found = {family.name: family for family in read_openmetrics(result.stdout)}
        assert found[f"{PREFIX}table_bytes"].unit == "bytes"
        assert found[f"{PREFIX}oldest_waiting_seconds"].unit == "seconds"

    @needs_promtool
    def test_promtool_finds_nothing_to_criticise(self, text: str):
        checked = subprocess.run(
            [str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")

    def test_a_label_that_needs_it_is_escaped(self):
        samples = {"objects": {('a"b\\c\nd', "ingested"): 1.0}}
        for write, read in ((prometheus, read_text), (openmetrics, read_openmetrics)):
            end = ["# EOF", ""] if write is openmetrics else [""]
            (family,) = read("\n".join([*write(OF_THE_LAKE, samples), *end]))
            assert family.samples[0].labels == {"source": 'a"b\\c\nd', "outcome": "ingested"}


class TestTable:
    def test_names_end_with_their_unit_and_only_samples_of_counters_with_total(self):
        for family in FAMILIES.values():
            assert family.name.startswith(PREFIX)
            assert not family.name.endswith("_total")
            assert family.sample_name.endswith("_total") is (family.kind is Kind.COUNTER)
            assert family.unit in ("", "seconds", "bytes")
            if family.unit:
                assert family.name.endswith(f"_{family.unit}")
            assert family.meaning.endswith(".")

    def test_no_label_can_grow_with_what_arrives(self):
        labels = {label for family in (*OF_THE_LAKE, *OF_THE_SERVER) for label in family.labels}
        assert labels == {
            "source", "service", "table", "part", "queue", "status", "outcome", "code", "waiting", "step",
            "route", "method",
        }  # fmt: skip


class TestFile:
    def test_is_written_whole_and_may_be_read_by_the_collector(self, watched: Watched, tmp_path: Path, text: str):
        target = tmp_path / "dicom_assets.prom"
        target.write_text("what was there before")
        result = CliRunner().invoke(app, ["metrics", "--lake", watched.settings.lake, "--output", str(target)])
        assert (result.exit_code, result.stdout) == (0, "")
        assert target.stat().st_mode & 0o777 == 0o644
        assert [path.name for path in tmp_path.iterdir()] == [target.name]
        heads = [line for line in target.read_text().splitlines() if line.startswith("#")]
        assert heads == [line for line in text.splitlines() if line.startswith("#")]

    def test_that_cannot_be_written_is_told_and_leaves_what_was_there(self, watched: Watched, tmp_path: Path):
        target = tmp_path / "gone" / "dicom_assets.prom"
        result = CliRunner().invoke(app, ["metrics", "--lake", watched.settings.lake, "-o", str(target)])
        assert result.exit_code == 2
        assert "cannot be written" in result.stderr
        assert CliRunner().invoke(app, ["metrics", "--lake", watched.settings.lake, "-o", "."]).exit_code == 2

    def test_of_no_lake_is_refused(self, tmp_path: Path):
        result = CliRunner().invoke(app, ["metrics", "--lake", str(tmp_path / "none")])
        assert (result.exit_code, result.stdout) == (2, "")
        assert not (tmp_path / "none").exists()


def test_nothing_of_a_patient_is_in_the_numbers(text: str):
    assert not SECRETS.stand_in(text.encode())


class TestFeeds:
    def test_windows_that_are_read_in_time_have_no_lag_and_late_ones_theirs(self, watched: Watched, tmp_path: Path):
        folder = tmp_path / "pacs" / "windows" / "2026" / "03" / "01"
        folder.mkdir(parents=True)
        (folder / "20260301T080000Z-20260301T090000Z.ndjson.zst").write_bytes(b"")
        (tmp_path / "pacs" / "windows" / "2025").mkdir()
        settings = Settings.model_validate({
            "lake": watched.settings.lake,
            "services": [{"name": "pacs", "url": "http://127.0.0.1:1", "landing": str(tmp_path / "pacs")}],
        })  # fmt: skip
        meter = Meter(existing(settings.lake), settings)

        def lag(moment: str) -> float:
            return meter.measure(datetime.fromisoformat(moment))["window_lag_seconds"]["pacs",]

        assert lag("2026-03-01T09:59Z") == lag("2026-03-01T10:14Z") == 0
        assert lag("2026-03-01T10:15Z") == 3_600
        assert lag("2026-03-01T12:20Z") == 3 * 3_600

    def test_a_queue_that_cannot_be_asked_is_told_and_costs_no_other_number(self, watched: Watched):
        settings = Settings.model_validate({
            "lake": watched.settings.lake,
            "sources": [{"name": "blobs", "root": "az://devstoreaccount1/none", "queue": "none"}],
        })  # fmt: skip
        meter = Meter(existing(settings.lake), settings)

        def away(*_: object) -> None:
            raise SourceUnavailable("the queue is away")

        meter.feeds._events = away  # type: ignore[method-assign]
        found = meter.measure()
        assert found["unmeasured"] == {("lake",): 0, ("events",): 1}
        assert found["batches"]["landing", "closed"] == 1
