"""Numbers about the server are OpenMetrics, and those of several processes are one."""

from __future__ import annotations

import math
import re
from pathlib import Path

from starlette.responses import PlainTextResponse

from dicom_assets.serve import metrics as module
from dicom_assets.serve.exchange import Exchange
from dicom_assets.serve.metrics import Metrics
from dicom_assets.settings import Settings
from dicom_assets_tests.serve.asking import client, resource, saying

SAMPLE = re.compile(r'(?P<name>[a-z_]+)(\{(?P<labels>[a-z]+="[^"\\]*"(,[a-z]+="[^"\\]*")*)\})? (?P<value>[0-9.e+-]+)')


def samples(text: str) -> dict[tuple[str, str], float]:
    """Every sample, by name and labels; fails for what is no OpenMetrics."""
    *rows, end, last = text.split("\n")
    assert (end, last) == ("# EOF", "")
    found, kinds, current = {}, {}, ""
    for row in rows:
        if row.startswith("# TYPE "):
            _, _, current, kind = row.split(" ")
            assert current not in kinds, "a family is described once"
            kinds[current] = kind
        elif not row.startswith(("# HELP ", "# UNIT ")):
            sample = SAMPLE.fullmatch(row)
            assert sample is not None, row
            suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}[
                kinds[current]
            ]
            assert sample["name"] in [current + one for one in suffixes], "samples of a family stand together"
            key = (sample["name"], sample["labels"] or "")
            assert key not in found
            found[key] = float(sample["value"])
    return found


def test_requests_are_counted_by_resource_method_and_status(searchable: Settings):
    asking = client(searchable, [resource("/hello", saying(PlainTextResponse("hello")))])
    for _ in range(3):
        asking.get("/dicom-web/hello")
    asking.get("/dicom-web/nothing/of/this/kind")
    answer = asking.get("/metrics")
    found = samples(answer.text)
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert found["dicom_assets_requests_total", 'route="/dicom-web/hello",method="GET",status="200"'] == 3
    assert found["dicom_assets_requests_total", 'route="none",method="GET",status="404"'] == 1
    assert found["dicom_assets_sent_bytes_total", 'route="/dicom-web/hello"'] == 15
    assert found["dicom_assets_request_seconds_count", 'route="/dicom-web/hello"'] == 3
    assert found["dicom_assets_requests_at_once", ""] == 1  # this one


def test_buckets_grow_and_hold_everything(searchable: Settings):
    numbers = Metrics()
    for seconds in (0.001, 0.02, 0.02, 3.0, 1_000.0):
        exchange = Exchange("GET", route="/x", status=200)
        exchange.began -= seconds
        numbers.count(exchange)
    found = samples(numbers.text())
    buckets = {
        float(labels.split('le="')[1].strip('"').replace("+Inf", "inf")): value
        for (name, labels), value in found.items()
        if name.endswith("_bucket")
    }
    assert list(buckets.values()) == sorted(buckets.values())
    assert (buckets[0.005], buckets[0.025], buckets[5.0], buckets[math.inf]) == (1, 3, 4, 5)


def test_processes_add_up_whichever_is_asked(tmp_path: Path, monkeypatch):
    both = []
    for process, requests in ((1, 2), (2, 5)):
        monkeypatch.setattr(module.os, "getpid", lambda process=process: process)
        numbers = Metrics(tmp_path)
        for _ in range(requests):
            numbers.count(Exchange("GET", route="/x", status=200))
        numbers.share()
        both.append((process, numbers))
    for process, numbers in both:
        monkeypatch.setattr(module.os, "getpid", lambda process=process: process)
        assert samples(numbers.text())["dicom_assets_requests_total", 'route="/x",method="GET",status="200"'] == 7
