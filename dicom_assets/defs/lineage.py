"""The sensor `lineage`: tells a receiver of OpenLineage which runs of batches have ended, if one is configured.

Belongs here: which runs have ended since the last tick, and what Dagster knows of them. Does not belong here: the
events (`monitoring.lineage`), which need the extra `lineage` and are imported by a tick alone.

The cursor moves when the events of a run were taken, so a receiver that is away misses nothing. It looks back further
than it has come and remembers what it has sent there, since two databases' clocks, or two writers, may put a run behind
one that ended after it.
"""

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any

import dagster as dg

from dicom_assets.batch.books import books_of
from dicom_assets.batch.steps import STEPS
from dicom_assets.defs.asset_keys import name_of
from dicom_assets.defs.jobs import INGEST_BATCH
from dicom_assets.defs.reporting import fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.settings import LineageSettings, Settings, SettingsError

INTERVAL_SECONDS = 30
RUNS = 50
TICK_SECONDS = 40.0
"""Of a tick's 60 s; what is left is sent by the next one."""
BACK = timedelta(minutes=10)
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def lineage_sensor(settings: LineageSettings) -> dg.SensorDefinition:
    """The sensor. Raises SettingsError when the extra is not installed."""
    if find_spec("openlineage") is None:
        raise SettingsError("[lineage] needs more packages: pip install 'dicom-assets[lineage]'.")

    @dg.sensor(
        name="lineage",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells a receiver of OpenLineage of runs of batches that have ended.",
    )
    @fail_clearly
    def lineage(context: dg.SensorEvaluationContext, work: RunContextParam) -> dg.SkipReason:
        """One tick. A receiver that is away fails nothing: its events are sent with a later one."""
        from dicom_assets.monitoring.lineage import Receiver, ReceiverAway, events, names

        until, sent = _read(context.cursor)
        if context.cursor is None:
            context.update_cursor(_written(until, sent))  # from here on nothing is missed
        filters = dg.RunsFilter(job_name=INGEST_BATCH, statuses=_ENDED, updated_after=until - BACK)
        records = context.instance.get_run_records(filters, RUNS + len(sent), "update_timestamp", ascending=True)
        began, count, told = time.monotonic(), 0, ""
        named, receiver = names(work.lake, settings), Receiver(settings, os.environ)
        try:
            for record in records:
                run_id = record.dagster_run.run_id
                if run_id in sent or time.monotonic() - began > TICK_SECONDS:
                    continue
                for event in events(_ended(context.instance, work, record), named):
                    receiver.send(event)
                ended = record.update_timestamp.replace(tzinfo=record.update_timestamp.tzinfo or UTC)
                until, count = max(until, ended), count + 1
                sent[run_id] = ended.timestamp()
                context.update_cursor(_written(until, sent))
        except ReceiverAway as error:
            told = f" {error} It is told again."
        finally:
            receiver.close()
        return dg.SkipReason(f"{count} runs told.{told}")

    return lineage


def _read(cursor: str | None) -> tuple[datetime, dict[str, float]]:
    """How far it has come, and which runs it has told of that ended not long before; from now on without a cursor."""
    if not cursor:
        return datetime.now(UTC), {}
    kept = json.loads(cursor)
    return datetime.fromtimestamp(kept["until"], UTC), dict(kept["sent"])


def _written(until: datetime, sent: Mapping[str, float]) -> str:
    since = (until - 2 * BACK).timestamp()
    recent = {run_id: ended for run_id, ended in sent.items() if ended >= since}
    return json.dumps({"until": until.timestamp(), "sent": recent})


def _ended(instance: dg.DagsterInstance, work: RunContextParam, record: dg.RunRecord) -> Any:
    """What Dagster and the books know of a run."""
    from dicom_assets.monitoring.lineage import EndedRun, StepRun

    run = record.dagster_run
    batch_id = run.tags.get("dagster/partition", "")
    books = books_of(work.lake, batch_id)
    rows = _rows(instance, run.run_id)
    steps = {}
    for one in instance.get_run_step_stats(run.run_id):
        made = {name: rows[name] for name in _TABLES.get(one.step_key, ()) if name in rows}
        if one.step_key in _TABLES and one.start_time is not None:
            began, ended = _moment(one.start_time), _moment(one.end_time or one.start_time)
            steps[one.step_key] = StepRun(began, ended, str(one.status).endswith("SUCCESS"), made)
    began, ended = _moment(record.start_time or 0.0), _moment(record.end_time or record.start_time or 0.0)
    succeeded = run.status is dg.DagsterRunStatus.SUCCESS
    return EndedRun(run.run_id, batch_id, books.source if books else "", began, ended, succeeded, steps)


_TABLES = {step.name: tuple(step.tables) for step in STEPS}


def _rows(instance: dg.DagsterInstance, run_id: str) -> dict[str, int | None]:
    """By table that a run made, the rows of its batch in it, where it says how many."""
    found: dict[str, int | None] = {}
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.dagster_event
        if event is None or event.asset_key is None:
            continue
        value = event.step_materialization_data.materialization.metadata.get("dagster/partition_row_count")
        found[name_of(event.asset_key)] = value.value if isinstance(value, dg.IntMetadataValue) else None
    return found


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def definitions(settings: Settings) -> dg.Definitions:
    """The sensor, if somebody is to be told of lineage. Raises SettingsError."""
    return dg.Definitions(sensors=[lineage_sensor(settings.lineage)] if settings.lineage else [])
