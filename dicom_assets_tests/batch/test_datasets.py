"""Configured clinical datasets: their own columns, types pinned once, records replaced by key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_assets.clinical.delimited import distinct
from dicom_assets.lake import dataset_types as datasets
from dicom_assets.lake.query import QueryError, connect, run_read_only
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped, step_through

LABS = {
    "name": "labs",
    "files": ["labs/*.csv", "**/labs_*.csv"],
    "patient_id_column": "Pat No",
    "issuer": "HOSP",
    "date_column": "taken",
    "key_columns": ["lab_id"],
}
VISITS = {"name": "visits", "files": ["visits.csv"], "patient_id_column": "person", "issuer_column": "site"}


@pytest.fixture
def labs(tmp_path: Any, landing: LandingFolder, instance: dg.DagsterInstance) -> Iterator[Graph]:
    yield Stepped(settings_for(tmp_path / "lake", landing.root, clinical={"datasets": [LABS, VISITS]}), instance)


def test_each_dataset_has_its_own_patient_issuer_and_date_columns(labs: Graph, landing: LandingFolder):
    landing.put("labs/1.csv", "lab_id,Pat No,taken,value\n1,007,2024-01-31,5\n")
    landing.put("visits.csv", "person,site,reason\n8,CLINIC,cough\n")
    step_through(labs)
    rows = labs.rows("SELECT record_type, PatientID, IssuerOfPatientID, effective_at::VARCHAR AS at FROM clinical")
    assert sorted(tuple(row.values()) for row in rows) == [
        ("labs", "007", "HOSP", "2024-01-31 00:00:00+00"),
        ("visits", "8", "CLINIC", None),
    ]


def test_a_record_that_is_delivered_again_replaces_itself_whatever_file_it_stands_in(
    labs: Graph, landing: LandingFolder
):
    landing.put("labs/1.csv", "lab_id,Pat No,taken,value\n1,007,2024-01-31,5\n2,007,2024-01-31,6\n", age_seconds=9_000)
    step_through(labs)
    landing.put("deep/labs_2.csv", "lab_id,Pat No,taken,value\n2,007,2024-02-01,7\n3,007,2024-02-01,8\n")
    landing.put("deep/labs_2.csv", "lab_id,Pat No,taken,value\n2,007,2024-02-01,7\n", age_seconds=8_000)
    step_through(labs)
    rows = labs.rows("SELECT lab_id, value FROM clinical_labs ORDER BY lab_id")
    assert [tuple(row.values()) for row in rows] == [("1", 5), ("2", 7)]


def test_types_are_inferred_once_and_a_later_file_that_does_not_fit_gives_error_rows(
    labs: Graph, landing: LandingFolder
):
    landing.put("labs/1.csv", "lab_id,Pat No,taken,value,code\n1,007,2024-01-31,5,042\n", age_seconds=9_000)
    step_through(labs)
    landing.put(
        "labs/2.csv",
        "lab_id,Pat No,taken,value,code,extra\n2,007,2024-02-01,Zzyzx,9,1.5\n3,007,2024-02-01,6,10,\n",
        age_seconds=8_000,
    )
    (batch,) = step_through(labs)
    errors = labs.rows("SELECT record, code, detail FROM ingestion_errors")
    assert [tuple(row.values()) for row in errors] == [(1, "RECORD_INVALID", "column value is no BIGINT")]
    books = labs.books(batch)
    assert (books.clinical_records, books.clinical_rows) == (2, 1)
    described = labs.rows("SELECT column_name, column_type FROM (DESCRIBE clinical_labs)")
    types = {row["column_name"]: row["column_type"] for row in described}
    assert [types[name] for name in ("lab_id", "Pat No", "taken", "value", "code", "extra")] == [
        "VARCHAR",
        "VARCHAR",
        "DATE",
        "BIGINT",
        "VARCHAR",
        "DOUBLE",
    ]


def test_the_first_file_pins_what_all_its_values_fit(labs: Graph, landing: LandingFolder):
    landing.put("labs/1.csv", "lab_id,Pat No,taken,value\n1,007,2024-01-31,5\n2,007,2024-01-31,5.5\n")
    (first,) = step_through(labs)
    assert labs.books(first).clinical_rows == 2
    assert labs.rows("SELECT sum(value) AS s FROM clinical_labs") == [{"s": 10.5}]


def test_a_record_without_its_whole_key_is_an_error(labs: Graph, landing: LandingFolder):
    landing.put("labs/1.csv", "lab_id,Pat No,taken,value\n,007,2024-01-31,5\n2,007,2024-01-31,6\n")
    step_through(labs)
    errors = labs.rows("SELECT record, detail FROM ingestion_errors WHERE severity = 'error'")
    assert errors == [{"record": 1, "detail": "Its key is not whole: lab_id."}]
    assert labs.rows("SELECT count(*) AS n FROM clinical") == [{"n": 1}]


def test_a_file_without_a_configured_column_is_refused_with_the_columns_name(labs: Graph, landing: LandingFolder):
    landing.put("labs/1.csv", "Pat No,taken,value\n007,2024-01-31,5\n")
    step_through(labs)
    rows = labs.rows("SELECT code, detail FROM ingestion_errors")
    assert rows == [{"code": "CLINICAL_UNREADABLE", "detail": "Dataset labs lacks the column lab_id."}]


def test_a_table_that_no_dataset_names_is_read_as_before(labs: Graph, landing: LandingFolder):
    landing.put("other.csv", "PatientID,x\n1,2\n")
    step_through(labs)
    assert labs.rows("SELECT record_type, PatientID FROM clinical") == [{"record_type": "table", "PatientID": "1"}]


def pinned_type(values: list[str]) -> str:
    """The type that DuckDB says all of these texts have."""
    asked = ", ".join(f"bool_and({datasets.fits('value', kind)})" for kind in datasets.TYPES)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("given", pa.table({"value": pa.array(values, pa.string())}))
        fits = connection.execute(f"SELECT {asked} FROM given").fetchall()[0]
    return next(kind for kind, fit in zip(datasets.TYPES, fits, strict=True) if fit)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "+3"], "BIGINT"),
        (["1", "2.5", "1e3"], "DOUBLE"),
        (["007", "1"], "VARCHAR"),
        (["true", "FALSE"], "BOOLEAN"),
        (["2024-01-31"], "DATE"),
        (["2024-01-31T10:00:00", "2024-01-31 11:00"], "TIMESTAMP"),
        (["2024-01-31T10:00:00+02:00", "2024-01-31 11:00Z"], "TIMESTAMPTZ"),
        (["2024-01-31T10:00:00+02:00", "2024-01-31 11:00"], "VARCHAR"),
        (["2024-01-31", "2024-01-31T10:00:00"], "VARCHAR"),
        (["2024-02-31"], "VARCHAR"),
        (["2024-W05-3"], "VARCHAR"),
        (["2024-01-31T24:00:00"], "VARCHAR"),
        (["99999999999999999999"], "VARCHAR"),
        (["0.12345678901234567890"], "VARCHAR"),
        (["1e999"], "VARCHAR"),
        (["1", " ", "2"], "BIGINT"),
    ],
)
def test_the_narrowest_type_that_fits_every_value(values: list[str], kind: str):
    assert pinned_type(values) == kind


def test_a_time_keeps_its_instant_and_how_it_was_written(labs: Graph, landing: LandingFolder):
    landing.put("labs/1.csv", "lab_id,Pat No,taken\n1,007,2024-01-31T10:00:00+02:00\n2,007,2024-01-31T10:00:00-05:00\n")
    step_through(labs)
    rows = labs.rows("SELECT taken::VARCHAR AS taken, taken_offset FROM clinical_labs ORDER BY lab_id")
    assert [tuple(row.values()) for row in rows] == [
        ("2024-01-31 08:00:00+00", "+02:00"),
        ("2024-01-31 15:00:00+00", "-05:00"),
    ]
    rows = labs.rows("SELECT effective_at::VARCHAR AS at, effective_text FROM clinical ORDER BY record")
    assert [tuple(row.values()) for row in rows] == [
        ("2024-01-31 08:00:00+00", "2024-01-31T10:00:00+02:00"),
        ("2024-01-31 15:00:00+00", "2024-01-31T10:00:00-05:00"),
    ]


_ODD = [
    "*",
    "$",
    '"',
    "'",
    ".",
    "[0]",
    "[*]",
    "/",
    "~1",
    "\\",
    "#1",
    " ",
    "a",
    "A",
    "ä",
    "Ä",
    "value",
    "VALUE",
    "?",
    "--",
    ";",
    "\u2028",
]
_NAMES = st.lists(st.sampled_from(_ODD) | st.text(max_size=8), min_size=1, max_size=6)
_VALUES = (
    st.text(max_size=10)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.dates().map(str)
    | st.datetimes().map(str)
    | st.datetimes(timezones=st.timezones()).map(str)
    | st.sampled_from(
        ["true", "FALSE", "007", "1e400", "2024-W01-1", "0000-01-01", "24:00", " 5 ", "infinity", "epoch"]
    )
)


_TABLES = st.tuples(_NAMES, st.lists(st.lists(_VALUES, min_size=6, max_size=6), min_size=1, max_size=4))
_EDGES = [
    (["day"], [["0000-01-01"]]),
    (["first"], [["0001-01-01 00:00:00+14:00"]]),
    (["last"], [["9999-12-31 23:00:00-05:00"]]),
]


@pytest.mark.slow
@settings(max_examples=2, suppress_health_check=list(HealthCheck))
@given(more=st.lists(_TABLES, min_size=12, max_size=12))
def test_whatever_columns_are_called_and_hold_the_view_shows_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, more: list[tuple[list[str], list[list[str]]]]
):
    """Each table is a dataset of its own, and all of an example go through one run: a run for each took a minute."""
    folder = tmp_path_factory.mktemp("odd")
    tables = [*_EDGES, *more]
    (folder / "landing").mkdir()
    landed = LandingFolder(folder / "landing")
    for number, (names, values) in enumerate(tables):
        # Parquet, which takes any name and any text; two columns of one name as well.
        columns = [pa.array([row[place] for row in values], pa.string()) for place in range(len(names))]
        patient = pa.array(["7"] * len(values), pa.string())
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table([patient, *columns], names=["person", *names]), sink)
        landed.put(f"odd{number}.parquet", sink.getvalue().to_pybytes())
    odd = [
        {"name": f"odd{number}", "files": [f"odd{number}.parquet"], "patient_id_column": "person"}
        for number in range(len(tables))
    ]
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings_for(folder / "lake", landed.root, clinical={"datasets": odd}), instance)
        step_through(graph)
        assert graph.rows("SELECT count(*) AS n FROM clinical") == [{"n": sum(len(values) for _, values in tables)}]
        for number, (names, values) in enumerate(tables):
            _shows(graph, f"clinical_odd{number}", names, values)


def _shows(graph: Graph, view: str, names: list[str], values: list[list[str]]) -> None:
    """The view of one table has what was written, by the type that it says."""
    with connect(graph.lake) as connection:
        found = connection.sql(
            f"SELECT * FROM {view} ORDER BY (SELECT record FROM clinical c WHERE c.record_key = {view}.record_key)"
        )
        kinds = dict(zip(found.columns, map(str, found.types), strict=True))
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    called = datasets.shown_names(["person", *distinct(["person", *names])[1:]])
    for place, name in enumerate(distinct(["person", *names])[1:]):
        shown = called[name]
        for row, own in zip(rows, values, strict=True):
            text = own[place]
            if kinds[shown] == "VARCHAR":
                assert row[shown] == (text or None)
            elif not text.strip(" "):
                assert row[shown] is None
            else:
                assert row[shown] == READ[kinds[shown]](text.strip(" "))


READ: dict[str, Callable[[str], object]] = {
    "BOOLEAN": lambda text: text.lower() == "true",
    "BIGINT": int,
    "DOUBLE": float,
    "DATE": date.fromisoformat,
    "TIMESTAMP": datetime.fromisoformat,
    "TIMESTAMP WITH TIME ZONE": datetime.fromisoformat,
}
"""How Python reads what DuckDB has read."""


def test_a_view_that_cannot_be_made_costs_itself_and_no_other_query(labs: Graph, landing: LandingFolder):
    landing.put("labs/1.csv", "lab_id,Pat No,taken,*\n1,007,2024-01-31,5\n")
    landing.put("visits.csv", "person,site,reason\n8,CLINIC,cough\n")
    step_through(labs)
    assert labs.rows('SELECT "*" AS star FROM clinical_labs') == [{"star": 5}]
    labs.lake.files.put("_datasets/visits.json", b'{"reason": "NO SUCH TYPE"}')
    labs.lake.files.put("_datasets/torn.json", b"{")
    assert labs.rows("SELECT lab_id FROM clinical_labs") == [{"lab_id": "1"}]
    for view in ("clinical_visits", "clinical_torn"):
        with pytest.raises(QueryError, match=f"The view {view} cannot be shown"):
            run_read_only(labs.lake, f"SELECT * FROM {view}").fetchall()
        with pytest.raises(QueryError, match=f"The view {view} cannot be shown"):
            run_read_only(labs.lake, f"SELECT reason FROM {view}")


def test_numbers_with_a_decimal_comma_are_numbers_where_the_dataset_says_so(tmp_path, landing, instance):
    labs = {"name": "labs", "files": ["labs*"], "patient_id_column": "PatientID", "decimal": ","}
    plain = {"name": "plain", "files": ["plain*"], "patient_id_column": "PatientID"}
    graph = Stepped(settings_for(tmp_path / "lake", landing.root, clinical={"datasets": [labs, plain]}), instance)
    text = "PatientID;value;grouped;whole\nP1;5,25;1.000;7\nP2;-0,5;2.500;8\n"
    for name in ("labs.csv", "plain.csv"):
        landing.put(name, text)
    graph.ingest()
    assert graph.rows("SELECT value, grouped, whole FROM clinical_labs ORDER BY patient_id") == [
        {"value": 5.25, "grouped": "1.000", "whole": 7},
        {"value": -0.5, "grouped": "2.500", "whole": 8},
    ]
    assert graph.rows("SELECT value FROM clinical_plain ORDER BY patient_id") == [{"value": "5,25"}, {"value": "-0,5"}]
