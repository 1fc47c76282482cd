"""The rule of each operation that is known to keep samples separate, or to reduce over them."""

from __future__ import annotations

from collections.abc import Mapping

from runner.language.graph.recurrent import RECURRENT
from runner.language.pooling.entries import (
    columns_of,
    diagonal,
    gathered,
    index_select,
    item,
    joined,
    movedim,
    quantile,
    rearranged,
    repeated,
    stacked_columns,
    unfold,
    without,
)
from runner.language.pooling.layers import (
    at_least,
    attention,
    batch_norm,
    batched,
    each_matrix,
    in_first,
    instance_norm,
    layer_norm,
    pad,
    prelu,
    sampled,
    separate,
    solve,
)
from runner.language.pooling.losses import by_class, by_sample, loss, measure
from runner.language.pooling.products import (
    added_matmul,
    bilinear,
    contracted,
    cross,
    distances,
    einsum,
    inner,
    linear,
    matmul,
    outer,
)
from runner.language.pooling.recurrent import cell, network
from runner.language.pooling.rules import Rule, along, elementwise, moved, reduction, reshape

KEYWORD = 99
"""The place of an argument that is given by keyword alone."""


def _words(text: str) -> list[str]:
    return text.split()


TAKE_LENGTHS = frozenset(
    _words("reshape view flatten unflatten getitem view_as reshape_as expand expand_as broadcast_to")
)
"""Operations with the batch length as a valid argument; their results are checked instead."""

SEPARATE_DRAWS = frozenset(_words("dropout alpha_dropout dropout1d dropout2d dropout3d feature_alpha_dropout rrelu"))
"""Operations that draw random numbers for each sample, so a mean over samples combines as it does without."""

