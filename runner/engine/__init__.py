"""Runs plans: the state of a run, and four engines that yield its rows.

In: a plan, and the state to start from. Out: an iterator of rows; the state is changed in place.
An engine decides nothing that the plan can decide.
"""

from runner.engine.engines import execute, execute_together
from runner.engine.rows import Compiling, Row, Rows
from runner.engine.state import State, initial_state
from runner.plan.rows.layout import Columns

__all__ = ["Columns", "Compiling", "Row", "Rows", "State", "execute", "execute_together", "initial_state"]
