"""Short runs of the fuzzers of tables and JSON; `make fuzz TARGET=tables` and `TARGET=json` run them for longer."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fuzz import json, tables


@pytest.mark.parametrize("judge, made", [(tables.judge, tables.made), (json.judge, json.made)], ids=["tables", "json"])
def test_input_that_is_made_fails_nowhere(judge: Callable[[bytes], None], made: Callable[..., bytes]) -> None:
    rng = random.Random(20_240_305)
    for _ in range(300):
        judge(made(rng))


@pytest.mark.parametrize(
    "data",
    [
        "PatientID,Dx\nP1,a\n".encode("utf-32"),
        b'sep=;"\r\nPatientID;Taken;n\r\nP1;25.03.2024;1\r\n"P2";;"2;3"\r\n',
        b"sep=;;\r\nPatientID;Taken;n\r\nP1;25.03.2024;1\r\n",
        b'\xef\xbb\xbf;;\r\nPatientID;Taken;n\r\nP1;1;1\r\n"P2";;"2;33"\r\n;3"\r\n',
        b"\xcf\xe0\xf6\xe8\xe5\xed\xf2;\rPatientID;n\n\xc8\xe2\xe0\xed\xee\xe2;P1;1\n",
        b"s|\nPatientID;Taken;n\r\nP1;25.03.2024 14:30 1\r\n",
        b'{"\xbfP\xc3\xa9\x05',
        b"Pa\xff\xff\xff\xff\xff\xff\xff\xfftientID,Tak\r\nn,n\nP1,03.04.2024,1\nP2,2024-03-05,2\n",
        b"Patient\xa0ID;x\nP1;caf\xe9;1\nP2;a;2\n",
    ],
)
def test_tables_at_which_the_readers_once_differed(data: bytes) -> None:
    tables.judge(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"resourceType": Patient", "id": "p"}\r\n{"resourceType": "Patient", "id": "q"}\n',
        b'{"resourceType": "Patient"entry":[", "id": "p"}\r\n{"resourceType": "Patient", "id": "q"}\n',
        b'[{"resourceType": "Patient", "id": "p"}, {"resourceType": "Patient", "id": "q"{}}]',
        b'{}\xef\xbb\xbf"resou}\xef\xbb\xbf"resourceType":"Bundle"\xef\xbb\xbf:\\[\\]\r\n{}',
        b'{"resourceType": "Patient", "id": "p"}entifier": [{"systemm": \xff"value": "P1"}]}\r\n'
        b'{"code": {"text": "x"}, "id": "r", "resourceTy}pe": "DiagnosticReport", "status": "final"}\n',
        b'{"resource\\u0054ype":"Bundle","entry":[{}]}',
        b'{"resourceType":"Bundle","entry":{"resource":{}}}',
    ],
)
def test_json_at_which_the_readers_once_differed(data: bytes) -> None:
    json.judge(data)
