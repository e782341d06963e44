"""The picture size that a JPEG, JPEG-LS or JPEG 2000 stream states itself, read without decoding it."""

from __future__ import annotations

J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ (ISO/IEC 15444-1 annex A)
NO_SIZE = {0xC4, 0xC8, 0xCC}  # among the SOF codes: Huffman tables, reserved, arithmetic conditioning
STARTS_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - NO_SIZE  # ITU-T T.81 table B.1; F7 is JPEG-LS (T.87)


def stated_size(stream: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels, or None when the stream does not say."""
    start = stream.find(J2K_START, 0, 1024)
    if start >= 0:
        x1, y1, x0, y0 = (int.from_bytes(stream[start + i : start + i + 4], "big") for i in (8, 12, 16, 20))
        return y1 - y0, x1 - x0
    if not stream.startswith(b"\xff\xd8"):
        return None
    position = 2
    while position + 9 <= len(stream) and stream[position] == 0xFF:
        code = stream[position + 1]
        if code in STARTS_OF_FRAME:
            height, width = (int.from_bytes(stream[position + i : position + i + 2], "big") for i in (5, 7))
            return height, width
        position += 1 if code == 0xFF else 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    return None
