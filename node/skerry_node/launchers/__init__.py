"""Launchers: what starts algorithms. ``launcher`` is the interface, the others are its implementations."""
