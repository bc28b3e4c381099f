"""ImagingStudy resources a second, against the obvious script; and that a batch costs what it touches.

Belongs here: the baseline (one `fhir.resources` model for each element, serialised by pydantic), the same studies built
by the project, and the publishing of the same few studies in a small and in a large lake. Does not belong here: reading
files (`ingest`, `reader`).

    python -m bench.fhir [--studies N] [--large INSTANCES] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from fhir.resources.R4B.imagingstudy import ImagingStudy

from bench.scale_lake import SOURCE, make, study_keys, study_uid
from dicom_assets.batch.staging import SCHEMAS, Part, Staging
from dicom_assets.batch.standards import (
    publish_coverage,
    publish_diagnostic_report,
    publish_identifiers,
    publish_imaging_study,
    publish_occurrences,
)
from dicom_assets.fhir.imaging_study import rows
from dicom_assets.fhir.mapping import Context
from dicom_assets.lake.delta import Lake
from dicom_assets.omop import concepts
from dicom_assets.settings import Settings
from dicom_assets_tests.fhir.rows import AT, instance, instances, series, series_table, studies, study

SERIES, INSTANCES = 3, 40
TOUCHED = 20
SMALL = 20_000
REPEAT = 3


def generated(count: int) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Rows of study, series and instance of `count` studies."""
    numbers = range(1, count + 1)
    return (
        studies([study(n) for n in numbers]),
        series_table([series(n, s, BodyPartExamined="CHEST") for n in numbers for s in range(1, SERIES + 1)]),
        instances([instance(n, s, i) for n in numbers for s in range(1, SERIES + 1) for i in range(1, INSTANCES + 1)]),
    )


def obvious(tables: tuple[pa.Table, pa.Table, pa.Table]) -> list[str]:
    """The same resources, less complete, by the models of fhir.resources."""
    by_study: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for one in tables[2].to_pylist():
        by_study.setdefault(one["StudyInstanceUID"], {}).setdefault(one["SeriesInstanceUID"], []).append(one)
    modality = {one["SeriesInstanceUID"]: one["Modality"] for one in tables[1].to_pylist()}
    found = []
    for row in tables[0].to_pylist():
        of_study = by_study[row["StudyInstanceUID"]]
        resource = ImagingStudy(
            id="x",
            status="available",
            identifier=[{"system": "urn:dicom:uid", "value": f"urn:oid:{row['StudyInstanceUID']}"}],
            subject={"identifier": {"value": row["PatientID"]}},
            numberOfSeries=len(of_study),
            numberOfInstances=sum(map(len, of_study.values())),
            description=row["StudyDescription"],
            series=[
                {
                    "uid": uid,
                    "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": modality[uid]},
                    "numberOfInstances": len(of_series),
                    "instance": [
                        {
                            "uid": one["SOPInstanceUID"],
                            "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{one['SOPClassUID']}"},
                            "number": one["InstanceNumber"],
                        }
                        for one in of_series
                    ],
                }
                for uid, of_series in of_study.items()
            ],
        )
        found.append(resource.model_dump_json())
    return found


def ours(tables: tuple[pa.Table, pa.Table, pa.Table]) -> list[str]:
    """The resources as the project makes them."""
    context = Context(concepts.load())
    made: list[str] = rows(*tables, base=None, context=context)["resource"].to_pylist()
    return made


def seconds(work: Callable[[], object]) -> float:
    """Median of REPEAT runs."""
    taken = []
    for _ in range(REPEAT):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def staged(lake: Lake, batch: str, numbers: range) -> Staging:
    """The staging of a batch that touches these studies of a generated lake."""
    staging = Staging(lake.files, batch)
    keys = study_keys(numbers.start, numbers.stop)["study_key"]
    staging.put(Part.TOUCHED, 0, pa.table({"study_key": sorted(keys.to_pylist())}, schema=SCHEMAS[Part.TOUCHED]))
    raw = {
        "batch_id": batch,
        "object_id": "o",
        "source": SOURCE,
        "uri": study_uid(0),
        "kind": "dicom",
        "claimed_at": AT,
    }
    staging.put(Part.RAW, 0, pa.Table.from_pylist([raw], schema=SCHEMAS[Part.RAW]))
    return staging


def steps(lake: Lake, staging: Staging, settings: Settings) -> dict[str, Callable[[], object]]:
    """The publishing of one batch, by asset."""
    return {
        "imaging_study": lambda: publish_imaging_study(lake, staging, settings),
        "diagnostic_report": lambda: publish_diagnostic_report(lake, staging),
        "omop_identifier": lambda: publish_identifiers(lake, staging, settings),
        "image_occurrence": lambda: publish_occurrences(lake, staging, settings, "image_occurrence"),
        "image_occurrence_origin": lambda: publish_occurrences(lake, staging, settings, "image_occurrence_origin"),
        "mapping_coverage": lambda: publish_coverage(lake),
    }


def batch_costs(size: int, folder: Path) -> dict[str, float]:
    """Seconds for each asset of a batch that touches TOUCHED studies, in a lake of `size` instances."""
    lake = make(str(folder / f"lake{size}"), size)
    settings = Settings.model_validate({"lake": lake.uri, "sources": [{"name": SOURCE, "root": "/landing"}]})
    known = lake.row_count("study")
    for work in steps(lake, staged(lake, "everything", range(known)), settings).values():
        work()
    touched = staged(lake, "some", range(TOUCHED))
    return {name: seconds(work) for name, work in steps(lake, touched, settings).items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--large", type=int, default=200_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tables = generated(arguments.studies)
    assert len(ours(tables)) == len(obvious(tables)) == arguments.studies
    baseline, own = seconds(lambda: obvious(tables)), seconds(lambda: ours(tables))
    size = statistics.mean(len(orjson.dumps(orjson.loads(one))) for one in ours(tables)[:20])
    print(
        f"{arguments.studies} studies of {SERIES} series and {SERIES * INSTANCES} instances, {size / 1000:.0f} kB each"
    )
    print(f"  fhir.resources models  {arguments.studies / baseline:8.0f} resources/s")
    print(f"  this project           {arguments.studies / own:8.0f} resources/s   x {baseline / own:.1f}")
    with tempfile.TemporaryDirectory(prefix="bench-fhir-") as folder:
        small = batch_costs(SMALL, Path(folder))
        large = batch_costs(arguments.large, Path(folder))
    print(
        f"a batch that touches {TOUCHED} studies, seconds in a lake of {SMALL:,} and of {arguments.large:,} instances"
    )
    for name in small:
        print(f"  {name:25}{small[name]:8.3f}{large[name]:8.3f}   x {large[name] / small[name]:.1f}")
    total = sum(large.values()) / sum(small.values())
    print(f"  {'together':25}{sum(small.values()):8.3f}{sum(large.values()):8.3f}   x {total:.1f}")
    if arguments.json:
        result = {
            "resources_per_second": arguments.studies / own,
            "ratio": baseline / own,
            "small": small,
            "large": large,
        }
        arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
