"""Modules around a transformer's blocks that several models share: what it is told beside tokens, and its last step."""
