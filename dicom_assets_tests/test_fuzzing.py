"""The command of every fuzzer: what fails is kept in build/fuzz alone, and the process says so by its status."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TARGET = """
from fuzz.running import run

def judge(data: bytes) -> None:
    assert {condition}

run("Fuzzes nothing.", judge, lambda rng: rng.randbytes(2), lambda data, rng: data + rng.randbytes(1), seeds=[b"seed"])
"""


def fuzzed(folder: Path, condition: str, *options: str) -> subprocess.CompletedProcess[str]:
    script = folder / "target.py"
    script.write_text(TARGET.format(condition=condition), encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, str(script), "--seconds", "1", *options]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture(params=["guided", "blind"])
def options(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "guided" and find_spec("atheris") is None:
        pytest.skip("needs atheris: pip install -e '.[fuzz]' -c constraints.txt")
    return ["--blind"] if request.param == "blind" else []


def test_an_input_that_fails_is_kept_and_nothing_else_is_written(tmp_path: Path, options: list[str]) -> None:
    assert fuzzed(tmp_path, "b'x' not in data", *options).returncode != 0
    kept = list((tmp_path / "build" / "fuzz").iterdir())
    assert kept and all(b"x" in one.read_bytes() for one in kept)
    assert {one.name for one in tmp_path.iterdir()} == {"target.py", "build"}


def test_a_run_without_a_failure_ends_well_and_keeps_none(tmp_path: Path, options: list[str]) -> None:
    done = fuzzed(tmp_path, "True", *options)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("build/fuzz/*"))


@pytest.mark.parametrize("data", [b"seed", b"found by a run before"])
def test_a_guided_run_begins_with_the_seeds_and_with_what_others_found(tmp_path: Path, data: bytes) -> None:
    pytest.importorskip("atheris", reason="needs atheris: pip install -e '.[fuzz]' -c constraints.txt")
    corpus = tmp_path / "build" / "fuzz-corpora" / "target"
    corpus.mkdir(parents=True)
    (corpus / "0").write_bytes(b"found by a run before")
    assert fuzzed(tmp_path, f"data != {data!r}").returncode != 0
    assert [one.read_bytes() for one in tmp_path.glob("build/fuzz/*")] == [data]
