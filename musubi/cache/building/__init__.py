"""Building a cache: look, plan, encode what is not there, write."""
