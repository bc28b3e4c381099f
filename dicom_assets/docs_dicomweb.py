"""The page `docs/dicomweb.md`: what the server conforms to, in the form of PS3.2, and how it is set up.

Belongs here: Markdown around the list of resources and the settings. Does not belong here: the list (`serve.routes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus

from dicom_assets.schema.attributes import Level
from dicom_assets.serve.answer_headers import EXPOSED
from dicom_assets.serve.answers import ALWAYS
from dicom_assets.serve.description import EVERYWHERE, MULTIPART, WHEN_STORING, comes_in_parts
from dicom_assets.serve.questions import BODIES_AT_ONCE
from dicom_assets.serve.resource import Parameter, Resource
from dicom_assets.serve.routes import ROUTES
from dicom_assets.serve.turns import BEGINNING_SECONDS, PAUSE_SECONDS
from dicom_assets.serve_settings import ServeSettings

_SERVICES = (
    ("Search (QIDO-RS)", ("10.6",)),
    ("Retrieve (WADO-RS)", ("10.4",)),
    ("Store (STOW-RS)", ("10.5",)),
    ("Retrieve by URI (WADO-URI)", ("9",)),
)
"""Services, with the beginnings of the sections of PS3.18 in which their transactions stand."""

_MEANINGS = {
    200: "Answered.",
    202: "Some objects were stored, or one with a warning.",
    206: "A part of the bytes, as `Range` asked; or those objects of several that are there.",
    304: "What the client has (`If-None-Match`) is current.",
    400: "A parameter, a path or the Host header cannot be understood; the sentence says which.",
    401: "A token is needed.",
    403: "Storing is not allowed to this caller, or a page of another origin asks.",
    404: "There is no such resource, or the caller may not see it: these are told apart by nothing.",
    405: "The resource does not know the method.",
    406: "None of the media types asked for can be given.",
    408: "The body stopped coming.",
    409: "Nothing was stored, or the object cannot be given as it is.",
    410: "The object is gone or was changed since it was read.",
    411: "The length of the body must be given.",
    413: "The body is too large.",
    414: "The address is too long.",
    415: "A body of that media type is not taken.",
    416: "No such range of bytes.",
    421: "The Host header names another server.",
    422: "Frames cannot be decoded or rendered.",
    429: "Too many requests; `Retry-After` says how long to wait.",
    431: "The headers are too long.",
    500: "A fault that nobody foresaw: type and place are said, never its text.",
    503: "The lake, a source or the audit log is away, or too much is asked; `Retry-After` says when to come back.",
}


PARTS = " ⁺"
"""Marks media types that come as parts."""


def dicomweb_page() -> str:
    """docs/dicomweb.md."""
    return "".join((_HEAD, _conformance(), _ACCESS, _settings(), _RETRIEVING, _REST))


def _conformance() -> str:
    services = "\n".join(_service(name, sections) for name, sections in _SERVICES)
    return f"""## Conformance

In the form of PS3.2; the tables are made from the list of resources that the server answers by.

### Overview

| service of PS3.18 | as origin server | as user agent |
|---|---|---|
{_overview()}
| Worklist (UPS-RS) | no | no |
| Non-Patient Instances, Storage Commitment, Inventories | no | no |

`/openapi.json` describes the same resources for programs (OpenAPI 3.1); OPTIONS on a resource says which methods it
knows. There is no description in WADL (Retrieve Capabilities, PS3.18 8.9).

### Addresses

Each resource stands at three places, which differ in what is seen:

| below | |
|---|---|
| `/dicom-web` | all sources; of several objects with the same UIDs the newest, by time of the version |
| `/dicom-web/{{source}}` | one source |
| `/dicom-web/{{source}}/{{partition}}` | a data partition of a DICOM service, which is part of its source's name |

{services}
### Statuses

Every answer may have, beside those of its resource: {_listed(EVERYWHERE)}; when storing also {_listed(WHEN_STORING)}.
A refusal is a sentence as `text/plain`. It repeats no value, which may be a patient's.

| status | meaning |
|---|---|
{_statuses()}

