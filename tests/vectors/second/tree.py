"""Section 4.4: chaining values and the root.

Many compressions go at once: each word is an int with one lane of 64 bits, of which the lower 32 count, for each
compression. Pairing neighbours level by level gives the tree of section 4.4: the last, odd one moves up as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXED = (
    *((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),
    *((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),
)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
BATCH = 1 << 20


def subtree_values(payload: bytes, chunk_log2: int) -> list[bytes]:
    """The chaining value of each sealed chunk of a payload that has two or more."""
    whole = len(payload) & ~1023
    values: list[bytes] = []
    for at in range(0, whole, BATCH):
        values += leaf_values(payload[at : min(at + BATCH, whole)], at // 1024, 1024)
    if whole < len(payload):
        values += leaf_values(payload[whole:], whole // 1024, len(payload) - whole)
    for _ in range(10, chunk_log2):
        values = pair(values, PARENT)
    return values


def merge(values: list[bytes]) -> bytes:
    """The root of an index."""
    while len(values) > 1:
        values = pair(values, PARENT | ROOT if len(values) == 2 else PARENT)
    return values[0]


def pair(values: list[bytes], flags: int) -> list[bytes]:
    n = len(values) // 2
    words = words_of(b"".join(values[: 2 * n]))
    block = [spread(words[i::16]) for i in range(16)]
    parents = compress(initial(n), block, spread([0] * n), 64, flags, n)
    return gather(parents, n) + values[2 * n :]


def leaf_values(data: bytes, first: int, size: int) -> list[bytes]:
    """The chaining values of BLAKE3 chunks of `size` bytes each, the first of which has number `first`."""
    n, blocks = len(data) // size, -(-size // 64)
    words = words_of(data.ljust(n * blocks * 64, b"\0"))
    counters = spread(range(first, first + n))
    value = initial(n)
    for i in range(blocks):
        block = [spread(words[16 * i + word :: 16 * blocks]) for word in range(16)]
        flags = (CHUNK_START if i == 0 else 0) | (CHUNK_END if i == blocks - 1 else 0)
        value = compress(value, block, counters, min(64, size - 64 * i), flags, n)
    return gather(value, n)


def compress(value: list[int], block: list[int], counters: int, length: int, flags: int, n: int) -> list[int]:
    """The compression function of n lanes, without the second half of its output."""
    ones = spread([1] * n)
    mask = ones * 0xFFFFFFFF
    v = [*value, *(ones * word for word in IV[:4]), counters & mask, counters >> 32 & mask, ones * length, ones * flags]

    def rotate(word: int, by: int) -> int:
        return (word >> by | word << 32 - by) & mask

    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIXED):
            v[a] = (v[a] + v[b] + block[2 * i]) & mask
            v[d] = rotate(v[d] ^ v[a], 16)
            v[c] = (v[c] + v[d]) & mask
            v[b] = rotate(v[b] ^ v[c], 12)
            v[a] = (v[a] + v[b] + block[2 * i + 1]) & mask
            v[d] = rotate(v[d] ^ v[a], 8)
            v[c] = (v[c] + v[d]) & mask
            v[b] = rotate(v[b] ^ v[c], 7)
        block = [block[i] for i in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def initial(n: int) -> list[int]:
    return [spread([word] * n) for word in IV]


def words_of(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data)


def spread(lanes: Sequence[int]) -> int:
    return int.from_bytes(struct.pack(f"<{len(lanes)}Q", *lanes), "little")


def gather(words: list[int], n: int) -> list[bytes]:
    lanes = [struct.unpack(f"<{n}Q", word.to_bytes(8 * n, "little")) for word in words]
    return [struct.pack("<8I", *value) for value in zip(*lanes, strict=True)]
