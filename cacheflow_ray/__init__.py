"""CacheFlow-Ray: a long-term memory for video."""

__version__ = "0.1.0"
