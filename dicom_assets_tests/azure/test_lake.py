"""A lake on Azure: the whole graph, the same rows as in a folder, SQL, locks that end with their holder."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from azure.storage.blob import BlobClient, BlobLeaseClient
from deltalake import write_deltalake
from pydicom import dcmread
from typer.testing import CliRunner

from dicom_assets.batch.books import Status
from dicom_assets.batch.context import BatchBusy, RunContext
from dicom_assets.cli.demo import write_demo
from dicom_assets.cli.main import app
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.maintenance import maintain
from dicom_assets.lake.query import QueryError, connect, existing, rows, run_read_only
from dicom_assets.lake.staging import SCHEMAS, Part, Staging, StagingCache
from dicom_assets.landing.azure import AzureContainer
from dicom_assets.landing.local import LocalFolder
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import LandingStore
from dicom_assets.schema.registry import BATCHES
from dicom_assets.settings import Settings
from dicom_assets.storage import leases, locks
from dicom_assets.storage.azure import container_client, parse_folder
from dicom_assets.storage.files import LakeError, LakeFiles
from dicom_assets_tests.azure.azurite import Container, Proxy, new_container
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import Graph, contents
from dicom_assets_tests.support.landings import zipped
from dicom_assets_tests.support.steps import Stepped

pytestmark = pytest.mark.slow


def settings(lake: str, root: str) -> Settings:
    return Settings.model_validate({"lake": lake, "sources": [{"root": root}], "claiming": {"quiet_seconds": 0}})


def names_of_objects(store: LandingStore) -> dict[str, str]:
    """Path below the root, by URI."""
    return {uri: store.below_root(uri) for batch in store.list() for uri in batch.column("uri").to_pylist()}


def comparable(lake: Lake, store: LandingStore) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, with names of objects that do not depend on where they lie.

    What the storage says of an object (its time, its etag) differs from store to store, and so do hashes of it.
    """
    paths = names_of_objects(store)
    tables = contents(lake)
    del tables["duplicate"]  # which of several objects came first at one moment, a hash of where they lie decides
    label: dict[str, str] = {"": ""}
    for row in tables["raw_files"]:
        label[row["object_id"]] = f"{paths[row['uri']]}|{row['member'] or ''}"
    varying = {"batch_id", "etag", "modified_at", "claimed_at", "ingested_at", "version_at", "first_seen_at"} | {
        "updated_at", "reason", "record_key", "file_key", "created_at", "local_path", "source_file",
        "told_first_at", "told_last_at"}  # fmt: skip
    result: dict[str, list[dict[str, Any]]] = {}
    for name, found in tables.items():
        plain = []
        for row in found:
            row = {column: value for column, value in row.items() if column not in varying}
            for column in ("object_id", "container_id"):
                if row.get(column) is not None:
                    row[column] = label[row[column]]
            if name in ("series", "study", "patient_value"):
                row.pop("object_id")  # of instances that came at the same moment, a hash decides
            if row.get("resource") is not None:
                row["resource"] = re.sub(r'"lastUpdated":"[^"]*"', "", row["resource"])  # when it was claimed
            if row.get("uri") is not None:
                row["uri"] = paths[row["uri"]]
            plain.append(row)
        result[name] = sorted(plain, key=str)
    return result


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample input: DICOM files, a zip, a clinical table, and things that are none of these."""
    folder = tmp_path_factory.mktemp("sample") / "in"
    write_demo(folder)
    # Of each study one file: which of several versions is the newest depends on times that a store gives.
    known: set[str] = set()
    for path in sorted(folder.rglob("*.dcm")):
        found = dcmread(path, force=True, specific_tags=["StudyInstanceUID"]).get("StudyInstanceUID", "")
        if found in known or len(known) > 40:
            path.unlink()
        known.add(found)
    for path in folder.rglob("*.zip"):
        path.unlink()
    members = {f"{n}.dcm": dicom(7, 1, n) for n in range(1, 6)} | {"note.txt": b"text", "__MACOSX/._1.dcm": b"x"}
    (folder / "later.zip").write_bytes(zipped(members))
    for number in range(1, 6):
        (folder / f"ct {number}.dcm").write_bytes(dicom(8, 1 + number % 2, number))
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "read me.txt").write_bytes(b"nothing to see")
    return folder


@pytest.fixture
def lake_url(container: Container) -> str:
    return f"{container.url}/a lake".replace(" ", "%20")


@pytest.fixture(scope="module")
def made(emulator: dict[str, str]) -> str:
    """The address of a lake whose tables are made. Whoever writes into it looks at what is its own."""
    url = f"{new_container().url}/a%20lake"
    Lake(url)
    return url


class TestTheSameResultRowForRow:
    def test_from_a_container_into_a_lake_on_azure_as_from_a_folder_into_a_folder(
        self, sample: Path, container: Container, tmp_path: Path
    ) -> None:
        container_of_lake = f"{container.url}/lake"
        with dg.DagsterInstance.ephemeral() as instance:
            here = Stepped(settings(str(tmp_path / "lake"), str(sample)), instance, judges=False)
            (batch,) = here.ingest()
            assert here.books(batch).status == Status.CLOSED
        for path in sorted(p for p in sample.rglob("*") if p.is_file()):
            container.put(f"in/{path.relative_to(sample).as_posix()}", path.read_bytes())
        with dg.DagsterInstance.ephemeral() as instance:
            there = Stepped(settings(container_of_lake, f"{container.url}/in"), instance)
            (batch,) = there.ingest()
            assert there.books(batch).status == Status.CLOSED
            assert there.claim() == []
            local = comparable(here.lake, open_store(here.settings.sources[0]))
            remote = comparable(there.lake, open_store(there.settings.sources[0]))
            assert isinstance(open_store(here.settings.sources[0]), LocalFolder)
            assert isinstance(open_store(there.settings.sources[0]), AzureContainer)
            assert len(local["flat_metadata"]) > 30
            assert {name: len(found) for name, found in remote.items()} == {n: len(f) for n, f in local.items()}
            assert remote == local
            assert not [name for name in container.names() if name.startswith("lake/_staging/")]
            before = contents(there.lake)
            there.judges = False
            assert there.run(batch).success
        self._the_commands_read_it(there.settings.lake, batch)
        for name in ("raw_files", "study", "clinical", "batches"):
            maintain(there.lake, name, 720)
        assert contents(there.lake) == before, "a rerun and maintenance change nothing"

    def _the_commands_read_it(self, lake: str, batch: str) -> None:
        run = CliRunner().invoke(app, ["status", "--lake", lake, "--format", "csv"])
        assert (run.exit_code, f"{batch},landing,closed" in run.stdout) == (0, True)
        query = "SELECT count(*) AS n FROM instance JOIN study USING (study_key)"
        run = CliRunner().invoke(app, ["sql", query, "--lake", lake, "--format", "csv"])
        assert run.exit_code == 0
        assert int(run.stdout.split()[1]) > 30
        assert CliRunner().invoke(app, ["errors", "--lake", lake]).exit_code == 0


class TestSql:
    def test_nothing_but_the_tables_can_be_read_or_written(self, made: str, tmp_path: Path) -> None:
        lake = existing(made)
        lake.files.put("_claims/secret.parquet", b"x")
        secret = tmp_path / "secret.txt"
        secret.write_text("secret")
        for source in (f"read_text('{secret}')", "read_blob('lake://_claims/secret.parquet')", "read_text('lake://x')",
                       "read_blob('lake://batches/../_claims/secret.parquet')", "read_csv('az://other/x.csv')",
                       "read_csv('https://example.org/x.csv')"):  # fmt: skip
            with pytest.raises(QueryError):
                rows(run_read_only(lake, f"SELECT * FROM {source}"))
        with pytest.raises(QueryError):
            run_read_only(lake, "COPY (SELECT 1) TO 'lake://batches/x.parquet'")
        assert rows(run_read_only(lake, "SELECT count(*) FROM study"))[1] == [(0,)]

    def test_a_lake_that_is_not_there_is_not_made_by_reading(self, container: Container) -> None:
        run = CliRunner().invoke(app, ["status", "--lake", f"{container.url}/nothing"])
        assert run.exit_code == 2
        assert container.names() == []

    def test_a_container_that_is_not_there_and_a_wrong_address_say_so(self, emulator: dict[str, str]) -> None:
        for address, says in (("az://devstoreaccount1/no-container/x", "no-container"), ("az://x", "address is wrong")):
            run = CliRunner().invoke(app, ["status", "--lake", address])
            assert run.exit_code == 2
            assert says in run.stderr

    def test_large_files_are_read_by_ranges(self, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
        lake = existing(made)
        many = [{"batch_id": f"b{n:06}", "source": "large", "status": "open", "seen": n} for n in range(20_000)]
        table = pa.Table.from_pylist(many, schema=BATCHES.schema)
        write_deltalake(lake.location("batches"), table, mode="append", storage_options=lake.storage_options)
        monkeypatch.setattr("dicom_assets.lake.remote.SMALL", 1_000)
        monkeypatch.setattr("dicom_assets.lake.remote.WINDOW", 4_096)
        with connect(existing(made), ["batches"]) as connection:
            query = "SELECT sum(seen), max(batch_id) FROM batches WHERE source = 'large'"
            assert connection.execute(query).fetchall() == [(sum(range(20_000)), "b019999")]


class TestRequests:
    def test_a_step_asks_once_for_a_table_and_for_what_it_has_staged_not_at_all(self, made: str, faults: Proxy) -> None:
        lake = existing(made)
        staging = Staging(lake.files, "batch", StagingCache())
        schema = SCHEMAS[Part.TOUCHED]
        staging.stage(Part.TOUCHED, pa.Table.from_pylist([{"study_key": "a"}], schema=schema))
        staging.require(Part.TOUCHED)
        faults.seen.clear()
        assert staging.read(Part.TOUCHED)["study_key"].to_pylist() == ["a"]
        assert faults.seen == []
        with lake.look_once():
            assert lake.row_count("study") == 0
            assert faults.seen
            faults.seen.clear()
            assert lake.row_count("study") == 0
            with connect(lake, ["study"]) as connection:
                assert connection.execute("SELECT count(*) FROM study").fetchall() == [(0,)]
            assert faults.seen == []


class TestLocks:
    def test_one_holder_at_a_time(self, lake_url: str) -> None:
        files = LakeFiles(lake_url)
        with locks.held(files, "x", 0), pytest.raises(locks.LockBusy), locks.held(files, "x", 0):
            pass
        with locks.held(files, "x", 0):
            pass

    def test_who_waits_gets_it_when_the_holder_lets_go(self, lake_url: str) -> None:
        files = LakeFiles(lake_url)
        order: list[str] = []

        def second() -> None:
            with locks.held(files, "x", 20):
                order.append("second")

        with locks.held(files, "x", 0):
            thread = threading.Thread(target=second)
            thread.start()
            time.sleep(0.5)
            order.append("first")
        thread.join()
        assert order == ["first", "second"]

    def test_a_holder_that_died_blocks_others_until_its_lease_ends(self, lake_url: str) -> None:
        blob = _blob(lake_url, "_locks/x.lock")
        blob.upload_blob(b"")
        lease = blob.acquire_lease(lease_duration=60)
        lease.break_lease(lease_break_period=2)  # 58 s later, as it were
        with pytest.raises(locks.LockBusy), locks.held(LakeFiles(lake_url), "x", 0):
            pass
        begun = time.monotonic()
        with locks.held(LakeFiles(lake_url), "x", 30):
            assert 1 < time.monotonic() - begun < 20
        assert leases.LEASE_SECONDS <= 60

    def test_a_lost_lock_is_noticed_before_the_next_commit(self, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(leases, "RENEW_SECONDS", 0.1)
        lake = existing(made)
        with lake.committing("batches"):
            lake.check_right("batches")
            BlobLeaseClient(_blob(made, "_locks/batches.lock")).break_lease(lease_break_period=0)
            time.sleep(1)
            with pytest.raises(LakeError, match="right to write was lost"):
                lake.replace("batches", ["b"], BATCHES.schema.empty_table())

    def test_a_batch_is_worked_on_by_one_and_its_lock_leaves_nothing_behind(self, container: Container) -> None:
        container.put("in/read me.txt", b"x")
        graph_settings = settings(f"{container.url}/lake", f"{container.url}/in")
        with dg.DagsterInstance.ephemeral() as instance:
            (batch,) = Graph(graph_settings, instance).claim()
        with RunContext(graph_settings) as one, RunContext(graph_settings) as other:
            one.batch(batch)
            with pytest.raises(BatchBusy):
                other.batch(batch, wait_seconds=0)
        assert not [name for name in container.names() if "batch-" in name]

    def test_concurrent_publishers_lose_nothing(self, made: str) -> None:
        failures: list[BaseException] = []

        def publish(worker: int) -> None:
            lake = existing(made)
            try:
                for number in range(3):
                    batch = f"w{worker}-{number}"
                    row = {"batch_id": batch, "source": "published", "status": "open", "seen": 1}
                    with lake.committing("batches"):
                        lake.replace("batches", [batch], pa.Table.from_pylist([row], schema=BATCHES.schema))
            except LakeError as error:
                failures.append(error)

        threads = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        with connect(existing(made), ["batches"]) as connection:
            query = "SELECT count(*) FROM batches WHERE source = 'published'"
            assert connection.execute(query).fetchall() == [(12,)]


class TestStorageThatRefuses:
    def test_missing_rights_say_which_role_is_needed(self, container: Container, faults: Proxy) -> None:
        files = LakeFiles(container.url)
        faults.refuse = lambda method, path: 403
        with pytest.raises(LakeError, match="Storage Blob Data Contributor"):
            files.put("x", b"x")
        with pytest.raises(LakeError, match="Storage Blob Data Contributor"), locks.held(files, "x", 0):
            pass


def _blob(lake: str, path: str) -> BlobClient:
    place = parse_folder(lake).below(path)
    return container_client(place).get_blob_client(place.path)
