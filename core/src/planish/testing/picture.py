"""Whether bytes are the picture that their media type promises, as far as that shows without a decoder."""

from __future__ import annotations

from xml.etree import ElementTree

_WHOLE = {
    "image/jpeg": (b"\xff\xd8\xff", b"\xff\xd9"),
    "image/png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
    "image/gif": (b"GIF8", b";"),
    "image/webp": (b"RIFF", b""),
}
"""How a whole file begins and ends."""


def picture_fault(data: bytes, media_type: str) -> str:
    """Return what is wrong with a picture, as the end of a sentence; an empty string if nothing is.

    Args:
        data: The encoded picture.
        media_type: What it should be.
    """
    if not isinstance(data, bytes) or not data:
        return f"holds {type(data).__name__} instead of bytes" if not isinstance(data, bytes) else "is empty"
    if media_type == "image/svg+xml":
        return _svg_fault(data)
    if media_type not in _WHOLE:
        return f"is {media_type!r}; a page shows {', '.join([*_WHOLE, 'image/svg+xml'])}"
    begins, ends = _WHOLE[media_type]
    whole = data.startswith(begins) and data.endswith(ends)
    if media_type == "image/webp":
        whole = whole and data[8:12] == b"WEBP" and len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return "" if whole else f"is no whole {media_type}: it begins with {data[:8]!r} and ends with {data[-8:]!r}"


def _svg_fault(data: bytes) -> str:
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        return f"is no SVG: {error}"
    if root.tag != "{http://www.w3.org/2000/svg}svg":
        return f'is no SVG: its root is {root.tag!r}; write xmlns="http://www.w3.org/2000/svg"'
    return ""
