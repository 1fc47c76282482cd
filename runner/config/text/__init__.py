"""YAML text, and the place of every character in it.

In: files, standard input and overrides. Out: a tree of marked nodes, merged and resolved.
Knows the syntax of configs, and nothing of their meaning.
"""
