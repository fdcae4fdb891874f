"""Layer 2: cached tensors -> a LoRA file."""
