"""What a round of claiming costs at size: from a listing, from events in a queue, from an inventory.

Belongs here: making what arrives, one round over it, nothing of it kept in the lake. Does not belong here: the lakes
(`scale_lake`), the printing (`scale`).

Events and inventories come from Azurite through the code that reads them from Azure; it is one process on the same
machine, so the seconds are with its own answers. A listing is made up, since ten million files are not there: its rows
come from arithmetic, at about a tenth of what it costs to claim them.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.scale_lake import listing
from bench.scale_names import FIRST, SOURCE
from dicom_assets.landing.claim_index import ClaimedIds, ids_of_digests, summarise, unpack_ids
from dicom_assets.landing.claims import FOLDER, Claim, ClaimLog, plan
from dicom_assets.landing.store import object_digests
from dicom_assets.settings import ClaimingSettings, Settings, SourceSettings
from dicom_assets.storage.azure import EMULATOR, container_client, parse_folder, queue_client
from dicom_assets.storage.files import LakeFiles

NEW_OBJECTS = 1_000
CONTAINER = "scale"
ROWS = 1_000_000
"""Rows of a file of an inventory's report."""


def from_listing(uri: str, size: int) -> None:
    """A round over a listing of everything that is claimed, and of new objects."""

    def parts() -> Iterator[pa.RecordBatch]:
        for start in range(0, size + NEW_OBJECTS, 10_000):
            yield listing(range(start, min(start + 10_000, size + NEW_OBJECTS)))

    log = ClaimLog(LakeFiles(uri))
    planned = plan(SOURCE, parts(), log.claimed_ids(SOURCE), datetime.now(UTC), ClaimingSettings())
    assert sum(map(len, planned.batches)) == NEW_OBJECTS, [len(one) for one in planned.batches]


def queue_name(size: int) -> str:
    """The queue that events for a lake come through."""
    return f"scale-{size}"


def announce(size: int, round_: int) -> None:
    """Puts events of new blobs into the queue of a lake."""
    queue = queue_client(EMULATOR, queue_name(size))
    if not round_:
        queue.create_queue()
    for number in range(NEW_OBJECTS):
        name = f"{CONTAINER}/{round_}/{number // 25}/{number}.dcm"
        data = {
            "api": "PutBlob", "eTag": f"0x{number:X}", "contentLength": 500_000, "blobType": "BlockBlob",
            "url": f"https://{EMULATOR}.blob.core.windows.net/{name}", "sequencer": f"{number:032x}",
        }  # fmt: skip
        event = {"eventType": "Microsoft.Storage.BlobCreated", "eventTime": "2026-11-20T08:00:00Z", "data": data}
        queue.send_message(base64.b64encode(json.dumps(event).encode()).decode())


def from_events(uri: str, size: int) -> None:
    """A round over the events of a queue, as the sensor does it."""
    from dicom_assets.batch.claim_rounds import claim_from_queue, queues
    from dicom_assets.batch.context import RunContext

    source = {"name": SOURCE, "root": f"az://{EMULATOR}/{CONTAINER}", "queue": queue_name(size)}
    with RunContext(Settings.model_validate({"lake": uri, "sources": [source]})) as work:
        (sources,) = queues(work).values()
        taken = claim_from_queue(work, sources)
    assert (taken.messages, taken.claimed) == (NEW_OBJECTS, 1), taken


def forget_newest_claim(uri: str) -> None:
    """Deletes the claim that a round has made, so that no batch comes of it."""
    (Path(uri) / FOLDER / f"{len(ClaimLog(LakeFiles(uri))):012d}.parquet").unlink()


def _inventory(size: int) -> SourceSettings:
    address = f"az://{EMULATOR}/reports-{size}/reports"
    return SourceSettings(name=SOURCE, root=f"az://{EMULATOR}/{CONTAINER}", inventory=address)


def _claims(folder: Path, size: int) -> LakeFiles:
    return LakeFiles(str(folder / f"claims-{size}"))


def write_inventory(folder: Path, size: int) -> None:
    """A report that lists `size` blobs that are claimed and some that are new, and the claims of the former."""
    from dicom_assets.landing.azure import AzureContainer

    settings = _inventory(size)
    reports = container_client(parse_folder(settings.inventory or ""))
    reports.create_container()
    files = []
    for start in range(0, size + NEW_OBJECTS, ROWS):
        part = listing(range(start, min(start + ROWS, size + NEW_OBJECTS)))
        names = pc.binary_join_element_wise(CONTAINER, part.column("uri"), "")
        millis = pa.array([int(FIRST.timestamp() * 1000)] * len(part), pa.int64())
        table = pa.table([names, millis, part.column("size"), part.column("etag")], _FIELDS)
        sink = io.BytesIO()
        pq.write_table(table, sink)
        path = f"reports/2026/11/20/01-00-00/all/all_{start}.parquet"
        reports.upload_blob(path, sink.getvalue())
        files.append({"blob": path, "size": len(sink.getvalue())})
    manifest = {"status": "Succeeded", "files": files, "ruleName": "all"}
    reports.upload_blob("reports/2026/11/20/01-00-00/all/all-manifest.json", json.dumps(manifest))
    digests, left = [], size
    for part in AzureContainer(settings).list():
        claimed = part.slice(0, left)
        left -= len(claimed)
        digests.append(object_digests(SOURCE, claimed.column("uri"), claimed.column("etag")))
    ids = ClaimedIds([unpack_ids(ids_of_digests(one)) for one in digests])
    claim = Claim("20200101T000000Z-00000000", SOURCE, size, FIRST, f"{FOLDER}/{1:012d}.parquet")
    summarise(_claims(folder, size), 1, [claim], {SOURCE: ids}, {})


_FIELDS = ["Name", "Last-Modified", "Content-Length", "Etag"]


def from_inventory(folder: Path, size: int) -> None:
    """A round over an inventory's newest report."""
    from dicom_assets.landing.azure import AzureContainer

    store: Any = AzureContainer(_inventory(size))
    log = ClaimLog(_claims(folder, size))
    planned = plan(SOURCE, store.list(), log.claimed_ids(SOURCE), datetime.now(UTC), ClaimingSettings())
    assert sum(map(len, planned.batches)) == NEW_OBJECTS, [len(one) for one in planned.batches]
