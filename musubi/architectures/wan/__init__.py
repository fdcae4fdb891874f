"""Wan video models."""
