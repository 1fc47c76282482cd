"""What an expression may not say: where, what, and one thing to do."""

from __future__ import annotations

from tests.language.lowering import fault_of
from tests.tables import over

NAMES = "known names are b, c, flag, iteration, k, n, rate, training, w, x, z"

LISTS = "make a tensor of it: `tensor([…])` or `stack([…])`"

FAULTS: list[tuple[str, tuple[int, int, int], str, str | None]] = [
    # names
    ("x + y", (1, 4, 1), "`y` is not declared", NAMES),
    ("y = x\nyy", (2, 0, 2), "`yy` is not declared", "did you mean `y`?"),
    ("x * true", (1, 4, 4), "`true` is not declared", "write `True`"),
    (
        "self.w * x",
        (1, 0, 4),
        "`self` is not declared",
        "read parameters and constants by name: `w`, not `self.w`",
    ),
    ("relu * x", (1, 0, 4), "`relu` is a function", "call it: `relu(…)`"),
    ("torch.relu + x", (1, 0, 10), "`torch.relu` is a function", "call it: `torch.relu(…)`"),
    ("x = 3", (1, 0, 1), "`x` is a parameter already", "choose another name for this value"),
    ("rate = 3", (1, 0, 4), "`rate` is a scalar constant already", "choose another name for this value"),
    ("x\nx", (1, 0, 1), "this value is not used", "give it a name: `name = …`, or remove the line"),
    (
        "for i in range(2):\n  x\nx",
        (2, 2, 1),
        "this value is not used",
        "give it a name: `name = …`, or remove the line",
    ),
    # targets
    ("a, b, d = x", (1, 0, 11), "3 names for 2 values", "write as many names as there are values"),
    ("a, b = 3", (1, 7, 1), "`3` is one value", "assign it to one name"),
    # loops
    (
        "for i in range(iteration):\n  y = x\ny",
        (1, 15, 9),
        "`iteration` is not fixed before the run",
        "use numbers, scalar constants and sizes",
    ),
    ("for i in range(2.5):\n  y = x\ny", (1, 15, 3), "`2.5` is not an integer", "write an integer, or `int(…)`"),
    (
        "for i in range(1, 5, 0):\n  y = x\ny",
        (1, 9, 14),
        "`range(1, 5, 0)`: range() arg 3 must not be zero",
        "write `range(n)`",
    ),
    (
        "for i in range(10 ** 18):\n  y = x\ny",
        (1, 9, 15),
        "this loop would be unrolled 1,000,000,000,000,000,000 times",
        "use a `repeat` step, or a tensor operation",
    ),
    # calls
    ("sofmax(x, 1)", (1, 0, 6), "there is no operation `sofmax`", "did you mean `softmax`?"),
    ("linalg.dett(x)", (1, 0, 11), "there is no operation `linalg.dett`", "did you mean `linalg.det`?"),
    ("x(3)", (1, 0, 1), "`x` is a value and cannot be called", "multiply with `*`, index with `[…]`"),
    ("3(x)", (1, 0, 1), "`3` cannot be called", "call an operation by its name"),
    (
        "softmax(x)",
        (1, 0, 10),
        "`softmax` needs `dim`",
        "it is `softmax(input: Tensor, dim: int, *, dtype: dtype? = None)`",
    ),
    ("x.sum(axis=0)", (1, 6, 6), "`.sum` has no argument `axis`", "it takes dtype, dim, keepdim; did you mean `dim`?"),
    (
        "relu(x, inplace=True)",
        (1, 8, 12),
        "`relu` does not take `inplace` here: nothing is done in place",
        "give the result a name instead",
    ),
    ("range(3)", (1, 0, 8), "`range` is for loops", "write `for i in range(n):`, or `arange(n)` for a tensor"),
    ("len(3)", (1, 0, 6), "`3` is a number and has no length", "`len` is the size of the first dimension"),
    ("len(x, x)", (1, 0, 9), "`len` takes one argument", "write `len(x)`"),
    (
        "math.sin(x)",
        (1, 0, 11),
        "`math.sin` takes scalars, not a tensor of shape (2, 3), float32",
        "write `sin` for tensors",
    ),
    (
        "int(x)",
        (1, 0, 6),
        "`int` takes scalars, not a tensor of shape (2, 3), float32",
        "cast a tensor with `x.to(int)`",
    ),
    (
        "empty(3)",
        (1, 0, 5),
        "`empty` is not available: it would show uninitialised memory",
        "`zeros` and `full` make tensors of known values",
    ),
    (
        "x.relu_()",
        (1, 0, 7),
        "`.relu_` is not available: it writes into its argument",
        "give the result a new name instead",
    ),
    ("tensor([x])", (1, 0, 11), "`tensor` of tensors would lose their gradients", "write `stack([…])` or `cat([…])`"),
    # attributes
    ("x.foo", (1, 0, 5), "a tensor has no `.foo`", "did you mean `floor`?"),
    ("x.sum", (1, 0, 5), "`.sum` is a method", "call it: `x.sum(…)`"),
    ("x.sofmax(1)", (1, 0, 8), "a tensor has no method `.sofmax`", "did you mean `softmax`?"),
    (
        "'{}'.format(x)",
        (1, 0, 11),
        "`'{}'` is the string '{}' and has no method `.format`",
        "methods are those of tensors",
    ),
    (
        "float32.itemsize",
        (1, 0, 16),
        "`float32` is the dtype float32 and has no `.itemsize`",
        "attributes are those of tensors",
    ),
    ("(1).real", (1, 0, 8), "`1` is a number and has no `.real`", "attributes are those of tensors"),
    (
        "x.shape.numel",
        (1, 0, 13),
        "`x.shape` is a tuple of 2 values and has no `.numel`",
        "attributes are those of tensors",
    ),
    (
        "x.max(dim=1).foo",
        (1, 0, 16),
        "`x.max(dim=1)` is a tuple of 2 values and has no `.foo`",
        "attributes are those of tensors",
    ),
    ("torch.foo", (1, 0, 9), "`torch.foo` is not an operation", "did you mean `floor`?"),
    # habits of PyTorch
    (
        "x.cuda()",
        (1, 0, 6),
        "`.cuda` is not available: the device is one for the whole config: `device: cuda`",
        "`steprun ops` lists what is",
    ),
    (
        "nn.Linear(2, 3)(x)",
        (1, 0, 15),
        "`nn.Linear(2, 3)` cannot be called",
        "modules have their own parameters: declare them, and write `linear(…)`",
    ),
    (
        "torch.nn.ReLU()(x)",
        (1, 0, 15),
        "`torch.nn.ReLU()` cannot be called",
        "modules have their own parameters: declare them, and write `relu(…)`",
    ),
    (
        "nn.CrossEntropyLoss()(x, k)",
        (1, 0, 21),
        "`nn.CrossEntropyLoss()` cannot be called",
        "modules have their own parameters: declare them, and write `cross_entropy(…)`",
    ),
    (
        "nn.Sequential(x)",
        (1, 0, 13),
        "there is no operation `nn.Sequential`",
        "modules have their own parameters: declare them, and write the computation",
    ),
    (
        "x.backward()",
        (1, 0, 10),
        "`.backward` is not available: gradients come from `backward` steps and `grad(y, x)`, "
        "never from inside an expression",
        "`steprun ops` lists what is",
    ),
    ("print(x)", (1, 0, 5), "there is no operation `print`", "every named value is recorded and shown: give it a name"),
    ("np.sin(x)", (1, 0, 6), "there is no operation `np.sin`", "did you mean `sin`?"),
    (
        "x ^ 2",
        (1, 0, 5),
        "`x ^ 2`: \"bitwise_xor_cpu\" not implemented for 'Float'",
        "`^` is exclusive or; a power is `x ** 2`",
    ),
    (
        "getattr(x, 'T')",
        (1, 0, 7),
        "there is no operation `getattr`",
        "built-ins of Python are not available; `steprun ops` lists what is",
    ),
    (
        "x.grad",
        (1, 0, 6),
        "`.grad` is not available here: gradients come from `backward` steps and `grad(y, x)`, "
        "never from inside an expression",
        "gradients are read in `assign`, `expect` and `when`",
    ),
    (
        "torch.no_grad()",
        (1, 0, 13),
        "there is no operation `torch.no_grad`",
        "write `x.detach()` to stop the gradient",
    ),
    # lists
    ("[1] + (2,)", (1, 0, 10), "`[1] + (2,)` is not available on lists", LISTS),
    ("[x] * x", (1, 0, 7), "`[x] * x` is not available on lists", LISTS),
    ("[0] * 10 ** 9", (1, 0, 13), "`[0] * 10 ** 9` is not available on lists", LISTS),
    ("'a' * 10 ** 9", (1, 0, 13), "`'a' * 10 ** 9` computes with the string 'a'", "use tensors and numbers"),
    (
        "(x, x) == (x, x)",
        (1, 0, 16),
        "`(x, x) == (x, x)` compares lists of computed values",
        "compare their elements one by one, or tensors made with `stack`",
    ),
    # numbers
    (
        "9 ** 9 ** 9 * x",
        (1, 0, 11),
        "`9 ** 9 ** 9`: the result is an integer larger than 2^63",
        "change the numbers in it",
    ),
    ("x * (1 / 0)", (1, 5, 5), "`1 / 0`: division by zero", "change the numbers in it"),
    ("x + None", (1, 0, 8), "`x + None` computes with `None`", "use tensors and numbers"),
    ("x + ...", (1, 0, 7), "`x + ...` computes with `...`", "use tensors and numbers"),
]


@over(("text", "place", "message", "hint"), FAULTS)
def test_a_fault_says_where_what_and_one_thing_to_do(
    text: str, place: tuple[int, int, int], message: str, hint: str | None
) -> None:
    fault = fault_of(text)
    assert (fault.place.as_tuple(), fault.message, fault.hint) == (place, message, hint)


@over(("text", "place", "message", "hint"), FAULTS)
def test_a_message_is_lower_case_without_a_full_stop(
    text: str, place: tuple[int, int, int], message: str, hint: str | None
) -> None:
    assert not message[0].isupper()
    assert not message.endswith(".")
    assert hint
    assert not hint[0].isupper()
