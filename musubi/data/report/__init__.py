"""A scan for people: text, card, figures, page."""
