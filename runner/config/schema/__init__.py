"""The JSON Schema of configs, for editors.

In: the models of a config and the catalogue. Out: the schema that every valid config satisfies, as a plain mapping.
Nothing here reads a config.
"""
