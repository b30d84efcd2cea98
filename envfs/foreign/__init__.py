"""Waiting for foreign KMSs beside an event loop."""
