"""Parts of the JSON Schema of configs, which `config/schema.py` assembles.

In: the models, and the catalogue. Out: schemas as plain mappings.
Nothing here reads a config.
"""
