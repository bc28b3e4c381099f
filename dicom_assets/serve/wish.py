"""How somebody wants a frame drawn, apart from what draws it, which the server's own process never imports."""

from __future__ import annotations

from typing import NamedTuple


class Wish(NamedTuple):
    """How an image is wanted.

    kind: image/jpeg or image/png. quality: 1 to 100, of JPEG. size: width and height into which it is fitted. part: x,
    y, width, height of the source; a negative width or height mirrors. window: centre, width, function of VOI LUT.
    """

    kind: str
    quality: int = 90
    size: tuple[int, int] | None = None
    part: tuple[int, int, int, int] | None = None
    window: tuple[float, float, str] | None = None
