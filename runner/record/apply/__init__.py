"""Applies trained runs: named values of a run's expression over tensors, or over the samples of a file.

In: a run directory, and tensors or a data source. Out: tensors, or a file with one row for each sample.
Nothing is fitted, drawn or trained here: weights and fitted constants are those of the run.
"""
