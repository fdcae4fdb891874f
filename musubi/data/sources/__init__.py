"""Where items come from: folders, rows, tables, and what belongs to what."""
