"""Runs plans: the state of a run, and three engines that yield its rows.

In: a plan, and the state to start from. Out: an iterator of rows; the state is changed in place.
An engine decides nothing that the plan can decide.
"""

from runner.engine.engines import execute
from runner.engine.rows import Columns, Compiling, Row
from runner.engine.state import State, initial_state

__all__ = ["Columns", "Compiling", "Row", "State", "execute", "initial_state"]
