"""Huffman tables of a JPEG as far as telling damage needs them (ITU-T T.81, annex C and F.2.2.3, G.1.2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

__all__ = ["Codes", "read_tables"]

_WORD = 8
"""Bytes that a decoder reads ahead at most."""


@dataclass(frozen=True)
class Codes:
    """A table of codes for coefficients: how many there are of each length, 1 to 16, and their symbols."""

    counts: bytes
    symbols: bytes

    @property
    def flat_zeros(self) -> bool:
        """Whether zeros code nothing but blocks of one colour: a code of zeros is always the first one."""
        return bool(self.symbols) and _blocks(self.symbols[0]) > 0

    @cached_property
    def padding(self) -> bytes:
        """Bytes that code as few ends of blocks as can be, wherever a decoder begins with them; none is 0 or
        0xFF.
        """
        return bytes([min(range(1, 255), key=self._ends)]) * _WORD

    def _ends(self, value: int) -> int:
        """The blocks that are ended by the codes at each bit of a byte that repeats."""
        bits = value << 16 | value << 8 | value
        return sum(_blocks(self._symbol(bits >> (8 - shift) & 0xFFFF)) for shift in range(8))

    def _symbol(self, bits: int) -> int:
        """What 16 bits begin with; 0, as libjpeg takes it, where that is no code."""
        code = at = 0
        for length, count in enumerate(self.counts, 1):
            prefix = bits >> (16 - length)
            if prefix - code < count:
                return self.symbols[at + prefix - code] if at + prefix - code < len(self.symbols) else 0
            code, at = (code + count) << 1, at + count
        return 0


def _blocks(symbol: int) -> int:
    """The blocks, at least, that a symbol ends. With no size in its lower half it is the end of a block or of
    a run of 2^n blocks, but for 0xF0, which is 16 zeros.
    """
    return 0 if symbol & 15 or symbol == 0xF0 else 1 << (symbol >> 4)


def read_tables(body: bytes) -> dict[int, Codes]:
    """The tables in a DHT segment's body, by class (0x10 for coefficients behind the first) and number."""
    found: dict[int, Codes] = {}
    at = 0
    while at + 17 < len(body):
        counts = body[at + 1 : at + 17]
        found[body[at]] = Codes(counts, body[at + 17 : at + 17 + sum(counts)])
        at += 17 + sum(counts)
    return found
