"""A batch without `conflict`, `duplicate` and `series_geometry`, for `bench.curation`; the command as well.

    python -m bench.curation_less with|without ingest --landing DIR --lake DIR

Belongs here: leaving out what is for these three, in this process, and running the command so. Imports what the command
does anyway. Does not belong here: what is measured.

The command writes the seconds of processor time that it took to its last line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from unittest.mock import patch

from dicom_assets.batch import closing, steps
from dicom_assets.batch.checks import rules
from dicom_assets.curation import digest_index
from dicom_assets.lake import maintenance
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import Part, Staging

OWN = ("series_geometry", "conflict", "duplicate")
OWN_TABLES = (*OWN, "patient_value", "uid_index", "batch_digest")


def stage_nothing(_: Lake, staging: Staging, *__: object) -> None:
    """In place of what is staged for `duplicate`."""
    staging.complete(Part.ALIKE, 0)


def _steps_left() -> Iterator[steps.Step]:
    """The steps of a batch without the three."""
    for step in steps.STEPS:
        made = {name: ([one for one in above if one not in OWN], make) for name, (above, make) in step.tables.items()}
        if step.name not in OWN:
            yield replace(step, tables=made)


@contextmanager
def without_curation() -> Iterator[None]:
    """Leaves out what a batch does for the three tables: steps, rules, indexes, merging their files."""
    tidy = maintenance.tidy
    with ExitStack() as stack:
        for where, name, instead in (
            (steps, "STEPS", tuple(_steps_left())),
            (rules, "ALL_RULES", tuple(one for one in rules.ALL_RULES if one.table not in OWN)),
            (digest_index, "stage_keys", stage_nothing),
            (maintenance, "tidy", lambda lake, name: name in OWN_TABLES or tidy(lake, name)),
        ):
            stack.enter_context(patch.object(where, name, instead))
        stack.enter_context(patch.dict(closing._MADE_FROM_OTHERS))
        for name in OWN:
            del closing._MADE_FROM_OTHERS[name]
        yield


def used_seconds() -> float:
    """Processor time of this process and of all that were started for it.

    Processes that read are children of one that hands them out, which goes on running, and is not waited for.
    """
    tick = os.sysconf("SC_CLK_TCK")
    of_process: dict[int, tuple[int, float]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            of_process[int(stat.parent.name)] = int(fields[1]), sum(map(int, fields[11:15])) / tick
    started = {os.getpid()}
    while more := {pid for pid, (parent, _) in of_process.items() if parent in started} - started:
        started |= more
    own = sum(used.ru_utime + used.ru_stime for used in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))
    return own + sum(of_process[pid][1] for pid in started - {os.getpid()})


def main() -> None:
    """Runs the command with the three, or without."""
    way = sys.argv.pop(1)
    with without_curation() if way == "without" else nullcontext():
        from dicom_assets.cli.main import app  # the graph is made of what is left

        try:
            app()
        except SystemExit as ended:
            print(used_seconds(), flush=True)
            sys.exit(ended.code)


if __name__ == "__main__":
    main()
