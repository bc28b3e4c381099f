"""`dg`, Dagster's command for projects: it loads the graph, lists it, and has nothing to warn of.

That it finds nothing wrong with the definitions is a step of `make lint`.
"""

from __future__ import annotations

import json
import re

import pytest

from dicom_assets_tests.support.commands import BIN, command
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.projects import REPOSITORY, Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BIN / "dg").exists(), reason="dg is not installed: pip install -e '.[dev]'"),
]


def test_the_graph_is_listed_and_a_job_of_it_launched_without_a_warning(tmp_path):
    project = Project.make(tmp_path / "clone")
    (project.folder / "dicom_assets").symlink_to(REPOSITORY / "dicom_assets")

    def dg(*arguments: str) -> str:
        done = command("dg", *arguments, cwd=project.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not re.search(r"Warning|WARNING|this warning", done.stdout + done.stderr)
        return done.stdout

    listed = {one["asset_key"] for one in json.loads(dg("list", "defs", "--json"))["assets"]}
    assert {"flat_metadata", "cleanup"} <= listed
    project.landing.put("a.dcm", dicom(1, 1, 1))
    dg("launch", "--job", "claim_new_files")
    with project.instance() as instance:
        assert len(instance.get_dynamic_partitions("batch")) == 1