### Communication and media

- HTTP/1.1 over TCP, IPv4 or IPv6. No TLS of its own: put a proxy that speaks it before the server.
- HEAD is answered where GET is. What is not listed here is not there.
- JSON and pages above 1 KB are compressed (gzip) when the client accepts it; objects and frames never are. ETags are
  weak and hold for both forms.
- Text is UTF-8; what an object holds as text was decoded when it was read.
- No attribute is coerced, and no private attribute is needed. Corrections of the lake
  ([stewardship.md](stewardship.md)) show in searches and metadata, not in objects, which are the very bytes that
  arrived.

"""


def _overview() -> str:
    users = {"Search (QIDO-RS)": "yes", "Retrieve (WADO-RS)": "yes", "Store (STOW-RS)": "yes"}
    rows = []
    for name, sections in _SERVICES:
        server = "yes" if _resources(sections) else "no"
        user = f"{users[name]}: [dicom-service.md](dicom-service.md)" if name in users else "no"
        rows.append(f"| {name} | {server} | {user} |")
    return "\n".join(rows)


def _resources(sections: Sequence[str]) -> list[Resource]:
    return [one for one in ROUTES if one.section in sections or one.section.split(".")[0] in sections]


def _service(name: str, sections: Sequence[str]) -> str:
    resources = _resources(sections)
    if not resources:
        return ""
    rows = "\n".join(
        f"| {one.transaction} | {one.method} | `{one.path or '(the base itself)'}` | {_kinds(one.gives)}"
        f"{PARTS if comes_in_parts(one) else ''} | "
        f"{_listed(one.statuses)} |"
        for one in resources
    )
    if any(map(comes_in_parts, resources)):
        rows += f"\n\n{PARTS.strip()} As parts of `{MULTIPART}`, or alone for clients that accept no parts."
    taken = sorted({kind for one in resources for kind in one.takes})
    bodies = f"\nBodies: {_kinds(taken)}.\n" if taken else ""
    returned = _returned() if name.startswith("Search") else ""
    return f"""### {name}

PS3.18 {", ".join(sorted({one.section for one in resources}))}.

| transaction | method | path | media types, the default first | statuses |
|---|---|---|---|---|
{rows}
{bodies}{_parameters(resources)}{returned}"""


def _parameters(resources: Iterable[Resource]) -> str:
    found: dict[str, Parameter] = {}
    for one in resources:
        found |= {parameter.name: parameter for parameter in one.parameters}
    if not found:
        return ""
    rows = "\n".join(f"| `{one.name}` | {one.kind} | {one.meaning} |" for one in found.values())
    return f"""
| parameter | type | |
|---|---|---|
{rows}
"""


_SEARCHING = """\
- Studies come by StudyDate, the newest first, series by SeriesNumber, instances by InstanceNumber, and by UID where
  these are equal. When there is more than an answer has, the header `Warning: 299` says so.
- Attributes of a study are those of its row in `study`, attributes of a series those of its row in `series`, whatever
  is searched: one row stands for all of its instances ([tables.md](tables.md)). Where several sources hold a study,
  its newest row stands for it, with the modalities and counts of all of their instances.
- Numbers of series and instances are counted in the lake, never what objects say. Corrected attributes are searched
  and given as they were corrected.
- Columns have one value where an attribute has one, and what does not fit its type is NULL there: such values are
  found by nothing. Names of persons are searched and given by their alphabetic representation, code sequences by
  their first item; `/metadata` has what was written. Offsets from UTC in keys and values are not reckoned with.
- A time or a date with time stands for all moments that its missing parts leave open: `1405` is a minute.
- Any other attribute is answered from headers when a study or series is named, in the path or by its UID, of 20,000
  instances at most; there a study or series says what the newest of its instances does. `dicom-assets columns add`
  makes it one that can be searched for everywhere at its level.
- `Modality` of studies matches ModalitiesInStudy. Included attributes of a level below are left out.
"""


def _returned() -> str:
    rows = "\n".join(f"| {level.value} | {' '.join(f'`{tag}`' for tag in ALWAYS[level])} |" for level in Level)
    return f"""