FACTORIES = frozenset(_words("zeros ones full expand broadcast_to"))
"""Operations that make a tensor of equal entries along the dimension that has the batch length."""

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
    "less_equal not_equal equal rsub watch logaddexp logaddexp2 nextafter arccosh arcsinh arctanh negative fix "
    "signbit isneginf isposinf isreal bitwise_left_shift bitwise_right_shift copysign gcd lcm igamma igammac "
    "polygamma mvlgamma complex polar conj_physical resolve_conj resolve_neg detach_copy alias_copy frexp fill "
    "special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_digamma "
    "special_entr special_erf special_erfc special_erfcx special_erfinv special_exp2 special_expit special_expm1 "
    "special_gammainc special_gammaincc special_gammaln special_i0 special_i0e special_i1 special_i1e special_log1p "
    "special_log_ndtr special_logit special_modified_bessel_i0 special_modified_bessel_i1 special_modified_bessel_k0 "
    "special_modified_bessel_k1 special_multigammaln special_ndtr special_ndtri special_polygamma special_psi "
    "special_round special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1 special_sinc "
    "special_spherical_bessel_j0 special_xlog1py special_xlogy special_zeta special_hermite_polynomial_h "
    "special_hermite_polynomial_he special_laguerre_polynomial_l special_legendre_polynomial_p "
    "special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v "
    "special_chebyshev_polynomial_w special_shifted_chebyshev_polynomial_t special_shifted_chebyshev_polynomial_u "
    "special_shifted_chebyshev_polynomial_v special_shifted_chebyshev_polynomial_w "
)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    # reductions
    "mean": reduction("mean"),
    **dict.fromkeys(_words("sum count_nonzero nansum"), reduction("sum")),
    **dict.fromkeys(_words("amax any"), reduction("max")),
    **dict.fromkeys(_words("amin all"), reduction("min")),
    "max": reduction("max", whole_only=True),
    "min": reduction("min", whole_only=True),
    **dict.fromkeys(
        _words("argmax argmin prod logsumexp special_logsumexp var std var_mean std_mean median nanmedian nanmean"),
        reduction(None),
    ),
    "aminmax": reduction(None, KEYWORD),
    **dict.fromkeys(_words("norm linalg_norm linalg_vector_norm"), reduction(None, 2)),
    "linalg_matrix_norm": reduction(None, 2, default=(-2, -1)),
    "kthvalue": reduction(None, 2, default=-1),
    "mode": reduction(None, default=-1),
    **dict.fromkeys(_words("trapezoid trapz"), reduction(None, KEYWORD, default=-1)),
    **dict.fromkeys(_words("quantile nanquantile"), quantile),
    # along one dimension
    **dict.fromkeys(
        _words(
            "softmax log_softmax softmin special_softmax special_log_softmax cumsum cumprod cummax cummin logcumsumexp"
        ),
        along(None),
    ),
    **dict.fromkeys(_words("sort argsort glu"), along(-1)),
    "topk": along(-1, 2),
    "normalize": along(1, 2),
    **dict.fromkeys(_words("flip roll"), rearranged),
    "rot90": along((0, 1), 2, "dims"),
    "diff": along(-1, 2),
    "cumulative_trapezoid": along(-1, KEYWORD),
    **dict.fromkeys(
        _words("fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft"),
        along(-1, 2),
    ),
    **dict.fromkeys(_words("fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_hfft2 fft_ihfft2"), along((-2, -1), 2)),
    **dict.fromkeys(_words("fft_fftn fft_ifftn fft_rfftn fft_irfftn"), along(None, 2)),
    **dict.fromkeys(_words("fft_fftshift fft_ifftshift"), along(None)),
    **dict.fromkeys(
        _words("chunk split tensor_split split_with_sizes unsafe_chunk unsafe_split unsafe_split_with_sizes"),
        along(0, 2),
    ),
    "repeat_interleave": along(None, 2),
    "narrow": along(None),
    # shapes and entries
    **dict.fromkeys(_words("reshape view flatten unflatten ravel"), reshape),
    **dict.fromkeys(_words(".T .mT .H .mH t transpose swapaxes swapdims adjoint permute unsqueeze squeeze"), moved),
    **dict.fromkeys(_words("movedim moveaxis"), movedim),
    "getitem": item,
    **dict.fromkeys(_words("cat concat concatenate stack"), joined),
    **dict.fromkeys(_words("hstack column_stack dstack"), stacked_columns),
    **dict.fromkeys(_words("repeat tile expand broadcast_to"), repeated),
    "expand_as": elementwise,
    "hsplit": columns_of(1),
    "dsplit": columns_of(2),
    "select": without(None),
    "unbind": without(0),
    "diagonal": diagonal(0, 1),
    "linalg_diagonal": diagonal(-2, -1),
    "unfold": unfold,
    **dict.fromkeys(_words("gather scatter scatter_add scatter_reduce take_along_dim"), gathered),
    "index_select": index_select,
    **dict.fromkeys(_words("view_as_real bucketize isin one_hot embedding"), separate),
    "view_as_complex": at_least(1),
    # products
    **dict.fromkeys(_words("matmul mm mv bmm dot vdot linalg_matmul"), matmul),
    **dict.fromkeys(_words("addmm addmv baddbmm"), added_matmul),
    "linear": linear,
    "bilinear": bilinear,
    "einsum": einsum,
    "inner": inner,
    **dict.fromkeys(_words("outer ger"), outer),
    **dict.fromkeys(_words("cross linalg_cross"), cross),
    "linalg_vecdot": contracted(-1, KEYWORD),
    "cosine_similarity": contracted(1, 2),
    "pairwise_distance": contracted(-1, KEYWORD),
    "cdist": distances,
    # a matrix for each sample
    **dict.fromkeys(
        _words(
            "tril triu cholesky cholesky_inverse inverse det logdet slogdet pinverse matrix_exp matrix_power "
            "linalg_cholesky linalg_inv linalg_det linalg_slogdet linalg_pinv linalg_matrix_exp linalg_matrix_power "
            "linalg_matrix_rank linalg_cond linalg_eigh linalg_eigvalsh linalg_eig linalg_eigvals linalg_qr qr "
            "linalg_svd linalg_svdvals svd linalg_lu_factor linalg_lu "
        ),
        each_matrix,
    ),
    "linalg_solve": solve,
    # layers
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(_words("layer_norm rms_norm"), layer_norm),
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "group_norm": in_first,
    **dict.fromkeys(_words("dropout alpha_dropout rrelu"), separate),
    **dict.fromkeys(_words("dropout1d dropout2d dropout3d feature_alpha_dropout"), in_first),
    **dict.fromkeys(_words("interpolate upsample upsample_nearest upsample_bilinear"), in_first),
    **dict.fromkeys(_words("channel_shuffle local_response_norm embedding_bag"), in_first),
    **dict.fromkeys(_words("pixel_shuffle pixel_unshuffle"), at_least(3)),
    "grid_sample": sampled,
    "prelu": prelu,
    **dict.fromkeys(
        _words(
            "conv1d conv_transpose1d max_pool1d avg_pool1d lp_pool1d adaptive_avg_pool1d adaptive_max_pool1d "
            "max_pool1d_with_indices adaptive_max_pool1d_with_indices fold "
        ),
        batched(3),
    ),
    **dict.fromkeys(
        _words(
            "conv2d conv_transpose2d max_pool2d avg_pool2d lp_pool2d adaptive_avg_pool2d adaptive_max_pool2d "
            "max_pool2d_with_indices adaptive_max_pool2d_with_indices "
        ),
        batched(4),
    ),
    **dict.fromkeys(
        _words(
            "conv3d conv_transpose3d max_pool3d avg_pool3d lp_pool3d adaptive_avg_pool3d adaptive_max_pool3d "
            "max_pool3d_with_indices adaptive_max_pool3d_with_indices "
        ),
        batched(5),
    ),
    **dict.fromkeys(RECURRENT, network),
    **dict.fromkeys(_words("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"), cell),
    **dict.fromkeys(_words("pad constant_pad_nd"), pad),
    # losses and metrics
    **dict.fromkeys(
        _words(
            "mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits "
            "kl_div poisson_nll_loss soft_margin_loss hinge_embedding_loss gaussian_nll_loss margin_ranking_loss "
        ),
        loss,
    ),
    **dict.fromkeys(
        _words(
            "cosine_embedding_loss multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss "
            "triplet_margin_loss "
        ),
        by_sample,
    ),
    **dict.fromkeys(_words("cross_entropy nll_loss"), by_class),
    **dict.fromkeys(_words("accuracy top_k_accuracy"), measure("mean")),
    "confusion_matrix": measure("sum"),
}
