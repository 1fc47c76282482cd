"""Checks that the device of a config is available."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from runner.config import Config
from runner.faults import Faults
from runner.plan.determinism import configure

_DEVICE_COUNTS: Mapping[str, Callable[[], int]] = {
    "cpu": lambda: 1,
    "cuda": lambda: torch.cuda.device_count(),
    "mps": lambda: int(torch.backends.mps.is_available()),
}


def prepare_device(config: Config, faults: Faults) -> None:
    """Check the device of a config, and configure it for reproducible results.

    Raises:
        ConfigError: this machine has no such device, or the config's engine does not support it.
    """
    device = config.device
    if config.engine == "cudagraph":
        from runner.plan.checks.engines.capturable import check_device

        check_device(device, faults)
    elif config.engine == "xla":
        from runner.plan.checks.engines.translatable import check_jax

        check_jax(device, faults)
    kind, _, index = device.partition(":")
    if int(index or 0) >= _DEVICE_COUNTS[kind]():
        faults.add(("device",), f"this machine has no device `{device}`", "write `device: cpu`")
    faults.stop()
    configure(device)
