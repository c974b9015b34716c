"""A zip archive with a password, as EWoK's terms ask of anything that holds its items.

The traditional encryption of PKWARE's APPNOTE, 6.1, which every unzip and Python's zipfile open. It keeps crawlers out, not readers.
"""

import hashlib
import struct
import zlib
from pathlib import Path

JANUARY_1980 = 33  # the date of every member: the same content is the same archive


def write_protected(path: Path, name: str, content: bytes, password: bytes) -> None:
    """Write an archive with one member."""
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = squeezed.compress(content) + squeezed.flush()
    crc = zlib.crc32(content)
    salt = hashlib.sha256(content).digest()[:11]
    body = encrypted(salt + bytes([crc >> 24]) + packed, password)
    title = name.encode()
    about = struct.pack("<HHHHHIIIHH", 20, 1, zlib.DEFLATED, 0, JANUARY_1980, crc, len(body), len(content), len(title), 0)
    local = b"PK\x03\x04" + about + title + body
    central = b"PK\x01\x02" + struct.pack("<H", 20) + about + struct.pack("<HHHII", 0, 0, 0, 0, 0) + title
    path.write_bytes(local + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0))


def encrypted(content: bytes, password: bytes) -> bytes:
    """Each byte with a byte of the stream that the password and what came before it make."""
    keys = (0x12345678, 0x23456789, 0x34567890)
    for byte in password:
        keys = _next(keys, byte)
    found = bytearray()
    for byte in content:
        mask = keys[2] | 2
        found.append(byte ^ (mask * (mask ^ 1) >> 8 & 0xFF))
        keys = _next(keys, byte)
    return bytes(found)


def _next(keys: tuple[int, int, int], byte: int) -> tuple[int, int, int]:
    first = _crc(keys[0], byte)
    second = ((keys[1] + (first & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
    return first, second, _crc(keys[2], second >> 24)


def _crc(crc: int, byte: int) -> int:
    """A step of CRC-32 without its two inversions."""
    return zlib.crc32(bytes([byte]), crc ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
