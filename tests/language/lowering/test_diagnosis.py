"""What torch raises is told in the words of the expression."""

from __future__ import annotations

from runner.language.lowering.diagnosis import memory_message, torch_message
from tests.language.lowering import fault_of
from tests.tables import over

SHAPE = "its tensor has the shape (2, 3)"


@over(
    ("text", "place", "message", "hint"),
    [
        (
            "1 + matmul(x, x)",
            (1, 4, 12),
            "`matmul(x, x)`: mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)",
            "its tensors have the shapes (2, 3), (2, 3)",
        ),
        ("x.view(5)", (1, 0, 9), "`x.view(5)`: shape '[5]' is invalid for input of size 6", SHAPE),
        (
            "x.sum(dim=7)",
            (1, 0, 12),
            "`x.sum(dim=7)`: dimension out of range (expected to be in range of [-2, 1], but got 7)",
            SHAPE,
        ),
        (
            "zeros(-1)",
            (1, 0, 9),
            "`zeros(-1)`: zeros: Dimension size must be non-negative",
            "`steprun ops zeros` shows what it takes",
        ),
        ("max(1, x)", (1, 0, 9), "`max(1, x)`: it does not take (int, Tensor)", SHAPE),
        (
            "nn.functional.binary_cross_entropy_with_logits(x, (x > 0).to(int64))",
            (1, 0, 68),
            "`nn.functional.binary_cross_entropy_with_logits(x, (x > 0).t…`: "
            "result type Float can't be cast to the desired output type Long",
            "cast one side with `.to(float32)`",
        ),
        (
            "binary_cross_entropy_with_logits(c, k)",
            (1, 0, 38),
            "`binary_cross_entropy_with_logits(c, k)`: result type Float can't be cast to the desired output type Long",
            "cast it: `k.to(float32)`, or write `dtype: {k: float32}` in its data",
        ),
        (
            "k.dot(x[0])",
            (1, 0, 11),
            "`k.dot(x[0])`: dot : expected both vectors to have same dtype, but found Long and Float",
            "cast one side: `k.to(float32)`",
        ),
        (
            "x.to(float64) @ w",
            (1, 0, 17),
            "`x.to(float64) @ w`: expected m1 and m2 to have the same dtype, but got: double != float",
            "cast one side: `w.to(float64)`",
        ),
        (
            "zeros(10 ** 15)",
            (1, 0, 15),
            "`zeros(10 ** 15)` does not fit into memory: it needs 3,725,290.3 GiB",
            "make it smaller, or raise the limit with --max-memory",
        ),
    ],
)
def test_a_fault_of_torch_is_told_at_its_operation(
    text: str, place: tuple[int, int, int], message: str, hint: str
) -> None:
    fault = fault_of(text)
    assert (fault.place.as_tuple(), fault.message, fault.hint) == (place, message, hint)


@over(
    ("raised", "message"),
    [
        (
            "[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory: you tried to allocate "
            "16777216 bytes. Error code 12 (Cannot allocate memory)",
            "does not fit into memory: it needs 16.0 MiB",
        ),
        (
            "RESOURCE_EXHAUSTED: Out of memory allocating 1610612736 bytes.",
            "does not fit into memory: it needs 1.5 GiB",
        ),
        ("bad_alloc", "does not fit into memory"),
        ("INTERNAL: no symbols", None),
    ],
)
def test_a_failed_allocation_says_how_much_it_needed(raised: str, message: str | None) -> None:
    assert memory_message(RuntimeError(raised)) == message


@over(
    ("raised", "message"),
    [
        ("Expected more.", "expected more"),
        ("NaN is here", "NaN is here"),
        ("first line\nsecond line", "first line"),
        ("[enforce fail at alloc_cpu.cpp:118] . no room", "no room"),
        ("text\nException raised from here", "text"),
        (
            "f() received an invalid combination of arguments - got (int), but expected one of:",
            "it does not take (int)",
        ),
        ("Expected a to be true.  (Could this error message be improved?  If so, …)", "expected a to be true"),
        (
            "cumsum_cuda_kernel does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation, or …",
            "cumsum_cuda_kernel does not have a deterministic implementation",
        ),
        ("", "RuntimeError"),
    ],
)
def test_noise_is_cut_from_what_torch_says(raised: str, message: str) -> None:
    assert torch_message(RuntimeError(raised)) == message
