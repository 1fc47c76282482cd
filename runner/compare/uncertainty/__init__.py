"""How uncertain the numbers of a run are on any machine, measured by runs whose rounding is perturbed."""
