"""The command `erase`. It joins the others in `cli`.

Belongs here: options, printing, exit codes. What is printed are counts, kinds of places and names of erasures; what is
to be erased is given by whoever runs it, and never printed.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets.cli.options import Format, FormatOption, LakeOption, clear_errors, load_settings, print_rows
from dicom_assets.printing import counted, say
from dicom_assets.settings import Settings, UserError

if TYPE_CHECKING:
    from dicom_assets.batch.context import RunContext
    from dicom_assets.batch.erasure.search import Trace
    from dicom_assets.batch.erasure.target import Target
    from dicom_assets.cli.progress import Reporter
    from dicom_assets.lake.delta import Lake
    from dicom_assets.storage.traces import Terms


def erase(
    patient: Annotated[str | None, typer.Option("--patient", help="PatientID: everything of this patient.")] = None,
    issuer: Annotated[str | None, typer.Option("--issuer", help="Who issued the PatientID.")] = None,
    study: Annotated[str | None, typer.Option("--study", help="StudyInstanceUID: everything of this study.")] = None,
    instance: Annotated[str | None, typer.Option("--instance", help="SOPInstanceUID: this instance.")] = None,
    object_id: Annotated[str | None, typer.Option("--object", help="object_id: this object alone.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would go, and change nothing.")] = False,
    search: Annotated[bool, typer.Option("--search", help="Look where it still stands, and change nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Finish an erasure that was broken off.")] = False,
    by: Annotated[str | None, typer.Option("--by", help="Who asks for it. Default: this user.")] = None,
    lake: LakeOption = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Erase a patient, a study, an instance or an object from the lake, older versions of its tables too."""
    with clear_errors():
        from dicom_assets.cli.progress import Reporter

        settings = load_settings(None, lake)
        target = _target(patient, issuer, study, instance, object_id, optional=resume)
        with Reporter() as reporter:
            if resume:
                _finish(settings, reporter)
                return
            if target is None:
                raise AssertionError("a target was asked for")
            if plan:
                print_rows(("place", "rows or files"), _planned(settings, target), form)
                return
            if search:
                left = _looked(settings, target, reporter)
            else:
                left = _erase(settings, target, by or getpass.getuser(), reporter)
    _tell_left(left, form)


def _target(
    patient: str | None,
    issuer: str | None,
    study: str | None,
    instance: str | None,
    object_id: str | None,
    *,
    optional: bool,
) -> Target | None:
    from dicom_assets.batch.erasure.target import Scope, Target

    given = {Scope.PATIENT: patient, Scope.STUDY: study, Scope.INSTANCE: instance, Scope.OBJECT: object_id}
    named = [(scope, name.strip()) for scope, name in given.items() if name is not None]
    if issuer is not None and patient is None:
        raise UserError("--issuer is of a patient: give --patient as well. Nothing was changed.")
    if optional and not named:
        return None
    if len(named) != 1 or optional or not named[0][1]:
        raise UserError("Give one of --patient, --study, --instance, --object, or --resume alone. Nothing was changed.")
    return Target(*named[0], issuer)


def _planned(settings: Settings, target: Target) -> list[tuple[str, int]]:
    from dicom_assets.batch.erasure.plan import places
    from dicom_assets.batch.erasure.target import find
    from dicom_assets.lake.query import existing

    lake = existing(settings.lake)
    return [*places(lake, settings, find(lake, target, "")).items()]


def _erase(settings: Settings, target: Target, by: str, reporter: Reporter) -> list[Trace]:
    """Erases, and then looks whether anything is left: what is."""
    from dicom_assets.batch.erasure.record import finish
    from dicom_assets.batch.erasure.removal import begin, carry_out
    from dicom_assets.batch.erasure.target import find
    from dicom_assets.storage.traces import Terms

    with _right(settings, reporter) as work:
        record = begin(work.lake, target, find(work.lake, target, by))
        carry_out(work.lake, settings, record, reporter.say)
        terms = Terms.of(record.terms)
        _forget_runs(settings, terms)
        left = _search(work.lake, settings, terms, reporter)
        finish(work.lake.files)
    say(
        f"Erasure {record.erasure_id}: {counted(len(record.objects), 'object')}, "
        f"{counted(sum(row[4] for row in record.records), 'clinical record')}, "
        f"{counted(len(record.whole), 'study', 'studies')}. Files at the sources are as they were."
    )
    return left


def _finish(settings: Settings, reporter: Reporter) -> None:
    from dicom_assets.batch.erasure.record import under_way
    from dicom_assets.lake.query import existing
    from dicom_assets.storage.traces import Terms

    record = under_way(existing(settings.lake).files)
    if record is None:
        say("No erasure is under way.")
        return
    with _right(settings, reporter) as work:  # which finishes it
        terms = Terms.of(record.terms)
        _forget_runs(settings, terms)
        left = _search(work.lake, settings, terms, reporter)
    _tell_left(left, Format.TABLE)


@contextmanager
def _right(settings: Settings, reporter: Reporter) -> Iterator[RunContext]:
    """The right to claim, which nobody has who ingests."""
    from dicom_assets.batch.context import RunContext
    from dicom_assets.batch.erasure.record import ErasureRefused
    from dicom_assets.lake.query import is_there
    from dicom_assets.storage.locks import LockBusy

    is_there(settings.lake)
    with RunContext(settings, say=reporter.say) as work, ExitStack() as held:
        try:
            held.enter_context(work.claiming(wait_seconds=0.5))
        except LockBusy:
            raise ErasureRefused(
                "An ingest is at work on this lake: wait until it has ended, then erase. Nothing was changed."
            ) from None
        yield work


def _looked(settings: Settings, target: Target, reporter: Reporter) -> list[Trace]:
    """Where something of a target stands: by all that names it, or by its name alone when the tables have nothing."""
    from dicom_assets.batch.erasure.record import ErasureRefused
    from dicom_assets.batch.erasure.target import find
    from dicom_assets.lake.query import existing
    from dicom_assets.storage.traces import Terms

    lake = existing(settings.lake)
    try:
        named = find(lake, target, "").terms
    except ErasureRefused:
        named = []
    return _search(lake, settings, Terms.of({*named, target.name}), reporter)


def _search(lake: Lake, settings: Settings, terms: Terms, reporter: Reporter) -> list[Trace]:
    from dicom_assets.batch.erasure.search import search
    from dicom_assets.defs.state_folder import state_folders

    reporter.say("Looking into every file.")
    return list(search(lake, settings, terms, state_folders(settings)))


def _forget_runs(settings: Settings, terms: Terms) -> None:
    from dicom_assets.defs.forgotten_runs import clean, forget_runs
    from dicom_assets.defs.instance import open_instance
    from dicom_assets.defs.state_folder import state_folders

    folders = state_folders(settings)
    with open_instance(settings) as instance:
        forget_runs(instance, folders, terms)
    clean(folders)


def _tell_left(left: list[Trace], form: Format) -> None:
    from dicom_assets.batch.erasure.search import counts

    if not left:
        say("Nothing of it stands in any file.")
        return
    print_rows(("where", "files"), [*counts(left).items()], form)
    say("It still stands there. See docs/stewardship.md, Removals.", err=True)
    raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Adds this command to the command line."""
    app.command()(erase)
