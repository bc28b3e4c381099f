"""The rules of the house, asked of a batch once more: what was done about what breaks them, and whether it goes on.

Belongs here: the same answer as `house_rules` gives, by queries of its own over the rows that are staged and those that
were set aside; and what a batch does by it: nothing, warn, or pause. Does not belong here: what a condition may say
(`lake.conditions`), what becomes of an object (`house_rules`, which is judged here).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.books import Decision, books_of
from dicom_assets.batch.checks.contract import SHOWN, CheckContext, CheckResult, NamedRule
from dicom_assets.batch.house_rules import HouseRule, rules_of
from dicom_assets.dicom.from_header import values_of
from dicom_assets.lake.conditions import Unasked, ask, locked
from dicom_assets.lake.database import open_alone
from dicom_assets.lake.query import connect
from dicom_assets.lake.staging import SCHEMAS, Part
from dicom_assets.lake.studies import study_scope
from dicom_assets.schema.codes import ABSENT

_KEYS = ("batch_id", "object_id", "source", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "study_key",
         "operation")  # fmt: skip

_GRAIN = {
    "object": "object_id",
    "study": "source, StudyInstanceUID, study_key",
    "batch": "batch_id",
}

_ASKED = """
-- the objects of the batch that are concerned where a condition is false, each with what it was asked of
WITH answers AS (
    SELECT {grain}, (\n{condition}\n) AS is_kept FROM {rows} GROUP BY {group}
)
SELECT object_id, {shown} FROM objects JOIN answers USING ({grain}) WHERE is_kept = false
"""

_OF_OBJECTS = """
SELECT object_id, object_id FROM (SELECT object_id, (\n{condition}\n) AS is_kept FROM rows_of_batch)
WHERE is_kept = false
"""

_BEFORE = """
-- what was there of these studies when the batch was claimed: no newer arrival of the same instance, or at its place
WITH known AS (
    SELECT * FROM flat_metadata WHERE ingested_at < $claimed AND batch_id <> {batch}
)
SELECT {columns} FROM known AS one
WHERE operation <> 'delete'
    AND NOT EXISTS (
        SELECT 1 FROM known AS other
        WHERE (other.source, other.study_key, other.SeriesInstanceUID, other.SOPInstanceUID)
            = (one.source, one.study_key, one.SeriesInstanceUID, one.SOPInstanceUID)
            AND (other.version_at, other.sequence, other.object_id) > (one.version_at, one.sequence, one.object_id)
            AND NOT EXISTS (SELECT 1 FROM arrived WHERE {other_place})
    )
    AND NOT EXISTS (SELECT 1 FROM arrived WHERE {one_place})
    AND (source, study_key, SeriesInstanceUID, SOPInstanceUID) NOT IN (
        SELECT (source, study_key, SeriesInstanceUID, SOPInstanceUID) FROM own
    )
