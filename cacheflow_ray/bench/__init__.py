"""How fast the engine, the store and the service are, as ratios inside one run.

engine      the engine in one process (its parts: fetching, ragged, ingesting, questions, resident)
store       the memory store beside the disk and the memory
service     gateway, client and actors beside the engine and beside bare gRPC
results     what a measurement comes to, and its targets; render shows it

Nothing is imported here: processes that play a client or a server import the one module they need.
"""
