"""Execution: the state of a run, the engines, and the rows they give."""

from runner.engine.engines import Compiling, execute
from runner.engine.rows import Columns, Row
from runner.engine.state import State, initial_state

__all__ = ["Columns", "Compiling", "Row", "State", "execute", "initial_state"]