Attributes of every answer, those of the levels above where they are not in the path, and `00080056` and `00081190`
besides; an attribute without a value is left out:

| level | |
|---|---|
{rows}

{_SEARCHING}"""


def _kinds(kinds: Iterable[str]) -> str:
    return ", ".join(f"`{one}`" for one in kinds)


def _listed(statuses: Iterable[int]) -> str:
    return ", ".join(map(str, statuses))


def _statuses() -> str:
    used = {*EVERYWHERE, *WHEN_STORING, 500, *(status for one in ROUTES for status in one.statuses)}
    return "\n".join(f"| {one} {HTTPStatus(one).phrase} | {_MEANINGS[one]} |" for one in sorted(used))


def _settings() -> str:
    rows = "\n".join(
        f"| `{name}` | {field.default:,} |"
        for name, field in ServeSettings.model_fields.items()
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    )
    return f"""## Limits

In the section `[serve]`, for each process. What a bound refuses is said with its status: 429 for requests a second
(`burst` at once), 503 for requests at once, 414, 431 and 413 for sizes. A client that takes nothing of its answer for
`stall_seconds` is cut off, and so is one whose head is not there after `head_seconds`. Who breaks off leaves nothing
behind: its query is stopped. What metadata, objects and images are made from is looked up for {BODIES_AT_ONCE} answers
at a time, beside searches, so that these do not wait behind it, and on Linux by threads that give way to them; whoever
has waited for `query_seconds` is told to come back. Clients that wait get their turns in rotation: those of one token,
user or address are one client, and a connection that has taken an answer is one by itself. Requests of connections that
have taken none begin one after the other, when no other request is about to begin and none of a connection that has
taken one was so for {PAUSE_SECONDS * 1_000:.0f} ms, and one every {BEGINNING_SECONDS * 1_000:.0f} ms whatever the
others do; one that waits for bytes of objects has begun.

| setting | default |
|---|---|
{rows}

"""


_HEAD = """# DICOMweb

Made from `dicom_assets/serve/routes.py` by `make docs`; a test keeps it current.

```sh
dicom-assets serve                              # http://127.0.0.1:8050/dicom-web, for this machine alone
dicom-assets serve --lake /srv/lake --port 0    # any free port; it is printed
dicom-assets serve --workers 4                  # four processes that answer
```

The lake answers what a PACS answers, in place: searches from the tables, metadata from the headers that they hold,
bytes from where the objects lie, a folder, a zip or a container. Nothing is copied and nothing is written, unless
storing is switched on. A batch that closes is seen within two seconds. SIGTERM and Ctrl+C end the server in order.

"""

_ACCESS = f"""## Who may see what

On 127.0.0.1 (`localhost`, `::1`) nobody is asked who they are, as long as neither tokens nor a proxy are set: only this
machine reaches the server. The Host header must name this machine, since a page elsewhere could let its own name
resolve to 127.0.0.1. On any other address the server starts only with tokens or with a proxy.

### Tokens

