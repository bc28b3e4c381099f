"""Multipart answers taken apart by Python's own parser of messages, which shares no code with what writes them."""

from __future__ import annotations

import email.parser
import email.policy

import httpx


def parts(answer: httpx.Response) -> list[tuple[dict[str, str], bytes]]:
    """Headers, in lower case, and body of each part."""
    head = b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n"
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + answer.content)
    assert message.is_multipart() and not message.defects
    found = []
    for part in message.iter_parts():
        headers = {name.lower(): str(value).replace('"', "") for name, value in part.items()}  # the parser adds marks
        body = part.get_payload(decode=True)
        assert isinstance(body, bytes)
        found.append((headers, body))
    return found
