"""Compiled execution: the `train` steps of a plan as regions of many iterations, each one call of compiled code."""
