"""Decides what is computed next and where its keys and values lie. Standard library only."""
