"""What a run of a batch read and wrote, as events of OpenLineage: jobs, runs, datasets, columns.

Belongs here: the events and sending them. Does not belong here: which runs have ended (`defs.lineage`). It needs the
extra `lineage`.

A run of `ingest_batch` is a run of a job of that name, and each of its steps one of a job of its own below it, with the
tables that it read and wrote, their columns and where these come from. It is told when it has ended, with the times at
which it began and ended: START and COMPLETE stand together, so a receiver that is away for an hour misses neither. The
runs of steps have ids that follow from the run's, so what is sent again is the same.

Why not dagster-openlineage (0.2.1): it gives all assets of a run the run's own id under different jobs, no inputs, and
schemas only where each materialization repeats them; it reads thirty events every five minutes, of which a batch has
hundreds, begins with the newest, and drops what a receiver does not take.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

import requests
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    RunFacet,
    column_lineage_dataset,
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    schema_dataset,
    set_producer,
    tags_run,
)
from openlineage.client.serde import Serde
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport, TokenProvider

from dicom_assets.batch.steps import STEPS, Step
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import sql_type
from dicom_assets.schema.registry import TABLES, Table, column_sources
from dicom_assets.settings import LineageSettings, SettingsError

PRODUCER = f"urn:dicom-assets:{version('dicom-assets')}"
JOB = "ingest_batch"

_NO_RETRY = {"total": 0, "connect": 0, "read": 0}


class ReceiverAway(Exception):
    """The receiver did not take an event; says in kind why."""


@dataclass(frozen=True, slots=True)
class StepRun:
    """One step of a run. rows: of the batch in each table that it made, where it says so."""

    began: datetime
    ended: datetime
    succeeded: bool
    rows: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run of a batch that has ended. steps: by name, those that began."""

    run_id: str
    batch_id: str
    source: str
    began: datetime
    ended: datetime
    succeeded: bool
    steps: Mapping[str, StepRun]


@dataclass(frozen=True, slots=True)
class Names:
    """What datasets and jobs are called. namespace: of jobs and sources; of tables their storage names one."""

    namespace: str
    lake_namespace: str
    lake_path: str

    def table(self, name: str) -> tuple[str, str]:
        """Namespace and name of a table, as OpenLineage names files: whoever reads it from there calls it the same."""
        return self.lake_namespace, f"{self.lake_path}/{name}"


def names(lake: Lake, settings: LineageSettings) -> Names:
    """The names of one lake (OpenLineage, Naming: `file`, `abfss://{container}@{account}…`)."""
    place = lake.files.place
    if place is None:
        return Names(settings.namespace, "file", lake.uri.rstrip("/"))
    host = f"abfss://{place.container}@{place.account}.dfs.core.windows.net"
    return Names(settings.namespace, host, f"/{place.path.strip('/')}".rstrip("/"))


def events(run: EndedRun, named: Names) -> Iterator[RunEvent]:
    """The events of a run, as they happened, those of its steps between its own."""
    set_producer(PRODUCER)
    tags = tags_run.TagsRunFacet(
        tags=[
            tags_run.TagsRunFacetFields(key, value, "DAGSTER")
            for key, value in (("batch", run.batch_id), ("source", run.source))
        ]
    )
    facets: dict[str, RunFacet] = {"tags": tags}
    job = _job(named, JOB, "JOB")
    yield _event(RunState.START, run.began, Run(run.run_id, {**facets}), job)
    for step in STEPS:
        if (taken := run.steps.get(step.name)) is not None:
            yield from _of_step(run, step, taken, named, facets)
    source = InputDataset(named.namespace, f"source/{run.source}")
    state, more = _end(run.succeeded, "The run broke off; see its log in Dagster.")
    made = {name: rows for taken in run.steps.values() for name, rows in taken.rows.items() if name in TABLES}
    outputs = [_output(named, name, rows) for name, rows in made.items()]
    yield _event(state, run.ended, Run(run.run_id, {**facets, **more}), job, [source], outputs)


