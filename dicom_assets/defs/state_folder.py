"""The folder of Dagster's state: where it lies, whose it is, and what is written into it.

Does not belong here: opening it (`instance`), and Dagster itself, whose import takes longer than all of this.
"""

import errno
import hashlib
import json
import os
from pathlib import Path

from dicom_assets.settings import Settings, SettingsError, load

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
# For `dicom-assets ui`, as in the project's own dagster.yaml.
concurrency:
  runs:
    max_concurrent_runs: 2
    tag_concurrency_limits:
      - key: dicom_assets/changes
        value: window
        limit: 1
  pools:
    granularity: run
run_monitoring:
  enabled: true
  start_timeout_seconds: 180
  poll_interval_seconds: 30
  free_slots_after_run_end_seconds: 60
"""
WORKSPACE = """\
load_from:
  - python_module:
      module_name: dicom_assets.definitions
      location_name: dicom_assets
"""
"""What `dagster dev` loads in a state of ours; the location's name is the one that runs of `ingest` are told under."""
CHOSEN = "DICOM_ASSETS_DAGSTER_HOME"
"""In the environment, the DAGSTER_HOME that was chosen here and not by whoever runs this."""
_OWNER = ".dicom-assets-lake"
"""The file in a state that says which lake's it is: batches of two lakes in one state would be run in either."""


def dagster_home(settings: Settings) -> Path:
    """Where Dagster's state lies.

    DAGSTER_HOME; else the project's folder when it is the current one, for the lake that is configured there; else
    beside the lake, in `{lake}.dagster`, or for a lake in a container in the user's home. Raises SettingsError when
    DAGSTER_HOME is another lake's, or the folder cannot be made.
    """
    lake = _address(settings)
    named = os.environ.get("DAGSTER_HOME")
    if named and named != os.environ.get(CHOSEN):
        return _own(Path(named), lake)
    here = Path.cwd()
    if all((here / name).is_file() for name in _PROJECT_FILES):
        owner = _owner(here)
        if owner == lake or (owner is None and lake == _address(load())):
            return here
    if "://" in lake:
        states = Path.home() / ".dicom-assets"
        home = states / "dagster"  # that of releases that had one for all lakes
        if not home.is_dir() or _owner(home) not in (None, lake):
            home = states / f"dagster-{hashlib.sha256(lake.encode()).hexdigest()[:12]}"
    else:
        home = Path(settings.lake).with_name(f"{Path(settings.lake).name}.dagster")
    try:
        home.mkdir(parents=True, exist_ok=True)
        _configure(home)
    except OSError as error:
        raise SettingsError(
            f"Dagster's state cannot lie in {home} ({error.strerror}). Set DAGSTER_HOME to a folder that may be "
            "written."
        ) from None
    return home


def require_own_state(settings: Settings) -> None:
    """Raises SettingsError when DAGSTER_HOME is another lake's state; for whoever Dagster has started."""
    named = os.environ.get("DAGSTER_HOME")
    if named and Path(named).is_dir():
        enter(_own(Path(named), _address(settings)), settings)


def _address(settings: Settings) -> str:
    return settings.lake if "://" in settings.lake else os.path.realpath(settings.lake)


def _owner(home: Path) -> str | None:
    """The lake that a state belongs to; None when no lake has entered itself."""
    try:
        return (home / _OWNER).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def _own(home: Path, lake: str) -> Path:
    owner = _owner(home)
    if owner not in (None, lake):
        raise SettingsError(
            f"Dagster's state in {home} is that of the lake {owner}, and this is {lake}: batches of both would be run "
            f"in either. Set DAGSTER_HOME to another folder or unset it; if the lake has moved, delete {home / _OWNER}."
        )
    return home


def enter(home: Path, settings: Settings) -> None:
    """Writes down whose state it is. Where nothing may be written (a folder that is deployed) it stays nobody's."""
    if _owner(home) != _address(settings):
        try:
            (home / _OWNER).write_text(_address(settings) + "\n", encoding="utf-8")
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise


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
