"""The expression language: parsing, scalars, lowering to torch.fx, shape inference, run-time places."""
