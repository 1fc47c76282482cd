"""Says what became of the `expect` steps of a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from runner.config.text.nodes import dotted
from runner.plan.program.instructions import Action, Expect
from runner.report.run.focus import problems_of
from runner.report.run.stepping.program import Line, line_of
from runner.report.run.subject import Subject
from runner.text import counted


class Verdict(Enum):
    """What is known of an `expect` step."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "its condition did not hold"
    NOT_REACHED = "not reached"
    NOT_AGAIN = "not reached in the last iteration"
    UNKNOWN = "passed, or its condition did not hold"


@dataclass(frozen=True, slots=True)
class Checks:
    """The verdict of each `expect` step, by the place of its line."""

    verdicts: dict[int, Verdict]

    def words(self) -> str | None:
        """A summary: `3 of 3 passed`; None without such steps."""
        if not self.verdicts:
            return None
        found = list(self.verdicts.values())
        passed = found.count(Verdict.PASSED)
        if passed == len(found):
            return f"{counted(passed, 'check')} passed"
        others = [each for each in dict.fromkeys(found) if each is not Verdict.PASSED]
        return f"{passed:,} of {counted(len(found), 'check')} passed; " + "; ".join(
            f"{found.count(each):,} {each.value}" for each in others
        )


def checks_of(subject: Subject, lines: list[Line]) -> Checks:
    """The verdicts of a run. A finished run has passed each `expect` step that it reached."""
    if subject.plan is None or subject.problems:
        return Checks({})
    reached = _reached(subject, lines)
    return Checks(
        {
            place: _verdict(subject, line.action, place, reached)
            for place, line in enumerate(lines)
            if line.action is not None and isinstance(line.action.argument, Expect)
        }
    )


def _reached(subject: Subject, lines: list[Line]) -> int:
    """The place of the last line that has certainly run."""
    if subject.run.manifest["status"] == "finished":
        return len(lines)
    last = line_of(lines, subject.steps[-1]) if subject.steps else None
    return -1 if last is None else last


def _verdict(subject: Subject, action: Action, place: int, reached: int) -> Verdict:
    path = dotted(action.config_path)
    if any(str(problem.get("path", "")).startswith(f"{path}.") for problem in problems_of(subject.run.manifest)):
        return Verdict.FAILED
    if place > reached:
        return Verdict.NOT_AGAIN if action.loops else Verdict.NOT_REACHED
    if action.when is None:
        return Verdict.PASSED
    condition = action.when.computation
    if condition.inputs:
        return Verdict.UNKNOWN
    return Verdict.PASSED if bool(condition.function(None)[0]) else Verdict.SKIPPED
