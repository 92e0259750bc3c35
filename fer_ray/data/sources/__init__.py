"""Readers of labelled images, one form a file; `detect.open_source` finds the one that fits."""
