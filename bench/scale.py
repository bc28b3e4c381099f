"""What a batch, a tick and the usual questions cost in lakes of ten thousand, a million and ten million instances.

    python -m bench.scale [--sizes N …] [--folder DIR] [--rounds N] [--plot FILE] [--json FILE] [--lock FILE]

The lakes are made by `scale_lake`, once: they stay in the folder for the next run. Each lake is worked on by a process
of its own, one batch here and one there in turn, so that a noisy machine is noisy for all; numbers are medians, and
ratios are to the smallest lake. A batch is the real thing: 5,000 DICOM files of 50 studies, 40 new and 10 that the lake
holds already, spread over all of it, listed, claimed, read, published and checked by the real job. The rounds of
claiming from events and from an inventory need Azurite and are left out without it. A lock file is held during each
measurement.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import scale_ticks
from bench.scale_lake import make
from bench.scale_names import FIRST, PER_BATCH, PER_SERIES, PER_STUDY, SOURCE, study_uid
from dicom_assets_tests.azure import azurite

SIZES = (10_000, 1_000_000, 10_000_000)
NEW_STUDIES, OLD_STUDIES = 40, 10


def lake_folder(folder: Path, size: int) -> Path:
    """Where a lake of a size lies."""
    return folder / f"lake-{size}"


def cpu_seconds() -> float:
    """Seconds of processor time of this process and of those that it has waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def peak_memory() -> float:
    """Bytes that this process has held at most; what the one that started it held does not count."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Wall and processor seconds of a piece of work."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}


def write_instance(target: Path, study: int, instance: int, per_series: int = PER_SERIES) -> None:
    """Writes the DICOM file of one generated instance, without pixels, as old as the generated lakes."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.filewriter import dcmwrite
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    series = instance // per_series
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    uid = f"{study_uid(study)}.{series}.{instance}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.StudyInstanceUID = study_uid(study)
    dataset.SeriesInstanceUID = f"{study_uid(study)}.{series}"
    dataset.PatientID, dataset.PatientName = f"P{study // 3:08d}", f"FAMILY{study // 3 % 5000}^GIVEN{study // 3 % 700}"
    dataset.Modality, dataset.StudyDate, dataset.StudyDescription = "CT", "20240131", "CT CHEST"
    dataset.StudyTime = f"{study % 24:02d}1112"
    dataset.BodyPartExamined, dataset.Manufacturer, dataset.InstanceNumber = "CHEST", "ACME", instance
    dataset.Rows = dataset.Columns = 512
    dataset.AccessionNumber = f"A{study}"
    dcmwrite(target, dataset, enforce_file_format=True)
    os.utime(target, (FIRST.timestamp(), FIRST.timestamp()))


def write_delivery(folder: Path, size: int, number: int) -> None:
    """Writes the files of one batch: 40 studies that a lake of this size does not have, 10 that it has."""
    have = size // PER_STUDY
    chance = random.Random(number)
    studies = [have + 1_000 + number * NEW_STUDIES + n for n in range(NEW_STUDIES)]
    studies += chance.sample(range(have), OLD_STUDIES)
    for study in studies:
        target = folder / str(number) / str(study)
        target.mkdir(parents=True, exist_ok=True)
        for instance in range(study * PER_STUDY, (study + 1) * PER_STUDY):
            write_instance(target / f"{instance}.dcm", study, instance)


def questions(size: int) -> dict[str, str]:
    """The queries that people ask, by name."""
    study = size // (2 * PER_STUDY)
    uid, instance = study_uid(study), study * PER_STUDY + 7
    sop = f"{uid}.{instance // PER_SERIES}.{instance}"
    return {
        "study list, filtered, a page": """
            SELECT StudyInstanceUID, StudyDate, PatientID, StudyDescription, instance_count FROM study
            WHERE StudyDate BETWEEN DATE '2012-01-01' AND DATE '2018-12-31'
              AND list_contains(ModalitiesInStudy, 'CT') AND StudyDescription ILIKE '%chest%'
            ORDER BY StudyDate, StudyInstanceUID LIMIT 50 OFFSET 20""",
        "studies of a patient": f"SELECT * FROM study WHERE PatientID = 'P{study // 3:08d}'",
        "series of a study": f"SELECT * FROM series WHERE StudyInstanceUID = '{uid}'",
        "cohort by modality, body part, manufacturer": """
            SELECT Modality, BodyPartExamined, Manufacturer, count(*), sum(instance_count) FROM series GROUP BY ALL""",
        "joined with clinical": "SELECT record_type, count(*) FROM study_clinical GROUP BY ALL",
        "instances by modality (every file)": "SELECT Modality, count(*) FROM instance GROUP BY ALL",
        "one instance by UID": f"SELECT * FROM instance WHERE SOPInstanceUID = '{sop}'",
        "one header by UID": f"SELECT header FROM flat_metadata WHERE SOPInstanceUID = '{sop}'",
    }


