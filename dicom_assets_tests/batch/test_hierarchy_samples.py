"""What of the hierarchy is compared for every row, and what for a sample that is another one in each batch."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dicom_assets.batch import publish
from dicom_assets.batch.checks import hierarchy_checks
from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.batch.checks.rules import judged
from dicom_assets.batch.context import RunContext
from dicom_assets.landing.claims import claim_new
from dicom_assets.schema.registry import TABLES
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import steps

STUDIES = 9


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Iterator[CheckContext]:
    """A batch of nine studies of two instances each, published up to `study`."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "landing").mkdir()
    landing = LandingFolder(folder / "landing")
    for number in range(1, STUDIES + 1):
        for instance in (1, 2):
            landing.put(f"{number}/{instance}.dcm", dicom(number, 1, instance))
    with RunContext(settings_for(folder / "lake", landing.root), shared_engine=InlineEngine()) as work:
        (claim,) = claim_new(work.stores()[0], work.log, work.settings.claiming).claims
        batch = work.batch(claim.batch_id)
        for tables, make in steps(batch):
            make()
            if "study" in tables:
                break
        yield judged(batch)


@pytest.fixture
def context(published, monkeypatch) -> Iterator[CheckContext]:
    """The batch, of which half the instances are compared in all columns; what a test breaks is whole again behind it.

    Which these are depends on the batch's name: with two wanted, one batch in eight had none.
    """
    monkeypatch.setattr(hierarchy_checks, "SAMPLE_INSTANCES", STUDIES)
    before = {name: published.lake.table(name).to_pyarrow_table() for name in ("instance", "series", "study")}
    yield published
    for name, rows in before.items():
        _put(published, name, rows)


def _put(context: CheckContext, name: str, rows: pa.Table) -> None:
    rows = rows.select(TABLES[name].schema.names).cast(TABLES[name].schema)
    context.lake.replace(name, rows["study_key"].unique().to_pylist(), rows)


def change(context: CheckContext, name: str, column: str, value: object, which: int | None = None) -> None:
    """Sets a column of one row of a table, of all rows without `which`."""
    rows = context.lake.table(name).to_pyarrow_table().sort_by("study_key")
    kind = rows.schema.field(column).type
    of = pa.array([which in (None, at) for at in range(len(rows))])
    place = rows.schema.get_field_index(column)
    _put(context, name, rows.set_column(place, column, pc.if_else(of, pa.scalar(value, kind), rows[column])))


def holds(context: CheckContext, name: str) -> bool:
    rules = {rule.table: rule for rule in hierarchy_checks.HIERARCHY_RULES}
    return rules[name].rule(context).passed


def test_a_sound_batch_passes(context):
    assert [holds(context, name) for name in ("instance", "series", "study")] == [True] * 3


@pytest.mark.parametrize("which", range(0, 2 * STUDIES, 5))
@pytest.mark.parametrize(("column", "value"), [("uri", "file:///elsewhere"), ("object_id", "x"), ("PatientID", "x")])
def test_what_an_instance_is_and_whose_is_compared_for_each(context, which, column, value):
    change(context, "instance", column, value, which)
    assert not holds(context, "instance")


@pytest.mark.parametrize(("name", "column"), [("series", "instance_count"), ("study", "series_count")])
@pytest.mark.parametrize("which", [0, STUDIES - 1])
def test_counts_are_compared_for_each(context, name, column, which):
    change(context, name, column, 7, which)
    assert not holds(context, name)


@pytest.mark.parametrize(
    ("name", "column"),
    [("instance", "BodyPartExamined"), ("series", "SeriesDescription"), ("study", "StudyDescription")],
)
def test_what_is_wrong_in_every_row_is_seen_in_a_sample(context, name, column):
    change(context, name, column, "wrong")
    assert not holds(context, name)


@pytest.mark.parametrize("name", ["instance", "series", "study"])
def test_a_table_is_committed_once_in_however_many_portions_it_is_put_together(context, monkeypatch, name):
    monkeypatch.setattr(publish, "ROWS_AT_ONCE", 4)
    before = context.lake.extents(name).version
    rows = publish.publish_hierarchy(context.lake, context.staging, name)
    assert (rows, context.lake.extents(name).version) == (context.lake.row_count(name), before + 1)
    assert holds(context, name)
