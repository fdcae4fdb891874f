"""FLUX.1 Kontext: change a picture as words say."""
