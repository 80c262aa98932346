"""Reads everything a shard holds and checks it: values against their checksums, and all of them against each other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

from memory_store import catalog, committing, ledger, lookup, mending, quotas, retention
from memory_store.blobs import Blobs, Snapshot
from memory_store.catalog import StreamEntry, StreamHead
from memory_store.codec import layer_bytes, verify_layers
from memory_store.errors import CorruptRecord
from memory_store.group import GroupWriter

#: Blocks done, of how many, and bytes read so far.
Progress = Callable[[int, int, int], None]

#: Blocks read in one transaction: a long one would keep old pages from being reused.
_BATCH = 64

#: While one of these fails, nothing can be told for an orphan.
_HIDING = ("stream", "totals", "state", "database")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Args:
        stream_id, block_idx: where; None where it is not known, or not of one block.
        what: "kv", "summary", "thumbnail", "age", "state", "stream", "totals", "retention", "session", "note", "quota",
            "orphan" or "database".
        problem: one line.
        mended: what was done about it; "" where nothing was.
    """

    stream_id: str | None
    block_idx: int | None
    what: str
    problem: str
    mended: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was read, and what is wrong with it."""

    streams: int
    blocks: int
    num_bytes: int
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Nothing is wrong, or all of it was mended."""
        return all(finding.mended for finding in self.findings)


