"""Resumes runs: those that were stopped, and finished ones whose last loop grows.

In: a run directory. Out: the same directory with further rows, or a new one.
"""

from runner.record.resuming.longer import Longer, lengthen, resume

__all__ = ["Longer", "lengthen", "resume"]
