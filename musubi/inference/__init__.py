"""From a prompt and LoRA files to pictures and clips: one engine for pipelines and for samples during training."""
