"""Configured clinical datasets: their own columns, types pinned once, records replaced by key."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
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


def labs(name: str) -> dict[str, Any]:
    """A dataset of a name, in a folder of that name or in files that begin with it."""
    return {
        "name": name,
        "files": [f"{name}/*.csv", f"**/{name}_*.csv"],
        "patient_id_column": "Pat No",
        "issuer": "HOSP",
        "date_column": "taken",
        "key_columns": ["lab_id"],
    }


VISITS = {"name": "visits", "files": ["visits.csv"], "patient_id_column": "person", "issuer_column": "site"}
COMMAS = {"name": "commas", "files": ["commas*"], "patient_id_column": "PatientID", "decimal": ","}
PLAIN = {"name": "plain", "files": ["plain*"], "patient_id_column": "PatientID"}
OF_LABS = ("whole", "again", "pinned", "mixed", "keyless", "columnless", "timed", "starred")
HEADER = "lab_id,Pat No,taken,value"


@dataclass(frozen=True)
class Delivered:
    """A lake of many datasets, each delivered for one test, and the two batches that they came in."""

    graph: Stepped
    landing: LandingFolder
    batches: tuple[str, str]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query over its tables and views."""
        return [tuple(row.values()) for row in self.graph.rows(sql)]

    def errors(self, name: str) -> list[tuple[Any, ...]]:
        """Record, code and detail of what is told of the files of a dataset."""
        return self.rows(f"SELECT record, code, detail FROM ingestion_errors WHERE uri LIKE '%/{name}/%'")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, empty_lake: Path) -> Iterator[Delivered]:
    folder = tmp_path_factory.mktemp("datasets")
    landing = LandingFolder(folder / "landing")
    every = [*map(labs, OF_LABS), VISITS, COMMAS, PLAIN]
    with dg.DagsterInstance.ephemeral() as instance:
        of_all = settings_for(shutil.copytree(empty_lake, folder / "lake"), landing.root, clinical={"datasets": every})
        graph = Stepped(of_all, instance)

        landing.put("whole/1.csv", f"{HEADER}\n1,007,2024-01-31,5\n")
        landing.put("visits.csv", "person,site,reason\n8,CLINIC,cough\n")
        landing.put("again/1.csv", f"{HEADER}\n1,007,2024-01-31,5\n2,007,2024-01-31,6\n", age_seconds=9_000)
        landing.put("pinned/1.csv", f"{HEADER},code\n1,007,2024-01-31,5,042\n", age_seconds=9_000)
        landing.put("mixed/1.csv", f"{HEADER}\n1,007,2024-01-31,5\n2,007,2024-01-31,5.5\n")
        landing.put("keyless/1.csv", f"{HEADER}\n,007,2024-01-31,5\n2,007,2024-01-31,6\n")
        landing.put("columnless/1.csv", "Pat No,taken,value\n007,2024-01-31,5\n")
        landing.put("other.csv", "PatientID,x\n1,2\n")
        times = "1,007,2024-01-31T10:00:00+02:00\n2,007,2024-01-31T10:00:00-05:00\n"
        landing.put("timed/1.csv", f"lab_id,Pat No,taken\n{times}")
        landing.put("starred/1.csv", "lab_id,Pat No,taken,*\n1,007,2024-01-31,5\n")
        for name in ("commas.csv", "plain.csv"):
            landing.put(name, "PatientID;value;grouped;whole\nP1;5,25;1.000;7\nP2;-0,5;2.500;8\n")
        (first,) = step_through(graph, judges=False)

        landing.put("deep/again_2.csv", f"{HEADER}\n2,007,2024-02-01,7\n", age_seconds=8_000)
        more = "2,007,2024-02-01,Zzyzx,9,1.5\n3,007,2024-02-01,6,10,\n"
        landing.put("pinned/2.csv", f"{HEADER},code,extra\n{more}", age_seconds=8_000)
        (second,) = step_through(graph)
        yield Delivered(graph, landing, (first, second))


def test_each_dataset_has_its_own_patient_issuer_and_date_columns(lake: Delivered):
    assert lake.rows(
        "SELECT record_type, PatientID, IssuerOfPatientID, effective_at::VARCHAR AS at FROM clinical "
        "WHERE record_type IN ('whole', 'visits') ORDER BY record_type DESC"
    ) == [("whole", "007", "HOSP", "2024-01-31 00:00:00+00"), ("visits", "8", "CLINIC", None)]


