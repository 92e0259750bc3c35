"""The training engine. No Ray here but in `distributed`."""
