"""image_occurrence loads into a real database under the DDL of the imaging extension."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from dicom_assets.omop import concepts, image_occurrence
from dicom_assets.omop.ddl import copy_csv, image_occurrence_ddl, parent_ids, parents_ddl
from dicom_assets.omop.image_occurrence import Context
from dicom_assets.omop.integers import allocate
from dicom_assets.omop.maps import IdMaps
from dicom_assets.schema.registry import IMAGE_OCCURRENCE
from dicom_assets_tests.omop.test_image_occurrence import row
from dicom_assets_tests.support.postgres import postgres

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as conninfo:
        yield conninfo


def occurrences() -> pa.Table:
    """Rows with everything that CSV could stumble over."""
    rows = [
        row(1, 1, uris=['/landing/a, "b"\nc/1.dcm']),
        row(1, 2, Modality=None, SeriesDate=None, uris=[]),
        row(2, 1, Modality="MR", BodyPartExamined="HEAD", uris=["/größe/1.dcm"]),
        row(3, 1, PatientID=None, subject_state="conflict"),
    ]
    given = allocate(image_occurrence.wanted(rows, IdMaps()), {}, {}, "b").to_pylist()
    ids = {(one["domain"], one["natural_key"]): one["id"] for one in given}
    context = Context(concepts.load(), IdMaps(), "https://pacs.example/dicom-web")
    return image_occurrence.rows(rows, ids, context)[0]


def load(conninfo: str, table: pa.Table) -> list[tuple[Any, ...]]:
    """Makes the tables anew, loads parents and rows, gives the rows back."""
    import psycopg

    with psycopg.connect(conninfo) as connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        cursor.execute(parents_ddl() + image_occurrence_ddl())
        for parent, ids in parent_ids(table).items():
            cursor.executemany(f"INSERT INTO {parent} VALUES (%s)", [(one,) for one in ids])
        with cursor.copy("COPY image_occurrence FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write(copy_csv(table))
        cursor.execute("SELECT * FROM image_occurrence ORDER BY image_occurrence_id")
        return cursor.fetchall()


def test_rows_load_and_come_back_as_they_were(database: str):
    table = occurrences()
    assert load(database, table) == [tuple(one.values()) for one in table.to_pylist()]


def test_the_database_has_the_columns_types_and_not_nulls_of_the_extension(database: str):
    import psycopg

    load(database, occurrences())
    with psycopg.connect(database) as connection:
        found = connection.execute(
            "SELECT column_name, data_type, character_maximum_length, is_nullable FROM information_schema.columns "
            "WHERE table_name = 'image_occurrence' ORDER BY ordinal_position"
        ).fetchall()
    assert found == [
        ("image_occurrence_id", "integer", None, "NO"),
        ("person_id", "integer", None, "NO"),
        ("procedure_occurrence_id", "integer", None, "NO"),
        ("visit_occurrence_id", "integer", None, "YES"),
        ("anatomic_site_concept_id", "integer", None, "YES"),
        ("wadors_uri", "text", None, "YES"),
        ("local_path", "text", None, "YES"),
        ("image_occurrence_date", "date", None, "NO"),
        ("image_study_uid", "character varying", 250, "NO"),
        ("image_series_uid", "character varying", 250, "NO"),
        ("modality_concept_id", "integer", None, "NO"),
    ]


def test_the_database_would_refuse_a_row_without_a_person(database: str):
    import psycopg

    table = occurrences()
    index = table.schema.get_field_index("person_id")
    nobody = table.set_column(index, pa.field("person_id", pa.int32()), pa.nulls(len(table), pa.int32()))
    with pytest.raises(psycopg.errors.NotNullViolation):
        load(database, nobody)


def test_the_ddl_names_every_column_of_the_registry():
    assert all(f"    {column.name} " in image_occurrence_ddl() for column in IMAGE_OCCURRENCE.columns)