```toml
[[serve.tokens]]
name = "radiology"                          # stands in the audit log
variable = "RADIOLOGY_TOKEN"                # the environment variable that holds the token

[[serve.tokens]]
name = "research"
variable = "RESEARCH_TOKEN"
sources = ["ct-room", "service/*"]          # `service/*`: each of its data partitions
condition = "PatientID LIKE 'STUDY7-%'"     # SQL over the columns of `study`
may_store = true                            # into sources that take objects
may_make_cohorts = true                     # of what a search in the catalogue finds
```

```sh
export RADIOLOGY_TOKEN=$(openssl rand -hex 32) RESEARCH_TOKEN=$(openssl rand -hex 32)
dicom-assets serve --host 0.0.0.0
curl -H "Authorization: Bearer $RESEARCH_TOKEN" http://127.0.0.1:8050/dicom-web/studies
```

A token is sent as `Authorization: Bearer …` and is compared in a time that tells nothing. Its variable must hold at
least 16 characters. A condition is tried when the server starts; it must be one expression. What a token may not see is
not there: searches, counts, metadata, bulk data and objects are made from tables narrowed to it. With `sources = []` a
token sees no study; with `may_watch = true` as well it is what a scraper of `/metrics` needs. Tokens travel in clear
over HTTP: let nobody reach the server but through TLS. A browser that has signed in by a token
([catalogue.md](catalogue.md#who-may-see-what)) is known by a cookie, for looking alone.

### A proxy that signs people in

```toml
[serve.proxy]
addresses = ["10.0.3.7"]               # or networks: what comes from elsewhere is not believed
user_header = "X-Forwarded-User"       # the proxy must drop it from what clients send
condition = "PatientID NOT LIKE 'VIP%'"
```

The name in the header stands in the audit log. `X-Forwarded-Host`, `X-Forwarded-Proto` and `X-Forwarded-Prefix` of the
proxy make absolute addresses in answers those that clients can reach. Do not declare 127.0.0.1 on a machine where
others may run programs: they could give any name.

### Viewers

The plain viewer (`/view/…`), OHIF where it is installed (`/ohif/`) and a viewer of your own have the rights of whoever
opens them; `viewer_folder`, `viewer_url` and `viewer_name` are in [viewers.md](viewers.md).

### Other names, and pages elsewhere

```toml
[serve]
hosts = ["pacs.example.org"]                   # by which clients reach the server
origins = ["https://viewer.example.org"]       # pages that may ask from a browser (CORS)
```

Other origins get no answer that their pages can read; a preflight is answered with 204 before a token is asked for,
since browsers send none with it. Exposed headers: `{EXPOSED}`. A page may never store by a form or a link.

"""

_RETRIEVING = """## Retrieving

Bytes come from where objects lie, by range where that can be: a native frame is one read.

- **Metadata** are stored headers without File Meta Information, with `00081190` and `00083002`. Values of more than 64
  bytes are addresses, `…/bulkdata/{offset}-{length}`; the tag of an element of the object itself does as well, such as
  `…/bulkdata/7FE00010`. Corrected attributes are given as they were corrected; objects and frames never change. Of rows
  that a release wrote which left bulk data out, `PixelData` is such an address where the header says that there are
  pixels; other bulk data come with reading the object again.
- **Frames** come as they are stored, native ones in little endian whatever they are stored in. With
  `transfer-syntax=1.2.840.10008.1.2.1` they are decoded, colour as RGB. A frame that does not decode is refused with
  422 and the code `FRAME_UNDECODABLE`; among others it is a part of `text/plain` that begins with the code.
- **Objects** come in no other transfer syntax than theirs. Of a study or series of which some are gone, the others come
  with 206 and a `Warning`. One that changes while it is sent is broken off.
- **Images** (`rendered`, `thumbnail`, WADO-URI) show the frame in the middle unless one is named, and of a series or
  study the instance in the middle.

Native pixels, RLE, JPEG of 8 bits and JPEG 2000 are decoded by what comes with the package; JPEG-LS, lossless JPEG and
High-Throughput JPEG 2000 by the extra `viewer` (`pip install 'dicom-assets[viewer]'`): GDCM and OpenJPEG. It is done in
processes of their own, so that bytes that crash a decoder cost that one frame. JPEG of 12 bits (Extended) is
given as stored only: the one decoder for it that there is for Python is under the GPL.

| status | what it says of an object |
|---|---|
| 404 | it has no such frame, or no pixels; or a DICOM service has told of it, and holds it |
| 409 | its blob is in an archive tier, which the sentence names; metadata are answered |
| 410 | it is gone at its source, or other bytes lie there by now |
| 422 | this frame cannot be told from the others, ends too early, or does not decode; the code says which |
| 503 | its source cannot be reached; searching and metadata go on |

"""

_REST = """## Storing

Off unless a source says how objects are put there:

```toml
[[sources]]
name = "ct-room"
root = "/srv/landing"
store = "by_date"                      # or "tree": the form that the Azure DICOM service gives its files
```

Then `POST` to `/dicom-web/ct-room/studies`, or to `/dicom-web/studies` where one source alone takes objects, puts them
into its landing zone, whole or not at all; from there they are claimed and accounted for like everything that arrives.
With tokens or a proxy, whoever stores needs `may_store`. Anybody else gets 403.

| `store` | where objects lie below the root |
|---|---|
| `"by_date"` | `YYYY/MM/DD/` and a name made of digests, which says nothing of a patient |
| `"tree"` | `AHDS/{workspace}/dicom/{service}/{partition}/{3 hash characters}_{version}.dcm` |

`tree = "lab/images"` names workspace and service, which are `dicom-assets` and the source's name by default.
`POST /dicom-web/ct-room/Ward-7/studies` stores into the partition `Ward-7` of such a tree.

A tree made here bears a file `.dicom-assets` beside its partitions, which is accounted for and ignored. Where a tree of
that name is there without one, somebody else made it, and storing is refused with 403. Roots within `AHDS/`, and
include or exclude patterns that would leave out what is stored, are refused when the source is opened.

- **Whole or not at all.** In a folder, bytes come into a file without a name, of which a kill leaves nothing; where the
  file system has no such files, into `.storing/` below the root, which no listing enters and which the next process
  that stores clears. In a container, blocks are committed at once; until then they are spooled in a temporary file of
  the server's machine, in the folder that `TMPDIR` names.
- **Accepted** is what the reader of an ingest accepts: C000H for what it cannot understand, A900H where identity is
  missing or the study is another one than in the path, A700H for what is too large (413 when nothing else was stored)
  or cannot be written now (503 when nothing was), 0110H when reading failed for another reason.
- **The same bytes again** are no new version. Other bytes under the same UIDs are one, with warning B000H and 202. What
  is the newest the lake tells, and what this process has stored since (of the last 50,000 objects). What another
  process of the server, or this one before a restart, has stored on the same day and the lake does not have yet, is
  recognised by its name: the same bytes as such, and other ones with the warning, in a folder a second later. A
  tree's names do not tell that, nor is it told to a caller who may see only a part of the source.
- **Broken off**: objects that were whole stay; whoever sends them again is told that they are there. If a body ends
  early, or breaks a bound in its middle, the answer names what was stored, and a `Warning` says why it stopped.

## What is written down

**Access log** (`access_log`, stderr by default): a line of JSON for each request with the template of its route,
status, milliseconds, those of them that it waited for its turn, bytes and an id that the answer has as `X-Request-Id`.
No UID, name, path or query.

**Audit log**: who (the token's name, the user of the proxy), which kind of thing, when, with what status. On stderr as
soon as tokens or a proxy are set; better in a file, which any tool may rotate by moving it away. While it cannot be
written, nothing is shown (503).

```toml
[serve.audit]
file = "/var/log/dicom-assets/audit.ndjson"
key_variable = "AUDIT_KEY"             # at least 16 characters, such as `openssl rand -hex 32`
```

With a key, each line also holds digests (HMAC-SHA256) of the studies that were asked for or shown, and of their
patients. Nobody can read off who that is; whoever has the key can ask:

```sh
dicom-assets who-saw --patient 4711            # who saw a patient, in the log of the settings
dicom-assets who-saw --study 1.2.840.1 /var/log/dicom-assets/audit.ndjson.1    # or in older files
```

A patient is asked for by the Patient ID alone: where two issuers use the same one, ask by the studies. A study that has
left the lake is found by both. Keep the key: without it the digests of older lines say nothing.

**Numbers** for Prometheus (OpenMetrics) at `/metrics`: requests, seconds and bytes by route, and those of the lake
([monitoring.md](monitoring.md)) as far as a token goes: all of them for whoever sees everything or has `may_watch`,
those of its sources for a token of some sources, none for one with a condition. **Health** at `/healthz`, without a
token: 200 as long as the newest version of each table can be read.

## As a service

`deploy/compose.yaml` has it as `dicomweb`, `deploy/kubernetes/dicomweb.yaml` for a cluster; see
[deployment.md](deployment.md). Several servers over one lake need to know nothing of each other.
"""
