"""What it costs to change a large lake: upgrading it, promoting attributes, erasing from it, reading a batch again.

    python -m bench.scale_change [--size N] [--folder DIR] [--only NAME …] [--json FILE] [--lock FILE]

The lakes are those of `scale_lake`; the one that is upgraded is made by the code of the release that it is of, which is
taken from this repository's history. Each change is made in a copy and in a process of its own: its seconds by the
clock and of processor time, its peak memory, the bytes that it has written (to files and pipes, as the kernel counts
them, its processes included), and which files of tables have come and gone. A lock file is held during each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.scale import alone, lake_folder, peak_memory, timed, write_delivery
from bench.scale_lake import make
from bench.scale_names import PER_BATCH, PER_STUDY, SOURCE, study_uid

SIZE = 1_000_000
EARLIER = "257874f"
"""The release whose lake is upgraded: the last one whose lakes had no number."""

_MAKE = "import sys; from bench.scale_lake import make; make(sys.argv[1], int(sys.argv[2]))"

Parts = dict[str, dict[str, float]]
"""What was measured, by the part of a change."""


def _settings(lake: Path) -> Any:
    from dicom_assets.settings import Settings

    landing = lake.parent / "landing"
    landing.mkdir(exist_ok=True)
    return Settings.model_validate({"lake": str(lake), "sources": [{"name": SOURCE, "root": str(landing)}]})


def _quiet(*_: object) -> None:
    """Is told how far a change is."""


def upgrade(lake: Path, size: int) -> Parts:
    """Brings a lake of an earlier release up to date: first what opening it does, then each migration."""
    from dicom_assets.batch import upgrade as upgrading
    from dicom_assets.batch.context import RunContext
    from dicom_assets.lake.query import existing

    parts: Parts = {"plan": timed(lambda: upgrading.plan(existing(str(lake))))}
    began: list[tuple[str, float]] = []

    def say(told: str) -> None:
        name = told.partition(":")[0]
        if not began or began[-1][0] != name:
            began.append((name, time.perf_counter()))

    with RunContext(_settings(lake), migrates=True) as work:
        parts["columns and tables"] = timed(lambda: work.lake)
        with work.claiming(60):
            parts["migrations"] = timed(lambda: upgrading.perform(work, say))
    ends = [*(at for _, at in began[1:]), time.perf_counter()]
    for (name, at), end in zip(began, ends, strict=True):
        parts[f"migration {name}"] = {"wall": end - at}
    return parts


def _promote(lake: Path, path: str, level: str) -> Parts:
    from dicom_assets.batch.context import RunContext
    from dicom_assets.batch.promotion import column_of, declare, fill
    from dicom_assets.settings import ColumnSettings

    with RunContext(_settings(lake)) as work:
        declare(work.lake, [column_of(ColumnSettings(path=path, level=level))])  # type: ignore[arg-type]
        return {"fill": timed(lambda: fill(work.lake))}


def promote(lake: Path, size: int) -> Parts:
    """Promotes an attribute of instances."""
    return _promote(lake, "AcquisitionDuration", "instance")


def promote_in_sequence(lake: Path, size: int) -> Parts:
    """Promotes an attribute in a sequence, up to the level of studies."""
    return _promote(lake, "RequestAttributesSequence.ScheduledProcedureStepID", "study")


def _erase(lake: Path, scope: str, name: str) -> Parts:
    from dicom_assets.batch.context import RunContext
    from dicom_assets.batch.erasure import record, removal
    from dicom_assets.batch.erasure.search import search
    from dicom_assets.batch.erasure.target import Scope, Target, find
    from dicom_assets.storage.traces import Terms

    settings, target = _settings(lake), Target(Scope(scope), name)
    with RunContext(settings) as work, work.claiming(1):
        found: list[record.Record] = []
        parts = {"find": timed(lambda: found.append(find(work.lake, target, "bench")))}
        own = removal.begin(work.lake, target, found[0])
        parts["remove"] = timed(lambda: removal.carry_out(work.lake, settings, own))
        left: list[object] = []
        parts["search"] = timed(lambda: left.extend(search(work.lake, settings, Terms.of(own.terms))))
        record.finish(work.lake.files)
        assert not left, left[:3]
        assert PER_STUDY <= len(own.objects) <= 4 * PER_STUDY, len(own.objects)
    return parts


def erase_patient(lake: Path, size: int) -> Parts:
    """Erases a patient with three studies, of the middle of the lake."""
    return _erase(lake, "patient", f"P{size // PER_STUDY // 3 // 2:08d}")


def erase_study(lake: Path, size: int) -> Parts:
    """Erases a study of the middle of the lake, and leaves the patient's others."""
    return _erase(lake, "study", study_uid(size // PER_STUDY // 2))


def reread(lake: Path, size: int) -> Parts:
    """Reads again a batch of 5,000 files, which is delivered first."""
    from dicom_assets.batch.reread import Choice
    from dicom_assets.defs import runner
    from dicom_assets.defs.instance import open_instance

    settings = _settings(lake)
    write_delivery(lake.parent / "landing", size, 1)
    with open_instance(settings) as instance:
        ended: list[Any] = []
        parts = {"ingest": timed(lambda: ended.append(runner.ingest(settings, instance)))}
        (books,) = ended[0].books
        choice = Choice(batches=(books.batch_id,))
        parts["reread"] = timed(lambda: ended.append(runner.reread(settings, instance, choice, _quiet, _quiet)[1]))
    assert all(one.closed for one in ended), ended
    return parts


CHANGES: dict[str, Callable[[Path, int], Parts]] = {
    "upgrade": upgrade,
    "promote": promote,
    "promote in a sequence": promote_in_sequence,
    "erase a patient": erase_patient,
    "erase a study": erase_study,
    "reread a batch": reread,
}
"""Every change, in the order in which they are measured."""


def written() -> float:
    """Bytes that this process, and those that it has waited for, have written; 0 where no system counts them."""
    counts = Path("/proc/self/io")
    if not counts.exists():
        return 0.0
    lines = dict(line.split(": ") for line in counts.read_text(encoding="ascii").splitlines())
    return float(lines["wchar"])


def data_files(lake: Path) -> dict[str, int]:
    """The files that the logs of the tables name, with their bytes."""
    from deltalake import DeltaTable

    found: dict[str, int] = {}
    for log in sorted(lake.glob("*/_delta_log")):
        adds = DeltaTable(str(log.parent)).get_add_actions(flatten=True)
        names, sizes = adds.column("path").to_pylist(), adds.column("size_bytes").to_pylist()
        found |= {f"{log.parent.name}/{name}": int(size) for name, size in zip(names, sizes, strict=True)}
    return found


def measure(name: str, lake: Path, size: int) -> dict[str, Any]:
    """One change, in this process."""
    before = data_files(lake)
    already = written()
    whole: list[Parts] = []
    total = timed(lambda: whole.append(CHANGES[name](lake, size)))
    bytes_written, memory = written() - already, peak_memory()
    after = data_files(lake)
    came = [path for path in after if path not in before]
    return {
        "total": total,
        "parts": whole[0],
        "memory": memory,
        "written": bytes_written,
        "files": len(before),
        "bytes": sum(before.values()),
        "files_gone": sum(path not in after for path in before),
        "files_new": len(came),
        "bytes_new": sum(after[path] for path in came),
        "flat_metadata": sum(path.startswith("flat_metadata/") for path in came),
    }


def in_process(name: str, folder: Path, source: Path, size: int, lock: Path | None) -> dict[str, Any]:
    """One change, in a process of its own and in a copy of a lake."""
    place = folder / f"change-{size}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place / "lake")
    command = [sys.executable, "-W", "ignore", "-m", "bench.scale_change", "--size", str(size)]
    try:
        with alone(lock):
            done = subprocess.run(
                [*command, "--measure", name, "--lake", str(place / "lake")], stdout=subprocess.PIPE, text=True
            )
    finally:
        shutil.rmtree(place, ignore_errors=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("=")]
    if done.returncode or not lines:
        raise SystemExit(f"The process that measured '{name}' ended with {done.returncode}.")
    answer: dict[str, Any] = json.loads(lines[0][1:])
    return answer


@contextmanager
def release(folder: Path, name: str) -> Iterator[Path]:
    """The code of an earlier release, from this repository's history."""
    place = folder / f"release-{name}"
    repository = Path(__file__).parents[1]
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    packed = subprocess.run(["git", "archive", name], cwd=repository, stdout=subprocess.PIPE)
    if packed.returncode:
        raise LookupError(f"This repository has no commit {name}: its history is needed to make that release's lake.")
    subprocess.run(["tar", "-x", "-C", str(place)], input=packed.stdout, check=True)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def earlier_lake(folder: Path, size: int) -> Path:
    """The lake of the earlier release, made by its own code unless it is there. Raises LookupError without history."""
    target = folder / f"lake-{size}-{EARLIER}"
    if not target.exists():
        print(f"making a lake of {size:,} instances with {EARLIER}", file=sys.stderr, flush=True)
        unfinished = folder / f"unfinished-{size}-{EARLIER}"
        shutil.rmtree(unfinished, ignore_errors=True)
        with release(folder, EARLIER) as code:
            environment = {**os.environ, "PYTHONPATH": str(code)}
            command = [sys.executable, "-W", "ignore", "-c", _MAKE, str(unfinished), str(size)]
            subprocess.run(command, cwd=code, env=environment, check=True)
        unfinished.rename(target)
    return target


def todays_lake(folder: Path, size: int) -> Path:
    """The lake of this release, made unless it is there."""
    target = lake_folder(folder, size)
    if not target.exists():
        print(f"making a lake of {size:,} instances", file=sys.stderr, flush=True)
        unfinished = folder / f"unfinished-{size}"
        shutil.rmtree(unfinished, ignore_errors=True)
        make(str(unfinished), size)
        unfinished.rename(target)
    return target


def table(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Lines of a table: each change with its parts."""
    yield "| | seconds | of processor | peak memory, MB | written, MB | files that went | came | MB of these |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, one in found.items():
        total = one["total"]
        yield (
            f"| {name} | {total['wall']:,.1f} | {total['cpu']:,.1f} | {one['memory'] / 1e6:,.0f} | "
            f"{one['written'] / 1e6:,.1f} | {one['files_gone']} of {one['files']} | {one['files_new']} | "
            f"{one['bytes_new'] / 1e6:,.1f} of {one['bytes'] / 1e6:,.1f} |"
        )
        for part, seconds in one["parts"].items():
            cpu = f"{seconds['cpu']:,.1f}" if "cpu" in seconds else ""
            yield f"| – {part} | {seconds['wall']:,.1f} | {cpu} | | | | | |"


def main() -> None:
    """Makes the lakes that are missing, measures, prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--folder", type=Path, default=Path("build/scale"))
    parser.add_argument("--only", nargs="+", choices=[*CHANGES], default=[*CHANGES])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--lock", type=Path)
    parser.add_argument("--measure", choices=[*CHANGES])
    parser.add_argument("--lake", type=Path)
    options = parser.parse_args()
    if options.measure:
        print("=" + json.dumps(measure(options.measure, options.lake, options.size)), flush=True)
        return
    folder, size = options.folder.absolute(), options.size // PER_BATCH * PER_BATCH
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for name in options.only:
        try:
            source = earlier_lake(folder, size) if name == "upgrade" else todays_lake(folder, size)
        except LookupError as error:
            print(f"{name} is left out. {error}", file=sys.stderr)
            continue
        found[name] = in_process(name, folder, source, size, options.lock)
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