"""
_PLACE = (
    "arrived.source = {0}.source AND arrived.uri = {0}.uri AND coalesce(arrived.member, '') = coalesce({0}.member, '') "
    "AND arrived.claimed_at > {0}.ingested_at AND {0}.version_text IS NULL"
)


@dataclass
class _Answers:
    """What rules say of a batch. by_object: the rules that an object breaks. told: those by which it is told."""

    by_object: dict[str, list[HouseRule]] = field(default_factory=dict)
    told: dict[str, list[HouseRule]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    unasked: list[tuple[HouseRule, str]] = field(default_factory=list)

    def enter(self, rule: HouseRule, hits: Sequence[tuple[str, str]]) -> None:
        """Enters what breaks a rule: objects, each with the object, study or batch that is concerned."""
        groups: dict[str, list[str]] = {}
        for name, group in hits:
            self.by_object.setdefault(name, []).append(rule)
            groups.setdefault(group, []).append(name)
        self.counts[rule.name] = len(groups)
        for names in groups.values():
            told = names if rule.settings.effect == "quarantine" else [min(names)]
            if rule.settings.level == "batch" and rule.settings.effect != "quarantine":
                told = [""]
            for name in told:
                self.told.setdefault(name, []).append(rule)

    @property
    def refused(self) -> set[str]:
        """The objects that must not get into the lake."""
        return {
            name
            for name, rules in self.by_object.items()
            if any(rule.settings.effect == "quarantine" for rule in rules)
        }


def house_rules_hold(context: CheckContext) -> CheckResult:
    """What breaks a rule of the house is kept out or told, as the rule says, and nothing that pauses is broken."""
    rules = rules_of(context.settings)
    if not rules:
        return CheckResult(True, 0, 0)
    answers = _asked(context, rules)
    differing = _differing(context, answers)
    if differing and not any(rule.settings.effect == "quarantine" for rule, _ in answers.unasked):
        words = f"What breaks the rules of the house, and what was done about it, differ in {len(differing)} objects"
        return CheckResult(False, 0, len(differing), differing[:SHOWN], words)
    return _decided(context, rules, answers)


def _decided(context: CheckContext, rules: Sequence[HouseRule], answers: _Answers) -> CheckResult:
    unasked = {rule.name: why for rule, why in answers.unasked}
    known = books_of(context.lake, context.staging.batch_id)
    accepted = known is not None and known.decision == Decision.ACCEPTED
    said, warns, stops = [], False, False
    for rule in rules:
        effect, count = rule.settings.effect, answers.counts.get(rule.name, 0)
        if rule.name in unasked:
            said.append(f"Rule {rule.name} ({effect}): {unasked[rule.name]}")
        elif count:
            unit = {"object": "objects", "study": "studies", "batch": "batch"}[rule.settings.level]
            said.append(f"Rule {rule.name} ({effect}) does not hold of {count} {unit}")
        else:
            continue
        is_waved = effect == "warn" or (accepted and effect == "pause")
        stops |= not is_waved and (effect == "pause" or rule.name in unasked)
        warns |= is_waved
    broken = sum(answers.counts.values()) + len(unasked)
    shown = sorted(answers.by_object)[:SHOWN]
    if accepted and known is not None:
        said.append(f"It was accepted by {known.decided_by}")
    return CheckResult(not (stops or warns), 0, broken, shown, "; ".join(said), only_warns=not stops)


def _differing(context: CheckContext, answers: _Answers) -> list[str]:
    """Objects that were refused, set aside, or told otherwise than the rules say."""
    staging = context.staging
    ledger = staging.read_whole(Part.LEDGER, ["object_id", "outcome", "code"])
    failed = ledger.filter(pc.equal(ledger["code"], "RULE_FAILED"))["object_id"].to_pylist()
    raw = staging.read(Part.RAW, ["object_id", "verdict"])
    absent = pc.fill_null(pc.is_in(raw["verdict"], value_set=pa.array(sorted(ABSENT))), False)
    unread = set(raw.filter(absent)["object_id"].to_pylist())  # as an earlier run of the batch refused them
    aside = set(staging.read_whole(Part.REFUSED, ["object_id"])["object_id"].to_pylist())
    wrong = {name for name in set(failed) ^ answers.refused if name not in unread} | (aside ^ answers.refused)
    expected = {
        (name, "RULE_FAILED" if name in answers.refused else "RULE_WARNING", tuple(rule.name for rule in rules))
        for name, rules in answers.told.items()
    }
    errors = staging.read_whole(Part.ERRORS, ["object_id", "code", "rules"]).to_pylist()
    unasked = {rule.name for rule, _ in answers.unasked}
    told = {
        (row["object_id"], row["code"], names)
        for row in errors
        if row["code"] in ("RULE_FAILED", "RULE_WARNING") and row["object_id"] not in unread
        if (names := tuple(name for name in row["rules"] or () if name not in unasked))
    }
    return sorted(wrong | {name or staging.batch_id for name, _, _ in expected ^ told})


def _asked(context: CheckContext, rules: Sequence[HouseRule]) -> _Answers:
    answers = _Answers()
    for rule in rules:
        with locked(open_alone(context.lake.files)) as connection:
            connection.register("rows_of_batch", _read(context, rule))
            connection.register("objects", _objects(context))
            try:
                answers.enter(rule, _hits(context, rule, connection))
            except Unasked as error:
                answers.unasked.append((rule, str(error)))
    return answers


def _hits(context: CheckContext, rule: HouseRule, connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    level, condition, seconds = rule.settings.level, rule.condition.sql, rule.settings.seconds
    if level == "object":
        return [(one, other) for one, other in ask(connection, _OF_OBJECTS.format(condition=condition), seconds)]
    rows = "rows_of_batch"
    if level == "study":
        connection.register("rows_before", _before(context, rule))
        rows = "(FROM rows_of_batch UNION ALL BY NAME FROM rows_before)"
    grain = _GRAIN[level]
    shown = "study_key" if level == "study" else "batch_id"
    sql = _ASKED.format(grain=grain, group=grain, condition=condition, rows=rows, shown=shown)
    return [(one, other) for one, other in ask(connection, sql, seconds)]


def _columns(rule: HouseRule) -> list[str]:
    """The columns of flat_metadata that a rule is asked of."""
    of_headers = {one.name for one in rule.promoted}
    more = sorted(rule.condition.columns - of_headers - {*_KEYS, "header"})
    return [*_KEYS, *more, *(["header"] if of_headers or "header" in rule.condition.columns else ())]


def _objects(context: CheckContext) -> pa.Table:
    """What the batch has read, in the columns that name studies and instances."""
    parts = (context.staging.read(part, [*_KEYS]) for part in (Part.FLAT, Part.REFUSED))
    found = pa.concat_tables(parts)
    return found.filter(pc.not_equal(found["operation"], "delete"))


def _read(context: CheckContext, rule: HouseRule) -> pa.RecordBatchReader:
    """What the batch has read: rows that are staged, and those that were set aside; to be run through once."""
    columns = _columns(rule)
    schema = pa.schema([SCHEMAS[Part.FLAT].field(name) for name in columns])
    batches = (one for part in (Part.FLAT, Part.REFUSED) for one in context.staging.batches(part, columns))
    return pa.RecordBatchReader.from_batches(_schema(schema, rule), _seen(batches, rule))


def _schema(schema: pa.Schema, rule: HouseRule) -> pa.Schema:
    """The columns in which a rule is asked: promoted ones in place of the headers that they come from."""
    fields = [one for one in schema if one.name != "header" or "header" in rule.condition.columns]
    return pa.schema([*fields, *(pa.field(one.name, one.type) for one in rule.promoted)])


def _seen(batches: Iterable[pa.RecordBatch], rule: HouseRule) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        rows = batch.filter(pc.not_equal(batch["operation"], "delete"))
        taken = values_of(rows["header"], rule.promoted) if rule.promoted else []
        named: Mapping[str, pa.Array] = dict(zip((one.name for one in rule.promoted), taken, strict=True))
        schema = _schema(rows.schema, rule)
        yield pa.RecordBatch.from_arrays(
            [named.get(one.name, _column(rows, one.name)) for one in schema], schema=schema
        )


def _column(rows: pa.RecordBatch, name: str) -> pa.Array | None:
    return rows[name] if name in rows.schema.names else None


def _before(context: CheckContext, rule: HouseRule) -> pa.Table:
    """What earlier batches have brought of the studies of the batch."""
    staging = context.staging
    own = pa.concat_tables([staging.read(part, [*_KEYS]) for part in (Part.FLAT, Part.REFUSED)])
    keys = own["study_key"].unique().to_pylist()
    scope = dict(study_scope(context.lake, ["flat_metadata"], keys))
    columns = _columns(rule)
    claimed = pc.min(staging.read(Part.RAW, ["claimed_at"])["claimed_at"]).as_py()
    fields = [SCHEMAS[Part.FLAT].field(name).with_nullable(True) for name in columns]
    with connect(context.lake, [*scope, "overwritten"], within=scope) as connection:
        connection.register("own", own)
        connection.register("claims", staging.read(Part.RAW, ["source", "uri", "member", "claimed_at"]))
        connection.execute(
            "CREATE TEMP VIEW arrived AS SELECT source, uri, member, claimed_at FROM claims UNION ALL "
            "SELECT source, uri, member, claimed_at FROM overwritten "
            f"WHERE claimed_at < TIMESTAMPTZ '{claimed.isoformat()}'"
        )
        listed = ", ".join(f'"{name}"' for name in columns)
        sql = _BEFORE.format(
            batch=context.batch, columns=listed, one_place=_PLACE.format("one"), other_place=_PLACE.format("other")
        )
        rows = connection.sql(sql, params={"claimed": claimed}).to_arrow_table().cast(pa.schema(fields))
    return pa.Table.from_batches(_seen(rows.to_batches(), rule), _schema(rows.schema, rule))


HOUSE_RULES: tuple[NamedRule, ...] = (
    NamedRule("validated_batch", "house_rules", "The rules of the house hold, or what breaks them is kept out or told",
              house_rules_hold),
)  # fmt: skip
"""Every rule of this module."""
