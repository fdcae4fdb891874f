"""What tests of your own code may use: a toy architecture that fulfils every contract, and tiny checkpoints."""
