"""Reading through Dask against reading in processes of this machine: the same chunks, the same number of processes.

    python -m bench.dask [--rounds N] [--workers N]

What Dask adds is the way of the chunks there and of the Parquet back; the ratio is the median of interleaved rounds.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

from bench.scale import PER_STUDY, write_delivery
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.validate import chunks
from dicom_assets.landing.claims import claim_new
from dicom_assets.reading.dask_engine import DaskEngine
from dicom_assets.reading.engine import ProcessEngine, ReadingEngine
from dicom_assets.reading.judge import judge_chunk
from dicom_assets.settings import Settings


def seconds(work: RunContext, batch: str, engine: ReadingEngine) -> float:
    """Reads a batch that is expanded; nothing is kept."""
    held = work.batch(batch)
    started = time.perf_counter()
    read = sum(
        judged.objects for judged in engine.run(judge_chunk, chunks(held.staging, work.settings, held.source, "bench"))
    )
    assert read == 50 * PER_STUDY
    return time.perf_counter() - started


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    from distributed import LocalCluster

    with tempfile.TemporaryDirectory(prefix="dicom-assets-bench-") as name:
        folder = Path(name)
        write_delivery(folder / "landing", 1_000_000, 1)
        settings = Settings.model_validate(
            {
                "lake": str(folder / "lake"),
                "sources": [{"root": str(folder / "landing")}],
                "reading": {"workers": options.workers},
            }
        )
        with (
            RunContext(settings) as work,
            ProcessEngine(settings.reading) as here,
            LocalCluster(
                n_workers=options.workers, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.ERROR
            ) as cluster,
            DaskEngine(cluster.scheduler_address, settings.reading) as there,
        ):
            (claim,) = claim_new(work.stores()[0], work.log, settings.claiming).claims
            work.batch(claim.batch_id).begin("bench")
            pairs = [
                (seconds(work, claim.batch_id, here), seconds(work, claim.batch_id, there))
                for _ in range(options.rounds + 1)
            ][1:]
    local, dask = (statistics.median(one) for one in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"5,000 objects: processes {local:.2f} s, Dask {dask:.2f} s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