class Lake:
    """What one process measures in one lake."""

    def __init__(self, folder: Path, size: int) -> None:
        """The lake lies there already."""
        self.uri, self.size, self.folder = str(lake_folder(folder, size)), size, folder
        self.number = int(time.time()) % 1_000_000 * 10
        self.rounds = 0

    def batch(self) -> dict[str, float]:
        """One batch by the real job, in a landing folder of its own."""
        from dicom_assets.defs.instance import open_instance
        from dicom_assets.defs.runner import ingest
        from dicom_assets.settings import Settings

        self.number += 1
        landing = self.folder / f"landing-{self.size}"
        shutil.rmtree(landing, ignore_errors=True)
        write_delivery(landing, self.size, self.number)
        settings = Settings.model_validate({"lake": self.uri, "sources": [{"name": SOURCE, "root": str(landing)}]})

        def run() -> None:
            ended = ingest(settings, open_instance(settings))
            assert ended.closed, [one.reason for one in ended.books]
            assert sum(one.ingested for one in ended.books) == (NEW_STUDIES + OLD_STUDIES) * PER_STUDY

        try:
            return timed(run)
        finally:
            shutil.rmtree(landing, ignore_errors=True)

    def listing(self) -> dict[str, float]:
        """A round of claiming: everything claimed is listed, and 1,000 objects more. Nothing is kept of it."""
        return timed(lambda: scale_ticks.from_listing(self.uri, self.size))

    def events(self) -> dict[str, float]:
        """A round of claiming from 1,000 events. Nothing is kept of it."""
        scale_ticks.announce(self.size, self.rounds)
        self.rounds += 1
        try:
            return timed(lambda: scale_ticks.from_events(self.uri, self.size))
        finally:
            scale_ticks.forget_newest_claim(self.uri)

    def prepare_inventory(self) -> dict[str, float]:
        """Writes the report that `inventory` reads."""
        return timed(lambda: scale_ticks.write_inventory(self.folder, self.size))

    def inventory(self) -> dict[str, float]:
        """A round of claiming from a report that names everything claimed, and 1,000 objects more."""
        return timed(lambda: scale_ticks.from_inventory(self.folder, self.size))

    def queries(self) -> dict[str, float]:
        """Seconds of each query: the first time on a connection of its own."""
        import dicom_assets

        found: dict[str, float] = {}
        started = time.perf_counter()
        dicom_assets.connect(self.uri).close()
        found["connect"] = time.perf_counter() - started
        for name, sql in questions(self.size).items():
            with dicom_assets.connect(self.uri) as connection:
                started = time.perf_counter()
                connection.execute(sql).fetchall()
                found[name] = time.perf_counter() - started
        return found

    def files(self) -> dict[str, float]:
        """Files and bytes of the newest versions."""
        from dicom_assets.lake.delta import Lake as DeltaLake
        from dicom_assets.lake.extents import extents
        from dicom_assets.schema.registry import TABLES

        lake = DeltaLake(self.uri)
        known = {name: extents(lake.table(name)) for name in TABLES}
        return {
            "files": float(sum(map(len, known.values()))),
            "bytes": float(sum(int(one.bytes.sum()) for one in known.values())),
            **{f"files of {name}": float(len(one)) for name, one in known.items() if name in _SHOWN_TABLES},
        }


_SHOWN_TABLES = ("flat_metadata", "instance", "series", "study", "batch_study")


def serve(folder: Path, size: int) -> None:
    """The process of one lake: reads what to measure, line by line, and answers with JSON."""
    lake = Lake(folder, size)
    for line in sys.stdin:
        answer = getattr(lake, line.strip())()
        print("=" + json.dumps({**answer, "memory": peak_memory()}), flush=True)


class Process:
    """A lake's process, from outside."""

    def __init__(self, folder: Path, size: int) -> None:
        """Starts it."""
        command = [sys.executable, "-W", "ignore", "-m", "bench.scale", "--folder", str(folder), "--serve", str(size)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what: str) -> dict[str, float]:
        """One measurement."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(what, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("="):
                answer: dict[str, float] = json.loads(line[1:])
                return answer
        raise SystemExit(f"The process that measured '{what}' has ended.")

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


@contextmanager
def alone(lock: Path | None) -> Iterator[None]:
    """Holds a file's lock, if there is one: on a machine that measurements share."""
    if lock is None:
        yield
        return
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def measure(folder: Path, sizes: list[int], rounds: int, lock: Path | None = None) -> dict[int, dict[str, Any]]:
    """Everything, for each size."""
    found: dict[int, dict[str, Any]] = {size: {} for size in sizes}
    plain = (("batch", rounds + 1), ("queries", 3), ("files", 1), ("listing", 1))
    _measure(found, folder, plain, lock)
    if azurite.executable() is None:
        print(azurite.HOW, file=sys.stderr)
        return found
    with azurite.azurite(folder) as environment:
        os.environ.update(environment)
        _measure(found, folder, _AZURITE, lock)
    return found


