"""Clients that break off in the middle, in a process of their own that leaves the processor to others.

    python -m dicom_assets_tests.serve.breaking PORT CLIENTS PATH…

Belongs here: what such clients do. Does not belong here: what the server makes of it. In threads of a test they would
share its interpreter with the client whose answers are timed.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading


def break_off(port: int, path: str, take: int, abruptly: bool) -> None:
    """Asks, takes a little of the answer, and goes. take: bytes; -1 goes before the question is whole."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as opened:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
        opened.sendall(head.encode() + (b"\r\n" if take >= 0 else b""))
        if take > 0:
            opened.recv(take)
        if abruptly:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def main() -> None:
    """All of them at once."""
    os.nice(19)
    port, clients, paths = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    breaking = [
        threading.Thread(target=break_off, args=(port, paths[n % len(paths)], (100, 0, 1, -1)[n % 4], n % 2 == 0))
        for n in range(clients)
    ]
    print("begins", flush=True)
    for one in breaking:
        one.start()
    for one in breaking:
        one.join(60)


if __name__ == "__main__":
    main()
