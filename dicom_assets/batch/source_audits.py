"""Audits of the sources that are folders or containers, as their settings want them: what `source audit` does.

Belongs here: which sources are audited, and what follows from what is found. Does not belong here: the comparison and
the batches of deletes (`withdrawals`), when audits are made (`defs`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.withdrawals import audit, follow
from dicom_assets.landing.store import SourceUnavailable

RIGHT_SECONDS = 60.0
"""How long an audit whose source is followed waits for the right to claim."""


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit of one source came to.

    listed: objects there. files, instances: what is gone. claimed: batches of deletes, empty where nothing is followed.
    trouble: why it was not audited; of a source that looks emptied nothing is called gone.
    """

    source: str
    deletions: str
    listed: int = 0
    files: int = 0
    instances: int = 0
    claimed: tuple[str, ...] = ()
    trouble: str | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing waits for a person."""
        return self.trouble is None and (not self.files or bool(self.claimed))


def audits(work: RunContext, name: str | None = None) -> Iterator[Audited]:
    """Audits every source that does not ignore what is gone, or one, whatever its settings say.

    Raises SettingsError, LakeError, LockBusy when somebody else claims for too long.
    """
    sources = [work.settings.source(name)] if name else work.settings.sources
    for source in sources:
        if name is None and source.deletions == "ignore":
            continue
        try:
            if source.deletions == "follow":
                with work.claiming(RIGHT_SECONDS):
                    found = audit(work.lake, work.looks, work.settings, source)
                    claims = follow(work.lake, work.log, work.settings, found)
            else:
                found, claims = audit(work.lake, work.looks, work.settings, source), []
        except SourceUnavailable as error:
            yield Audited(source.name, source.deletions, trouble=str(error))
            continue
        batches = tuple(claim.batch_id for claim in claims)
        yield Audited(source.name, source.deletions, found.listed, found.files, len(found.gone), batches)