def _of_step(
    run: EndedRun, step: Step, taken: StepRun, named: Names, facets: Mapping[str, RunFacet]
) -> Iterator[RunEvent]:
    parent = parent_run.ParentRunFacet(parent_run.Run(run.run_id), parent_run.Job(named.namespace, JOB))
    run_id = str(uuid.uuid5(uuid.UUID(run.run_id), step.name))
    job = _job(named, f"{JOB}.{step.name}", "STEP")
    state, more = _end(taken.succeeded, f"Step {step.name} failed; see its log in Dagster.")
    own = {**facets, "parent": parent}
    inputs = [_input(named, name) for name in _read(step)] or [InputDataset(named.namespace, f"source/{run.source}")]
    outputs = [_output(named, name, rows) for name, rows in taken.rows.items() if name in TABLES]
    yield _event(RunState.START, taken.began, Run(run_id, own), job, inputs)
    yield _event(state, taken.ended, Run(run_id, {**own, **more}), job, inputs, outputs)


def _read(step: Step) -> Sequence[str]:
    """The tables that a step reads and does not make itself."""
    above = [name for tables, _ in step.tables.values() for name in tables]
    return [name for name in dict.fromkeys(above) if name not in step.tables and name in TABLES]


def _end(succeeded: bool, message: str) -> tuple[RunState, Mapping[str, RunFacet]]:
    if succeeded:
        return RunState.COMPLETE, {}
    return RunState.FAIL, {"errorMessage": error_message_run.ErrorMessageRunFacet(message, "PYTHON")}


def _event(
    state: RunState,
    moment: datetime,
    run: Run,
    job: Job,
    inputs: Sequence[InputDataset] = (),
    outputs: Sequence[OutputDataset] = (),
) -> RunEvent:
    return RunEvent(
        eventType=state,
        eventTime=moment.astimezone(UTC).isoformat(),
        run=run,
        job=job,
        inputs=[*inputs],
        outputs=[*outputs],
        producer=PRODUCER,
    )


def _job(named: Names, name: str, kind: str) -> Job:
    facet = job_type_job.JobTypeJobFacet(processingType="BATCH", integration="DAGSTER", jobType=kind)
    return Job(named.namespace, name, {"jobType": facet})


def _input(named: Names, name: str) -> InputDataset:
    return InputDataset(*named.table(name))


def _output(named: Names, name: str, rows: int | None) -> OutputDataset:
    table = TABLES[name]
    output = OutputDataset(
        *named.table(name), facets={"schema": _schema(table), "columnLineage": _lineage(table, named)}
    )
    if rows is not None:
        counted = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows)
        output.outputFacets = {"outputStatistics": counted}
    return output


def _schema(table: Table) -> schema_dataset.SchemaDatasetFacet:
    return schema_dataset.SchemaDatasetFacet(
        [
            schema_dataset.SchemaDatasetFacetFields(
                column.name, sql_type(column.type), column.description, ordinal_position=place
            )
            for place, column in enumerate(table.columns, start=1)
        ]
    )


def _lineage(table: Table, named: Names) -> column_lineage_dataset.ColumnLineageDatasetFacet:
    fields = {
        column: column_lineage_dataset.Fields(
            [column_lineage_dataset.InputField(*named.table(source), one) for source, one in sources]
        )
        for column, sources in column_sources(table).items()
    }
    return column_lineage_dataset.ColumnLineageDatasetFacet(fields)


class Receiver:
    """Where events are sent; a context manager."""

    def __init__(self, settings: LineageSettings, environment: Mapping[str, str]) -> None:
        """Nothing is sent yet. Raises SettingsError for a variable that is not set."""
        auth = TokenProvider({})
        if settings.api_key_variable is not None:
            key = environment.get(settings.api_key_variable, "").strip()
            if not key:
                raise SettingsError(f"[lineage]: the environment variable {settings.api_key_variable} is not set.")
            auth = ApiKeyTokenProvider({"apiKey": key})
        self._transport = HttpTransport(
            HttpConfig(
                url=settings.url.rstrip("/") + "/",
                endpoint=settings.endpoint.lstrip("/"),
                timeout=settings.timeout_seconds,
                auth=auth,
                retry=_NO_RETRY,
            )
        )

    def send(self, event: RunEvent) -> None:
        """Sends one event, once. Raises ReceiverAway."""
        try:
            self._transport.emit(event)
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else "an error"
            raise ReceiverAway(f"The receiver of lineage answered {status}.") from None
        except requests.RequestException as error:
            raise ReceiverAway(f"The receiver of lineage cannot be reached ({type(error).__name__}).") from None

    def close(self) -> None:
        """Lets go of its connections."""
        self._transport.close()


def as_json(event: RunEvent) -> str:
    """An event as it is sent."""
    return Serde.to_json(event)
