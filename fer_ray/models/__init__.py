"""The networks, built from plain arguments."""
