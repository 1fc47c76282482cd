"""The rule of each operation that is known to keep samples separate, or to reduce over them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from runner.language.graph.recurrent import RECURRENT
from runner.language.pooling.recurrent import cell, network, result
from runner.language.pooling.rules import (
    Pool,
    Rows,
    Rule,
    State,
    States,
    Term,
    Weights,
    along,
    argument_of,
    broadcast,
    elementwise,
    getitem,
    is_tensor,
    moved,
    name_of,
    reduction,
    reshape,
    shape_of,
    single_operand,
)


def _matmul(states: States, node: fx.Node) -> State | None:
    left, right = node.args[:2]
    if not (isinstance(left, fx.Node) and isinstance(right, fx.Node)):
        return None
    one, two = states.of(left), states.of(right)
    ranks = len(shape_of(left)), len(shape_of(right))
    rank = len(shape_of(node))
    contracted = isinstance(one, Rows) and one.dim == ranks[0] - 1
    contracted_right = isinstance(two, Rows) and two.dim == max(ranks[1] - 2, 0)
    if isinstance(one, Rows) and isinstance(two, Rows):
        if contracted and contracted_right:
            return Term("sum")
        places = one.dim - ranks[0], two.dim - ranks[1]
        return Rows(rank + places[0]) if places[0] == places[1] <= -3 else None
    if isinstance(one, Rows):
        if contracted:
            return None
        return Rows(one.dim if ranks[1] == 1 else rank + one.dim - ranks[0])
    assert isinstance(two, Rows)
    if contracted_right:
        return None
    if ranks[0] == 1:
        return Rows(two.dim if two.dim < ranks[1] - 2 else two.dim - 1)
    return Rows(rank + two.dim - ranks[1])


def _item(states: States, node: fx.Node) -> State | None:
    operand, place = node.args
    if isinstance(operand, fx.Node) and not is_tensor(operand):
        return result(operand, place, states.of(operand))
    return getitem(states, node)


def _linear(states: States, node: fx.Node) -> State | None:
    found = single_operand(states, node)
    return None if found is None or found[1] == len(found[2]) - 1 else Rows(found[1])


def _batched(rank: int) -> Rule:
    """The rule of an operation that treats each entry of dimension 0 separately, for an operand of this rank."""

    def rule(states: States, node: fx.Node) -> State | None:
        found = single_operand(states, node)
        return Rows(0) if found is not None and found[1] == 0 and len(found[2]) == rank else None

    return rule


def _at_least(rank: int) -> Rule:
    """The rule of an operation that mixes the last `rank` dimensions, and treats each leading entry separately."""

    def rule(states: States, node: fx.Node) -> State | None:
        found = single_operand(states, node)
        return Rows(found[1]) if found is not None and found[1] < len(found[2]) - rank else None

    return rule


def _attention(states: States, node: fx.Node) -> State | None:
    right = broadcast(states, node.all_input_nodes[:3])
    return Rows(len(shape_of(node)) + right) if right is not None and right <= -3 else None


def _layer_norm(states: States, node: fx.Node) -> State | None:
    found, shape = single_operand(states, node), argument_of(node, 1, "normalized_shape")
    if found is None:
        return None
    rank = len(shape) if isinstance(shape, (tuple, list)) else 1
    return Rows(found[1]) if found[1] < len(found[2]) - rank else None


def _batch_norm(states: States, node: fx.Node) -> State | None:
    found = single_operand(states, node)
    evaluates = argument_of(node, 5, "training", False) is False
    return Rows(0) if found is not None and found[1] == 0 and evaluates else None


def _embedding(states: States, node: fx.Node) -> State | None:
    found = single_operand(states, node)
    return None if found is None else Rows(found[1])


def _measure(pool: Pool) -> Rule:
    """The rule of a metric that is a mean or a count over samples, of predictions and targets."""

    def rule(states: States, node: fx.Node) -> State | None:
        operands = [states.of(operand) for operand in node.all_input_nodes]
        return Term(pool) if all(operand == Rows(0) for operand in operands) else None

    return rule


def _joined(states: States, node: fx.Node) -> State | None:
    operands, place = node.args[0], argument_of(node, 1, "dim", 0)
    if not isinstance(operands, (tuple, list)) or type(place) is not int:
        return None
    dims = {state.dim if isinstance(state, Rows) else -1 for state in map(states.of, operands)}
    if len(dims) != 1:
        return None
    (dim,) = dims
    rank = len(shape_of(node))
    place %= rank
    if name_of(node) == "stack":
        return Rows(dim + (place <= dim))
    return None if place == dim else Rows(dim)


def _einsum(states: States, node: fx.Node) -> State | None:
    equation, *operands = node.args
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = list(operands[0])
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return None
    inputs, _, output = equation.replace(" ", "").partition("->")
    labels = set()
    for letters, operand in zip(inputs.split(","), operands, strict=True):
        state = states.of(operand)
        if isinstance(state, Rows):
            labels.add(letters[state.dim])
    if len(labels) != 1:
        return None
    (label,) = labels
    for letters, operand in zip(inputs.split(","), operands, strict=True):
        if label in letters and (not isinstance(states.of(operand), Rows) or letters.count(label) > 1):
            return None
    return Rows(output.index(label)) if label in output else Term("sum")


def _loss(elements: int) -> Rule:
    """The rule of a loss that is computed element by element, and reduced as its `reduction` says."""

    def rule(states: States, node: fx.Node) -> State | None:
        operands = [operand for operand in node.all_input_nodes if is_tensor(operand)]
        right = broadcast(states, operands)
        if right is None:
            return None
        reduction = node.kwargs.get("reduction", "mean")
        if any(isinstance(argument, str) for argument in node.args):
            return None
        if reduction == "none":
            return Rows(len(shape_of(node)) + right)
        if reduction == "batchmean":
            first = operands[0]
            return Term("mean") if right == -len(shape_of(first)) else None
        return Term("mean") if reduction == "mean" else Term("sum") if reduction == "sum" else None

    return rule


def _by_class(states: States, node: fx.Node) -> State | None:
    """The rule of `cross_entropy` and `nll_loss`. Their mean is weighted by the targets that are not ignored."""
    logits, target = argument_of(node, 0, "input"), argument_of(node, 1, "target")
    weight = argument_of(node, 2, "weight")
    if (
        not all(isinstance(state, Rows) and state.dim == 0 for state in map(states.of, (logits, target)))
        or len(shape_of(logits)) < 2
    ):
        return None
    if isinstance(states.of(weight), Rows) or any(isinstance(argument, str) for argument in node.args):
        return None
    reduction = node.kwargs.get("reduction", "mean")
    if reduction != "mean":
        return Term("sum") if reduction == "sum" else Rows(0)
    if target.meta["example"].dtype.is_floating_point:
        return Term("mean")
    ignored = argument_of(node, 4, "ignore_index", -100)
    return Term("weighted", Weights(target, weight, ignored)) if type(ignored) is int else None


def _words(text: str) -> list[str]:
    return text.split()


TAKE_LENGTHS = frozenset({"reshape", "view", "flatten", "unflatten", "getitem", "view_as", "reshape_as"})
"""Operations with the batch length as a valid argument; their results are checked instead."""

SEPARATE_DRAWS = frozenset({"dropout", "alpha_dropout"})
"""Operations that draw random numbers for each element, so for each sample, with a mean over samples as it is."""

FACTORIES = frozenset({"zeros", "ones", "full"})

UNARY_LINEAR = frozenset(
    _words(
        "neg pos positive sum mean getitem reshape view flatten squeeze unsqueeze transpose permute detach "
        "clone contiguous float double half bfloat16 to trace diagonal .T .mT .real "
    )
)

_ELEMENTWISE = _words(
    "add sub mul truediv div divide floordiv floor_divide mod remainder fmod pow power neg pos positive "
    "invert bitwise_not bitwise_and bitwise_or bitwise_xor and_ or_ xor eq ne lt le gt ge logical_and "
    "logical_or logical_not logical_xor abs absolute sign sgn sqrt rsqrt square exp exp2 expm1 log log2 "
    "log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh arcsin arccos arctan atan2 "
    "arctan2 hypot sigmoid logit relu relu6 elu selu celu gelu silu mish hardswish hardsigmoid hardtanh "
    "leaky_relu softplus softsign tanhshrink softshrink hardshrink threshold logsigmoid erf erfc erfinv "
    "ceil floor round trunc frac clamp clip clamp_min clamp_max nan_to_num reciprocal maximum minimum "
    "fmax fmin where masked_fill lerp addcmul addcdiv isnan isfinite isinf isclose heaviside xlogy float "
    "double half bfloat16 long int short char bool byte to type type_as detach clone contiguous "
    "zeros_like ones_like full_like real imag .real .imag conj angle deg2rad rad2deg lgamma digamma "
    "gammaln i0 sinc copysign ldexp float_power multiply subtract true_divide greater less greater_equal "
    "less_equal not_equal equal rsub watch logaddexp logaddexp2 nextafter xlog1py ndtr entr "
)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    "mean": reduction("mean"),
    "sum": reduction("sum"),
    "count_nonzero": reduction("sum"),
    "nansum": reduction("sum"),
    "amax": reduction("max"),
    "amin": reduction("min"),
    "any": reduction("max"),
    "all": reduction("min"),
    "max": reduction("max", whole_only=True),
    "min": reduction("min", whole_only=True),
    **dict.fromkeys(_words("argmax argmin prod logsumexp var std median nanmedian nanmean"), reduction(None)),
    **dict.fromkeys(_words("norm vector_norm quantile"), reduction(None, 2)),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(_words("softmax log_softmax softmin cumsum cumprod logcumsumexp flip roll"), along(None)),
    "normalize": along(1, 2),
    **dict.fromkeys(_words("reshape view flatten unflatten ravel"), reshape),
    **dict.fromkeys(_words(".T .mT .H .mH t transpose swapaxes swapdims permute unsqueeze squeeze"), moved),
    "getitem": _item,
    **dict.fromkeys(_words("matmul mm mv bmm"), _matmul),
    "linear": _linear,
    "einsum": _einsum,
    **dict.fromkeys(_words("cat concat concatenate stack"), _joined),
    **dict.fromkeys(_words("chunk split tensor_split"), along(0, 2)),
    "one_hot": _embedding,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "group_norm": _at_least(1),
    **dict.fromkeys(SEPARATE_DRAWS, _embedding),
    **dict.fromkeys(
        _words("conv1d conv_transpose1d max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d"),
        _batched(3),
    ),
    **dict.fromkeys(
        _words("conv2d conv_transpose2d max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d"),
        _batched(4),
    ),
    **dict.fromkeys(
        _words("conv3d conv_transpose3d max_pool3d avg_pool3d adaptive_avg_pool3d adaptive_max_pool3d"),
        _batched(5),
    ),
    **dict.fromkeys(RECURRENT, network),
    **dict.fromkeys(_words("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"), cell),
    "pad": _at_least(1),
    **dict.fromkeys(
        _words(
            "mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits "
            "kl_div poisson_nll_loss soft_margin_loss hinge_embedding_loss "
        ),
        _loss(2),
    ),
    "cross_entropy": _by_class,
    "nll_loss": _by_class,
    "accuracy": _measure("mean"),
    "top_k_accuracy": _measure("mean"),
    "confusion_matrix": _measure("sum"),
}
