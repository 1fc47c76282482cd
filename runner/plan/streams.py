"""Random streams: every draw of a run has its own seed, derived from its purpose."""

from __future__ import annotations

import hashlib


def stream_seed(seed: int, purpose: str, name: str, step: int = 0) -> int:
    """The seed of one random stream, the same in every process and every version.

    It is the top 63 bits of the SHA-256 of `seed`, `purpose`, `name` and `step`, written in decimal or UTF-8 and
    joined by NUL. Streams are independent: declaring another parameter does not change this one's values.
    torch's CPU generator uses only the lower 32 bits of a seed.

    Args:
        seed: the config's `seed`.
        purpose: what is drawn, for example `init`.
        name: what it is drawn for, for example a parameter.
        step: the number of the draw, if there are several.
    Returns:
        an integer from 0 to 2^63 - 1, valid for `torch.Generator.manual_seed`.
    """
    text = "\0".join((str(seed), purpose, name, str(step)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
