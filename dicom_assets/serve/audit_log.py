"""The audit log: who asked for what kind of thing, when, and what came of it; and who saw a patient.

Belongs here: its lines, its digests, and finding lines by patient or study. Does not belong here: how lines get into a
file (`line_log`), who asks (`access`).

A line holds no UID and no identifier. Where a key is set, it holds digests (HMAC-SHA256) of the studies and patients
that were asked for or shown: whoever has the key can tell whether somebody whom they know is meant, and nobody can read
off who that is.
"""

from __future__ import annotations

import hashlib
import hmac
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from dicom_assets.lake.quoting import one_of
from dicom_assets.sections import SettingsError
from dicom_assets.serve.exchange import Exchange
from dicom_assets.serve.line_log import LineLog
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.served import ServedLake
from dicom_assets.serve_settings import ServeSettings

SHORTEST_KEY = 16
"""Characters of a key."""

KNOWN = 10_000
"""Studies whose patients are remembered."""

SHOWN = 1_000
"""Studies whose patients are asked for at once."""

Key = bytes
Patients = Callable[[list[str]], Awaitable[dict[str, list[str]]]]
"""Patient IDs by study, for studies that the lake has."""


def key_of(settings: ServeSettings, environment: Mapping[str, str]) -> Key | None:
    """The key of digests; None without one. Raises SettingsError."""
    variable = settings.audit.key_variable
    if variable is None:
        return None
    value = environment.get(variable, "").strip()
    if len(value) < SHORTEST_KEY:
        raise SettingsError(
            f"serve.audit: the environment variable {variable} must hold a key of at least {SHORTEST_KEY} characters; "
            "`openssl rand -hex 32` makes one."
        )
    return value.encode()


def digest(key: Key, kind: str, value: str) -> str:
    """What stands in the log for a study or a patient. kind: study or patient."""
    return hmac.new(key, f"{kind}\0{value.strip()}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


def place_of(settings: ServeSettings) -> str:
    """Where the log is written."""
    wanted = settings.audit.file
    return ("-" if settings.is_controlled else "") if wanted is None else wanted


class Audit:
    """The log of one process. Raises SettingsError where it cannot be written."""

    def __init__(self, settings: ServeSettings, key: Key | None, patients: Patients) -> None:
        """patients: asked once for each study, as long as it is remembered."""
        self._log = LineLog(place_of(settings))
        self._key, self._patients = key, patients
        self._known: OrderedDict[str, list[str]] = OrderedDict()

    @property
    def names_studies(self) -> bool:
        """Whether studies that an answer shows are to be told."""
        return self._key is not None and self._log.is_on

    def check(self) -> None:
        """Raises Refusal (503) while lines cannot be written: what nobody could account for is not shown."""
        if self._log.is_waiting:
            try:
                self._log.catch_up()
            except OSError:
                raise Refusal(503, "The audit log cannot be written.", {"Retry-After": "60"}) from None

    async def write(self, exchange: Exchange) -> None:
        """Adds the line of a request that has ended."""
        if not self._log.is_on:
            return
        line: dict[str, Any] = {
            "log": "audit",
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "who": exchange.caller.name,
            "kind": exchange.caller.kind,
            "method": exchange.method,
            "what": exchange.route,
            "source": exchange.source,
            "status": exchange.status,
            "broken": exchange.is_broken,
            "request": exchange.request_id,
        }
        if self._key is not None:
            studies = sorted(exchange.studies)
            line["studies"] = [digest(self._key, "study", one) for one in studies]
            line["patients"] = await self._of_patients(self._key, studies)
        try:
            self._log.write(line)
        except OSError as error:
            print(f"dicom-assets: the audit log cannot be written: {error.strerror}.", file=sys.stderr, flush=True)

    async def _of_patients(self, key: Key, studies: list[str]) -> list[str] | None:
        """Digests of the patients of studies; None while the lake cannot tell."""
        unknown = [one for one in studies if one not in self._known]
        found: dict[str, list[str]] = {}
        try:
            for start in range(0, len(unknown), SHOWN):
                found |= await self._patients(unknown[start : start + SHOWN])
        except Refusal:
            return None
        mine = {one: [digest(key, "patient", patient) for patient in found[one]] for one in unknown if one in found}
        together = {one for study in studies for one in mine.get(study, self._known.get(study, []))}
        self._known.update(mine)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return sorted(together)

    def close(self) -> None:
        """Closes the file."""
        self._log.close()


def patients_of(served: ServedLake) -> Patients:
    """Asks the lake for the patients of studies, whoever may see them."""

    def ask(studies: list[str]) -> dict[str, list[str]]:
        snapshot = served.snapshot()
        found: dict[str, list[str]] = {}
        with snapshot.cursor() as connection:
            rows = connection.execute(
                f"SELECT StudyInstanceUID, PatientID FROM {snapshot.scan('study')} "
                f"WHERE StudyInstanceUID IN ({one_of(studies)})"
            ).fetchall()
        for study, patient in rows:
            found.setdefault(study, []).extend([patient] if patient else [])
        return found

    async def patients(studies: list[str]) -> dict[str, list[str]]:
        return await served.ask(lambda: ask(studies)) if studies else {}

    return patients


def lines_about(files: Iterable[Path], digests: set[str]) -> Iterator[dict[str, Any]]:
    """The lines of audit logs in which one of some digests stands. Raises SettingsError for a file that is none."""
    for path in files:
        try:
            with path.open("rb") as lines:
                for number, text in enumerate(lines, 1):
                    if text.strip():
                        yield from _about(text, digests, f"{path}, line {number}")
        except OSError as error:
            raise SettingsError(f"The audit log {path} cannot be read: {error.strerror}.") from None


def _about(text: bytes, digests: set[str], where: str) -> Iterator[dict[str, Any]]:
    try:
        line = orjson.loads(text)
    except orjson.JSONDecodeError:
        print(f"{where} is torn and passed over.", file=sys.stderr)
        return
    if isinstance(line, dict) and digests & {*(line.get("studies") or ()), *(line.get("patients") or ())}:
        yield line
