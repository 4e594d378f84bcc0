"""Real programs, clients and made-up data that tests share."""
