"""Alert rules and dashboard fit the numbers that there are, and Prometheus' own tool finds them good."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicom_assets.monitoring.families import FAMILIES, OF_THE_LAKE, PREFIX, Kind

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "dicom-assets.rules.yml"
CASES = DEPLOY / "prometheus" / "dicom-assets.rules.test.yml"
DASHBOARD = DEPLOY / "grafana" / "dicom-assets.json"

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")

OF_HISTOGRAMS = ("_bucket", "_count", "_sum")
SAMPLES = {
    name: family
    for family in FAMILIES.values()
    for name in (
        [family.name + ending for ending in OF_HISTOGRAMS] if family.kind is Kind.HISTOGRAM else [family.sample_name]
    )
}
"""Every name that a scrape can have, with its family."""


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Where a query stands, and the query."""
    yield from ((rule["alert"], rule["expr"]) for rule in rules())
    for panel in panels():
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])


@pytest.mark.parametrize(("place", "query"), [*expressions()], ids=lambda text: text[:40])
def test_every_number_of_rules_and_dashboard_exists_with_its_labels(place: str, query: str):
    names = re.findall(rf"\b{PREFIX}\w+", query)
    assert names, place
    assert set(names) <= SAMPLES.keys()
    for name, matchers in re.findall(rf"\b({PREFIX}\w+)\{{([^}}]*)\}}", query):
        labels = {*re.findall(r"(\w+)\s*=", matchers)}
        assert labels <= {*SAMPLES[name].labels}, f"{place}: {name}"


def test_a_gauge_is_not_rated_and_a_counter_is_not_asked_for_as_it_is():
    for place, query in expressions():
        for function, name in re.findall(rf"(\w+)\(({PREFIX}\w+)", query):
            if function in ("rate", "increase", "irate"):
                assert SAMPLES[name].kind is not Kind.GAUGE, place
            if function in ("delta", "deriv"):
                assert SAMPLES[name].kind is Kind.GAUGE, place


def test_the_dashboard_shows_every_number_of_the_lake():
    shown = {name for _, query in expressions() for name in re.findall(rf"\b{PREFIX}\w+", query)}
    left_out = {family.name for family in OF_THE_LAKE} - shown
    assert left_out == {f"{PREFIX}clinical_rows", f"{PREFIX}table_rows"}


def test_panels_have_places_of_their_own():
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_each_rule_has_a_case():
    tried = {
        one["alertname"]
        for case in yaml.safe_load(CASES.read_text())["tests"]
        for one in case.get("alert_rule_test", ())
    }
    assert tried == {rule["alert"] for rule in rules()}


@needs_promtool
class TestPromtool:
    def run(self, *arguments: str) -> None:
        checked = subprocess.run(
            [str(PROMTOOL), *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr

    def test_takes_the_rules(self):
        self.run("check", "rules", RULES.name)

    @pytest.mark.slow
    def test_finds_that_each_fires_when_it_should_and_none_when_all_is_well(self):
        self.run("test", "rules", CASES.name)

    def test_takes_every_query_of_the_dashboard(self, tmp_path: Path):
        queries = [target["expr"].replace("$source", ".*") for panel in panels() for target in panel["targets"]]
        recorded = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
        file = tmp_path / "panels.yml"
        file.write_text(json.dumps({"groups": [{"name": "panels", "rules": recorded}]}))
        self.run("check", "rules", str(file))
