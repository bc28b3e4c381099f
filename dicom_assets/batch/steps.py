"""What a batch goes through, from its claim to its closed books: the one list of steps.

Belongs here: the order, what each step makes and from what, and the call that makes it. The graph's assets and checks,
the replays of tests, and what `verify --fix` makes again are made from this list. Does not belong here: how
a table is made (`publish`, `clinical`, `standards`), what Dagster is told (`defs`).

    raw_files → validated_batch → flat_metadata → instance → series → study → imaging_study → image_occurrence
                      ├→ correction ┘               └→ series_geometry └→ conflict
                      ├→ clinical ───────────────────────────────────────→ diagnostic_report
                      └→ ingestion_errors        flat_metadata → duplicate     all of them → cleanup
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from dicom_assets.batch.clinical import publish_clinical
from dicom_assets.batch.context import OpenBatch
from dicom_assets.batch.corrections import publish_corrections, publish_links
from dicom_assets.batch.publish import publish_hierarchy, publish_rows, touched_studies
from dicom_assets.batch.series_geometry import publish_geometry
from dicom_assets.batch.standards import (
    publish_coverage,
    publish_diagnostic_report,
    publish_identifiers,
    publish_imaging_study,
    publish_occurrences,
)
from dicom_assets.curation.conflicts import publish_conflicts
from dicom_assets.curation.duplicates import publish_duplicates
from dicom_assets.curation.uid_index import enter
from dicom_assets.lake.choice import Choice
from dicom_assets.lake.hierarchy import REBUILDS
from dicom_assets.lake.staging import Part
from dicom_assets.omop.coverage import chart, markdown, measures
from dicom_assets.schema.codes import Outcome


@dataclass(frozen=True)
class Run:
    """The run that takes a step. reaches_end: whether it goes on until it closes the books of its batch."""

    run_id: str
    reaches_end: bool = True


@dataclass(frozen=True)
class Result:
    """What a step made. rows: of the batch in the table, None where none are made; counts, and Markdown, by name."""

    rows: int | None
    counts: Mapping[str, int | float] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)


Make = Callable[[OpenBatch, Run], Result]


@dataclass(frozen=True)
class Step:
    """One step of a batch. tables: what it makes, in this order: from which tables, and how.

    A step makes several tables where each takes less time than a step of Dagster's does, or side by side, where none
    reads what another one makes; each can be made alone.
    """

    name: str
    group: str
    kinds: frozenset[str]
    tables: Mapping[str, tuple[Sequence[str], Make]]
    description: str = ""
    side_by_side: bool = False


def _raw_files(batch: OpenBatch, run: Run) -> Result:
    seen = batch.begin(run.run_id, to_the_end=run.reaches_end)
    return Result(seen, {"seen": seen, "claimed": len(batch.manifest)})


def _validated_batch(batch: OpenBatch, run: Run) -> Result:
    found = batch.judge(run.run_id)
    counts = {str(outcome): int(found.get(outcome, 0)) for outcome in Outcome}  # zeros too: plots have no holes
    return Result(sum(counts.values()), counts)


def _flat_metadata(batch: OpenBatch, run: Run) -> Result:
    return Result(batch.publish_flat(run.run_id))


def _clinical(batch: OpenBatch, run: Run) -> Result:
    accepted = batch.work.settings.clinical.accepted_identity_changes
    return Result(publish_clinical(batch.lake, batch.staging, run.run_id, accepted))


def _correction(batch: OpenBatch, run: Run) -> Result:
    before = partial(batch.work.places.before, batch.batch_id)
    return Result(publish_corrections(batch.lake, batch.staging, run.run_id, before))


def _patient_link(batch: OpenBatch, _: Run) -> Result:
    return Result(publish_links(batch.lake, batch.staging))


def _level(name: str) -> Make:
    def make(batch: OpenBatch, _: Run) -> Result:
        rows = publish_hierarchy(batch.lake, batch.staging, name, Choice.of(batch.work.settings.curation))
        return Result(rows, {"touched_studies": len(touched_studies(batch.staging))})

    return make


def _series_geometry(batch: OpenBatch, _: Run) -> Result:
    return Result(publish_geometry(batch.lake, batch.staging))


def _conflict(batch: OpenBatch, _: Run) -> Result:
    enter(batch.lake, batch.staging)
    touched = touched_studies(batch.staging)["study_key"].to_pylist()
    choice = Choice.of(batch.work.settings.curation)
    return Result(publish_conflicts(batch.lake, touched, choice, batch.staging))


def _imaging_study(batch: OpenBatch, _: Run) -> Result:
    rows, files = publish_imaging_study(batch.lake, batch.staging, batch.work.settings)
    return Result(rows, {"ndjson_files": files})


def _diagnostic_report(batch: OpenBatch, _: Run) -> Result:
    return Result(publish_diagnostic_report(batch.lake, batch.staging))


def _omop_identifier(batch: OpenBatch, _: Run) -> Result:
    return Result(publish_identifiers(batch.lake, batch.staging, batch.work.settings))


def _occurrences(name: str) -> Make:
    return lambda batch, _: Result(publish_occurrences(batch.lake, batch.staging, batch.work.settings, name))


def _mapping_coverage(batch: OpenBatch, _: Run) -> Result:
    rows = publish_coverage(batch.lake)
    shares = measures(rows)
    counts = {one.name: round(one.share, 4) for one in shares if one.share is not None}
    return Result(len(rows), counts, {"coverage": markdown(rows), "chart": chart(shares)})


def _duplicate(batch: OpenBatch, _: Run) -> Result:
    return Result(publish_duplicates(batch.lake, batch.staging))


def _ingestion_errors(batch: OpenBatch, _: Run) -> Result:
    return Result(publish_rows(batch.lake, batch.staging, Part.ERRORS))


def _cleanup(batch: OpenBatch, run: Run) -> Result:
    books = batch.close(run.run_id)
    names = ("seen", "ingested", "quarantined", "ignored", "deleted", "clinical_records", "clinical_rows", "balance")
    return Result(None, {name: getattr(books, name) for name in names})


_DUCKDB = frozenset({"duckdb", "deltalake"})
_PYTHON = frozenset({"python", "deltalake"})

_PUBLISHING = (
    Step("raw_files", "landing", _PYTHON, {"raw_files": ((), _raw_files)}),
    Step("validated_batch", "landing", _PYTHON, {"validated_batch": (("raw_files",), _validated_batch)}),
    Step("corrections", "landing", _PYTHON, {
        "correction": (("validated_batch",), _correction), "patient_link": (("correction",), _patient_link)}),
    Step("flat_metadata", "metadata", frozenset({"dicom", "deltalake"}),
         {"flat_metadata": (("validated_batch", "correction"), _flat_metadata)}),
    Step("clinical", "clinical", _DUCKDB, {"clinical": (("validated_batch", "flat_metadata"), _clinical)}),
    Step("hierarchy", "hierarchy", _DUCKDB, {name: (above, _level(name)) for name, above in REBUILDS.items()}),
    # side by side: geometry is mostly DuckDB's, conflicts mostly Python's, which has one thread
    Step("curation", "curation", _DUCKDB, {
        "series_geometry": (("instance",), _series_geometry),
        "conflict": (("study", "series", "instance"), _conflict),
        "duplicate": (("flat_metadata",), _duplicate),
    }, side_by_side=True),
    Step("imaging_study", "standards", _PYTHON, {"imaging_study": (("study", "series", "instance"), _imaging_study)}),
    Step("diagnostic_report", "standards", _PYTHON,
         {"diagnostic_report": (("clinical", "imaging_study"), _diagnostic_report)}),
    Step("occurrences", "standards", _PYTHON, {
        "omop_identifier": (("series", "study"), _omop_identifier),
        "image_occurrence": (("series", "omop_identifier"), _occurrences("image_occurrence")),
        "image_occurrence_origin": (
            ("series", "omop_identifier", "image_occurrence"), _occurrences("image_occurrence_origin")),
    }),
    Step("mapping_coverage", "standards", _DUCKDB, {"mapping_coverage": (
        ("imaging_study", "diagnostic_report", "image_occurrence", "image_occurrence_origin", "clinical"),
        _mapping_coverage)}),
    Step("ingestion_errors", "books", _PYTHON,
         {"ingestion_errors": (("validated_batch", "clinical"), _ingestion_errors)}),
)  # fmt: skip

STEPS: tuple[Step, ...] = (
    *_PUBLISHING,
    Step(
        "cleanup",
        "books",
        frozenset({"python"}),
        {"cleanup": (tuple(table for step in _PUBLISHING for table in step.tables), _cleanup)},
        "Counts the batch in the tables, removes its staging and closes its row in `batches`.",
    ),
)
"""Every step of a batch, in the order in which a run takes them."""


def each_table() -> Iterator[tuple[str, Make]]:
    """Every table of a batch and what makes it, in the order of the flow; `cleanup` is the last."""
    for step in STEPS:
        for name, (_, make) in step.tables.items():
            yield name, make
