"""Timestamped OpenRTiST on the Gabriel framework: styles, server, client, traffic generator."""
