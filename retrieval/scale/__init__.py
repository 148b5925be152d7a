"""Indexes larger than memory or one machine, and how short their lists may be."""
