"""First ranges of blobs: the landing store (obstore, side by side) against the Azure SDK, over Azurite.

Belongs here: files a second, CPU for each request, bytes fetched for each object. Does not belong here: what a header
costs to parse (`reader`).

    python -m bench.blob [--files N] [--json FILE]

Both sides fetch the same first range of the same blobs of the same emulator. It is one process and answers at its own
pace, which bounds files a second on both sides, so the CPU that a request costs the reader says more.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data

from dicom_assets.landing.azure import FIRST_RANGE, AzureContainer, AzureObject
from dicom_assets.landing.store import ObjectRef
from dicom_assets.settings import ReadingLimits, SourceSettings
from dicom_assets_tests.azure import azurite

THREADS = 16
PIXELS = 512


def blobs(files: int) -> Iterator[bytes]:
    """Slices of a CT with 512 x 512 pixels and the header of a real one."""
    base = pydicom.dcmread(Path(pydicom.data.__file__).parent / "test_files" / "CT_small.dcm")
    base.Rows = base.Columns = PIXELS
    base.PixelData = np.zeros((PIXELS, PIXELS), dtype=np.int16).tobytes()
    for number in range(files):
        base.SOPInstanceUID = base.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.10.1511.4.{number}"
        base.InstanceNumber = number
        sink = io.BytesIO()
        base.save_as(sink)
        yield sink.getvalue()


def by_sdk(source: AzureContainer, refs: list[ObjectRef], threads: int) -> int:
    """The Azure SDK: the first range of each blob, in so many threads; bytes fetched."""

    def fetch(ref: ObjectRef) -> bytes:
        blob = source.below_root(ref.uri)
        return bytes(source.client.download_blob(blob, offset=0, length=min(FIRST_RANGE, ref.size)).readall())

    with ThreadPoolExecutor(threads) as pool:
        return sum(len(head) for head in pool.map(fetch, refs))


def by_store(source: AzureContainer, refs: list[ObjectRef]) -> int:
    """The landing store; bytes fetched."""
    first = ReadingLimits().first_read_bytes
    total = 0
    for opened in source.open_all(refs, first):
        assert isinstance(opened, AzureObject)
        opened.read(0, first)
        opened.verify()
        total += opened.fetched
        opened.close()
    return total


def measured(work: Callable[[], int], files: int) -> dict[str, float]:
    """Files a second, milliseconds of CPU a file, bytes a file; the best of three."""
    best: dict[str, float] = {}
    for _ in range(3):
        cpu, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        total = work()
        seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
        spent = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
        row = {"files_s": files / seconds, "cpu_ms": 1_000 * spent / files, "bytes": total / files}
        if not best or row["files_s"] > best["files_s"]:
            best = row
    return best


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if azurite.executable() is None:
        print(azurite.HOW)
        sys.exit(0)
    with tempfile.TemporaryDirectory() as folder, azurite.azurite(Path(folder)) as environment:
        os.environ.update(environment)
        container = azurite.new_container()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda item: container.put(f"{item[0]:06}.dcm", item[1]), enumerate(blobs(args.files))))
        source = AzureContainer(SourceSettings(root=container.url))
        rows = [row for batch in source.list() for row in batch.to_pylist()]
        refs = [ObjectRef(row["uri"], row["etag"], row["size"]) for row in rows]
        result = {
            "azure-storage-blob, one by one": measured(lambda: by_sdk(source, refs, 1), len(refs)),
            f"azure-storage-blob, {THREADS} threads": measured(lambda: by_sdk(source, refs, THREADS), len(refs)),
            "dicom-assets (obstore)": measured(lambda: by_store(source, refs), len(refs)),
        }
    size = rows[0]["size"]
    first, threads, ours = result.values()
    print(f"{len(refs)} blobs of {size:,} bytes; first ranges fetched")
    for name, row in result.items():
        print(
            f"{name:34} {row['files_s']:8.0f} files/s {row['cpu_ms']:7.2f} ms CPU a file "
            f"{row['bytes']:10,.0f} bytes a file"
        )
    print(f"ratio to one by one {ours['files_s'] / first['files_s']:.1f}, to threads "
          f"{ours['files_s'] / threads['files_s']:.1f}; CPU {threads['cpu_ms'] / ours['cpu_ms']:.1f} times less "
          f"than threads; {100 * ours['bytes'] / size:.0f} % of the bytes")  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
