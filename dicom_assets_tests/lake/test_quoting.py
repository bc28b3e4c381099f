"""What comes from outside reaches SQL as it is, in whatever number."""

from __future__ import annotations

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.lake.quoting import FEW_VALUES, one_of

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXT, max_size=8), st.lists(TEXT, max_size=8), st.booleans())
def test_values_are_found_by_what_they_are_few_or_many(there: list[str], asked: list[str], many: bool):
    wanted = [*asked, *(f"{number}'{'x' * (number % 3)}" for number in range(2 * FEW_VALUES if many else 0))]
    with duckdb.connect() as connection:
        connection.register("there", pa.table({"value": pa.array(there, pa.string())}))
        found = connection.execute(f"SELECT value FROM there WHERE value IN ({one_of(wanted)})").fetchall()
    assert sorted(value for (value,) in found) == sorted(value for value in there if value in wanted)


def test_many_values_are_one_literal():
    assert one_of(map(str, range(10 * FEW_VALUES))).count("'") == 2
    assert one_of(["b", "a", "b"]) == "'a', 'b'"
    assert one_of([]) == "NULL"
