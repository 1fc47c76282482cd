"""Files under a config: merged in order, read from allowed folders only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.config import Config, Limits, load
from runner.config.text import extends
from runner.config.text.extends import Sandbox
from runner.errors import ConfigError, UsageError

BASE = "parameters: {x: {shape: [2], init: 1}}\nexpression: f = x\n"


def write(folder: Path, **files: str) -> Path:
    """Files by name, `__` standing for a folder; returns the path of `run.yaml`."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "run.yaml"


def loaded(folder: Path, **files: str) -> Config:
    return load(write(folder, **files))


def test_a_base_is_merged_under_the_file_that_names_it(tmp_path: Path) -> None:
    config = loaded(
        tmp_path, base=BASE + "seed: 1\n", run="extends: base.yaml\nseed: 2\nparameters: {x: {init: 5}, y: 1}\n"
    )
    assert config.seed == 2
    assert config.parameters["x"].init == 5
    assert config.parameters["x"].shape == (2,)
    assert list(config.parameters) == ["x", "y"]


def test_later_bases_lie_over_earlier_ones(tmp_path: Path) -> None:
    config = loaded(tmp_path, a=BASE + "seed: 1\ndevice: cuda\n", b="seed: 2\n", run="extends: [a.yaml, b.yaml]\n")
    assert (config.seed, config.device) == (2, "cuda")


def test_paths_begin_at_the_file_that_writes_them(tmp_path: Path) -> None:
    config = loaded(tmp_path, bases__a="extends: inner/b.yaml\n", bases__inner__b=BASE, run="extends: bases/a.yaml\n")
    assert config.document.mark(("expression",)).source == str(tmp_path / "bases" / "inner" / "b.yaml")


def test_a_base_may_be_reached_twice(tmp_path: Path) -> None:
    files = {f"b{index}": f"extends: [b{index + 1}.yaml, b{index + 1}.yaml]\n" for index in range(60)}
    assert loaded(tmp_path, **files, b60=BASE, run="extends: b0.yaml\n").parameters


@pytest.mark.slow
def test_a_base_that_is_listed_thousands_of_times_is_merged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = []
    usual = extends.merge
    monkeypatch.setattr(extends, "merge", lambda under, over: merged.append(over) or usual(under, over))
    listed = ", ".join(["a.yaml"] * 20_000)
    assert loaded(tmp_path, a=BASE, run=f"extends: [{listed}]\n").parameters
    assert len(merged) == 2  # and the text itself


def test_bases_are_merged_up_to_a_bound(tmp_path: Path) -> None:
    listed = ", ".join(["a.yaml", "b.yaml"] * 10_000)
    with pytest.raises(ConfigError, match=r"more than 16,777,216 characters, each counted as often as it is listed"):
        loaded(tmp_path, a=BASE, b="seed: 2\n", run=f"extends: [{listed}]\n")


def test_a_base_in_an_allowed_folder_is_read(tmp_path: Path) -> None:
    run = write(tmp_path, shared__base=BASE, mine__run="extends: ../shared/base.yaml\n").parent / "mine" / "run.yaml"
    with pytest.raises(ConfigError, match="is outside the folders that this config may read"):
        load(run)
    assert load(run, allowed_folders=[tmp_path / "shared"]).parameters


def test_a_link_out_of_the_folder_is_followed_and_refused(tmp_path: Path) -> None:
    write(tmp_path, secret=BASE, mine__run="extends: link.yaml\n")
    os.symlink(tmp_path / "secret.yaml", tmp_path / "mine" / "link.yaml")
    with pytest.raises(ConfigError, match="is outside the folders that this config may read"):
        load(tmp_path / "mine" / "run.yaml")


def test_a_linked_folder_on_the_way_to_a_config_is_no_escape(tmp_path: Path) -> None:
    write(tmp_path, real__run="extends: base.yaml\n", real__base=BASE)
    os.symlink(tmp_path / "real", tmp_path / "linked")
    assert load(tmp_path / "linked" / "run.yaml").parameters


def test_a_sibling_whose_name_begins_alike_is_outside(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert not Sandbox.of(tmp_path / "a").holds(tmp_path / "ab" / "x.yaml")
    assert Sandbox.of(tmp_path / "a").holds(tmp_path / "a" / "x.yaml")


@pytest.mark.parametrize("written", ["/etc/passwd", "../x.yaml", "a/../../x.yaml", "~/x.yaml/../../.."])
def test_a_path_outside_is_refused_before_it_is_opened(tmp_path: Path, written: str) -> None:
    (tmp_path / "inner").mkdir()
    with pytest.raises(ConfigError, match="is outside the folders"):
        loaded(tmp_path / "inner", run=f"extends: {written}\n")


def test_a_cycle_names_its_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"extends itself: .*run\.yaml → .*a\.yaml → .*b\.yaml → .*a\.yaml"):
        loaded(tmp_path, a="extends: b.yaml\n", b="extends: a.yaml\n", run="extends: a.yaml\n")


def test_a_pipe_as_a_base_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="is not an ordinary file"):
        loaded(tmp_path, run="extends: pipe.yaml\n")


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    files = {f"b{index}": f"extends: b{index + 1}.yaml\n" for index in range(20)}
    run = write(tmp_path, **files, b20=BASE, run="extends: b0.yaml\n")
    with pytest.raises(ConfigError, match="more than 10 files"):
        load(run, limits=Limits(files=10))
    assert load(run).parameters


def test_faults_of_all_bases_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="duplicate key `") as caught:
        loaded(
            tmp_path, a="seed: 1\nseed: 2\n", b="a: [\n", c=BASE, run="extends: [a.yaml, b.yaml, none.yaml, c.yaml]\n"
        )
    assert [Path(str(problem.source)).name for problem in caught.value.problems] == ["run.yaml", "a.yaml", "b.yaml"]


def test_the_root_itself_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load(tmp_path / "run.yaml")


def test_a_base_is_held_to_the_limits_of_any_file(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_bytes(b"#" * 100)
    (tmp_path / "binary.yaml").write_bytes(b"\0")
    run = write(tmp_path, run="extends: [large.yaml, binary.yaml]\n")
    with pytest.raises(ConfigError, match="has 100 bytes, and a config may have 99") as caught:
        load(run, limits=Limits(file_bytes=99))
    assert [problem.message for problem in caught.value.problems][1:] == ["a NUL byte in the text"]
