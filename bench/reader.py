"""The header reader alone, in one process, against a naive pydicom loop, against others, and against the disk.

Belongs here: three readings of the same files, interleaved, medians, ratios. Does not belong here: the corpus, the
whole ingest.

    python -m bench.reader [--files N] [--repeat K] [--seed S] [--folder DIR] [--json FILE] [--plot FILE]
                          [--real DIR]

naive: `dcmread(stop_before_pixels=True)`, every attribute that is a column, `to_json()`. ours: `read_header`, with a
fresh memory for as many files as a chunk has. limit: `open` and one `pread` of 64 KB. All files are in the page
cache, and time is processor time, so that a busy machine changes little. The mix weighs the kinds by their share of
the corpus. Of kinds that are slow for pydicom it reads fewer files.

The readers that somebody would pick instead (`others`) read the same generated files, and real ones where a folder of
them is there; ratios are of the files that all of them can read. Ours makes the header as JSON, theirs do not.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pydicom

from bench import others
from bench.corpus import KINDS, generate
from dicom_assets.dicom.header import Memo, read_header
from dicom_assets.dicom.rejections import NotDicom, Unreadable
from dicom_assets.dicom.signature import looks_like_dicom
from dicom_assets.schema.attributes import ATTRIBUTES
from dicom_assets.settings import ReadingLimits

GOALS = {"ct explicit": 18.0, "ct implicit": 18.0, "enhanced mr": 10.0, "sr": 10.0, "rtstruct": 10.0, "mix": 12.0}
"""At least so many times naive."""

_KEYWORDS = [attribute.keyword for attribute in ATTRIBUTES]
_LIMITS = ReadingLimits()
_NAIVE_SECONDS = 0.8
_MOST = 400
_OF_EACH = 20


class LocalFile:
    """A file as a source of bytes."""

    __slots__ = ("_descriptor", "size")

    def __init__(self, path: str) -> None:
        """Opens it."""
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on."""
        return os.pread(self._descriptor, length, offset)

    def close(self) -> None:
        """Closes it."""
        os.close(self._descriptor)


def naive(paths: Sequence[str]) -> None:
    """The obvious loop."""
    for path in paths:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        for keyword in _KEYWORDS:
            ds.get(keyword)
        ds.to_json()


def ours(paths: Sequence[str]) -> None:
    """The reader as a reading process uses it: what is there is frozen, and no garbage is collected within a chunk."""
    gc.freeze()
    gc.disable()
    try:
        for number, path in enumerate(paths):
            if number % _LIMITS.chunk_objects == 0:
                memo = Memo()
            file = LocalFile(path)
            header = read_header(file, _LIMITS, memo)
            file.close()
            if header.tier != 1:
                raise SystemExit("a generated file fell to pydicom")
    finally:
        gc.collect()
        gc.enable()
        gc.unfreeze()


def limit(paths: Sequence[str]) -> None:
    """What the disk takes at least."""
    for path in paths:
        file = LocalFile(path)
        file.read(0, _LIMITS.first_read_bytes)
        file.close()


def seconds(function: Callable[[Sequence[str]], None], paths: Sequence[str]) -> float:
    """Seconds of processor time for one file."""
    started = time.process_time()
    function(paths)
    return (time.process_time() - started) / len(paths)


