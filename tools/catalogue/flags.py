"""Flags of operations: facts that the language needs and that no signature has."""

from __future__ import annotations

FLAGGED: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("factory", "default_dtype"),
        "torch.eye torch.linspace torch.logspace torch.ones torch.rand torch.randn torch.zeros torch.bartlett_window "
        "torch.blackman_window torch.hamming_window torch.hann_window torch.kaiser_window fft.fftfreq fft.rfftfreq "
        "signal.windows.bartlett signal.windows.blackman signal.windows.cosine signal.windows.exponential "
        "signal.windows.gaussian signal.windows.general_cosine signal.windows.general_hamming signal.windows.hamming "
        "signal.windows.hann signal.windows.kaiser signal.windows.nuttall",
    ),
    (("factory", "inferred_dtype"), "torch.arange torch.full torch.scalar_tensor torch.tensor"),
    (("factory",), "torch.randint torch.randperm torch.tril_indices torch.triu_indices"),
    (
        ("dynamic",),
        "torch.argwhere .argwhere torch.bincount .bincount torch.masked_select .masked_select torch.nonzero .nonzero "
        "torch.repeat_interleave .repeat_interleave torch.unique .unique torch.unique_consecutive .unique_consecutive "
        "F.one_hot linalg.lstsq",
    ),
    (
        ("random",),
        "torch.bernoulli .bernoulli torch.binomial torch.multinomial .multinomial torch.normal torch.poisson "
        "torch.rand torch.rand_like torch.randint torch.randint_like torch.randn torch.randn_like torch.randperm "
        "torch.rrelu torch.dropout torch.alpha_dropout torch.feature_alpha_dropout torch.feature_dropout "
        "torch.native_dropout torch.pca_lowrank torch.svd_lowrank torch.lobpcg torch.gru torch.lstm torch.rnn_relu "
        "torch.rnn_tanh F.alpha_dropout F.dropout F.dropout1d F.dropout2d F.dropout3d F.feature_alpha_dropout "
        "F.fractional_max_pool2d F.fractional_max_pool2d_with_indices F.fractional_max_pool3d "
        "F.fractional_max_pool3d_with_indices F.gumbel_softmax F.multi_head_attention_forward F.rrelu "
        "F.scaled_dot_product_attention",
    ),
    (
        ("scalar",),
        "torch.broadcast_shapes torch.is_complex .is_complex torch.is_floating_point .is_floating_point "
        "torch.is_same_size .is_same_size torch.is_signed .is_signed torch.numel .numel .nelement .dim .ndimension "
        ".size .dtype .ndim .shape",
    ),
    (("running_statistics",), "F.batch_norm"),
)


def flags(name: str) -> list[str]:
    """Returns the flags of a name of the tables; `runner.catalogue.Operation` documents each."""
    return [flag for found, names in FLAGGED if name in names.split() for flag in found]


def flagged_names() -> frozenset[str]:
    """Returns every name that has a flag; a test checks that the tables contain them."""
    return frozenset(name for _, names in FLAGGED for name in names.split())
