"""Side-by-side measurements; each module is a command that prints its figures. Not part of the wheel."""
