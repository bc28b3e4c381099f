"""How much memory each process takes while a large FHIR Bundle is ingested.

Belongs here: writing the Bundle, running the real `ingest` on it in a process of its own, and its peaks as the kernel
counted them. Does not belong here: how long it takes (`ingest`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PADDING = 1_300
"""Characters of narrative, so that an entry is as long as a Condition of Synthea."""

_MB = 1_000 if sys.platform != "darwin" else 1_000_000
"""ru_maxrss is in kilobytes, on macOS in bytes."""


def write_bundle(path: Path, entries: int) -> None:
    """Writes a Bundle of one Patient and Conditions, entry by entry."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"resourceType":"Bundle","type":"collection","entry":[')
        for number in range(entries):
            file.write(("," if number else "") + json.dumps({"fullUrl": f"urn:uuid:{number}", "resource": _of(number)}))
        file.write("]}")
    an_hour_ago = time.time() - 3_600
    os.utime(path, (an_hour_ago, an_hour_ago))


def _of(number: int) -> dict[str, Any]:
    if number == 0:
        return {"resourceType": "Patient", "id": "p", "identifier": [{"system": "http://hospital", "value": "0042"}]}
    return {
        "resourceType": "Condition",
        "id": f"c{number}",
        "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/x", "code": "active"}]},
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": str(10_000 + number % 97)}]},
        "subject": {"reference": "Patient/p"},
        "text": {"status": "generated", "div": f"<div>{number:07} " * (PADDING // 14) + "</div>"},
    }


def _ingest(folder: str, results: Any) -> None:
    os.environ["DAGSTER_HOME"] = folder
    from dicom_assets.defs.instance import open_instance
    from dicom_assets.defs.runner import ingest
    from dicom_assets.settings import load

    settings = load(f"{folder}/landing", f"{folder}/lake")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ended = ingest(settings, open_instance(settings))
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    readers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    results.put((ended.closed, sum(one.clinical_rows for one in ended.books), before, own, readers))


def peaks(entries: int) -> tuple[int, float, float, float, float]:
    """Rows, and in MB: size of the Bundle, peak of the main process before and in the end, of the reading process."""
    with tempfile.TemporaryDirectory(prefix="bench-bundle-") as folder:
        for name in ("landing", "lake"):
            Path(folder, name).mkdir()
        Path(folder, "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
        bundle = Path(folder, "landing", "bundle.json")
        write_bundle(bundle, entries)
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        process = context.Process(target=_ingest, args=(folder, results))
        process.start()
        is_closed, rows, before, own, readers = results.get()
        process.join()
        assert is_closed, "the batch did not close"
        return rows, bundle.stat().st_size / 1e6, before / _MB, own / _MB, readers / _MB


def print_bundle(entries: int) -> None:
    """Measures and prints."""
    rows, size, before, own, readers = peaks(entries)
    print(f"a Bundle of {entries:,} entries, {size:.0f} MB, {rows:,} rows; peak memory in MB")
    print(f"  process that runs and publishes   {own:6.0f}   (of it before the ingest {before:.0f})")
    print(f"  process that reads                {readers:6.0f}")
