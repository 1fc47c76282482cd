"""A random order of n rows that is computed rather than stored: a keyed bijection of 0 … n - 1.

The bijection is the generalized Feistel cipher of Black and Rogaway (Ciphers with Arbitrary Finite Domains, 2002),
with cycle walking. Let a = ceil(sqrt(n)) and b = ceil(n / a). A number x < a * b is the pair (x mod a, x // a).
Eight rounds change the two in turn: `left = (left + F(right)) mod a`, then `right = (right + F(left)) mod b`.
A result of n or more goes through the rounds again; that is rare, since a * b - n < a.

The round function multiplies and shifts words of 64 bits: `w = (v + key) * C; w = (w ^ (w >> 27)) * D`, with the two
constants of SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014). The upper 32 bits
u of w give F(v) = u * size >> 32, from 0 to size - 1 (Lemire, Fast Random Integer Generation in an Interval, 2019).
The keys are the first eight outputs of SplitMix64 for the seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

Integers = NDArray[numpy.int64]
_Words = NDArray[numpy.uint64]

ROUNDS = 8

AT_ONCE = 1 << 13
"""Numbers to map at a time, so that the intermediate results stay in the processor's cache."""

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True, slots=True)
class Order:
    """A random order of `count` rows, the same in every process and on every machine.

    Args:
        seed: an integer from 0 to 2^64 - 1.
        count: the number of rows, from 1 to 2^62.
    """

    seed: int
    count: int

    def rows(self, positions: Integers) -> Integers:
        """The rows at the given positions: int64 `(n,)`, each from 0 to `count - 1`."""
        return self._walked(positions, backwards=False)

    def positions(self, rows: Integers) -> Integers:
        """The positions of the given rows, the inverse of `rows`: int64 `(n,)`."""
        return self._walked(rows, backwards=True)

    def _walked(self, numbers: Integers, backwards: bool) -> Integers:
        result = numpy.empty(len(numbers), dtype=numpy.int64)
        rounds = _Rounds(self.seed, self.count)
        for start in range(0, len(numbers), AT_ONCE):
            block = rounds.passed(numbers[start : start + AT_ONCE].astype(numpy.uint64), backwards)
            while (outside := numpy.flatnonzero(block >= self.count)).size:
                block[outside] = rounds.passed(block[outside], backwards)
            result[start : start + AT_ONCE] = block.view(numpy.int64)
        return result


class _Rounds:
    """One pass through all rounds, over the numbers 0 … a * b - 1."""

    __slots__ = ("_keys", "_sizes")

    def __init__(self, seed: int, count: int) -> None:
        left = max(1, math.isqrt(count - 1) + 1)
        self._sizes = numpy.uint64(left), numpy.uint64(-(-count // left))
        self._keys = [numpy.uint64(_scalar_mix((seed + _GAMMA * number) & _MASK)) for number in range(1, ROUNDS + 1)]

    def passed(self, numbers: _Words, backwards: bool) -> _Words:
        first = self._sizes[0]
        right = numbers // first
        halves = [numbers - right * first, right]
        for number in reversed(range(ROUNDS)) if backwards else range(ROUNDS):
            changed, size = number % 2, self._sizes[number % 2]
            moved = _drawn(halves[1 - changed] + self._keys[number], size)
            if backwards:
                numpy.subtract(size, moved, out=moved)
            moved += halves[changed]
            halves[changed] = numpy.minimum(moved, moved - size)  # below 0, the words wrap to large numbers
        return halves[0] + halves[1] * first


def _drawn(words: _Words, size: numpy.uint64) -> _Words:
    """Words as numbers below `size`; changes `words`."""
    words *= numpy.uint64(_FIRST)
    words ^= words >> numpy.uint64(27)
    words *= numpy.uint64(_SECOND)
    words >>= numpy.uint64(32)
    words *= size
    words >>= numpy.uint64(32)
    return words


def _scalar_mix(word: int) -> int:
    word = (word ^ (word >> 30)) * _FIRST & _MASK
    word = (word ^ (word >> 27)) * _SECOND & _MASK
    return word ^ (word >> 31)
