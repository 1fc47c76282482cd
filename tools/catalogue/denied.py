"""The names of torch that the language excludes, and why: patterns reviewed by hand.

The patterns are matched against every public name. A pattern without a dot matches the last part of a name, in every
namespace. A pattern with a dot matches the whole name as the tables spell it: `torch.load`, or `.item` for a method or
an attribute. The first rule that matches decides the reason, which follows "`name` is not available: ".
"""

from __future__ import annotations

from fnmatch import fnmatchcase

ALLOWED: frozenset[str] = frozenset({"is_complex", "is_floating_point", "is_signed", "is_same_size"})
"""Names to keep although a pattern below matches them."""

NAMES: tuple[tuple[str, str], ...] = (
    (
        "it would show uninitialised memory; `zeros` and `full` make tensors of known values",
        "empty empty_* new_empty* .new",
    ),
    (
        "it looks at memory rather than at values; use `reshape`, `permute` and indexing",
        "as_strided* storage untyped_storage storage_offset storage_type data_ptr const_data_ptr stride dim_order "
        "element_size itemsize nbytes slice_inverse",
    ),
    ("it changes the size of its argument in place", "resize resize_as resize_as_sparse"),
    (
        "it takes the value out of the computation, so its gradient and its place in the plan would be lost",
        "item tolist numpy is_nonzero to_dlpack",
    ),
    ("it gives one Python boolean; `all(isclose(a, b))` and `all(a == b)` give a tensor", "allclose equal"),
    ("it reads or writes files", "load save from_file get_file_path"),
    (
        "it shares memory with objects of other libraries; declare a constant with `file:` or a list",
        "from_numpy frombuffer from_dlpack asarray as_tensor",
    ),
    (
        "random numbers come from the config's `seed` alone",
        "manual_seed seed initial_seed get_rng_state set_rng_state thread_safe_generator",
    ),
    (
        "the device is one for the whole config: `device: cuda`",
        "cuda .cpu xpu ipu mtia hpu get_device get_device_module get_default_device .device",
    ),
    (
        "it reads or changes the state of the process",
        "set_* get_autocast* is_autocast* autocast_* clear_autocast_cache use_deterministic_algorithms "
        "are_deterministic* get_default* get_deterministic* get_float32_matmul_precision get_num* init_num_threads "
        "is_anomaly* is_deterministic* is_grad_enabled is_inference_mode_enabled is_warn_always_enabled "
        "is_vulkan_available compiled_with* cudnn_is_acceptable profiler_* prepare_multiprocessing_environment",
    ),
    (
        "it takes a function as an argument, and functions are not values",
        "vmap torch.cond while_loop compile fork wait .register_*",
    ),
    (
        "it belongs to torch's own machinery",
        "has_torch_function* handle_torch_function boolean_dispatch Optional assert_int_or_pair import_ir* parse_* "
        "merge_type* unify_type_list classproperty typename is_tensor is_storage jiterator_* sym_* as_subclass "
        "module_load can_cast promote_types result_type",
    ),
    (
        "gradients come from `backward` steps and `grad(y, x)`, never from inside an expression",
        ".backward .grad .grad_fn .grad_dtype .retain_grad .retains_grad .requires_grad .is_leaf .output_nr .volatile "
        ".reinforce",
    ),
    ("it hides a tensor from autograd and still shares its memory; write `x.detach()`", ".data"),
    ("the dtype of a tensor is changed by `x.to(float64)`", ".type"),
    ("an element is written `x[i]`", ".index"),
    (
        "masked tensors are not part of the language; `masked.sum(x, mask=m)` takes the mask as an argument",
        "masked_tensor as_masked_tensor is_masked_tensor",
    ),
    (
        "it is about where or how a tensor is stored, which a config cannot choose",
        "is_* .layout .name .record_stream .pin_memory .share_memory .qscheme",
    ),
    (
        "sparse tensors are not part of the language",
        "sparse_* to_sparse* to_dense coalesce dense_dim sparse_dim indices values *_indices_copy crow_indices "
        "ccol_indices col_indices row_indices indices_copy values_copy hspmm smm sspaddmm dsmm hsmm saddmm spmm "
        "native_norm to_padded_tensor to_mkldnn",
    ),
    (
        "quantized tensors are not part of the language",
        "quantize_* quantized_* q_* int_repr dequantize choose_qparams_optimized fbgemm_* "
        "fused_moving_avg_obs_fake_quant scaled_mm scaled_grouped_mm grouped_mm",
    ),
    ("it belongs to one vendor's library; use the operation without the prefix", "cudnn_* miopen_* mkldnn_*"),
    (
        "it may write its running statistics; use `F.batch_norm` or `F.instance_norm`",
        "torch.batch_norm batch_norm_* native_batch_norm torch.instance_norm",
    ),
    (
        "torch has removed it; look in `linalg`",
        "torch.eig .eig torch.lstsq .lstsq torch.symeig .symeig torch.solve .solve torch.matrix_rank",
    ),
    ("torch has replaced it by `arange`", "torch.range"),
)

