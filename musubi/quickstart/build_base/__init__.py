"""Train the embedded base model of the quickstart from nothing: `python -m musubi.quickstart.build_base --help`."""
