"""The digest in `run.json` and `sweep.json`: no bit of a manifest flips unseen."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runner
from runner.config.files.safe_files import parse_json
from runner.errors import UsageError
from runner.record.manifest import manifest_text, read_manifest, with_digest
from runner.sweep.record.manifest import opening, write_manifest
from runner.sweep.record.manifest import read_manifest as read_sweep
from tests.cli.commands import LINEAR
from tests.effort import tried
from tests.manifests import manifest_fields

EDITED = "is damaged or was edited: its digest does not match"
HINT = "restore the original file; to keep an edit, remove its field `digest`"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "linear.yaml").write_text(LINEAR)
    return runner.run(folder / "linear.yaml", runs_dir=folder / "runs").path


def sweep(folder: Path) -> Path:
    write_manifest(folder, opening("swept", "", {"seed": [1, 2]}, 2, None, 8, "exact", {"threads": 1}, [], ["steprun"]))
    return folder / "sweep.json"


def check_flips(path: Path, read: Any, bits: list[int]) -> int:
    """Flip bits one by one; each is refused, or changes no field that is read. Returns how many are edits."""
    sound, content = path.read_bytes(), read(path.parent)
    edits = 0
    for bit in bits:
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = read(path.parent)
        except UsageError as error:
            edits += EDITED in str(error)
            continue
        extra = {name: found.pop(name) for name in found.keys() - content.keys()}
        assert found == content, f"bit {bit}"
        assert list(map(len, extra)) in ([], [len("digest")])  # the name of the digest: what it guards is whole
    path.write_bytes(sound)
    return edits


def test_the_digest_is_that_of_the_other_fields_in_any_order_and_spacing(finished: Path, tmp_path: Path) -> None:
    for path in (finished / "run.json", sweep(tmp_path)):
        written = json.loads(path.read_text())
        assert list(written)[-1] == "digest"
        stated = written.pop("digest")
        assert stated == hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()
    again = dict(reversed(manifest_fields(finished / "run.json").items())) | {"digest": None}
    again["digest"] = json.loads((finished / "run.json").read_text())["digest"]
    (tmp_path / "run.json").write_text(json.dumps(again, indent=7).replace("\n", "\r\n"))
    assert read_manifest(tmp_path) == read_manifest(finished)


@settings(max_examples=tried(50))
@given(st.dictionaries(st.text(), values, max_size=4))
def test_what_is_written_has_the_digest_of_what_is_read(more: dict[str, Any]) -> None:
    text = manifest_text(with_digest({"status": "finished", **more, "pair": (1, 2), "numbers": [{2: 1e22, 10: -0.0}]}))
    content = parse_json(text.encode("utf-8", "surrogatepass"))
    assert content["digest"] == with_digest({key: value for key, value in content.items() if key != "digest"})["digest"]


def test_no_bit_of_a_manifest_flips_unseen(finished: Path, tmp_path: Path) -> None:
    for path, read in ((finished / "run.json", read_manifest), (sweep(tmp_path), read_sweep)):
        size = 8 * path.stat().st_size
        assert check_flips(path, read, random.Random(0).sample(range(size), 60)) > 10


@pytest.mark.slow
def test_each_bit_that_changes_a_field_changes_the_digest(finished: Path) -> None:
    sound = (finished / "run.json").read_bytes()
    content = json.loads(sound)
    changed = 0
    for bit in range(8 * len(sound)):
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = json.loads(flipped)
        except ValueError:
            continue
        if found != content and "digest" in found:
            changed += 1
            stated = found.pop("digest")
            assert stated != with_digest(found)["digest"], f"bit {bit}"
    assert changed > 3 * len(sound)


def test_an_edit_is_refused_with_what_to_do(finished: Path, tmp_path: Path) -> None:
    for path, read, edit in (
        (tmp_path / "run.json", read_manifest, ('"seed": 0', '"seed": 1')),
        (sweep(tmp_path), read_sweep, ('"threads": 1', '"threads": 3')),
    ):
        text = (finished / "run.json" if path.name == "run.json" else path).read_text()
        path.write_text(text.replace(*edit))
        with pytest.raises(UsageError) as caught:
            read(tmp_path)
        assert str(caught.value) == f"steprun\n      {path} {EDITED}\n      = {HINT}"
        path.write_text(json.dumps(manifest_fields(path)))
        assert json.loads(f"{{{edit[1]}}}").items() <= read(tmp_path).items()


def test_a_manifest_without_a_digest_is_read_and_written_with_one(tmp_path: Path) -> None:
    path = sweep(tmp_path)
    path.write_text(json.dumps(manifest_fields(path)))
    write_manifest(tmp_path, read_sweep(tmp_path) | {"points": 3})
    assert "digest" in json.loads(path.read_text())
    assert "digest" not in read_sweep(tmp_path)
    assert read_sweep(tmp_path)["points"] == 3
