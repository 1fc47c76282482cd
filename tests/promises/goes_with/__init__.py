"""What goes with what: each capability of the language with each of the other things that a run can have."""
