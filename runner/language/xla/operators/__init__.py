"""Translates a graph of ATen operators into a function of JAX.

In: a graph of `aten_graph`. Out: a function over JAX arrays, or `Unsupported` with every node that has no rule.
"""

from runner.language.xla.operators.translate import Missing, Unsupported, supported, translate, translate_checked

__all__ = ["Missing", "Unsupported", "supported", "translate", "translate_checked"]
