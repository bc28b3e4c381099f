"""Rules of the house: which are configured, what they find in a batch, and what becomes of what breaks them.

Belongs here: holding conditions against the columns that there are, asking them of a batch's staged rows, and changing
what is staged. Does not belong here: what a condition may say (`lake.conditions`), the rows of earlier batches
(`house_studies`), the check that holds all this against the rules once more (`checks.house_checks`).

A rule is broken where its condition is false, and kept where that is true or NULL, as a CHECK constraint of SQL: what
an object does not say breaks no rule, and a rule that asks for something says `IS NOT NULL`. Each rule is asked of
every DICOM object that the batch could read, whatever other rules say of it; deletions and clinical records are not
asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.house_studies import earlier_rows
from dicom_assets.batch.promotion import column_of
from dicom_assets.dicom.from_header import values_of
from dicom_assets.lake import column_list
from dicom_assets.lake.conditions import Condition, ConditionError, Grammar, Unasked, ask, grammar, locked
from dicom_assets.lake.database import open_alone
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.schema.codes import CODES
from dicom_assets.schema.promoted import PromotedColumn
from dicom_assets.schema.registry import FLAT_METADATA
from dicom_assets.settings import RuleSettings, Settings, SettingsError, file_name
from dicom_assets.storage.files import LakeFiles

FAILED, WARNING = "RULE_FAILED", "RULE_WARNING"
WARNING_STAGE = "rule"
ERRORS_FILE = 999_995
"""Number of the staged file that holds these errors; chunks are numbered from 0."""

GROUPS: Mapping[str, Sequence[str]] = {
    "object": (),
    "study": ("source", "study_key", "StudyInstanceUID"),
    "batch": ("batch_id",),
}
"""By level, the columns by which the rows are grouped that a condition is asked of; it may name these by themselves."""

_ALWAYS = ("batch_id", "object_id", "source", "study_key", "StudyInstanceUID")


@dataclass(frozen=True)
class HouseRule:
    """A rule whose condition is sound. promoted: the promoted columns that it names, taken from headers."""

    settings: RuleSettings
    condition: Condition
    promoted: tuple[PromotedColumn, ...] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.settings.name

    @property
    def needs(self) -> Sequence[str]:
        """The columns of flat_metadata that it is asked of, without promoted ones."""
        columns = {*_ALWAYS, *self.condition.columns} - {one.name for one in self.promoted}
        return sorted(columns | ({"header"} if self.promoted else set()))


def rules_of(settings: Settings, place: str | None = None) -> tuple[HouseRule, ...]:
    """The rules of the house, each held against the columns that there are. Raises SettingsError, ColumnError.

    place: where they come from, if not from the settings file.
    """
    if not settings.rules:
        return ()
    promoted = {one.name: one for one in (*map(column_of, settings.columns), *_promoted(settings))}
    columns = [*FLAT_METADATA.schema, *(pa.field(one.name, one.type) for one in promoted.values())]
    with grammar(pa.schema(columns)) as known:
        return tuple(
            _sound(known, one, promoted, place or f"{file_name()}: rules.{number}.condition")
            for number, one in enumerate(settings.rules)
        )


def _sound(known: Grammar, rule: RuleSettings, promoted: Mapping[str, PromotedColumn], place: str) -> HouseRule:
    try:
        found = known.condition(rule.condition, GROUPS[rule.level])
    except ConditionError as error:
        raise SettingsError(f"{place}: rule '{rule.name}' cannot be asked: {error}.") from None
    return HouseRule(rule, found, tuple(promoted[name] for name in sorted(found.columns & promoted.keys())))


def _promoted(settings: Settings) -> Iterator[PromotedColumn]:
    """The columns that are promoted in a lake that is there."""
    if "://" in settings.lake or Path(settings.lake).is_dir():
        yield from (one.column for one in column_list.read(LakeFiles(settings.lake)) if one.stage != "removing")


@dataclass(frozen=True, slots=True)
class Broken:
    """What breaks a rule. objects: of the batch, each that is concerned. groups: objects, studies or batches."""

    rule: HouseRule
    objects: frozenset[str]
    told: frozenset[str]
    """The objects by which it is told: each that is quarantined, one of each study; none for a batch as a whole."""
    groups: int


def apply_rules(lake: Lake, staging: Staging, rules: Sequence[HouseRule], run_id: str) -> Mapping[str, int]:
    """Takes what breaks a rule that quarantines out of the staged rows, and stages errors.

    Objects by outcome, when that has changed some; otherwise nothing.

    What a rule cannot be asked of stays: the check finds it once more and pauses the batch. Raises StagingMissing,
    LakeError.
    """
    if not rules:
        if staging.names(Part.REFUSED):
            staging.clear(Part.REFUSED)  # of rules that there were when the batch was run before
        return {}
    found = [one for rule in rules if (one := _broken(lake, staging, rule)) is not None]
    refused = frozenset().union(*(one.objects for one in found if one.rule.settings.effect == "quarantine"))
    _set_aside(staging, refused)
    _stage_errors(staging, found, refused, run_id)
    return Counter(staging.read_whole(Part.LEDGER, ["outcome"])["outcome"].to_pylist()) if refused else {}


def _broken(lake: Lake, staging: Staging, rule: HouseRule) -> Broken | None:
    level = rule.settings.level
    own = _own(staging)
    with locked(open_alone(lake.files)) as connection:
        connection.register("staged", _staged(staging, rule))
        try:
            if level == "object":
                found = {
                    name for (name,) in ask(connection, _OBJECTS.format(rule.condition.sql), rule.settings.seconds)
                }
                return Broken(rule, frozenset(found), frozenset(found), len(found))
            if level == "study":
                keys = _studies(lake, staging, rule, connection, own)
            else:
                keys = [*own] if ask(connection, _BATCH.format(rule.condition.sql), rule.settings.seconds) else []
        except Unasked:
            return None
    objects = frozenset(name for key in keys for name in own[key])
    told = objects if rule.settings.effect == "quarantine" else frozenset(min(own[key]) for key in keys)
    if level == "batch":
        return Broken(rule, objects, told if rule.settings.effect == "quarantine" else frozenset(), bool(keys))
    return Broken(rule, objects, told, len(keys))


_OBJECTS = "SELECT object_id FROM staged WHERE NOT (\n{}\n)"
_BATCH = "SELECT batch_id FROM staged GROUP BY batch_id HAVING NOT (\n{}\n)"
_STUDIES = f"""
SELECT study_key FROM (SELECT * FROM staged UNION ALL BY NAME SELECT * FROM earlier)
GROUP BY {", ".join(GROUPS["study"])} HAVING NOT (\n{{}}\n)
"""


def _studies(
    lake: Lake,
    staging: Staging,
    rule: HouseRule,
    connection: duckdb.DuckDBPyConnection,
    own: Mapping[str, Sequence[str]],
) -> list[str]:
    """Studies of the batch, with what earlier batches have brought of them, that break a rule."""
    if not own:
        return []
    rows = earlier_rows(lake, staging, sorted(own), rule.needs)
    connection.register("earlier", _with_promoted(rows, rule))
    return [key for (key,) in ask(connection, _STUDIES.format(rule.condition.sql), rule.settings.seconds)]


def _own(staging: Staging) -> Mapping[str, Sequence[str]]:
    """By study, the objects of the batch that rules are asked of."""
    found: dict[str, list[str]] = defaultdict(list)
    for batch in staging.batches(Part.FLAT, ["object_id", "study_key", "operation"]):
        rows = _upserts(batch)
        for key, name in zip(rows["study_key"].to_pylist(), rows["object_id"].to_pylist(), strict=True):
            found[key].append(name)
    return found


def _upserts(rows: pa.RecordBatch) -> pa.RecordBatch:
    return rows.filter(pc.equal(rows["operation"], "upsert"))


def _staged(staging: Staging, rule: HouseRule) -> pa.RecordBatchReader:
    """The staged rows in the columns that a rule is asked of, one batch after the other."""
    columns = [*dict.fromkeys([*rule.needs, "operation"])]
    schema = pa.schema([SCHEMAS[Part.FLAT].field(name) for name in columns])
    rows = pa.RecordBatchReader.from_batches(schema, map(_upserts, staging.batches(Part.FLAT, columns)))
    return _with_promoted(rows, rule)


def _with_promoted(rows: pa.RecordBatchReader, rule: HouseRule) -> pa.RecordBatchReader:
    """Rows with the promoted columns of a rule, as headers say them."""
    if not rule.promoted:
        return rows
    schema = pa.schema([*rows.schema, *(pa.field(one.name, one.type) for one in rule.promoted)])

    def completed() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, *values_of(batch["header"], rule.promoted)], schema=schema
            )

    return pa.RecordBatchReader.from_batches(schema, completed())


def _set_aside(staging: Staging, refused: frozenset[str]) -> None:
    """Quarantines objects in the staged ledger, and moves their rows to a part of their own."""
    ids = pa.array(sorted(refused), pa.string())
    staging.clear(Part.REFUSED)
    if refused:
        for name in staging.names(Part.LEDGER):
            rows = staging.file_rows(Part.LEDGER, name)
            hit = pc.is_in(rows["object_id"], value_set=ids)
            for column, value in (("outcome", str(CODES[FAILED].outcome)), ("code", FAILED)):
                place = rows.schema.get_field_index(column)
                rows = rows.set_column(place, rows.schema.field(place), pc.if_else(hit, value, rows[column]))
            staging.put(Part.LEDGER, _number(name), rows)
        _move(staging, ids)
    staging.complete_as_it_is(Part.REFUSED)


def _move(staging: Staging, ids: pa.Array) -> None:
    for name in staging.names(Part.FLAT):
        rows = staging.file_rows(Part.FLAT, name)
        hit = pc.is_in(rows["object_id"], value_set=ids)
        if pc.any(hit).as_py():
            staging.put(Part.REFUSED, _number(name), rows.filter(hit))
            staging.put(Part.FLAT, _number(name), rows.filter(pc.invert(hit)))
    staging.complete_as_it_is(Part.FLAT)
    for name in staging.names(Part.ERRORS):  # of an object that is kept out the one reason is told
        rows = staging.file_rows(Part.ERRORS, name)
        stays = pc.invert(pc.and_(pc.is_in(rows["object_id"], value_set=ids), pc.equal(rows["stage"], "read")))
        staging.put(Part.ERRORS, _number(name), rows.filter(stays))


def _number(name: str) -> int:
    return int(name.rpartition("/")[2].removesuffix(".arrow"))


def _stage_errors(staging: Staging, found: Iterable[Broken], refused: frozenset[str], run_id: str) -> None:
    """One row for each object that is told, and one for the batch; with all rules that it breaks, in their order."""
    told: dict[str, list[HouseRule]] = defaultdict(list)
    for one in found:
        for name in one.told:
            told[name].append(one.rule)
        if one.groups and not one.told:
            told[""].append(one.rule)
    if told:
        raw = staging.read(Part.RAW, ["object_id", "uri", "member"]).to_pylist()
        places = {row["object_id"]: row for row in raw if row["object_id"] in told}
        rows = [
            _error(staging.batch_id, name, rules, name in refused, places.get(name, {}), run_id)
            for name, rules in sorted(told.items())
        ]
        staging.put(Part.ERRORS, ERRORS_FILE, pa.Table.from_pylist(rows, schema=SCHEMAS[Part.ERRORS]))
    staging.complete_as_it_is(Part.ERRORS)


def _error(
    batch_id: str, name: str, rules: Sequence[HouseRule], is_refused: bool, place: Mapping[str, Any], run_id: str
) -> dict[str, Any]:
    code = CODES[FAILED if is_refused else WARNING]
    return {
        "batch_id": batch_id,
        "object_id": name,
        "stage": "read" if is_refused else WARNING_STAGE,
        "code": code.name,
        "record": 0,
        "severity": str(code.severity),
        "detail": "; ".join(_told(one.settings) for one in rules),
        "uri": place.get("uri"),
        "member": place.get("member"),
        "occurred_at": datetime.now(UTC),
        "run_id": run_id,
        "rules": [one.name for one in rules],
    }


def _told(rule: RuleSettings) -> str:
    of = {"object": "", "study": " of its study", "batch": " of its batch"}[rule.level]
    return f"rule {rule.name} does not hold{of}" + (f": {rule.message}" if rule.message else "")
