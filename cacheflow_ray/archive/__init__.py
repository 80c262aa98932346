"""Libraries of video files, indexed file by file: what is found, how far each file is, and what became of it.

    find(folders, globs, manifests, addresses) -> plan: what is to be done -> index_file, many at once -> report
                                                   └─────── books: the state of every file, in the store ───────┘

Nothing here knows of Ray: `actors.indexing` runs it on one machine or many.
"""
