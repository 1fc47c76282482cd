"""The directory of a sweep: part files, the table of its points, the manifest, and reading them back.

In: the rows and the outcomes of points. Out: files that open at any moment, and a `Sweep` that reads them.
"""
