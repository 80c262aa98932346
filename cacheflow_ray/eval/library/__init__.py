"""Finding one moment in a library of videos: how often, how fast, and what is answered then.

corpus   videos of the world among which some things are to be seen in one alone
run      recall and latency of library search, beside a scan of every stream
"""
