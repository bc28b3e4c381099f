"""A lake with its sources and its claims, put together from settings and opened when it is first asked for.

Belongs here: the right to claim, which batches are left to do. Does not belong here: holding a batch, and reading it
(`context`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from dicom_assets.batch import books
from dicom_assets.batch.books import Status
from dicom_assets.batch.erasure.record import is_under_way
from dicom_assets.batch.erasure.removal import resume
from dicom_assets.batch.recovery import mend_claims
from dicom_assets.dicom.from_header import values_of
from dicom_assets.lake import form
from dicom_assets.lake.delta import Lake
from dicom_assets.landing.claims import Claim, ClaimLog
from dicom_assets.landing.looks import Looks
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import LandingStore
from dicom_assets.landing.uri_index import UriIndex
from dicom_assets.settings import Settings
from dicom_assets.storage import locks
from dicom_assets.storage.files import TornFile

INGEST_LOCK = "ingest"
"""Held by `dicom-assets ingest` from its first claim to its last run, and by a sensor's tick while it claims."""


@dataclass
class LakeContext:
    """A lake, its sources and its claims.

    say: called with a sentence about what was set right. migrates: it does what is left to do in a lake of an earlier
    release.
    """

    settings: Settings
    say: Callable[[str], None] = field(default=lambda _: None, kw_only=True)
    migrates: bool = field(default=False, kw_only=True)

    @cached_property
    def lake(self) -> Lake:
        """The lake; made when it is new. Raises LakeError, NeedsUpgrade when a migration has to be done first."""
        lake = Lake(self.settings.lake, synced=self.settings.storage.survive_power_cuts, take=values_of)
        if not self.migrates:
            form.require_migrated(lake.form)
        return lake

    @cached_property
    def log(self) -> ClaimLog:
        """The lake's claims."""
        return ClaimLog(self.lake.files)

    @cached_property
    def looks(self) -> Looks:
        """What is remembered of the sources, and what this process has found of them."""
        return Looks(self.lake.files)

    @cached_property
    def places(self) -> UriIndex:
        """Which claims had a uri before."""
        return UriIndex(self.lake.files, self.log)

    @contextmanager
    def claiming(self, wait_seconds: float) -> Iterator[None]:
        """The right to claim and to start what was claimed. Raises LockBusy after wait_seconds."""
        with locks.held(self.lake.files, INGEST_LOCK, wait_seconds):
            self._mend_claims()
            if is_under_way(self.lake.files):
                resume(self.lake, self.settings, self.say)
                self.forget_claims()
            yield

    def _mend_claims(self) -> None:
        """Before anything is claimed: sets right what a power cut has torn of the claim log."""
        try:
            self.log.claims()
        except TornFile:
            self.say(str(mend_claims(self.lake)))
            self.forget_claims()

    def forget_claims(self) -> None:
        """Lets the claim log be opened anew."""
        self._forget("log", "places")

    def forget_all(self) -> None:
        """Lets go of all that was opened, which may be opened anew: hundreds of megabytes in a large lake.

        Whoever runs a batch stands in circles with it, of which the garbage collector learns late.
        """
        self._forget("log", "places", "looks", "lake")

    def _forget(self, *names: str) -> None:
        for name in names:
            self.__dict__.pop(name, None)

    def stores(self) -> list[LandingStore]:
        """The configured sources, open."""
        return [open_store(source) for source in self.settings.sources]

    def unstarted(self) -> list[str]:
        """Batches that were claimed and never started, oldest first; none of a source that looks emptied."""
        started = {row.batch_id for row in books.all_books(self.lake)}
        return self._of_sources_there([claim for claim in self.log.claims() if claim.batch_id not in started])

    def unclosed(self) -> list[str]:
        """Batches whose books are not closed, oldest first; none of a source that looks emptied."""
        closed = {row.batch_id for row in books.all_books(self.lake) if row.status == Status.CLOSED}
        return self._of_sources_there([claim for claim in self.log.claims() if claim.batch_id not in closed])

    def waited(self) -> dict[str, str]:
        """Batches that waited for their source and can go on, each with the run that was refused."""
        waiting = self.looks.waiting()
        if not waiting:
            return {}
        return {batch: waiting[batch] for batch in self.unclosed() if batch in waiting}

    def _of_sources_there(self, claims: Sequence[Claim]) -> list[str]:
        emptied = {name: self.looks.is_emptied(name) for name in {claim.source for claim in claims}}
        return [claim.batch_id for claim in claims if not emptied[claim.source]]
