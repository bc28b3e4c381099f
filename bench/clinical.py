"""What clinical records cost: a million rows of CSV, with and without keys, and a million FHIR resources.

Belongs here: generated records, the real `ingest` on them, seconds by step and peak memory. Does not belong here: the
memory of one large Bundle (`fhir_bundle`), images (`ingest`).

    python -m bench.clinical [--records N] [--workers W] [--only KIND] [--json FILE]

Each kind is ingested into a lake of its own. FHIR comes in two ingests: first Observations, then the Patients that
they refer to, so that the second one rewrites every row of the first. Steps are those of the run: `raw_files` waits for
what was begun to be read ahead of it, `validated_batch` reads what was not, and fits values to types; all others are
what comes beyond reading.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.ingest import Measurement, steps, timed

PER_FILE = 50_000
RECORDS_OF_A_PATIENT = 20
READING = ("raw_files", "validated_batch")

CONFIGURATION = """
[claiming]
quiet_seconds = 0
[reading]
workers = {workers}
object_seconds = 900
[[clinical.datasets]]
name = "labs"
files = ["labs_*.csv"]
patient_id_column = "PatientID"
date_column = "taken"
key_columns = ["lab_id"]
"""
"""A file of 50,000 resources takes seconds, and more than the usual minute on a machine that has other work to do: it
would be quarantined, and nothing measured."""


def _rows(first: int, count: int) -> Iterator[str]:
    yield "lab_id,PatientID,taken,code,value,comment\n"
    for number in range(first, first + count):
        taken = f"20{number % 25:02d}-{1 + number % 12:02d}-{1 + number % 28:02d}"
        patient = f"P{number // RECORDS_OF_A_PATIENT:07d}"
        yield f'{number},{patient},{taken},{number % 97},{number % 1000 / 10},"normal, {number % 7}"\n'


def _observations(first: int, count: int) -> Iterator[str]:
    for number in range(first, first + count):
        yield (
            json.dumps(
                {
                    "resourceType": "Observation",
                    "id": f"o{number}",
                    "status": "final",
                    "code": {"coding": [{"system": "http://loinc.org", "code": str(number % 997), "display": "Lab"}]},
                    "subject": {"reference": f"Patient/p{number // RECORDS_OF_A_PATIENT}"},
                    "effectiveDateTime": f"2024-{1 + number % 12:02d}-{1 + number % 28:02d}T08:00:00+01:00",
                    "valueQuantity": {"value": number % 1000, "unit": "mg"},
                }
            )
            + "\n"
        )


def _patients(first: int, count: int) -> Iterator[str]:
    for number in range(first, first + count):
        identifier = {"system": "http://hospital", "value": f"P{number:07d}"}
        yield json.dumps({"resourceType": "Patient", "id": f"p{number}", "identifier": [identifier]}) + "\n"


def _write(folder: Path, name: str, first: int, lines: Iterator[str]) -> None:
    path = folder / name.format(first)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines)
    an_hour_ago = time.time() - 3_600
    os.utime(path, (an_hour_ago, an_hour_ago))


def _parts(kind: str, records: int) -> list[list[tuple[str, int, Iterator[str]]]]:
    """By ingest, the files: name, number of the first record, lines."""
    firsts = [(first, min(PER_FILE, records - first)) for first in range(0, records, PER_FILE)]
    if kind != "fhir":
        return [[(f"{kind}_{{}}.csv", first, _rows(first, count)) for first, count in firsts]]
    patients = -(-records // RECORDS_OF_A_PATIENT)
    return [
        [("observations_{}.ndjson", first, _observations(first, count)) for first, count in firsts],
        [("patients_{}.ndjson", 0, _patients(0, patients))],
    ]


KINDS = {
    "table": "CSV without a key",
    "labs": "CSV of a configured dataset with a key and types",
    "fhir": "FHIR: Observations, then their Patients",
}


def ingested(kind: str, records: int, workers: int, work: Path) -> list[tuple[Measurement, dict[str, float]]]:
    """What each ingest of a kind took, and the seconds of its steps."""
    landing, lake = work / "landing", work / "lake"
    landing.mkdir()
    configuration = work / "dicom-assets.toml"
    configuration.write_text(CONFIGURATION.format(workers=workers), encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
    environment["DICOM_ASSETS_CONFIG"] = str(configuration)
    command = [sys.executable, "-c", "from dicom_assets.cli.main import main; main()", "ingest"]
    command += ["--landing", str(landing), "--lake", str(lake)]
    found, before = [], dict[str, float]()
    for files in _parts(kind, records):
        for name, first, lines in files:
            _write(landing, name, first, lines)
        taken = timed(command, environment, work)
        after = steps(work / "lake.dagster")
        found.append((taken, {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}))
        before = after
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=list(KINDS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    report = []
    print(f"{args.records:,} clinical records of each kind, {args.workers} reading processes; whole commands")
    for kind in [args.only] if args.only else KINDS:
        with tempfile.TemporaryDirectory(prefix="bench-clinical-") as folder:
            for taken, split in ingested(kind, args.records, args.workers, Path(folder)):
                reading = sum(split.get(name, 0.0) for name in READING)
                beyond = sum(split.values()) - reading
                print(f"  {KINDS[kind]:50} {taken.seconds:7.1f} s   of it beyond reading {beyond:6.1f} s"
                      f"   peak memory {taken.peak / 2**20:5.0f} MiB")  # fmt: skip
                longest = sorted(split.items(), key=lambda item: -item[1])[:8]
                print("    " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in longest), flush=True)
                costs = {"seconds": taken.seconds, "beyond_reading": beyond, "peak_bytes": taken.peak, "steps": split}
                report.append({"kind": kind, "records": args.records, **costs})
    if args.json:
        args.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
