"""A text is found wherever a file can hide it, and one that only begins like it is not taken for it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.storage.files import arrow_bytes
from dicom_assets.storage.traces import Terms, places
from dicom_assets_tests.support.landings import zipped

CANARY = "CANARY-4711"
TERMS = Terms.of([CANARY])


def parquet(table: pa.Table, **options) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def column(*values: str | None) -> pa.Table:
    return pa.table({"value": pa.array(values, pa.string())})


def unused() -> bytes:
    """A dictionary with an entry that no row uses."""
    values = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["other", CANARY]))
    return parquet(pa.table({"value": values}), write_statistics=False)


def nested() -> bytes:
    kind = pa.struct(
        [("stats", pa.string()), ("tags", pa.map_(pa.string(), pa.string())), ("more", pa.list_(pa.string()))]
    )
    rows = [{"stats": "{}", "tags": [("a", "b")], "more": ["x", CANARY]}]
    return parquet(pa.table({"add": pa.array(rows, kind)}), write_statistics=False)


def only_in_statistics() -> bytes:
    """A footer that tells of a value that no page has any more."""
    with_it = parquet(column("AAAAAA-0000", CANARY), compression="none", use_dictionary=False)
    pages = with_it.index(b"AAAAAA-0000")
    at = with_it.index(CANARY.encode(), pages)
    return with_it[:at] + b"ZZZZZZ-0000" + with_it[at + len(CANARY) :]


def pages(*statements: str, secure: bool = False) -> bytes:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with closing(connection):
        connection.execute(f"PRAGMA secure_delete = {'ON' if secure else 'OFF'}")
        for statement in ("CREATE TABLE notes (text TEXT)", *statements):
            connection.execute(statement)
        return connection.serialize()


FILES = {
    "values": parquet(column("a", CANARY)),
    "dictionary": unused(),
    "nested values": nested(),
    "statistics alone": only_in_statistics(),
    "metadata": parquet(column("a").replace_schema_metadata({"who": CANARY})),
    "arrow": arrow_bytes(column(CANARY)),
    "gzip": gzip.compress(json.dumps({"id": CANARY}).encode()),
    "gzip within zip": zipped({"a.gz": gzip.compress(CANARY.encode())}),
    "name in zip": zipped({f"{CANARY}/a": b""}),
    "zstd": pa.compress(f"{CANARY} {CANARY}".encode(), codec="zstd", asbytes=True),
    "bzip2": bz2.compress(CANARY.encode()),
    "xz": lzma.compress(CANARY.encode()),
    "JSON with escapes": json.dumps({"a": json.dumps({"b": CANARY})}).replace("-", "\\u002d").encode(),
    "cut Parquet": parquet(column(CANARY), compression="none")[:-20],
    "cut Arrow": b"ARROW1\0\0" + CANARY.encode(),
    "cut gzip": gzip.compress(f"{CANARY} ".encode() * 5_000)[:-10],
    "SQLite": pages(f"INSERT INTO notes VALUES ('{CANARY}')"),
    "SQLite, deleted": pages(f"INSERT INTO notes VALUES ('{CANARY}')", "DELETE FROM notes"),
    "SQLite, free pages": pages(f"INSERT INTO notes VALUES ('{'x' * 9_000}{CANARY}')", "DROP TABLE notes"),
}


@pytest.mark.parametrize("name", FILES)
def test_it_is_found(name):
    assert places(FILES[name], TERMS)


@pytest.mark.parametrize("name", FILES)
def test_another_text_is_not_found_there(name):
    assert places(FILES[name], Terms.of(["CANARY-4712", "absent"])) == set()


def test_a_dictionary_and_statistics_are_told_apart_from_values():
    assert places(FILES["values"], TERMS) == {"values", "statistics"}
    assert places(FILES["dictionary"], TERMS) == {"dictionary"}
    assert places(FILES["statistics alone"], TERMS) == {"statistics"}


@given(st.integers(3_900, 4_300))
def test_a_value_that_goes_on_in_another_page_of_a_database_is_found(before):
    data = pages(f"INSERT INTO notes VALUES ('{'x' * before}{CANARY}{'y' * 6_000}')", "DELETE FROM notes")
    assert places(data, TERMS)


def test_a_database_that_was_written_anew_has_nothing_left():
    assert (
        places(pages(f"INSERT INTO notes VALUES ('{CANARY}')", "DELETE FROM notes", "VACUUM", secure=True), TERMS)
        == set()
    )


@pytest.mark.parametrize("text", ["1.2.3.4", "9.1.2.3", "x1.2.3", "1.2.34"])
def test_a_uid_is_not_found_in_a_longer_one(text):
    assert places(f'{{"uid": "{text}"}}'.encode(), Terms.of(["1.2.3"])) == set()


@pytest.mark.parametrize("text", ["1.2.3", "urn:oid:1.2.3", "a/1.2.3/b", "[1.2.3]", "the UID 1.2.3."])
def test_a_uid_is_found_between_other_characters(text):
    assert places(text.encode(), Terms.of(["1.2.3"]))
