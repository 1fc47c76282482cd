"""Compares autograd with finite differences.

In: a plan. Out: for each parameter whether its gradients agree, and a known cause where they do not.
Serves `steprun gradcheck`.
"""