IN_PLACE = "it writes into its argument; give the result a new name instead"
PRIVATE = "names that start with an underscore are not part of the language"

ARGUMENTS: dict[str, str] = {
    "out": "it writes into a tensor; give the result a name instead",
    "inplace": "nothing is done in place; give the result a name instead",
    "generator": "random numbers come from the config's `seed`",
    "device": "the device is one for the whole config: `device: cuda`",
    "layout": "every tensor is dense",
    "requires_grad": "gradients belong to `parameters`",
    "pin_memory": "memory is managed by the engine",
    "non_blocking": "memory is managed by the engine",
    "memory_format": "memory is managed by the engine",
    "names": "named dimensions are not part of the language",
    "sparse_grad": "sparse gradients are not part of the language",
    "implicit": "it belongs to torch's own machinery",
    "size_average": "torch has replaced it by `reduction`",
}
"""Arguments excluded from every operation, and why."""

_RULES: tuple[tuple[str, str, str], ...] = (
    (
        "F.embedding F.embedding_bag",
        "max_norm norm_type",
        "it rewrites the table that it looks up in; scale the rows in the expression",
    ),
    (
        "F.embedding F.embedding_bag torch.embedding torch.embedding_bag",
        "sparse",
        "sparse gradients are not part of the language",
    ),
    (
        "F.instance_norm",
        "running_mean running_var momentum",
        "it would update the running statistics; write `F.batch_norm(x, mean, variance)` for fixed ones",
    ),
    (
        "F.triplet_margin_with_distance_loss",
        "distance_function",
        "functions are not values; the distance is `F.pairwise_distance`",
    ),
    ("torch.lobpcg", "tracker", "functions are not values"),
    ("torch.lobpcg", "ortho_iparams ortho_fparams ortho_bparams", "mappings are not values"),
    ("F.linear_cross_entropy", "options", "it tunes kernels, which a config cannot choose"),
)
ARGUMENTS_OF: dict[tuple[str, str], str] = {
    (name, argument): reason
    for names, arguments, reason in _RULES
    for name in names.split()
    for argument in arguments.split()
}
"""Arguments excluded from single operations, and why."""

VALUES: dict[str, str] = {
    "linalg.lstsq(driver='gelsy')": "it starts from uninitialised memory and ends in other bits each time; use 'gelsd'",
}
"""String values excluded from arguments, and why."""


def refusal(name: str) -> str | None:
    """Returns why the public name `name` is excluded, or None if it belongs in the tables."""
    bare = name.rpartition(".")[2]
    if bare in ALLOWED:
        return None
    if bare.startswith("_"):
        return PRIVATE
    if bare.endswith("_"):
        return IN_PLACE
    for reason, patterns in NAMES:
        if any(fnmatchcase(name if "." in pattern else bare, pattern) for pattern in patterns.split()):
            return reason
    return None


def argument_refusal(name: str, argument: str) -> str | None:
    """Returns why `argument` is excluded from the operation `name`, or None if it is not."""
    if argument.startswith("_"):
        return PRIVATE
    if argument == "reduce" and name.startswith("F."):
        return ARGUMENTS["size_average"]
    return ARGUMENTS_OF.get((name, argument)) or ARGUMENTS.get(argument)
