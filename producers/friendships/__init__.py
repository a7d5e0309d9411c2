"""Publishes friendship events, as the people of one region cause them."""
