"""Faults under way: an active fault, paced queues, body edits, and effects on one exchange."""
