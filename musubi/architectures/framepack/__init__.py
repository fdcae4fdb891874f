"""FramePack video models."""
