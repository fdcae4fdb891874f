"""Qwen-Image: text to picture, and editing with one or several pictures."""
