"""What is trained: adapters over the Linears of a frozen model, and the files they are kept in."""