def measure(kinds: dict[str, list[str]], repeat: int) -> dict[str, dict[str, float]]:
    """Median seconds for one file by kind and reading."""
    times: dict[str, dict[str, list[float]]] = {}
    samples: dict[str, list[str]] = {}
    for kind, paths in kinds.items():
        kinds[kind] = paths[:_MOST]
        count = int(_NAIVE_SECONDS / max(seconds(naive, paths[:1]), 1e-4))
        samples[kind] = paths[:: max(len(paths) // max(count, 2), 1)][: max(count, 2)]
        ours(kinds[kind])
    for _ in range(repeat):
        for kind, paths in kinds.items():
            found = times.setdefault(kind, {"naive": [], "ours": [], "limit": []})
            found["naive"].append(seconds(naive, samples[kind]))
            found["ours"].append(seconds(ours, paths))
            found["limit"].append(seconds(limit, paths))
    return {kind: {name: statistics.median(all_) for name, all_ in found.items()} for kind, found in times.items()}


def seconds_with_children(function: Callable[[Sequence[str]], None], paths: Sequence[str]) -> float:
    """Seconds of processor time for one file, those of programs that were started included."""

    def spent() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    started = spent()
    function(paths)
    return (spent() - started) / len(paths)


def ours_of_any(paths: Sequence[str]) -> None:
    """Our reader over files that may be odd; those fall to pydicom within it."""
    memo = Memo()
    for path in paths:
        file = LocalFile(path)
        read_header(file, _LIMITS, memo)
        file.close()


def readable_by_us(paths: Sequence[str]) -> list[str]:
    """Files that our reader takes for DICOM and can read."""
    found = []
    for path in paths:
        file = LocalFile(path)
        try:
            if looks_like_dicom(file.read(0, 4096)):
                read_header(file, _LIMITS, Memo())
                found.append(path)
        except (NotDicom, Unreadable):
            pass
        finally:
            file.close()
    return found


def compare(paths: Sequence[str], repeat: int) -> tuple[list[dict[str, float | str]], list[str]]:
    """How many times each other reader's processor time is of ours, on the files that all can read; and remarks."""
    paths = readable_by_us(paths)
    remarks, files, names = [], set(paths), []
    rows: list[dict[str, float | str]] = []
    for name in others.READERS:
        absent = others.missing(name)
        can, ended = ([], absent) if absent else others.readable(name, paths)
        if ended:
            remarks.append(f"{ended}.")
        if absent or (ended and not can):
            continue
        remarks.append(f"{name} reads {len(can)} of {len(paths)} files that ours reads.")
        names.append(name)
        files &= set(can)
    shared = [path for path in paths if path in files]
    if not shared:
        return rows, [*remarks, "There is no file that all can read."]
    times: dict[str, list[float]] = {name: [] for name in ["ours", *names]}
    with others.silence():
        for _ in range(repeat):
            times["ours"].append(seconds_with_children(ours_of_any, shared))
            for name in names:
                times[name].append(seconds_with_children(others.READERS[name][0], shared))
    medians = {name: statistics.median(all_) for name, all_ in times.items()}
    for name in names:
        rows.append({"reader": name, "files": len(shared), "times_ours": medians[name] / medians["ours"]})
    return rows, remarks


def real_files(folder: Path) -> list[str]:
    """Up to `_MOST` files of a folder, evenly from all of them."""
    found = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    return found[:: max(len(found) // _MOST, 1)][:_MOST]


def weighed(medians: dict[str, dict[str, float]]) -> dict[str, float]:
    """Seconds for one file of the mix."""
    whole = sum(KINDS[kind][1] for kind in medians)
    return {
        name: sum(KINDS[kind][1] * found[name] for kind, found in medians.items()) / whole
        for name in ("naive", "ours", "limit")
    }


def report(medians: dict[str, dict[str, float]]) -> list[dict[str, float | str | None]]:
    """Rows of the table: files a second of each reading, and how many times naive ours is."""
    return [
        {
            "kind": kind,
            "naive_per_second": 1 / found["naive"],
            "ours_per_second": 1 / found["ours"],
            "limit_per_second": 1 / found["limit"],
            "times_naive": found["naive"] / found["ours"],
            "goal": GOALS.get(kind),
        }
        for kind, found in {**medians, "mix": weighed(medians)}.items()
    ]


def plot(rows: list[dict[str, float | str | None]], path: Path) -> bool:
    """Bars of the ratios, where matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    names = [str(row["kind"]) for row in rows][::-1]
    bars = axes.barh(names, [float(row["times_naive"] or 0) for row in rows][::-1])
    axes.bar_label(bars, fmt="×%.0f", padding=3)
    for place, row in enumerate(reversed(rows)):
        if row["goal"]:
            axes.plot([float(row["goal"])] * 2, [place - 0.4, place + 0.4], color="black")
    axes.set_xlabel("times a naive pydicom loop, one process (black: goal)")
    figure.savefig(path, dpi=120)
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=1_500, help="size of the corpus")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the corpus is written and stays")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--real", type=Path, default=Path("../shared/corpus"), help="real files, if it is there")
    parser.add_argument("--plot", type=Path, help="PNG; beside --json by default")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="bench-reader-") as temporary:
        written = generate(args.folder or Path(temporary), args.files, args.seed)
        kinds = {kind: [str(path) for path in paths] for kind, paths in written.items()}
        mixed = [path for paths in kinds.values() for path in paths[:_OF_EACH]]
        rows = report(measure(kinds, args.repeat))
        compared = {"generated": compare(mixed, args.repeat)}
        if args.real.is_dir():
            compared["real"] = compare(real_files(args.real), args.repeat)
    print(f"{'files a second':20} {'naive':>8} {'ours':>8} {'limit':>8} {'ratio':>8}  goal")
    for row in rows:
        goal = (
            ""
            if row["goal"] is None
            else f"≥ {row['goal']:.0f} " + ("ok" if float(row["times_naive"] or 0) >= float(row["goal"]) else "MISSED")
        )
        print(
            f"{row['kind']:20} {row['naive_per_second']:8.1f} {row['ours_per_second']:8.0f} "
            f"{row['limit_per_second']:8.0f} {'×%.1f' % row['times_naive']:>8}  {goal}"  # noqa: UP031
        )
    for what, (found, remarks) in compared.items():
        print(f"\nprocessor time of others, as times of ours, {what} files:")
        for one in found:
            print(f"{one['reader']:20} ×{one['times_ours']:.1f}  ({one['files']} files)")
        print("\n".join(remarks))
    if "real" not in compared:
        print(f"no real files: {args.real} is not there")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MB; Python {platform.python_version()}, pydicom {pydicom.__version__}")
    others_by_name = {what: found for what, (found, _) in compared.items()}
    if args.json:
        args.json.write_text(
            json.dumps({"rows": rows, "others": others_by_name, "peak_mb": peak, "files": args.files}, indent=1) + "\n"
        )
    picture = args.plot or (args.json.with_suffix(".png") if args.json else None)
    if picture and not plot(rows, picture):
        print("no plot: matplotlib is not installed")


if __name__ == "__main__":
    main()
