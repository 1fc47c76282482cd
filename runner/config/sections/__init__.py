"""Builds the models from each section of a config: parameters, data, optimizers, steps, snapshot.

In: plain values of a document. Out: fields of the models, with short forms expanded.
Problems are collected, each at its place.
"""
