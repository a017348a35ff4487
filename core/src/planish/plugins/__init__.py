"""Plugins: how they are declared (hookspecs), found and checked (manager), and looked up (registry)."""
