"""HTML, plots and terminal text from plain data; nothing here knows how the data came about."""
