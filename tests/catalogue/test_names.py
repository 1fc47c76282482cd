"""Names to entries: what a person writes, what it means, why it is left out."""

from __future__ import annotations

import subprocess
import sys

from runner import catalogue
from tests.tables import over


@over(
    ("written", "target"),
    [
        ("softmax", "torch.nn.functional.softmax"),
        ("F.softmax", "torch.nn.functional.softmax"),
        ("nn.functional.softmax", "torch.nn.functional.softmax"),
        ("torch.nn.functional.softmax", "torch.nn.functional.softmax"),
        ("torch.softmax", "torch.softmax"),
        ("special.softmax", "torch.special.softmax"),
        ("sum", "torch.sum"),
        ("det", "torch.det"),
        ("linalg.det", "torch.linalg.det"),
        ("torch.linalg.det", "torch.linalg.det"),
        ("fft.fft", "torch.fft.fft"),
        ("torch.special.erf", "torch.special.erf"),
        ("masked.sum", "torch.masked.sum"),
        ("signal.windows.hann", "torch.signal.windows.hann"),
    ],
)
def test_an_operation_is_found_under_every_spelling_of_pytorch(written: str, target: str) -> None:
    operation = catalogue.find_operation(written)
    assert operation is not None
    assert operation.target == target


def test_a_bare_name_is_functionals_before_it_is_torchs() -> None:
    both = {name[2:] for name in catalogue.operations() if name.startswith("F.")}
    for name in sorted(both):
        operation = catalogue.find_operation(name)
        assert operation is not None
        assert operation.name == f"F.{name}"


@over("name", ["cholesky_ex", "erfcx", "rfft", "nope", "torch.nope", "F.sum", "linalg.sum", "", ".", "T"])
def test_what_needs_a_prefix_or_does_not_exist_is_not_found(name: str) -> None:
    assert catalogue.find_operation(name) is None


@over(
    ("name", "reason"),
    [
        ("empty", "uninitialised memory"),
        ("torch.empty_like", "uninitialised memory"),
        (".new_empty", "uninitialised memory"),
        ("as_strided", "memory rather than at values"),
        ("load", "files"),
        ("torch.save", "files"),
        ("torch.from_file", "files"),
        ("from_numpy", "shares memory"),
        ("asarray", "shares memory"),
        ("manual_seed", "`seed`"),
        ("torch.set_num_threads", "state of the process"),
        ("torch.set_default_dtype", "state of the process"),
        (".item", "out of the computation"),
        (".tolist", "out of the computation"),
        (".numpy", "out of the computation"),
        (".cuda", "`device: cuda`"),
        (".data", "x.detach()"),
        (".grad", "`backward` steps"),
        (".requires_grad", "`backward` steps"),
        (".data_ptr", "memory rather than at values"),
        (".to_sparse", "sparse"),
        (".register_hook", "function as an argument"),
        ("vmap", "function as an argument"),
        ("torch.compile", "function as an argument"),
        ("F.handle_torch_function", "machinery"),
        ("native_batch_norm", "running statistics"),
        ("add_", "writes into its argument"),
        (".add_", "writes into its argument"),
        ("F.relu_", "writes into its argument"),
        (".__class__", "underscore"),
        ("_softmax", "underscore"),
        ("torch._C", "underscore"),
    ],
)
def test_a_denied_name_says_why(name: str, reason: str) -> None:
    assert catalogue.find_operation(name) is None
    assert reason in (catalogue.refusal(name) or "")


@over("name", ["relu", "torch.sum", ".sum", ".T", "nope", "torch.linalg.nope"])
def test_no_reason_is_given_for_what_exists_or_never_did(name: str) -> None:
    assert catalogue.refusal(name) is None


@over("key", sorted(catalogue.denied()))
def test_a_reason_reads_on_after_is_not_available(key: str) -> None:
    reason = catalogue.denied()[key]
    assert reason[0].islower()
    assert not reason.endswith(".")


def test_methods_and_attributes_are_found_by_their_bare_names() -> None:
    view = catalogue.find_method("view")
    transposed = catalogue.find_attribute("T")
    assert view is not None
    assert [catalogue.signature_text("view", overload) for overload in view.overloads] == [
        "view(*size: int[])",
        "view(dtype: dtype)",
    ]
    assert transposed is not None
    assert transposed.overloads == ()
    assert catalogue.find_method("T") is None
    assert catalogue.find_attribute("view") is None
    assert set(catalogue.attributes()) == {".H", ".T", ".dtype", ".imag", ".mH", ".mT", ".ndim", ".real", ".shape"}


def test_an_argument_after_a_denied_one_is_given_by_name_only() -> None:
    operation = catalogue.find_operation("cross_entropy")
    assert operation is not None
    by_name = {argument.name for argument in operation.overloads[0] if argument.keyword_only}
    assert by_name == {"ignore_index", "reduction", "label_smoothing"}


def test_every_line_parses_back_to_what_it_says() -> None:
    lines = (catalogue.operations, catalogue.methods)
    for table, file in zip(lines, ("operations.txt", "methods.txt"), strict=True):
        from runner.catalogue.tables import FOLDER

        printed = [
            catalogue.signature_text(entry.name, overload) for entry in table().values() for overload in entry.overloads
        ]
        written = [line.partition("  # ")[0] for line in (FOLDER / file).read_text(encoding="utf-8").splitlines()]
        assert printed == written


def test_the_catalogue_knows_no_torch_and_reads_only_what_is_asked_for() -> None:
    code = (
        "import sys; from runner import catalogue; from runner.catalogue import tables; "
        "catalogue.find_operation('softmax'); catalogue.optimizers(); "
        "assert not {'torch', 'numpy', 'pydantic', 'pyarrow'} & set(sys.modules), 'heavy import'; "
        "assert catalogue.methods.cache_info().currsize == 0, 'methods were read'; "
        "assert len(tables.operations()._parsed) == 1, 'more was parsed than asked for'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
