"""The models of data: how a text table is written, the rows that are selected, and the sources of batches."""

from typing import Any, ClassVar

from pydantic import Field

from runner.config.fields import (
    Character,
    DecimalPoint,
    Dtype,
    Encoding,
    Expression,
    Filled,
    Flag,
    Header,
    Missing,
    Number,
    Share,
    Text,
)
from runner.config.frozen import Frozen, default, optional

DIALECT_KEYS = ("delimiter", "decimal", "quote", "comment", "encoding", "header", "missing")
"""The keys that say how a text table is written."""


class Dialect(Frozen):
    """How a text table is written."""

    noun: ClassVar[str] = "a text table"
    delimiter: Character | None = optional("Character between the cells of a text table. `,`, in a .tsv file a tab.")
    decimal: DecimalPoint = default(".", "Decimal point of the numbers in a text table.")
    quote: Character | None = default('"', "Character around cells of a text table; `null` if none has a meaning.")
    comment: Filled | None = optional("Lines of a text table that begin with this text are left out.")
    encoding: Encoding = default("utf-8", "Encoding of a text table.")
    header: Header = default(
        True, "`true`: the first line of a text table names its columns. `false`: they are 0, 1, …. Or their names."
    )
    missing: Missing = default(
        (), "Texts that mean a missing number, such as `[NA, null]`; `null` is a blank cell, or a null in Parquet."
    )


class SelectDeclaration(Frozen):
    """The rows of a file that a source has: a condition, then a share, a fold or a range."""

    noun: ClassVar[str] = "`select`"
    where: Expression | None = optional(
        "Condition over the columns of one row, such as `split == 'train' and year < 2020`. It comes first."
    )
    share: Share | None = optional(
        "Part of the rows in a random order: from one fraction to another, such as `[0, 0.8]`."
    )
    fold: Number | None = optional("Number of the fold, from 0, of `of` parts in a random order.")
    of: Number | None = optional("Number of folds, at least 2.")
    held_out: Flag = default(False, "`true` selects the fold itself; `false` selects all other folds.")
    start: Number | None = Field(
        default=None, alias="from", description="First row of a range, from 0. The default is 0."
    )
    end: Number | None = Field(
        default=None, alias="to", description="Row after the last one of a range. The default is the number of rows."
    )
    seed: Number = default(0, "Seed of the random order of shares and folds. It is not the seed of the config.")
    stratify: Text | None = optional("Column whose values are classes, with equal proportions in every part.")
    group: Text | None = optional("Column whose equal values mark rows that stay in one part.")


class DataDeclaration(Dialect):
    """Samples in files, drawn batch by batch."""

    noun: ClassVar[str] = "a data source"
    file: Text | None = optional(
        "File with the columns, relative to this config; a glob such as `part-*.parquet` reads several. "
        "Without it, each column names a file of its own."
    )
    columns: dict[str, Any] = Field(
        description="Each name in the expression, and what it reads: an array or column of the file, a list of "
        "columns or globs to stack, or a file such as `images.npy`. The first dimension counts samples."
    )
    batch_size: Number | None = optional("Number of samples in a batch. Without it a batch is the whole source.")
    shuffle: Flag = default(False, "Draw the samples of each pass in a new random order.")
    drop_last: Flag = default(False, "Leave out the last batch of a pass if it is shorter than the others.")
    dtype: dict[str, Dtype] = Field(
        default_factory=dict,
        description="Dtype of a column by its name. By default floats take the config's, integers int64.",
    )
    select: SelectDeclaration | None = optional(
        "Rows of the file that the source has, or a condition. The default is all rows."
    )
    classes: dict[str, Any] = Field(
        default_factory=dict,
        description="Text columns that become integers: the classes in their order, or `sorted`. The name is that of "
        "a batch column, or of a column of the file.",
    )
    one_hot: dict[str, Any] = Field(
        default_factory=dict, description="The same, but each class becomes a column of zeros and ones."
    )
    fill: dict[str, Any] = Field(
        default_factory=dict,
        description="What replaces missing numbers of a column: a number, or `mean` or `median` of the first source "
        "that says so.",
    )
    dates: dict[str, Any] = Field(
        default_factory=dict, description="Columns of dates that become `days` or `seconds` since 1970-01-01."
    )
    like: Text | None = optional("Another data source, whose keys this one takes unless it writes them itself.")
