"""Sensor `blob_events` over real queues: messages in any order, again, twice, broken; blobs replaced and deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import azure.storage.queue
import dagster as dg
import pytest
from azure.storage.queue import ExponentialRetry, QueueClient

from dicom_assets.batch.books import Status
from dicom_assets.batch.claim_rounds import claim_by_listing, claim_from_queue
from dicom_assets.batch.context import RunContext
from dicom_assets.defs.blob_events import event_sensors
from dicom_assets.defs.sensors import new_files
from dicom_assets.lake.delta import Lake
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.settings import ClaimingSettings, Settings
from dicom_assets.storage.azure import EMULATOR, queue_client
from dicom_assets.storage.files import LakeError, LakeFiles
from dicom_assets_tests.azure import azurite
from dicom_assets_tests.azure.azurite import Container, Proxy
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.steps import Stepped

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_far_as_hierarchy")]


def retried_soon(**given: Any) -> ExponentialRetry:
    """As often as asked for, without the 14 seconds between."""
    return ExponentialRetry(**{**given, "increment_base": 0, "random_jitter_range": 0})


class Account:
    """A container, its queue, and a graph whose source is both; blobs are announced as Event Grid would."""

    def __init__(self, container: Container, queue: QueueClient, lake: Path, instance: dg.DagsterInstance) -> None:
        self.container, self.queue = container, queue
        self.settings = Settings.model_validate(
            {
                "lake": str(lake),
                "sources": [
                    {"name": "pacs", "root": f"{container.url}/in", "exclude": ["old/**"], "queue": queue.queue_name}
                ],
                "events": {"visible_again_seconds": 1},
                "claiming": {"longest_wait_seconds": 0},
                "reading": {"workers": 1},
            }
        )
        self.graph = Stepped(self.settings, instance, judges=False)
        self._sequence = 0

    def put(self, name: str, data: bytes, **changes: Any) -> dict[str, Any]:
        """Writes a blob and announces it; the event."""
        event = self.event(name, self.container.put(name, data), len(data), **changes)
        self.send(event)
        return event

    def event(self, name: str, etag: str, size: int, **changes: Any) -> dict[str, Any]:
        """An event about a blob."""
        self._sequence += 1
        return azurite.event(self.container, name, etag, size, self._sequence, **changes)

    def send(self, event: Any) -> None:
        """Puts a message on the queue."""
        if isinstance(event, str):
            self.queue.send_message(event)
        else:
            azurite.announce(self.queue, event)

    def left(self) -> int:
        """Messages in the queue, about."""
        return self.queue.get_queue_properties().approximate_message_count or 0

    def tick(self) -> Any:
        """One tick of blob_events; its result."""
        (sensor,) = (one for one in event_sensors(self.settings) if one.name == "blob_events")
        return self.evaluate(sensor)

    def evaluate(self, sensor: dg.SensorDefinition, cursor: str | None = None) -> Any:
        """One tick of a sensor."""
        with RunContext(self.settings) as work:
            context = dg.build_sensor_context(self.graph.instance, cursor=cursor, resources={"work": work})
            result = sensor(context)
            if isinstance(result, dg.SensorResult):
                for request in result.dynamic_partitions_requests or ():
                    self.graph.instance.add_dynamic_partitions("batch", list(request.partition_keys))
            self.cursor = context.cursor
            return result

    def batches(self, result: Any) -> list[str]:
        """Batches that a tick asked runs for."""
        return [request.partition_key for request in result.run_requests] if isinstance(result, dg.SensorResult) else []

    def objects(self) -> list[str]:
        """Paths of everything claimed."""
        store = open_store(self.settings.sources[0])
        with self.graph.work() as work:
            return sorted(
                store.below_root(uri)
                for claim in work.log.claims()
                for uri in work.log.manifest(claim.batch_id)["uri"].to_pylist()
            )


@pytest.fixture
def account(container: Container, queue: QueueClient, tmp_path: Path, instance: dg.DagsterInstance) -> Account:
    return Account(container, queue, tmp_path / "lake", instance)


def taken(account: Account, *, paced: bool = False) -> Any:
    with account.graph.work() as work:
        return claim_from_queue(work, account.settings.sources, paced=paced)


class TestTicks:
    def test_announced_blobs_become_a_batch_that_runs(self, account: Account) -> None:
        for number in range(1, 4):
            account.put(f"in/{number}.dcm", dicom(1, 1, number))
        result = account.tick()
        (batch,) = account.batches(result)
        assert account.left() == 0
        assert account.graph.run(batch).success
        assert account.graph.books(batch).ingested == 3
        assert isinstance(account.tick(), dg.SkipReason)

    def test_only_what_the_source_wants_is_claimed_and_the_rest_is_deleted(self, account: Account) -> None:
        for name in ("in/a.dcm", "out/b.dcm", "in/old/c.dcm", "in/healthCheck/health1.txt"):
            account.put(name, b"x")
        account.put("in/d.dcm", b"x", api="CreateFile")
        found = taken(account)
        assert (found.messages, found.filtered) == (5, 4)
        assert account.objects() == ["a.dcm"]
        assert account.left() == 0

    def test_redelivered_duplicated_and_reordered_messages_claim_once(self, account: Account) -> None:
        events = [account.put(f"in/{number}.dcm", dicom(1, 1, number)) for number in range(1, 4)]
        for event in reversed(events):
            account.send(event)
        assert len(account.batches(account.tick())) == 1
        for event in events:
            event["data"]["eTag"] = f'"{event["data"]["eTag"]}"'
            account.send(event)
        found = taken(account)
        assert (found.messages, found.claimed) == (3, 0)
        assert account.objects() == ["1.dcm", "2.dcm", "3.dcm"]
        assert account.left() == 0

    def test_a_listing_and_events_claim_the_same_object_once(self, account: Account) -> None:
        account.put("in/a.dcm", dicom())
        with account.graph.work() as work:
            assert len(claim_by_listing(work, [open_store(account.settings.sources[0])], None, 60)[0][0].claims) == 0
        account.settings = account.settings.model_copy(
            update={"claiming": account.settings.claiming.model_copy(update={"quiet_seconds": 0.0})}
        )
        with RunContext(account.settings) as work:
            assert len(claim_by_listing(work, [open_store(account.settings.sources[0])], None, 60)[0][0].claims) == 1
        assert taken(account).claimed == 0
        assert account.left() == 0

    def test_messages_that_follow_a_claim_stay_in_the_queue_until_more_have_come(self, account: Account) -> None:
        usual = account.settings.model_copy(update={"claiming": ClaimingSettings()})
        account.graph = Stepped(usual, account.graph.instance, judges=False)
        account.put("in/1.dcm", dicom(1, 1, 1))
        assert taken(account, paced=True).claimed == 1
        for number in (2, 3):
            account.put(f"in/{number}.dcm", dicom(1, 1, number))
        found = taken(account, paced=True)
        assert (found.messages, found.claimed, found.gathering, account.left()) == (0, 0, 2, 2)
        enough = {"claiming": ClaimingSettings(enough_objects=2)}
        account.graph = Stepped(account.settings.model_copy(update=enough), account.graph.instance, judges=False)
        assert (taken(account, paced=True).claimed, account.left()) == (1, 0)

    def test_a_message_is_deleted_only_when_its_claim_is_durable(
        self, account: Account, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account.put("in/a.dcm", dicom())
        Lake(account.settings.lake)

        def full(*_: Any, **__: Any) -> bool:
            raise LakeError("The disk that holds the lake is full.")

        with monkeypatch.context() as patch:
            patch.setattr(LakeFiles, "put_parquet", full)
            with pytest.raises(dg.Failure):
                account.tick()
        assert account.left() == 1
        time.sleep(1.2)
        assert len(account.batches(account.tick())) == 1
        assert account.left() == 0

    def test_a_full_round_leaves_messages_for_the_next(self, account: Account) -> None:
        account.settings = account.settings.model_copy(
            update={
                "claiming": account.settings.claiming.model_copy(update={"batch_objects": 2, "batches_per_tick": 1})
            }
        )
        account.graph = Stepped(account.settings, account.graph.instance, judges=False)
        for number in range(5):
            account.put(f"in/{number}.dcm", b"x")
        found = taken(account)
        assert (found.claimed, found.waiting, account.left()) == (1, 3, 3)
        for _ in range(2):
            time.sleep(1.2)
            taken(account)
        assert (account.objects(), account.left()) == ([f"{n}.dcm" for n in range(5)], 0)

    def test_a_queue_that_is_not_reached_fails_the_tick_and_nothing_is_lost(
        self, account: Account, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account.put("in/a.dcm", dicom())
        with monkeypatch.context() as patch:
            patch.setenv("AZURITE_QUEUE_STORAGE_URL", f"http://127.0.0.1:{azurite.free_ports(1)[0]}")
            patch.setattr(azure.storage.queue, "ExponentialRetry", retried_soon)
            with pytest.raises(dg.Failure, match="cannot be reached"):
                account.tick()
        assert len(account.batches(account.tick())) == 1

    def test_new_files_leaves_the_source_to_its_events_and_missed_events_lists_it(self, account: Account) -> None:
        account.container.put("in/unannounced.dcm", dicom())
        time.sleep(1)
        account.settings = account.settings.model_copy(
            update={"claiming": account.settings.claiming.model_copy(update={"quiet_seconds": 0.0})}
        )
        assert account.batches(account.evaluate(new_files)) == []
        (missed,) = (one for one in event_sensors(account.settings) if one.name == "missed_events")
        assert account.batches(account.evaluate(missed)) == []
        assert account.objects() == ["unannounced.dcm"]
        assert "not long ago" in account.evaluate(missed, cursor=account.cursor).skip_message
        assert account.batches(account.evaluate(new_files)) == [], "one sensor alone asks for a run"
        assert len(account.batches(account.tick())) == 1


class TestBlobsThatChange:
    def test_whatever_is_written_replaced_or_deleted_meanwhile_is_accounted_for(self, account: Account) -> None:
        """Written twice before the tick; replaced between claim and reading; deleted between event and reading."""
        account.put("in/twice.dcm", dicom(1, 1, 1, SeriesDescription="old"))
        account.put("in/twice.dcm", dicom(1, 1, 1, SeriesDescription="new"))
        account.put("in/replaced.dcm", dicom(2, 1, 1, SeriesDescription="old"))
        account.put("in/deleted.dcm", dicom(3, 1, 1))
        account.container.client.delete_blob("in/deleted.dcm")
        (first,) = account.batches(account.tick())
        assert (account.objects(), account.left()) == (["deleted.dcm", "replaced.dcm", "twice.dcm"], 0)
        account.put("in/replaced.dcm", dicom(2, 1, 1, SeriesDescription="new"))
        account.graph.run(first)
        (second,) = account.batches(account.tick())
        account.graph.run(second)
        found = account.graph.rows("SELECT batch_id, outcome, code FROM validated_batch ORDER BY batch_id, code")
        assert [(row["batch_id"], row["code"]) for row in found] == [
            (first, "CHANGED_DURING_READ"), (first, "OBJECT_GONE"), (first, None), (second, None)
        ]  # fmt: skip
        assert {row["outcome"] for row in found if row["code"] == "OBJECT_GONE"} == {"quarantined"}
        described = account.graph.rows("SELECT SOPInstanceUID, SeriesDescription FROM instance")
        assert {row["SOPInstanceUID"]: row["SeriesDescription"] for row in described} == {
            uid(1, 1, 1): "new", uid(2, 1, 1): "new"
        }  # fmt: skip
        books = [account.graph.books(batch) for batch in (first, second)]
        assert [(one.status, one.ingested, one.balance) for one in books] == [(Status.CLOSED, 1, 0)] * 2


class TestBlobsThatCannotBeRead:
    def test_wait_and_are_claimed_again_without_an_event_or_a_listing(self, account: Account, faults: Proxy) -> None:
        account.settings = account.settings.model_copy(update={"claiming": ClaimingSettings(again_seconds=(0,))})
        account.graph.settings = account.settings
        for number, name in enumerate("abc", 1):
            account.put(f"in/{name}.dcm", dicom(number))
        (first,) = account.batches(account.tick())
        statuses = {"/in/b.dcm": 403, "/in/c.dcm": 409}
        faults.refuse = lambda method, path: next(
            (status for name, status in statuses.items() if path.split("?")[0].endswith(name)), None
        )
        account.graph.run(first)
        books = account.graph.books(first)
        assert (books.status, books.seen, books.ingested) == (Status.CLOSED, 1, 1)
        faults.refuse = lambda method, path: 403 if "comp=list" in path and "restype=container" in path else None
        assert account.left() == 0
        (second,) = account.batches(account.tick())
        account.graph.run(second)
        assert account.graph.books(second).ingested == 2
        assert len(account.graph.rows("SELECT object_id FROM instance")) == 3
        assert account.batches(account.tick()) == []


class TestMessagesThatAreNoEvents:
    @pytest.fixture(autouse=True)
    def _again_at_once(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr("dicom_assets.landing.events.RETRY_SECONDS", 0)
        yield

    def test_after_five_tries_they_go_unchanged_to_the_poison_queue_and_into_the_errors(self, account: Account) -> None:
        account.settings = account.settings.model_copy(
            update={"events": account.settings.events.model_copy(update={"messages_per_tick": 2})}
        )
        account.graph = Stepped(account.settings, account.graph.instance, judges=False)
        account.send("no event of DOE^JANE")
        account.put("in/a.dcm", dicom())
        outcomes = []
        for _ in range(8):
            found = taken(account)
            outcomes.append((found.unreadable, found.poisoned))
        assert sum(poisoned for _, poisoned in outcomes) == 1
        assert sum(unreadable for unreadable, _ in outcomes) == 4
        assert (account.left(), account.objects()) == (0, ["a.dcm"])
        poison = queue_client(EMULATOR, f"{account.queue.queue_name}-poison")
        assert [message.content for message in poison.receive_messages()] == ["no event of DOE^JANE"]
        (row,) = account.graph.rows("SELECT stage, code, detail, severity FROM ingestion_errors")
        assert (row["stage"], row["code"], row["severity"]) == ("event", "EVENT_UNREADABLE", "error")
        assert "5 times" in row["detail"]
        assert "DOE" not in row["detail"]


def test_listings_that_run_out_of_time_go_on_where_they_ended(account: Account, monkeypatch: Any) -> None:
    monkeypatch.setattr("dicom_assets.landing.azure.LISTING_ROWS", 2)
    for number in range(7):
        account.container.put(f"in/{number}.dcm", b"x")
    claiming = account.settings.claiming.model_copy(update={"quiet_seconds": 0.0})
    with RunContext(account.settings.model_copy(update={"claiming": claiming})) as work:
        store = open_store(account.settings.sources[0])
        cursor: str | None = None
        rounds = 0
        while rounds == 0 or cursor:
            _, cursor, failed = claim_by_listing(work, [store], cursor, seconds=0.0)
            assert failed is None
            rounds += 1
        assert rounds > 2
        name = account.settings.sources[0].name
        seen = work.looks.memory(name).believed
        assert seen is not None
        assert (seen.objects, seen.device) == (7, None), "the parts of a listing are one look"
        for number in range(7):
            account.container.client.delete_blob(f"in/{number}.dcm")
        _, cursor, failed = claim_by_listing(work, [store], None, seconds=60)
        assert "looks emptied: 7 objects" in str(failed)
        assert work.looks.is_emptied(name)
    assert account.objects() == [f"{n}.dcm" for n in range(7)]


def test_one_source_that_is_not_there_holds_up_no_other(account: Account) -> None:
    account.container.put("in/a.dcm", b"x")
    claiming = account.settings.claiming.model_copy(update={"quiet_seconds": 0.0})
    missing = account.settings.sources[0].model_copy(update={"name": "x", "root": "az://devstoreaccount1/nothing"})
    sources = (missing, account.settings.sources[0])
    with RunContext(account.settings.model_copy(update={"claiming": claiming, "sources": sources})) as work:
        stores = [open_store(missing), open_store(account.settings.sources[0])]
        claimed, _, failed = claim_by_listing(work, stores, None, 60)
        assert len(claimed[0].claims) == 1
        assert isinstance(failed, SourceUnavailable)
