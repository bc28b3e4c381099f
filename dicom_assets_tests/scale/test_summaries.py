"""What is kept of files that never change is right whoever writes: counts by file."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dicom_assets.lake import rewrite, summaries
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.maintenance import maintain
from dicom_assets.lake.query import connect
from dicom_assets_tests.scale.test_layout import copied, key, studies

FEW = st.lists(st.integers(0, 12), min_size=1, max_size=6, unique=True)
"""Numbers of a few studies."""


@pytest.fixture
def lake(tmp_path, monkeypatch, empty_lake) -> Lake:
    """An empty lake whose tables by study have files of 4 rows."""
    monkeypatch.setattr(rewrite, "_FILE_ROWS", {"study": 4})
    return copied(empty_lake, tmp_path)


def put(lake: Lake, numbers: Sequence[int], updated: int, gone: Sequence[int] = ()) -> None:
    """Publishes some studies; `gone` have lost their rows."""
    lake.replace("study", [key(n) for n in [*numbers, *gone]], studies(*numbers, updated=updated))


COUNTS_UPDATED = "[{'measure': 'updated', 'value': instance_count::VARCHAR, 'mapped': instance_count > 2}]"


def counted(lake: Lake) -> list[tuple[str, bool, int]]:
    rows = summaries.counts(lake, "study", COUNTS_UPDATED).to_pylist()
    return sorted((row["value"], row["mapped"], row["rows"]) for row in rows)


def expected(lake: Lake) -> list[tuple[str, bool, int]]:
    with connect(lake, ["study"]) as connection:
        return connection.execute(
            "SELECT instance_count::VARCHAR, instance_count > 2, count(*) FROM study GROUP BY ALL ORDER BY ALL"
        ).fetchall()


class TestCountsByFile:
    def test_of_an_empty_table_are_none(self, lake):
        assert counted(lake) == []

    def test_read_only_files_that_are_new(self, lake, monkeypatch):
        put(lake, range(12), 1)
        assert counted(lake) == [("1", False, 12)]
        read: list[int] = []
        real = summaries._read
        monkeypatch.setattr(
            summaries,
            "_read",
            lambda lake, name, paths, *more: read.append(len(paths)) or real(lake, name, paths, *more),
        )
        assert counted(lake) == [("1", False, 12)]
        put(lake, [1], 3)
        assert counted(lake) == [("1", False, 11), ("3", True, 1)]
        assert read == [1]

    def test_of_files_that_count_for_nothing_are_known_too(self, lake, monkeypatch):
        put(lake, [1], 1)
        nothing = COUNTS_UPDATED.replace("[", "CASE WHEN instance_count > 5 THEN [") + " END"
        assert summaries.counts(lake, "study", nothing).num_rows == 0
        monkeypatch.setattr(summaries, "scan", lambda *_, **__: pytest.fail("it was counted already"))
        assert summaries.counts(lake, "study", nothing).num_rows == 0

    def test_are_asked_anew_when_the_question_has_changed(self, lake):
        put(lake, [1], 1)
        counted(lake)
        other = summaries.counts(lake, "study", COUNTS_UPDATED.replace("> 2", "> 0"))
        assert other["mapped"].to_pylist() == [True]

    @pytest.mark.slow
    @hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(st.booleans(), FEW, FEW), min_size=5, max_size=10))
    def test_add_up_to_the_table_whenever_they_are_asked(self, lake, writes):
        for number, (asks, numbers, gone) in enumerate(writes):
            put(lake, numbers, number, [one for one in gone if one not in numbers])
            if number == 3:
                maintain(lake, "study", retention_hours=720)
            if asks:
                assert counted(lake) == expected(lake)
        assert counted(lake) == expected(lake)


def test_counts_are_of_the_registered_kind(lake):
    put(lake, [1], 1)
    assert summaries.counts(lake, "study", COUNTS_UPDATED).schema == summaries.COUNTS
    assert pa.types.is_boolean(summaries.COUNTS.field("mapped").type)
