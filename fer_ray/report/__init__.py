"""Offline HTML pages: one file each, with nothing fetched from anywhere."""
