"""Needle questions about streams of the synthetic world: how often each way of answering is right, and what it costs.

streams     world -> stored streams, and where in them the answers are
policies    which tokens each method answers from (`rekv`: the one that differs per layer)
answering   greedy answers from any context
rows        records of questions -> a table's rows, with intervals
run         everything, in order
"""
