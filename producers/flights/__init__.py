"""Publishes the flights of 2013 as events: the data set, its times, the events and their publishing."""
