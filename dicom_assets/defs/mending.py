"""What `dicom-assets verify --fix` does: batches run again from their claims, studies made again from all their rows.

Belongs here: the order in which a lake is set right, and running batches for it. Does not belong here: finding what
differs (`batch.verification`), what single torn files become (`batch.recovery`, `lake.torn`).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import dagster as dg
import pyarrow as pa

from dicom_assets.batch.books import Status, books_of
from dicom_assets.batch.context import BatchBusy, RunContext
from dicom_assets.batch.rebuild import rebuild
from dicom_assets.batch.recovery import drop_files, forget_batches, mend_claims
from dicom_assets.batch.standards import (
    publish_coverage,
    write_ndjson_again,
)
from dicom_assets.batch.verification.duplicate_rules import Alike
from dicom_assets.batch.verification.file_rules import Strangers
from dicom_assets.batch.verification.findings import Finding
from dicom_assets.batch.verification.lines import Lines
from dicom_assets.batch.verification.verify import Verified, verify
from dicom_assets.curation.duplicates import make_again
from dicom_assets.defs.graph import build_defs
from dicom_assets.defs.jobs import register, run_batch
from dicom_assets.defs.sensors import mark
from dicom_assets.lake import form, torn
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import FOLDER, Staging
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeFiles

Say = Callable[[str], None]

ROUNDS = 3
"""How often what differs is set right and looked at again: a batch first, then the studies that it did not touch."""


def open_again(settings: Settings) -> None:
    """Makes a lake openable whose number or logs are torn. Raises LakeError, OtherFormat, ForeignTable."""
    files = LakeFiles(settings.lake, synced=settings.storage.survive_power_cuts)
    if form.is_torn(files):
        form.write(files, again=True)
    Lake(settings.lake, make=False, synced=settings.storage.survive_power_cuts).mend_tables()


def mend(
    work: RunContext,
    instance: dg.DagsterInstance,
    chosen: Sequence[str] = (),
    found: Verified | None = None,
    say: Say = lambda _: None,
) -> Verified:
    """Sets right what differs, for whoever holds the right to claim; what differs then.

    found: what was found already. Raises LakeError.
    """
    lake, settings = work.lake, work.settings
    found = found or verify(lake, settings, chosen, say)
    unclosed: set[str] = set()
    for _ in range(ROUNDS):
        if found.holds or not _set_right(work, instance, found, say, unclosed):
            break
        found = verify(lake, settings, chosen, say)
    if unclosed:
        return _with_unclosed(found, sorted(unclosed))
    is_right = all(one.holds for one in found.findings if one.rule != "set aside")
    if is_right and not chosen and torn.needs_verifying(lake.files):
        torn.verified(lake.files)
        found = verify(lake, settings, chosen, say)
    return found


def _with_unclosed(found: Verified, unclosed: Sequence[str]) -> Verified:
    """What was found, with the batches that were run again and did not close, and so are not compared any more."""
    told = Finding("run again", "Batches that were run again have closed", len(unclosed), unclosed)
    return replace(found, findings=(*found.findings, told))


def _set_right(work: RunContext, instance: dg.DagsterInstance, found: Verified, say: Say, unclosed: set[str]) -> bool:
    """One round; whether anything was done. unclosed: gets the batches that were run again and did not close."""
    done = False
    if found.torn or any(one.rule == "summary" and not one.holds for one in found.findings):
        work.lake.files.delete("_claimed")
        say(str(mend_claims(work.lake)) or "The summary of claims is made anew.")
        work.forget_claims()
        done = True
    for name, paths in found.sound.broken.items():
        say(f"Table {name}: {len(paths)} data files are missing or torn and are taken out of it.")
        drop_files(work.lake, name, paths)
        done = True
    for one in found.findings:
        if isinstance(one, Strangers) and one.rows:
            say(f"Rows of {one.differing} batches that nobody claimed are taken out.")
            forget_batches(work.lake, one.rows)
            done = True
    if done:
        return True  # what is missing now is found by looking again
    done = _clear_staging(work, found) or done
    if found.batches:
        unclosed.update(_run(work, instance, found.batches, say))
        return True
    if found.studies:
        say(f"{len(found.studies)} studies are made again from all their rows.")
        rebuild(work, found.studies)
        done = True
    done = _write_lines(work, found, say) or done
    for one in found.findings:
        if isinstance(one, Alike) and not one.holds:
            say(f"The duplicates of {len(one.keys)} keys are made again.")
            make_again(work.lake, pa.array(one.keys, pa.string()))
            done = True
    if found.studies:
        return True
    if any(one.rule == "coverage" and not one.holds for one in found.findings):
        publish_coverage(work.lake)
        return True
    return done


def _clear_staging(work: RunContext, found: Verified) -> bool:
    wrong = [one for one in found.findings if one.rule == "staging" and not one.holds]
    if not wrong:
        return False
    kept = set(work.unclosed())
    for folder in {name.split("/")[1] for name in work.lake.files.names(FOLDER)} - kept:
        Staging(work.lake.files, folder).remove()
    return True


def _write_lines(work: RunContext, found: Verified, say: Say) -> bool:
    """Writes the NDJSON files of batches again whose lines differ, and removes those of batches that nobody claimed."""
    done = False
    for one in found.findings:
        if not isinstance(one, Lines) or one.holds:
            continue
        say(f"The NDJSON files of {len(one.rewritten)} batches are written again, {len(one.strays)} files removed.")
        for path in one.strays:
            work.lake.files.remove(path)
        for batch in one.rewritten:
            try:
                work.batch(batch)
            except BatchBusy as error:
                say(str(error))
                continue
            try:
                write_ndjson_again(work.lake, batch)
            finally:
                work.release(batch)
        done = True
    return done


def _run_again(work: RunContext, job: dg.JobDefinition, instance: dg.DagsterInstance, batch: str) -> str | None:
    """Runs a batch from its claim to its books, whatever its books say; why it did not close. Raises BatchBusy."""
    work.batch(batch)
    try:
        result = run_batch(job, instance, batch)
        if not result.success:
            mark(work, batch, result.run_id)
        books = books_of(work.lake, batch)
        if result.success and books is not None and books.status == Status.CLOSED:
            return None
        return (books.reason if books else None) or f"its run {result.run_id} broke off"
    finally:
        work.release(batch)


def _run(work: RunContext, instance: dg.DagsterInstance, batches: Sequence[str], say: Say) -> Iterator[str]:
    """Runs batches again; those that do not close."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    job = build_defs(work.settings, work=work).resolve_job_def("ingest_batch")
    register(instance, list(batches))
    for batch in batches:
        say(f"Batch {batch}: running again")
        try:
            reason = _run_again(work, job, instance, batch)
        except BatchBusy as error:
            say(str(error))
            yield batch
            continue
        if reason is not None:
            say(f"Batch {batch} did not close: {reason}")
            yield batch


def mend_after_power_cut(work: RunContext, instance: dg.DagsterInstance, say: Say) -> None:
    """After torn entries of logs were set aside: compares everything, and makes again what is missing."""
    if not torn.needs_verifying(work.lake.files):
        return
    say("Entries of the lake's logs were torn, as by a power cut, and are set aside; what they held is made again.")
    left = mend(work, instance, say=say)
    if not left.holds:
        say("Something still differs. Run `dicom-assets verify`.")
