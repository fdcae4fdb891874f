"""Layer 1: where weights and activations live, in what precision, and what that costs."""
