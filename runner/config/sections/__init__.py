"""Reads each section of a config: parameters, data, optimizers, steps, snapshot.

In: plain values of a document. Out: fields of the models, with the short forms written out.
Each fault is collected at its place.
"""
