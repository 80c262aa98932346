"""The index question: by which few vectors, at which layers and with which query a block is found again.

corpus      keys, queries and truth of many streams, in memory
scorers     every way of scoring a block that is compared
study       tables of recall, one question after the other
"""
