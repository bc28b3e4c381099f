"""`dg`, Dagster's command for projects: it loads the graph, lists it, and has nothing to warn of."""

from __future__ import annotations

import json

import pytest

from dicom_assets_tests.support.commands import BIN, command
from dicom_assets_tests.support.projects import REPOSITORY, Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BIN / "dg").exists(), reason="dg is not installed: pip install -e '.[dev]'"),
]


def test_the_graph_is_checked_and_listed_without_a_warning(tmp_path):
    project = Project.make(tmp_path / "clone")
    (project.folder / "dicom_assets").symlink_to(REPOSITORY / "dicom_assets")

    def dg(*arguments: str) -> str:
        here = {"PWD": str(project.folder)}  # as a shell sets it; .env makes DAGSTER_HOME of it
        done = command("dg", *arguments, cwd=project.folder, environment=here)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return done.stdout

    assert dg("check", "defs").endswith("All definitions loaded successfully.\n")
    listed = {one["asset_key"] for one in json.loads(dg("list", "defs", "--json"))["assets"]}
    assert {"flat_metadata", "cleanup"} <= listed
