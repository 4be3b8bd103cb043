"""Mutations of real input: small damage, and numbers that parsers often mishandle, mostly in headers."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

HEADER_BYTES: Final = 1024  # the target of half of all mutations: headers have sizes, counts and offsets
MUTATIONS: Final = (1, 1, 1, 2, 2, 3, 5, 8)  # per input; parsers refuse heavily damaged input too early

Mutation = Callable[[Random, bytearray, Sequence[bytes]], None]

_NUMBERS: Final = [
    number.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for number in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
    for order in ("little", "big")
]


def mutated(random: Random, seeds: Sequence[bytes]) -> bytes:
    """One of ``seeds``, damaged in one to eight places. The same state of ``random`` gives the same result."""
    data = bytearray(random.choice(seeds))
    for _ in range(random.choice(MUTATIONS)):
        random.choice(_MUTATIONS)(random, data, seeds)
    return bytes(data)


def _place(random: Random, data: bytearray) -> int:
    end = len(data) if random.random() < 0.5 else min(len(data), HEADER_BYTES)
    return random.randrange(end + 1)


def _length(random: Random, data: bytearray) -> int:
    return min(2 ** random.randrange(12) + random.randrange(4), 1 + len(data) // 4)


def _flip_a_bit(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(random, data)
    if at < len(data):
        data[at] ^= 1 << random.randrange(8)


def _write_noise(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at, length = _place(random, data), _length(random, data)
    data[at : at + length] = random.randbytes(length)


def _write_a_number(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at, number = _place(random, data), random.choice(_NUMBERS)
    data[at : at + len(number)] = number


def _blank(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at, length = _place(random, data), _length(random, data)
    data[at : at + length] = bytes([random.choice((0x00, 0xFF))]) * length


def _remove(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(random, data)
    del data[at : at + _length(random, data)]


def _repeat(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(random, data)
    data[at:at] = data[at : at + _length(random, data)] * random.randint(1, 8)


def _cut(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[random.randrange(len(data) + 1) :]


def _splice(random: Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = random.choice(seeds)
    at = _place(random, data)
    start = random.randrange(len(other) + 1)
    data[at:at] = other[start : start + _length(random, data)]


_MUTATIONS: Final[Sequence[Mutation]] = (
    *(_flip_a_bit, _write_noise, _write_a_number, _blank),
    *(_remove, _repeat, _cut, _splice),
)
