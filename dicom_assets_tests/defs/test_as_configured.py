"""How assets stand in Dagster: keys, owners, tags, where a table lies, how fresh it is to be; beside other projects."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from pydantic import ValidationError

from dicom_assets.defs.asset_keys import name_of
from dicom_assets.defs.graph import READ, build_defs
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import Settings
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.test_graph_snapshot import BARE, FULL, graph

CONFIGURED = {
    "owners": ["team:radiology", "ada@example.org"],
    "key_prefix": "hospital/imaging",
    "tags": {"domain": "imaging"},
    "fresh_within_hours": 24,
}


@pytest.fixture(scope="module")
def specs() -> dict[str, dg.AssetSpec]:
    defs = build_defs(Settings.model_validate({**FULL, "dagster": CONFIGURED}))
    return {name_of(spec.key): spec for spec in defs.resolve_all_asset_specs()}


def test_a_prefix_stands_before_the_key_of_every_asset_and_of_what_it_is_made_from(specs):
    keys = [key for spec in specs.values() for key in (spec.key, *(dep.asset_key for dep in spec.deps))]
    assert {tuple(key.path[:-1]) for key in keys} == {("hospital", "imaging")}


def test_with_a_prefix_the_graph_is_the_same_one():
    def unprefixed(given):
        found = graph(given)
        return str(found).replace("hospital/imaging/", "").replace("ada@example.org", "").replace("team:radiology", "")

    plain = {**CONFIGURED, "key_prefix": None}
    assert unprefixed({**FULL, "dagster": CONFIGURED}) == unprefixed({**FULL, "dagster": plain})


def test_every_asset_has_the_owners_and_tags_that_are_configured(specs):
    assert {tuple(spec.owners) for spec in specs.values()} == {("team:radiology", "ada@example.org")}
    assert {spec.tags["domain"] for spec in specs.values()} == {"imaging"}
    assert specs["series"].tags["dicom_assets/step"] == "hierarchy"
    assert specs["series"].kinds == {"deltalake", "duckdb"}


def test_every_table_says_where_it_lies_and_every_asset_where_its_code_is(specs):
    for name, spec in specs.items():
        if name == "batches":
            continue  # written by every step
        (place,) = spec.metadata["dagster/code_references"].code_references
        assert Path(place.file_path).is_file()
        assert "defs/failures.py" not in place.file_path
        if name in TABLES:
            assert spec.metadata["dagster/uri"] == f"/lake/{name}"
            assert spec.metadata["dagster/table_name"] == name


def test_tables_that_people_read_are_to_be_as_fresh_as_configured_and_no_others(specs):
    found = {name: spec.freshness_policy for name, spec in specs.items() if spec.freshness_policy is not None}
    assert set(found) == set(READ)
    assert {policy.fail_window.to_timedelta() for policy in found.values()} == {timedelta(hours=24)}
    plain = build_defs(Settings.model_validate(BARE)).resolve_all_asset_specs()
    assert [spec.key for spec in plain if spec.freshness_policy is not None] == []


@pytest.mark.parametrize(
    "wrong", [{"owners": ["radiology"]}, {"key_prefix": "a b"}, {"fresh_within_hours": 0}, {"tags": {"a b": "c"}}]
)
def test_what_dagster_would_not_take_is_said_with_the_settings(wrong):
    with pytest.raises(ValidationError, match=f"dagster.{next(iter(wrong))}"):
        Settings.model_validate({**BARE, "dagster": wrong})


def test_the_graph_is_merged_into_another_project():
    ours = build_defs(Settings.model_validate({**BARE, "dagster": {"key_prefix": "imaging"}}))

    @dg.asset(deps=[dg.AssetKey(["imaging", "study"])], partitions_def=dg.DynamicPartitionsDefinition(name="batch"))
    def report(database: dg.ResourceParam[str]) -> None: ...

    theirs = dg.Definitions(
        assets=[report],
        resources={"database": "postgres"},
        jobs=[dg.define_asset_job("reports", [report])],
        executor=dg.multiprocess_executor,
    )
    merged = dg.Definitions.merge(ours, theirs)
    dg.Definitions.validate_loadable(merged)
    assert dg.AssetKey(["imaging", "study"]) in merged.resolve_asset_graph().get(dg.AssetKey("report")).parent_keys
    jobs = {job.name: job for job in merged.get_repository_def().get_all_jobs() if not job.name.startswith("__")}
    assert dg.AssetKey("report") not in jobs["ingest_batch"].asset_layer.selected_asset_keys
    executors = {name: job.executor_def.name for name, job in jobs.items()}
    assert executors.pop("reports") == "multiprocess"
    assert set(executors.values()) == {"in_process"}


@pytest.mark.slow
def test_a_batch_closes_whatever_stands_before_the_keys(tmp_path, landing, instance):
    landing.put("a.dcm", dicom(1, 1, 1))
    graph = Graph(settings_for(tmp_path / "lake", landing.root, dagster=CONFIGURED), instance)
    (batch,) = graph.ingest()
    assert graph.books(batch).status == "closed"
    made = {
        event.asset_key.to_user_string(): event.step_materialization_data.materialization
        for event in graph.results[batch].get_asset_materialization_events()
    }
    assert {"hospital/imaging/study", "hospital/imaging/cleanup"} <= set(made)
    assert made["hospital/imaging/batches"].partition == batch
    assert made["hospital/imaging/batches"].metadata["dagster/row_count"].value == 1
    assert all(name.startswith("hospital/imaging/") for name in graph.checks(batch))
    assert all(check.passed for check in graph.checks(batch).values())
