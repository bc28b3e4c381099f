"""Dagster's state for runs of this process: where it lies, and opening it.

Does not belong here: running batches (`runner`), how events are kept (`event_log`).
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from dicom_assets.settings import Settings

_PROJECT_FILES = ("dagster.yaml", "workspace.yaml")
_MADE = "# Made by `dicom-assets ingest`, and made anew when this folder has moved."
_DAGSTER_YAML = """\
{made}
telemetry:
  enabled: false
nux:
  enabled: false
event_log_storage:
  module: dicom_assets.defs.event_log
  class: PooledSqliteEventLogStorage
  config:
    base_dir: {events}
# Nothing is printed by a step, and copying what might be costs four processes a run.
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""


def dagster_home(settings: Settings) -> Path:
    """Where Dagster's state lies.

    DAGSTER_HOME; else the project's folder when it is the current one; else beside the lake, in `{lake}.dagster`.
    """
    named = os.environ.get("DAGSTER_HOME")
    if named:
        return Path(named)
    here = Path.cwd()
    if all((here / name).is_file() for name in _PROJECT_FILES):
        return here
    if "://" in settings.lake:
        home = Path.home() / ".dicom-assets" / "dagster"
    else:
        lake = Path(settings.lake)
        home = lake.with_name(f"{lake.name}.dagster")
    home.mkdir(parents=True, exist_ok=True)
    _configure(home)
    return home


def _configure(home: Path) -> None:
    """Writes Dagster's configuration into a folder of ours, where there is none, or that of another place."""
    config = home / "dagster.yaml"
    events = json.dumps(str(home.resolve() / "history" / "runs"))
    text = _DAGSTER_YAML.format(made=_MADE, events=events)
    found = config.read_text(encoding="utf-8") if config.exists() else _MADE
    if found.startswith(_MADE) and found != text:
        config.write_text(text, encoding="utf-8")


def state_folders(settings: Settings) -> list[Path]:
    """The folders in which Dagster's state lies in files."""
    home = dagster_home(settings)
    return [
        home / name for name in (".dagster", "history", "schedules", "storage", "logs", "nux") if (home / name).is_dir()
    ]


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Dagster's state for this lake; to be used as a context manager, or disposed of."""
    home = dagster_home(settings)
    home.mkdir(parents=True, exist_ok=True)
    os.environ["DAGSTER_HOME"] = str(home)
    with _one_at_a_time(home):
        return dg.DagsterInstance.get()


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keeps two processes from making Dagster's tables at the same time, which fails in one of them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
