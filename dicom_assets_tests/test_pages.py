"""What README and docs show works: SQL, commands and settings are run, or are named here with what they need.

A block or command that is new fails until it is run or listed.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

import dicom_assets
from dicom_assets.cli.main import app
from dicom_assets.settings import load
from dicom_assets_tests.support.pages import ROOT, Block, blocks, spoken_commands

SHOWN = ("text", "mermaid", "yaml")
"""Languages of blocks that show something and ask for nothing."""

OTHER_SQL = {
    "docs/omop.md: CREATE TABLE image_occurrence (": "the DDL of another database; omop/test_ddl.py compares it",
}

OTHER_PYTHON = {
    "docs/scale.md: from dask_jobqueue import SLURMCluster  # or dask_kubernetes.operator.KubeCluster": "a cluster",
}

NOT_RUN = {
    "python3 -m venv": "makes the environment that the tests run in",
    "pip install": "changes that environment; deploy/test_deploy.py compares what is pinned",
    "docker ": "builds images; deploy/test_deploy.py reads the compose file",
    "kubectl ": "needs a cluster; deploy/test_deploy.py reads the values",
    "helm ": "needs a cluster; deploy/test_deploy.py reads the values",
    "az ": "needs an Azure account",
    "AZCOPY_AUTO_LOGIN_TYPE=MSI deploy/azure/copy-share.sh": "needs an Azure account; azure/test_copying_in.py runs it",
    ".venv/bin/pytest": "the tests themselves",
    "python ../shared/": "judges that are no part of the project",
    "dicom-assets ingest --landing az:": "needs an Azure account; azure/ talks to its emulator",
    "dicom-assets sql --lake az:": "needs an Azure account; azure/ talks to its emulator",
    **{
        f"dicom-assets engines {engine} --lake az:": "needs an Azure account; engines/test_scripts.py has one"
        for engine in ("synapse", "fabric", "databricks", "adx")
    },
    "dicom-assets ingest --landing ../shared/": "files that are no part of the project",
    "dicom-assets batch ": "needs a batch that waits; test_batch_commands.py has one",
    "dicom-assets alerts ": "needs somebody to tell; monitoring/test_alerts.py has them",
    "dicom-assets audit pacs": "needs a DICOM service; service/test_audit.py talks to one",
    "dicom-assets repair pacs": "needs a DICOM service; service/test_audit.py talks to one",
    "dg launch --job": "needs a project; defs/test_dg.py has one",
    "dicom-assets ui": "stays; daemon/test_running_system.py has it in a browser",
    "dicom-assets selftest": "needs a running system; daemon/test_running_system.py has one",
    "dicom-assets backup": "writes beside the folder; backup/test_drill.py takes some",
    "dicom-assets restore": "as before",
    "dicom-assets verify --lake ../drill": "as before",
    "dicom-assets ingest --lake ../drill": "as before",
    "dicom-assets status --lake ../drill": "as before",
    "dicom-assets erase": "erases; erasure/test_command.py runs it",
    "dicom-assets forward": "needs a DICOM service; service/test_forwarding.py talks to one",
    "dicom-assets serve": "answers until it is ended; serve/test_server.py talks to it",
    "dicom-assets viewer": "fetches a package, into a folder of the user; serve/test_ohif.py does",
    "npm pack": "as before",
    "dicom-assets who-saw": "needs an audit log; serve/test_logs.py has one",
    **{
        f"dicom-assets cohort {one} ": "needs a cohort; curation/test_cohorts.py has one"
        for one in ("show", "verify", "export", "remove")
    },
    "curl ": "asks a server; serve/ does",
    "dicom-assets push DIR": "needs a DICOM service; service/test_push.py talks to one",
}
"""Beginnings of commands that are not run, and why. Options of ours are looked up all the same."""

PLACES = {"/mnt/pacs-export": "data/landing", "/srv/lake": "data/lake"}
"""Where the folders of examples lie in the test."""


def named(block: Block) -> str:
    return block.name.replace("/", "|")


def _commands() -> list[tuple[Block, str]]:
    return [(block, one) for block in blocks("sh") for one in block.commands]


def _is_listed(line: str) -> bool:
    return any(line.startswith(beginning) for beginning in NOT_RUN)


_DAGSTER = re.compile(r"(\w+=\S+ )?dagster(-daemon)? ")
OURS = {line: block for block, line in _commands() if line.startswith("dicom-assets ") and not _is_listed(line)}
"""Commands that are run, each once, and a block that shows it."""
ALL_OURS = sorted({line for _, line in [*_commands(), *spoken_commands()] if line.startswith("dicom-assets ")})
OF_DAGSTER = sorted({line for _, line in [*_commands(), *spoken_commands()] if _DAGSTER.match(line)})
TARGETS = sorted({line for _, line in [*_commands(), *spoken_commands()] if line.startswith("make ")})


def test_every_block_has_a_language_that_is_known_here():
    assert {one.language for one in blocks()} <= {*SHOWN, "sql", "sh", "toml", "python"}


def test_every_command_of_a_block_is_run_looked_up_or_listed():
    known = ("dicom-assets ", "make ", "export ", "cp ")
    unknown = [
        f"{block.page}:{block.line}: {line}"
        for block, line in _commands()
        if not line.startswith(known) and line not in OF_DAGSTER and not _is_listed(line) and ". .venv" not in line
    ]
    assert unknown == []


def test_nothing_is_listed_that_is_not_shown():
    lines = [line for _, line in _commands()]
    assert [one for one in NOT_RUN if not any(line.startswith(one) for line in lines)] == []
    names = {one.name for one in blocks("sql", "python")}
    assert {*OTHER_SQL, *OTHER_PYTHON} <= names


def without_configuration(patch: pytest.MonkeyPatch) -> None:
    """Takes away what would lead a command to another lake or state."""
    for name in [name for name in os.environ if name.startswith(("DAGSTER_", "DICOM_ASSETS_"))]:
        patch.delenv(name)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's input and the lake that was made of it, where the project has them."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "data/queries", folder / "data/queries")
    mask = os.umask(0o022)  # the command sets another one for its process
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        without_configuration(patch)
        for arguments in (["demo", "data/landing"], ["ingest"]):
            done = CliRunner().invoke(app, arguments)
            assert done.exit_code == 0, done.output
    os.umask(mask)
    window = folder / "data/changes/pacs/2026/03/01/a.ndjson.zst"
    window.parent.mkdir(parents=True)
    with pa.output_stream(str(window), compression="zstd") as sink:
        sink.write(b'{"window": "x"}\n{"sequence": 1, "action": "create", "state": "current"}\n')
    return folder


STATEMENTS = [
    pytest.param(text, id=f"{named(block)} {number}")
    for block in blocks("sql")
    if block.name not in OTHER_SQL
    for number, text in enumerate(filter(str.strip, block.text.split(";")), 1)
]


@pytest.fixture(scope="module")
def demo_lake(demo: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The demo's lake, opened once for all statements."""
    with chdir(demo), dicom_assets.connect("data/lake") as connection:
        yield connection


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_can_be_run_on_the_demo(
    statement: str, demo: Path, demo_lake: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(demo)
    if "read_json" in statement:
        with duckdb.connect() as connection:
            connection.execute(statement).fetchall()
    else:
        demo_lake.execute(statement).fetchall()


@pytest.mark.parametrize("block", blocks("toml"), ids=named)
def test_settings_of_a_page_can_be_loaded(block: Block, tmp_path: Path):
    (tmp_path / "dicom-assets.toml").write_text(block.text)
    load(environment={"DICOM_ASSETS_CONFIG": str(tmp_path / "dicom-assets.toml")})


@pytest.mark.parametrize("block", [one for one in blocks("python") if one.name not in OTHER_PYTHON], ids=named)
def test_python_of_a_page_runs(block: Block, demo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(demo)
    exec(compile(block.text, block.name, "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("line", OURS, ids=[f"{block.page}: {line}".replace("/", "|") for line, block in OURS.items()])
def test_a_command_of_a_page_succeeds_on_the_demo(line: str, demo: Path, monkeypatch: pytest.MonkeyPatch):
    """In this process: `test_cli` runs real ones, and each would import everything anew, 1.5 s of processor time."""
    for place, here in PLACES.items():
        line = line.replace(place, here)
    line, _, file = line.partition(" < ")
    _, *arguments = shlex.split(line)
    monkeypatch.chdir(demo)
    without_configuration(monkeypatch)
    if arguments[0] == "reread" and "--where" in arguments:
        arguments.append("--plan")  # finds what it would read; with a reason code it is read
    done = CliRunner().invoke(app, arguments, input=Path(file).read_text(encoding="utf-8") if file else None)
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def whole_command() -> Any:
    """The command `dicom-assets`, put together once."""
    return typer.main.get_command(app)


@pytest.mark.parametrize("line", ALL_OURS)
def test_command_and_options_of_ours_exist(line: str, whole_command: Any):
    found = whole_command
    _, *words = shlex.split(line.partition(" < ")[0])
    while words and words[0] in getattr(found, "commands", {}):
        found = found.commands[words.pop(0)]
    assert not hasattr(found, "commands"), "no such command"
    assert set(_options(words)) <= {option for one in found.params for option in (*one.opts, *one.secondary_opts)}


def _options(words: list[str]) -> Iterator[str]:
    return (word.split("=")[0] for word in words if re.match(r"--?\w", word))


@pytest.mark.parametrize("line", OF_DAGSTER)
def test_command_and_options_of_dagster_exist(line: str, monkeypatch: pytest.MonkeyPatch, capsys):
    """Dagster's own help, from the program that its package installs, says which options a command has."""
    program, *words = shlex.split(re.sub(r"^\w+=\S+ ", "", line))
    path = []
    while words and not words[0].startswith("-"):
        path.append(words.pop(0))
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=program)
    monkeypatch.setattr("sys.argv", [program, *path, "--help"])
    with pytest.raises(SystemExit) as ended:
        entry.load()()
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert [option for option in _options(words) if not re.search(rf"(?<![\w-]){option}(?![\w-])", text)] == []


@pytest.mark.parametrize("line", TARGETS)
def test_targets_of_make_exist(line: str):
    rules = re.findall(r"^([\w -]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    there = {target for rule in rules for target in rule.split()}
    wanted = {word for word in line.split()[1:] if "=" not in word}
    assert wanted <= there


def test_files_that_are_copied_are_there():
    copied = [line.split()[1] for _, line in _commands() if line.startswith("cp ")]
    assert copied
    assert [name for name in copied if not (ROOT / name).is_file()] == []