@dataclass(slots=True)
class Verifier:
    """Walks one shard; see `Upkeep.verify`.

    Args:
        writer: mends what can be mended; None: nothing is.
        progress: told of blocks, of this shard.
    """

    blobs: Blobs
    writer: GroupWriter | None
    progress: Progress | None
    streams: int = 0
    blocks: int = 0
    num_bytes: int = 0
    total: int = 0
    findings: list[Finding] = field(default_factory=list)

    def run(self) -> VerifyReport:
        try:
            entries = self._entries()
            for entry in entries:
                self._stream(entry)
            self._others()
        except CorruptRecord as error:  # LMDB's own pages
            self._found(None, None, "database", str(error))
        return VerifyReport(
            streams=self.streams, blocks=self.blocks, num_bytes=self.num_bytes, findings=tuple(self.findings)
        )

    def _entries(self) -> list[StreamEntry]:
        entries, bad = [], []
        with self.blobs.read() as snapshot:
            for key, value in snapshot.scan("streams", b""):
                try:
                    entries.append(catalog.decode_entry(key, value))
                except CorruptRecord as error:
                    bad.append((key.decode(errors="replace"), str(error)))
            hidden = snapshot.count("streams") - len(entries) - len(bad)
            for entry in entries:
                try:
                    self.total += catalog.num_blocks(catalog.get_head(snapshot, entry))
                except CorruptRecord:
                    continue  # told when its turn comes
        for name, problem in bad:
            self._found(name, None, "stream", problem)
        if hidden:
            self._found(None, None, "database", f"a damaged page hides {hidden} stream(s): restore a snapshot")
        self.streams = len(entries)
        return entries

    def _stream(self, entry: StreamEntry) -> None:
        before = len(self.findings)
        head = self._head(entry)
        if head:
            live = chain(*head.live)
            while batch := list(islice(live, _BATCH)):
                self._batch(entry, batch)
                self.total = max(self.total, self.blocks)
                if self.progress:
                    self.progress(self.blocks, self.total, self.num_bytes)
        mended = any(finding.mended for finding in self.findings[before:])
        self._totals(entry, recount=mended)

    def _head(self, entry: StreamEntry) -> StreamHead | None:
        """The stream's totals, counted anew where they fail and may be mended; its state and retention on the way."""
        name = entry.record.stream_id
        with self.blobs.read() as snapshot:
            for what, read in (("state", committing.get_state), ("retention", retention.get_policy)):
                try:
                    read(snapshot, entry)
                except CorruptRecord as error:
                    self._found(name, None, what, str(error))
        try:
            with self.blobs.read() as snapshot:
                return catalog.get_head(snapshot, entry)
        except CorruptRecord as error:
            self._found(name, None, "totals", str(error), partial(mending.recount, entry=entry))
        if self.writer is None:
            return None
        with self.blobs.read() as snapshot:
            return catalog.get_head(snapshot, entry)

    def _batch(self, entry: StreamEntry, block_idxs: Sequence[int]) -> None:
        wrong = []
        with self.blobs.read() as snapshot:
            head = catalog.get_head(snapshot, entry)
            for block_idx in block_idxs:
                if head and catalog.within(head.live, range(block_idx, block_idx + 1)):  # or deleted meanwhile
                    wrong += [(block_idx, *found) for found in self._block(snapshot, entry, head, block_idx)]
                self.blocks += 1
        for block_idx, what, problem in wrong:
            change = partial(mending.MENDS[what], entry=entry, block_idx=block_idx)
            self._found(entry.record.stream_id, block_idx, what, problem, change)

    def _block(
        self, snapshot: Snapshot, entry: StreamEntry, head: StreamHead, block_idx: int
    ) -> Iterator[tuple[str, str]]:
        """What is wrong with a live block, and how."""
        checks: list[tuple[str, Callable[[], object]]] = [
            ("summary", lambda: lookup.summary_vectors(snapshot, entry, block_idx, head.summary_shape)),
            ("thumbnail", lambda: lookup.thumbnail(snapshot, entry, block_idx)),
            ("age", lambda: retention.stored_s(snapshot, entry, block_idx)),
            ("kv", lambda: self._kv(snapshot, entry, head, block_idx)),
        ]
        for what, check in checks:
            try:
                check()
            except CorruptRecord as error:
                yield what, str(error)

    def _kv(self, snapshot: Snapshot, entry: StreamEntry, head: StreamHead, block_idx: int) -> None:
        gone = retention.absence(snapshot, entry, block_idx)
        if gone is not None:
            lookup.block_tokens(snapshot, entry, block_idx)
            return
        header, value = lookup.block_header(snapshot, entry, block_idx)
        self.num_bytes += len(value)
        if (header.fingerprint, header.layout) != (entry.record.fingerprint, head.layout):
            raise CorruptRecord("it is of another model or shape than the stream")
        verify_layers(header, layer_bytes(header, value), 0)

    def _totals(self, entry: StreamEntry, *, recount: bool) -> None:
        with self.blobs.read() as snapshot:
            try:
                head, counted = catalog.get_head(snapshot, entry), mending.counted(snapshot, entry)
                state = committing.get_state(snapshot, entry)
            except CorruptRecord:
                return  # told already, and not mended
        name, count = entry.record.stream_id, catalog.num_blocks(head)
        if counted and (head is None or (head.stats, head.live) != (counted.stats, counted.live)):
            if recount and self.writer:
                self.writer.write(partial(mending.recount, entry=entry))
            else:
                problem = f"the totals of stream {name!r} are not those of its blocks"
                self._found(name, None, "totals", problem, partial(mending.recount, entry=entry))
        if state and state.num_blocks != count:
            problem = f"the state of stream {name!r} speaks of {state.num_blocks} blocks, and there are {count}"
            self._found(name, None, "state", problem)

    def _others(self) -> None:
        """What belongs to no stream, or to the whole shard."""
        with self.blobs.read() as snapshot:
            bad_turns, bad_notes = mending.bad_turns(snapshot), ledger.bad_notes(snapshot)
            try:
                quotas.all_quotas(snapshot)
                quota = ""
            except CorruptRecord as error:
                quota = str(error)
            try:
                orphans = mending.orphans(snapshot)
            except CorruptRecord as error:
                orphans = {}
                if not any(finding.what in _HIDING for finding in self.findings):
                    self._found(None, None, "database", str(error))
        if bad_turns:
            problem = f"{len(bad_turns)} conversation(s) fail their checksum"
            self._found(None, None, "session", problem, mending.remove_bad_turns)
        if bad_notes:
            problem = f"{len(bad_notes)} note(s), as of an archive's files, fail their checksum"
            self._found(None, None, "note", problem, ledger.remove_bad_notes)
        if quota:
            self._found(None, None, "quota", quota)
        for table, keys in orphans.items():
            problem = f"{len(keys)} value(s) in {table} belong to no stream or to a block that is not there"
            self._found(None, None, "orphan", problem, mending.remove_orphans)

    def _found(
        self,
        stream_id: str | None,
        block_idx: int | None,
        what: str,
        problem: str,
        mend: Callable[[Snapshot], str] | None = None,
    ) -> None:
        mended = ""
        if mend is not None and self.writer is not None:
            with contextlib.suppress(CorruptRecord):  # something else that fails is in the way
                mended = self.writer.write(mend)
        self.findings.append(
            Finding(stream_id=stream_id, block_idx=block_idx, what=what, problem=problem, mended=mended)
        )
