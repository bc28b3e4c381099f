"""Numbers as text: OpenMetrics 1.0 for who scrapes, Prometheus' older text format for what node_exporter collects.

Belongs here: heads, samples, escaping. Does not belong here: which numbers there are (`families`), finding them
(`numbers`).

The two differ in what a counter is called in its head and in the line at the end. This is written here and not by
prometheus_client, since what is written is read from the lake as a whole each time: that library's registry of values
that a program counts up, and its files for several processes, would be bypassed, and what is left of it is below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from dicom_assets.monitoring.families import FAMILIES, Family, Kind

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
"""The media type of OpenMetrics."""

Samples = Mapping[str, Mapping[tuple[str, ...], float]]
"""By name of a family without the prefix, values by the values of its labels."""


def openmetrics(families: Iterable[Family], samples: Samples) -> Iterator[str]:
    """Lines of OpenMetrics, without the `# EOF` that ends them. Families without samples are left out."""
    for family, values in _present(families, samples):
        yield from head(family)
        yield from _lines(family, values)


def prometheus(families: Iterable[Family], samples: Samples) -> Iterator[str]:
    """Lines of Prometheus' text format 0.0.4. Families without samples are left out."""
    for family, values in _present(families, samples):
        yield f"# HELP {family.sample_name} {_help(family.meaning)}"
        yield f"# TYPE {family.sample_name} {family.kind}"
        yield from _lines(family, values)


def _present(families: Iterable[Family], samples: Samples) -> Iterator[tuple[Family, Mapping[tuple[str, ...], float]]]:
    names = {family.name: name for name, family in FAMILIES.items()}
    for family in families:
        if values := samples.get(names[family.name]):
            yield family, values


def head(family: Family) -> Iterator[str]:
    """What OpenMetrics says of a family before its samples."""
    yield f"# TYPE {family.name} {family.kind}"
    if family.unit:
        yield f"# UNIT {family.name} {family.unit}"
    yield f"# HELP {family.name} {_help(family.meaning)}"


def _lines(family: Family, values: Mapping[tuple[str, ...], float]) -> Iterator[str]:
    if family.kind is Kind.HISTOGRAM:
        raise AssertionError("whoever counts a histogram writes its samples")
    for labels, value in sorted(values.items()):
        yield f"{family.sample_name}{labelled(family, labels)} {number(value)}"


def labelled(family: Family, values: Iterable[str]) -> str:
    """The labels of a sample in braces; nothing where a family has none."""
    pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(family.labels, values, strict=True)]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def number(value: float) -> str:
    """A value; a whole one without a fraction, whatever its size."""
    return str(int(value)) if float(value).is_integer() else repr(round(value, 6))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
