"""Cohorts: making one of what a search finds, the list of them, and one of them with the commands for it.

Belongs here: from a request to a page, and whose cohorts somebody sees. Does not belong here: what a cohort is and how
it is made (`curation.cohorts`).

A cohort is made by whoever may (`may_make_cohorts`), of nothing but what they may see: the studies of their search, in
the sources in which they see these. Whoever sees the whole lake sees all cohorts, anybody else those that they made.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

import anyio.to_thread
from starlette.datastructures import QueryParams
from starlette.responses import RedirectResponse, Response

from dicom_assets.catalogue.forms import fields_of
from dicom_assets.catalogue.matters import complete
from dicom_assets.catalogue.page import Page
from dicom_assets.catalogue.study_search import FIELDS, Search, find, read
from dicom_assets.catalogue.templating import HEADERS, SAME_ORIGIN, moment
from dicom_assets.catalogue.visit import Visit
from dicom_assets.curation.cohorts import frozen
from dicom_assets.curation.cohorts.frozen import Cohort, CohortError, Entry
from dicom_assets.curation.cohorts.selection import create_cohort
from dicom_assets.lake.query import QueryError
from dicom_assets.serve.problems import Refusal, not_found
from dicom_assets.serve.served import Scope, Snapshot
from dicom_assets.storage.files import LakeError

MOST_STUDIES = 10_000
"""Studies of a cohort that is made here; a larger one is made by the command, with a query."""

NOT_ALLOWED = (
    "Making cohorts is not allowed to whoever asks here. Whoever runs this server allows it by `may_make_cohorts`."
)


class _Turn:
    """One cohort at a time is made by a process: it takes the memory of a few answers."""

    def __init__(self) -> None:
        self.limiter = anyio.CapacityLimiter(1)


@dataclass(frozen=True)
class Shown:
    """A cohort as a page shows it. left: objects that are not erased. log: what was done with it, oldest first."""

    cohort: Cohort
    left: int
    log: Sequence[Entry] = ()


def account(visit: Visit) -> str:
    """Who makes a cohort, as it is written down."""
    caller = visit.caller
    return getpass.getuser() if caller.kind == "local" else f"{caller.kind} {caller.name}"


def _when(text: str) -> str:
    """A time of a cohort, as pages write it."""
    return moment(datetime.fromisoformat(text))


def _is_seen(visit: Visit, cohort: Cohort) -> bool:
    return visit.caller.scope == Scope() or cohort.created_by == account(visit)


async def _list(visit: Visit) -> Response:
    if visit.request.method == "POST":
        return await _make(visit)

    def ask() -> list[Shown]:
        files = visit.basis.served.snapshot().lake.files
        cohorts = [frozen.read(files, name) for name in frozen.names(files)]
        seen = [one for one in cohorts if _is_seen(visit, one)]
        return [Shown(one, frozen.left(files, one.name)) for one in sorted(seen, key=lambda one: one.created_at)]

    found = await visit.ask(ask)
    return visit.page("cohorts.html", cohorts=found[::-1], is_whole=visit.caller.scope == Scope(), when=_when)


async def _one(visit: Visit) -> Response:
    name = visit.request.path_params["cohort"]

    def ask() -> Shown:
        files = visit.basis.served.snapshot().lake.files
        try:
            cohort = frozen.read(files, name)
        except CohortError:
            raise not_found("cohort") from None
        if not _is_seen(visit, cohort):
            raise not_found("cohort")
        return Shown(cohort, frozen.left(files, name), frozen.log(files, name))

    found = await visit.ask(ask)
    given = visit.basis.settings.given
    return visit.page(
        "cohort.html",
        shown=found,
        cohort=found.cohort,
        when=_when,
        commands=[
            (complete(f"dicom-assets cohort {words}", given), what)
            for words, what in (
                (f"verify {name}", "what of it has changed since, or is gone"),
                (f"export {name} DEST --deidentify", "writes its objects without identifiers; write where to for DEST"),
                (f"export {name} DEST", "writes them as they are, where their risk is low"),
            )
        ],
    )


async def _make(visit: Visit) -> Response:
    """Makes a cohort of what a search finds, and leads to it."""
    if not visit.caller.may_make_cohorts:
        raise Refusal(HTTPStatus.FORBIDDEN, NOT_ALLOWED)
    form = await fields_of(visit)
    asked = read(QueryParams({name: form.get(name, "") for name in FIELDS}))
    if asked.wrong:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"{', '.join(asked.wrong)}: a date such as 2024-01-31 is needed.")
    name = form.get("name", "").strip()
    try:
        frozen.folder_of(name)
        pairs = await visit.ask(lambda: _studies(visit.snapshot().within(visit.scope_of(asked.source)), asked))
        visit.show(study for _, study in pairs)
        turn = visit.basis.served.part(_Turn).limiter
        await anyio.to_thread.run_sync(lambda: _create(visit, name, pairs), limiter=turn)
    except (CohortError, QueryError) as error:
        return _again(visit, asked, name, str(error))
    return RedirectResponse(f"{visit.root}/cohorts/{name}", HTTPStatus.SEE_OTHER, HEADERS)


def _create(visit: Visit, name: str, pairs: Sequence[tuple[str, str]]) -> None:
    try:
        create_cohort(visit.basis.served.snapshot().lake, name, studies_in=pairs, by=account(visit))
    except LakeError:
        raise Refusal(503, "The lake cannot be written by this server at the moment.") from None


def _studies(snapshot: Snapshot, asked: Search) -> list[tuple[str, str]]:
    """What a search finds, as pairs of source and study. Raises CohortError when it is nothing, or too much. Blocks."""
    found = find(snapshot, asked.from_the_first(), MOST_STUDIES)
    if not found.total:
        raise CohortError("The search finds no study, and a cohort holds some. Nothing was changed.")
    if found.total > MOST_STUDIES:
        raise CohortError(
            f"The search finds {found.total:,} studies, and a cohort of up to {MOST_STUDIES:,} is made here. Narrow "
            'it, or make the cohort with `dicom-assets cohort create NAME --sql "SELECT StudyInstanceUID FROM study '
            'WHERE …"`. Nothing was changed.'
        )
    study = snapshot.scan("study", columns=["source", "StudyInstanceUID"])
    with snapshot.cursor() as connection:
        return connection.execute(
            f"SELECT source, StudyInstanceUID FROM {study} WHERE StudyInstanceUID IN (SELECT unnest(?))",
            [[row["StudyInstanceUID"] for row in found.rows]],
        ).fetchall()


def _again(visit: Visit, asked: Search, name: str, sentence: str) -> Response:
    fields: Mapping[str, str] = asked.asked
    return visit.page(
        "cohort_refused.html",
        HTTPStatus.CONFLICT,
        SAME_ORIGIN,
        sentence=sentence,
        fields=fields,
        name=name,
        query=asked.query(page=1),
    )


PAGES = (Page("/cohorts", _list, ("GET", "HEAD", "POST")), Page("/cohorts/{cohort}", _one))
