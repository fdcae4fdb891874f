"""Pictures and clips: looking into files, decoding, resizing."""
