"""What is known of the sensor that picks a source's objects up, in a sentence: for whoever waits for it in vain.

Does not belong here: what the sensor does (`sensors`, `blob_events`).
"""

from datetime import UTC, datetime

import dagster as dg

from dicom_assets.settings import SourceSettings

LATE_SECONDS = 120.0
"""A daemon that was last seen longer ago than this is taken for ended."""


def sensor_of(source: SourceSettings) -> str:
    """Name of the sensor that claims what arrives at a source."""
    return "blob_events" if source.queue else "new_files"


def why_nothing_comes(instance: dg.DagsterInstance, source: SourceSettings, now: datetime | None = None) -> str:
    """What keeps a source's sensor from claiming, as far as Dagster's state tells."""
    moment = (now or datetime.now(UTC)).timestamp()
    seen = max((beat.timestamp for beat in instance.get_daemon_heartbeats().values()), default=None)
    if seen is None:
        return (
            "Is `dagster dev` running? On the state that this command sees, no daemon ever ran; "
            "DAGSTER_HOME says where it lies."
        )
    if moment - seen > LATE_SECONDS:
        return f"Is `dagster dev` running? Its daemon was last seen at {_time(seen)}."
    name = sensor_of(source)
    states = [state for state in instance.all_instigator_state() if state.name == name]
    if not states:
        return f"The daemon runs, and does not know the sensor {name}: does it load dicom_assets.definitions?"
    state = states[-1]
    if state.status.value == "STOPPED":
        return f"The sensor {name} is stopped: start it in Dagster's UI, or by `dagster sensor start {name}`."
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    if not ticks:
        return f"The sensor {name} runs, and has not ticked yet."
    tick = ticks[0]
    said = tick.error.message.strip().splitlines()[0] if tick.error else tick.skip_reason
    return f"The sensor {name} ticked last at {_time(tick.timestamp)}, {tick.status.value.lower()}" + (
        f": {said}" if said else "."
    )


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