def _measure(
    found: dict[int, dict[str, Any]], folder: Path, measurements: Iterable[tuple[str, int]], lock: Path | None
) -> None:
    for what, times in measurements:
        processes = {size: Process(folder, size) for size in found}
        answers: dict[int, list[dict[str, float]]] = {size: [] for size in found}
        for number in range(times):
            for size, process in processes.items():
                with alone(lock):
                    answer = process.ask(what)
                print(f"{what} {number} at {size}: {answer}", file=sys.stderr, flush=True)
                if number or times == 1:  # the first one imports and warms up
                    answers[size].append(answer)
        for size, process in processes.items():
            process.close()
            found[size][what] = {
                name: statistics.median(answer[name] for answer in answers[size]) for name in answers[size][0]
            }


_AZURITE = (("events", 3), ("prepare_inventory", 1), ("inventory", 1))
"""What is measured with an emulator of Azure, where there is one."""


def table(found: dict[int, dict[str, Any]]) -> Iterator[str]:
    """Lines of a table: each measure at the smallest size, then its ratios."""
    sizes = sorted(found)
    yield f"| | {' | '.join(f'{size:,}' for size in sizes)} | ratio of the largest |"
    yield "|---" * (len(sizes) + 2) + "|"
    rows = [
        ("batch", "wall", "batch of 5,000, seconds"),
        ("batch", "cpu", "its processor time, seconds"),
        ("batch", "memory", "peak memory of its run, MB"),
        ("listing", "wall", "tick that lists everything, seconds"),
        ("listing", "memory", "its peak memory, MB"),
        ("events", "wall", "tick from 1,000 events, seconds"),
        ("events", "memory", "its peak memory, MB"),
        ("inventory", "wall", "tick from an inventory of everything, seconds"),
        ("inventory", "memory", "its peak memory, MB"),
        ("files", "files", "files"),
        ("files", "bytes", "tables, MB"),
    ]
    rows += [("files", f"files of {name}", f"files of {name}") for name in _SHOWN_TABLES]
    rows += [("queries", name, f"query: {name}, seconds") for name in found[sizes[0]]["queries"] if name != "memory"]
    for what, name, label in rows:
        if what not in found[sizes[0]]:
            continue
        unit = 1e6 if label.endswith("MB") else 1.0
        values = [found[size][what][name] / unit for size in sizes]
        yield f"| {label} | {' | '.join(f'{v:,.2f}' for v in values)} | {values[-1] / max(values[0], 1e-9):.2f} |"


def plot(found: dict[int, dict[str, Any]], target: Path) -> None:
    """Cost over size, each measure as a ratio to the smallest lake."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = sorted(found)
    lines = {
        "batch of 5,000": [found[size]["batch"]["wall"] for size in sizes],
        "files": [found[size]["files"]["files"] for size in sizes],
        "slowest query": [max(v for k, v in found[size]["queries"].items() if k != "memory") for size in sizes],
        "tick, everything listed": [found[size]["listing"]["wall"] for size in sizes],
    }
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name, values in lines.items():
        axes.plot(sizes, [value / values[0] for value in values], marker="o", label=name)
    axes.plot(sizes, [size / sizes[0] for size in sizes], color="grey", linestyle=":", label="instances")
    axes.set(xscale="log", yscale="log", xlabel="instances in the lake", ylabel="cost, ratio to the smallest lake")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def main() -> None:
    """Makes the lakes that are missing, measures, prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--folder", type=Path, default=Path("build/scale"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--lock", type=Path)
    parser.add_argument("--serve", type=int)
    options = parser.parse_args()
    if options.serve:
        serve(options.folder, options.serve)
        return
    for size in options.sizes:
        if not lake_folder(options.folder, size).exists():
            print(f"making a lake of {size:,} instances", file=sys.stderr, flush=True)
            unfinished = options.folder / f"unfinished-{size}"
            shutil.rmtree(unfinished, ignore_errors=True)
            make(str(unfinished.absolute()), size // PER_BATCH * PER_BATCH)
            unfinished.rename(lake_folder(options.folder, size))
    found = measure(options.folder.absolute(), options.sizes, options.rounds, options.lock)
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
