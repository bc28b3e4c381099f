"""Numbers about the server, as OpenMetrics: requests, how long they took, how much was sent.

Belongs here: counting, and the text. Does not belong here: what is counted (`observation`).

They say nothing of the lake: whoever may read them need not be one who may see a study. What the lake's own numbers say
to whom is `lake_numbers`. Of several processes each one leaves its numbers in a folder that they share, so that it does
not matter which of them is asked.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from dicom_assets.monitoring.exposition import head, labelled, openmetrics
from dicom_assets.monitoring.families import OF_THE_SERVER
from dicom_assets.serve.exchange import Exchange

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram."""

SHARE_SECONDS = 1.0
"""How old the numbers of another process may be."""


class Metrics:
    """The numbers of one process. folder: which it shares with the others, None when there are none."""

    def __init__(self, folder: Path | None = None) -> None:
        """Nothing is counted yet."""
        self._folder = folder
        self._mine = _Numbers()
        self._shared_at = 0.0
        self.at_once = 0

    def count(self, exchange: Exchange) -> None:
        """Counts a request that has ended."""
        key = (exchange.route, exchange.method, str(exchange.status))
        self._mine.requests[key] += 1
        self._mine.sent[exchange.route] += exchange.sent
        self._mine.broken[exchange.route] += exchange.is_broken
        seconds = exchange.seconds
        self._mine.buckets[exchange.route][bisect_left(SECONDS, seconds)] += 1
        self._mine.seconds[exchange.route] += seconds
        if self._folder is not None and time.monotonic() - self._shared_at > SHARE_SECONDS:
            self.share()

    def share(self) -> None:
        """Leaves the numbers for the other processes."""
        if self._folder is not None:
            self._shared_at = time.monotonic()
            target = self._folder / f"{os.getpid()}.json"
            partial = target.with_suffix(".partial")
            partial.write_bytes(orjson.dumps(self._mine.packed(self.at_once)))
            partial.replace(target)

    def text(self, further: Iterable[str] = ()) -> str:
        """All numbers, in the text format of OpenMetrics 1.0. further: lines of other families."""
        numbers, at_once = _Numbers(), self.at_once
        numbers.add(self._mine.packed(0))
        for path in sorted(self._folder.glob("*.json")) if self._folder is not None else ():
            if path.stem != str(os.getpid()):
                packed = orjson.loads(path.read_bytes())
                numbers.add(packed)
                at_once += packed["at_once"]
        return "\n".join([*_lines(numbers, at_once), *further, "# EOF", ""])


class _Numbers:
    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()
        self.sent: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self.buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(SECONDS) + 1))

    def packed(self, at_once: int) -> dict[str, Any]:
        return {
            "requests": [[*key, number] for key, number in self.requests.items()],
            "sent": dict(self.sent),
            "broken": dict(self.broken),
            "seconds": dict(self.seconds),
            "buckets": dict(self.buckets),
            "at_once": at_once,
        }

    def add(self, packed: Mapping[str, Any]) -> None:
        for route, method, status, number in packed["requests"]:
            self.requests[route, method, status] += number
        self.sent.update(packed["sent"])
        self.broken.update(packed["broken"])
        for route, seconds in packed["seconds"].items():
            self.seconds[route] += seconds
        for route, buckets in packed["buckets"].items():
            self.buckets[route] = [a + b for a, b in zip(self.buckets[route], buckets, strict=True)]


def _lines(numbers: _Numbers, at_once: int) -> Iterator[str]:
    requests, broken, sent, seconds, running = OF_THE_SERVER
    samples: dict[str, Mapping[tuple[str, ...], float]] = {
        "requests": dict(numbers.requests.items()),
        "broken_answers": {(route,): number for route, number in numbers.broken.items()},
        "sent_bytes": {(route,): number for route, number in numbers.sent.items()},
    }
    yield from openmetrics((requests, broken, sent), samples)
    yield from head(seconds) if numbers.buckets else ()
    for route, buckets in sorted(numbers.buckets.items()):
        total = 0
        for bound, number in zip([*map(str, SECONDS), "+Inf"], buckets, strict=True):
            total += number
            yield f'{seconds.name}_bucket{{route="{route}",le="{bound}"}} {total}'
        yield f"{seconds.name}_count{labelled(seconds, (route,))} {total}"
        yield f"{seconds.name}_sum{labelled(seconds, (route,))} {numbers.seconds[route]:.6f}"
    yield from openmetrics((running,), {"requests_at_once": {(): at_once}})
