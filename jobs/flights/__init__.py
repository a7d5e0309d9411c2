"""The flights out of New York's three airports in 2013: who runs late, where, and why."""
