"""Layer 0: specs, errors, events and references; never torch."""
