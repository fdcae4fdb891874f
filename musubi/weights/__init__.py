"""Checkpoints of every common layout, read one tensor at a time."""
