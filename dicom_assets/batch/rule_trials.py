"""Rules of the house tried over what is in the lake: how many rows would break each, and never what these say.

Belongs here: the rows that a trial is asked of, and counting. Does not belong here: what happens to a batch
(`house_rules`), printing (`cli.house_rules`).

A trial is asked of the current instances as they were received, each study and each batch with those that are current
of it. So it tells of a rule about studies what would be found if all of a study came at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dicom_assets.batch.house_rules import GROUPS, HouseRule, rules_of
from dicom_assets.lake.conditions import Unasked, ask
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect, lock_down
from dicom_assets.settings import RuleSettings, Settings, SettingsError
from dicom_assets.storage.files import PROTOCOL

SHOWN = 5
"""Objects that are named of each source and modality."""

TRIED = "tried"
"""Name of a rule that is given with the command."""


@dataclass(frozen=True, slots=True)
class Count:
    """What a trial finds of one source and modality, in objects. few: some object_ids of those that break the rule."""

    source: str
    modality: str | None
    asked: int
    broken: int
    unknown: int
    few: Sequence[str]


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one rule. groups, broken: objects, studies or batches, by its level."""

    rule: HouseRule
    groups: int
    broken: int
    counts: Sequence[Count]

    @property
    def asked(self) -> int:
        """Objects that it was asked of."""
        return sum(one.asked for one in self.counts)


def chosen(settings: Settings, name: str | None, sql: str | None, level: str) -> Sequence[HouseRule]:
    """The rules to try: all, one by its name, or a condition that none has yet. Raises SettingsError."""
    if sql is not None:
        if name is not None:
            raise SettingsError("Give the name of a rule, or a condition with --sql, and not both.")
        given = RuleSettings.model_construct(name=TRIED, condition=sql, level=level)
        return rules_of(settings.model_copy(update={"rules": (given,)}), "--sql")
    rules = [rule for rule in rules_of(settings) if name in (None, rule.name)]
    if not rules and name is not None:
        known = ", ".join(rule.name for rule in settings.rules) or "none"
        raise SettingsError(f"There is no rule '{name}'. Configured: {known}. Or give a condition: --sql CONDITION.")
    return rules


_ROWS = """
(SELECT flat.* FROM flat_metadata AS flat SEMI JOIN instance
    ON instance.batch_id = flat.batch_id AND instance.object_id = flat.object_id)
"""

_OBJECTS = """
-- one row per source and modality, of all objects: how many, how many break the rule, for how many nothing is known
SELECT source, Modality, count(*), count(*) FILTER (holds = false), count(*) FILTER (holds IS NULL),
    coalesce(min(object_id, {shown}) FILTER (holds = false), [])
FROM {answers}
GROUP BY ALL ORDER BY ALL
"""

_ANSWERED = "(SELECT source, Modality, object_id, (\n{condition}\n) AS holds FROM {rows})"
_GROUPED = """(
    SELECT one.source, one.Modality, one.object_id, holds
    FROM {rows} AS one JOIN (SELECT {group}, (\n{condition}\n) AS holds FROM {rows} GROUP BY {group}) USING ({group})
)"""
_GROUPS = """
SELECT count(*), count(*) FILTER (holds = false)
FROM (SELECT {group}, (\n{condition}\n) AS holds FROM {rows} GROUP BY {group})
"""


def try_rules(lake: Lake, rules: Iterable[HouseRule]) -> Sequence[Trial]:
    """Asks rules of the current objects of a lake. Raises SettingsError for one that cannot be asked, LakeError."""
    return [_tried(lake, rule) for rule in rules]


def _tried(lake: Lake, rule: HouseRule) -> Trial:
    unfilled = {one.name for one in rule.promoted} - {
        one.column.name for one in lake.columns if one.column.name in lake.schema("flat_metadata").names
    }
    if unfilled:
        raise SettingsError(
            f"Rule '{rule.name}' asks for {', '.join(sorted(unfilled))}, which is not promoted in this lake yet: "
            "`dicom-assets columns add` fills it, and so does the next ingest."
        )
    group, condition = ", ".join(GROUPS[rule.settings.level]), rule.condition.sql
    template = _GROUPED if group else _ANSWERED
    answers = template.format(condition=condition, rows=_ROWS, group=group)
    with connect(lake, ["flat_metadata", "instance"], alone=True) as connection:
        lock_down(connection, lake.files.local_root or f"{PROTOCOL}://")
        try:
            rows = ask(connection, _OBJECTS.format(answers=answers, shown=SHOWN), rule.settings.seconds)
            counts = [Count(*row) for row in rows]
            if group:
                sql = _GROUPS.format(group=group, condition=condition, rows=_ROWS)
                ((groups, broken),) = ask(connection, sql, rule.settings.seconds)
            else:
                groups, broken = sum(one.asked for one in counts), sum(one.broken for one in counts)
        except Unasked as error:
            raise SettingsError(f"Rule '{rule.name}': {error}.") from None
    return Trial(rule, groups, broken, counts)
