"""Files outside of a config: where run directories lie, and safe access to those of a stranger.

In: paths. Out: run and sweep directories, and the content of files below a folder, within size limits.
No link is followed, and no pipe is opened.
"""
