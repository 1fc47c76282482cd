"""The models of `sweep`: many points of one config."""

from typing import Any, ClassVar

from pydantic import Field

from runner.config.fields import Expression, Names, Number, Seed, Text
from runner.config.frozen import Frozen, default, optional


class RandomDeclaration(Frozen):
    """Points drawn at random."""

    noun: ClassVar[str] = "`random`"
    samples: Number = Field(description="Number of draws. A larger number keeps the first draws.")
    draw: dict[str, Any] = Field(
        description="Distribution of each value by its override path: `uniform`, `log_uniform`, `normal`, "
        "`randint` or `choice`."
    )


class SpaceDeclaration(Frozen):
    """The axes of a sweep, which multiply."""

    noun: ClassVar[str] = "a space"
    grid: dict[str, Any] = Field(
        default_factory=dict,
        description="Values of each axis by override path: a list, or `range(…)`, `linspace(…)` or `logspace(…)`.",
    )
    zip: tuple[dict[str, Any], ...] = default((), "Mappings of axes whose values vary together.")
    random: RandomDeclaration | None = optional("Points drawn at random.")
    points: Any = optional("Points one by one: a list of mappings, or a .csv file with a column for each path.")


class SweepObjective(Frozen):
    """What a sweep looks for."""

    noun: ClassVar[str] = "an objective"
    minimize: Text | None = optional("Column of the rows to minimize, such as `valid.loss`.")
    maximize: Text | None = optional("Column of the rows to maximize, such as `valid.accuracy`.")
    over: Text = default("last", "Which of a point's values counts: `last`, `best` or `mean(n)` of the last n.")
    mean_over: Names = optional("Axes to average over, such as folds and seeds.")

    @property
    def column(self) -> str:
        return str(self.minimize if self.minimize is not None else self.maximize)

    @property
    def smaller_is_better(self) -> bool:
        return self.minimize is not None


class HalvingDeclaration(Frozen):
    """When the worse points of a sweep stop."""

    noun: ClassVar[str] = "`halving`"
    at: tuple[Number, ...] = Field(description="Iterations of the outermost loop after which points are compared.")
    keep: Number = Field(description="Fraction of the points to keep each time, such as `1/3`.")


class SweepDeclaration(SpaceDeclaration):
    """Many points of one config."""

    noun: ClassVar[str] = "a sweep"
    union: tuple[SpaceDeclaration, ...] = default((), "Several spaces whose points are one sweep.")
    where: Expression | None = optional("Condition over scalar constants and axes. Points without it are left out.")
    objective: SweepObjective | None = optional("What the sweep looks for.")
    halving: HalvingDeclaration | None = optional("When the worse points stop.")
    seed: Seed = default(0, "Seed of the random draws. It is not the seed of the runs.")

    @property
    def spaces(self) -> tuple[SpaceDeclaration, ...]:
        return self.union or (self,)
