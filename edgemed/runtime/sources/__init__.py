"""Where frames come from: memory, files, cameras, video streams. `open.open_source` chooses by an address."""
