"""Shows accounts, queries, rejects and topics in a browser: the page. It needs no JVM, and changes nothing."""
