"""Which offsets of which topics each table and output topic holds, and whether that is all of them, each once.

    local/tidemark coverage show
    local/tidemark coverage check

Nothing here needs a JVM: the tables' logs, the ledgers and the topics are read as they are. See docs/coverage.md.
"""
