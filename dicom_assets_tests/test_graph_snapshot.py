"""A snapshot of the whole graph: assets, dependencies, checks, jobs, schedules, sensors.

When the graph is changed on purpose, renew the snapshot with `python -m dicom_assets_tests.test_graph_snapshot` and
look at the difference before it is committed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg

from dicom_assets.defs.graph import build_defs
from dicom_assets.settings import Settings

SNAPSHOT = Path(__file__).with_name("graph_snapshot.json")
RENEW = "python -m dicom_assets_tests.test_graph_snapshot"


def graph() -> dict[str, Any]:
    """The graph of the default settings as plain values."""
    defs = build_defs(Settings.model_validate({"lake": "/lake", "sources": [{"root": "/landing"}]}))
    repository = defs.get_repository_def()
    assets = repository.asset_graph
    return {
        "assets": {
            key.to_user_string(): {
                "deps": sorted(one.to_user_string() for one in assets.get(key).parent_keys),
                "group": assets.get(key).group_name,
                "kinds": sorted(assets.get(key).kinds),
                "partitions": getattr(assets.get(key).partitions_def, "name", None)
                or type(assets.get(key).partitions_def).__name__,
                "owners": list(assets.get(key).owners),
            }
            for key in sorted(assets.get_all_asset_keys())
        },
        "checks": {
            f"{key.asset_key.to_user_string()}.{key.name}": "blocking" if assets.get(key).blocking else "warning"
            for key in sorted(assets.asset_check_keys, key=str)
        },
        "jobs": sorted(name for name in repository.job_names if not name.startswith("__")),
        "schedules": {
            one.name: {"job": one.job_name, "cron": one.cron_schedule, "default": one.default_status.value}
            for one in sorted(repository.schedule_defs, key=lambda one: one.name)
        },
        "sensors": {
            one.name: {"type": one.sensor_type.value, "default": one.default_status.value}
            for one in sorted(repository.sensor_defs, key=lambda one: one.name)
        },
    }


def _written(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def test_the_graph_is_the_one_of_the_snapshot():
    assert json.loads(_written(graph())) == json.loads(SNAPSHOT.read_text(encoding="utf-8")), (
        f"The graph has changed. If it was meant to, renew the snapshot: {RENEW}"
    )


def test_every_asset_has_what_a_reader_of_the_catalogue_needs():
    defs = build_defs(Settings.model_validate({"lake": "/lake", "sources": [{"root": "/landing"}]}))
    specs = [spec for spec in defs.resolve_all_asset_specs() if not spec.key.path[0].startswith("landing_zone")]
    for spec in specs:
        name = spec.key.to_user_string()
        assert spec.description, name
        assert spec.kinds, name
        assert spec.owners, name
        assert spec.group_name not in (None, "default"), name


def test_every_check_guards_an_asset_that_exists():
    defs = build_defs(Settings.model_validate({"lake": "/lake", "sources": [{"root": "/landing"}]}))
    assets = defs.get_repository_def().asset_graph
    known = assets.get_all_asset_keys()
    assert [key for key in assets.asset_check_keys if key.asset_key not in known] == []


def test_the_batch_job_is_partitioned_by_batch_and_takes_no_config_that_is_not_optional():
    job = build_defs(Settings.model_validate({"lake": "/lake"})).resolve_job_def("ingest_batch")
    assert job.partitions_def == dg.DynamicPartitionsDefinition(name="batch")
    dg.validate_run_config(job, {})


if __name__ == "__main__":
    SNAPSHOT.write_text(_written(graph()), encoding="utf-8")
