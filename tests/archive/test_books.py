"""What is kept of an archive, and that tenants share nothing of it."""

from __future__ import annotations

from pathlib import Path

from cacheflow_ray.archive.books import Books
from cacheflow_ray.archive.meter import Counts
from cacheflow_ray.archive.records import FileRecord, FileState, JobRecord, JobState, JobTotals, Trouble
from memory_store import Store


def test_tenants_share_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        nobodys, acme, zeta = (Books(store.ledger, tenant) for tenant in ("", "acme", "zeta"))
        of_acme = FileRecord(uri="/v/a.mp4", stream="acme:a", job="1", state=FileState.DONE, content="c" * 32)
        acme.put_files([of_acme])
        acme.put_job(JobRecord(id="1", sources=("/v",)))
        acme.put_totals("1", JobTotals())
        acme.stop_job("1")
        assert acme.claim_content(of_acme.content, "acme:a") == "acme:a"
        for other in (nobodys, zeta):
            assert other.file("/v/a.mp4") is None and other.files() == [] == other.jobs()
            assert other.job("1") is None and other.totals("1") is None and not other.is_stopped("1")
        assert zeta.claim_content(of_acme.content, "zeta:a") == "zeta:a"
        zeta.forget_files([of_acme])
        zeta.forget_job("1")
        zeta.release_content(of_acme.content, "acme:a")
        assert acme.files() == [of_acme] and acme.is_stopped("1")
        assert acme.claim_content(of_acme.content, "acme:b") == "acme:a"


def test_a_job_is_kept_with_all_it_got_through_until_it_is_forgotten(tmp_path: Path) -> None:
    job = JobRecord(id="1", sources=("/v",), state=JobState.FAILED, is_served=True, error="why", error_kind="StoreFull")
    totals = JobTotals(
        files={FileState.DONE: 2, FileState.FAILED: 1},
        already_done=1,
        counts=Counts(frames=3, video_s=1.5),
        busy_s=0.5,
        left=0.25,
        troubles=(Trouble(uri="/v/b.mp4", state=FileState.FAILED, reason="no video"),),
    )
    with Store.open(tmp_path) as store:
        books = Books(store.ledger)
        books.put_job(job)
        books.put_totals("1", totals)
    with Store.open(tmp_path) as store:
        books = Books(store.ledger)
        assert (books.job("1"), books.totals("1")) == (job, totals)
        books.forget_job("1")
        assert books.jobs() == [] and books.totals("1") is None
