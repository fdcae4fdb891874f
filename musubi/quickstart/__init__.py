"""The embedded demo base model, and ``python -m musubi.quickstart``, which teaches it something new."""
