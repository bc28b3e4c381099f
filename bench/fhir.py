"""ImagingStudy resources a second, against the obvious script; and that a batch costs what it touches.

Belongs here: the baseline (one `fhir.resources` model for each element, serialised by pydantic), the same studies built
by the project, the publishing and checking of the same few studies in lakes of several sizes, and the memory that a
large Bundle takes. Does not belong here: reading files (`ingest`, `reader`), the lakes (`fhir_lake`).

    python -m bench.fhir [--studies N] [--sizes INSTANCES ...] [--json FILE]
    python -m bench.fhir --bundle ENTRIES
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from fhir.resources.R4B.imagingstudy import ImagingStudy

from bench.fhir_bundle import print_bundle
from bench.fhir_lake import STANDARD_TABLES, filled, settings_of, staged, steps
from bench.scale_names import PER_BATCH, batch_name
from dicom_assets.batch.checks.contract import CheckContext, NamedRule
from dicom_assets.batch.checks.parity_checks import RULES
from dicom_assets.batch.checks.standard_checks import STANDARD_RULES
from dicom_assets.batch.publish import publish_hierarchy
from dicom_assets.fhir.imaging_study import rows
from dicom_assets.fhir.mapping import Context
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.hierarchy import REBUILDS
from dicom_assets.lake.maintenance import maintain
from dicom_assets.lake.staging import Staging
from dicom_assets.omop import concepts
from dicom_assets.schema.registry import TABLES
from dicom_assets_tests.fhir.rows import instance, instances, series, series_table, studies, study

SERIES, INSTANCES = 3, 40
TOUCHED = 20
REPEAT = 7


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


def rules(lake: Lake, staging: Staging, tables: Collection[str]) -> dict[str, Callable[[], object]]:
    """The checks of some tables."""
    context = CheckContext(lake, staging)

    def held(rule: NamedRule) -> None:
        if not rule.rule(context).passed:
            raise AssertionError(f"{rule.table}.{rule.name} does not hold")

    chosen = [rule for rule in (*RULES, *STANDARD_RULES) if rule.table in tables]
    return {f"check {rule.table}.{rule.name}": partial(held, rule) for rule in chosen}


def lake_of(size: int, folder: Path) -> Lake:
    """A lake of `size` instances with everything that is made from them, as maintenance leaves it."""
    lake = filled(str(folder / f"lake{size}"), size)
    for name in TABLES:
        maintain(lake, name, retention_hours=720)
    return lake


def batch_costs(lake: Lake, size: int, count: int = TOUCHED) -> dict[str, float]:
    """Seconds for each step and check of a batch that touches so many studies of a lake of `size` instances.

    The batch brings no clinical records. Each round first rebuilds and checks the hierarchy, as a run of the job does
    right before, without measuring it: what follows need not read again what this process has read or written.
    """
    touched = staged(lake, batch_name(size // PER_BATCH), range(count))
    before = [partial(publish_hierarchy, lake, touched, name) for name in REBUILDS]
    works = {
        **steps(lake, touched, settings_of(lake)),
        **rules(lake, touched, {*STANDARD_TABLES, "mapping_coverage"}),
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEAT + 1):
        for work in (*before, *rules(lake, touched, REBUILDS).values()):
            work()
        for name, work in works.items():
            started = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - started)
    touched.remove()
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}  # the first round warms up


def print_costs(costs: Mapping[int, Mapping[str, float]]) -> None:
    """One line a step, with its growth from the smallest lake."""
    sizes = [*costs]
    small = costs[sizes[0]]
    print(f"a batch that touches {TOUCHED} studies, seconds in lakes of {', '.join(f'{n:,}' for n in sizes)} instances")

    def line(name: str, values: Sequence[float]) -> None:
        shown = "".join(f"{value:8.3f}" for value in values)
        growth = "".join(f"   x {value / values[0]:4.2f}" for value in values[1:])
        print(f"  {name:52}{shown}{growth}")

    for name in small:
        line(name, [costs[size][name] for size in sizes])
    checks = [name for name in small if name.startswith("check ")]
    for title, names in (
        ("publishing", [name for name in small if name not in checks]),
        ("checks", checks),
        ("together", [*small]),
    ):
        line(title, [sum(costs[size][name] for name in names) for size in sizes])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000], metavar="INSTANCES")
    parser.add_argument("--bundle", type=int, metavar="ENTRIES", help="memory of ingesting such a Bundle, nothing else")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.bundle:
        print_bundle(arguments.bundle)
        return
    tables = generated(arguments.studies)
    assert len(ours(tables)) == len(obvious(tables)) == arguments.studies
    baseline, own = seconds(lambda: obvious(tables)), seconds(lambda: ours(tables))
    length = statistics.mean(len(orjson.dumps(orjson.loads(one))) for one in ours(tables)[:20])
    shape = f"{SERIES} series, {SERIES * INSTANCES} instances and {length / 1000:.0f} kB each"
    print(f"{arguments.studies} studies of {shape}")
    print(f"  fhir.resources models  {arguments.studies / baseline:8.0f} resources/s")
    print(f"  this project           {arguments.studies / own:8.0f} resources/s   x {baseline / own:.1f}")
    with tempfile.TemporaryDirectory(prefix="bench-fhir-") as folder:
        lakes = {size: lake_of(size, Path(folder)) for size in arguments.sizes}
        costs = {size: batch_costs(lake, size) for size, lake in lakes.items()}
        size, largest = [*lakes.items()][-1]
        by_touched = {count: sum(batch_costs(largest, size, count).values()) for count in (TOUCHED // 4, 4 * TOUCHED)}
    by_touched[TOUCHED] = sum(costs[size].values())
    print_costs(costs)
    shown = ", ".join(f"{count}: {by_touched[count]:.3f}" for count in sorted(by_touched))
    print(f"  together by touched studies, in the lake of {size:,} instances: {shown}")
    if arguments.json:
        result = {"resources_per_second": arguments.studies / own, "ratio": baseline / own, "costs": costs}
        arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
