"""The live driver: an asyncio shell around the two machines, and the handles that host replicas."""
