"""The text of expressions: parsing, scalar arithmetic, hints.

In: text. Out: checked Python syntax, or a number.
Does not import torch.
"""
