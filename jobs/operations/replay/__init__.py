"""Any range of the past run again beside the live tables, shown to be right, and swapped in."""
