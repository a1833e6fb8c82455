"""Protecting files and folders."""
