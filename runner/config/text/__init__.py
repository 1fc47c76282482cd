"""Parses YAML text into a tree, with the place of every character.

In: files, standard input and overrides. Out: one tree of nodes with places, `extends` and overrides applied.
Handles the syntax of configs, not their meaning.
"""
