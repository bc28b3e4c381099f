"""How far events are behind is asked of the queue itself, and asking takes no message."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.queue import QueueClient

from dicom_assets.landing.events import EventQueue
from dicom_assets.monitoring.feeds import Feeds
from dicom_assets.monitoring.numbers import Samples
from dicom_assets.settings import Settings
from dicom_assets.storage.azure import queue_client
from dicom_assets_tests.azure.azurite import Container

pytestmark = pytest.mark.slow


def test_the_lag_is_the_age_of_the_next_message_and_poison_is_counted_apart(container: Container, queue: QueueClient):
    source = {"name": "pacs", "root": f"{container.url}/in", "queue": queue.queue_name}
    feeds = Feeds(Settings.model_validate({"lake": "/none", "sources": [source]}))

    def measured(after: timedelta = timedelta()) -> Samples:
        samples = Samples()
        feeds.measure(samples, datetime.now(UTC) + after)
        assert samples.values["unmeasured"] == {("events",): 0}
        return samples

    empty = measured()
    assert empty.values["event_messages"] == {("pacs", "incoming"): 0}
    assert empty.values["event_lag_seconds"] == {("pacs",): 0}
    for text in ("one", "two"):
        queue.send_message(text)
    poison = queue_client(EventQueue(queue.queue_name, container.url).account, f"{queue.queue_name}-poison")
    poison.create_queue()
    poison.send_message("unreadable")
    for _ in range(2):
        found = measured(timedelta(hours=1))
        assert found.values["event_messages"] == {("pacs", "incoming"): 2, ("pacs", "poison"): 1}
        assert 3_590 < found.values["event_lag_seconds"]["pacs",] < 3_900
