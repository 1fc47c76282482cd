"""The state of a run on disk.

In: a state, or a checkpoint's files. Out: safetensors with JSON beside them, or the state again, checked.
Never pickle.
"""
