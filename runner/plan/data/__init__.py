"""Data files and sources: headers, shapes, dtypes, casts.

In: paths and columns of a config. Out: source plans, and arrays or rows on request.
Reads only files that the sandbox allows, within size limits.
"""
