"""Operations on tensors of lanes: how each is computed for all lanes with the bits of each alone.

In: operations that torch dispatches on a `LaneTensor`. Out: their results, and recordings of them.
"""
