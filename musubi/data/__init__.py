"""Layer 2: files to samples: sources, windows, buckets, decoding and the dataset that puts them together."""
