"""The page: accounts, queries, rejects and topics in a browser, read without a JVM; it changes nothing."""
