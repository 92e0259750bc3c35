"""The one typed config, the YAML it is written in, and its holes."""
