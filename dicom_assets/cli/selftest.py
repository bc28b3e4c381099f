"""The command `selftest`. It joins the others in `cli`.

Belongs here: options, printing, exit codes, signals. Does not belong here: what is delivered, watched and taken out
(`batch.selftest`).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets.cli.options import Format, FormatOption, LakeOption, clear_errors, load_settings, print_rows
from dicom_assets.printing import say
from dicom_assets.settings import Settings, SettingsError, SourceSettings, load

if TYPE_CHECKING:
    from dicom_assets.batch.selftest.rehearsal import Line


def selftest(
    landing: Annotated[
        str | None, typer.Option("--landing", help="Folder or URL that the running system watches, or a source's name.")
    ] = None,
    lake: LakeOption = None,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds that a stage may take.")] = 300.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything there, until --clean.")] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Take out what self-tests left that were killed.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Send a known set through a running system, compare what comes of it, and take all of it out again.

    Exit 0 when everything arrived as it should and nothing is left, 1 when not, 2 when it could not begin.
    """
    with clear_errors():
        settings, source = _place(landing, lake)
        from dicom_assets.batch.selftest.clearance import NotCleared
        from dicom_assets.batch.selftest.rehearsal import Rehearsal
        from dicom_assets.batch.selftest.rehearsal import clean as clean_all

        lines: list[Line] = []

        def told(line: Line) -> None:
            lines.append(line)
            if form is Format.TABLE:
                _tell(line)

        if clean:
            passed = clean_all(settings, told, max(timeout, 1.0))
            if not lines and form is Format.TABLE:
                say("Nothing is left of any self-test.")
        else:
            with _interruptible():
                try:
                    passed = Rehearsal(settings, source, timeout, told, why=_why(settings)).run(keep=keep)
                except KeyboardInterrupt:
                    say("Interrupted; what was delivered is taken out again.", err=True)
                    passed = False
                except NotCleared as error:
                    say(str(error), err=True)
                    passed = False
    if form is not Format.TABLE:
        rows = [(one.name, one.expected, one.found, one.ok, _rounded(one.seconds), one.detail) for one in lines]
        print_rows(("stage", "expected", "found", "ok", "seconds", "detail"), rows, form)
    elif not clean:
        say("The self-test passed." if passed else "The self-test FAILED.")
    raise typer.Exit(0 if passed else 1)


def _place(landing: str | None, lake: str | None) -> tuple[Settings, SourceSettings]:
    """The settings, and the source to deliver to: of this name, or at this place, or the only one.

    The ids of ImagingStudy resources begin with the source's name, so that it is that of the running system where the
    settings know it. Raises SettingsError.
    """
    settings = load_settings(None, lake)
    services = {service.name for service in settings.services}
    known = [source for source in settings.sources if source.name not in services]
    if landing is None:
        if len(known) == 1:
            return settings, known[0]
        names = ", ".join(source.name for source in known) or "none"
        raise SettingsError(f"Say with --landing which source is tested. Configured: {names}.")
    given = load(landing, lake).source("landing")
    for source in known:
        if source.name == landing or source.root.rstrip("/") == given.root.rstrip("/"):
            return settings, source
    return load(landing, lake), given


def _why(settings: Settings) -> Callable[[SourceSettings], str]:
    """What asks Dagster's state why nothing comes."""

    def why(source: SourceSettings) -> str:
        from dicom_assets.defs.instance import open_instance
        from dicom_assets.defs.sensor_words import why_nothing_comes

        with open_instance(settings) as instance:
            return why_nothing_comes(instance, source)

    return why


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends a self-test as Ctrl-C does: with everything taken out."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(line: Line) -> None:
    numbers = "" if line.found is None else f"{line.found} of {line.expected}" if line.expected else str(line.found)
    seconds = "" if line.seconds is None else f"{line.seconds:.1f} s"
    state = "ok" if line.ok else "FAILS"
    say(f"{line.name:34} {numbers:>12} {seconds:>9}  {state:6}{line.detail}".rstrip())


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def add_to(app: typer.Typer) -> None:
    """Adds this command to the command line."""
    app.command()(selftest)
