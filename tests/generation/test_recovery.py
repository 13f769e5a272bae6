"""Jobs that came back from a backup end honestly: nobody has them in hand, and what had not finished can be retried."""

from uuid import UUID

from django.utils import timezone

from engarde.common.scopes import tenant_scope
from generation import recovery
from generation.models import Job, JobEvent, JobItem
from tests.generation import house
from tests.people import Person


def lose(studio: Person, job_id: UUID, *, keep: int) -> None:
    """Leave of a job what a backup has: its row, and items that had finished."""
    with tenant_scope(studio.tenant_id):
        JobEvent.objects.filter(job_id=job_id).delete()
        JobItem.objects.filter(job_id=job_id, index__gte=keep).delete()


def test_a_job_that_ran_ends_with_its_missing_items_failed_and_can_be_retried(studio: Person) -> None:
    job_id = house.start(studio, 4)
    house.work(studio, job_id)
    lose(studio, job_id, keep=2)
    with tenant_scope(studio.tenant_id):
        Job.objects.filter(id=job_id).update(status="running", completed=0, last_seq=0)

    recovery.settle_jobs(tenant_id=studio.tenant_id, ids=[job_id], now=timezone.now())

    job = house.job_of(studio, job_id)
    assert (job["status"], job["progress"], job["failed"]) == ("completed_with_errors", 2, 2)
    assert job["errors"] == {recovery.INTERRUPTED: 2}
    assert studio.api.post(f"/api/content/generation-jobs/{job_id}/retry").status_code == 202
    house.work(studio, job_id)
    assert house.job_of(studio, job_id)["status"] == "completed"


def test_a_job_that_had_ended_stays_as_it_was_and_tells_its_items_again(studio: Person) -> None:
    job_id = house.start(studio, 3)
    house.work(studio, job_id)
    before = house.job_of(studio, job_id)
    lose(studio, job_id, keep=3)

    recovery.settle_jobs(tenant_id=studio.tenant_id, ids=[job_id], now=timezone.now())

    assert house.job_of(studio, job_id) == before
    with tenant_scope(studio.tenant_id):
        assert list(JobEvent.objects.filter(job_id=job_id).order_by("seq").values_list("seq", "index")) == [
            (1, 0),
            (2, 1),
            (3, 2),
        ]
        assert Job.objects.get(id=job_id).last_seq == 3
