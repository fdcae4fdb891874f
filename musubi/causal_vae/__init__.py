"""The causal video VAE of 16 channels and stride 8 that several families have: its names, sizes, and coding."""
