"""Which of several values a series or study shows: the rule that the settings name.

Belongs here: the rule, as the hierarchy and whoever judges it are handed it. Does not belong here: the SQL that makes
rows by it (`hierarchy`).

Of one source a rule chooses among the objects of a series or study, attribute by attribute: the newest value, or the
one that most objects tell, of equals the newest. Between sources that hold the same study the row of one of them
counts: that with the newest object, or that of the source of highest rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dicom_assets.lake.quoting import quoted
from dicom_assets.schema.attributes import ATTRIBUTES, CODE_PARTS, TOLD_WITH, Level
from dicom_assets.settings import CurationSettings, SettingsError

NEWEST, MOST_FREQUENT, SOURCE_RANK = "newest", "most_frequent", "source_rank"

CHOSEN = (
    frozenset(
        [one.keyword for one in ATTRIBUTES if one.level is not Level.INSTANCE]
        + [one.column for one in CODE_PARTS if one.level is not Level.INSTANCE]
    )
    - TOLD_WITH.keys()
)
"""Columns that a rule can be named for: what is told with another one comes with that."""


@dataclass(frozen=True)
class Choice:
    """rule: of every attribute; own: of some attributes. ranks: sources, the one that counts most first."""

    rule: str = NEWEST
    ranks: tuple[str, ...] = ()
    own: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: CurationSettings) -> Choice:
        """The rule that the settings name. Raises SettingsError for an attribute that no series or study has."""
        for name in settings.attribute_rules:
            if name not in CHOSEN:
                raise SettingsError(
                    f"curation.attribute_rules names {name}, which is no attribute that a series or study chooses. "
                    "Give keywords of the tables series and study, such as StudyDescription."
                )
        return cls(settings.conflict_rule, settings.source_rank, dict(settings.attribute_rules))

    def rule_of(self, column: str) -> str:
        """The rule by which a column is chosen: of what is told with another one, that one's."""
        return self.own.get(TOLD_WITH.get(column, column), self.rule)

    def is_frequent(self, column: str) -> bool:
        """Whether the value counts that most objects tell."""
        return self.rule_of(column) == MOST_FREQUENT

    def rank(self, source: str = "source") -> str:
        """SQL for the rank of a source: the larger one counts; the same for all where ranks play no part."""
        if self.rule != SOURCE_RANK:
            return "0"
        known = " ".join(f"WHEN {quoted(name)} THEN {place}" for place, name in enumerate(reversed(self.ranks), 1))
        return f"CASE {source} {known} ELSE 0 END"

    def newest_row(self, order: str) -> str:
        """SQL for the order of rows of several sources, the first of which counts; order: of the newest ones."""
        return order if self.rule != SOURCE_RANK else f"{self.rank()} DESC, {order}"


DEFAULT = Choice()


def frequent(columns: Sequence[str], choice: Choice) -> list[str]:
    """Those of some columns of which the value counts that most objects tell, without what is told with another."""
    return [name for name in columns if name not in TOLD_WITH and choice.is_frequent(name)]
