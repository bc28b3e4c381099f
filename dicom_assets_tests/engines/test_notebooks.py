"""The notebooks run on the demo lake, say the same in DuckDB's SQL and in Spark's, and are kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from dicom_assets.cli.main import app
from dicom_assets_tests.engines.conftest import Told
from dicom_assets_tests.support.engines import NEEDED, RUNNERS, run
from dicom_assets_tests.support.pages import ROOT

NOTEBOOKS = ROOT / "data" / "notebooks"
ANSWERS = ("modalities", "books", "reasons", "diagnoses", "repetition")


def code_of(name: str) -> list[str]:
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
def test_a_notebook_is_kept_without_outputs(name: str):
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    ran = [cell for cell in cells if cell["cell_type"] == "code" and (cell["outputs"] or cell["execution_count"])]
    assert ran == []


def ran(demo: Told, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the cells leave behind, run one after the other as Jupyter does."""
    monkeypatch.setenv("DICOM_ASSETS_LAKE", str(demo.folder))
    left: dict[str, Any] = {}
    for cell in code_of("lake.ipynb"):
        exec(compile(cell, "lake.ipynb", "exec"), left)
    return left


def test_the_notebook_runs_on_the_demo(demo: Told, monkeypatch: pytest.MonkeyPatch):
    left = ran(demo, monkeypatch)
    assert all(len(left[name]) > 0 for name in ANSWERS)
    assert left["modalities"].Modality.tolist().count("CT") == 1
    assert "above 1 is a conflict" in left["meaning"]["patient_count"]


@NEEDED
@pytest.mark.slow
def test_its_spark_form_runs_on_pysail_and_says_the_same(demo: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "build").mkdir()
    script = CliRunner().invoke(app, ["engines", "spark", "--lake", str(demo.folder)])
    assert script.exit_code == 0, script.output
    (tmp_path / "build" / "spark.sql").write_text(script.stdout, encoding="utf-8")
    said = run([RUNNERS / "in_notebook.py", NOTEBOOKS / "lake_spark.ipynb", *ANSWERS], cwd=tmp_path)
    theirs = json.loads(said.splitlines()[-1])
    ours = ran(demo, monkeypatch)
    for name in ANSWERS:
        assert theirs[name] == json.loads(plain(ours[name])), name


def plain(frame: pd.DataFrame) -> str:
    """A frame as JSON, as `in_notebook` writes it."""
    return str(frame.astype(object).where(frame.notna(), None).map(text).to_json(orient="values"))


def text(value: Any) -> str | None:
    """A value in words; lists as they are read by people."""
    if value is None:
        return None
    if isinstance(value, float | int):
        return str(float(value))
    return str([*value]) if not isinstance(value, str) and hasattr(value, "__len__") else str(value)[:10]
