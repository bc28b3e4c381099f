"""What a lake on an object store costs: requests and seconds of a small batch, against the same batch into a folder.

Belongs here: counting requests by what they ask for, with a time that each of them takes. Does not belong here: reading
blobs (`blob`).

    python -m bench.requests [--files N] [--milliseconds M] [--json FILE]

The files lie in a folder, the lake on Azurite behind a proxy that lets each request wait, since a batch of few files
costs what its steps ask the storage. The second batch is what counts: the first one makes the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

from bench.corpus import generate
from dicom_assets_tests.azure import azurite

_LARGEST = 2_000_000  # bytes; what a large file costs is another matter


def asked(method: str, path: str) -> str:
    """What a request is about."""
    path = unquote(path)
    if "/_delta_log/" in path:
        return "log, listed" if "comp=list" in path else f"log, {'written' if method == 'PUT' else 'read'}"
    if ".parquet" in path and "_claims" not in path:
        return f"files of tables, {'written' if method == 'PUT' else 'read'}"
    return "locks" if "/_locks/" in path else "staging" if "_staging" in path else "the rest"


def ingest(landing: Path, lake: str, work: Path, environment: dict[str, str]) -> float:
    """Seconds that one ingest takes, as a command from start to end."""
    command = [sys.executable, "-c", "from dicom_assets.cli.main import main; main()", "ingest"]
    command += ["--landing", str(landing), "--lake", lake]
    begun = time.monotonic()
    subprocess.run(command, env={**os.environ, **environment}, cwd=work, check=True, capture_output=True)
    return time.monotonic() - begun


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--milliseconds", type=float, default=10, help="that each request waits before it is answered")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if azurite.executable() is None:
        print(azurite.HOW)
        sys.exit(0)
    with tempfile.TemporaryDirectory() as folder, azurite.azurite(Path(folder)) as environment:
        work = Path(folder)
        config = work / "dicom-assets.toml"
        config.write_text("[claiming]\nquiet_seconds = 0\n", encoding="utf-8")
        os.environ.update(environment)
        os.environ.update(DICOM_ASSETS_CONFIG=str(config))
        generate(work / "corpus", 3 * args.files)
        small = (p for p in sorted((work / "corpus").rglob("*")) if p.is_file() and p.stat().st_size < _LARGEST)
        container = azurite.new_container()
        landing = work / "landing"
        landing.mkdir()
        (work / "home").mkdir()
        counts: Counter[str] = Counter()
        seconds: dict[str, float] = {}
        with azurite.proxy(environment["AZURITE_BLOB_STORAGE_URL"]) as proxy:

            def wait(method: str, path: str) -> None:
                counts[asked(method, path)] += 1
                time.sleep(args.milliseconds / 1_000)

            proxy.refuse = wait
            for batch in range(2):
                for number in range(args.files):
                    shutil.copy(next(small), landing / f"{batch}-{number}")
                counts.clear()
                through = {"AZURITE_BLOB_STORAGE_URL": proxy.url, "DAGSTER_HOME": str(work / "home")}
                seconds["object store"] = ingest(landing, f"{container.url}/lake", work, through)
                os.environ.pop("DAGSTER_HOME", None)
                seconds["folder"] = ingest(landing, str(work / "lake"), work, {})
    report = {"files": args.files, "milliseconds": args.milliseconds, "seconds": seconds, "requests": dict(counts)}
    print(f"a batch of {args.files} files into a lake; each request to the object store waits {args.milliseconds:g} ms")
    for name, taken in seconds.items():
        print(f"  {name:24} {taken:8.1f} s")
    print(f"  {'ratio':24} {seconds['object store'] / seconds['folder']:8.1f}")
    print(f"  {'requests':24} {sum(counts.values()):8}")
    for name, number in counts.most_common():
        print(f"    {name:22} {number:8}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
