"""The model families; everything about one model is in its folder."""
