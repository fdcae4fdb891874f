"""Attention that is given only tokens that count: no mask of tokens by tokens, whatever kernel computes it."""
