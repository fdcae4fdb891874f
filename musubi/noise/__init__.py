"""Flow matching: noise levels, loss weights, integration and guidance."""
