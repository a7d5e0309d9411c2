"""One module per outside system, source and sink together."""
