"""Takes, stores, checks and updates snapshots.

In: configs and the files in `snapshots/`. Out: those files, and an outcome for each checked config.
Serves `steprun snapshot`, `steprun check` and the pytest plugin.
"""
