"""Seeds of random streams: stable for ever, independent of one another."""

import hashlib

import pytest
import torch

from runner.plan.streams import stream_seed


@pytest.mark.parametrize(
    ("arguments", "seed"),
    [
        ((0, "init", "x1"), 8381887728536096157),
        ((0, "init", "x2"), 1862584881108858896),
        ((7, "shuffle", "train", 3), 3062094583924612227),
        ((-1, "init", "x1"), 3690562643489360720),
    ],
)
def test_seeds_never_change_between_versions(arguments, seed):
    assert stream_seed(*arguments) == seed


def test_a_seed_is_the_top_63_bits_of_the_documented_hash():
    digest = hashlib.sha256(b"3\x00dropout\x00h\x0012").hexdigest()
    assert stream_seed(3, "dropout", "h", 12) == int(digest[:16], 16) >> 1


def test_every_part_of_a_stream_moves_its_seed():
    seeds = {
        stream_seed(seed, purpose, name, step)
        for seed in (0, 1)
        for purpose in ("init", "draw")
        for name in ("a", "b")
        for step in (0, 1)
    }
    assert len(seeds) == 16
    assert stream_seed(1, "init", "2") != stream_seed(1, "init2", "")


def test_torch_takes_every_seed():
    for step in range(100):
        torch.Generator().manual_seed(stream_seed(0, "init", "x", step))
