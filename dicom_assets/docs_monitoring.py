"""The page `docs/monitoring.md`: what each number means, made from the table of numbers, and how they are looked at."""

from __future__ import annotations

from collections.abc import Iterable

from dicom_assets.monitoring.families import OF_THE_LAKE, OF_THE_SERVER, Family


def _numbers(families: Iterable[Family], *, origins: bool) -> str:
    heads = ["number", "kind", "labels", "what it says", *(["read from"] if origins else [])]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for one in families:
        cells = [f"`{one.sample_name}`", str(one.kind), ", ".join(f"`{label}`" for label in one.labels), one.meaning]
        lines.append(f"| {' | '.join([*cells, *([one.origin] if origins else [])])} |")
    return "\n".join(lines)


def monitoring_page() -> str:
    """The page."""
    return f"""# Looking after a lake

Made by `make docs` from `dicom_assets/monitoring/families.py`; a test keeps it current. Nothing on this page carries
patient data: names, ids, UIDs, descriptions, paths and file names are in none of it, and a test plants some to see.

## Numbers for Prometheus

```sh
dicom-assets metrics --lake /srv/lake                                # prints them
dicom-assets metrics --lake /srv/lake --format openmetrics
dicom-assets metrics --lake /srv/lake --output dicom-assets.prom     # for node_exporter's textfile collector
```

The file is written whole or not at all; a line of cron a minute is enough. `dicom-assets serve` gives the same numbers
at `/metrics`, as OpenMetrics and with its own, at most 15 seconds old:

```yaml
scrape_configs:
  - job_name: dicom-assets
    authorization: {{credentials_file: /etc/prometheus/dicom-assets.token}}
    static_configs: [{{targets: ["pacs.example.org:8050"]}}]
```

A token for a scraper sees no study and all numbers: `sources = []` and `may_watch = true`
([dicomweb.md](dicomweb.md)).

{_numbers(OF_THE_LAKE, origins=True)}

What follows from the books is a gauge although it seldom falls: a batch that is run again is counted anew, and what is
erased leaves the count. Ask for `delta()`, not for `rate()`. An object waits since it was claimed, however often its
batch is run again. A queue that several sources share counts for each of them.

Nothing is scanned but the reason codes of the ledger, and a process that measures again and again reads each file of it
once.

### Of the server

{_numbers(OF_THE_SERVER, origins=False)}
"""
