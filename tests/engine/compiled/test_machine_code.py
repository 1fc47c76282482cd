"""What is compiled to machine code: its numbers, and what is said where there is no compiler."""

from __future__ import annotations

import itertools
import json
import platform
import shutil
from pathlib import Path

import pytest
import torch

import runner
from tests.cli.commands import steprun, steprun_process
from tests.engine.running import compiled, rows_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),  # torch's own use
]

TEXT = """\
engine: compile
dtype: float64
parameters: {w: {shape: [2], init: [3.0, -2.0]}}
expression: loss = (w ** 2).sum() / 2
optimizer: {sgd: {lr: RATE}}
steps: 40
"""


@pytest.mark.usefixtures("inductor_cache")
def test_what_was_compiled_before_changes_no_number() -> None:
    """torch would take a number that differs from one call to the next for a variable, and round it to float32."""
    for rate in (0.3, 0.1):
        for place, row in enumerate(rows_of(TEXT.replace("RATE", str(rate)))):
            closed_form = torch.tensor([3.0, -2.0], dtype=torch.float64) * (1 - rate) ** place
            torch.testing.assert_close(row["w"], closed_form, rtol=1e-13, atol=0)


TAKEN_OUT = """\
engine: ENGINE
dtype: float64
parameters: {v: {shape: [4], init: [0.3, -0.7, 1.1, 0.2]}, logits: {shape: [3], init: [0.5, -0.2, 0.1]}, s: 2}
expression: |
  shares = softmax(logits, 0)
  mixed = shares[0] * (v ** 2).sum() + (shares[2] * v.sin()).sum()
  indexed = v[iteration - 2] * (v ** 2).sum() + logits[argmax(logits.detach())] * (v ** 3).sum()
  loss = mixed + ((s * v)[1] * v).sum() + ((v * 2)[3] * v.exp()).sum() + indexed
metrics:
  narrowed: v.to(float32) - v.to(float32).to(bfloat16).to(float32)
  undefined: v * 1e300 * 1e300 * 0
optimizer: {adam: {lr: 0.1}}
steps: 5
on_nonfinite: ignore
"""


@pytest.mark.usefixtures("inductor_cache")
def test_a_step_computes_what_is_written() -> None:
    """A number is the one that was taken out of a tensor, a cast rounds, and infinity times zero is NaN."""
    found, expected = (list(rows_of(TAKEN_OUT.replace("ENGINE", engine))) for engine in ("compile", "eager"))
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours["loss"], theirs["loss"], rtol=1e-12, atol=0)
    for before, row in itertools.pairwise(found):
        narrow, undefined = before["v"].float(), row["undefined"]
        torch.testing.assert_close(row["narrowed"], narrow - narrow.bfloat16().float(), rtol=0, atol=0)
        assert undefined.isnan().all()


def test_without_a_compiler_the_error_says_what_to_do(tmp_path: Path) -> None:
    environment = {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    text = TEXT.replace("RATE", "0.1")
    done = steprun_process("-", "--no-record", "--quiet", stdin=text, cwd=tmp_path, environment=environment)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "<stdin>:1:9  engine\n"
        "    1 | engine: compile\n"
        "      |         ^^^^^^^ `engine: compile` needs a C++ compiler, but none was found\n"
        "      = install g++ or clang++, or name one in the environment variable CXX; or write `engine: eager`\n"
    )


OLD_COMPILER = """\
#!/bin/sh
case " $* " in *" -c "*|*.cpp*|*header*|*.gch*) echo "$*" >> "$(dirname "$0")/calls.txt";; esac
for argument in "$@"; do
  case $argument in -mavx*) echo "unrecognized command-line option $argument" >&2; exit 1;; esac
done
exec c++ "$@"
"""


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="other processors have no flags to refuse")
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_a_compiler_that_does_not_know_the_processor_is_probed_after_it_fails(tmp_path: Path) -> None:
    compiler = tmp_path / "old-compiler"
    compiler.write_text(OLD_COMPILER, encoding="utf-8")
    compiler.chmod(0o755)
    environment = {"CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    text = TEXT.replace("RATE", "0.1")
    done = steprun_process("-", "--no-record", "--json", stdin=text, cwd=tmp_path, environment=environment)
    said = [line for line in done.err.splitlines() if "No CUDA runtime" not in line]  # of a build for CUDA
    assert (done.code, said) == (0, [])
    last = json.loads(done.out.splitlines()[-1])
    assert last["w"] == pytest.approx([3.0 * 0.9**40, -2.0 * 0.9**40], rel=1e-13)
    calls = (tmp_path / "calls.txt").read_text(encoding="utf-8").splitlines()
    assert ".main.cpp" in calls[0]  # the step, and no probe before it
    assert len(calls) > 1
    assert all(" -O2 " in call and " -O3 " not in call for call in calls if ".main.cpp" in call)
    headers = ("c++-header", "header.hpp", ".gch")  # precompiled, each is 147 MB and takes seconds
    assert [call for call in calls if any(each in call for each in headers)] == []


SELECTED = """\
engine: compile
parameters: {w: {shape: [2, 6], init: normal}}
constants: {index: [0, 3]}
expression: |
  columns = index_select(w, DIM, index - 4 * (iteration > 3))
  loss = (columns ** 2).sum()
optimizer: {sgd: {lr: 0.1}}
steps: 6
"""


@pytest.mark.usefixtures("inductor_cache")
@pytest.mark.parametrize("dim", ["1", "-1"])
def test_a_negative_index_that_torch_refuses_is_not_one_from_the_end(dim: str) -> None:
    rows = runner.execute(compiled(SELECTED.replace("DIM", dim)))
    paths = [next(rows).path for _ in range(4)]
    assert paths == ["start", "repeat[1].train", "repeat[2].train", "repeat[3].train"]
    with pytest.raises(runner.RunError, match=r":5:13  .*\n.*\n.*out of .* \(at repeat\[4\]\.train\)"):
        next(rows)


@pytest.mark.usefixtures("inductor_cache")
def test_check_holds_the_gallery_to_its_snapshots_and_skips_what_cannot_be_compiled() -> None:
    folder = Path(runner.__file__).parents[1]
    configs = [f"configs/{name}.yaml" for name in ("linear", "moving-average", "schedule")]
    done = steprun("check", *configs, "--set", "engine=compile", cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(
        "configs/linear.yaml: skipped\n"
        "  line 21: `engine: compile` compiles whole `train` steps, and `backward` is a part of one (and 2 more)\n"
    )
    held = [line.replace(",", "").split()[:4] for line in done.out.splitlines() if "uncertainty" in line]
    assert held == [
        ["configs/moving-average.yaml", "holds", "42", "uncertainty"],
        ["configs/schedule.yaml", "holds", "21", "uncertainty"],
    ]
    assert "3 snapshots: 1 skipped, 2 hold in " in done.out
