"""Versions that pyproject.toml declares can be tested: floors become pins, Dagster is bounded to what is tested."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
floor = runpy.run_path(str(ROOT / "deploy" / "lowest_constraints.py"))["floor"]


@pytest.mark.parametrize(
    ("requirement", "pin"),
    [
        ("pyarrow>=24", "pyarrow==24"),
        ("dagster>=1.13,<1.14", "dagster==1.13"),
        ("psycopg[binary]>=3.1", "psycopg==3.1"),
        ("atheris>=2.3; platform_system == 'Linux'", "atheris==2.3"),
    ],
)
def test_a_floor_becomes_a_pin(requirement: str, pin: str):
    assert floor(requirement) == pin


@pytest.mark.parametrize("requirement", ["pandas-stubs", "pyarrow==24", "pyarrow<26"])
def test_a_requirement_without_a_floor_is_refused(requirement: str):
    with pytest.raises(ValueError, match="declares no lowest version"):
        floor(requirement)


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_every_package_that_is_needed_at_run_time_declares_its_lowest_version(requirement: str):
    assert "==" in floor(requirement)


def test_dagster_is_bounded_to_the_minor_version_that_is_pinned():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    extras = [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
    ours = [one for one in [*PROJECT["dependencies"], *extras] if one.startswith("dagster")]
    assert len(ours) > 3
    for requirement in ours:
        name, lowest, bound = re.fullmatch(r"([\w-]+)>=([\d.]+),<([\d.]+)", requirement).groups()  # type: ignore[union-attr]
        major, minor = map(int, lowest.split("."))
        assert bound == f"{major}.{minor + 1}"
        if name in pins:
            assert pins[name].startswith(f"{lowest}.")
