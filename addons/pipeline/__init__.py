"""One request through match, assign, inject, perform and observe, and the exchange they share."""
