"""The stages of planning, in order: `declare`, `express`, `finish`.

In: a config and its limits. Out: of each stage a frozen value for the next one, and at last the plan.
"""
