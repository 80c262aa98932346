"""Ray actors around the engine: the only importer of ray.

    Director       who runs, and which encoder has which stream
    StoreShard     one data folder and its index      Encoder    frames into blocks
    Answerer       questions                          Host       whatever serves clients

`topology` starts them from one configuration; `cluster` is what a process beside them works with; `api` says what a
service may ask. An actor converts, calls the engine, and converts; no reference of Ray's leaves this package.
"""