def test_a_record_that_is_delivered_again_replaces_itself_whatever_file_it_stands_in(lake: Delivered):
    assert lake.rows("SELECT lab_id, value FROM clinical_again ORDER BY lab_id") == [("1", 5), ("2", 7)]


def test_types_are_inferred_once_and_a_later_file_that_does_not_fit_gives_error_rows(lake: Delivered):
    assert lake.errors("pinned") == [(1, "RECORD_INVALID", "column value is no BIGINT")]
    books = lake.graph.books(lake.batches[1])
    assert (books.clinical_records, books.clinical_rows) == (3, 2)  # one of them is delivered again
    types = dict(lake.rows("SELECT column_name, column_type FROM (DESCRIBE clinical_pinned)"))
    assert [types[name] for name in ("lab_id", "Pat No", "taken", "value", "code", "extra")] == [
        "VARCHAR",
        "VARCHAR",
        "DATE",
        "BIGINT",
        "VARCHAR",
        "DOUBLE",
    ]


def test_the_first_file_pins_what_all_its_values_fit(lake: Delivered):
    assert lake.rows("SELECT count(*) AS n, sum(value) AS s FROM clinical_mixed") == [(2, 10.5)]


def test_a_record_without_its_whole_key_is_an_error(lake: Delivered):
    ((record, _, detail),) = lake.errors("keyless")
    assert (record, detail) == (1, "Its key is not whole: lab_id.")
    assert lake.rows("SELECT severity FROM ingestion_errors WHERE uri LIKE '%/keyless/%'") == [("error",)]
    assert lake.rows("SELECT count(*) AS n FROM clinical WHERE record_type = 'keyless'") == [(1,)]


def test_a_file_without_a_configured_column_is_refused_with_the_columns_name(lake: Delivered):
    ((_, code, detail),) = lake.errors("columnless")
    assert (code, detail) == ("CLINICAL_UNREADABLE", "Dataset columnless lacks the column lab_id.")


def test_a_table_that_no_dataset_names_is_read_as_before(lake: Delivered):
    assert lake.rows("SELECT PatientID FROM clinical WHERE record_type = 'table'") == [("1",)]


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


def test_a_time_keeps_its_instant_and_how_it_was_written(lake: Delivered):
    assert lake.rows("SELECT taken::VARCHAR AS taken, taken_offset FROM clinical_timed ORDER BY lab_id") == [
        ("2024-01-31 08:00:00+00", "+02:00"),
        ("2024-01-31 15:00:00+00", "-05:00"),
    ]
    assert lake.rows(
        "SELECT effective_at::VARCHAR AS at, effective_text FROM clinical WHERE record_type = 'timed' ORDER BY record"
    ) == [
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
@settings(max_examples=1, suppress_health_check=list(HealthCheck))
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
        step_through(graph, judges=False)
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


def test_a_view_that_cannot_be_made_costs_itself_and_no_other_query(lake: Delivered, tmp_path: Path):
    copy = shutil.copytree(lake.graph.settings.lake, tmp_path / "lake")
    graph = Stepped(settings_for(copy, lake.landing.root), lake.graph.instance)
    assert graph.rows('SELECT "*" AS star FROM clinical_starred') == [{"star": 5}]
    graph.lake.files.put("_datasets/visits.json", b'{"reason": "NO SUCH TYPE"}')
    graph.lake.files.put("_datasets/torn.json", b"{")
    assert graph.rows("SELECT lab_id FROM clinical_starred") == [{"lab_id": "1"}]
    for view in ("clinical_visits", "clinical_torn"):
        with pytest.raises(QueryError, match=f"The view {view} cannot be shown"):
            run_read_only(graph.lake, f"SELECT * FROM {view}").fetchall()
        with pytest.raises(QueryError, match=f"The view {view} cannot be shown"):
            run_read_only(graph.lake, f"SELECT reason FROM {view}")


def test_numbers_with_a_decimal_comma_are_numbers_where_the_dataset_says_so(lake: Delivered):
    assert lake.graph.rows("SELECT value, grouped, whole FROM clinical_commas ORDER BY patient_id") == [
        {"value": 5.25, "grouped": "1.000", "whole": 7},
        {"value": -0.5, "grouped": "2.500", "whole": 8},
    ]
    assert lake.rows("SELECT value FROM clinical_plain ORDER BY patient_id") == [("5,25",), ("-0,5",)]
