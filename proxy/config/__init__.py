"""A directory of YAML files as a validated configuration; each mistake with file, line, column."""
