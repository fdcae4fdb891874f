"""HunyuanVideo: clips from words, or from a picture and words."""
