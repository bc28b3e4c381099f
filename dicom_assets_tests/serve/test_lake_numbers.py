"""The numbers of the lake at /metrics: who may read which."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from dicom_assets.serve.lake_numbers import LakeNumbers
from dicom_assets.settings import Settings
from dicom_assets_tests.serve.asking import bearer, client

ALL = {"name": "all", "variable": "ALL"}
FIRST = {"name": "first", "variable": "FIRST", "sources": ["landing"]}
SOME = {"name": "some", "variable": "SOME", "condition": "PatientID LIKE 'P%'"}
NONE = {"name": "none", "variable": "NONE", "sources": []}


def sources(text: str) -> set[str]:
    return set(re.findall(r'source="([^"]*)"', text))


def read(settings: Settings, token: str, *tokens: dict[str, Any]) -> str:
    return client(settings, tokens=[*tokens]).get("/metrics", headers=bearer(token)).text


class TestWhoReadsWhat:
    def test_without_tokens_this_machine_reads_all(self, searchable: Settings):
        text = client(searchable).get("/metrics").text
        assert sources(text) == {"landing", "landing2"}
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert families["dicom_assets_table_rows"].samples
        assert "dicom_assets_requests_at_once" in families

    def test_a_token_that_sees_everything_reads_all(self, searchable: Settings):
        assert "dicom_assets_table_rows{" in read(searchable, "ALL", ALL)

    def test_of_some_sources_what_is_about_these_alone(self, searchable: Settings):
        text = read(searchable, "FIRST", FIRST)
        assert sources(text) == {"landing"}
        assert "dicom_assets_table_" not in text

    @pytest.mark.parametrize(("token", "settings"), [("SOME", SOME), ("NONE", NONE)])
    def test_with_a_condition_or_no_source_nothing(self, searchable: Settings, token: str, settings: dict[str, Any]):
        text = read(searchable, token, settings)
        assert sources(text) == set()
        assert "dicom_assets_requests_at_once 1" in text

    def test_who_watches_reads_all_and_sees_no_study(self, searchable: Settings):
        asking = client(searchable, tokens=[{**NONE, "may_watch": True}])
        assert sources(asking.get("/metrics", headers=bearer("NONE")).text) == {"landing", "landing2"}
        assert asking.get("/dicom-web/studies", headers=bearer("NONE")).json() == []


def test_they_are_measured_once_for_many_scrapes(searchable: Settings, monkeypatch: pytest.MonkeyPatch):
    measured: list[int] = []
    monkeypatch.setattr(LakeNumbers, "_measure", lambda _: measured.append(1) or {})
    asking = client(searchable)
    for _ in range(3):
        assert asking.get("/metrics").status_code == 200
    assert measured == [1]
