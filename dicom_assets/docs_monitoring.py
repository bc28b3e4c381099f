"""The page `docs/monitoring.md`: what each number means, made from the table of numbers, and how they are looked at."""

from __future__ import annotations

from collections.abc import Iterable

from dicom_assets.alert_settings import Occasion
from dicom_assets.monitoring.families import OF_THE_LAKE, OF_THE_SERVER, Family


def _numbers(families: Iterable[Family], *, origins: bool) -> str:
    heads = ["number", "kind", "labels", "what it says", *(["read from"] if origins else [])]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for one in families:
        cells = [f"`{one.sample_name}`", str(one.kind), ", ".join(f"`{label}`" for label in one.labels), one.meaning]
        lines.append(f"| {' | '.join([*cells, *([one.origin] if origins else [])])} |")
    return "\n".join(lines)


_OCCASIONS = {
    Occasion.PAUSED: "a batch is paused: a check holds it back",
    Occasion.FAILED: "a batch failed: its run broke off",
    Occasion.STALE: "objects wait for longer than `waiting_minutes`: seen and not claimed, claimed and not begun, "
    "begun and not closed, or given back to be read again",
    Occasion.SILENT: "no batch of a source has closed for `silent_hours`; without that setting no source is silent",
    Occasion.SOURCE_EMPTIED: "a source holds so much less than before that it is not believed",
    Occasion.RUN_FAILED: "a run of another job failed: windows of a DICOM service, an audit, maintenance; by the "
    "sensor alone",
}


def _occasions() -> str:
    lines = ["| `on` | when |", "|---|---|", *(f"| `{one}` | {_OCCASIONS[one]} |" for one in Occasion)]
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
once. A lake of a million objects in twenty batches took 0.4 s of processor time, opening it included, and 0.04 s each
further time.

### Of the server

{_numbers(OF_THE_SERVER, origins=False)}

## Dashboard and alert rules

`deploy/grafana/dicom-assets.json` is a dashboard to import into Grafana: what waits and since when, what became of what
came, feeds that lag, tables, the server. `deploy/prometheus/dicom-assets.rules.yml` has alert rules; name it in
`rule_files` of Prometheus. Their bounds are a start: an hour of waiting, a tenth of six hours quarantined.
`promtool test rules` tries each of them with `deploy/prometheus/dicom-assets.rules.test.yml`.

## Telling people

```toml
[[alerts]]
kind = "slack"                              # or Mattermost
url_variable = "IMAGING_SLACK_HOOK"         # the environment variable that holds the address, which is a secret
on = ["paused", "failed", "source_emptied"]

[[alerts]]
kind = "mail"
to = ["imaging-data@example.org"]
sender = "lake@example.org"
host = "smtp.example.org"
security = "starttls"                       # port 587; "tls": 465; "none": 25
user_variable = "MAIL_USER"
password_variable = "MAIL_PASSWORD"
waiting_minutes = 120                       # what waits longer is stale
silent_hours = 24                           # a source of which no batch closes for so long is silent
dagster_url = "https://dagster.example.org"

[[alerts]]
kind = "webhook"
name = "pager"
url = "https://events.example.org/imaging"
token_variable = "PAGER_TOKEN"              # sent as a bearer token
sources = ["ct-room"]                       # only what is about these
```

```sh
dicom-assets alerts test mail               # does a message arrive?
dicom-assets alerts send --lake /srv/lake   # for cron, where no Dagster daemon runs
```

{_occasions()}

Dagster's sensor `alerts`, which is there when somebody is to be told, looks once a minute; `dicom-assets ingest` tells
when it has run its batches. Both look at the state of the lake and not at events: what happened while nobody listened
is told, and a batch is told once for each state and rule that stopped it, however often it is run again, until its
books close. A receiver that is away, or refuses, fails no run and is told with a later tick. A message may arrive
twice after a kill, and then has the same `id` (mail: `Message-ID`).

A message holds the batch's id, its source, why it waits, its reason codes with their counts, and the command that shows
more; with `dagster_url` a link to the run. A webhook gets JSON with the keys `id`, `kind`, `source`, `batch`, `since`,
`text`, `reason`, `codes`, `commands`, `run_id` and `url`. Secrets come from environment variables and have no place in
the file.

## Lineage

```toml
[lineage]
url = "https://marquez.example.org"         # of a server that speaks OpenLineage
api_key_variable = "LINEAGE_KEY"            # sent as a bearer token
namespace = "hospital"                      # of jobs and sources
```

With `pip install 'dicom-assets[lineage]'` the sensor `lineage` tells a server of OpenLineage (Marquez, DataHub and
others) of each run of a batch that has ended: a run of job `ingest_batch` with the tags `batch` and `source`, and below
it one for each step, with the tables that it read and made, their columns with descriptions and where these come from,
and rows of the batch. Tables are called by where they lie, as Spark calls them, so that what others make from them
joins on. A failure says which step it was and not what it said. Events are sent when a run has ended, with the times at
which it began and ended; a server that is away gets them later.
"""
