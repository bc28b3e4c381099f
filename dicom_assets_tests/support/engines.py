"""Engines that are not delta-rs, in an environment of their own: `make engines` makes it.

Belongs here: asking one, in a process of its own. Does not belong here: what they are asked (`engines`).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dicom_assets_tests.support.pages import ROOT

PYTHON = Path(os.environ.get("DICOM_ASSETS_ENGINES", ROOT / "build" / "engines" / "venv")) / "bin" / "python"
RUNNERS = ROOT / "dicom_assets_tests" / "engines"
NEEDED = pytest.mark.skipif(not PYTHON.exists(), reason="the engines are not installed: run `make engines`")
"""Marks tests that ask an engine."""


def run(arguments: Sequence[str | Path], given: str | None = None, cwd: Path = ROOT) -> str:
    """What a program of the engines' environment prints; fails with what it says on stderr."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DICOM_ASSETS", "PYTHONPATH"))}
    done = subprocess.run(
        [str(PYTHON), *map(str, arguments)],
        input=given,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=kept | {"TZ": "America/New_York", "PYTHONWARNINGS": "ignore"},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def asked(
    engine: str, statements: Sequence[str], queries: Mapping[str, str], cwd: Path = ROOT, tsql: Sequence[str] = ()
) -> dict[str, Any]:
    """What an engine answers. engine: spark, duckdb or clickhouse. cwd: below which the lake lies. tsql: for DuckDB."""
    given = json.dumps({"statements": [*statements], "queries": {**queries}, "tsql": [*tsql]})
    answers: dict[str, Any] = json.loads(run([RUNNERS / f"in_{engine}.py"], given, cwd).splitlines()[-1])
    wrong = [f"{name}: {one['error']}" for name, one in answers.items() if "error" in one]
    assert not wrong, "\n".join(wrong)
    return answers
