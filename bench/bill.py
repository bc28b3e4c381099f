"""What objects cost on Azure: requests by the classes that the bill knows, and bytes, of an ingest from blobs to blobs.

Belongs here: counting. Does not belong here: prices, which differ by region, tier and year, and seconds (`requests`).

    python -m bench.bill [--files N] [--json FILE]

N files and three times as many are ingested on Azurite, each into a lake of its own, behind a proxy that counts. What
grows with the number of objects and what a batch costs whatever it holds follow from the two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.corpus import generate
from dicom_assets_tests.azure import azurite

_LARGEST = 2_000_000  # bytes; larger files change nothing but the time that it takes to put them into the emulator
CLASSES = ("list", "read", "write", "other")


def billed(method: str, path: str) -> str:
    """The class of operation that a request is billed as; deleting is free."""
    if method == "GET":
        return "list" if "comp=list" in path else "read"
    if method == "PUT":
        return "other" if "comp=lease" in path else "write"
    return "free" if method == "DELETE" else "other"


def ingest(files: list[Path], folder: Path) -> Counter[str]:
    """Puts files into a container and ingests them into another; counts by `{which} {class}`, and bytes."""
    counts: Counter[str] = Counter()
    landing, lake = azurite.new_container(), azurite.new_container()
    for number, path in enumerate(files):
        landing.put(f"{number:06}.dcm", path.read_bytes())
    with azurite.proxy(os.environ["AZURITE_BLOB_STORAGE_URL"]) as proxy:

        def count(method: str, path: str, came: int, went: int) -> None:
            which = "landing" if landing.client.container_name in path else "lake"
            counts[f"{which} {billed(method, path)}"] += 1
            counts[f"{which} bytes written"] += came
            counts[f"{which} bytes read"] += went if method == "GET" else 0

        proxy.answered = count
        folder.mkdir()
        environment = {**os.environ, "AZURITE_BLOB_STORAGE_URL": proxy.url, "DAGSTER_HOME": str(folder)}
        command = [sys.executable, "-c", "from dicom_assets.cli.main import main; main()", "ingest"]
        command += ["--landing", landing.url, "--lake", lake.url]
        subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
    counts["lake bytes kept"] = sum(blob.size for blob in lake.client.list_blobs())
    for container in (landing, lake):
        container.client.delete_container()
    return counts


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if azurite.executable() is None:
        print(azurite.HOW)
        sys.exit(0)
    with tempfile.TemporaryDirectory() as folder, azurite.azurite(Path(folder)) as environment:
        work = Path(folder)
        config = work / "dicom-assets.toml"
        config.write_text("[claiming]\nquiet_seconds = 0\n", encoding="utf-8")
        os.environ.update(environment, DICOM_ASSETS_CONFIG=str(config))
        generate(work / "corpus", 5 * args.files)
        small = [p for p in sorted((work / "corpus").rglob("*")) if p.is_file() and p.stat().st_size < _LARGEST]
        few, many = args.files, 3 * args.files
        if len(small) < few + many:
            raise SystemExit(f"The corpus has {len(small)} files below {_LARGEST} bytes; {few + many} are needed")
        one = ingest(small[:few], work / "one")
        two = ingest(small[few : few + many], work / "two")
    print(f"{'':28}{few:>12}{many:>12}{'an object':>12}{'a batch':>12}")
    for name in sorted(two):
        slope = (two[name] - one[name]) / (many - few)
        print(f"{name:28}{one[name]:>12}{two[name]:>12}{slope:>12.3f}{one[name] - slope * few:>12.1f}")
    if args.json:
        args.json.write_text(json.dumps({"files": [few, many], "few": one, "many": two}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
