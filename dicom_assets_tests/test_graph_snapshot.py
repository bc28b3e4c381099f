"""A snapshot of the graph, of bare settings and of full ones: assets, dependencies, checks, jobs, schedules, sensors.

When the graph is changed on purpose, renew the snapshot with `python -m dicom_assets_tests.test_graph_snapshot` and
look at the difference before it is committed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dicom_assets.defs.graph import build_defs
from dicom_assets.settings import Settings

SNAPSHOT = Path(__file__).with_name("graph_snapshot.json")
RENEW = "python -m dicom_assets_tests.test_graph_snapshot"
BARE = {"lake": "/lake", "sources": [{"root": "/landing"}]}
"""One folder, and whatever has a default."""
FULL = {
    "lake": "/lake",
    "sources": [
        {"name": "folder", "root": "/landing", "mode": "organize", "deletions": "report", "forward_to": "pacs"},
        {"name": "blobs", "root": "az://account/container", "queue": "arrivals"},
    ],
    "services": [{"name": "pacs", "url": "http://127.0.0.1:9/", "landing": "/nowhere"}],
    "columns": [{"path": "PatientOrientation", "level": "series"}],
    "alerts": [{"name": "log", "kind": "webhook", "url": "http://127.0.0.1:9/"}],
}
"""Each part of the graph that is there only where something is configured."""
GRAPHS = {"bare": BARE, "full": FULL}


def definitions(given: Mapping[str, Any]) -> dg.Definitions:
    return build_defs(Settings.model_validate(given))


def graph(given: Mapping[str, Any]) -> dict[str, Any]:
    """The graph of some settings as plain values."""
    defs = definitions(given)
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
        "jobs": {one.name: one.description for one in repository.get_all_jobs() if not one.name.startswith("__")},
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


def snapshot() -> dict[str, Any]:
    """The graph of bare settings, and of the full ones what is beyond it."""
    bare, full = graph(BARE), graph(FULL)
    beyond: dict[str, Any] = {}
    for part, names in full.items():
        beyond[part] = {name: what for name, what in names.items() if bare[part].get(name) != what}
    return {"bare": bare, "full, beyond bare": beyond}


def test_the_graph_is_the_one_of_the_snapshot():
    assert json.loads(_written(snapshot())) == json.loads(SNAPSHOT.read_text(encoding="utf-8")), (
        f"The graph has changed. If it was meant to, renew the snapshot: {RENEW}"
    )


def test_nothing_stands_in_the_graph_that_is_not_configured():
    bare = graph(BARE)
    for part, names in {
        "assets": {"dicom_changes", "dicom_service_audit", "forwarded", "source_audit", "promoted_columns"},
        "jobs": {"sync_dicom_changes", "audit_dicom_services", "forward_batch", "audit_sources", "organize_left"},
        "schedules": {"closed_windows", "nightly_audit", "nightly_source_audit"},
        "sensors": {"blob_events", "missed_events", "batches_to_forward", "left_unorganized", "alerts"},
    }.items():
        assert not names & set(bare[part])
        assert names <= set(graph(FULL)[part])


def test_sources_that_are_announced_by_queues_alone_are_listed_by_no_sensor_but_theirs():
    source = {"name": "blobs", "root": "az://account/container", "queue": "arrivals"}
    assert set(graph({**BARE, "sources": [source]})["sensors"]) & {"new_files", "missed_events"} == {"missed_events"}


@pytest.mark.parametrize("given", GRAPHS.values(), ids=GRAPHS)
def test_every_asset_has_what_a_reader_of_the_catalogue_needs(given):
    for spec in definitions(given).resolve_all_asset_specs():
        name = spec.key.to_user_string()
        assert spec.description, name
        assert spec.kinds, name
        assert spec.owners, name
        assert spec.group_name not in (None, "default"), name


@pytest.mark.parametrize("given", GRAPHS.values(), ids=GRAPHS)
def test_every_check_guards_an_asset_that_exists(given):
    assets = definitions(given).get_repository_def().asset_graph
    known = assets.get_all_asset_keys()
    assert [key for key in assets.asset_check_keys if key.asset_key not in known] == []


def test_the_batch_job_is_partitioned_by_batch_and_takes_no_config_that_is_not_optional():
    job = build_defs(Settings.model_validate({"lake": "/lake"})).resolve_job_def("ingest_batch")
    assert job.partitions_def == dg.DynamicPartitionsDefinition(name="batch")
    dg.validate_run_config(job, {})


if __name__ == "__main__":
    SNAPSHOT.write_text(_written(snapshot()), encoding="utf-8")
