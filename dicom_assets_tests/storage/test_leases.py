"""A lease that is lost is noticed by its holder, whatever took it away, before anything more is written.

The storage is one that answers as Azure's does and as the test says; azure/test_fence.py has the emulator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import SCHEMAS, Part, Staging, StagingCache
from dicom_assets.schema.registry import TABLES
from dicom_assets.storage import leases, locks
from dicom_assets.storage.files import LakeError, LakeFiles
from dicom_assets.storage.leases import Held, LeaseLost

AWAY = ServiceRequestError("no route to host")


def refusal(status: int) -> HttpResponseError:
    """What the SDK raises for an answer with this status."""
    error = HttpResponseError("refused")
    error.status_code = status
    return error


class Storage:
    """Answers renewals: with the errors that a test puts into `answer`, or with consent."""

    def __init__(self) -> None:
        self.answer: AzureError | None = None
        self.renewals = 0

    def renew(self) -> None:
        self.renewals += 1
        if self.answer is not None:
            raise self.answer


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def held(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """A lease of a second, renewed each hundredth."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    lease: Any = storage
    one = Held(lease)
    yield one
    one.stop()


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether a condition comes to hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def is_lost(held: Held) -> bool:
    try:
        held.check()
    except LeaseLost:
        return True
    return False


def test_a_lease_is_held_for_as_long_as_it_is_renewed(held, storage):
    assert within(5, lambda: storage.renewals > 5)
    before = held._until
    assert within(5, lambda: held._until > before)
    assert not is_lost(held)


@pytest.mark.parametrize("status", [404, 409, 412])
def test_a_lease_that_the_storage_has_given_to_somebody_else_is_lost_at_once_and_for_good(
    held, storage, monkeypatch, status
):
    held._until += 3_600  # so that the time alone would not tell
    storage.answer = refusal(status)
    assert within(5, lambda: is_lost(held))
    storage.answer = None
    held._thread.join(5)
    assert not held._thread.is_alive()  # it is not renewed over its new holder's head
    assert is_lost(held)


@pytest.mark.parametrize("answer", [AWAY, refusal(503)], ids=["unreachable", "503"])
def test_a_storage_that_cannot_be_reached_loses_the_lease_when_its_time_is_over_and_not_before(held, storage, answer):
    storage.answer = answer
    assert not is_lost(held)
    assert within(5, lambda: is_lost(held))
    assert time.monotonic() >= held._until


def test_the_message_says_what_to_do(held):
    held._until = 0.0
    with pytest.raises(LakeError, match=r"right to write was lost.* Run the batch again; nothing is lost\."):
        held.check()


def lost() -> None:
    raise LeaseLost("The right to write was lost")


class TestWhoHasLostTheRight:
    """Every write looks at the right first; `kept.check` and `Lake.committing` are where leases come in."""

    @pytest.mark.parametrize(
        "write",
        [
            lambda staging: staging.put(Part.TOUCHED, 1, SCHEMAS[Part.TOUCHED].empty_table()),
            lambda staging: staging.complete(Part.TOUCHED, 0),
            lambda staging: staging.clear(Part.TOUCHED),
            lambda staging: staging.remove(),
        ],
        ids=["put", "complete", "clear", "remove"],
    )
    def test_stages_nothing_and_deletes_nothing(self, tmp_path, write):
        files = LakeFiles(str(tmp_path / "lake"))
        row = SCHEMAS[Part.TOUCHED].empty_table().from_pylist([{"study_key": "a" * 16}], SCHEMAS[Part.TOUCHED])
        Staging(files, "batch", StagingCache()).stage(Part.TOUCHED, row)
        before = files.names("_staging")
        with pytest.raises(LeaseLost):
            write(Staging(files, "batch", StagingCache(check=lost)))
        assert files.names("_staging") == before

    @pytest.mark.parametrize("looks", [0, 1], ids=["lost before", "lost while files are written"])
    def test_commits_nothing(self, tmp_path, monkeypatch, looks):
        lake = Lake(str(tmp_path / "lake"))
        version = lake.table("validated_batch").version()
        left = [*range(looks)]
        monkeypatch.setattr(locks, "_nothing", lambda: left.pop() if left else lost())
        row = {"batch_id": "b", "object_id": "x", "outcome": "ingested", "kind": "dicom", "judged_at": 0}
        rows = pa.Table.from_pylist([row], TABLES["validated_batch"].schema)
        with lake.committing("validated_batch"), pytest.raises(LeaseLost):
            lake.replace("validated_batch", ["b"], rows)
        assert lake.table("validated_batch").version() == version
