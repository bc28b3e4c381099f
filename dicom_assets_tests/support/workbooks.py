"""Workbooks made on the spot, with as little in them as XLSX allows (ECMA-376).

Belongs here: sheets of texts, numbers and dates. Does not belong here: what a landing folder holds (`landings`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from xml.sax.saxutils import escape

from dicom_assets_tests.support.landings import zipped

Cell = str | int | float | bool | dt.datetime | dt.date | None
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_DAY, _MOMENT = 1, 2


def _cell(place: str, value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f'<c r="{place}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, dt.date):
        style = _MOMENT if isinstance(value, dt.datetime) else _DAY
        moment = value if isinstance(value, dt.datetime) else dt.datetime.combine(value, dt.time())
        return f'<c r="{place}" s="{style}"><v>{(moment - dt.datetime(1899, 12, 30)) / dt.timedelta(days=1)}</v></c>'
    if isinstance(value, str):
        return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'
    return f'<c r="{place}"><v>{value!r}</v></c>'


def _sheet(rows: Sequence[Sequence[Cell]]) -> bytes:
    written = (
        f'<row r="{number}">'
        + "".join(_cell(f"{chr(65 + i)}{number}", value) for i, value in enumerate(row))
        + "</row>"
        for number, row in enumerate(rows, start=1)
    )
    return f'<worksheet xmlns="{_MAIN}"><sheetData>{"".join(written)}</sheetData></worksheet>'.encode()


def parts(*sheets: Sequence[Sequence[Cell]], hidden: int = 0) -> dict[str, bytes]:
    """The parts of a workbook; hidden: the number of the sheet that is, from 1."""
    names = range(1, len(sheets) + 1)
    state = {hidden: ' state="hidden"'}
    listed = "".join(f'<sheet name="S{n}" sheetId="{n}" r:id="r{n}"{state.get(n, "")}/>' for n in names)
    related = "".join(
        f'<Relationship Id="r{n}" Type="{_OFFICE}/worksheet" Target="worksheets/s{n}.xml"/>' for n in names
    )
    styles = f'<Relationship Id="s" Type="{_OFFICE}/styles" Target="styles.xml"/>'
    forms = "".join(f'<xf numFmtId="{n}" applyNumberFormat="1"/>' for n in (0, 14, 22))
    types = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
    return {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="xml" '
        f'ContentType="{types}"/></Types>'.encode(),
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="b" '
        f'Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>'.encode(),
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>{listed}</sheets>'
        "</workbook>".encode(),
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">{related}{styles}'
        "</Relationships>".encode(),
        "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}"><cellXfs count="3">{forms}</cellXfs></styleSheet>'.encode(),
        **{f"xl/worksheets/s{n}.xml": _sheet(rows) for n, rows in zip(names, sheets, strict=True)},
    }


def workbook(*sheets: Sequence[Sequence[Cell]], hidden: int = 0) -> bytes:
    """A workbook of these sheets, each a list of rows."""
    return zipped(parts(*sheets, hidden=hidden))
