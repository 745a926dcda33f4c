"""Random mutations of bytes and of texts, reproducible by seed."""

from __future__ import annotations

import random
import re
import struct

_WORDS = (
    *(b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\x00\x00\x00"),
    *(b"\x00\x01\x86\xa0", b"\xa0\x86\x01\x00", b"\x00\x00", b"\xff\xff", b"\x00\x00\x00\x01"),
)
"""Sizes and counts that a file may declare, in both byte orders."""

_NUMBERS = (
    *("0", "-1", "1e999", "-1e999", "nan", "NaN", "Infinity", "1e-400", "0x10", "1_0", "٣"),
    *("4096", "4097", "65536", "100000", "1000000000", "9223372036854775808", "1e18", "0.5"),
    *("-9999999", "1" + "0" * 400, "1" + "0" * 5000, "true", "null", '""', "[]", "{}"),
)

_TEXTS = (
    *("", "\x00", "\n", "\r", '"', "'", "\\", ",", ";", "\t", "{", "}", "[", "]", ":", "=", "/"),
    *("../../x", "/etc/passwd", "%s%n", "\u202e", "é", "\ufeff", "a" * 3000, "#", "\x1b[31m"),
)

_NESTED = 20_000
_LONGEST = 1_000_000


def mutated_bytes(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Returns bytes with one to five changes.

    Args:
        data: to change.
        rng: of the changes.
        other: source of copied parts; `data` itself if empty.
    """
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        # Half of the changes are in the first bytes, which are usually a header.
        span = len(result) if rng.random() < 0.5 else min(len(result), 120)
        at = rng.randrange(span) if span else 0
        length = rng.choice((1, 2, 4, 16, 200))
        kind = rng.randrange(8)
        if kind == 0 and span:
            result[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            result[at : at + length] = rng.randbytes(length)
        elif kind == 2:
            word = rng.choice(_WORDS)
            result[at : at + len(word)] = word
        elif kind == 3:
            del result[at : at + length]
        elif kind == 4:
            result[at:at] = result[at : at + length] * rng.choice((1, 2, 50))
        elif kind == 5:
            del result[at:]
        elif kind == 6 and (source := other or data):
            begin = rng.randrange(len(source))
            result[at : at + length] = source[begin : begin + length]
        elif span >= 4:
            place = min(at, len(result) - 4)
            order = rng.choice("<>")
            (value,) = struct.unpack_from(f"{order}I", result, place)
            changed = value * rng.choice((2, 256, 65536)) + rng.choice((-1, 0, 1))
            struct.pack_into(f"{order}I", result, place, changed % 2**32)
    return bytes(result)


def mutated_text(text: str, rng: random.Random) -> str:
    """Returns a text with one to four changes of its numbers, words and lines."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        if len(text) > _LONGEST:
            break
        kind = rng.randrange(8)
        numbers = list(re.finditer(r"-?\d[\d.eE+-]*", text))
        words = list(re.finditer(r"[A-Za-z_]\w*", text))
        lines = text.splitlines(keepends=True)
        if kind <= 1 and numbers:
            text = _replaced(text, rng.choice(numbers), rng.choice(_NUMBERS))
        elif kind == 2 and words:
            text = _replaced(text, rng.choice(words), rng.choice(words)[0])
        elif kind == 3 and words:
            text = _replaced(text, rng.choice(words), rng.choice(_TEXTS + _NUMBERS))
        elif kind == 4 and lines:
            at = rng.randrange(len(lines))
            copies = rng.choice((0, 2, 200))
            text = "".join(lines[:at] + lines[at : at + 1] * copies + lines[at + 1 :])
        elif kind == 5:
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice(_TEXTS) + text[at + rng.choice((0, 1, 3)) :]
        elif kind == 6:
            text = text[: rng.randrange(len(text) + 1)]
        elif numbers:
            opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ("(", ")")))
            depth = rng.choice((1, 2, 300, _NESTED))
            text = _replaced(text, rng.choice(numbers), opening * depth + "1" + closing * depth)
    return text


def _replaced(text: str, match: re.Match[str], new: str) -> str:
    return text[: match.start()] + new + text[match.end() :]
