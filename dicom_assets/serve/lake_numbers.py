"""The numbers of the lake at /metrics: measured now and then, and narrowed to what somebody may see.

Belongs here: when they are measured anew, and who may read which. Does not belong here: what they are
(`monitoring.numbers`), numbers about the server (`metrics`).

Whoever may see everything, or whom the settings let watch, reads all of them. Of whom only some sources are shown reads
what is about these. Of a condition no number tells how much it leaves: whoever has one reads none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

import duckdb

from dicom_assets.monitoring.exposition import Samples, openmetrics
from dicom_assets.monitoring.families import FAMILIES, OF_THE_LAKE
from dicom_assets.monitoring.numbers import Meter, seen_by
from dicom_assets.serve.exchange import Caller
from dicom_assets.serve.served import ServedLake
from dicom_assets.storage.files import LakeError

MEASURE_SECONDS = 15.0
"""How old the numbers of the lake may be; a scrape asks no more often, as a rule."""

_LABELS: Mapping[str, tuple[str, ...]] = {name: family.labels for name, family in FAMILIES.items()}


class LakeNumbers:
    """The numbers of the lake that one process serves."""

    def __init__(self, served: ServedLake) -> None:
        """Nothing is measured yet."""
        self._served = served
        self._measuring = threading.Lock()
        self._meter: Meter | None = None
        self._samples: Samples = {}
        self._measured_at = float("-inf")

    def lines(self, caller: Caller) -> Iterator[str]:
        """What somebody may read, as lines of OpenMetrics. Blocks while it measures."""
        scope = caller.scope
        if caller.may_watch or (scope.sources is None and scope.condition is None):
            yield from openmetrics(OF_THE_LAKE, self._newest())
        elif scope.condition is None and scope.sources:
            yield from openmetrics(OF_THE_LAKE, seen_by(self._newest(), _LABELS, scope.sources))

    def _newest(self) -> Samples:
        with self._measuring:
            if time.monotonic() - self._measured_at >= MEASURE_SECONDS:
                self._samples = self._measure()
                self._measured_at = time.monotonic()
            return self._samples

    def _measure(self) -> Samples:
        """All numbers; of a lake that cannot be read, that it could not."""
        try:
            if self._meter is None:
                self._meter = Meter(self._served.snapshot().lake, self._served.settings)
            return self._meter.measure()
        except (LakeError, duckdb.IOException, duckdb.InvalidInputException):
            return {"unmeasured": {("lake",): 1}}
