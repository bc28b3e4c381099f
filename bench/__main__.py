"""`make bench`: every benchmark that can run here, one after the other. `python -m bench NAME …` runs some of them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

PARTS = {
    "reader": ["--json", "build/bench-reader.json"],
    "ingest": ["--memory", "--json", "build/bench-ingest.json"],
    "promise": ["--json", "build/bench-promise.json"],
    "fhir": [],
    "clinical": ["--json", "build/bench-clinical.json"],
    "service": [],
    "dicomweb_retrieve": ["--json", "build/bench-dicomweb-retrieve.json"],
    "blob": [],
    "requests": [],
    "dask": [],
    "dicomweb_search": ["--json", "build/bench-dicomweb-search.json"],
}
"""Benchmarks by module, with their arguments."""


def main() -> None:
    """Runs the named parts, or all of them."""
    from pathlib import Path

    Path("build").mkdir(exist_ok=True)
    failed = 0
    for name in sys.argv[1:] or PARTS:
        if importlib.util.find_spec(f"bench.{name}") is None:
            raise SystemExit(f"There is no benchmark '{name}'. There are: {', '.join(PARTS)}")
        print(f"== {name}", flush=True)
        failed |= subprocess.run([sys.executable, "-m", f"bench.{name}", *PARTS.get(name, [])]).returncode
    sys.exit(failed)


if __name__ == "__main__":
    main()
