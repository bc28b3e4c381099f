"""From a change feed to closed books, against the obvious script; and what a window costs in a larger lake.

Belongs here: the baseline (httpx, pydicom's from_json, pandas, write_deltalake, one process), the split into landing
and batch, the same window in an empty and in a large lake. Does not belong here: reading files (`ingest`, `reader`).

    python -m bench.service [--entries N] [--window N] [--lake INSTANCES] [--json FILE]

The service is the tests' own, over HTTP on loopback, in a process of its own: it costs time on the same cores, which
falls on both sides alike.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import httpx
import orjson
import pandas as pd
import pydicom
import pydicom.data
from deltalake import write_deltalake

from bench.scale_lake import make
from dicom_assets.defs.runner import ingest
from dicom_assets.lake.delta import Lake
from dicom_assets.schema.attributes import ATTRIBUTES
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.feed import Window, iso
from dicom_assets.service.sync import prepare_landing, sync_window
from dicom_assets.settings import Settings
from dicom_assets_tests.service.feed_server import running
from dicom_assets_tests.service.service_model import ServiceModel, ticks_of

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PER_STUDY = 100


def window(number: int) -> Window:
    """Window `number` of the bench."""
    return Window(START + number * HOUR, START + (number + 1) * HOUR)


def serve(sizes: list[int]) -> None:
    """Runs the service until its input ends; window n has sizes[n] new instances with the metadata of a real CT."""
    path = Path(pydicom.data.__file__).parent / "test_files" / "CT_small.dcm"
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    written = orjson.loads(orjson.dumps(dataset.to_json_dict(1, lambda _: "")))
    model = ServiceModel.at(START)
    for number, size in enumerate(sizes):
        model.ticks = ticks_of(window(number).start) + 1
        for place in range(size):
            study = f"1.2.826.0.1.3680043.8.498.{number}.{place // PER_STUDY}"
            written["0020000D"] = {"vr": "UI", "Value": [study]}
            written["0020000E"] = {"vr": "UI", "Value": [f"{study}.1"]}
            written["00080018"] = {"vr": "UI", "Value": [f"{study}.1.{place}"]}
            written["00200013"] = {"vr": "IS", "Value": [place]}
            model.store(written)
    with running(model) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def naive(url: str, part: Window, lake: str) -> int:
    """The obvious script: page by page, every attribute as text, one append."""
    rows, offset = [], 0
    while True:
        query = {"startTime": iso(part.start), "endTime": iso(part.end), "offset": offset, "limit": 200}
        page = httpx.get(f"{url}/v2/changefeed", params=query, timeout=60).json()
        for entry in page:
            found = pydicom.Dataset.from_json(entry["metadata"])
            row = {a.keyword: None if (v := found.get(a.keyword)) is None else str(v) for a in ATTRIBUTES}
            rows.append({**row, "sequence": str(entry["sequence"]), "header": json.dumps(entry["metadata"])})
        if len(page) < 200:
            break
        offset += len(page)
    write_deltalake(lake, pd.DataFrame(rows).astype("string"), mode="append")
    return len(rows)


def settings_for(url: str, folder: Path, lake: Path) -> Settings:
    """One service, one lake."""
    service = {"name": "pacs", "url": url, "landing": str(folder / f"{lake.name}-changes")}
    claiming = {"quiet_seconds": 0}
    return Settings.model_validate({"lake": str(lake), "services": [service], "claiming": claiming})


def cpu_seconds() -> float:
    """Processor time of this process and of those that it has ended; on a busy machine the better measure."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def ours(settings: Settings, part: Window) -> dict[str, float]:
    """Lands a window and runs what comes of it; seconds of both."""
    (service,) = settings.services
    prepare_landing(service)
    started, cpu = time.monotonic(), cpu_seconds()
    with ServiceClient(service) as client:
        synced = sync_window(client, part, timedelta(0))
    landed = time.monotonic()
    with dg.DagsterInstance.ephemeral() as instance:
        ended = ingest(settings, instance)
    done = time.monotonic()
    if not ended.closed or sum(books.ingested for books in ended.books) != synced.entries:
        raise SystemExit("the books did not close")
    return {
        "entries": synced.entries,
        "landing": landed - started,
        "batch": done - landed,
        "cpu": cpu_seconds() - cpu,
        "entries_per_second": synced.entries / (done - started),
        "bytes_landed": synced.bytes,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--window", type=int, default=1_000)
    parser.add_argument("--lake", type=int, default=500_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=int, nargs="*")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    small = min(2_000, arguments.entries)
    sizes = [small, arguments.entries, *[arguments.window] * 4]
    command = [sys.executable, "-W", "ignore", "-m", "bench.service", "--serve", *map(str, sizes)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
            found = measure(url, Path(name), arguments)
    finally:
        if server.stdin is not None:
            server.stdin.close()
        server.wait(30)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def measure(url: str, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """The three measurements, printed as they come."""
    started = time.monotonic()
    rate = naive(url, window(0), str(folder / "naive")) / (time.monotonic() - started)
    print(f"obvious script: {rate:,.0f} entries/s, one process, no books")
    lake = settings_for(url, folder, folder / "lake")
    Lake(lake.lake)
    first = ours(lake, window(1))
    print(
        f"feed to closed books: {first['entries_per_second']:,.0f} entries/s ({first['entries']:.0f} entries, landing "
        f"{first['landing']:.1f} s, batch {first['batch']:.1f} s, processor {first['cpu']:.1f} s), "
        f"{first['entries_per_second'] / rate:.1f} times"
    )
    large = settings_for(url, folder, folder / "large")
    make(large.lake, arguments.lake)
    cost = {}
    for which, settings in (("empty", settings_for(url, folder, folder / "empty")), ("large", large)):
        Lake(settings.lake)
        runs = [ours(settings, window(number)) for number in (2, 3, 4)]
        cost[which] = min(run["cpu"] for run in runs)
        seconds = min(run["landing"] + run["batch"] for run in runs)
        print(f"a window of {arguments.window} entries, {which} lake: {seconds:.2f} s, processor {cost[which]:.2f} s")
    ratio = cost["large"] / cost["empty"]
    print(f"a lake of {arguments.lake:,} instances makes it {ratio:.2f} times the cost of an empty one")
    return {"naive": rate, "ours": first, "window": cost, "lake_instances": arguments.lake, "ratio": ratio}


if __name__ == "__main__":
    main()
