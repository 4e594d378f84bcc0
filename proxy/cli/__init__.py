"""The `counterfault` command: one module for each subcommand, and the client of the admin API."""
