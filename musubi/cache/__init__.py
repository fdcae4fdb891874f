"""Layer 2: samples to tensors on disk: the build, the manifest that decides what is valid, and the loader."""
