"""Saves and loads the state of a run.

In: a state, or a checkpoint's files. Out: a safetensors file with a JSON file, or the checked state.
Never pickle.
"""
